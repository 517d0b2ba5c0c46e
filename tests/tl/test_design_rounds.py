"""A round is new cells: what adds a row to the trace, and whether a fit still fits its cells."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import nextpert as npt
from tests._screens import small_fit, with_fit

pytestmark = pytest.mark.filterwarnings("ignore:Perturbations left out")


@pytest.fixture
def fitted():
    return small_fit(genes=None, shift_sd=0)


def rounds(adata):
    return adata.uns["design"]["trace"]["round"].tolist()


def silent(call, *args, **options):
    """Call it, and fail on any warning."""
    with warnings.catch_warnings(action="error"):
        return call(*args, **options)


def test_designing_twice_on_the_same_cells_adds_no_round(fitted, assert_same):
    npt.tl.design_interventions(fitted, "MYC")
    first = fitted.uns["design"]
    npt.tl.design_interventions(fitted, "MYC")
    assert_same(fitted.uns["design"], first)  # nor does it draw other numbers
    npt.tl.design_interventions(fitted, "MYC", n_cells=7)
    assert fitted.uns["design"]["trace"][["round", "n_cells"]].to_numpy().tolist() == [[1, 7]]
    npt.tl.fit_dag_blr(fitted, shift="activation", shift_sd=0)  # another model of the same cells
    npt.tl.design_interventions(fitted, "MYC")
    assert rounds(fitted) == [1]


def test_another_question_is_another_row_of_the_same_round(fitted):
    npt.tl.design_interventions(fitted, "MYC")
    npt.tl.design_interventions(fitted, "STK3")
    npt.tl.design_interventions(fitted, "MYC", acquisition="greedy")
    npt.tl.design_interventions(fitted, "MYC")  # once more: its row comes last
    trace = fitted.uns["design"]["trace"]
    assert trace["target"].tolist() == ["STK3", "MYC", "MYC"]
    assert trace["acquisition"].tolist() == ["civ", "greedy", "civ"]
    assert rounds(fitted) == [1, 1, 1]


@pytest.mark.slow
def test_new_cells_make_a_new_round(fitted):
    npt.tl.design_interventions(fitted, "MYC")
    fewer = fitted[10:].copy()
    npt.tl.fit_dag_blr(fewer)
    npt.tl.design_interventions(fewer, "MYC")
    assert rounds(fewer) == [1, 2]
    fewer.X += 1
    npt.tl.fit_dag_blr(fewer)
    npt.tl.design_interventions(fewer, "MYC")
    npt.tl.design_interventions(fewer, "MYC")
    assert rounds(fewer) == [1, 2, 3]


def scaled(adata):
    adata.X = adata.X / 2


def other_cells(adata):
    adata.X = np.roll(adata.X, 1, axis=0)


def swapped_labels(adata):
    labels = adata.obs["perturbation"].astype(object).to_numpy(copy=True)
    first, second = (np.flatnonzero(labels == name)[0] for name in ("MYC", "STK3"))
    labels[[first, second]] = labels[[second, first]]
    adata.obs["perturbation"] = labels


def new_label(adata):
    labels = adata.obs["perturbation"].astype(object).to_numpy(copy=True)
    labels[0] = "GATA1"
    adata.obs["perturbation"] = labels


def no_labels(adata):
    del adata.obs["perturbation"]


CHANGES = {
    "scaled": (scaled, "values of adata.X"),
    "other cells": (other_cells, "values of adata.X"),
    "labels swapped": (swapped_labels, "names, or columns perturbation"),
    "a new label": (new_label, "names, or columns perturbation"),
    "no labels": (no_labels, r"a column or layer of the fit is missing: obs\['perturbation'\]"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_changed_cells_are_noticed(fitted, case):
    silent(npt.tl.design_interventions, fitted, {"MYC": 0.5})
    change, words = CHANGES[case]
    change(fitted)
    with pytest.warns(UserWarning, match=f"The cells .*{words}.* have changed.*fit_dag_blr"):
        npt.tl.design_interventions(fitted, {"MYC": 0.5})


def test_fewer_cells_and_an_absent_layer_are_noticed(fitted):
    with pytest.warns(UserWarning, match=r"\(names, or columns .*\) have changed"):
        npt.tl.design_interventions(fitted[1:].copy(), {"MYC": 0.5})
    npt.pp.setup_screen(fitted, layer="lognorm")
    npt.tl.fit_dag_blr(fitted)
    silent(npt.tl.design_interventions, fitted, {"MYC": 0.5})
    del fitted.layers["lognorm"]
    with pytest.warns(UserWarning, match=r"layer of the fit is missing: layers\['lognorm'\]"):
        npt.tl.design_interventions(fitted, {"MYC": 0.5})


def test_what_changes_nothing_for_the_fit_is_not_noticed(fitted):
    fitted.obs["perturbation"] = fitted.obs["perturbation"].astype(object)
    fitted.obs["perturbation"] = fitted.obs["perturbation"].astype("category")
    fitted.obs["batch"] = "c"
    fitted.layers["lognorm"][:] = 0
    fitted.X = sp.csr_matrix(fitted.X)
    fitted = fitted[np.random.default_rng(0).permutation(fitted.n_obs)].copy()
    silent(npt.tl.design_interventions, fitted, {"MYC": 0.5})


def test_a_graph_that_is_gone_is_named(fitted, edges):
    missing = r"uns\['dag'\].* graph of the fit in adata.uns\['dag_blr'\], is no longer there: run"
    for slot in ("uns", "varp"):
        without = fitted.copy()
        del getattr(without, slot)["dag"]
        with pytest.warns(UserWarning, match=missing):
            npt.tl.design_interventions(without, {"MYC": 0.5})
    # With a panel of every gene, a fit tells a record that is gone from one that never was.
    with_fit(fitted, edges, shift_sd=0)
    del fitted.uns["dag"]
    with pytest.warns(UserWarning, match=missing):
        npt.tl.design_interventions(fitted, {"MYC": 0.5})
    # A graph that a user wrote has no record; a changed edge is still seen.
    npt.tl.fit_dag_blr(fitted, shift_sd=0)
    silent(npt.tl.design_interventions, fitted, {"MYC": 0.5})
    fitted.varp["dag"] = sp.csr_matrix(fitted.varp["dag"].shape)
    with pytest.warns(UserWarning, match="'dag' has changed since the fit"):
        npt.tl.design_interventions(fitted, {"MYC": 0.5})
