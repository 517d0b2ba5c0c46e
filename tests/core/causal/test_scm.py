"""Linear SCMs against dense inverses and sampled cells."""

import numpy as np
import pytest
import scipy.sparse as sp

from nextpert.core import LinearScm


def model(p=6, seed=0):
    rng = np.random.default_rng(seed)
    order = rng.permutation(p)
    weights = np.zeros((p, p))
    for place, i in enumerate(order):
        for k in order[:place]:
            if rng.random() < 0.6:
                weights[i, k] = rng.normal()
    noise, offset = rng.uniform(0.3, 2, p), rng.normal(size=p)
    return LinearScm(weights, noise, offset), weights, noise, offset, rng


def inverse(weights):
    return np.linalg.inv(np.eye(len(weights)) - weights)


@pytest.mark.parametrize("seed", range(3))
def test_mean_and_covariance_by_dense_inverse_and_by_cells(seed):
    scm, weights, noise, offset, rng = model(seed=seed)
    shift, effects = rng.normal(size=6), inverse(weights)
    mean, covariance = effects @ (offset + shift), effects * noise @ effects.T
    np.testing.assert_allclose(scm.mean(shift), mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(scm.covariance(), covariance, rtol=1e-12, atol=1e-12)
    apart = scm.sample(40_000, shift, rng=seed) - mean
    for moment, expected in (
        (apart, 0.0),
        (apart[:, :, None] * apart[:, None], covariance),
    ):
        error = moment.std(axis=0) / np.sqrt(len(apart))
        assert (np.abs(moment.mean(axis=0) - expected) < 5 * error).all()


def test_the_optimal_shift_reaches_the_target():
    scm, weights, _, offset, rng = model(seed=4)
    target = rng.normal(size=6)
    shift = scm.optimal_shift(target)
    np.testing.assert_allclose(inverse(weights) @ (offset + shift), target, atol=1e-12)
    np.testing.assert_allclose(scm.mean(shift), target, atol=1e-12)


def test_standardising_changes_units_only():
    scm, weights, noise, offset, rng = model(seed=5)
    effects = inverse(weights)
    scale = np.sqrt(np.diag(effects * noise @ effects.T))
    unit = scm.standardised()
    np.testing.assert_allclose(np.diag(unit.covariance()), 1, rtol=1e-12)
    np.testing.assert_allclose(
        unit.covariance(), scm.covariance() / np.outer(scale, scale), atol=1e-12
    )
    shift = rng.normal(size=6)
    np.testing.assert_allclose(unit.mean(shift / scale), scm.mean(shift) / scale, atol=1e-12)
    np.testing.assert_allclose(unit.intercept, offset / scale)


def test_edges_follow_the_weights_and_input_is_left_alone():
    _, weights, noise, offset, _ = model(seed=1)
    scm = LinearScm(sp.csr_array(weights), noise)
    assert sorted(scm.dag.edges()) == sorted((int(k), int(i)) for i, k in np.argwhere(weights))
    np.testing.assert_array_equal(scm.intercept, 0)
    full = LinearScm(weights, noise, offset)
    kept = full.mean()
    weights[:], noise[:], offset[:] = 0, 1, 0
    np.testing.assert_array_equal(full.mean(), kept)
