"""A cell type as the target: unlabelled cells of a group from the file to the plan."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from tests._screens import with_fit

GENES = [f"G{i}" for i in range(12)]
TYPE = {"G1": 2.0, "G2": -1.5, "G11": 3.0}  # what makes a macrophage; G11 is hardly seen elsewhere


def counts(n, changes, rng):
    log_mean = np.log(np.r_[np.full(11, 8.0), 0.02])
    for gene, change in changes.items():
        log_mean[GENES.index(gene)] += change
    return rng.poisson(np.exp(log_mean), size=(n, 12))


@pytest.fixture
def raw():
    """Counts of controls, of two knockdowns, the first half a macrophage, and of macrophages."""
    rng = np.random.default_rng(0)
    parts = {
        "NT": (200, {}), "P1": (60, {"G1": 1.0, "G2": -0.75}), "P2": (60, {"G5": 1.0}),
        "multi": (10, TYPE), None: (80, TYPE | {"G11": 4.0}),
    }  # fmt: skip
    x = np.vstack([counts(n, changes, rng) for n, changes in parts.values()])
    obs = pd.DataFrame({
        "perturbation": np.repeat([*parts], [n for n, _ in parts.values()]),
        "cell_type": np.repeat(["T", "macrophage"], [320, 90]),
    })  # fmt: skip
    obs.loc[330:334, "cell_type"] = "B"
    obs.index = "c" + obs.index.astype(str)
    return ad.AnnData(x.astype(float), obs, pd.DataFrame(index=GENES))


def prepared(raw, groups):
    npt.pp.perturbation_screen(raw, control="NT", target_groups=groups)
    return raw


def test_a_cell_type_is_a_target_and_nothing_else(raw):
    adata = prepared(raw, ("cell_type", "macrophage"))
    is_type = (adata.obs["cell_type"] == "macrophage").to_numpy()
    assert is_type.sum() == 75  # neither B cells nor doublets
    assert adata.obs.loc[is_type, "perturbation"].isna().all()
    assert adata.obs["perturbation"].value_counts().to_dict() == {
        "control": 200,
        "P1": 60,
        "P2": 60,
    }
    assert adata.uns["preprocessing"]["n_control_cells"] == 200
    assert adata.uns["preprocessing"]["perturbations"]["perturbation"].tolist() == ["P1", "P2"]
    assert "G11" in adata.var_names  # seen in the target's cells
    # They are normalised with the others.
    total = np.expm1(adata.X[is_type]).sum(axis=1)
    np.testing.assert_allclose(total, np.expm1(adata.X[~is_type]).sum(axis=1)[0], rtol=1e-6)
    with_fit(adata)
    assert npt.get.fitted_perturbations(adata)["perturbation"].tolist() == ["P1", "P2"]
    assert adata.uns["dag_blr"]["n_control_cells"] == 200
    target = ("cell_type", "macrophage")
    npt.tl.plan_screen(adata, target)
    assert adata.uns["plan"]["advice"]["best_known"] == "P1"
    npt.tl.target_distances(adata, target)
    assert adata.uns["target_distances"]["n_target_cells"] == 75
    assert adata.uns["target_distances"]["table"]["perturbation"].iloc[0] == "P1"


def test_all_groups_of_a_column(raw):
    adata = prepared(raw, "cell_type")
    unlabelled = adata.obs["perturbation"].isna()
    assert adata.obs.loc[unlabelled, "cell_type"].value_counts().to_dict() == {
        "macrophage": 75, "B": 5
    }  # fmt: skip
    assert "multi" not in set(adata.obs["perturbation"].dropna())


def test_without_groups_unlabelled_cells_are_dropped(raw):
    adata = prepared(raw, None)
    assert adata.n_obs == 320
    assert "G11" not in adata.var_names


def test_labelled_cells_of_a_target_are_named(raw, caplog):
    adata = prepared(raw, ("cell_type", "macrophage"))
    with_fit(adata)
    adata.obs["state"] = np.where(adata.obs["perturbation"] == "P2", "x", "y")
    with caplog.at_level(logging.WARNING):
        npt.tl.design_interventions(adata, ("state", "x"))
    assert "60 of 60 cells of the target state=x are labelled: P2 (60)." in caplog.text


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (("cell_type", "macrofage"), "target_groups not found.*Close matches: macrophage"),
        (("cell_type", "T"), "all cells of it have a label"),
        ("cell_typ", "target_groups"),
    ],
)
def test_errors_change_nothing(groups, message, raw):
    before = raw.copy()
    with pytest.raises(ValueError, match=message):
        prepared(raw, groups)
    assert raw.shape == before.shape
    assert (raw.X == before.X).all()
