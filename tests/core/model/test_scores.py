"""Scores of effects against simulation, quadratic forms drawn at random, and loops."""

import numpy as np
import pytest

from nextpert.core import ScreenMoments
from nextpert.core._compile import entry
from nextpert.core.model import scores
from nextpert.core.model._hierarchical_kernel import _draw_from_logs
from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.screen.guides import pool_guides
from nextpert.core.screen.mean_distance import mean_distance
from nextpert.core.screen.moments import Moments


@pytest.fixture
def covariance():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(12, 3))
    return root @ root.T + np.diag(rng.uniform(0.2, 1, 12))


def test_squared_size_is_that_of_mean_distance(covariance):
    rng = np.random.default_rng(1)
    a, b = (
        Moments.from_array(rng.multivariate_normal(np.full(12, m), covariance, n))
        for m, n in ((0.2, 50), (0.0, 400))
    )
    found = mean_distance(a, b)
    pooled = a.scatter / 49 / 50 + b.scatter / 399 / 400
    size = scores.squared_size([a.mean - b.mean], np.ones((1, 12)), pooled)
    assert size.estimate[0] == pytest.approx(found.estimate)


@pytest.mark.slow
@pytest.mark.parametrize("missing", [0, 12])
def test_small_p_values_are_level_where_genes_vary_together(missing):
    """By mean and variance alone 0.3% to 0.5% of the p-values are below 0.001.

    Of 30 perturbations without effects some then differ in 12% to 19% of screens, at a false
    discovery rate of 5%.
    """
    rng = np.random.default_rng(5)
    root = rng.normal(size=(60, 2))
    covariance = root @ root.T + np.eye(60)
    draws = rng.multivariate_normal(np.zeros(60), covariance, 60_000)
    counted = np.ones((30, 60))
    counted[:15, :missing] = 0
    found = [
        scores.squared_size(np.where(counted > 0, one, 0.0), counted, covariance)
        for one in draws.reshape(-1, 30, 60)
    ]
    p = np.array([one.p_value for one in found])
    for level, most in ((0.05, 1.15), (0.01, 1.3), (0.001, 1.7)):
        assert 0.6 * level < (p < level).mean() < most * level
    assert np.mean([(one.q_value < 0.05).any() for one in found]) < 0.075


def test_what_was_not_measured_is_not_judged(covariance):
    counted = np.array([[5.0] * 12, [0.0] * 12])
    found = scores.squared_size(np.ones((2, 12)), counted, covariance)
    for values in found:
        assert np.isfinite(values[0])
        assert np.isnan(values[1])
    one = scores.squared_size(np.ones((1, 12)), counted[:1], covariance)
    assert one.q_value[0] == found.q_value[0]


def test_intervals_hold_nine_tenths_of_other_cells():
    rng = np.random.default_rng(4)
    truth = rng.normal(size=(30, 40)) * (rng.random((30, 40)) < 0.3)
    group = np.repeat(np.arange(31), [2000] + [40] * 30)
    means = np.vstack([np.zeros(40), truth])[group]
    seen, other = (
        ScreenMoments.from_array(means + rng.normal(size=means.shape), group, 31) for _ in "ab"
    )
    effects = fit_hierarchical(pool_guides(seen, np.arange(31), 31), rng=0).effects.summary()
    observed, variance = other.mean[1:] - other.mean[0], 1 / 40 + 1 / 2000
    held = scores.holds(effects, observed, np.full(truth.shape, variance))
    assert 0.87 < held.mean() < 0.94
    assert scores.holds(effects, observed, np.zeros(truth.shape)).mean() < held.mean() - 0.1
    by_hand = observed < effects.mean + np.hypot(
        effects.upper - effects.mean, 1.6449 * np.sqrt(variance)
    )
    assert by_hand[held].all()


def test_ratios_by_the_jackknife():
    rng = np.random.default_rng(5)
    over, under = rng.uniform(0, 1, (2, 9))
    under += 1
    without = [np.delete(over, k).sum() / np.delete(under, k).sum() for k in range(9)]
    value, error = scores.ratio_with_error(np.append(over, np.nan), np.append(under, 3.0))
    assert value == pytest.approx(over.sum() / under.sum())
    assert error == pytest.approx(np.sqrt(8 / 9 * np.sum((without - np.mean(without)) ** 2)))
    # The spread of the ratio over samples, of which the jackknife has one.
    samples = [rng.uniform(0, 1, 200).sum() / rng.uniform(1, 2, 200).sum() for _ in range(500)]
    _, of_one = scores.ratio_with_error(rng.uniform(0, 1, 200), rng.uniform(1, 2, 200))
    assert of_one == pytest.approx(np.std(samples), rel=0.25)
    for bad in ([1.0, -2.0], [0.0, 0.0], [np.nan, np.nan]):
        assert np.isnan(scores.ratio_with_error([1.0, 1.0], bad)).all()


def test_means_and_correlations_leave_out_what_is_not_known():
    mean, error = scores.mean_with_error([1.0, np.nan, 3.0])
    assert (mean, error) == (2.0, 1.0)
    assert np.isnan(scores.mean_with_error([np.nan])).all()
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(2, 3, 20))
    a[1] = 0.0
    used = rng.random((3, 20)) < 0.7
    used[2, 2:] = False
    found = scores.correlations(a, b, used)
    assert found[0] == pytest.approx(np.corrcoef(a[0, used[0]], b[0, used[0]])[0, 1])
    assert np.isnan(found[1:]).all()


def test_correlation_without_the_error_that_two_estimates_share():
    """Of unrelated effects, estimated from cells that were compared with the same controls."""
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 400, 50))
    error = rng.normal(size=one.shape)
    plain = scores.correlations(one + error, two + error)
    found = scores.correlations(one + error, two + error, shared=np.ones(one.shape))
    assert plain.mean() > 0.4
    assert abs(found.mean()) < 4 * found.std() / 20


@entry
def drawn(logs, uniform):
    return _draw_from_logs(logs, uniform)


@pytest.mark.parametrize("level", [-5000.0, 0.0, 5000.0])
def test_an_entry_is_drawn_by_its_chance_however_extreme_the_logarithms(level):
    uniform = np.linspace(0.001, 0.999, 1000)
    found = [drawn(level + np.log([1.0, 3.0, 4.0]), u) for u in uniform]
    np.testing.assert_allclose(
        np.bincount(found, minlength=3) / 1000, [1 / 8, 3 / 8, 1 / 2], atol=0.002
    )


@pytest.mark.parametrize("n", [0, 1, 2])
def test_of_fewer_than_three_genes_there_is_no_correlation(n):
    used = np.arange(4)[None] < n
    assert np.isnan(scores.correlations([[1.0, 2, 3, 4]], [[4.0, 2, 3, 1]], used)).all()
