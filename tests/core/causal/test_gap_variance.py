"""The variance of the optimality gap against draws of weights, noise variances and cells."""

import numpy as np
import pytest

from nextpert.core import gap_variance


def drawn_gaps(plain, shift, target, n, count, rng):
    """Draw the gap |a + mean noise of n cells - ((I - B) mu* - c)|^2 from the posterior."""
    b, c, noise = plain.draw(count, rng)
    ideal = target - b @ target - c
    mean_noise = rng.normal(size=noise.shape) * np.sqrt(noise / n)
    return ((shift + mean_noise - ideal) ** 2).sum(axis=1)


@pytest.mark.parametrize("n", [1, 3, 40])
@pytest.mark.parametrize("graph", ["complete", "sparse", "in_star"])
def test_gap_variance_is_that_of_drawn_gaps(graph, intercept, known, n, fit_twice, graphs):
    plain, blr = fit_twice(graphs[graph], intercept, known)
    rng = np.random.default_rng(n)
    for shift in (rng.normal(size=plain.p), np.zeros(plain.p)):
        target = rng.normal(size=plain.p)
        found = gap_variance(blr, shift, target, n_cells=n)
        gaps = drawn_gaps(plain, shift, target, n, 60_000, rng)
        square = (gaps - gaps.mean()) ** 2
        error = square.std() / np.sqrt(len(gaps))
        assert abs(square.mean() - found) < 5 * error
        assert error < 0.03 * found  # so that a missing factor cannot hide
        np.testing.assert_allclose(found, plain.gap_variance(shift, target, n), rtol=1e-8)


def test_gap_variance_with_few_cells_and_unknown_variance(fit_twice, graphs):
    # Shape 5.5: the share of the noise variances' own spread is large here.
    plain, blr = fit_twice(graphs["out_star"], False, False, n=5, shape=2.5, rate=0.5)
    rng = np.random.default_rng(0)
    target = rng.normal(size=4)
    gaps = drawn_gaps(plain, np.zeros(4), target, 2, 400_000, rng)
    square = (gaps - gaps.mean()) ** 2
    found = gap_variance(blr, np.zeros(4), target, n_cells=2)
    assert abs(square.mean() - found) < 5 * square.std() / np.sqrt(len(gaps))
    variance = plain.noise_moments()[1]
    s = 1 / 2 + plain.w(target)
    assert (3 * s**2 * variance).sum() > 0.15 * found
