"""CIV after the cells of a plate: against one step of cells after the other, and differences."""

from __future__ import annotations

import numpy as np
import pytest
from nextpert.core.design.uncertain_civ import UncertainCiv

from nextpert.core.design.goal import Goal
from nextpert.core.design.plate import PlateCiv


def unit(size, j):
    return (np.arange(size) == j).astype(float)


@pytest.mark.parametrize("make", ["one", "several", "weighted"])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_that_of_cells_taken_one_well_after_the_other(seed, make, pools):
    blr, known, target, _ = getattr(pools, make)(seed)
    one_by_one = UncertainCiv(blr, known, target, n_cells=20, noise_aware=True)
    removed = one_by_one.variance_reduction_after([0, 1, 0])
    civ = PlateCiv(blr, known, target, gap_cells=20)
    for j in range(civ.size):
        cells = 20.0 * np.bincount([0, 1, 0, j], minlength=civ.size)
        np.testing.assert_allclose(civ.after(cells).variance_reduction, removed[j], rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_a_goal_that_is_no_point(seed, pools):
    blr, known, target, rng = pools.weighted(seed)
    low = np.full(len(target), -np.inf)
    low[:2] = 1.0
    goal = Goal(np.zeros(len(target)), low=low, weights=rng.random(len(target)) + 0.1)
    removed = UncertainCiv(blr, known, goal, n_cells=20, noise_aware=True).variance_reduction_after(
        [0]
    )
    civ, plain = (PlateCiv(blr, known, each, gap_cells=20) for each in (goal, target))
    for j in range(civ.size):
        cells = 20.0 * np.bincount([0, j], minlength=civ.size)
        np.testing.assert_allclose(civ.after(cells).variance_reduction, removed[j], rtol=1e-9)
    assert plain.after(cells).before != pytest.approx(civ.after(cells).before)


@pytest.mark.parametrize("make", ["one", "several", "weighted"])
@pytest.mark.parametrize("seed", range(4))
def test_changes_and_slopes_by_looking_at_each(seed, make, pools):
    blr, known, target, rng = getattr(pools, make)(seed)
    civ = PlateCiv(blr, known, target, gap_cells=100)
    cells, every = 10.0 * (rng.random(civ.size) < 0.4), np.arange(civ.size)
    now = civ.after(cells, 100)

    def value(j, n):
        return civ.after(cells + n * unit(civ.size, j), 100).value

    wanted = [value(j, 7) - now.value for j in every]
    # Cells of another total asked between do not matter.
    civ.after(cells, 3000)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(now.changes(every, 7), wanted, rtol=1e-6, atol=1e-9 * scale)
    some = every[::-2]
    np.testing.assert_allclose(now.changes(some, 7), now.changes(every, 7)[some], rtol=1e-12)
    h = 1e-4  # one-sided, for there are no negative cells
    wanted = [(-3 * value(j, 0) + 4 * value(j, h) - value(j, 2 * h)) / (2 * h) for j in every]
    slopes = now.slopes(every)
    np.testing.assert_allclose(slopes, wanted, rtol=1e-4, atol=1e-6 * np.abs(slopes).max())


@pytest.mark.parametrize("seed", range(10))
def test_it_is_convex_in_the_cells(seed, pools):
    blr, known, target, rng = pools.one(seed)
    civ = PlateCiv(blr, known, target, gap_cells=20)
    for _ in range(20):
        one, two = 200 * rng.dirichlet(np.full(civ.size, 0.5), size=2)
        a, b, middle = (civ.after(cells, 200).value for cells in (one, two, (one + two) / 2))
        assert middle <= (a + b) / 2 * (1 + 1e-12)


def test_gains_are_what_one_more_well_takes(pools):
    blr, known, target, _ = pools.one(5)
    civ = PlateCiv(blr, known, target, gap_cells=20)
    removed = UncertainCiv(
        blr, known, target, n_cells=20, noise_aware=True
    ).variance_reduction_after([1])
    before = civ.after(20 * unit(civ.size, 1), 40)
    gain = civ.gain([1], 20)(np.arange(civ.size))
    np.testing.assert_allclose(before.variance_reduction + gain / before.before, removed, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_shares_removed_are_those_of_the_acquisition_where_cells_are_alike(seed, pools):
    blr, known, target, _ = (pools.several if seed % 2 else pools.one)(seed)
    chosen = list(range(min(known.n_perturbations, 3)))
    one_by_one = UncertainCiv(blr, known, target, n_cells=20, noise_aware=True)
    wanted = [one_by_one.variance_reduction_after(chosen[:i])[j] for i, j in enumerate(chosen)]
    civ = PlateCiv(blr, known, target, gap_cells=20)
    found = civ.removed_by_wells(chosen, [20] * len(chosen))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_cells_under_way_count_as_if_measured(pools):
    blr, known, target, _ = pools.one(5)
    cells = np.array([40.0, 20.0])
    civ = PlateCiv(blr, known, target, gap_cells=60)
    found = civ.removed_by_wells([0, 2], cells)
    assert 0 < found[0] < found[1]
    later = PlateCiv(blr, known, target, gap_cells=60, pending=40 * unit(civ.size, 0))
    np.testing.assert_allclose(later.removed_by_wells([2], cells[1:]), found[1:], rtol=1e-12)
    with pytest.raises(ValueError, match="pending"):
        PlateCiv(blr, known, target, gap_cells=60, pending=-unit(civ.size, 0))


def test_distances_too_large_to_be_squared_are_refused(pools):
    blr, known, target, _ = pools.one(5)
    civ = PlateCiv(blr, known, 1e80 * target, gap_cells=60)
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ValueError, match="lie too far apart"),
    ):
        civ.after(np.ones(civ.size)).value  # noqa: B018
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ValueError, match="lie too far apart"),
    ):
        civ.gain([], 60)(np.arange(civ.size))
