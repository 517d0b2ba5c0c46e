"""The variance of how far cells respond, with its prior (equation 23)."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from nextpert.core.model import hierarchical
from nextpert.core.model.within_cells import response_variance
from nextpert.core.screen.guides import PooledGuides
from tests.core.model.test_hierarchical import screen


def cells(ratio, freedom):
    n = np.append(100.0, freedom + 1.0)
    ratio = np.vstack([np.ones((1, ratio.shape[1])), ratio])
    p = ratio.shape[1]
    return PooledGuides(
        n.astype(np.int64), n, np.zeros(ratio.shape), 100 * np.eye(p), ratio,
        freedom=np.append(99.0, freedom), prior_freedom=20.0,
    )  # fmt: skip


@pytest.mark.parametrize("size", [0.05, 0.3, 1.0, 3.0])
def test_it_is_the_mode_given_a_normal_prior(size):
    rng = np.random.default_rng(int(10 * size))
    freedom, squares = np.array([9.0, 24.0, 49.0]), size * rng.random((3, 40)) ** 2
    excess = 0.4 * squares + rng.normal(size=(3, 40)) * np.sqrt(2 / freedom)[:, None]
    weight = (freedom / (20.0 + freedom))[:, None]  # of the excess in moderated variances
    found = response_variance(
        cells(1.0 + weight * excess, freedom), np.sqrt(squares).__getitem__, np.ones(40)
    )

    def loss(phi):  # four fifths of the excess are along the effect; its variance is 2 / freedom
        each = (freedom[:, None] * (0.8 * excess - phi * squares) ** 2).sum() / (2 * 0.8**2)
        return each / 2 + 64 * phi**2 / 2

    best = minimize_scalar(loss, bounds=(0, 50), method="bounded", options={"xatol": 1e-9}).x
    assert found == pytest.approx(best, abs=1e-5)


def test_cells_respond_to_the_squares_of_effects_in_units_of_their_cells(monkeypatch):
    asked = []

    def heard(cells, effects, unit):
        asked.append((effects(slice(0, 6)) / unit) ** 2)
        return 0.0

    monkeypatch.setattr(hierarchical, "response_variance", heard)
    found = hierarchical.fit_hierarchical(screen()[1], rng=0).effects
    np.testing.assert_allclose(asked[0], (found.posterior_mean() / found.unit) ** 2, rtol=1e-6)
