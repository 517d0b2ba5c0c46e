"""Campaigns in plates, against the same written out cell by cell."""

import numpy as np
import pytest

from nextpert.core import Moments, ScreenMoments, random_scm
from nextpert.core.design.goal import Goal
from nextpert.core.evaluate import BY_MEANS, CellPool, PoolEnvironments, Task, replay_plates
from nextpert.core.screen.mean_distance import mean_distance

P, J = 6, 7


def make_pool(n_cells=60, size=1.5, seed=0):
    rng = np.random.default_rng(seed)
    scm = random_scm(P, rng=3)
    shifts = size * rng.normal(size=(J, P)) * (rng.random((J, P)) < 0.5)
    cells = [scm.sample(n_cells + j, shift, rng=rng) for j, shift in enumerate(shifts)]
    return CellPool(scm.sample(200, rng=rng), cells)


@pytest.fixture(scope="module")
def pool():
    return make_pool()


def test_a_deal_keeps_the_cells_of_the_target_apart(pool):
    deal = pool.deal(2, 50, rng=1)
    own = np.arange(pool.start[2], pool.start[3])
    held = np.setdiff1d(own, deal.orders[2])
    assert len(held) == len(own) // 2
    np.testing.assert_allclose(deal.target.states[0], pool.cells[held].mean(axis=0))
    for j in range(J):
        if j != 2:
            every = np.arange(pool.start[j], pool.start[j + 1])
            np.testing.assert_array_equal(np.sort(deal.orders[j]), every)
    np.testing.assert_array_equal(np.sort(deal.first), np.arange(J))


def test_truth_is_by_all_cells(pool):
    truth = pool.truth(3)
    for j in range(J):
        if j == 3:
            assert truth.distance[j] == truth.sd[j] == 0
            continue
        a, b = (pool.cells[pool.start[k] : pool.start[k + 1]] for k in (j, 3))
        noise = (a.var(axis=0, ddof=1) / len(a) + b.var(axis=0, ddof=1) / len(b)).sum()
        apart = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() - noise
        np.testing.assert_allclose(truth.distance[j], apart)
    cells = np.split(pool.cells, pool.start[1:-1])[3]
    control = mean_distance(Moments.from_array(pool.control), Moments.from_array(cells))
    assert (truth.control, truth.control_sd) == (control.estimate, control.sd)


def test_as_good_as_the_best():
    rng = np.random.default_rng(0)
    cells = [rng.normal(mean, size=(400, 4)) for mean in (1.0, 1.0, 0.0, 0.0, 3.0)]
    pool = CellPool(rng.normal(size=(100, 4)), cells)
    assert pool.truth(0).as_good(np.arange(5)).tolist() == [True, True, False, False, False]
    assert pool.truth(0).as_good([2, 3, 4]).tolist() == [True, True, False]
    near = pool.truth(0)._replace(distance=np.array([0.0, 0.19, 0.2]), sd=np.array([0.0, 0.1, 0.1]))
    assert near.as_good([0, 1, 2]).tolist() == [True, True, False]


def test_in_turn_against_the_same_written_out():
    pool = make_pool(n_cells=40, size=0.1)  # what sampling adds decides
    deal = pool.deal(1, 50, rng=3)
    result = replay_plates(
        pool, deal, BY_MEANS["round_robin_means"], None, n_rounds=4, n_perturbations=3, n_cells=8
    )
    seen = {j: [] for j in range(J)}
    for t in range(4):
        tried = sorted(deal.first.tolist(), key=lambda j: len(seen[j]))[:3]  # stable
        assert result.chosen[t].tolist() == tried
        for j in tried:
            start = len(seen[j])
            seen[j] += list(deal.orders[j][start : start + 8])
        cells = {j: pool.cells[rows] for j, rows in seen.items() if rows}
        warmup = pool.control[deal.warmup]
        squares = sum(((x - x.mean(axis=0)) ** 2).sum() for x in [warmup, *cells.values()])
        noise = squares / (len(warmup) - 1 + sum(len(x) - 1 for x in cells.values()))
        apart = {
            j: ((x.mean(axis=0) - deal.target.states[0]) ** 2).sum() - noise / len(x)
            for j, x in cells.items()
        }
        assert result.recommended[t + 1] == min(apart, key=apart.get)


@pytest.mark.parametrize("off", [0.0, 7.0])
def test_batches_are_taken_off_by_the_cells_seen(off):
    """The candidates have most of their cells in another batch each, which is farther off.

    The last gene is the same in all cells.
    """
    rng = np.random.default_rng(0)
    share = np.array([0.5, 0.9, 0.1])
    batch = [(np.arange(n) >= s * n).astype(int) for n, s in zip((300, 90, 90), share, strict=True)]
    means = np.array([0.0, 1.0, -1.0])
    cells = [
        np.hstack([mean + off * b[:, None] + rng.normal(size=(len(b), 3)), np.zeros((len(b), 1))])
        for mean, b in zip(means, batch, strict=True)
    ]
    code = [2 * j + b for j, b in enumerate(batch)]
    group = np.repeat(np.arange(3), 2)
    its = PoolEnvironments(
        group, group, np.zeros(6, int), np.tile([[0.0], [1.0]], (3, 1)), code[0],
        np.concatenate(code[1:]),
    )  # fmt: skip
    screen = ScreenMoments.from_array(np.vstack(cells), np.concatenate(code), 6)
    centre = off * np.mean(np.concatenate(batch))
    for want, mean in enumerate(means[1:]):
        goal = Goal.point(np.append(np.full(3, mean + centre), 0.0))
        task = Task(goal, its, np.array([0, 1]), 5, rng)
        best, plate = BY_MEANS["thompson_means"](task, screen, np.arange(2), 1)
        assert best == plate[0] == want
