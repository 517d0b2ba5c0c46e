"""Rankings and the table of effects state the same posterior, on the genes that count."""

import numpy as np
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from tests._screens import simulated_fit, small_fit

N_SAMPLES = 4000
SCREENS = {
    "knockouts": small_fit,
    "simulated": simulated_fit,
    "few cells": lambda: simulated_fit(n_perturbed=10),
}


@pytest.fixture(scope="module", params=SCREENS)
def fitted(request):
    return SCREENS[request.param]()


def effects_of(adata):
    """Return mean and variance of each effect, and names of perturbations and genes."""
    found = npt.tl.perturbation_effects(adata, as_anndata=True)
    return found.to_df(), found.to_df("sd") ** 2


def squared_effect(mean, variance, left_out):
    """Return the expected squared effect without some genes."""
    counted = ~mean.index.isin(left_out)
    return float((mean[counted] ** 2 + variance[counted]).sum())


def targets_of(adata):
    return posterior_from(adata).names[:4]


def test_the_control_has_the_expected_squared_effect_of_the_target(fitted):
    mean, variance = effects_of(fitted)
    for name in targets_of(fitted):
        npt.tl.design_interventions(fitted, name, n_samples=N_SAMPLES)
        ranking = fitted.uns["design"]["ranking"].set_index("perturbation")
        left_out = ranking["genes_left_out"]["control"].split(", ")
        expected = squared_effect(mean.loc[name], variance.loc[name], left_out)
        assert ranking["mean_distance"]["control"] == pytest.approx(expected, rel=0.05)


def test_candidates_have_the_expected_squared_difference_of_effects(fitted):
    fit = posterior_from(fitted)
    draws = np.array([*fit.hierarchical.effects.draws(N_SAMPLES, rng=5)])
    for name in targets_of(fitted)[:2]:
        target = npt.Target(state=name, own_genes="include")
        npt.tl.design_interventions(fitted, target, n_samples=N_SAMPLES)
        ranking = fitted.uns["design"]["ranking"].set_index("perturbation")["mean_distance"]
        gaps = ((draws - draws[:, [fit.names.index(name)]]) ** 2).sum(axis=2).mean(axis=0)
        candidates = [x for x in fit.names if x in ranking.index and x != name]
        expected = [gaps[fit.names.index(x)] for x in candidates]
        np.testing.assert_allclose(ranking[candidates], expected, rtol=0.06)


def test_numbers_are_the_distances_to_these_numbers(fitted):
    fit = posterior_from(fitted)
    control = fit.hierarchical.control
    mean, variance = effects_of(fitted)
    genes = list(fit.genes)
    numbers = fit.control_mean + np.linspace(-0.5, 0.5, len(genes))
    npt.tl.design_interventions(
        fitted, dict(zip(genes, numbers.tolist(), strict=True)), n_samples=N_SAMPLES
    )
    ranking = fitted.uns["design"]["ranking"].set_index("perturbation")["mean_distance"]
    of_control = ((control - numbers) ** 2).sum(axis=1).mean()
    assert ranking["control"] == pytest.approx(of_control, rel=0.02)
    assert ranking["control"] == pytest.approx(((fit.control_mean - numbers) ** 2).sum(), rel=0.1)
    states = mean[genes].to_numpy() + control.mean(axis=0) - numbers
    nearest = {name: (x**2).sum() for name, x in zip(mean.index, states, strict=True)}
    excess = [ranking[name] - nearest[name] for name in mean.index if name in ranking.index]
    # Beyond the distance of the expected state, a distance has the variance of the state.
    most = variance[genes].to_numpy().sum(axis=1).max() + 2 * control.var(axis=0).sum()
    assert min(excess) > 0
    assert max(excess) < 1.2 * most
