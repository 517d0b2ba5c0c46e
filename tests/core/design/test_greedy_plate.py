"""Greedy wells against searches by hand and through all plates, and what constraints do."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
from nextpert.core.design.uncertain_civ import UncertainCiv
from nextpert.core.model.shift_posterior import ShiftPosterior

from benchmarks.plates import loss
from nextpert.core import Dag, DagBlr
from nextpert.core.design.plate import PlateCiv, greedy_plate

EVERY = np.ones(6, dtype=bool)


def coverage(sets, weights):
    """Return the gain of a weighted cover, a submodular strategy."""

    def gain(chosen):
        covered = set().union(*(sets[i] for i in chosen))
        gains = np.array([sum(weights[x] for x in each - covered) for each in sets])
        return gains.__getitem__

    return gain


@pytest.fixture
def cover():
    rng = np.random.default_rng(0)
    sets = [set(rng.choice(10, 4, replace=False).tolist()) for _ in range(6)]
    weights = rng.random(10)
    return sets, weights / weights.sum()


def test_no_worse_than_greedy_must_be(cover):
    sets, weights = cover
    chosen = greedy_plate(coverage(sets, weights), 3, allowed=EVERY)

    def value(chosen):
        return sum(weights[x] for x in set().union(*(sets[i] for i in chosen)))

    best = max(value(each) for each in itertools.combinations(range(6), 3))
    assert value(chosen) >= (1 - 1 / np.e) * best
    gain, steps = coverage(sets, weights), range(len(chosen))
    assert all(chosen[k] == gain(chosen[:k])(EVERY).argmax() for k in steps)


def test_constraints(cover):
    gain = coverage(*cover)
    allowed = EVERY.copy()
    allowed[greedy_plate(gain, 1, allowed=EVERY)[0]] = False
    chosen = greedy_plate(gain, 4, allowed=allowed, include=[5])
    assert chosen[0] == 5
    assert allowed[chosen].all()


def constant(*values):
    return lambda _: np.array(values).__getitem__


def test_costs():
    gain = constant(0.5, 0.3, 0.3, 0.1, 0.1, 0.1)
    cost = np.array([4.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert greedy_plate(gain, 3, allowed=EVERY, cost=cost, budget=3) == [1, 2, 3]
    assert greedy_plate(gain, 3, allowed=EVERY, cost=cost, budget=6) == [1, 2, 0]
    assert greedy_plate(gain, 3, allowed=EVERY, cost=cost, budget=6, per_cost=False) == [0, 1, 2]
    with pytest.raises(ValueError, match="cost 4 of 3"):
        greedy_plate(gain, 3, allowed=EVERY, cost=cost, budget=3, include=[0])
    with pytest.raises(ValueError, match="2 candidates must be on a plate of 1"):
        greedy_plate(gain, 1, allowed=EVERY, include=[0, 1])


def test_few_new_ones():
    gain = constant(0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    new = np.array([True, True, True, False, False, True])
    assert greedy_plate(gain, 6, allowed=EVERY, new=new, max_new=2) == [0, 1, 3, 4]
    assert greedy_plate(gain, 2, allowed=EVERY, new=new, max_new=0) == [3, 4]
    with pytest.raises(ValueError, match="new than max_new=1"):
        greedy_plate(gain, 3, allowed=EVERY, include=[0, 5], new=new, max_new=1)


@pytest.mark.parametrize("seed", range(10))
def test_wells_are_the_best_one_after_the_other(seed, pools):
    blr, known, target, _ = (pools.several if seed % 5 == 4 else pools.one)(seed)
    m = known.n_perturbations
    civ = PlateCiv(blr, known, target, gap_cells=20)
    chosen = []
    for _ in range(min(3, m)):
        values = [
            np.inf
            if j in chosen
            else civ.after(20.0 * np.bincount([*chosen, j], minlength=m)).value
            for j in range(m)
        ]
        chosen.append(int(np.argmin(values)))
    found = greedy_plate(partial(civ.gain, each=20), min(3, m), allowed=np.ones(m, dtype=bool))
    assert found == chosen
    assert len(greedy_plate(partial(civ.gain, each=20), m + 5, allowed=np.ones(m, dtype=bool))) == m


def test_by_what_cells_teach_it_is_the_plate_of_civ():
    rng = np.random.default_rng(1)
    blr = DagBlr(Dag.from_edges(3, [(0, 1), (1, 2)]), noise_var=1.0, intercept=False)
    known = ShiftPosterior.exact(rng.normal(size=(6, 3)))
    one_by_one = UncertainCiv(blr, known, np.ones(3), n_cells=5, noise_aware=True)
    civ = PlateCiv(blr, known, np.ones(3), gap_cells=5)
    chosen, removed = one_by_one.plate(3)
    assert greedy_plate(partial(civ.gain, each=5), 3, allowed=EVERY) == chosen.tolist()
    np.testing.assert_allclose(civ.removed_by_wells(chosen, [5] * 3), removed, rtol=1e-9)


def test_of_many_candidates_those_that_gained_little_are_not_asked_again():
    rng = np.random.default_rng(3)
    sets = [set(rng.choice(400, 5, replace=False).tolist()) for _ in range(3000)]
    gain, asked = coverage(sets, rng.random(400)), []

    def counting(chosen):
        ask = gain(chosen)
        return lambda some: (asked.append(len(some)), ask(some))[1]

    every = np.ones(3000, dtype=bool)
    chosen = []
    for _ in range(12):
        chosen.append(int(np.where(np.isin(range(3000), chosen), -1, gain(chosen)(every)).argmax()))
    assert greedy_plate(counting, 12, allowed=every) == chosen
    assert sum(asked) < 12 * 3000 / 2


@pytest.mark.slow
def test_close_to_the_best_of_all_plates():
    """In 60 random pools: the plate, cells split, against all plates, each best split."""
    losses = np.array([loss(seed) for seed in range(60)])
    assert (losses > -1e-6).all()
    assert (losses < 0.01).mean() >= 0.95
    assert losses.max() < 0.002  # the worst: 0.11%


@pytest.mark.slow
def test_close_to_the_best_of_most_plates_where_shifts_are_known():
    losses = np.array([loss(seed, exact=True) for seed in range(40)])
    assert (losses > -1e-6).all()
    assert (losses < 0.01).mean() >= 0.9
    assert losses.max() < 0.1  # the worst: 9.4% in 200 pools
