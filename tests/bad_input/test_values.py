"""Values that no screen has: too large, complex, more guides or plates than cells; and one cell."""

import traceback
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert._adata.arguments import in_mappings
from tests._screens import with_fit

J = 1 + 2j
HUGE = 1e160
SRC = Path(npt.__file__).parent


def with_x(adata, label, value):
    """Set one value of one cell with a label."""
    adata.X[np.flatnonzero((adata.obs["perturbation"] == label).to_numpy())[3], 2] = value
    return adata


def unscaled(adata):
    """Say that values are to be taken as they are."""
    npt.pp.setup_screen(adata, check_scale=False)
    return adata


def with_obs(adata, name, values):
    adata.obs[name] = values
    return adata


def effects(values):
    return ad.AnnData(
        values, pd.DataFrame(index=["MYC", "STK3"]), pd.DataFrame(index=["MYC", "GATA1", "CPQ"])
    )


def plan(target="MYC", **options):
    flat = in_mappings(npt.tl.plan_screen, options)
    return lambda adata: npt.tl.plan_screen(adata, target, **flat)


def fit(**options):
    flat = in_mappings(npt.tl.fit_dag_blr, options)
    return lambda adata: npt.tl.fit_dag_blr(adata, **flat)


def learn(**options):
    flat = {"n_runs": 2, "key_added": "again", **options}
    return lambda adata: npt.tl.learn_dag(adata, **in_mappings(npt.tl.learn_dag, flat))


def same(adata):
    return adata


GRID = pd.DataFrame(np.eye(2) * J, ["MYC", "STK3"], ["MYC", "STK3"])
CASES = {
    "huge value, learn": (
        lambda a: with_x(unscaled(a), "control", HUGE),
        learn(),
        "GATA1",
        "large",
    ),
    "huge value, fit": (lambda a: with_x(a, "MYC", 1e100), fit(), "GATA1", "too large"),
    "huge value, sparse": (lambda a: with_x(a, "MYC", -HUGE), fit(), "GATA1", "too large"),
    "huge target": (same, plan({"STK3": HUGE}), "STK3", "too large"),
    "huge candidate": (
        *(same, plan(candidates={"x": {"MYC": HUGE}, "y": {"STK3": 1.0}}, strategy="explore")),
        *("shifts", "rescale"),
    ),
    "huge pending": (same, plan(pending={"MYC": HUGE}), "pending['MYC']", "number of cells"),
    "huge features": (
        *(same, fit(features=effects(np.full((2, 3), 1e200)))),
        *("features", "too large"),
    ),
    "complex covariate": (
        lambda a: with_obs(a, "age", np.full(a.n_obs, J)),
        lambda a: npt.pp.setup_screen(a, covariates=["age"]),
        *("age", "real numbers"),
    ),
    "complex densities": (
        lambda a: a.obsm.update({"X_cpca": a.obsm["X_cpca"] * J}) or a,
        lambda a: npt.pl.cpca_density(a, show=False),
        *("X_cpca", "complex"),
    ),
    "more guides than a curve": (
        *(same, lambda a: npt.tl.plan_cells(a, "MYC", n_guides=10**5)),
        *("n_guides", "5000 cells"),
    ),
    "more plates than cells": (
        *(same, lambda a: npt.tl.replay_design(a, ["MYC"], n_rounds=10**8)),
        *("n_rounds", "cells"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_values(case, full_screen, assert_refused):
    prepare, call, *words = CASES[case]
    adata = prepare(full_screen)
    if "sparse" in case:
        adata.X = sp.csr_matrix(adata.X)
    assert_refused(call, adata, words)


STEPS = {
    "learn": lambda a: npt.tl.learn_dag(
        a, method="boss", environments="all", search_options={"n_runs": 2}, n_graphs=3
    ),
    "fit": npt.tl.fit_dag_blr,
    "effects": npt.tl.perturbation_effects,
    "design": lambda a: npt.tl.design_interventions(a, {"MYC": 0.5}, n_samples=10),
    "design of genes": lambda a: npt.tl.design_interventions(a, {"MYC": 0.5}, candidates="genes"),
    "plan": lambda a: npt.tl.plan_screen(a, "MYC", candidates="genes"),
    "cells": lambda a: npt.tl.plan_cells(a, "MYC", candidates="genes"),
    "distances": lambda a: npt.tl.target_distances(a, "MYC"),
    "diagnose": npt.tl.diagnose,
    "replay": lambda a: npt.tl.replay_design(
        a, n_rounds=1, n_repeats=2, strategies=["exploit", "thompson_means"]
    ),
    "densities": npt.tl.cpca,
    "graph": npt.tl.dag_fit,
    "shift": lambda a: npt.pl.expression_shift(a, show=False),
    "counts": lambda a: npt.pl.perturbation_counts(a, show=False),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sizes", [{"MYC": 1}, {"MYC": 1, "STK3": 60, "OXR1": 60}, dict.fromkeys(
    ("MYC", "STK3", "OXR1"), 1)], ids=str)  # fmt: skip
def test_one_perturbed_cell_is_used_or_refused_in_own_words(sizes, small_screen, edges):
    """No error of another package comes up from below."""
    labels = small_screen.obs["perturbation"]
    kept = [np.flatnonzero((labels == name).to_numpy())[:n] for name, n in sizes.items()]
    kept.append(np.flatnonzero((labels == "control").to_numpy()))
    adata = small_screen[np.sort(np.concatenate(kept))].copy()
    with_fit(adata, edges)
    refused = {}
    for name, call in STEPS.items():
        try:
            call(adata)
        except ValueError as error:
            refused[name] = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    assert all(file.is_relative_to(SRC) for file in refused.values()), refused
    assert not {"learn", "fit", "effects", "design", "plan", "cells", "graph"} & set(refused)
