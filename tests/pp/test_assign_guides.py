"""``pp.assign_guides``: calls by threshold, targets, controls; the TAP-seq screen's own labels."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert._adata.guides import guide_sets, guide_table

NAMES = ["MYC_1", "MYC_2", "HLA-A_1", "NO_SITE_4", "ONE_NON-GENE_SITE_7"]
UMI = np.array(
    [
        [9, 0, 0, 0, 0],  # MYC
        [5, 8, 0, 1, 0],  # two guides of MYC
        [6, 0, 5, 5, 0],  # MYC and HLA-A beside a control guide
        [0, 0, 4, 7, 0],  # control; HLA-A just below
        [4, 4, 4, 4, 4],  # none
        [0, 0, 0, 5, 9],  # two control guides
        [0, 0, 30, 0, 6],  # HLA-A beside a control guide
    ]
)
LABELS = ["MYC", "MYC", "HLA-A+MYC", "control", "unassigned", "control", "HLA-A"]
LISTS = [
    "MYC_1", "MYC_1,MYC_2", "MYC_1,HLA-A_1,NO_SITE_4", "NO_SITE_4", "",
    "NO_SITE_4,ONE_NON-GENE_SITE_7", "HLA-A_1,ONE_NON-GENE_SITE_7",
]  # fmt: skip
# Control guides are no guides of a cell with others.
GUIDES = [*LISTS[:2], "MYC_1,HLA-A_1", *LISTS[3:6], "HLA-A_1"]


@pytest.fixture
def cells():
    return ad.AnnData(obs=pd.DataFrame(index=[f"c{i}" for i in range(len(UMI))]))


def given(cells, kind):
    table = pd.DataFrame(UMI, cells.obs_names, NAMES)
    if kind == "obsm":
        cells.obsm["umi"] = table
        return "umi"
    if kind == "column":
        cells.obs["called"] = [guides or np.nan for guides in LISTS]
        return "called"
    # Another order, and a cell more.
    more = pd.concat([table, pd.DataFrame([[9] * 5], ["else"], NAMES)]).iloc[::-1]
    return more if kind == "table" else ad.AnnData(sp.csc_matrix(more), more[[]])


@pytest.mark.parametrize("kind", ["obsm", "column", "table", "AnnData"])
def test_labels(cells, kind):
    guides = given(cells, kind)
    if kind == "AnnData":
        guides.var_names = NAMES
    assert npt.pp.assign_guides(cells, guides=guides) is None
    assert cells.obs["perturbation"].tolist() == LABELS
    assert cells.obs["guides"].tolist() == GUIDES
    assert cells.obs["n_guides"].tolist() == [1, 2, 3, 1, 0, 2, 2]
    assert cells.obs["n_targets"].tolist() == [1, 1, 2, 0, 0, 0, 1]
    table = cells.uns["guides"].loc[NAMES]
    assert table["target"].tolist() == ["MYC", "MYC", "HLA-A", "", ""]
    assert table["kind"].tolist() == ["targeting"] * 3 + ["no_site", "one_non-gene_site"]
    assert table["n_cells"].tolist() == [3, 1, 2, 3, 2]


def test_other_choices(cells):
    new = npt.pp.assign_guides(
        cells, guides=given(cells, "table"), threshold=4, multiple="multi", control="NT",
        targets=dict(zip(NAMES, ["JUN", "FOS", "FOS", "x", ""], strict=True)),
        control_guides=["x", "HLA-A_1", "ONE_NON-GENE_SITE_7"], guide_separator=";",
        key_added="mine", copy=True,
    )  # fmt: skip
    assert new.obs["mine"].tolist() == ["JUN", "multi", "multi", "multi", "multi", "multi", "multi"]
    assert new.obs["guides"].iloc[5] == "NO_SITE_4;ONE_NON-GENE_SITE_7"
    assert new.uns["guides"]["kind"].tolist() == ["targeting"] * 2 + ["control"] * 3
    assert npt.pp.assign_guides(
        cells, guides=given(cells, "table"), control_guides=["MYC_1"], copy=True
    ).uns["guides"].loc["NO_SITE_4"].tolist()[:2] == ["NO_SITE", "targeting"]  # as it is not named
    assert cells.obs.columns.empty
    assert not cells.uns


def test_random_counts_against_a_loop():
    rng = np.random.default_rng(1)
    names = [f"G{i}_{k}" for i in range(5) for k in (1, 2)] + ["NTC_1", "NTC_2"]
    umi = rng.integers(0, 8, (300, len(names))) * (rng.random((300, len(names))) < 0.3)
    obs = pd.DataFrame(index=[f"c{i}" for i in range(300)])
    adata = ad.AnnData(obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(5)]))
    expected = []
    for row in umi:
        called = [name for name, n in zip(names, row, strict=True) if n >= 5]
        targets = sorted({name.split("_")[0] for name in called} - {"NTC"})
        expected.append("+".join(targets) or ("control" if called else "unassigned"))
    npt.pp.assign_guides(adata, guides=pd.DataFrame(umi, adata.obs_names, names))
    assert adata.obs["perturbation"].tolist() == expected
    assert {"control", "unassigned", "G0+G3", "G1"} <= set(expected)


TARGETS = {"MYC_1": "MYC", "MYC_2": "MYC", "HLA-A_1": "HLA-A", "NO_SITE_4": "control"}


def test_a_table_of_guides_names_each_once():
    table = guide_table({"MYC_1": "MYC"}, "table")
    with pytest.raises(ValueError, match="contains these guides more than once: MYC_1"):
        guide_sets([["MYC_1"]], pd.concat([table, table]), ",")


def test_guides_that_look_joined_are_named(cells):
    cells.obs["guide"] = pd.Categorical(["MYC_1", "JUN_1", "MYC_1;JUN_1", *["NTC_1"] * 4])
    with pytest.raises(ValueError, match=r"MYC_1;JUN_1 in adata.obs\['guide'\] .* guide_separator"):
        npt.pp.assign_guides(cells, guides="guide", guide_separator=",")
    assert "perturbation" not in cells.obs
    npt.pp.assign_guides(cells, guides="guide", guide_separator=";")
    assert cells.obs["perturbation"].tolist() == ["MYC", "JUN", "JUN+MYC", *["control"] * 4]


@pytest.mark.parametrize("nothing", [None, " ", np.nan, pd.NA, "NA"])
@pytest.mark.parametrize("kind", [dict, pd.DataFrame])
def test_guides_without_a_target_are_named(nothing, kind, cells):
    name = "ONE_NON-GENE_SITE_7"
    targets = TARGETS | {name: nothing}
    if kind is pd.DataFrame:
        targets = pd.DataFrame({"guide": targets.keys(), "target": targets.values()})
    table = pd.DataFrame(UMI, cells.obs_names, NAMES)
    with pytest.raises(ValueError, match=f"Guides without a target: {name}.*control_guides"):
        npt.pp.assign_guides(cells, guides=table, targets=targets)
    npt.pp.assign_guides(cells, guides=table, targets=targets, control_guides=[name, "control"])
    assert cells.uns["guides"]["kind"].tolist() == ["targeting"] * 3 + ["control"] * 2
    assert cells.obs["perturbation"].tolist() == LABELS
