"""What is expected of perturbations with random shifts, against one dense regression."""

from __future__ import annotations

import numpy as np
import pytest

from nextpert.core import ShiftPosterior


@pytest.mark.parametrize("effects", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_expected_shifts_and_states_by_a_joint_regression(seed, effects, uncertain):
    model = uncertain(seed, effects=effects)
    known, p = model.known, model.p
    b, offset = np.zeros((p, p)), np.zeros(p)
    departed = np.zeros_like(model.prior)  # of every perturbation, in the joint posterior
    for i, k in enumerate(model.parents):
        b[i, k], offset[i] = model.mean[i][1 : 1 + len(k)], model.mean[i][0]
        departed[:, i] = model.mean[i][1 + len(k) :]
    expected = known.expected(model.blr)
    np.testing.assert_allclose(expected, known.prior + departed, rtol=1e-7, atol=1e-9)
    reached = np.linalg.solve(np.eye(p) - b, (offset + model.prior + departed).T).T
    # Values of about 1, of which the dense regression knows eight digits.
    states = known.states(model.blr)
    np.testing.assert_allclose(states, reached + model.effect, rtol=1e-6, atol=1e-8)


def test_about_its_effect_the_expectation_does_not_move(uncertain):
    model = uncertain(0, effects=True)
    mean, prior, effect = model.known.about_effect(model.blr)
    np.testing.assert_allclose(mean + model.effect, model.known.mean, rtol=1e-12)
    np.testing.assert_allclose(prior, model.prior, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(effect, model.effect)
    plain = uncertain(0)
    mean, prior, effect = plain.known.about_effect(plain.blr)
    np.testing.assert_array_equal(mean, plain.known.mean)
    np.testing.assert_array_equal(prior, plain.prior)
    assert not effect.any()


def test_exact_shifts_are_expected_as_they_are(uncertain):
    blr = uncertain().blr
    known = ShiftPosterior.exact([1.0, 0.0, -2.0, 0.5])
    assert known.n_perturbations == 1
    np.testing.assert_array_equal(known.expected(blr), [[1.0, 0.0, -2.0, 0.5]])
    assert (known.weight, known.group, known.together) == (1.0, 0, 0.0)
