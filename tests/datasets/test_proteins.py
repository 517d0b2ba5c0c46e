"""Proteins of Perturb-CITE-seq: the portal's file, an object of counts, and what is no count."""

import contextlib
import gzip
import shutil

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert.datasets import perturb_cite_seq

FILE = "other/raw_CITE_expression.csv.gz"


def log_ratios(counts):
    logged = np.log1p(counts)
    return logged - logged.mean(axis=1, keepdims=True)


def test_proteins_of_the_portal_are_aligned_by_name(portal):
    folder, study = portal
    protein = perturb_cite_seq(folder).obsm["protein"]
    assert protein.index.tolist() == study.cells
    assert protein.columns.tolist()[:2] == study.measured[:2]
    assert protein.columns.tolist()[-1] == "Rat_IgG2a"
    # the first cell is not in the file
    assert protein.iloc[0].isna().all()
    np.testing.assert_allclose(protein.iloc[1:], log_ratios(study.protein)[1:], atol=1e-6)
    part = perturb_cite_seq(folder, condition="IFNγ")
    pd.testing.assert_frame_equal(part.obsm["protein"], protein.loc[part.obs_names])
    again = perturb_cite_seq(part)
    pd.testing.assert_frame_equal(again.obsm["protein"], part.obsm["protein"])


@pytest.mark.parametrize("form", ["dense", "sparse", "file", "h5mu"])
def test_proteins_of_an_object(portal, form, tmp_path):
    folder, study = portal
    order = np.random.default_rng(0).permutation(len(study.cells))[4:]
    counts = study.protein[order].astype(np.float32)
    given = ad.AnnData(sp.csr_matrix(counts) if form == "sparse" else counts)
    given.obs_names = [study.cells[i] for i in order]
    given.var_names = [f"ab{j}" for j in range(counts.shape[1])]
    if form == "file":
        given.write_h5ad(tmp_path / "protein.h5ad")
        given = tmp_path / "protein.h5ad"
    elif form == "h5mu":  # the Single Cell community's files of several modalities
        mudata, path = pytest.importorskip("mudata"), tmp_path / "study.h5mu"
        mudata.MuData({"protein": given}).write(path)
        for source in ({"source": path}, {"source": folder, "protein": path}):
            with pytest.raises(ValueError, match=r"'study.h5mu' holds a MuData \(protein\).*pass"):
                perturb_cite_seq(**source)
        given = mudata.read_h5mu(path)["protein"]
    found = perturb_cite_seq(folder, protein=given).obsm["protein"]
    wanted = pd.DataFrame(log_ratios(study.protein), study.cells).iloc[order]
    np.testing.assert_allclose(found.loc[wanted.index], wanted, atol=1e-6)
    assert found.isna().any(axis=1).sum() == 4
    assert found.columns[0] == "ab0"


def test_a_study_without_proteins_has_none(portal, tmp_path):
    folder = shutil.copytree(portal[0], tmp_path / "study")
    (folder / FILE).unlink()
    assert "protein" not in perturb_cite_seq(folder).obsm


