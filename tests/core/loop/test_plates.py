"""Campaigns in plates, against the same written out cell by cell."""

import numpy as np
import pytest

from nextpert.core import Dag, Moments, random_scm
from nextpert.core.cells.mean_distance import mean_distance
from nextpert.core.loop.cell_pool import CellPool
from nextpert.core.loop.plates import replay_plates
from nextpert.core.loop.strategies import EXACT, strategies

P, J = 6, 7
EMPTY = Dag.from_edges(P, [])


def make_pool(n_cells=60, size=1.5, seed=0):
    rng = np.random.default_rng(seed)
    scm = random_scm(P, rng=3)
    shifts = size * rng.normal(size=(J, P)) * (rng.random((J, P)) < 0.5)
    cells = [scm.sample(n_cells + j, shift, rng=rng) for j, shift in enumerate(shifts)]
    full = np.where(np.arange(P) == np.arange(J)[:, None], shifts[:, :P], 0.0)
    return CellPool(scm.sample(200, rng=rng), cells, full)


@pytest.fixture(scope="module")
def pool():
    return make_pool()


def test_a_deal_keeps_the_cells_of_the_target_apart(pool):
    deal = pool.deal(2, 50, rng=1)
    own = np.arange(pool.start[2], pool.start[3])
    held = np.setdiff1d(own, deal.orders[2])
    assert len(held) == len(own) // 2
    np.testing.assert_allclose(deal.target_mean, pool.cells[held].mean(axis=0))
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
    pool = CellPool(rng.normal(size=(100, 4)), cells, np.zeros((5, 4)))
    assert pool.as_good(0, np.arange(5)).tolist() == [True, True, False, False, False]
    assert pool.as_good(0, [2, 3, 4]).tolist() == [True, True, False]


@pytest.mark.parametrize("strategy", strategies())
def test_cells_are_drawn_once_and_from_candidates_alone(pool, strategy):
    deal, may = pool.deal(4, 50, rng=2), [0, 2, 4, 5]
    options = {"candidates": may, "n_rounds": 9, "n_perturbations": 3, "n_cells": 20}
    result = replay_plates(pool, deal, EMPTY, strategy, rng=5, **options)
    again = replay_plates(pool, deal, EMPTY, strategy, rng=5, **options)
    np.testing.assert_array_equal(result.chosen, again.chosen)
    np.testing.assert_array_equal(result.recommended, again.recommended)
    assert set(result.recommended) <= set(may)
    taken = result.chosen[result.chosen >= 0]
    assert set(taken) <= set(may)
    for plate in result.chosen:
        kept = plate[plate >= 0]
        assert len(kept) == len(set(kept))
    for j in may:
        assert (taken == j).sum() <= -(-len(deal.orders[j]) // 20)
    # 12 plates' worth of cells at most, and nothing left at the end: the recommendation stays.
    if (result.chosen[-1] < 0).all():
        assert result.recommended[-1] == result.recommended[-2]


def test_in_turn_against_the_same_written_out(pool):
    deal = pool.deal(1, 50, rng=3)
    result = replay_plates(
        pool, deal, EMPTY, "means_in_turn", n_rounds=4, n_perturbations=3, n_cells=8
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
            j: ((x.mean(axis=0) - deal.target_mean) ** 2).sum() - noise / len(x)
            for j, x in cells.items()
        }
        assert result.recommended[t + 1] == min(apart, key=apart.get)


@pytest.mark.parametrize("strategy", ["best", "probability", "ei", "thompson", "civ", "random"])
def test_strategies_find_a_target_that_stands_out(strategy):
    # Two pools: any way of choosing misses one or two of the seven targets of one.
    found = []
    for seed in (1, 2):
        pool = make_pool(200, size=4.0, seed=seed)
        for t in range(J):
            deal = pool.deal(t, 100, rng=t)
            result = replay_plates(
                pool, deal, EMPTY, strategy, n_rounds=4, n_perturbations=2, rng=t
            )
            found.append(result.recommended[-1] == t)
    assert np.mean(found) > 0.8


@pytest.mark.parametrize("strategy", EXACT)
def test_exact_shifts_that_are_right_need_no_cells(strategy):
    rng, scm = np.random.default_rng(0), random_scm(P, rng=3)
    shifts = 3.0 * np.eye(P)
    cells = [scm.sample(100, shift, rng=rng) for shift in shifts]
    pool = CellPool(scm.sample(2000, rng=rng), cells, shifts)
    for t in range(P):
        deal = pool.deal(t, 1500, rng=t)
        result = replay_plates(pool, deal, scm.dag, strategy, n_rounds=1, rng=0)
        assert result.recommended.tolist() == [t, t]


def test_a_measured_own_gene_points_to_its_perturbation():
    rng = np.random.default_rng(0)
    mean = np.full(P, 2.0)
    cells = [rng.normal(mean - 2.0 * (np.arange(P) == j), 0.3, (40, P)) for j in range(P)]
    pool = CellPool(rng.normal(mean, 0.3, (100, P)), cells, -2.0 * np.eye(P))
    for t in range(P):
        result = replay_plates(pool, pool.deal(t, 50, rng=t), EMPTY, "random", n_rounds=0, rng=0)
        assert result.recommended.tolist() == [t]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "guess"}, "Unknown criterion 'guess'"),
        ({"candidates": []}, "at least one perturbation"),
        ({"candidates": [1, 1]}, "each once"),
        ({"candidates": [J]}, f"candidates holds {J}"),
        ({"n_perturbations": 0}, "n_perturbations"),
        ({"n_cells": 0}, "n_cells"),
    ],
)
def test_errors_of_campaigns(pool, change, message):
    with pytest.raises(ValueError, match=message):
        replay_plates(pool, pool.deal(0, 20, rng=0), EMPTY, **change)


def test_errors_of_pools(pool):
    control, cells = np.zeros((9, 2)), [np.zeros((5, 2))]
    with pytest.raises(ValueError, match="as many shifts"):
        CellPool(control, cells, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="perturbation 0 must be a matrix with at least 4 rows"):
        CellPool(control, [np.zeros((3, 2))], np.zeros((1, 2)))
    with pytest.raises(ValueError, match="NaN"):
        CellPool(control, [np.full((5, 2), np.nan)], np.zeros((1, 2)))
    with pytest.raises(ValueError, match="n_warmup is 500, but there are 200 control cells"):
        pool.deal(0, 500)
