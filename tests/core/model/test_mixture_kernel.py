"""One step of the mixture against plain logarithms, where chances underflow too."""

import numpy as np
import pytest
from scipy.special import logsumexp

from nextpert.core.model import shift_prior as kernels
from nextpert.core.model.shift_prior import TAU2


@pytest.mark.parametrize("least", [1.0, 1e-200, 0.0])
def test_step_is_that_of_logarithms(least):
    rng = np.random.default_rng(0)
    square, n = np.exp(3 * rng.normal(size=(4, 6))), rng.uniform(0, 50, (4, 6))
    square[0], n[0, 0], n[1, 1] = 900.0, 1e4, 0.0
    weights = rng.dirichlet(np.ones(len(TAU2)), 4)
    weights[0, 5:] *= least  # so that what cells favour has next to no weight
    own = np.full(square.shape, np.nan)
    share, spare, counts = np.empty((4, 6)), np.empty((4, 6)), np.zeros(weights.shape)
    bound = kernels.mixture_step(
        square, n, TAU2, weights, own, share, spare, counts, np.empty((2, weights.shape[1]))
    )

    grown = 1 + n[..., None] * TAU2
    with np.errstate(divide="ignore"):
        logs = np.log(weights)[:, None] - 0.5 * np.log(grown)
    logs = logs - 0.5 * (square * n)[..., None] / grown
    total = logsumexp(logs, axis=-1)
    chance = np.exp(logs - total[..., None])
    left = TAU2 / grown
    believed = (chance * left).sum(axis=-1) * n
    spread = (chance * (n[..., None] * left) ** 2).sum(axis=-1) - believed**2
    np.testing.assert_allclose(bound, total.sum())
    np.testing.assert_allclose(share, believed, atol=1e-12)
    np.testing.assert_allclose(counts, chance.sum(axis=1), atol=1e-12)
    expected = (chance * left).sum(axis=-1) + spread * square
    np.testing.assert_allclose(spare, expected, rtol=1e-6, atol=1e-9)


def test_no_rounding_takes_from_what_is_left_of_a_shift():
    """Components alike leave what one of them does, however far the cells lie."""
    rng, n_components = np.random.default_rng(0), 7
    square, n = np.full((50, 40), 1e22), rng.uniform(1, 50, (50, 40))
    weights = rng.dirichlet(np.ones(n_components), 50)
    tau2, own = np.full(n_components, 0.3), np.full(square.shape, np.nan)
    share, spare, counts = np.empty(n.shape), np.empty(n.shape), np.zeros(weights.shape)
    kernels.mixture_step(
        square, n, tau2, weights, own, share, spare, counts, np.empty((2, weights.shape[1]))
    )
    np.testing.assert_allclose(share, n * 0.3 / (1 + n * 0.3))
    assert (spare >= 0.3 / (1 + n * 0.3) * (1 - 1e-12)).all()
