import itertools
from statistics import NormalDist

import numpy as np
import pytest

from nextpert.core import Moments
from nextpert.core.screen.mean_distance import mean_distance


def _cells(rng, n, p, mean=0.0):
    return rng.gamma(1.0, 1.0, (n, p)) @ np.diag(np.linspace(0.3, 1.5, p)) + mean


def test_the_estimate_is_the_mean_product_of_independent_differences():
    rng = np.random.default_rng(0)
    x, y = _cells(rng, 6, 3), _cells(rng, 5, 3, 0.5)
    pairs = [
        (x[i] - y[k]) @ (x[j] - y[m])
        for i, j in itertools.permutations(range(6), 2)
        for k, m in itertools.permutations(range(5), 2)
    ]
    found = mean_distance(Moments.from_array(x), Moments.from_array(y))
    np.testing.assert_allclose(found.estimate, np.mean(pairs), rtol=1e-10)
    np.testing.assert_allclose(found.plug_in, np.sum((x.mean(0) - y.mean(0)) ** 2))
    np.testing.assert_allclose(found.plug_in - found.noise, found.estimate)


def test_several_states_have_the_mean_of_their_distances():
    rng = np.random.default_rng(1)
    x, *states = (Moments.from_array(_cells(rng, n, 3, n / 9)) for n in (6, 5, 7, 4))
    found = mean_distance(x, tuple(states))
    each = [mean_distance(x, state) for state in states]
    assert found.estimate == pytest.approx(np.mean([one.estimate for one in each]), rel=1e-12)
    assert found.plug_in == pytest.approx(np.mean([one.plug_in for one in each]), rel=1e-12)


def of_covariance(covariance, n, mean):
    """Moments of n cells whose mean has this estimated covariance."""
    return Moments(n, np.asarray(mean, float), np.asarray(covariance) * n * (n - 1))


@pytest.mark.parametrize("n", [3, 4, 20])
def test_the_variance_of_the_distance_is_unbiased(n):
    """Of a Wishart matrix with these expected traces it gives the trace of the squared truth."""
    truth, freedom = np.array([1.0, 2.0, 4.0, 9.0]), n - 1
    trace, squares = truth.sum(), (truth**2).sum()
    expected = trace**2 + 2 * squares / freedom, squares * (1 + 1 / freedom) + trace**2 / freedom
    # Four variances of that trace and that sum of squares.
    middle = np.sqrt(expected[0]) / 4
    away = np.sqrt((expected[1] - 4 * middle**2) / 4)
    covariance = np.diag([middle + away, middle + away, middle - away, middle - away])
    found = mean_distance(of_covariance(covariance, n, np.zeros(4)), np.zeros(4))
    assert found.sd == pytest.approx(np.sqrt(2 * squares))
    # Nothing is known of the direction of no difference; the bounds are those of the spread.
    z = NormalDist().inv_cdf(0.975)
    assert (found.low, found.plug_in) == (0.0, 0.0)
    assert found.high == pytest.approx(max(found.estimate + z * found.sd, 0.0))


def test_no_variance_is_below_that_of_equal_eigenvalues():
    found = mean_distance(of_covariance(np.eye(4), 3, np.zeros(4)), np.zeros(4))
    assert found.sd == pytest.approx(np.sqrt(2 * 4**2 / 4))
    # Two cells tell of no square without bias: it is taken as it is.
    found = mean_distance(of_covariance(np.diag([3.0, 1.0]), 2, np.zeros(2)), np.zeros(2))
    assert found.sd == pytest.approx(np.sqrt(2 * 10))


def test_both_means_and_their_product_make_the_variance():
    a, b, d = np.diag([1.0, 0.2]), np.diag([0.3, 2.0]), np.array([3.0, 1.0])
    n = 10**6
    found = mean_distance(of_covariance(a, n, d), of_covariance(b, n, np.zeros(2)))
    both = a + b
    along = d @ both @ d / (d @ d)
    variance = 4 * along * (d @ d - np.trace(both)) + 2 * np.sum(both**2)
    assert found.sd == pytest.approx(np.sqrt(variance), rel=1e-5)


@pytest.mark.parametrize("shift", [0.0, 0.3, 3.0])
def test_the_bounds_are_where_the_estimate_lies_z_deviations_away(shift):
    rng = np.random.default_rng(2)
    x, y = _cells(rng, 400, 4, shift), _cells(rng, 300, 4)
    found = mean_distance(Moments.from_array(x), Moments.from_array(y), confidence=0.9)
    variance = np.cov(x.T) / 400 + np.cov(y.T) / 300
    d = x.mean(0) - y.mean(0)
    along = d @ variance @ d / (d @ d)
    z = NormalDist().inv_cdf(0.95)
    # The traces of squares are corrected, by little with this many cells.
    for bound in {found.low, found.high} - {0.0}:
        deviation = np.sqrt(4 * along * bound + 2 * np.trace(variance @ variance))
        np.testing.assert_allclose(abs(found.estimate - bound), z * deviation, rtol=0.02)
    assert found.low <= max(found.estimate, 0) <= found.high


@pytest.mark.parametrize("distance", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("kind", ["normal", "zero inflated"])
def test_unbiased_with_the_coverage_it_claims(kind, distance):
    rng = np.random.default_rng(3)
    p, n, runs = 20, 30, 500
    mix = np.tril(rng.normal(size=(p, p))) / p + np.diag(rng.uniform(0.3, 1.2, p))
    step = np.full(p, np.sqrt(distance / p))

    def draw(n_cells, mean):
        noise = rng.normal(size=(n_cells, p))
        if kind == "zero inflated":
            noise = (rng.random((n_cells, p)) < 0.3) * rng.gamma(2, 1, (n_cells, p)) - 0.6
        return Moments.from_array(noise @ mix.T + mean)

    found = [mean_distance(draw(n, step), draw(2 * n, 0)) for _ in range(runs)]
    estimates = np.array([f.estimate for f in found])
    error = estimates.std() / np.sqrt(runs)
    assert abs(estimates.mean() - distance) < 4 * error
    assert np.mean([f.plug_in for f in found]) > distance + 15 * error  # the bias taken off
    assert 0.8 < np.mean([f.sd for f in found]) / estimates.std() < 1.3
    assert 0.92 < np.mean([f.low <= distance <= f.high for f in found]) < 0.995


def test_errors_of_batches_have_the_variance_of_what_they_move():
    """Against draws of what the estimated batches do to the distances of two states."""
    rng = np.random.default_rng(5)
    n, p = 10**8, 3
    covariance = np.diag([1.0, 0.4, 2.0])
    means = np.array([[1.0, 2.0, -1.0], [0.0, 0.5, 0.0], [0.3, 0.0, 1.0]])
    cells, *states = (of_covariance(covariance / n, n, mean) for mean in means)
    errors = 0.01 * rng.normal(size=(3, 2))  # of the cells and both states, by two batches
    found = mean_distance(cells, tuple(states), errors=errors)
    batches = rng.normal(size=(20_000, 2, p)) * np.sqrt(np.diag(covariance))
    moved = [
        means[0] - means[k] + np.einsum("c,rcp->rp", errors[0] - errors[k], batches) for k in (1, 2)
    ]
    squares = np.mean([(one**2).sum(axis=1) for one in moved], axis=0)
    assert found.sd == pytest.approx(squares.std(), rel=0.03)
    assert found.plug_in + found.noise == pytest.approx(squares.mean(), rel=1e-3)
