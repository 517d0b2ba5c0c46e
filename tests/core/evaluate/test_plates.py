"""Campaigns in plates, against the same written out cell by cell."""

import numpy as np
import pytest

from nextpert.core import Moments, ScreenMoments, random_scm
from nextpert.core.evaluate.cell_pool import CellPool, PoolEnvironments
from nextpert.core.evaluate.strategies import Means, replay_plates
from nextpert.core.screen.mean_distance import mean_distance

P, J = 6, 7


def make_pool(n_cells=60, size=1.5, seed=0):
    rng = np.random.default_rng(seed)
    scm = random_scm(P, rng=3)
    shifts = size * rng.normal(size=(J, P)) * (rng.random((J, P)) < 0.5)
    cells = [scm.sample(n_cells + j, shift, rng=rng) for j, shift in enumerate(shifts)]
    return CellPool(scm.sample(200, rng=rng), cells)


def by_means(name, pool, deal, rng=0):
    return lambda may: Means(name, deal.target, pool.environments, may, np.random.default_rng(rng))


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
    control = mean_distance(Moments.from_array(pool.control), pool.moments(3))
    assert (truth.control, truth.control_sd) == (control.estimate, control.sd)


def test_as_good_as_the_best():
    rng = np.random.default_rng(0)
    cells = [rng.normal(mean, size=(400, 4)) for mean in (1.0, 1.0, 0.0, 0.0, 3.0)]
    pool = CellPool(rng.normal(size=(100, 4)), cells)
    assert pool.truth(0).as_good(np.arange(5)).tolist() == [True, True, False, False, False]
    assert pool.truth(0).as_good([2, 3, 4]).tolist() == [True, True, False]


def test_in_turn_against_the_same_written_out():
    pool = make_pool(n_cells=40, size=0.1)  # what sampling adds decides
    deal = pool.deal(1, 50, rng=3)
    build = by_means("round_robin_means", pool, deal)
    result = replay_plates(pool, deal, build, n_rounds=4, n_perturbations=3, n_cells=8)
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


def test_batches_are_taken_off_by_the_cells_seen():
    rng = np.random.default_rng(0)
    batch = [rng.integers(2, size=n) for n in (300, 90, 90, 90)]
    means = np.array([0.0, 0.0, 1.0, -1.0])[:, None]
    off = np.array([0.0, 7.0])
    cells = [
        rng.normal(mean, size=(len(b), 3)) + off[b][:, None]
        for mean, b in zip(means, batch, strict=True)
    ]
    code = [2 * j + b for j, b in enumerate(batch)]
    group = np.repeat(np.arange(4), 2)
    told = PoolEnvironments(
        group, group, np.zeros(8, int), np.tile([[0.0], [1.0]], (4, 1)), code[0],
        np.concatenate(code[1:]),
    )  # fmt: skip
    pool = CellPool(cells[0], cells[1:], told)
    found = Means("round_robin_means", None, told, np.array([2, 0]), rng)
    which = np.concatenate([told.control, told.cells])
    found.see(ScreenMoments.from_array(np.vstack([pool.control, pool.cells]), which, 8))
    assert found.screen.n.tolist() == [300, 90, 90]
    # Those of candidates 2 and 0, less the controls; of the third nothing was asked.
    away = found.screen.mean[1:] - found.screen.mean[0]
    np.testing.assert_allclose(away.mean(axis=1), [-1, 0], atol=0.2)
    np.testing.assert_allclose(found.noise, 1.0, atol=0.2)


def test_cells_that_are_no_numbers_are_named():
    with pytest.raises(ValueError, match="NaN"):
        CellPool(np.zeros((9, 2)), [np.full((5, 2), np.nan)])
