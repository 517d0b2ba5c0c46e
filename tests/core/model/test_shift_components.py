"""Shifts that are mixtures of normals: moments and draws against quadrature of the posterior."""

from __future__ import annotations

import numpy as np
import pytest

from nextpert.core import Dag, DagBlr
from nextpert.core.design.distances import state_draws
from nextpert.core.model.shift_prior import TAU2, ShiftPrior

MEAN, N = np.array([[0.1, 0.6, 3.0], [0.0, 0.0, 0.0]]), np.array([12.0, 0.0])
SHIFT = np.array([[0.0, 0.2, 1.0], [0.0, 0.0, 2.0]])


@pytest.fixture
def prior():
    """Two perturbations, one without cells; the last node's prior variance is given."""
    weights = np.zeros((2, len(TAU2))) + 1e-300
    weights[0, [0, 8, 12, 16]] = 0.5, 0.2, 0.2, 0.1
    weights[1, [3, 15]] = 0.7, 0.3
    own = np.full((2, 3), np.nan)
    own[:, 2] = 0.3
    return ShiftPrior(N, MEAN, np.ones((2, 3)), SHIFT, np.zeros((2, 3)), own, weights)


def known_model():
    """No edges, no intercept, variances known: the cells' mean is the shift and noise."""
    return DagBlr(Dag.from_edges(3, []), noise_var=[1.0, 1.0, 2.0], intercept=False)


def quadrature(prior, blr, j, i):
    """Grid of shifts and their posterior probabilities, by the definition of the model."""
    u = np.linspace(-12, 12, 120_001)
    noise = blr.noise_var[i]
    if np.isnan(prior.own[j, i]):
        variances, weights = TAU2 * noise, prior.weights[j]
    else:
        variances, weights = prior.own[j, [i]], np.ones(1)
    narrow = 1e-3  # for a prior of no variance
    sd = np.sqrt(np.maximum(variances, narrow**2))
    density = (weights / sd * np.exp(-0.5 * (u[:, None] / sd) ** 2)).sum(axis=1)
    away = prior.mean[j, i] - prior.shift[j, i] - u
    chance = density * np.exp(-0.5 * prior.n[j] * away**2 / noise)
    return u, chance / chance.sum()


@pytest.mark.slow
@pytest.mark.parametrize("j", [0, 1])
@pytest.mark.parametrize("i", [0, 1, 2])
def test_moments_and_draws_by_quadrature(j, i, prior):
    blr, count = known_model(), 40_000
    known = prior.given(blr)
    u, chance = quadrature(prior, blr, j, i)
    mean = u @ chance
    departure = known.departure(blr)[j, i] if N[j] else 0.0
    assert known.share[j, i] * departure == pytest.approx(mean, abs=1e-3)
    spread = (u - mean) ** 2 @ chance
    assert known.spare[j, i] * blr.noise_var[i] == pytest.approx(spread, rel=2e-3)
    drawn = np.array([x[j, i] for x in state_draws(blr, known, n_samples=count, rng=0)])
    drawn -= SHIFT[j, i]
    assert abs(drawn.mean() - mean) < 5 * np.sqrt(spread / count)
    below = np.cumsum(chance)
    for at in (-1.0, -0.3, 0.05, 0.2, 0.5, 1.0, 2.0):  # the shape, which moments do not tell
        wanted = below[np.searchsorted(u, at)]
        assert abs((drawn <= at).mean() - wanted) < 5 * np.sqrt(0.25 / count)


def test_tails_are_heavy(prior):
    states = np.array(list(state_draws(known_model(), prior.given(known_model()), rng=1)))
    about = states[:, 1, 0] - states[:, 1, 0].mean()
    assert (about**4).mean() > 5 * (about**2).mean() ** 2


def test_rows_are_drawn_anew_and_the_same_by_seed(prior):
    blr = known_model()
    known = prior.given(blr)
    one, other = (list(state_draws(blr, known, n_samples=3, rng=2)) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one[0], one[1])
