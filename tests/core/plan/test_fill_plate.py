"""Greedy wells against a search by hand, and what constraints do."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from nextpert.core import Dag, DagBlr
from nextpert.core.acquisition.uncertain_civ import UncertainCiv
from nextpert.core.plan.fill_plate import fill_plate
from nextpert.core.posterior.shift_posterior import ShiftPosterior

EVERY = np.ones(6, dtype=bool)


def coverage(sets, weights):
    """Return the gain of a weighted cover, a submodular aim."""

    def gain(chosen):
        covered = set().union(*(sets[i] for i in chosen))
        return np.array([sum(weights[x] for x in each - covered) for each in sets])

    return gain


@pytest.fixture
def cover():
    rng = np.random.default_rng(0)
    sets = [set(rng.choice(10, 4, replace=False).tolist()) for _ in range(6)]
    weights = rng.random(10)
    return sets, weights / weights.sum()


def test_no_worse_than_greedy_must_be(cover):
    sets, weights = cover
    plate = fill_plate({"cover": coverage(sets, weights)}, 3, allowed=EVERY)

    def value(chosen):
        return sum(weights[x] for x in set().union(*(sets[i] for i in chosen)))

    best = max(value(each) for each in itertools.combinations(range(6), 3))
    assert value(plate.chosen) >= (1 - 1 / np.e) * best
    np.testing.assert_allclose(sum(plate.gains), value(plate.chosen))


def test_the_aim_with_most_to_gain_takes_the_well(cover):
    gain = coverage(*cover)
    other = np.array([0.0, 0.9, 0.05, 0.0, 0.0, 0.0])
    plate = fill_plate({"cover": gain, "best": lambda _: other}, 4, allowed=EVERY)
    assert plate.chosen[0] == 1
    assert plate.aims[0] == "best"
    assert set(plate.aims[1:]) == {"cover"}


def test_constraints(cover):
    gain = {"cover": coverage(*cover)}
    allowed = EVERY.copy()
    allowed[fill_plate(gain, 1, allowed=EVERY).chosen[0]] = False
    plate = fill_plate(gain, 4, allowed=allowed, must=[5], pending=[0])
    assert plate.chosen[0] == 5
    assert plate.aims[0] == "must"
    assert allowed[plate.chosen].all()
    # Those under way count as chosen, so that their gain is not to be had again.
    twin = {"cover": lambda chosen: np.where(np.arange(6) == 2, float(0 not in chosen), 0.5)}
    assert fill_plate(twin, 1, allowed=EVERY).chosen == [2]
    assert fill_plate(twin, 1, allowed=EVERY, pending=[0]).chosen != [2]


def test_costs(cover):
    gains = {"a": lambda _: np.array([0.5, 0.3, 0.3, 0.1, 0.1, 0.1])}
    cost = np.array([4.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert fill_plate(gains, 3, allowed=EVERY, cost=cost, budget=3).chosen == [1, 2, 3]
    assert fill_plate(gains, 3, allowed=EVERY, cost=cost, budget=6).chosen == [1, 2, 0]
    with pytest.raises(ValueError, match="cost 4 of 3"):
        fill_plate(gains, 3, allowed=EVERY, cost=cost, budget=3, must=[0])
    with pytest.raises(ValueError, match="2 candidates must be on a plate of 1"):
        fill_plate(gains, 1, allowed=EVERY, must=[0, 1])


def test_few_new_ones(cover):
    gains = {"a": lambda _: np.array([0.6, 0.5, 0.4, 0.3, 0.2, 0.1])}
    new = np.array([True, True, True, False, False, True])
    plate = fill_plate(gains, 6, allowed=EVERY, new=new, most_new=2)
    assert plate.chosen == [0, 1, 3, 4]
    assert fill_plate(gains, 2, allowed=EVERY, new=new, most_new=0).chosen == [3, 4]
    with pytest.raises(ValueError, match="new than most_new=1"):
        fill_plate(gains, 3, allowed=EVERY, must=[0, 5], new=new, most_new=1)


def test_share_removed_after_some_is_that_of_the_plate():
    rng = np.random.default_rng(1)
    blr = DagBlr(Dag.from_edges(3, [(0, 1), (1, 2)]), noise_var=1.0, intercept=False)
    civ = UncertainCiv(blr, ShiftPosterior.exact(rng.normal(size=(6, 3))), np.ones(3), n_cells=5)
    chosen, removed = civ.plate(3)
    plate = fill_plate(
        {"learn": lambda before: civ.removed_after(before) - removed_now(civ, before)},
        3, allowed=EVERY,
    )  # fmt: skip
    assert plate.chosen == chosen.tolist()
    np.testing.assert_allclose(np.cumsum(plate.gains), removed, rtol=1e-9)


def removed_now(civ, before):
    return civ.removed_after(before[:-1])[before[-1]] if before else 0.0
