"""The benchmark of effects from few cells: its estimates, and that its intervals are tested."""

import numpy as np
import pytest
from scipy import integrate, stats

from benchmarks import _shrinkage as shrinkage
from benchmarks import few_cells as few
from benchmarks._cells import Cells

pytestmark = pytest.mark.benchmarks


def simulated():
    """Cells of 8 perturbations; of 30 genes few move."""
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(9), [800, *[160] * 8])
    effect = rng.normal(size=(9, 30)) * (rng.random((9, 30)) < 1 / 6) * (np.arange(9) > 0)[:, None]
    x = 2.0 + effect[code] + rng.normal(size=(len(code), 30))
    return Cells(x, code, [f"p{j}" for j in range(9)], [-1] * 9, False)


def test_shrinkage_beats_means_and_its_intervals_hold():
    cells = simulated()
    errors, holds = few.few(cells, 20, 0)
    errors = {name: values.mean() for name, values in errors.items()}  # over 8 perturbations
    for name in ("t test", "ash as published", "mash, short form", few.OURS):
        assert errors[name] < 0.6 * errors[few.RAW]
        assert errors[name] < 0.6 * errors[few.NOTHING]
    assert 0.85 < holds["all effects"] < 0.97
    assert np.isnan(holds["target genes"])
    # The means are scored on other cells: as wrong as their own variance, controls' included.
    assert 0.8 < errors[few.RAW] / (30 * (1 / 20 + 1 / 400)) < 1.2


def test_distances_of_means_that_are_alike_are_zero_on_average():
    from benchmarks import own_state

    cells = simulated()
    x = np.random.default_rng(1).normal(size=cells.x.shape)
    found = own_state.apart(cells._replace(x=x), np.ones(len(x), bool), np.arange(30))
    apart = found[np.triu_indices(9, 1)]
    assert abs(apart.mean()) < 3 * apart.std() / 6  # what sampling adds is 0.3


def test_effects_that_are_significant_stay():
    effect = np.array([5.0, 2.5, 0.1, -4.0, 1.0])
    p = 2 * stats.norm.sf(np.abs(effect))
    kept = stats.false_discovery_control(p) <= 0.05
    assert kept.tolist() == [True, True, False, True, False]
    np.testing.assert_array_equal(shrinkage.significant(effect, np.ones(5)), effect * kept)
    assert not shrinkage.significant(effect / 10, np.ones(5)).any()


def test_ash_is_the_posterior_mean_of_its_mixture():
    rng = np.random.default_rng(1)
    truth = np.where(np.arange(400) < 80, rng.normal(size=400) * 2.0, 0.0)
    se = np.full(400, 0.5)
    found = shrinkage.ash(truth + se * rng.normal(size=400), se)
    assert ((found - truth) ** 2).sum() < 0.5 * 400 * 0.25
    noise = 0.5 * rng.normal(size=400)
    assert (shrinkage.ash(noise, se) ** 2).sum() < 0.1 * (noise**2).sum()
    # One effect that was seen among many alike: by quadrature over the prior that made them.
    many = 1.5 * rng.normal(size=3000)
    seen = many + 0.5 * rng.normal(size=3000)
    found = shrinkage.ash(seen, np.full(3000, 0.5))

    def weighted(power):
        def value(t):
            return t**power * stats.norm.pdf(t, 0, 1.5) * stats.norm.pdf(seen[0], t, 0.5)

        return integrate.quad(value, -10, 10)[0]

    assert abs(found[0] - weighted(1) / weighted(0)) < 0.15


def shared_effects(n_genes=300, n_cells=10):
    """Effects of six perturbations in two groups, with errors that share 50 controls; in units."""
    rng = np.random.default_rng(4)
    covariance = 0.3 * np.kron(np.eye(2), np.ones((3, 3)))
    noise = np.eye(6) / n_cells + 1 / 50
    moves = np.arange(n_genes) < n_genes / 2
    truth = np.linalg.cholesky(covariance + 1e-9 * np.eye(6)) @ rng.normal(size=(6, n_genes))
    truth *= moves
    seen = truth + np.linalg.cholesky(noise) @ rng.normal(size=truth.shape)
    return truth, seen, covariance, noise, np.full(6, n_cells)


def test_mash_learns_what_perturbations_share():
    truth, seen, covariance, noise, n = shared_effects()
    sd = np.linspace(0.5, 2.0, seen.shape[1])
    mean, variance = shrinkage.mash_posterior(seen * sd, sd, n, 50)
    # The posterior mean under the prior that made the effects, by densities of scipy.
    moves, rests = (
        stats.multivariate_normal(np.zeros(6), matrix).pdf(seen.T)
        for matrix in (covariance + noise, noise)
    )
    best = moves / (moves + rests) * (covariance @ np.linalg.solve(covariance + noise, seen))
    errors = {"mash": mean / sd, "best": best, "means": seen}
    errors["ash"] = np.array(
        [shrinkage.ash(row, np.full(300, np.sqrt(noise[0, 0]))) for row in seen]
    )
    size = {name: ((found - truth) ** 2).mean() for name, found in errors.items()}
    assert size["best"] < size["mash"] < 1.25 * size["best"]
    assert size["mash"] < 0.7 * size["ash"] < 0.7 * size["means"]
    # The stated variance is that of the errors.
    assert variance.mean() / sd.dot(sd) * len(sd) == pytest.approx(size["mash"], rel=0.5)


def test_mash_of_one_perturbation_is_ash_and_of_noise_nothing():
    _, seen, _, noise, n = shared_effects()
    se = np.sqrt(noise[0, 0])
    one, variance = shrinkage.mash_posterior(seen[:1], np.ones(300), n[:1], 50)
    mean, by_ash = shrinkage.ash_posterior(seen[0], np.full(300, se))
    np.testing.assert_allclose(one[0], mean, atol=1e-6)
    np.testing.assert_allclose(variance[0], by_ash, atol=1e-6)
    quiet = np.linalg.cholesky(noise) @ np.random.default_rng(0).normal(size=(6, 300))
    assert (shrinkage.mash_posterior(quiet, np.ones(300), n, 50)[0] ** 2).sum() < 0.1 * (
        quiet**2
    ).sum()


def test_james_stein_draws_noise_to_nothing():
    rng = np.random.default_rng(2)
    effect = rng.normal(size=(50, 60))
    found = shrinkage.james_stein(effect, np.ones_like(effect))
    assert (found**2).sum(axis=1).mean() < 6
    strong = shrinkage.james_stein(effect + 10.0, np.ones_like(effect))
    np.testing.assert_allclose(strong, effect + 10.0, rtol=0.02)
