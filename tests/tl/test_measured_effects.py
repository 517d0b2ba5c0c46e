"""Measured effects come from one hierarchical model, which a graph helps as far as it predicts."""

from __future__ import annotations

import numpy as np
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.core import ScreenMoments
from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.screen.guides import pool_guides
from nextpert.study.pool import read_candidates
from tests._screens import screen_of, true_graph, with_fit


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
    return with_fit(adata, weights if turned else weights.T)


def error(screen, table, names):
    return ((table - np.array([screen[1][name] for name in names])) ** 2).sum()


@pytest.mark.parametrize("turned", [False, True])
def test_a_graph_counts_in_measured_effects_as_far_as_it_is_right(screen, turned):
    adata = fitted(screen, turned=turned)
    effects = npt.tl.perturbation_effects(adata, as_anndata=True)
    names = effects.obs_names
    by_cells = error(screen, effects.layers["raw_mean"], names)
    assert error(screen, effects.X, names) < (0.7 if turned else 0.4) * by_cells


def test_effects_are_those_of_the_model_by_hand(screen):
    """A graph without edges, no target on the panel: nothing is expected of anything."""
    adata = screen[0].copy()
    adata.obs["perturbation"] = ["x" + str(name) for name in adata.obs["perturbation"]]
    npt.pp.setup_screen(adata, control="xcontrol")
    with_fit(adata)
    effects = npt.tl.perturbation_effects(adata, as_anndata=True)
    label = adata.obs["perturbation"].astype(str).to_numpy()
    codes = {name: j for j, name in enumerate(["xcontrol", *effects.obs_names])}
    group = np.array([codes[name] for name in label])
    moments = ScreenMoments.from_array(np.asarray(adata.X, float), group, len(codes))
    pooled = pool_guides(moments, range(len(codes)), len(codes))
    found = fit_hierarchical(pooled, rng=0).effects.summary()
    np.testing.assert_allclose(effects.X, found.mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(effects.layers["lfsr"], found.lfsr, rtol=1e-9, atol=1e-12)


def test_the_ranking_is_of_the_effects(screen):
    adata = fitted(screen, turned=True)
    target = npt.Target(state="FOS", own_genes="include")
    npt.tl.design_interventions(
        adata, target, acquisition="greedy", candidates=list(posterior_from(adata).names)
    )
    found = adata.uns["design"]["ranking"].set_index("perturbation")["state_distance"]
    effects = npt.tl.perturbation_effects(adata, as_anndata=True)
    apart = ((effects.X - effects["FOS"].X) ** 2).sum(axis=1)
    assert apart.max() > 1
    # Draws of states also know that others may make the target, which changes little here.
    np.testing.assert_allclose(found[effects.obs_names], apart, rtol=0.03, atol=1e-6)


def test_perturbations_without_cells_are_expected_as_predictors_say(screen):
    """The mean of their draws is what predictors expect; alone or with others it is the same."""
    adata = fitted(screen, turned=False)
    fit = posterior_from(adata)
    unseen = [gene for gene in fit.genes if gene not in screen[1]][:2]
    effects = npt.tl.perturbation_effects(adata, candidates=unseen, as_anndata=True)
    pool = read_candidates(unseen, fit)
    np.testing.assert_allclose(effects.X, pool.without_cells.effect, atol=1e-6)
    assert np.abs(effects.X).max() > 0.1
    alone = npt.tl.perturbation_effects(adata, candidates=unseen[1:], as_anndata=True)
    np.testing.assert_allclose(effects.X[1], alone.X[0], atol=1e-6)


def test_few_perturbations(screen):
    adata = fitted(screen, turned=False)
    npt.tl.fit_dag_blr(adata, perturbations=sorted(screen[1])[:1])
    effects = npt.tl.perturbation_effects(adata, as_anndata=True)
    assert effects.n_obs == 1
    assert np.isfinite(effects.X).all()


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
    adata = screen_of(x, label, genes)
    with_fit(adata, [("A", "g0")], genes=genes)
    effects = npt.tl.perturbation_effects(adata, as_anndata=True)
    assert effects["A+C"].X[0, -1] > 3.5


@pytest.mark.slow
def test_effects_do_not_depend_on_the_unit_of_a_gene(screen):
    """With weights of the graph in units of noise, a gene times 50 has its effects times 50."""

    def effects(factor):
        adata = screen[0].copy()
        adata.X = adata.X * np.where(np.arange(adata.n_vars) == 2, factor, 1.0)
        with_fit(adata, true_graph(adata), prior_options={"prior_units": "noise"})
        npt.tl.perturbation_effects(adata)
        found = adata.uns["perturbation_effects"]
        unit = np.where(np.arange(adata.n_vars) == 2, factor, 1.0)
        return found["mean"] / unit, found["sd"] / unit

    (one, sd), (other, _) = effects(1.0), effects(50.0)
    assert np.abs((other - one) / sd).max() < 1e-6
