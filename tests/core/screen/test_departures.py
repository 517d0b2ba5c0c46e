"""Departures of guides: what is learned of them, and what guides share (equation 7)."""

import numpy as np
import pytest
from scipy.stats import norm

from nextpert.core import ScreenMoments
from nextpert.core.fit.cells import pool_cells
from nextpert.core.screen._departures_kernel import N_POINTS, combine
from nextpert.core.screen.departures import (
    LARGE_VARIANCES,
    SIZES,
    USUAL_ALONG,
    USUAL_OWN,
    USUAL_VARIANCE,
    Coexpression,
    GuideSpread,
    unseen_departure,
)
from nextpert.core.screen.guides import MeanErrors

P = 60


def moments(offsets, *, n=50, seed=99, share=0.5, sd=1.0):
    """Means of guides of coexpressed cells: ``offsets`` of shape ``(n_guides, P)``."""
    rng = np.random.default_rng(seed)
    loading = rng.normal(size=(2, P))
    loading *= np.sqrt(share / (loading**2).sum(axis=0))
    guide = np.repeat(np.arange(len(offsets)), n)
    x = rng.normal(size=(len(guide), P)) * np.sqrt(1 - share)
    x += rng.normal(size=(len(guide), 2)) @ loading + offsets[guide]
    return ScreenMoments.from_array(sd * x, guide, len(offsets)), loading


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
    centre, spread, evidence = np.empty((3, 5))
    combine(offset, noise, sizes, weights, np.empty((3, N_POINTS)), centre, spread, evidence)
    grid = np.linspace(-8, 10, 60_001)
    for i in range(5):
        density = np.ones_like(grid)
        for e in range(n_guides):
            sd = np.sqrt(noise[e, i] + sizes)
            density *= norm.pdf(offset[e, i], grid[:, None], sd) @ weights
        whole = density.sum() * (grid[1] - grid[0]) * (2 * np.pi) ** (n_guides / 2)
        assert evidence[i] == pytest.approx(np.log(whole), abs=0.02)
        density /= density.sum()
        mean = density @ grid
        variance = density @ (grid - mean) ** 2
        assert abs(centre[i] - mean) < 0.05 * np.sqrt(variance)
        assert spread[i] == pytest.approx(variance, rel=0.1)


def test_guides_that_agree_are_averaged():
    """With a single variance, by the usual formulas of weighted means."""
    rng = np.random.default_rng(0)
    offset, noise = 0.1 * rng.normal(size=(4, 6)), rng.uniform(0.01, 0.05, size=(4, 6))
    centre, spread, evidence = np.empty((3, 6))
    room = np.empty((3, N_POINTS))
    combine(offset, noise, np.array([0.02]), np.ones(1), room, centre, spread, evidence)
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
    assert spread.large @ LARGE_VARIANCES == pytest.approx(0.05, rel=0.2)
    assert spread.large[LARGE_VARIANCES == 1.0].sum() > 0.03


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
    large = np.where(LARGE_VARIANCES == 1.0, 0.05, 0.0)
    spread = GuideSpread(np.zeros(1), 0.001, large, 80.0)
    alone, both = (unseen_departure(seen + x, noise, spread) for x in (off, off + real))
    # All large parts are departures; about half of them are.
    assert alone[off != 0].mean() > 0.6
    assert 0.3 < both[(off != 0) ^ (real != 0)].mean() < 0.65
    assert np.median(alone[off == 0]) < 0.01
    quiet = GuideSpread(np.zeros(1), 0.001, np.zeros(len(LARGE_VARIANCES)), 80.0)
    np.testing.assert_allclose(unseen_departure(seen + real, noise, quiet), 0.001)


def test_one_number_stands_for_a_spread_in_all_directions():
    screen, _ = moments(np.zeros((12, P)))
    group, guide = np.divmod(np.arange(12), 3)
    found = pool_cells(screen, group, 4, guide=guide, spread=0.05)
    # Own departures have this variance in every gene, and factors explain half of the variance.
    assert found.guide_variance == pytest.approx(0.05 * 1.5, rel=0.15)


def test_sizes_of_departures_are_those_of_off_targets():
    rng = np.random.default_rng(0)
    own = rng.choice([-1.0, 1.0], (240, P)) * (rng.random((240, P)) < 0.05)
    spread = learned(own, 3).spread
    near = (SIZES > 0.7) & (SIZES < 1.3)
    assert spread.sizes[near].sum() == pytest.approx(0.05, rel=0.15)
    assert spread.sizes[SIZES > 1.3].sum() < 0.005
    # Without guides that differ, those of normal departures: P(|x| > 0.22) = 2 Phi(-0.22 / sd).
    normal = GuideSpread(np.zeros(1), 0.0, np.eye(len(LARGE_VARIANCES))[3], 0.0).sizes
    edge = SIZES[0] / np.sqrt(SIZES[1] / SIZES[0])
    assert normal.sum() == pytest.approx(2 * norm.cdf(-edge / np.sqrt(LARGE_VARIANCES[3])))


