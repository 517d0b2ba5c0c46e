"""The chance of telling the nearer of two, against closed forms and simulated means."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from nextpert.core.design.cell_numbers import Layout
from nextpert.core.design.power import NearerChance, draw_noise, quadratic_form
from nextpert.core.screen.mean_distance import distance_difference
from nextpert.core.screen.moments import Moments


def covariance(rng, p, programs=1):
    """Noise of which a few programs of genes carry the most."""
    root = rng.normal(size=(p, programs))
    return 0.2 * np.eye(p) + root @ root.T


@pytest.mark.parametrize("n", [3, 10, 100])
def test_one_gene_in_closed_form(n):
    """``|x| < |y|``, and x - y and x + y are independent where both scatter alike."""
    noise = draw_noise([[2.0]], 0)
    pair = NearerChance.of_draws(([0.4], [1.0]), noise)
    sd = np.sqrt(2 * 2 / n)
    low, high = norm.cdf((1.0 - 0.4) / sd), norm.cdf((1.0 + 0.4) / sd)
    wanted = low * high + (1 - low) * (1 - high)
    assert pair.chance(n) == pytest.approx(wanted, abs=0.012)


@pytest.mark.parametrize("n", [4, 12, 100])
@pytest.mark.parametrize("guides", [1, 3])
@pytest.mark.parametrize("weighed", [False, True])
def test_against_simulated_means(n, guides, weighed):
    rng, p, n_draws = np.random.default_rng(n), 20, 20000
    cell = covariance(rng, p, 3)
    of = [rng.uniform(0.5, 1.5, p) for _ in range(2)]
    of_goal = rng.uniform(0.1, 0.3, p)
    a, b = 0.3 * rng.normal(size=p), 0.5 * rng.normal(size=p)
    layout = Layout(guides, guide_variance=0.03)
    k = float(layout.spread(n))
    x, y, w = rng.multivariate_normal(np.zeros(p), cell, (3, n_draws))
    w, weigh = of_goal * w, np.where(np.arange(p) % 3, 1.2, 0.0) if weighed else np.ones(p)
    sides = [
        ((d + np.sqrt(k) * r * e - of_w * w) ** 2).sum(axis=1)
        - k * (r**2 @ cell.diagonal())
        - (of_w**2 * of_goal**2) @ cell.diagonal()
        for d, r, e, of_w in ((a, of[0], x, 1.0), (b, of[1], y, weigh))
    ]
    error = sides[0] - sides[1] - (a @ a - b @ b)
    pair = NearerChance.of_draws(
        (a, b), draw_noise(cell, rng), scales=(*of, of_goal, weigh * of_goal), layout=layout
    )
    np.testing.assert_allclose(pair.errors(k).std(), error.std(), rtol=0.04)
    right = (np.sign(a @ a - b @ b) * (sides[0] - sides[1]) > 0).mean()
    assert pair.chance(n) == pytest.approx(right, abs=0.015)


def test_the_sd_is_that_which_the_estimator_states():
    rng, p, n = np.random.default_rng(2), 6, 4000
    cell = covariance(rng, p)
    scales = [rng.uniform(0.5, 1.5, p) for _ in range(3)]
    sides = [
        Moments.from_array(rng.normal(size=p) + r * rng.multivariate_normal(np.zeros(p), cell, n))
        for r in scales
    ]
    a, b, goal = (side.mean for side in sides)
    pair = NearerChance.of_draws(
        (a - goal, b - goal), draw_noise(cell, rng),
        scales=(*scales[:2], *[scales[2] / np.sqrt(n)] * 2),
    )  # fmt: skip
    _, low, high = distance_difference(*sides)
    half = norm.ppf(0.975) * pair.errors(1 / n).std()
    np.testing.assert_allclose(half, (high - low) / 2, rtol=0.06)


@pytest.mark.slow
def test_what_noise_adds_to_measured_departures_is_taken_off():
    rng, p, n = np.random.default_rng(3), 5, 40
    cell = covariance(rng, p, p) / p
    a, b = np.full(p, 0.8), np.full(p, -0.9)
    noise = draw_noise(cell, rng)
    wanted = 4 * (a @ cell @ a + b @ cell @ b)
    found, plain = [], []
    for _ in range(1000):
        pair = [rng.multivariate_normal(m, cell / n) for m in (a, b)]
        variances = [quadratic_form(d, cell, cell / n) for d in pair]
        for out, given in ((found, (*variances, 0.0)), (plain, None)):
            chance = NearerChance.of_draws((pair[0], pair[1]), noise, variances=given)
            out.append(chance.linear.var())
    np.testing.assert_allclose(np.mean(found), wanted, rtol=0.04)
    assert np.mean(plain) > 1.08 * wanted


def test_cells_and_guides_are_the_least_that_do():
    layout = Layout(2, guide_variance=0.02)
    noise = draw_noise(np.eye(2), 0)
    pair = NearerChance.of_draws(([1.0, 0.0], [1.0, 0.5]), noise)
    n = pair.layout.cells_for(pair.spread_for(0.9))
    assert pair.chance(n) >= 0.9 > pair.chance(n - 1)
    assert layout.cells_for(pair.spread_for(0.7)) > pair.layout.cells_for(pair.spread_for(0.7))
    assert layout.cells_for(pair.spread_for(0.999)) == np.inf
    g = layout.guides_for(pair.spread_for(0.999))
    assert replace(pair, layout=replace(layout, n_guides=int(g))).chance(1e12) >= 0.999
    assert replace(pair, layout=replace(layout, n_guides=int(g) - 1)).chance(1e12) < 0.999


def test_where_no_cells_do():
    noise = draw_noise(np.eye(2), 0)
    same = NearerChance.of_draws(([1.0, 0.0], [0.0, 1.0]), noise)
    assert same.chance([10, 1000]).tolist() == [0.5, 0.5]
    assert same.spread_for(0.8) == -np.inf
    vague = NearerChance.of_draws(([1.0, 0.0], [0.0, 1.1]), noise, scales=(1.0, 1.0, 1.0, 1.0))
    assert vague.spread_for(0.9) == -np.inf
