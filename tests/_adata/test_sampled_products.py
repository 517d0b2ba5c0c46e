"""Products of many genes are those of a sample of cells; means and squares are those of all."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

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


def test_factors_of_many_genes_are_those_of_all_eigenvectors(monkeypatch):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4000, 3)) @ rng.normal(size=(3, 80)) + rng.normal(size=(4000, 80))
    correlation = np.corrcoef(x.T)
    gamma, psi = within_cells.factors(correlation, 3)
    monkeypatch.setattr(within_cells, "_DENSE", 10)
    few_gamma, few_psi = within_cells.factors(correlation, 3)
    np.testing.assert_allclose(few_psi, psi, atol=1e-4)
    np.testing.assert_allclose(few_gamma @ few_gamma.T, gamma @ gamma.T, atol=1e-4)