@pytest.mark.parametrize("n_guides", [2, 3])
def test_coinciding_off_targets_of_all_guides_are_about_as_frequent_as_stated(n_guides):
    """By simulation: effects of 1 in 4% of genes, and off-targets of 1 in 10%."""
    rng = np.random.default_rng(n_guides)
    n_groups, truth = 100, np.zeros((101, P))
    truth[1:] = rng.choice([-1.0, 1.0], (n_groups, P)) * (rng.random((n_groups, P)) < 0.04)
    shape = (len(truth) * n_guides, P)
    own = rng.choice([-1.0, 1.0], shape) * (rng.random(shape) < 0.1)
    own[:n_guides] = 0.0  # the controls
    found = learned(np.repeat(truth, n_guides, axis=0) + own, n_guides, share=0.3).pooled
    chance, effect = found.errors.coincidence, found.mean[1:] - found.mean[0]
    # Without coincidence, the normal density of what guides share is certain of these signs.
    seen = abs(effect) > 4 * np.sqrt(found.errors.total()[1:])
    false = (seen & (truth[1:] == 0)).sum()
    assert false > 40
    assert 0.5 < chance[1:][seen].sum() / false < 1.2
    assert (chance[0] == 0).all()


def test_a_sign_that_coexpression_confirms_is_no_coincidence():
    """Three of four guides have an effect, of which the factor gives a part, or not."""
    rng = np.random.default_rng(0)
    offsets = rng.choice([-1.0, 1.0], (84, P)) * (rng.random((84, P)) < 0.1)
    offsets[:12] = 0.0
    _, loading = moments(np.zeros((84, P)))
    gene = int(abs(loading[0]).argmax())
    offsets[4:12, gene] += np.tile([1.0, 1.0, 1.0, 0.0], 2)
    offsets[4:8] += 2.0 * np.sign(loading[0, gene]) * loading[0]
    chance = learned(offsets, 4).pooled.errors.coincidence
    assert chance[1, gene] == 0
    assert chance[2, gene] > 0.01


def test_factors_that_coincide_share_the_scores():
    factors = np.repeat(np.array([[1.0], [2.0], [0.5]]), 2, axis=1)
    cells = Coexpression(factors, np.ones(3), np.ones(3))
    one = Coexpression(factors[:, :1], np.ones(3), np.ones(3))
    np.testing.assert_allclose(cells.projection().sum(axis=0), one.projection()[0])


def test_cells_of_few_per_guide_have_the_variance_within_guides():
    """With 4 cells per guide, of which departures take a fourth of the degrees of freedom."""
    n, n_guides = 4, 240
    offsets = 2.0 * np.random.default_rng(1).normal(size=(n_guides, P))
    screen, _ = moments(offsets, n=n)
    found = learned(offsets, 3, n=n).pooled.errors.cells
    within = screen.scatter.diagonal() / (n * n_guides - n_guides)
    np.testing.assert_allclose(found.unit, np.sqrt(within), rtol=1e-6)


def test_a_gene_of_another_unit_has_the_same_effect_in_this_unit():
    rng = np.random.default_rng(2)
    offsets = rng.normal(size=(80, P)) * (rng.random((80, P)) < 0.05)
    sd = np.geomspace(0.1, 10.0, P)
    found, scaled = (learned(offsets, 4, sd=unit).pooled for unit in (1.0, sd))
    np.testing.assert_allclose(scaled.mean, found.mean * sd, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scaled.to_controls()[1], found.to_controls()[1], rtol=1e-6)


def test_the_variance_of_a_mean_is_the_diagonal_of_its_covariance():
    rng = np.random.default_rng(0)
    cells = Coexpression(rng.normal(size=(4, 2)), np.ones(4), np.ones(4))
    own, along = rng.uniform(1, 2, (3, 4)), rng.uniform(1, 2, (3, 2))
    found = MeanErrors(own, along, cells, np.zeros((3, 4))).total()
    for k in range(3):
        covariance = np.diag(own[k]) + cells.factors @ np.diag(along[k]) @ cells.factors.T
        np.testing.assert_allclose(found[k], covariance.diagonal())
