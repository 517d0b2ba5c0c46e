"""Graph and predictors earn their weight in measured effects, or have none."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.core.model.effects import estimate_effects as core_effects
from nextpert.core.model.random_shifts import learn_together


@pytest.fixture(scope="module")
def screen():
    """Cells of 13 perturbations, 20 of each to learn from; the effects that all of them show."""
    every = npt.datasets.simulated_screen(n_genes=20, n_control=2000, expected_degree=5, rng=4)
    label = every.obs["perturbation"].astype(str).to_numpy()
    taken, effects = label == "control", {}
    control = every.X[taken].mean(axis=0)
    for name in sorted({*label} - {"control"}):
        mine = np.flatnonzero(label == name)
        taken[mine[:20]] = True
        effects[name] = every.X[mine[20:]].mean(axis=0) - control
    return every[taken].copy(), effects


def fitted(screen, *, turned):
    adata, weights = screen[0].copy(), screen[0].uns["truth"]["weights"]
    npt.tl.learn_dag(adata, method="given", dag=weights if turned else weights.T)
    npt.tl.fit_dag_blr(adata)
    return adata


def error(screen, table, names):
    return ((table - np.array([screen[1][name] for name in names])) ** 2).sum()


@pytest.mark.parametrize("turned", [False, True])
def test_a_graph_counts_in_measured_effects_as_far_as_it_is_right(screen, turned, caplog):
    with caplog.at_level(logging.INFO, logger="nextpert"):
        adata = fitted(screen, turned=turned)
    stored = adata.uns["dag_blr"]["averaging"]
    weights = dict(zip(stored["models"], stored["weights"], strict=True))
    np.testing.assert_allclose(stored["weights"].sum(), 1)
    graph = weights["graph"] + weights["graph and predictors"]
    assert graph < 0.1 if turned else graph > 0.8
    assert f"measured effects: graph {graph:.2f}" in caplog.text
    effects = npt.tl.perturbation_effects(adata, as_anndata=True)
    names = effects.obs_names
    by_cells = error(screen, effects.layers["raw_mean"], names)
    assert error(screen, effects.X, names) < 0.7 * by_cells
    fit = posterior_from(adata)
    believed = error(screen, core_effects([fit.posterior], fit.prior).mean, names)
    assert believed > by_cells if turned else believed < 0.5 * by_cells


def test_the_ranking_counts_models_as_effects_do(screen):
    adata = fitted(screen, turned=True)
    fit = posterior_from(adata)
    weights = [known.weight for known in fit.known(fit.averaged)]
    np.testing.assert_allclose(weights, fit.averaged.weights)
    npt.tl.design_interventions(adata, "FOS", acquisition="greedy", target_is_candidate=True)
    found = adata.uns["design"]["ranking"].set_index("perturbation")["state_distance"]
    effects = npt.tl.perturbation_effects(adata, as_anndata=True)
    target = adata[adata.obs["perturbation"] == "FOS"].X.mean(axis=0) - fit.control_mean
    apart = ((effects.X - target) ** 2).sum(axis=1)
    named = dict(zip(effects.obs_names, apart, strict=True))
    shift = [found[name] - named[name] for name in named]
    assert np.std(shift) < 0.02 * np.std(apart)  # but for the target's own error, the same for all


def test_perturbations_without_cells_are_expected_as_predictors_say(screen):
    """Their weights were learned on perturbations left out; those of models are not in it."""
    adata = fitted(screen, turned=False)
    fit = posterior_from(adata)
    unseen = [gene for gene in fit.genes if gene not in screen[1]][:2]
    effects = npt.tl.perturbation_effects(adata, candidates=unseen, as_anndata=True)
    del adata.uns["dag_blr"]["averaging"]
    adata.uns["dag_blr"].pop("contents")
    adata.uns["dag_blr"]["contents"] = "{}"
    alone = npt.tl.perturbation_effects(adata, candidates=unseen, as_anndata=True)
    np.testing.assert_allclose(effects.X, alone.X, rtol=1e-8, atol=1e-10)


def test_shifts_taken_as_exact_are_not_averaged(screen):
    adata = fitted(screen, turned=False)
    npt.tl.fit_dag_blr(adata, shift_sd=0)
    assert "averaging" not in adata.uns["dag_blr"]
    assert len(posterior_from(adata).posteriors) == 1


def test_models_survive_a_file_and_damage_is_told(screen, tmp_path):
    adata = fitted(screen, turned=True)
    adata.write_h5ad(tmp_path / "fit.h5ad")
    back = ad.read_h5ad(tmp_path / "fit.h5ad")
    first, second = posterior_from(adata).averaged, posterior_from(back).averaged
    np.testing.assert_array_equal(first.weights, second.weights)
    for one, other in zip(first.priors, second.priors, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)
    adata.uns["dag_blr"]["averaging"]["weights"][0] = -1.0
    with pytest.raises(ValueError, match=r"averaging.*damaged"):
        posterior_from(adata)


def test_a_graph_without_edges_and_few_perturbations(screen):
    adata = screen[0].copy()
    npt.tl.learn_dag(adata, method="given", dag=[], genes=list(adata.var_names))
    npt.tl.fit_dag_blr(adata)
    assert adata.uns["dag_blr"]["averaging"]["models"].tolist() == ["predictors", "neither"]
    npt.tl.fit_dag_blr(adata, perturbations=sorted(screen[1])[:2])
    assert adata.uns["dag_blr"]["averaging"]["models"].tolist() == ["neither"]
    few = fitted(screen, turned=False)
    npt.tl.fit_dag_blr(few, perturbations=sorted(screen[1])[:2])
    assert few.uns["dag_blr"]["averaging"]["models"].tolist() == ["graph", "neither"]


def test_without_predictors_a_combination_is_held_back_by_no_word_of_its_members():
    """A gene that only the combination moves: nobody expects it, yet all its cells show it."""
    rng = np.random.default_rng(0)
    sizes = {"control": 300, "A": 40, "B": 40, "C": 40, "A+B": 40, "A+C": 40, "B+C": 40}
    label = np.repeat(list(sizes), list(sizes.values()))
    x = 3 + rng.normal(size=(len(label), 12)) * 0.5
    for gene in "ABC":
        x[np.char.find(label, gene) >= 0, "ABC".index(gene)] -= 2
    x[label == "A+C", -1] += 4
    genes = [*"ABC", *(f"g{i}" for i in range(9))]
    obs = pd.DataFrame({"perturbation": label}, index=np.arange(len(label)).astype(str))
    adata = ad.AnnData(x, obs, pd.DataFrame(index=genes))
    npt.tl.learn_dag(adata, method="given", dag=[("A", "g0")], genes=genes)
    npt.tl.fit_dag_blr(adata)
    fit = posterior_from(adata)
    row = [str(name) for name in fit.environments["perturbation"]].index("A+C")
    alone = fit.averaged.models[-1].prior
    measured = ~np.isnan(fit.averaged.main.own[row])
    assert measured.all()  # by its members, where they are asked
    assert (~np.isnan(alone.own[row])).nonzero()[0].tolist() == [0, 2]  # its own genes
    effects = npt.tl.perturbation_effects(adata, as_anndata=True)
    assert effects["A+C"].X[0, -1] > 3.5


def test_shifts_are_drawn_together_as_far_as_each_graph_shows(screen, tmp_path):
    adata = fitted(screen, turned=False)
    fit = posterior_from(adata)
    pairs = zip(fit.averaged.priors, fit.averaged.posteriors, strict=True)
    wanted = [learn_together(prior, blr) for prior, blr in pairs]
    adata.write_h5ad(tmp_path / "fitted.h5ad")
    for each in (fit, posterior_from(ad.read_h5ad(tmp_path / "fitted.h5ad"))):
        assert [known.together for known in each.known(each.averaged)] == wanted
    assert 0 < min(wanted) < max(wanted) < 1


def test_effects_do_not_depend_on_the_unit_of_a_gene(screen):
    """With weights of the graph in units of noise, a gene times 50 has its effects times 50."""

    def effects(factor):
        adata = screen[0].copy()
        adata.X = adata.X * np.where(np.arange(adata.n_vars) == 2, factor, 1.0)
        npt.tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
        npt.tl.fit_dag_blr(adata, prior_options={"prior_units": "noise"})
        npt.tl.perturbation_effects(adata)
        found = adata.uns["perturbation_effects"]
        unit = np.where(np.arange(adata.n_vars) == 2, factor, 1.0)
        weights = adata.uns["dag_blr"]["averaging"]["weights"]
        return found["mean"] / unit, found["sd"] / unit, weights

    (one, sd, weights), (other, _, changed) = effects(1.0), effects(50.0)
    np.testing.assert_allclose(changed, weights, atol=1e-9)
    assert 0.1 < weights.max() < 0.9
    assert np.abs((other - one) / sd).max() < 1e-6
