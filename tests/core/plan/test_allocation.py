"""Continuous plates: the criterion against one step of cells, slopes, SLSQP, and bounds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from nextpert.core.acquisition.uncertain_civ import UncertainCiv
from nextpert.core.plan import allocation
from nextpert.core.plan._plate_criterion import PlateCriterion
from nextpert.core.plan.allocation import Limits, allocate_cells
from nextpert.core.posterior.shift_posterior import ShiftPosterior
from nextpert.core.predict.goal import Goal


def by_slsqp(criterion, n_cells, scale, low, high):
    """Return the least value a general solver finds, over the same function."""
    m = criterion.size
    working = criterion.work_on(np.arange(m))

    def cells(z):
        return np.clip(z, low / n_cells, high / n_cells) * n_cells

    start = low + (n_cells - low.sum()) * (high - low) / (high - low).sum()
    found = minimize(
        lambda z: working.look(cells(z)).value / scale,
        start / n_cells,
        jac=lambda z: working.look(cells(z)).slopes() * n_cells / scale,
        bounds=list(zip(low / n_cells, high / n_cells, strict=True)),
        constraints={"type": "eq", "fun": lambda z: z.sum() - 1, "jac": lambda z: np.ones(m)},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return working.look(cells(found.x) * n_cells / cells(found.x).sum()).value


@pytest.mark.parametrize("make", ["one", "several", "weighted"])
@pytest.mark.parametrize("seed", range(3))
def test_criterion_is_that_of_cells_taken_one_well_after_the_other(seed, make, pools):
    blr, known, target, _ = getattr(pools, make)(seed)
    civ = UncertainCiv(blr, known, target, n_cells=20, noise_aware=True)
    criterion = PlateCriterion(blr, known, target, 80, gap_cells=20)
    removed = civ.removed_after([0, 1, 0])
    for j in range(criterion.size):
        cells = 20.0 * np.bincount([0, 1, 0, j], minlength=criterion.size)
        found = 1 - pools.look(criterion, cells).value / criterion.before()
        np.testing.assert_allclose(found, removed[j], rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_criterion_of_a_goal_that_is_no_point(seed, pools):
    blr, known, target, rng = pools.weighted(seed)
    low = np.full(len(target), -np.inf)
    low[:2] = 1.0
    goal = Goal(np.zeros(len(target)), low=low, weights=rng.random(len(target)) + 0.1)
    civ = UncertainCiv(blr, known, goal, n_cells=20, noise_aware=True)
    criterion = PlateCriterion(blr, known, goal, 40, gap_cells=20)
    removed, plain = civ.removed_after([0]), PlateCriterion(blr, known, target, 40, gap_cells=20)
    for j in range(criterion.size):
        cells = 20.0 * np.bincount([0, j], minlength=criterion.size)
        found = 1 - pools.look(criterion, cells).value / criterion.before()
        np.testing.assert_allclose(found, removed[j], rtol=1e-9)
    assert plain.before() != pytest.approx(criterion.before())


@pytest.mark.parametrize("make", ["one", "several", "weighted"])
@pytest.mark.parametrize("seed", range(4))
def test_slopes_and_curvatures_by_finite_differences(seed, make, pools):
    blr, known, target, rng = getattr(pools, make)(seed)
    criterion = PlateCriterion(blr, known, target, 100)
    every = np.arange(criterion.size)
    cells = 10 * rng.random(criterion.size)
    cells[rng.random(criterion.size) < 0.3] = 0
    found, working = pools.look(criterion, cells).all_slopes(), criterion.work_on(every)

    def value(j, h):
        return working.look(cells + h * (every == j)).value

    h = 1e-4  # one-sided, for there are no negative cells
    wanted = [(-3 * value(j, 0) + 4 * value(j, h) - value(j, 2 * h)) / (2 * h) for j in every]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6 * np.abs(found).max())
    inside = working.look(cells + 1)
    wanted = [
        (working.look(cells + 1 + h * (every == j)).slopes()
         - working.look(cells + 1 - h * (every == j)).slopes()) / (2 * h) for j in every
    ]  # fmt: skip
    curves = inside.curvature(every)
    np.testing.assert_allclose(curves, wanted, rtol=1e-5, atol=1e-6 * np.abs(curves).max())
    assert np.linalg.eigvalsh(curves).min() > -1e-12 * np.abs(curves).max()  # convex


@pytest.mark.parametrize("seed", range(30))
def test_no_solver_finds_better_and_the_certificate_holds(seed, pools):
    blr, known, target, rng = (pools.several if seed % 5 == 4 else pools.one)(seed)
    m, n_cells = known.n_perturbations, float(10 ** rng.uniform(1, 4))
    low, high = np.zeros(m), np.full(m, n_cells)
    if seed % 3 == 2:
        low = rng.random(m) * n_cells / m / 2
        high = low + rng.uniform(1, 2, m) * n_cells / m
    pending = rng.integers(0, 50, m) * (rng.random(m) < 0.3)
    plate = allocate_cells(
        blr, known, target, n_cells, least=low, most=high, pending=pending, tolerance=1e-8
    )  # fmt: skip
    np.testing.assert_allclose(plate.cells.sum(), n_cells)
    assert (plate.cells >= low).all()
    assert (plate.cells <= high).all()
    assert plate.within < 1e-6
    criterion = PlateCriterion(blr, known, target, n_cells, pending=pending)
    np.testing.assert_allclose(pools.look(criterion, plate.cells).value, plate.value, rtol=1e-9)
    best = by_slsqp(criterion, n_cells, plate.value, low, high)
    assert plate.value < best * (1 + 1e-6)
    # Wherever the steps end, nothing is better than the certificate allows.
    early = allocate_cells(
        blr, known, target, n_cells, least=low, most=high, pending=pending, max_steps=seed % 3
    )  # fmt: skip
    assert early.value - early.gap <= plate.value * (1 + 1e-9)
    assert early.value >= plate.value * (1 - 1e-9)


def test_costs_buy_fewer_cells(pools):
    blr, known, target, rng = pools.one(1)
    m = known.n_perturbations
    costs = rng.uniform(0.5, 3, m)
    plate = allocate_cells(blr, known, target, 200, costs=costs, tolerance=1e-8)
    np.testing.assert_allclose(costs @ plate.cells, 200)
    criterion = PlateCriterion(blr, known, target, 200)
    for share in rng.dirichlet(np.full(m, 0.5), size=200):
        assert pools.look(criterion, 200 * share / costs).value >= plate.value


def test_impossible_bounds_are_refused(pools):
    blr, known, target, _ = pools.one(2)
    m = known.n_perturbations
    with pytest.raises(ValueError, match="least cells of all candidates cost"):
        allocate_cells(blr, known, target, 10, least=11)
    with pytest.raises(ValueError, match="most cells of all candidates cost"):
        allocate_cells(blr, known, target, 10, most=1 / m)
    with pytest.raises(ValueError, match="least no more than most"):
        allocate_cells(blr, known, target, 10, least=2, most=1)
    with pytest.raises(ValueError, match="must cost more than 0"):
        allocate_cells(blr, known, target, 10, costs=np.zeros(m))
    with pytest.raises(ValueError, match="pending"):
        allocate_cells(blr, known, target, 10, pending=-np.ones(m))


@pytest.mark.parametrize(("spare", "n_cells"), [(0.0, 50), (0.3, 2000)])
def test_many_candidates_by_scaling_and_by_newton_steps(spare, n_cells, pools, monkeypatch):
    blr, _, target, rng = pools.one(5)
    prior = rng.normal(size=(400, blr.n_nodes))
    known = ShiftPosterior.exact(prior)
    known = ShiftPosterior(known.n, known.mean, prior, known.share, np.full(prior.shape, spare))
    found = allocate_cells(blr, known, target, n_cells, tolerance=1e-6)
    assert found.within < 1e-6
    used = (found.cells > 0).sum()
    assert used > 300 if spare else used < 30
    monkeypatch.setattr(allocation, "_FEW", 1000)
    best = allocate_cells(blr, known, target, n_cells, tolerance=1e-8)
    assert best.value * (1 - 1e-8) <= found.value <= best.value * (1 + 1e-6)


@pytest.mark.parametrize("seed", range(30))
def test_the_cheapest_cells_by_a_linear_program(seed):
    rng = np.random.default_rng(seed)
    m = int(rng.integers(1, 8))
    cost, least = rng.uniform(0.3, 3, m), rng.random(m) * (rng.random(m) < 0.5)
    most = least + rng.uniform(0, 5, m)
    budget = float(cost @ least + rng.uniform(0, 1) * (cost @ (most - least)))
    if seed % 3 == 0:  # nothing to spare, but for rounding either way
        budget = float(cost @ least) * (1 + rng.choice([-1, 1]) * 1e-15)
    slopes = -rng.random(m)
    cells = Limits(cost, least, most, budget).cheapest(slopes)
    assert (cells >= least).all()
    assert (cells <= most).all()
    best = linprog(slopes, cost[None], [budget + 1e-9], bounds=np.column_stack([least, most])).fun
    assert slopes @ cells == pytest.approx(best, rel=1e-6)


class Along:
    """What a plate gains along a line, as a criterion would tell: ``slope_at(share)``."""

    def __init__(self, slope_at):
        self.slope_at, self.looks = slope_at, 0

    def look(self, cells):
        self.looks += 1
        return Slope(self.slope_at(float(cells[0])))


class Slope:
    def __init__(self, slope):
        self.slope = slope

    def slopes(self):
        return np.array([self.slope])


def search(slope_at):
    line = Along(slope_at)
    share, found = allocation._search_line(line, Slope(slope_at(0.0)), np.zeros(1), np.ones(1))
    assert found.slope == slope_at(share)
    return share, line.looks


@pytest.mark.parametrize("best", [0.06, 0.3, 0.5, 0.8])
def test_a_secant_finds_the_least_of_a_parabola_at_once(best):
    share, looks = search(lambda x: x - best)
    assert share == pytest.approx(best, rel=1e-9)
    assert looks == 2


@pytest.mark.parametrize("best", [0.2, 0.6])
@pytest.mark.parametrize("power", [0.2, 3, 9])
def test_the_slope_left_on_a_line_is_a_tenth_at_most(best, power):
    share, looks = search(lambda x: x**power - best**power)
    assert abs(share**power - best**power) <= 0.1 * best**power
    assert looks <= 30


def test_a_line_is_not_gone_uphill_and_gone_whole_where_it_falls_on():
    assert search(lambda x: 1.0 + x) == (0.0, 0)
    assert search(lambda x: x - 2.0) == (1.0, 1)
