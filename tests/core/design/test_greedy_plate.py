"""Greedy wells against searches by hand, and what constraints do."""

import itertools

import numpy as np
import pytest

from nextpert.core.design.plate import greedy_plate

EVERY = np.ones(6, dtype=bool)


def coverage(sets, weights):
    """Return the gain of a weighted cover, a submodular strategy."""

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
    chosen = greedy_plate(coverage(sets, weights), 3, allowed=EVERY)

    def value(chosen):
        return sum(weights[x] for x in set().union(*(sets[i] for i in chosen)))

    best = max(value(each) for each in itertools.combinations(range(6), 3))
    assert value(chosen) >= (1 - 1 / np.e) * best
    gain, steps = coverage(sets, weights), range(len(chosen))
    assert all(chosen[k] == gain(chosen[:k]).argmax() for k in steps)


def test_constraints(cover):
    gain = coverage(*cover)
    allowed = EVERY.copy()
    allowed[greedy_plate(gain, 1, allowed=EVERY)[0]] = False
    chosen = greedy_plate(gain, 4, allowed=allowed, include=[5])
    assert chosen[0] == 5
    assert allowed[chosen].all()


def constant(*values):
    return lambda _: np.array(values)


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
