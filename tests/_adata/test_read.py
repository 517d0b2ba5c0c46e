"""Moments of all environments in one pass, out of every kind of matrix."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from nextpert._adata import environment_moments, read, read_blocks

N, P = 157, 12
COLUMNS = np.array([7, 2, 11, 4])


@pytest.fixture(scope="module")
def counts():
    x = np.random.default_rng(0).poisson(0.7, size=(N, P))
    x[:, 2] = 0  # a gene that no cell expresses
    return x


@pytest.fixture(scope="module")
def groups():
    return np.random.default_rng(1).integers(-1, 3, size=N)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(read, "_DENSE_ENTRIES", 10 * P)
    monkeypatch.setattr(read, "_SPARSE_ENTRIES", 13 * P)


def make(x):
    return ad.AnnData(
        x,
        pd.DataFrame(index=[f"c{i}" for i in range(N)]),
        pd.DataFrame(index=[f"g{j}" for j in range(P)]),
    )


@pytest.mark.parametrize("kind", ["csr", "csc", "csr integer"])
def test_sparse_products_for_wide_panels(kind, counts, groups, monkeypatch):
    monkeypatch.setattr(read, "_WIDE_PANEL", 2)
    monkeypatch.setattr(read, "_DENSE_SHARE", 1.1)
    adata = KINDS[kind](counts)
    blocks = [block for _, block in read_blocks(adata, COLUMNS, np.arange(N))]
    assert all(sp.issparse(block) for block in blocks)
    check(environment_moments(adata, COLUMNS, groups, 3), expected(counts, groups))


def in_layer(x):
    adata = make(np.full((N, P), np.nan))
    adata.layers["lognorm"] = x
    return adata


KINDS = {
    "dense": lambda x: make(x.astype(np.float64)),
    "float32": lambda x: make(x.astype(np.float32)),
    "integer": lambda x: make(x.astype(np.int32)),
    "fortran": lambda x: make(np.asfortranarray(x, dtype=np.float64)),
    "csr": lambda x: make(sp.csr_matrix(x, dtype=np.float64)),
    "csr float32": lambda x: make(sp.csr_array(x, dtype=np.float32)),
    "csr integer": lambda x: make(sp.csr_matrix(x.astype(np.int64))),
    "csc": lambda x: make(sp.csc_matrix(x, dtype=np.float64)),
    "csc array": lambda x: make(sp.csc_array(x.astype(np.int32))),
}


def expected(x, groups, columns=COLUMNS):
    out = []
    for g in range(3):
        cells = x[groups == g][:, columns].astype(float)
        out.append(
            (len(cells), cells.mean(axis=0), (cells - cells.mean(0)).T @ (cells - cells.mean(0)))
        )
    return out


def check(moments, wanted):
    for got, (n, mean, scatter) in zip(moments, wanted, strict=True):
        assert got.n == n
        np.testing.assert_allclose(got.mean, mean, atol=1e-12)
        np.testing.assert_allclose(got.scatter, scatter, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_in_memory(kind, counts, groups):
    check(environment_moments(KINDS[kind](counts), COLUMNS, groups, 3), expected(counts, groups))


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_layer(kind, counts, groups):
    adata = in_layer(KINDS[kind](counts).X)
    moments = environment_moments(adata, COLUMNS, groups, 3, layer="lognorm")
    check(moments, expected(counts, groups))


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
@pytest.mark.parametrize("backed", [False, True])
def test_views_in_memory_and_on_disk(kind, backed, counts, groups, tmp_path):
    adata = KINDS[kind](counts)
    if backed:
        adata.write_h5ad(tmp_path / "cells.h5ad")
        adata = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    check(environment_moments(adata, COLUMNS, groups, 3), expected(counts, groups))
    rows = np.random.default_rng(2).permutation(N)[:90]
    view = adata[rows, [f"g{j}" for j in (11, 7, 4, 0)]]
    assert view.is_view
    moments = environment_moments(view, [1, 0, 2], groups[rows], 3)
    check(moments, expected(counts[rows], groups[rows], [7, 11, 4]))
    if backed:
        adata.file.close()


@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_view_of_a_view_and_cells_taken_twice(kind, counts):
    adata = KINDS[kind](counts)
    view = adata[10:100][[3, 3, 5, 80]][:, 2:]
    groups = np.array([0, 1, 0, 2])
    moments = environment_moments(view, [5, 0], groups, 3)
    check(moments, expected(counts[[13, 13, 15, 90]], groups, [7, 2]))


def test_blocks_are_bounded_and_hold_every_cell_once(counts):
    adata = make(sp.csr_matrix(counts, dtype=np.float64))
    cells = np.arange(0, N, 2)
    seen = []
    for which, block in read_blocks(adata, COLUMNS, cells):
        assert block.shape[0] <= 13
        assert block.shape == (len(which), len(COLUMNS))
        dense = block.toarray() if sp.issparse(block) else block
        np.testing.assert_array_equal(dense, counts[which][:, COLUMNS])
        seen.append(which)
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), cells)


def test_only_the_blocks_with_wanted_cells_are_read(counts, tmp_path, monkeypatch):
    loaded = []
    load = read._load
    monkeypatch.setattr(read, "_load", lambda m, a, b: loaded.append((a, b)) or load(m, a, b))
    adata = make(counts.astype(float))
    list(read_blocks(adata, COLUMNS, np.array([150, 3, 151])))
    assert loaded == [(3, 4), (150, 152)]


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_named(kind, bad, counts, groups):
    x = counts.astype(float)
    first = np.flatnonzero(groups == 1)[0]
    x[first, 4] = x[first, 11] = bad
    x[first, 5] = bad  # outside the panel
    x[groups == -1, 7] = bad  # cells that are not read
    adata = make(x if kind == "dense" else {"csr": sp.csr_matrix, "csc": sp.csc_matrix}[kind](x))
    with pytest.raises(ValueError, match=r"infinite values: g11, g4\. Remove"):
        environment_moments(adata, COLUMNS, groups, 3)


def test_no_matrix(counts, groups):
    adata = ad.AnnData(obs=pd.DataFrame(index=[f"c{i}" for i in range(N)]), var=make(counts).var)
    with pytest.raises(ValueError, match=r"adata\.X is empty"):
        environment_moments(adata, COLUMNS, groups, 3)


def test_lazy_arrays(counts, groups):
    da = pytest.importorskip("dask.array", reason="the extra dask is not installed")
    adata = make(da.from_array(counts.astype(float), chunks=(50, P)))
    check(environment_moments(adata, COLUMNS, groups, 3), expected(counts, groups))
