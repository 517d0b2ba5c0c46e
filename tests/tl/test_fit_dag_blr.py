"""``tl.fit_dag_blr`` against normal equations on the cells themselves."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import posterior_from

quiet = pytest.mark.filterwarnings("ignore:Perturbations left out")


def cells_of(adata, label):
    return np.asarray(adata.X[(adata.obs["perturbation"] == label).to_numpy()], dtype=float)


def normal_equations(adata, dag, shifts, scale=1.0):
    """Posterior means by ridge regression on all cells, gene by gene; row = parent."""
    x = np.concatenate([cells_of(adata, label) for label in shifts])
    a = np.concatenate([np.tile(a, (len(cells_of(adata, k)), 1)) for k, a in shifts.items()])
    weights = np.zeros((adata.n_vars, adata.n_vars))
    for i in range(adata.n_vars):
        parents = dag.parents(i)
        design = np.column_stack([np.ones(len(x)), x[:, parents]])
        prior = np.diag([1e-6] + [1 / scale] * len(parents))
        y = x[:, i] - a[:, i]
        weights[parents, i] = np.linalg.solve(design.T @ design + prior, design.T @ y)[1:]
    return weights


def knockouts(adata, labels=("MYC", "STK3", "OXR1", "MYC+OXR1")):
    mean = cells_of(adata, "control").mean(axis=0)
    shifts = {"control": np.zeros(adata.n_vars)}
    for label in labels:
        shifts[label] = np.where(np.isin(adata.var_names, label.split("+")), -mean, 0)
    return shifts


@quiet
def test_means_equal_the_normal_equations(screen, graph):
    npt.tl.fit_dag_blr(screen, shift_sd=0, prior_options={"prior_scale": 1.0})
    wanted = normal_equations(screen, graph, knockouts(screen))
    np.testing.assert_allclose(screen.varp["dag_blr_mean"].toarray(), wanted, atol=1e-8)


@quiet
def test_true_weights_are_found(screen, truth):
    npt.tl.fit_dag_blr(screen)
    np.testing.assert_allclose(screen.varp["dag_blr_mean"].toarray().T, truth.weights, atol=0.1)
    fit = posterior_from(screen)
    np.testing.assert_allclose(fit.posterior.noise_var, truth.noise_var, rtol=0.3)


@quiet
def test_table_of_environments(screen):
    npt.tl.fit_dag_blr(screen, shift_sd=0)
    stored = screen.uns["dag_blr"]
    table = stored["environments"]
    assert table["perturbation"].tolist() == ["MYC", "MYC+OXR1", "OXR1", "STK3"]
    assert table["target_genes"].tolist() == ["MYC", "MYC, OXR1", "OXR1", "STK3"]
    assert table["n_cells"].tolist() == [60] * 4
    assert table["shift_source"].tolist() == ["knockout"] * 4
    mean = cells_of(screen, "control").mean(axis=0)
    assert table["shift"][1] == f"{-mean[0]:+.2f}, {-mean[4]:+.2f}"
    wanted = np.array([knockouts(screen)[name] for name in table["perturbation"]])
    np.testing.assert_allclose(stored["shifts"].toarray(), wanted, atol=1e-12)
    np.testing.assert_allclose(stored["control_mean"], mean)
    assert stored["n_control_cells"] == 400
    assert "replicate_variance" not in stored  # of effects, which exact shifts do not have


def test_left_out_labels_are_named_and_kept(screen):
    with pytest.warns(UserWarning, match=r"left out of the fit: HS2 \(not measured\)"):
        npt.tl.fit_dag_blr(screen, shift_sd=0)
    table = screen.uns["dag_blr"]["left_out"]
    assert table.to_dict("list") == {
        "perturbation": ["HS2"], "n_cells": [30], "reason": ["not measured: HS2"],
    }  # fmt: skip


def test_measured_genes_outside_the_panel_get_their_own_reason(small_screen):
    npt.tl.learn_dag(small_screen, method="given", dag=[("STK3", "OXR1")])
    with pytest.warns(UserWarning, match="left out") as caught:
        npt.tl.fit_dag_blr(small_screen, shift_sd=0)
    said = str(caught[0].message)
    assert re.search(r"; MYC \(measured.*outside the panel\); MYC\+OXR1 \(.*panel: MYC\)", said)
    left = small_screen.uns["dag_blr"]["left_out"]
    assert left["perturbation"].tolist() == ["HS2", "MYC", "MYC+OXR1"]
    assert small_screen.uns["dag_blr"]["genes"].tolist() == ["STK3", "OXR1"]


@pytest.mark.parametrize("kind", ["mapping", "frame"])
def test_table_of_shifts(kind, screen, graph):
    # The enhancer HS2 is no gene, but its shift may be known.
    table = {"HS2": {"MYC": -0.4, "CPQ": 0.25}, "STK3": {"STK3": -1.0}}
    given = pd.DataFrame(table).T.fillna(0.0) if kind == "frame" else table
    with pytest.warns(UserWarning, match=r"MYC, MYC\+OXR1, OXR1 \(no row in the table of shifts\)"):
        npt.tl.fit_dag_blr(screen, shift=given, shift_sd=0, prior_options={"prior_scale": 1.0})
    shifts = {"control": np.zeros(8), "HS2": np.zeros(8), "STK3": np.zeros(8)}
    shifts["HS2"][[0, 7]] = -0.4, 0.25
    shifts["STK3"][1] = -1.0
    wanted = normal_equations(screen, graph, shifts)
    np.testing.assert_allclose(screen.varp["dag_blr_mean"].toarray(), wanted, atol=1e-8)
    stored = screen.uns["dag_blr"]["environments"]
    assert stored["target_genes"].tolist() == ["MYC, CPQ", "STK3"]
    assert stored["shift"].tolist() == ["-0.40, +0.25", "-1.00"]
    assert set(stored["shift_source"]) == {"table"}


def test_some_perturbations_or_none(screen, graph):
    with warnings.catch_warnings(action="error"):
        npt.tl.fit_dag_blr(
            screen, perturbations=["OXR1"], shift_sd=0, prior_options={"prior_scale": 1.0}
        )
        wanted = normal_equations(screen, graph, knockouts(screen, ["OXR1"]))
        np.testing.assert_allclose(screen.varp["dag_blr_mean"].toarray(), wanted, atol=1e-8)
        npt.tl.fit_dag_blr(screen, perturbations=[], shift_sd=0, prior_options={"prior_scale": 1.0})
    wanted = normal_equations(screen, graph, knockouts(screen, []))
    np.testing.assert_allclose(screen.varp["dag_blr_mean"].toarray(), wanted, atol=1e-8)
    assert len(screen.uns["dag_blr"]["environments"]) == 0


def test_targets_that_are_hardly_expressed_are_named(screen):
    is_control = (screen.obs["perturbation"] == "control").to_numpy()
    rare = np.where(np.arange(is_control.sum()) % 300 == 0, 1.0, 0.0)
    screen.X[is_control, 4] = rare
    with pytest.warns(UserWarning, match="have a control mean near 0.*: OXR1"):
        npt.tl.fit_dag_blr(screen, perturbations=["OXR1", "MYC"], shift_sd=0)
    with warnings.catch_warnings(action="error"):
        npt.tl.fit_dag_blr(screen, perturbations=["OXR1"], shift="activation")
        npt.tl.fit_dag_blr(screen, perturbations=["OXR1", "MYC"])
        npt.tl.fit_dag_blr(screen, perturbations=["MYC"], shift_sd=0)


@quiet
def test_known_noise_by_gene(screen, truth):
    known = dict(zip(screen.var_names, truth.noise_var, strict=True))
    npt.tl.fit_dag_blr(screen, prior_options={"noise_var": known})
    np.testing.assert_array_equal(posterior_from(screen).posterior.noise_var, truth.noise_var)


@quiet
def test_a_new_graph_after_the_fit_is_pointed_out(screen, edges):
    npt.tl.fit_dag_blr(screen)
    posterior_from(screen)
    genes = list(screen.var_names)
    npt.tl.learn_dag(screen, method="given", dag=edges[1:], genes=genes)
    with pytest.warns(UserWarning, match="has changed since"):
        npt.tl.design_interventions(screen, "MYC")


@quiet
def test_units_of_the_prior_reach_the_posterior(screen):
    expected = {(None, "evidence"): "evidence", (None, 1.0): "data", ("noise", 1.0): "noise"}
    fits = []
    for (units, scale), found in expected.items():
        npt.tl.fit_dag_blr(screen, prior_options={"prior_scale": scale, "prior_units": units})
        stored = screen.uns["dag_blr"]
        assert stored["params"]["prior_units"] == found
        assert stored["posterior"]["prior_units"] == found
        fits.append(screen.varp["dag_blr_mean"].toarray())
    assert np.abs(fits[1] - fits[2]).max() > 1e-9
    with pytest.raises(ValueError, match="prior_units"):
        npt.tl.fit_dag_blr(screen, prior_options={"prior_units": "cells"})


@quiet
def test_two_names_of_the_same_targets_are_taken_as_one(screen, caplog):
    wanted = screen.copy()
    npt.tl.fit_dag_blr(wanted)
    assert "name the same perturbation" not in caplog.text
    labels = screen.obs["perturbation"].astype(object)
    labels.iloc[np.flatnonzero(labels == "MYC+OXR1")[1::2]] = "OXR1 + MYC"
    labels.iloc[np.flatnonzero(labels == "STK3")[1::2]] = "control+STK3"
    screen.obs["perturbation"] = labels
    npt.tl.fit_dag_blr(screen)
    assert "are merged: MYC+OXR1 (OXR1 + MYC), STK3 (control+STK3)." in caplog.text
    found = (adata.uns["dag_blr"]["environments"] for adata in (screen, wanted))
    pd.testing.assert_frame_equal(*found)
    caplog.clear()
    npt.pp.setup_screen(screen, separator="")
    npt.tl.fit_dag_blr(screen)
    assert "name the same perturbation" not in caplog.text
    assert len(screen.uns["dag_blr"]["environments"]) == 5 + 2


@quiet
def test_edges_added_by_hand_outside_the_panel_are_refused(small_screen):
    npt.tl.learn_dag(small_screen, method="given", dag=[("MYC", "STK3")])
    matrix = small_screen.varp["dag"].tolil()
    matrix[0, 7] = 1
    small_screen.varp["dag"] = matrix.tocsr()
    with pytest.raises(ValueError, match=r"outside its panel.*CPQ"):
        npt.tl.fit_dag_blr(small_screen)
