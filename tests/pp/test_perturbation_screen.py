"""``pp.perturbation_screen``: the real screens go through it and on to a ranking."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.study.ranking import candidates_of


def read(screen_path, name):
    path = screen_path / name
    if not path.is_file():
        pytest.skip(f"{name} is not in the folder of the real screens")
    return ad.read_h5ad(path)


@pytest.fixture(scope="module")
def tapseq(screen_path):
    return read(screen_path, "schraivogel_tapseq/schraivogel_tapseq_umi5.h5ad")


def books(adata):
    stored = adata.uns["preprocessing"]
    table = stored["perturbations"].set_index("perturbation")
    return stored["steps"].set_index("step"), table


@pytest.mark.slow
@pytest.mark.screen
def test_tapseq_goes_through_to_a_ranking(tapseq):
    adata = tapseq.copy()
    npt.pp.perturbation_screen(adata, control="non-targeting")
    steps, table = books(adata)
    assert steps["n_cells_kept"].to_dict() == {
        "all cells": 21_977, "assigned": 19_060, "depth": 19_060, "combinations": 19_060,
        "panel": 19_060, "min_cells": 19_060,
    }  # fmt: skip
    assert steps.loc["assigned", "why"] == "multi 2255, unassigned 662"
    assert table["kept"].all()
    assert len(table) == 14
    assert not {"CCNE2", "HS2"} & set(adata.var_names)
    # As scanpy normalises, over all 72 genes.
    other = tapseq.copy()
    kept = tapseq[adata.obs_names]
    median = np.median(np.asarray(kept.X.sum(axis=1)))
    assert adata.uns["preprocessing"]["params"]["target_sum"] == median
    sc.pp.normalize_total(other, target_sum=median)
    sc.pp.log1p(other)
    same = other[adata.obs_names, adata.var_names].X.toarray()
    np.testing.assert_allclose(adata.X.toarray(), same, rtol=1e-5)
    npt.tl.learn_dag(adata, search_options={"n_runs": 3})
    npt.tl.fit_dag_blr(adata)
    npt.tl.design_interventions(adata, "RIPK2", candidates=posterior_from(adata).names)
    ranking = candidates_of(adata.uns["design"]["ranking"])
    assert ranking.loc[ranking["state_distance"].idxmin(), "perturbation"] == "RIPK2"
    assert len(adata.uns["dag_blr"]["left_out"]) == 0


def test_log_normalised_values_stay_as_they_are(small_screen):
    before = small_screen.to_df()
    n = small_screen.obs["perturbation"].value_counts()
    npt.pp.perturbation_screen(small_screen, combinations="keep")
    assert np.array_equal(small_screen.to_df(), before.loc[small_screen.obs_names])
    now = small_screen.obs["perturbation"].value_counts().to_dict()
    assert now == n.to_dict()
    steps, _ = books(small_screen)
    assert steps.loc["assigned", "why"] == "no label 10"
    assert "counts" not in small_screen.layers
    assert "target_sum" not in small_screen.uns["preprocessing"]["params"]


def test_combinations_and_several_control_labels(small_screen):
    small_screen.obs["mine"] = small_screen.obs["perturbation"].astype(object)
    small_screen.obs.loc[small_screen.obs["mine"] == "OXR1", "mine"] = "NT"
    small_screen.obs["mine"] = small_screen.obs["mine"].str.replace("+", "_")
    values = small_screen.to_df("lognorm")
    npt.pp.setup_screen(small_screen, layer="lognorm")
    npt.pp.perturbation_screen(
        small_screen, "mine", ["control", "NT"], panel=["MYC", "STK3"], combinations="keep",
        separator="_",
    )  # fmt: skip
    kept = values.loc[small_screen.obs_names, ["MYC", "STK3"]]
    np.testing.assert_array_equal(small_screen.X, kept)
    now = small_screen.obs["perturbation"].value_counts().to_dict()
    assert (now["control"], now["MYC"], now["STK3"], now["MYC_OXR1"]) == (460, 60, 60, 60)
    assert (small_screen.obs.query("perturbation == 'MYC_OXR1'")["n_targets"] == 2).all()
    assert small_screen.uns["screen"]["separator"] == "_"


def test_counts_of_a_panel_are_scaled_by_those_of_all_genes():
    rng = np.random.default_rng(3)
    counts = rng.poisson(2, (300, 12)).astype(np.float32)
    obs = pd.DataFrame({"perturbation": ["control"] * 200 + ["G0"] * 100})
    obs["total"] = rng.integers(8000, 12000, len(obs))
    adata = ad.AnnData(counts, obs.set_index("c" + obs.index.astype(str)))
    adata.var_names = [f"G{i}" for i in range(12)]
    for key, depth in ((None, counts.sum(axis=1)), ("total", obs["total"].to_numpy())):
        new = npt.pp.perturbation_screen(adata, depth_key=key, copy=True)
        expected = np.log1p(counts / depth[:, None] * np.median(depth))
        np.testing.assert_allclose(new.X, expected, rtol=1e-6)


def test_roles_are_said_for_later_calls():
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"target": np.repeat(["NT", "MYC"], 60), "sgrna": np.tile(["a", "b"], 60)})
    obs["lane"] = np.tile(["1", "2", "3"], 40)
    obs.index = [f"c{k}" for k in range(120)]
    adata = ad.AnnData(rng.poisson(5, (120, 3)).astype(float), obs)
    adata.var_names = ["MYC", "JUN", "FOS"]
    lost = adata.copy()
    npt.pp.perturbation_screen(adata, "target", "NT", guide_key="sgrna", batch_key="lane")
    roles = adata.uns["screen"]
    assert (roles["perturbation_key"], roles["control"]) == ("perturbation", "control")
    assert (roles["guide_key"], roles["batch_key"].tolist()) == ("sgrna", ["lane"])
    npt.tl.learn_dag(adata, method="boss", environments="all")
    assert adata.uns["dag"]["params"]["batch_key"].tolist() == ["lane"]
    lost.obs.loc["c3", "lane"] = None
    before = lost.copy()
    with pytest.raises(ValueError, match=r"lane.* is missing for 1"):
        npt.pp.perturbation_screen(lost, "target", "NT", batch_key="lane")
    assert lost.obs.equals(before.obs)
    assert "screen" not in lost.uns


def test_a_large_panel_that_nobody_chose_is_named():
    counts = np.random.default_rng(0).poisson(2.0, (80, 1010)).astype(np.float32)
    obs = pd.DataFrame({"perturbation": ["control"] * 50 + ["g1"] * 30})
    adata = ad.AnnData(counts, obs.set_index(obs.index.astype(str)))
    adata.var_names = [f"g{k}" for k in range(1010)]
    with pytest.warns(UserWarning, match="panel has 1,010 genes.*pass fewer genes as panel"):
        npt.pp.perturbation_screen(adata.copy())


@pytest.fixture
def rare():
    """Counts of ten genes, of which R1 and R2 are seen in few control cells, and R3 in none."""
    counts = np.random.default_rng(0).poisson(3.0, (100, 10))
    counts[5:, 7:] = 0
    counts[:, 9] = 0
    obs = pd.DataFrame({"perturbation": ["control"] * 60 + ["G1"] * 40})
    genes = [f"G{i}" for i in range(7)] + ["R1", "R2", "R3"]
    adata = ad.AnnData(counts.astype(np.float32), obs.set_index(obs.index.astype(str)))
    adata.var_names = [f"ENSG{i:011d}" for i in range(10)]
    adata.var["symbol"] = genes
    return adata


def test_the_panel_holds_the_genes_of_a_target(rare):
    usual = npt.pp.perturbation_screen(rare, gene_symbols="symbol", copy=True)
    assert usual.var["symbol"].tolist() == [f"G{i}" for i in range(7)]
    target = npt.Target(signature={"up": ["G2", "R1"], "down": ["R2", "R3", "ABSENT"]})
    with pytest.warns(UserWarning) as caught:  # noqa: PT030
        npt.pp.perturbation_screen(rare, gene_symbols="symbol", panel=target)
    said = [str(warning.message) for warning in caught]
    assert any("1 genes of the target are not measured" in x and "ABSENT" in x for x in said)
    assert any(" 60 control cells are left out: R3." in x for x in said)
    assert rare.var["symbol"].tolist() == [*[f"G{i}" for i in range(7)], "R1", "R2"]
    assert rare.uns["preprocessing"]["params"]["panel"] == "genes seen, and those of a target"


@pytest.mark.parametrize(
    "parts",
    [
        {"state": {"R1": 1.0}},
        {"at_least": {"R1": 1.0}},
        {"state": "G1", "weights": ["R1", "G2"]},
        {"state": "G1", "away_from": {"R1": 1.0}},
        {"state": "G1", "away_from": ["G2", {"R1": 1.0}]},
    ],
)
def test_every_part_of_a_target_names_genes_of_the_panel(rare, parts):
    npt.pp.perturbation_screen(rare, gene_symbols="symbol", panel=npt.Target(**parts))
    assert rare.var["symbol"].tolist() == [*[f"G{i}" for i in range(7)], "R1"]


def test_features_that_are_not_genes_are_refused(small_screen):
    screen = small_screen.copy()
    screen.var["feature_types"] = "Gene Expression"
    screen.var.loc[screen.var_names[-2:], "feature_types"] = "CRISPR Guide Capture"
    with pytest.raises(ValueError, match=r"not genes: CRISPR Guide Capture \(2\)\. Pass only"):
        npt.pp.perturbation_screen(screen, copy=True)
    npt.pp.perturbation_screen(screen[:, screen.var["feature_types"] == "Gene Expression"].copy())


def test_dropped_combinations_are_warned_of(small_screen, caplog):
    npt.pp.perturbation_screen(small_screen, copy=True)
    assert "dropped: pass combinations='keep'" in caplog.text
    caplog.clear()
    npt.pp.perturbation_screen(small_screen, combinations="keep", copy=True)
    assert "several targets" not in caplog.text
