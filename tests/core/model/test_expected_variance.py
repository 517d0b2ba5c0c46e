"""What is expected of effects, such as by members of combinations, is not known exactly."""

import numpy as np

from nextpert.core.model._hierarchical_kernel import N_VARIANCES
from nextpert.core.model.effect_draws import VARIANCE
from nextpert.core.model.sampler import Prior, Sampler
from tests.core.model.test_hierarchical import screen


def test_what_is_expected_is_as_uncertain_as_told():
    """In means (noise of h apart), along factors, and in own parts that are handed out."""
    cells, doubt = screen()[1], np.zeros((6, 12))
    doubt[[1, 4]] = np.random.default_rng(3).uniform(0.05, 0.5, size=(2, 12))
    own = np.where(np.arange(12) == 3, 0.3, np.nan) * (np.arange(6) == 1)[:, None]
    own[own == 0] = np.nan
    known, sampler = (
        Sampler(cells, Prior(None, each, own), np.random.default_rng(0)) for each in (None, doubt)
    )
    known, means, doubt = known.means, sampler.means, doubt / sampler.unit**2
    sampler.state.place[:, 5:] -= np.arange(7, dtype=np.int8)
    errors = known.error
    np.testing.assert_allclose(means.error, errors)
    np.testing.assert_allclose(means.prior_mean_variance, doubt)
    np.testing.assert_allclose(means.along[:, 0], 1 / errors.mean(axis=1))
    np.testing.assert_allclose(means.spread, doubt.mean(axis=1))
    drawn = np.array([VARIANCE[sampler.own_places()] for _ in range(4000)])
    free = sampler.state.place < N_VARIANCES
    assert (~free).sum() == 1
    wanted = VARIANCE[sampler.state.place] + means.psi * doubt
    z = (drawn.mean(axis=0)[free] - wanted[free]) / wanted[free]
    assert np.abs(z).max() < 0.05
    assert ((sampler.own_places() == sampler.state.place) | (free & (doubt > 0))).all()
