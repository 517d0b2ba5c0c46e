"""Cells of a large screen are normalised in blocks, whose size does not change the values."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert.pp import _expression

FORMS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}


def screen(form="csr", dtype=np.float32, n_cells=300, n_genes=12):
    """Return counts with one control in three cells."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.5, (n_cells, n_genes)).astype(dtype)
    labels = np.where(np.arange(n_cells) % 3 == 0, "control", "g1")
    obs = pd.DataFrame({"perturbation": labels}, [f"c{i}" for i in range(n_cells)])
    return ad.AnnData(FORMS[form](counts), obs, pd.DataFrame(index=[f"g{i}" for i in range(12)]))


def dense(values):
    return values.toarray() if sp.issparse(values) else values


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
@pytest.mark.parametrize("form", FORMS)
def test_logarithms_do_not_depend_on_blocks(form, dtype, monkeypatch):
    monkeypatch.setattr(_expression, "_BLOCK_ENTRIES", 7 * 12)  # seven cells
    adata = screen(form, dtype)
    new = npt.pp.perturbation_screen(adata, copy=True)
    counts = dense(adata.X).astype(np.float64)
    depth = counts.sum(axis=1)
    expected = np.log1p(counts * (np.median(depth) / depth)[:, None])
    np.testing.assert_array_equal(dense(new.X), expected.astype(np.float32))
    np.testing.assert_array_equal(dense(new.layers["counts"]), counts)
    assert new.layers["counts"].dtype == dtype


@pytest.mark.parametrize("form", FORMS)
def test_a_fraction_in_the_last_block_is_found(form, monkeypatch):
    monkeypatch.setattr(_expression, "_BLOCK_ENTRIES", 7 * 12)
    adata = screen(form, n_cells=3000)
    counts = dense(adata.X).copy()
    counts[-400, -1] = 1.5  # outside the cells whose scale is examined
    adata.X = FORMS[form](counts)
    with pytest.raises(ValueError, match="some are not whole numbers"):
        npt.pp.perturbation_screen(adata)
