"""Variance of planned differences, and power by local false sign rate and false discovery rate."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control, nct, norm
from scipy.stats import t as student

from nextpert.core import ScreenMoments
from nextpert.core.design.detection import (
    ByDiscoveryRate,
    ByFalseSigns,
    Noise,
    _beyond,
    first_below,
)
from nextpert.core.design.effect_sizes import SIZES, EffectSizes
from nextpert.core.design.power import Layout, screen_noise
from nextpert.core.model.effect_draws import SCALES, TAILS
from nextpert.core.screen.departures import Coexpression


def noise_of(variance, p=60, n_perturbations=20, freedom=1e6):
    return Noise(np.full(p, variance), np.full(p, variance), np.full(p, freedom), n_perturbations)


def test_spread_of_means_of_cells_in_guides_and_replicates():
    layout = Layout(3, 2, guide_variance=0.2, replicate_variance=0.1)
    rng, n_draws = np.random.default_rng(0), 20000
    guides = rng.normal(0, np.sqrt(0.2), (n_draws, 3, 1))
    replicates = rng.normal(0, np.sqrt(0.1), (n_draws, 1, 2))
    cells = rng.normal(size=(n_draws, 3, 2)) / np.sqrt(2)  # two cells of each
    means = (guides + replicates + cells).mean(axis=(1, 2))
    error = (1 / 12 + layout.floor) * np.sqrt(2 / n_draws)
    assert abs(means.var() - (1 / 12 + layout.floor)) < 4 * error


@pytest.mark.parametrize(("share", "sd"), [(0.05, 0.5), (0.2, 0.37), (0.02, 1.0)])
def test_given_effects_have_their_share_and_sd(share, sd):
    sizes = EffectSizes.of_share(share, sd)
    mixture = sizes.mixtures[0]
    assert mixture.sum() == pytest.approx(1)
    assert mixture[0] == pytest.approx(1 - share)
    assert mixture[1:] @ SIZES[1:] == pytest.approx(share * sd**2, rel=1e-6)
    drawn = sizes.draw(200, 500, np.random.default_rng(0))
    assert (np.abs(drawn) > 0.2).mean() == pytest.approx(sizes.share(0.2), abs=0.004)


def test_weights_of_a_fit_are_recovered_from_its_draws():
    rng = np.random.default_rng(0)
    scales, tails = np.zeros(len(SCALES)), np.zeros(len(TAILS))
    scales[[2, 8]] = 0.7, 0.3
    tails[[0, 5, 9]] = 0.6, 0.3, 0.1
    scale = rng.choice(len(SCALES), (80, 1, 6), p=scales)
    place = scale + rng.choice(len(TAILS), (80, 100, 6), p=tails)
    found = EffectSizes.of_draws(place.astype(np.int8), rng.normal(size=(6, 80, 2)))
    known = EffectSizes.of_weights(scales, tails)
    wanted, mixture = (x.classes @ x.mixtures for x in (known, found))
    np.testing.assert_allclose(mixture, wanted, atol=0.03)
    assert found.share(0.3) == pytest.approx(known.share(0.3), abs=0.01)
    assert np.median(found.along) == pytest.approx(0.455, abs=0.08)  # of chi squared


@pytest.mark.parametrize(("share", "sd", "noise"), [(0.05, 0.8, 0.05), (0.2, 0.5, 0.1)])
def test_thresholds_are_where_the_rate_of_one_normal_and_zero_is_the_level(share, sd, noise):
    """With one size of effects the rate has a closed form."""
    sizes = EffectSizes.of_share(share, np.sqrt(SIZES[sd**2 >= SIZES][-1]))
    (z,) = first_below(sizes.mixtures, noise)
    total = SIZES + noise
    weight = sizes.mixtures[0] * norm.pdf(z * np.sqrt(noise), scale=np.sqrt(total))
    shrink = SIZES / total
    wrong = np.where(z * shrink < 1, 1, 2 * norm.sf(z * np.sqrt(shrink)))
    assert (weight @ wrong) / weight.sum() < 0.05
    assert z < 8
    assert (first_below(sizes.mixtures, noise * 4) > z).all()  # fewer cells, stricter


def test_detected_share_is_the_power_averaged_over_effects():
    sizes = EffectSizes.of_share(0.1, 0.7)
    for rule in (ByFalseSigns(sizes, np.ones(60)), ByDiscoveryRate(sizes)):
        noise = noise_of(0.05)
        drawn = sizes.draw(300, 60, np.random.default_rng(1))
        power = np.mean([rule.power(noise, row) for row in drawn[:60]])
        assert rule.detected(noise) == pytest.approx(power, abs=0.008)


def test_power_by_discovery_rate_is_that_of_simulated_screens():
    rng, sizes = np.random.default_rng(0), EffectSizes.of_share(0.1, 0.8)
    variance, freedom, effect = 0.06, 20.0, 1.0
    hits = []
    for _ in range(800):
        effects = sizes.draw(20, 60, rng)
        effects[0, 0] = effect
        squares = variance * rng.chisquare(freedom, effects.shape) / freedom
        t = (effects + np.sqrt(variance) * rng.normal(size=effects.shape)) / np.sqrt(squares)
        p = 2 * student.sf(np.abs(t), freedom)
        hits.append(false_discovery_control(p.ravel())[0] < 0.05)
    planned = ByDiscoveryRate(sizes).power(noise_of(variance, freedom=freedom), effect)[0]
    assert planned == pytest.approx(np.mean(hits), abs=0.05)


def test_a_single_test_is_a_t_test():
    """Without other effects, one effect is compared with 0.05 over the number of tests."""
    sizes = EffectSizes.of_share(1e-9, 0.5)
    noise = noise_of(0.1, p=50, n_perturbations=1, freedom=12.0)
    levels = ByDiscoveryRate(sizes).levels(noise)
    assert levels.min() == pytest.approx(0.05 / 50)
    reach = -student.ppf(0.05 / 100, 12.0)
    wanted = nct.sf(reach, 12.0, 1.5 / np.sqrt(0.1))
    assert ByDiscoveryRate(sizes).power(noise, 1.5)[0] == pytest.approx(wanted, abs=0.03)


@pytest.mark.parametrize("freedom", [3.0, 60.0, 150.0])
def test_probabilities_beyond_a_level_are_those_of_a_noncentral_t(freedom):
    reach, size = np.array([2.0, 3.0, 4.0]), np.array([0.3, 1.0, 4.0])
    found = _beyond(reach, np.full(3, freedom), size)
    np.testing.assert_allclose(found, nct.sf(reach, freedom, size), atol=1e-4)


def test_power_rises_with_share_size_and_cells():
    rule = ByFalseSigns(EffectSizes.of_share(0.05, 0.7), np.ones(60))
    few, many = (rule.power(noise_of(v), 0.7)[0] for v in (0.1, 0.02))
    assert few < many
    assert rule.power(noise_of(0.05), 0.5)[0] < rule.power(noise_of(0.05), 1.0)[0]
    often = ByFalseSigns(EffectSizes.of_share(0.3, 0.7), np.ones(60))
    assert rule.power(noise_of(0.1), 0.7)[0] < often.power(noise_of(0.1), 0.7)[0]
    np.testing.assert_allclose(rule.power(noise_of(0.05), -0.7), rule.power(noise_of(0.05), 0.7))


def planned(n, *, factors=None, n_perturbations=20, sizes=None):
    x = np.random.default_rng(0).normal(size=(800, 30))
    screen = ScreenMoments.from_array(x, (np.arange(800) >= 400).astype(int), 2)
    noise = screen_noise(screen, [0, 1], [0, 0], [0, 0], 2)
    gamma = np.zeros((30, 0)) if factors is None else factors
    cells = Coexpression(gamma, 1 - (gamma**2).sum(axis=1), np.ones(30))
    return noise.planned(
        n, Layout(), n_control=400, n_perturbations=n_perturbations, cells=cells,
        sizes=sizes or EffectSizes.of_share(0.05, 0.5),
    )  # fmt: skip


def test_perturbed_cells_inform_the_controls_and_coexpressed_noise_is_known():
    found = planned(20)
    np.testing.assert_allclose(found.of_means, 1 / 20 + 1 / 400, rtol=0.1)
    assert (found.of_model < found.of_means).all()
    alone = planned(20, n_perturbations=0)
    np.testing.assert_allclose(alone.of_model, alone.of_means, rtol=1e-6)
    factors = np.full((30, 1), np.sqrt(0.5))
    less = planned(20, factors=factors).of_model / found.of_model
    # Half of the noise is common, and 29 other genes determine it.
    np.testing.assert_allclose(less, 0.5 * (1 + 1 / 30), rtol=0.02)
    along = EffectSizes(*vars(EffectSizes.of_share(0.05, 0.5)).values())
    along = EffectSizes(along.classes, along.mixtures, np.array([100.0]))
    np.testing.assert_allclose(
        planned(20, factors=factors, sizes=along).of_model / found.of_model, 1.0, rtol=0.03
    )  # effects along the factor cannot be distinguished from this noise


def test_noise_given_the_other_genes_is_that_of_dense_algebra():
    factors = np.random.default_rng(1).uniform(-0.65, 0.65, size=(30, 2))
    # Without perturbations, kappa is the variance of means, and no effect lies along a factor.
    found = planned(20, factors=factors, n_perturbations=0)
    covariance = factors @ factors.T + np.diag(1 - (factors**2).sum(axis=1))
    expected = found.of_means / np.diag(np.linalg.inv(covariance))
    np.testing.assert_allclose(found.of_model, expected, rtol=1e-9)
