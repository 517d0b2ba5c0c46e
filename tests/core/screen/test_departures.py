"""Departures of guides: what is learned of them, and what guides share (equation 7)."""

import numpy as np
import pytest
from scipy.stats import norm

from nextpert.core import ScreenMoments
from nextpert.core.fit.cells import pool_cells
from nextpert.core.screen._departures_kernel import N_POINTS, combine
from nextpert.core.screen.departures import (
    LARGE,
    USUAL_ALONG,
    USUAL_OWN,
    USUAL_VARIANCE,
    GuideSpread,
    unseen_departure,
)

P = 60


def moments(offsets, *, n=50, seed=99, share=0.5):
    """Means of guides of coexpressed cells: ``offsets`` of shape ``(n_guides, P)``."""
    rng = np.random.default_rng(seed)
    loading = rng.normal(size=(2, P))
    loading *= np.sqrt(share / (loading**2).sum(axis=0))
    guide = np.repeat(np.arange(len(offsets)), n)
    x = rng.normal(size=(len(guide), P)) * np.sqrt(1 - share)
    x += rng.normal(size=(len(guide), 2)) @ loading + offsets[guide]
    return ScreenMoments.from_array(x, guide, len(offsets)), loading


def learned(offsets, n_guides, **options):
    """The spread of guides, ``n_guides`` in each group."""
    screen, _ = moments(offsets, **options)
    group, guide = np.divmod(np.arange(len(offsets)), n_guides)
    return pool_cells(screen, group, int(group.max()) + 1, guide=guide)


@pytest.mark.parametrize("seed", range(3))
def test_what_guides_share_has_the_moments_of_the_product_of_mixtures(seed):
    rng = np.random.default_rng(seed)
    n_guides = 2 + seed
    sizes, weights = np.array([0.01, 0.3, 2.0]), np.array([0.9, 0.06, 0.04])
    offset = 0.2 * rng.normal(size=(n_guides, 5))
    offset[0, :3] += [0.5, 1.0, 3.0]
    noise = rng.uniform(0.01, 0.05, size=offset.shape)
    centre, spread = np.empty((2, 5))
    combine(offset, noise, sizes, weights, np.empty((3, N_POINTS)), centre, spread)
    grid = np.linspace(-8, 10, 60_001)
    for i in range(5):
        density = np.ones_like(grid)
        for e in range(n_guides):
            sd = np.sqrt(noise[e, i] + sizes)
            density *= norm.pdf(offset[e, i], grid[:, None], sd) @ weights
        density /= density.sum()
        mean = density @ grid
        variance = density @ (grid - mean) ** 2
        assert abs(centre[i] - mean) < 0.05 * np.sqrt(variance)
        assert spread[i] == pytest.approx(variance, rel=0.1)


def test_guides_that_agree_are_averaged():
    """With a single variance, by the usual formulas of weighted means."""
    rng = np.random.default_rng(0)
    offset, noise = 0.1 * rng.normal(size=(4, 6)), rng.uniform(0.01, 0.05, size=(4, 6))
    centre, spread = np.empty((2, 6))
    combine(offset, noise, np.array([0.02]), np.ones(1), np.empty((3, N_POINTS)), centre, spread)
    weight = 1 / (noise + 0.02)
    np.testing.assert_allclose(spread, 1 / weight.sum(axis=0), rtol=0.01)
    mean = (weight * offset).sum(axis=0) / weight.sum(axis=0)
    np.testing.assert_allclose(centre, mean, atol=1e-3)


