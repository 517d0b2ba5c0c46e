"""Gene names with commas: targets are lists, joined for show alone."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.core._codec import lists, unpack
from nextpert.study.ranking import candidates_of
from tests._screens import screen_of, with_fit

pytestmark = pytest.mark.brief_chain

GENES = ["A", "B", "A, B", "C"]


@dataclass
class Listed:
    targets: list[list[str]] = lists()


@pytest.fixture
def screen():
    rng = np.random.default_rng(0)
    labels = ["control"] * 200 + ["A, B"] * 40 + ["A+B"] * 40 + ["A, B+C"] * 40
    x = 3 + rng.normal(size=(len(labels), 4))
    x[:, 3] += 0.5 * x[:, 0]
    adata = screen_of(x, labels, GENES)
    return with_fit(adata, [("A", "C"), ("A, B", "C")])


def through(adata, kind, tmp_path):
    if kind == "h5ad":
        adata.write_h5ad(tmp_path / "x.h5ad")
        return ad.read_h5ad(tmp_path / "x.h5ad")
    if kind == "zarr":
        adata.write_zarr(tmp_path / "x.zarr")
        return ad.read_zarr(tmp_path / "x.zarr")
    return adata


@pytest.mark.parametrize("kind", ["memory", "h5ad"])
def test_a_knockout_of_a_gene_with_a_comma(kind, screen, tmp_path):
    adata = through(screen, kind, tmp_path)
    target = npt.Target(state="A+B", own_genes="include")
    npt.tl.design_interventions(adata, target, candidates=posterior_from(adata).names)
    adata = through(adata, kind, tmp_path)
    design = adata.uns["design"]
    ranking = candidates_of(design["ranking"])
    targets = unpack(Listed, design, "design", "run it again").targets
    shifts = np.asarray(design["shifts"].todense())
    wanted = {"A, B": ["A, B"], "A+B": ["A", "B"], "A, B+C": ["A, B", "C"]}
    assert set(ranking["perturbation"]) == set(wanted)
    for label, names, shift in zip(ranking["perturbation"], targets, shifts, strict=True):
        assert names == wanted[label]
        assert [GENES[i] for i in np.flatnonzero(shift)] == sorted(names, key=GENES.index)
    shown = dict(zip(ranking["perturbation"], ranking["target_genes"], strict=True))
    assert shown["A, B+C"] == "A, B, C"


IDS = {"MYC": "ENSG00000136997", "STK3": "ENSG00000104375", "OXR1": "ENSG00000164830"}


@pytest.fixture
def by_symbol(small_screen):
    """A screen with names for genes, and the same with Ensembl ids and a column of symbols."""
    ids = small_screen.copy()
    ids.var["symbol"] = [None if name == "NA" else name for name in small_screen.var_names]
    ids.var_names = [IDS.get(name, f"ENSG{j:011d}") for j, name in enumerate(ids.var_names)]
    return small_screen, ids


@pytest.mark.formats
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Perturbations left out")
@pytest.mark.parametrize("kind", ["memory", "h5ad"])
def test_symbols_give_what_names_give(kind, by_symbol, tmp_path, assert_same):
    genes = ["OXR1", "MYC", "STK3"]
    found = []
    for adata, options in zip(by_symbol, [{}, {"gene_symbols": "symbol"}], strict=True):
        npt.pp.setup_screen(adata, **options)
        npt.tl.learn_dag(adata, genes=genes, method="boss")
        npt.tl.fit_dag_blr(adata)
        adata = through(adata, kind, tmp_path)
        npt.tl.design_interventions(adata, {"MYC": 1.0}, candidates="genes", n_samples=20)
        npt.tl.diagnose(adata)
        npt.tl.dag_fit(adata, n_random=5)
        npt.tl.cpca(adata, genes=genes, alpha=1.0)
        npt.tl.target_distances(adata, {"MYC": 1.0})
        npt.pl.dag(adata, show=False)
        npt.pl.expression_shift(adata, genes=["MYC"], show=False)
        for key in adata.uns:
            adata.uns[key].get("params", adata.uns[key]).pop("gene_symbols", None)
            for part in ("contents", "digest", "fit"):  # by the names of the genes as they are
                adata.uns[key].pop(part, None)
        found.append(adata)
    one, two = found
    assert_same({**one.uns}, {**two.uns})
    assert (one.varp["dag_blr_mean"] != two.varp["dag_blr_mean"]).nnz == 0
    np.testing.assert_array_equal(one.varm["cPCs"], two.varm["cPCs"])


@pytest.mark.filterwarnings("ignore:Perturbations left out")
def test_a_graph_by_ids_and_labels_by_symbols(by_symbol):
    names, ids = by_symbol
    npt.tl.learn_dag(names, method="given", dag=[("MYC", "STK3")])
    npt.tl.learn_dag(ids, method="given", dag=[(IDS["MYC"], IDS["STK3"])])
    npt.tl.fit_dag_blr(names)
    npt.pp.setup_screen(ids, gene_symbols="symbol")
    npt.tl.fit_dag_blr(ids)
    assert ids.uns["dag_blr"]["genes"].tolist() == ["MYC", "STK3"]
    assert (names.varp["dag_blr_mean"] != ids.varp["dag_blr_mean"]).nnz == 0
    npt.tl.design_interventions(ids, {"MYC": 1.0}, n_samples=20)


@pytest.mark.filterwarnings("ignore:Perturbations left out", "ignore:Genes constant")
def test_preprocessing_by_symbols(by_symbol):
    names, ids = by_symbol
    options = {"combinations": "keep", "copy": True}
    one = npt.pp.perturbation_screen(names, panel=["STK3", "MYC", "OXR1"], **options)
    npt.pp.setup_screen(ids, gene_symbols="symbol")
    two = npt.pp.perturbation_screen(ids, panel=["STK3", "MYC", "OXR1"], **options)
    assert two.var_names.tolist() == [IDS[name] for name in one.var_names]
    pd.testing.assert_frame_equal(one.obs, two.obs)
    for table in ("steps", "perturbations"):
        pd.testing.assert_frame_equal(
            one.uns["preprocessing"][table], two.uns["preprocessing"][table]
        )


def test_symbols_that_are_absent_or_not_unique(by_symbol):
    _, ids = by_symbol
    with pytest.raises(ValueError, match=r"no column 'symbols'\. Close matches: symbol\."):
        npt.pp.setup_screen(ids, gene_symbols="symbols")
    npt.pp.setup_screen(ids, gene_symbols="symbol")
    ids.var["symbol"] = "MYC"
    with pytest.raises(ValueError, match=r"Genes not in adata\.var\['symbol'\]: MYC"):
        npt.tl.learn_dag(ids, genes=["MYC"], method="boss")
    ids.var["symbol"] = ["MYC", None, ""] + ["x"] * (ids.n_vars - 3)
    names = [str(name) for name in ids.var_names]
    npt.tl.learn_dag(ids, method="given", dag=[("MYC", names[1])])
    assert ids.uns["dag"]["genes"].tolist() == ["MYC", names[1]]


def test_ensembl_ids_are_hinted_at(by_symbol):
    _, ids = by_symbol
    with pytest.raises(ValueError, match=r"Genes not in .*MYC.*Ensembl ids: .*gene_symbols"):
        npt.tl.learn_dag(ids, genes=["MYC", "STK3"])
    npt.tl.learn_dag(ids, method="given", dag=[(IDS["MYC"], IDS["STK3"])])
    with pytest.warns(UserWarning, match=r"MYC.*not measured.*Ensembl ids: .*gene_symbols"):
        npt.tl.fit_dag_blr(ids)
    with pytest.warns(UserWarning, match=r"not among .*MYC.*Ensembl ids: .*gene_symbol"):
        npt.pp.perturbation_screen(ids, copy=True)


@pytest.mark.parametrize("n_cells", [60, 5])  # 5 are too few to be kept
@pytest.mark.parametrize("mark", [";", ",", "|", "_"])
def test_what_joins_the_genes_of_a_label_is_hinted_at(mark, n_cells, small_screen):
    labels = small_screen.obs["perturbation"].astype(object)
    labels[labels.index[labels == "STK3"][:n_cells]] = f"MYC{mark}STK3"
    small_screen.obs["perturbation"] = labels
    hint = re.escape(f"MYC{mark}STK3 names several genes: declare separator=")
    with pytest.warns(UserWarning, match=f"{hint}'{re.escape(mark)}'"):
        npt.pp.perturbation_screen(small_screen, copy=True)
    with warnings.catch_warnings(action="error", category=UserWarning):
        npt.pp.perturbation_screen(small_screen, separator=mark, copy=True)


@pytest.mark.parametrize(
    "label", ["MYCg2", "sgMYC", "MYC_1", "MYC-sg3", "MYC_KO", "sgMYC_2", "MYC_sgRNA1", "MYC.2"]
)
def test_labels_of_guides_are_hinted_at(label, small_screen):
    labels = small_screen.obs["perturbation"].astype(object)
    small_screen.obs["perturbation"] = labels.replace("MYC", label)
    npt.tl.learn_dag(small_screen, method="given", dag=[("MYC", "STK3"), ("STK3", "OXR1")])
    with pytest.warns(UserWarning, match=rf"{label} \(of MYC\).*pp\.assign_guides"):
        npt.tl.fit_dag_blr(small_screen)


@pytest.mark.filterwarnings("ignore:Perturbations left out")
def test_cells_without_a_label_are_counted_aloud(small_screen, caplog):
    with_fit(small_screen, [("MYC", "STK3")], genes=None)
    assert "10 of 680 cells have no label (missing in adata.obs['perturbation'])" in caplog.text
