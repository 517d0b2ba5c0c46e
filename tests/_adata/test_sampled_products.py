"""Products of many genes are those of a sample of cells; means and squares are those of all."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert._adata import read
from nextpert._adata.read import Coding, read_screens
from nextpert.core.model import within_cells


@pytest.fixture
def few(monkeypatch):
    """Sample 2,000 cells from five genes on."""
    monkeypatch.setattr(read, "_ALL_PRODUCTS", 4)
    monkeypatch.setattr(read, "_SAMPLED", 2000)


def cells(kind=np.asarray, n=6000, p=12):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2)) @ rng.normal(size=(2, p)) + rng.normal(size=(n, p))
    codes = rng.integers(-1, 9, n)
    x = np.where(rng.random((n, p)) < 0.4, 0.0, x + 0.3 * codes[:, None])
    return ad.AnnData(kind(x), obs=pd.DataFrame(index=[str(i) for i in range(n)])), codes


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_all_but_products_is_that_of_all_cells(few, kind):
    adata, codes = cells(kind)
    fold, columns = np.arange(9) // 5, np.arange(adata.n_vars)[::-1]
    coding = Coding(codes, fold, np.zeros((len(codes), 0)))
    (found,) = read_screens(adata, columns, [coding])
    read._SAMPLED = 10**6
    (every,) = read_screens(adata, columns, [coding])
    np.testing.assert_array_equal(found.n, every.n)
    np.testing.assert_allclose(found.mean, every.mean, atol=1e-12)
    np.testing.assert_allclose(found.squares, every.squares, rtol=1e-10)
    for k, all_of in every.scatter.items():
        np.testing.assert_allclose(found.scatter[k].diagonal(), all_of.diagonal(), rtol=1e-10)
        sd = np.sqrt(all_of.diagonal())
        off = (found.scatter[k] - all_of) / np.outer(sd, sd)
        assert np.abs(off).max() < 4.5 / np.sqrt(600)  # of some 900 cells of each fold
        assert np.abs(off).max() > 0


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
def test_folds_that_overlap_have_the_sample_of_a_screen_without_the_other_cells(few, kind):
    adata, codes = cells(kind)
    member, columns = np.ones((9, 2), np.int64), np.arange(adata.n_vars)
    member[6:, 1] = 0
    none = np.zeros((len(codes), 0))
    (screen,) = read_screens(adata, columns, [Coding(codes, member, none)])
    rest = np.flatnonzero(codes < 6)
    alone = Coding(codes[rest], np.zeros(6, np.int64), none[rest])
    (expected,) = read_screens(adata[rest].copy(), columns, [alone])
    found = screen.some(member[:, 1]).moments()
    np.testing.assert_array_equal(found.scatter, expected.moments().scatter)
    np.testing.assert_array_equal(found.mean, expected.mean)


def test_factors_of_many_genes_are_those_of_all_eigenvectors(monkeypatch):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4000, 3)) @ rng.normal(size=(3, 80)) + rng.normal(size=(4000, 80))
    correlation = np.corrcoef(x.T)
    gamma, psi = within_cells.factors(correlation, 3)
    monkeypatch.setattr(within_cells, "_MAX_DENSE_GENES", 10)
    few_gamma, few_psi = within_cells.factors(correlation, 3)
    np.testing.assert_allclose(few_psi, psi, atol=1e-4)
    np.testing.assert_allclose(few_gamma @ few_gamma.T, gamma @ gamma.T, atol=1e-4)


@pytest.mark.screen
@pytest.mark.slow
@pytest.mark.full_chain
@pytest.mark.parametrize(
    ("path", "control", "batch_key"),
    [
        ("schraivogel_tapseq/schraivogel_tapseq_umi5.h5ad", "non-targeting", None),
        ("papalexi_thp1/papalexi_lowmoi.h5ad", "control", "bio_rep"),
    ],
    ids=["tapseq", "papalexi"],
)
def test_effects_of_real_cells_hardly_depend_on_it(
    path, control, batch_key, screen_path, monkeypatch
):
    if not (screen_path / path).is_file():
        pytest.skip(f"{path} is not in the folder of the real screens")
    adata = ad.read_h5ad(screen_path / path)
    options = {"batch_key": batch_key, "copy": True}
    adata = npt.pp.perturbation_screen(adata, "perturbation", control, **options)
    graph = adata.var["control_sd"].sort_values(ascending=False).index[:60]
    npt.tl.learn_dag(adata, genes=sorted(graph), method="boss", environments="all")
    found = []
    # All cells; all but one, of which another chain is drawn; 10,000.
    for least, n in ((10**6, 0), (1, adata.n_obs - 1), (1, 10_000)):
        monkeypatch.setattr(read, "_ALL_PRODUCTS", least)
        monkeypatch.setattr(read, "_SAMPLED", n)
        npt.tl.fit_dag_blr(adata)
        npt.tl.perturbation_effects(adata, genes="all")
        found.append(adata.uns["perturbation_effects"])
    every, chain, sampled = found
    off = [
        np.sqrt(np.mean(((some["mean"] - every["mean"]) / every["sd"]) ** 2))
        for some in (chain, sampled)
    ]
    # On TAP-seq 0.09 and 0.07, on Papalexi 0.06 and 0.13.
    assert max(off) < 0.2, off
    assert np.median(sampled["sd"] / every["sd"]) == pytest.approx(1, abs=0.1)
    called, same = every["lfsr"] < 0.05, sampled["lfsr"] < 0.05
    assert (called & same).sum() > 0.95 * called.sum()
