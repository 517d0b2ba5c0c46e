import numpy as np
import pytest
from scipy.stats import chi2

from nextpert.core import ScreenMoments
from nextpert.core.design.power import screen_noise
from nextpert.core.screen.guides import spread_within


def simulated(rng, *, guide=0.03, control=0.03, replicate=0.02, p=60):
    """Controls of 10 guides and 8 perturbations of 4 guides, all in 3 replicates of 40 cells."""
    rows, cells = [], []
    for group in range(9):
        in_replicate = rng.normal(0, np.sqrt(replicate), (3, p))
        for k in range(4 if group else 10):
            of_guide = rng.normal(group, np.sqrt(guide if group else control), p)
            for batch in range(3):
                rows.append((group, 100 * group + k, batch))
                sd = 1.2 if group == 1 else 1.0
                cells.append(of_guide + in_replicate[batch] + rng.normal(0, sd, (40, p)))
    codes = np.repeat(np.arange(len(rows)), 40)
    return ScreenMoments.from_array(np.concatenate(cells), codes, len(rows)), np.array(rows).T


def test_variances_of_guides_and_replicates_are_found():
    screen, (group, guide, batch) = simulated(np.random.default_rng(0), control=0.01)
    noise = screen_noise(screen, group, guide, batch, 9)
    # Over the variance within a guide, in which that of its replicates is.
    np.testing.assert_allclose(noise.guide_variance, 0.03, rtol=0.2)
    np.testing.assert_allclose(noise.control_guide_variance, 0.01, rtol=0.4)
    np.testing.assert_allclose(noise.replicate_variance, 0.02, rtol=0.2)
    assert noise.n_guides.tolist() == [10] + [4] * 8
    assert noise.n_replicates.tolist() == [3] * 9
    # Moderated: 1.45 and 1.02 are shrunk towards the variance within all cells.
    pooled, freedom = noise.pooled, noise.pooled.freedom
    truth = np.array([1.02, 1.45, *[1.02] * 7])
    towards = pooled.prior_freedom * (freedom @ truth) / freedom.sum()
    wanted = (towards + freedom * truth) / (pooled.prior_freedom + freedom)
    assert wanted[1] > 1.3
    np.testing.assert_allclose(noise.variance(1).mean(), wanted[1], rtol=0.03)
    np.testing.assert_allclose(noise.variance(2).mean(), wanted[2], rtol=0.03)
    own = np.mean([noise.variance(j) for j in range(1, 9)], axis=0)
    np.testing.assert_allclose(noise.perturbed_variance, own, rtol=1e-9)


def test_spread_is_that_of_the_means():
    rng, away = np.random.default_rng(1), []
    for _ in range(40):
        screen, (group, guide, batch) = simulated(rng, p=10)
        noise = screen_noise(screen, group, guide, batch, 9)
        away.append((noise.pooled.mean[3] - 3) ** 2)
    stated = 1 / 480 + noise.layout(3).floor
    np.testing.assert_allclose(np.mean(away), stated, rtol=0.25)


def test_no_spread_is_found_where_there_is_none_and_few_guides_are_no_evidence():
    screen, (group, guide, batch) = simulated(
        np.random.default_rng(2), guide=0, control=0, replicate=0
    )
    noise = screen_noise(screen, group, guide, batch, 9)
    assert max(noise.guide_variance, noise.control_guide_variance) < 0.002
    assert noise.replicate_variance < 0.004
    one = screen_noise(screen, group, group, batch * 0, 9)
    assert one.guide_variance == one.control_guide_variance == 0
    assert one.n_guides.tolist() == one.n_replicates.tolist() == [1] * 9


def test_controls_stand_for_perturbations_of_one_guide():
    screen, (group, guide, batch) = simulated(np.random.default_rng(3))
    noise = screen_noise(screen, group, np.where(group > 0, 0, guide), batch, 9)
    assert noise.guide_variance == noise.control_guide_variance > 0.02


@pytest.mark.parametrize("n_guides", [3, 10])
def test_one_block_is_the_spread_of_its_guides(n_guides):
    rng = np.random.default_rng(4)
    screen, _ = simulated(rng)
    index = np.arange(0, 3 * n_guides, 3)
    block = np.full(screen.n_environments, -1)
    block[index] = 5
    # The method of moments by hand, all genes alike.
    n, mean = 40, screen.mean[index]
    between = n * mean.var(axis=0, ddof=1)
    within = screen.squares[index].sum(axis=0) / (n_guides * (n - 1))
    null = chi2.median(n_guides - 1) / (n_guides - 1)
    wanted = max(np.median(between / within) / null - 1, 0) / n
    np.testing.assert_allclose(spread_within(screen, block), wanted)


def test_guides_of_one_cell_have_no_variance_and_no_nan():
    x = np.random.default_rng(0).normal(size=(4, 3))
    noise = screen_noise(
        ScreenMoments.from_array(x, np.arange(4), 4), [0, 0, 1, 1], np.arange(4), [0] * 4, 2
    )
    assert noise.variance(1).tolist() == [0.0] * 3
