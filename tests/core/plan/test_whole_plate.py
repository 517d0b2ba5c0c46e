"""Whole wells and cells against exhaustive search, greedy choice by hand, and constraints."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nextpert.core.acquisition.uncertain_civ import UncertainCiv
from nextpert.core.plan._plate_criterion import PlateCriterion
from nextpert.core.plan.allocation import allocate_cells
from nextpert.core.plan.whole_plate import WholePlate, fill_wells, removed_by_wells, whole_plate
from nextpert.core.posterior.shift_posterior import ShiftPosterior


@pytest.mark.parametrize("seed", range(8))
def test_changes_and_their_bounds_by_looking_at_each(seed, pools):
    blr, known, target, rng = (pools.several if seed % 2 else pools.one)(seed)
    m = known.n_perturbations
    criterion = PlateCriterion(blr, known, target, 100)
    cells = 10.0 * (rng.random(m) < 0.4)
    now = pools.look(criterion, cells)
    every = np.arange(m)
    wanted = [pools.look(criterion, cells + 7 * (every == j)).value - now.value for j in every]
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(now.changes(every, 7), wanted, rtol=1e-6, atol=1e-9 * scale)
    bounds = now.lower_bounds(7)
    assert (bounds <= np.array(wanted) + 1e-9 * scale).all()
    if known.n.max() == 0 and not cells.any() and not known.effect.any():
        np.testing.assert_allclose(bounds, wanted, rtol=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_wells_are_the_best_one_after_the_other(seed, pools):
    blr, known, target, _ = (pools.several if seed % 5 == 4 else pools.one)(seed)
    m = known.n_perturbations
    criterion = PlateCriterion(blr, known, target, 60)
    chosen = []
    for _ in range(min(3, m)):
        values = [
            np.inf
            if j in chosen
            else pools.look(criterion, 20.0 * np.bincount([*chosen, j], minlength=m)).value
            for j in range(m)
        ]
        chosen.append(int(np.argmin(values)))
    allowed = np.ones(m, dtype=bool)
    assert fill_wells(criterion, [], allowed, min(3, m), 20) == chosen


def test_first_well_is_that_of_the_acquisition(pools):
    blr, known, target, _ = pools.one(3)
    plate = whole_plate(blr, known, target, 1, 20)
    civ = UncertainCiv(blr, known, target, n_cells=20, noise_aware=True)
    assert plate.chosen.tolist() == [int(civ.values().argmin())]
    np.testing.assert_allclose(plate.removed, civ.removed().max(), rtol=1e-9)
    assert plate.cells.tolist() == [20]


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 6, 9])
def test_close_to_exhaustive_search_and_within_the_bound(seed, pools):
    blr, known, target, rng = pools.one(seed)
    m, n_cells = known.n_perturbations, int(10 ** rng.uniform(1.5, 3))
    k = min(3, m)
    plate = whole_plate(blr, known, target, k, n_cells, least=5)
    best = np.inf
    for chosen in itertools.combinations(range(m), k):
        low, high = np.zeros(m), np.zeros(m)
        low[list(chosen)], high[list(chosen)] = 5, n_cells
        found = allocate_cells(blr, known, target, n_cells, least=low, most=high, tolerance=1e-6)
        best = min(best, found.value)
    assert plate.bound <= best * (1 + 1e-6)
    assert best * (1 - 1e-6) <= plate.value <= best * 1.01
    assert plate.cells.sum() == n_cells
    assert plate.cells.min() >= 5
    criterion = PlateCriterion(blr, known, target, n_cells)
    cells = np.zeros(m)
    cells[plate.chosen] = plate.cells
    np.testing.assert_allclose(pools.look(criterion, cells).value, plate.value, rtol=1e-9)


def test_constraints(pools):
    blr, known, target, _ = pools.one(5)
    m = known.n_perturbations
    free = whole_plate(blr, known, target, 2, 100)
    other = next(j for j in range(m) if j not in free.chosen)
    plate = whole_plate(
        blr, known, target, 2, 100, must=[other], never=[int(free.chosen[0])], least=50, most=50
    )
    assert plate.chosen[0] == other
    assert free.chosen[0] not in plate.chosen
    assert plate.cells.tolist() == [50, 50]
    assert plate.within >= 0
    # Cells under way of the best candidate leave less to be had from it.
    pending = np.zeros(m)
    pending[free.chosen[0]] = 1e5
    later = whole_plate(blr, known, target, 1, 100, pending=pending)
    assert later.chosen[0] != free.chosen[0]
    assert whole_plate(blr, known, target, m + 5, 100).chosen.size == m


def test_contradictions_are_refused(pools):
    blr, known, target, _ = pools.one(3)
    for wanted, options in {
        r"\[1\] both must and must never": {"must": [1], "never": [1]},
        "must be on a plate of 1": {"must": [0, 1]},
        "do not suffice for 1 wells of 30": {"least": 30},
        "hold fewer than 20": {"most": 5},
    }.items():
        with pytest.raises(ValueError, match=wanted):
            whole_plate(blr, known, target, 1, 20, **options)


def test_candidates_chosen_before_are_held_against_every_other_plate(pools):
    blr, known, target, _ = pools.one(5)
    m = known.n_perturbations
    free = whole_plate(blr, known, target, 2, 60, least=5)
    worst = sorted(set(range(m)) - set(free.chosen.tolist()))[:2]
    given = whole_plate(blr, known, target, 2, 60, least=5, chosen=worst)
    assert given.chosen.tolist() == worst
    assert given.bound == pytest.approx(free.bound, rel=1e-3)
    assert given.value >= free.value
    assert given.within >= free.within
    same = whole_plate(blr, known, target, 2, 60, least=5, chosen=free.chosen.tolist())
    assert same.cells.tolist() == free.cells.tolist()
    for bad in ([0], [0, 0], [0, m]):
        with pytest.raises(ValueError, match="chosen must be 2 candidates"):
            whole_plate(blr, known, target, 2, 60, chosen=bad)
    with pytest.raises(ValueError, match="chosen must be 2 candidates"):
        whole_plate(blr, known, target, 2, 60, chosen=[0, 1], never=[1])


@pytest.mark.parametrize("seed", range(4))
def test_shares_removed_are_those_of_the_acquisition_where_cells_are_alike(seed, pools):
    blr, known, target, _ = (pools.several if seed % 2 else pools.one)(seed)
    chosen = list(range(min(known.n_perturbations, 3)))
    civ = UncertainCiv(blr, known, target, n_cells=20, noise_aware=True)
    wanted = [civ.removed_after(chosen[:i])[j] for i, j in enumerate(chosen)]
    found = removed_by_wells(blr, known, target, chosen, [20] * len(chosen), gap_cells=20)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_shares_removed_are_those_of_the_cells_given(pools):
    blr, known, target, _ = pools.one(5)
    plate = whole_plate(blr, known, target, 2, 60, least=5)
    found = removed_by_wells(blr, known, target, plate.chosen, plate.cells)
    assert found[1] == pytest.approx(plate.removed)
    assert found[0] < found[1]
    pending = np.zeros(known.n_perturbations)
    pending[plate.chosen[0]] = plate.cells[0]
    later = removed_by_wells(
        blr, known, target, plate.chosen[1:], plate.cells[1:], pending=pending, gap_cells=60
    )
    assert later[0] == pytest.approx(plate.removed)


def test_exchanges_find_what_equal_wells_miss(pools):
    gains = []
    for seed in (3, 4, 26, 33, 43, 45, 51):
        blr, known, target, _ = pools.one(seed)
        known = ShiftPosterior.exact(known.prior)
        m = known.n_perturbations
        k = min(2, m - 1)
        criterion = PlateCriterion(blr, known, target, 200)
        greedy = fill_wells(criterion, [], np.ones(m, dtype=bool), k, 200 / k)
        alone = whole_plate(blr, known, target, k, 200, least=5, chosen=greedy)
        plate = whole_plate(blr, known, target, k, 200, least=5)
        assert plate.value <= alone.value
        assert plate.cells.sum() == 200
        assert plate.bound <= plate.value * (1 + 1e-9)
        gains.append(1 - plate.value / alone.value)
        if plate.value < alone.value:
            must = [greedy[-1]]
            held = whole_plate(blr, known, target, k, 200, least=5, must=must)
            assert held.chosen[0] == must[0]
    assert sum(gain > 0.01 for gain in gains) >= 3


@pytest.mark.parametrize("seed", [26, 33])
def test_exchanges_are_tried_where_the_bound_leaves_room(seed, pools, monkeypatch):
    blr, known, target, _ = pools.one(seed)
    known = ShiftPosterior.exact(known.prior)
    criterion = PlateCriterion(blr, known, target, 200)
    greedy = fill_wells(criterion, [], np.ones(known.n_perturbations, dtype=bool), 2, 100)
    alone = whole_plate(blr, known, target, 2, 200, least=5, chosen=greedy).value
    monkeypatch.setattr(f"{whole_plate.__module__}.bound_plates", lambda *_: 0.9 * alone)
    within, beyond = (
        whole_plate(blr, known, target, 2, 200, least=5, tolerance=t).value for t in (0.101, 0.099)
    )
    assert within == alone
    assert beyond < 0.99 * alone


def test_a_bound_above_the_value_by_rounding_leaves_nothing_to_gain():
    nothing = np.empty(0, np.int64)
    assert WholePlate(nothing, nothing, 1.0, 1 + 1e-12, 0.5).within == 0
    assert WholePlate(nothing, nothing, 2.0, 1.5, 0.5).within == 0.25
    assert WholePlate(nothing, nothing, 0.0, 0.0, 0.5).within == 0
