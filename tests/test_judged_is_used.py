"""What users get is what was judged: the diagnosis scores the predictions that are handed out."""

from dataclasses import replace
from functools import cache

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import fitted_roles, posterior_from
from nextpert.core.effects.effects import perturbation_effects
from nextpert.core.effects.experts import MEAN
from nextpert.core.effects.stacked import GRAPH
from nextpert.tl._diagnose.halves import read_halves
from nextpert.tl._diagnose.model import read_model
from nextpert.tl._fit_dag_blr.stack import held_out_experts

N_PERTURBED = 10


@cache
def common_response(alike=False):
    """Ten knockdowns that do much the same to genes beside their own, and the effect of each.

    With ``alike`` each block of 80 cells scatters in the same way, so that the scatter without
    some perturbations is exactly the share of their cells.
    """
    rng = np.random.default_rng(7)
    genes = [f"G{k}" for k in range(24)]
    response = np.zeros(24)
    response[N_PERTURBED:] = rng.normal(size=14)
    label = np.repeat(["control", *genes[:N_PERTURBED]], [640, *[80] * N_PERTURBED])
    noise = rng.normal(size=(len(label), 24))
    if alike:
        noise = np.tile(noise[:80] - noise[:80].mean(axis=0), (len(label) // 80, 1))
    x = 3.0 + 0.6 * noise @ (np.eye(24) + 0.2 * np.eye(24, k=1))
    effects = response + 0.2 * rng.normal(size=(N_PERTURBED, 24))
    effects[np.arange(N_PERTURBED), np.arange(N_PERTURBED)] -= 1.5
    for gene, effect in zip(genes, effects, strict=False):
        x[label == gene] += effect
    obs = pd.DataFrame({"perturbation": label}, index=[f"cell{i}" for i in range(len(label))])
    return ad.AnnData(x, obs, pd.DataFrame(index=genes)), effects


def fitted(adata, without=()):
    adata = adata[~adata.obs["perturbation"].isin(without)].copy()
    edges = np.zeros((24, 24))
    for parent, child in ((0, 1), (2, 3), (3, 4), (7, 8), (15, 16)):
        edges[parent, child] = 1
    npt.tl.learn_dag(adata, method="given", dag=edges)
    npt.tl.fit_dag_blr(adata)
    return adata


def test_a_perturbation_never_seen_is_expected_to_do_what_the_others_do():
    adata, effects = common_response()
    held_out = fitted(adata, without=["G4"])
    weights = posterior_from(held_out).expectation.weights
    assert weights[MEAN] > 0.9
    npt.tl.perturbation_effects(held_out, candidates=["G4"])
    found = held_out.uns["perturbation_effects"]
    others = np.arange(24) != 4
    truth = effects[4]
    error = ((found["mean"][0] - truth) ** 2)[others].sum() / (truth**2)[others].sum()
    assert error < 0.15  # what is its own: 24 * 0.2**2 of about 14
    inside = (found["lower"][0] <= truth) & (truth <= found["upper"][0])
    assert inside[others].mean() >= 0.8


def judged(adata):
    """Return by name what the diagnosis scores of each perturbation, and the observed effects."""
    fit = posterior_from(adata)
    roles = fitted_roles(adata, fit.params)
    model = read_model(adata, fit, "dag_blr", roles, n_jobs=1)
    halves = read_halves(adata, fit.columns, model.names, roles, np.random.default_rng(0))
    cells = halves.pool(halves.whole, by_guide=True)
    seen, experts = held_out_experts(model.problem, cells, *model.start(cells))
    scored = {e.name: dict(zip(model.names, e.effects, strict=True)) for e in experts}
    return scored, dict(zip(model.names, seen.observed, strict=True))


def used(adata, names, observed, predictor):
    """Return what one predictor says of labels without cells, as it is handed out, weight 1."""
    fit = posterior_from(adata)
    targets = [[fit.genes.index(name)] for name in names]
    own = np.zeros((len(names), len(fit.genes)))
    for row, name, (gene,) in zip(own, names, targets, strict=True):
        row[gene] = observed[name][gene]
    alone = {name: float(name == predictor) for name in fit.expectation.weights}
    expectation = replace(fit.expectation, weights=alone)
    prior = expectation.prior(names, targets, own, np.full(own.shape, np.nan))
    found = perturbation_effects([fit.blr], prior).mean
    return {name: np.where(own[j] != 0, 0, found[j]) for j, name in enumerate(names)}


@pytest.mark.parametrize(
    ("predictor", "fold"),
    [(MEAN, ["G4"]), ("coexpression", ["G4"]), ("coexpression", ["G1"]), (GRAPH, ["G2", "G7"])],
)
def test_a_predictor_is_scored_by_what_it_is_used_for(predictor, fold):
    """Held out of the fit, a label is given what the diagnosis scored for it on all cells.

    The graph's weights are fitted again with what shifts and mixtures learned from all: rounder.
    """
    adata, _ = common_response(alike=True)
    scored, observed = judged(fitted(adata))
    handed_out = used(fitted(adata, without=fold), fold, observed, predictor)
    for name in fold:
        wanted = scored[predictor][name]
        size = np.abs(wanted).max()
        assert size > 0.1
        rounding = 0.02 if predictor == GRAPH else 1e-10
        np.testing.assert_allclose(handed_out[name], wanted, rtol=0, atol=rounding * size)
