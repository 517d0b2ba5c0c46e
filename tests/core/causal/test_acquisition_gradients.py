"""Analytic gradients against central differences, and a search against algebra by hand."""

from functools import partial

import numpy as np
import pytest

from nextpert.core import (
    CausalVariance,
    Civ,
    CivOw,
    ExpectedImprovementInt,
    Greedy,
    MaxVariance,
    MutualInformationInt,
    TargetMeanVariance,
    UpperConfidenceInt,
)

LOOKAHEAD = [Civ, CivOw, CausalVariance, MaxVariance, TargetMeanVariance]
STEP = 1e-5


def makers():
    """Every acquisition with a gradient, from a posterior and a target."""
    made = {
        f"{kind.__name__} {n} {aware}": partial(kind, n_cells=n, noise_aware=aware)
        for kind in LOOKAHEAD
        for n, aware in ((1, False), (30, False), (8, True))
    }
    drawn = {"n_samples": 9, "rng": 3}
    return made | {
        "greedy": Greedy,
        "ei": lambda b, t: ExpectedImprovementInt(b, t, best=len(t), **drawn),
        "ei without best": partial(ExpectedImprovementInt, **drawn),
        "mi": partial(MutualInformationInt, n_cells=2, **drawn),
        "ucb": partial(UpperConfidenceInt, beta=1.3),
    }


@pytest.mark.parametrize("name", makers())
def test_gradients(fitted, name):
    """Central differences err by about step^2 and 1e-16 |f| / step, both below 1e-10."""
    plain, blr = fitted
    rng = np.random.default_rng(1)
    acquisition = makers()[name](blr, rng.normal(size=plain.p))
    for size in (0.2, 1.0, 4.0):
        shift = size * rng.normal(size=plain.p)
        value, grad = acquisition.value_and_grad(shift)
        assert value == acquisition.value(shift)
        numeric = np.empty(plain.p)
        for j, axis in enumerate(np.eye(plain.p)):
            above, below = (acquisition.value(shift + sign * STEP * axis) for sign in (1, -1))
            numeric[j] = (above - below) / (2 * STEP)
        tolerance = 1e-6 * np.abs(grad).max() + 1e-9 * max(abs(value), 1.0)
        np.testing.assert_allclose(grad, numeric, rtol=0, atol=tolerance)
    if any(plain.parents) and name != "ei":  # which is flat beyond the best
        assert np.abs(grad).max() > 0
