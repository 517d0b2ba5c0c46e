"""What must not matter to plates by draws: order of candidates and of draws, units, axes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextpert.core import RankedDistance
from nextpert.core.design.nearest_sums import nearest_sums
from nextpert.core.design.plate import best_plate, probable_plate
from nextpert.core.design.stopping import NextPlate, stopping

factors = st.floats(0.01, 100.0)
joint_draws = st.integers(0, 10_000).map(
    lambda seed: np.random.default_rng(seed).gamma(2, size=(50, 7)) + np.linspace(0, 1, 7)
)


@pytest.mark.slow
@given(joint_draws, st.permutations(range(7)), factors, st.integers(1, 7))
def test_plates_by_draws_know_no_order_of_candidates_and_draws(draws, labels, unit, size):
    turned = unit * draws[::-1, labels]
    found = probable_plate(draws, size)
    assert np.array(labels)[probable_plate(turned, size)].tolist() == found.tolist()
    expected = draws.mean(axis=0) ** 2
    both = best_plate(unit * expected[labels], turned, size)
    assert np.array(labels)[both].tolist() == best_plate(expected, draws, size).tolist()


@given(joint_draws, st.permutations(range(6)), factors)
def test_stopping_knows_no_order_and_no_unit(draws, labels, unit):
    def rule(values, seen):
        mean = values.mean(axis=0)
        nothing = np.full(7, np.nan)
        found = RankedDistance(
            mean, nothing, nothing, nothing, nothing, 0.9 * mean, nothing, nothing, 0.0, values
        )
        plate = NextPlate(np.arange(6), values[:, :6], 0.9 * values[:, :6])
        return stopping(found, seen, plate)

    seen = np.arange(6) % 2 == 0
    here = rule(draws, seen)
    there = rule(unit * draws[:, [*labels, 6]], seen[labels])
    assert [*labels, 6][there.chosen] == here.chosen
    assert there.advice == here.advice
    np.testing.assert_allclose(there.gain / unit, here.gain, atol=1e-9)
    np.testing.assert_allclose(there.good_enough, here.good_enough)


@given(joint_draws, st.permutations(range(7)), factors)
def test_sums_near_a_goal_know_no_order_no_unit_and_no_turn(draws, labels, unit):
    effects, goal = draws[:7, :3], draws[7, :3] * 3
    turn, _ = np.linalg.qr(draws[8:11, :3])
    here = nearest_sums(effects, goal, 3, 5)
    there = nearest_sums(unit * effects[labels] @ turn, unit * goal @ turn, 3, 5)
    np.testing.assert_allclose(there.distance / unit**2, here.distance, atol=1e-9)
    members = np.sort(np.array(labels)[there.members], axis=1)
    assert members.tolist() == np.sort(here.members, axis=1).tolist()