def test_departures_along_factors_and_in_genes_are_told_apart():
    rng = np.random.default_rng(0)
    _, loading = moments(np.zeros((120, P)))
    own = np.sqrt(0.1) * rng.normal(size=(120, P))
    along = np.sqrt(0.1) * rng.normal(size=(120, 2)) @ loading
    genes, factors = learned(own, 3).spread, learned(along, 3).spread
    assert genes.own == pytest.approx(0.1, rel=0.1)
    assert genes.large.sum() < 0.01
    assert genes.along[-2:].max() < 0.03  # the last factors are the strongest
    assert factors.own < 0.003
    np.testing.assert_allclose(factors.along[-2:], 0.1, rtol=0.35)
    for found, variance in ((genes, 0.1), (factors, 0.05)):
        whole = learned({0.1: own, 0.05: along}[variance], 3)
        assert whole.guide_variance == pytest.approx(variance, rel=0.25)
        assert found.freedom == 80


def test_off_targets_are_large_departures():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(120, P)) * (rng.random((120, P)) < 0.05)
    spread = learned(own, 3).spread
    assert spread.own < 0.005
    assert spread.large @ LARGE == pytest.approx(0.05, rel=0.2)
    assert spread.large[LARGE == 1.0].sum() > 0.03


def test_an_effect_of_one_guide_of_four_is_uncertain_and_one_of_all_is_not():
    rng = np.random.default_rng(0)
    own = rng.choice([-1.0, 1.0], (80, P)) * (rng.random((80, P)) < 0.05)
    own[4:8, :2], own[4, 2], own[5:8, 2] = 0.0, 1.0, 0.0
    own[4:8, 0] = 1.0  # gene 0: all guides of group 1; gene 2: one of four
    found = learned(own, 4).pooled
    change, error = found.to_controls()
    own_error = found.errors.own
    z = change[0] / np.sqrt(own_error[1] + own_error[0])
    assert change[0, 0] == pytest.approx(1.0, abs=0.2)
    assert z[0] > 5
    assert abs(change[0, 2]) < 0.15  # the mean of guides is 0.25
    assert (error > 0).all()


def test_the_default_takes_the_place_of_a_variance_that_cannot_be_estimated():
    rng = np.random.default_rng(0)
    own = np.sqrt(0.1) * rng.normal(size=(20, P))
    found = learned(own, 1)
    assert found.spread.freedom == 0
    assert found.spread.own == USUAL_OWN
    assert set(found.spread.along) == {USUAL_ALONG}
    assert USUAL_VARIANCE / 3 < found.guide_variance < 3 * USUAL_VARIANCE
    # A single pair of guides says much of single genes.
    screen, _ = moments(own)
    group = np.maximum(np.arange(20) - 1, 0)
    assert pool_cells(screen, group, 19, guide=np.arange(20)).spread.own > 0.05


def test_an_effect_of_a_single_guide_may_be_its_departure():
    rng = np.random.default_rng(0)
    noise = np.full((50, P), 0.01)
    off = (rng.random((50, P)) < 0.05) * rng.choice([-1.0, 1.0], (50, P))
    real = (rng.random((50, P)) < 0.05) * rng.choice([-1.0, 1.0], (50, P))
    seen = 0.1 * rng.normal(size=(50, P))
    large = np.where(LARGE == 1.0, 0.05, 0.0)
    spread = GuideSpread(np.zeros(1), 0.001, large, 80.0)
    alone, both = (unseen_departure(seen + x, noise, spread) for x in (off, off + real))
    # All large parts are departures; about half of them are.
    assert alone[off != 0].mean() > 0.6
    assert 0.3 < both[(off != 0) ^ (real != 0)].mean() < 0.65
    assert np.median(alone[off == 0]) < 0.01
    quiet = GuideSpread(np.zeros(1), 0.001, np.zeros(len(LARGE)), 80.0)
    np.testing.assert_allclose(unseen_departure(seen + real, noise, quiet), 0.001)


def test_one_number_stands_for_a_spread_in_all_directions():
    screen, _ = moments(np.zeros((12, P)))
    group, guide = np.divmod(np.arange(12), 3)
    found = pool_cells(screen, group, 4, guide=guide, spread=0.05)
    # Own departures have this variance in every gene, and factors explain half of the variance.
    assert found.guide_variance == pytest.approx(0.05 * 1.5, rel=0.15)
