"""The bound on whole plates against exhaustive search, and its parts against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from nextpert.core.plan._plate_criterion import PlateCriterion
from nextpert.core.plan._spend_kernel import spend
from nextpert.core.plan.allocation import allocate, allocate_cells, read_limits
from nextpert.core.plan.whole_bound import Wells, _best_plates, bound_plates


@pytest.mark.parametrize("seed", range(60))
def test_no_plate_is_below_it(seed, pools):
    maker = (pools.one, pools.one, pools.several, pools.weighted)[seed % 4]
    blr, known, target, rng = maker(seed)
    m = (known[0] if isinstance(known, list) else known).n_perturbations
    n_cells = int(10 ** rng.uniform(1.5, 3))
    k, least = int(rng.integers(1, min(m, 3 if m < 6 else 2) + 1)), int(rng.integers(1, 10))
    most = np.full(m, float(n_cells))
    if seed % 3 == 0:  # all the same, or some barred, or cells under way
        least = n_cells // k
        n_cells, most = least * k, np.full(m, float(least))
    if seed % 5 == 0 and m > k:
        most[int(rng.integers(m))] = 0.0
    pending = rng.integers(0, 50, m) * (rng.random(m) < 0.3) if seed % 7 == 0 else None
    criterion = PlateCriterion(blr, known, target, n_cells, pending=pending)
    allowed = np.flatnonzero(most)
    must = [int(allowed[-1])] if seed % 4 == 0 else []
    best, cells = np.inf, np.zeros(m)
    for chosen in itertools.combinations(allowed, k):
        if not set(must) <= set(chosen):
            continue
        low, high = np.zeros(m), np.zeros(m)
        low[list(chosen)], high[list(chosen)] = least, most[list(chosen)]
        limits = read_limits(m, float(n_cells), None, low, high)
        found = allocate(criterion, limits, 1e-6)
        if found.value < best:
            best, cells = found.value, found.cells
    for start in (cells, rng.random(m)):  # a good one, and one that is no plate
        for steps in (0, 3):
            wells = Wells(k, n_cells, least, most, must)
            bound = bound_plates(criterion, wells, start, 1e-6, steps)
            assert bound <= best * (1 + 1e-9)
    if k == len(allowed) and least * k == n_cells:  # one plate only
        assert bound_plates(criterion, wells, cells, 1e-9) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_it_is_nearer_than_that_of_continuous_plates(seed, pools):
    blr, known, target, _ = pools.one(seed)
    m = known.n_perturbations
    criterion = PlateCriterion(blr, known, target, 300)
    free = allocate_cells(blr, known, target, 300, tolerance=1e-6)
    start = np.full(m, 300 / m)
    one = bound_plates(criterion, Wells(1, 300, 1, np.full(m, 300.0)), start, 1e-6, 30)
    assert one >= free.value * (1 - 1e-3)
    if m > 2:
        two = bound_plates(criterion, Wells(2, 300, 1, np.full(m, 300.0)), start, 1e-6, 30)
        assert two <= one * (1 + 1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_criterion_and_slopes_in_what_cells_tell(seed, pools):
    blr, known, target, rng = (pools.several if seed % 2 else pools.one)(seed)
    m = known.n_perturbations
    criterion = PlateCriterion(blr, known, target, 100)
    working = criterion.work_on(np.arange(m))
    cells = 20 * rng.random(m) * (rng.random(m) < 0.7)
    spare = np.vstack([part.spare for part in criterion.parts])
    told = cells / (1 + cells * spare)
    look = working.look_told(told)
    np.testing.assert_allclose(look.value, working.look(cells).value, rtol=1e-9)
    slopes = look.node_slopes()
    for _ in range(5):
        i, j = int(rng.integers(len(told))), int(rng.integers(m))
        step = np.zeros_like(told)
        step[i, j] = 1e-4 * (1 + told[i, j])
        low, middle, high = (working.look_told(told + h * step) for h in (0, 1, 2))
        rise = (high.value - low.value) / (2 * step[i, j])
        np.testing.assert_allclose(
            middle.node_slopes()[i, j], rise, rtol=1e-3, atol=1e-6 * abs(slopes).max()
        )
    # Those without cells, which enter by sums, have the slopes they have one by one.
    few = criterion.work_on(np.flatnonzero(cells))
    sums = few.look_told(told[:, few.columns]).all_node_slopes()
    np.testing.assert_allclose(sums, slopes, rtol=1e-6, atol=1e-9 * abs(slopes).max())


def test_cells_at_a_price_and_the_best_plates_by_search():
    rng = np.random.default_rng(0)
    m, p, each = 5, 3, np.linspace(2, 40, 4000)
    falls, spare = rng.random((m, p)), 10 ** rng.uniform(-3, 0, (m, p))
    pending = np.array([0.0, 3.0, 0.0, 0.0, 10.0])

    def gain(j, n):
        total = np.asarray(n)[:, None] + pending[j]
        told = total / (1 + total * spare[j]) - pending[j] / (1 + pending[j] * spare[j])
        return told @ falls[j]

    cells, gains = np.empty(m), np.empty(m)
    for price in (0.0, 0.01, 0.2, 5.0):
        most = np.full(m, 40.0)
        spend(falls, spare, pending, np.arange(m), price, 2.0, most, cells, gains)
        for j in range(m):
            wanted = (gain(j, each) - price * each).max()
            assert wanted - 1e-9 <= gains[j] <= wanted + 1e-3
    wells = Wells(2, 40.0, 2.0, np.full(m, 40.0))
    best = max(
        (gain(i, n) + gain(j, 40 - n)).max()
        for i, j in itertools.combinations(range(m), 2)
        for n in [np.linspace(2, 38, 2000)]
    )
    found, mixed = _best_plates(falls.T, spare, pending, wells)
    assert best <= found + 1e-9
    assert sum(share for share, _, _ in mixed) == pytest.approx(1)
    assert sum(share * n.sum() for share, _, n in mixed) == pytest.approx(40, rel=1e-4)
    assert sum(
        share * gain(j, [x])[0]
        for share, some, n in mixed
        for j, x in zip(some, n, strict=True)
    ) == pytest.approx(found, rel=1e-4)  # fmt: skip


def mixed_by_grid(gain, wells, room, points=60):
    """The most that mixtures of plates of two wells gain: a linear program over a grid of them."""
    gains, totals = [], []
    for i, j in itertools.combinations(range(len(room)), 2):
        ni, nj = np.meshgrid(
            *(np.linspace(wells.least, room[k], points) for k in (i, j)), indexing="ij"
        )
        gains.append(gain(i, ni.ravel()) + gain(j, nj.ravel()))
        totals.append((ni + nj).ravel())
    gains, totals = np.concatenate(gains), np.concatenate(totals)
    ones = np.ones((1, len(gains)))
    return -linprog(-gains, totals[None], [wells.n_cells], ones, [1.0]).fun


@pytest.mark.parametrize("seed", range(4))
def test_the_best_mixture_of_plates_by_a_linear_program(seed):
    """Few cells are best spent on two candidates soon known, many on two that are never."""
    rng = np.random.default_rng(seed)
    falls = np.array([[3.0], [2.5], [0.2], [0.18]]) * rng.uniform(0.9, 1.1, (4, 1))
    spare = np.array([[1.0], [1.0], [0.0], [0.0]])
    wells = Wells(2, 12.0, 1.0, np.array([50.0, 50.0, 50.0, 9.0]))
    room = np.array([11.0, 11.0, 11.0, 9.0])  # the other well has a cell at least

    def gain(j, n):
        return falls[j, 0] * n / (1 + n * spare[j, 0])

    found, mixed = _best_plates(falls.T, spare, np.zeros(4), wells)
    best = mixed_by_grid(gain, wells, room)
    assert best * (1 - 1e-9) <= found <= best * (1 + 2e-3)
    assert all((n <= room[some]).all() for _, some, n in mixed)


def test_two_plates_are_mixed_such_that_all_cells_are_spent():
    """Each cell of a candidate is worth the same: it takes the least or the most it may."""
    falls = np.array([[2.0, 1.0, 0.5]])
    wells = Wells(2, 40.0, 2.0, np.full(3, 30.0))
    found, mixed = _best_plates(falls, np.zeros((3, 1)), np.zeros(3), wells)
    assert found == pytest.approx(30 * 2.0 + 10 * 1.0, rel=1e-6)
    assert sorted(n.sum() for _, _, n in mixed) == [32, 60]
    assert sum(share * n.sum() for share, _, n in mixed) == pytest.approx(40, rel=1e-9)
