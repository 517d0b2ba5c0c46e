"""Noise of means whose variance is estimated from few cells."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, t

from nextpert.core.model._hierarchical_kernel import N_VARIANCES
from nextpert.core.model.hierarchical import Chain, fit_hierarchical
from nextpert.core.model.within_cells import noise_tails
from tests.core.model.test_hierarchical import screen


@pytest.mark.parametrize("freedom", [20.0, 22.0, 25.0, 31.0, 40.0])
def test_the_mixture_has_moments_and_tails_of_t(freedom):
    doubled, usual = (float(x) for x in noise_tails(np.array(freedom)))
    weights, variances = np.array([1.0 - doubled, doubled]), usual * np.array([1.0, 2.0])
    moments = [float(weights @ variances), float(3.0 * weights @ variances**2)]
    np.testing.assert_allclose(moments, [t(freedom).moment(k) for k in (2, 4)])
    for z in (1.0, 2.0, 3.0, 4.0):
        tail = float(weights @ norm.sf(z / np.sqrt(variances)))
        assert abs(np.log(tail / t.sf(z, freedom))) < 0.3


def test_noise_is_normal_with_many_cells():
    doubled, usual = noise_tails(np.array([40.0, 41.0, 1e4]))
    assert doubled[0] > 0.05
    assert doubled[1:].tolist() == [0.0, 0.0]
    assert usual[1:].tolist() == [1.0, 1.0]


def test_effects_with_doubled_noise_are_mixtures():
    """Draws, standard deviations and summaries take the variance of noise of every draw."""
    cells = screen()[1]
    few = replace(cells, freedom=np.full(7, 4.0))
    drawn = fit_hierarchical(few, chain=Chain(20, 40), rng=0).effects
    assert (drawn.place > N_VARIANCES).any()
    assert not (fit_hierarchical(cells, chain=Chain(5, 5), rng=0).effects.place > N_VARIANCES).any()
    given = [drawn.given(k) for k in range(drawn.n_draws)]
    mean, sd = (np.array([each[k] for each in given]) for k in (0, 1))
    whole = np.sqrt((sd**2).mean(axis=0) + mean.var(axis=0))
    summary = drawn.summary()
    np.testing.assert_allclose(summary.mean, mean.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(summary.sd, whole, rtol=1e-4)
    np.testing.assert_allclose(drawn.sd(), whole, rtol=1e-4)