def test_what_is_no_protein_is_refused(portal, tmp_path):
    folder = shutil.copytree(portal[0], tmp_path / "study")
    text = gzip.decompress((folder / FILE).read_bytes()).decode()
    lines = text.splitlines()
    for changed, message in (
        (lines[1].rsplit(",", 1)[0] + ",1.5", "line 2 holds a value that is not a count"),
        (lines[1].rsplit(",", 1)[0], "line 2 holds"),
    ):
        (folder / FILE).write_bytes(gzip.compress("\n".join([lines[0], changed]).encode()))
        with pytest.raises(ValueError, match=message):
            perturb_cite_seq(folder)
    (folder / FILE).write_bytes(gzip.compress(text.replace("CELL_5,", "CELL_999,", 1).encode()))
    with pytest.raises(ValueError, match="differ in 1 cells"):
        perturb_cite_seq(folder)
    cells = ad.AnnData(np.full((2, 3), 0.5), pd.DataFrame(index=["CELL_1", "CELL_2"]))
    with pytest.raises(ValueError, match="raw counts"):
        perturb_cite_seq(portal[0], protein=cells)
    cells.obs_names = ["a", "b"]
    with pytest.raises(ValueError, match="none of the cells"):
        perturb_cite_seq(portal[0], protein=cells)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": ["CELL_1", "CELL_1"]}, "names 'CELL_1' twice"),
        ({"antibodies": ["CD58", "CD58", "B2M"]}, "names 'CD58' twice"),
        ({"x": None}, "at least two antibodies"),
        ({"x": np.ones((2, 1)), "antibodies": ["CD58"]}, "at least two antibodies"),
        ({"x": np.full((2, 3), np.nan)}, "raw counts"),
        ({"x": -np.ones((2, 3))}, "raw counts"),
    ],
)
def test_odd_objects_of_proteins_are_refused(portal, change, message):
    given = {"x": np.ones((2, 3)), "cells": ["CELL_1", "CELL_2"], "antibodies": ["a", "b", "c"]}
    given |= change
    cells, antibodies = pd.DataFrame(index=given["cells"]), pd.DataFrame(index=given["antibodies"])
    with (
        pytest.warns(UserWarning, match="names are not unique")
        if ("names" in message)
        else contextlib.nullcontext()
    ):
        protein = ad.AnnData(given["x"], cells, antibodies)
    with pytest.raises(ValueError, match=message):
        perturb_cite_seq(portal[0], protein=protein)


def test_proteins_of_no_file_are_refused(portal, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.h5ad"):
        perturb_cite_seq(portal[0], protein=tmp_path / "absent.h5ad")


def test_other_cells_and_names_of_genes_do_no_harm(portal):
    """Cells of other studies are left out, and antibodies may have the names of genes."""
    folder, study = portal
    counts = sp.csc_matrix(np.arange(12.0).reshape(3, 4))
    protein = ad.AnnData(counts, pd.DataFrame(index=["OTHER", study.cells[5], study.cells[2]]))
    protein.var_names = study.measured[:4]
    found = perturb_cite_seq(folder, protein=protein)
    table = found.obsm["protein"]
    assert table.index.equals(found.obs_names)
    assert table.notna().all(axis=1).sum() == 2
    np.testing.assert_allclose(
        table.loc[study.cells[2]], log_ratios(counts.toarray())[2], atol=1e-6
    )
    assert found.var_names.tolist() == perturb_cite_seq(folder).var_names.tolist()
    # a second object takes the place of the first, also in an object that was made here
    protein.X = counts * 2
    again = perturb_cite_seq(found, protein=protein).obsm["protein"]
    np.testing.assert_allclose(
        again.loc[study.cells[2]], log_ratios(2 * counts.toarray())[2], atol=1e-6
    )


def test_proteins_are_a_panel_and_a_target(tmp_path):
    npt.datasets.perturb_cite_seq_standin(tmp_path, n_cells=900, n_genes=60, rng=0)
    adata = perturb_cite_seq(tmp_path, condition="Control")
    measured = adata[adata.obsm["protein"].notna().all(axis=1) & (adata.obs["n_targets"] < 2)]
    # Ratios sum to 0 over all antibodies: the isotype controls are left out.
    proteins = measured.obsm["protein"].filter(regex="^(?!.*_IgG)")
    panel = ad.AnnData(proteins, measured.obs[["perturbation"]].copy())
    label = panel.obs["perturbation"].astype(str)
    panel.obs["perturbation"] = label.where(~label.isin(["no_guide", "control_guide"]), "control")
    npt.pp.setup_screen(
        panel, perturbation_key="perturbation", control="control", check_scale=False
    )
    npt.tl.learn_dag(panel, method="boss", environments="all")
    npt.tl.fit_dag_blr(panel)
    target = {name: float(panel.X[:, j].mean() - 1) for j, name in enumerate(panel.var_names[:2])}
    npt.tl.design_interventions(panel, target)
    assert len(panel.uns["design"]["ranking"]) > 5
