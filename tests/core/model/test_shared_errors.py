"""The expected residual of errors given independent features, and what contains the errors."""

import numpy as np
import pytest

from nextpert.core.model.shared_errors import shared_errors

N, P = 20, 12


def drawn(rng):
    """Return errors of unequal variance and their variance, correlation and root of it."""
    factor = rng.normal(size=(P, 2))
    covariance = factor @ factor.T + np.eye(P)
    scale = 1 / np.sqrt(np.diag(covariance))
    correlation = covariance * np.outer(scale, scale)
    variance = rng.uniform(0.01, 0.1, (N, 1)) * np.ones((N, P))
    return variance, correlation, np.linalg.cholesky(correlation)


def test_residuals_of_errors_have_the_expected_size():
    rng = np.random.default_rng(0)
    variance, correlation, root = drawn(rng)
    # Features along the largest component of the errors remove more of them than others.
    largest = np.linalg.eigh(correlation)[1][:, -1]
    features = rng.normal(size=(N, 1)) * largest + 0.01 * rng.normal(size=(N, P))
    found = [
        shared_errors(
            np.sqrt(variance) * (rng.normal(size=(N, P)) @ root.T), variance, correlation,
            features, np.arange(P),
        )
        for _ in range(300)
    ]  # fmt: skip
    # The smallest of six tests: near 1 in the mean, and never taken for shared errors.
    assert np.mean([each.ratio for each in found]) == pytest.approx(0.93, abs=0.05)
    assert not any(each.found for each in found)
    assert -1.6 < np.mean([each.deviations for each in found]) < -0.4


@pytest.mark.parametrize("columns", [np.arange(P), []])
def test_errors_in_features_are_found(columns):
    rng = np.random.default_rng(1)
    variance, correlation, root = drawn(rng)
    effects = 0.2 * rng.normal(size=(N, P))
    observed = effects + np.sqrt(variance) * (rng.normal(size=(N, P)) @ root.T) + 3.0
    assert shared_errors(observed, variance, correlation, 2 * observed, columns).found
    assert not shared_errors(observed, variance, correlation, effects, columns).found


def test_few_perturbations_and_constant_features_are_not_compared():
    rng = np.random.default_rng(2)
    variance, correlation, _ = drawn(rng)
    effects = rng.normal(size=(N, P))
    few = shared_errors(effects[:5], variance[:5], correlation, effects[:5], np.arange(P))
    constant = shared_errors(effects, variance, correlation, np.ones((N, 3)))
    assert not few.found
    assert not constant.found
