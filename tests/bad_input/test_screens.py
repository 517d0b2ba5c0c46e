"""Bad input: an error that names the thing and the remedy, and an ``adata`` left as it was."""

from __future__ import annotations

import numpy as np
import pytest

import nextpert as npt
from nextpert.core import CycleError
from tests._screens import with_fit, with_graph
from tests.bad_input.test_values import fit, learn, same

pytestmark = pytest.mark.filterwarnings("ignore:Perturbations left out")


def prepared(adata, **options):
    return with_fit(adata, [("MYC", "STK3")], genes=["MYC", "STK3", "OXR1"], **options)


def with_value(adata, gene, value):
    row = np.flatnonzero(adata.obs["perturbation"].isin(["control"]))[7]
    adata.X[row, list(adata.var_names).index(gene)] = value
    return adata


def constant(adata, gene):
    is_control = (adata.obs["perturbation"] == "control").to_numpy()
    adata.X[is_control, list(adata.var_names).index(gene)] = 1.5
    return adata


def cyclic(adata):
    matrix = np.zeros((8, 8))
    matrix[0, 1] = matrix[1, 2] = matrix[2, 0] = 1
    adata.varp["dag"] = matrix
    return adata


def other_panel(adata):
    prepared(adata)
    return with_graph(adata, [("MYC", "UBR5")], genes=None)


def other_rounds(adata):
    prepared(adata)
    npt.tl.design_interventions(adata, "MYC")
    return with_fit(adata, [("MYC", "UBR5")], genes=None)


def foreign_design(adata):
    prepared(adata)
    adata.uns["design"] = {"by": "hand"}
    return adata


def few_controls(adata):
    return adata[adata.obs["perturbation"].ne("control") | (np.arange(adata.n_obs) < 3)].copy()


def without_myc(adata):
    return prepared(adata)[:, 1:].copy()


def give(dag, **options):
    return lambda adata: npt.tl.learn_dag(adata, method="given", dag=dag, **options)


def design(target="MYC", **options):
    return lambda adata: npt.tl.design_interventions(adata, target, **options)


NAN = float("nan")
CYCLE = [("MYC", "UBR5"), ("UBR5", "CPQ"), ("CPQ", "MYC")]
CASES = {
    "target is control": (prepared, design("control"), "control state"),
    "NaN": (lambda a: with_value(a, "UBR5", np.nan), learn(), "UBR5", "NaN"),
    "constant gene": (lambda a: constant(a, "GATA1"), learn(), "GATA1", "constant"),
    "too few cells": (few_controls, learn(), "2 cells are too few", "at least 4", "8 nodes"),
    "cycle among orders": (same, learn(prior={"before": CYCLE}), "MYC", "UBR5", "CPQ", "->"),
    "cyclic edges": (same, give(CYCLE), "MYC", "UBR5", "CPQ", "->"),
    "cyclic graph by hand": (cyclic, fit(), "MYC", "STK3", "GATA1"),
    "NaN in a graph": (same, give(np.full((8, 8), NAN)), "NaN"),
    "graph of another panel": (without_myc, fit(), "MYC", "learn_dag"),
    "posterior of another panel": (other_panel, design(), "UBR5", "OXR1", "fit_dag_blr again"),
    "posterior of genes gone": (without_myc, design("STK3"), "MYC", "fit_dag_blr again"),
    "rounds of another panel": (other_rounds, design(), "gene panel", "key_added"),
    "no design": (foreign_design, design(), "design", "key_added"),
    "no candidates": (
        *(lambda a: prepared(a, perturbations=[]), design(), "no candidates", "genes"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, small_screen, assert_refused):
    prepare, call, *words = CASES[case]
    error = CycleError if case.startswith("cyclic") else ValueError
    assert_refused(call, prepare(small_screen), words, error)
