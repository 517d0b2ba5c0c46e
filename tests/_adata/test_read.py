"""Moments of all environments in one pass, out of every kind of matrix."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from nextpert._adata import read, read_blocks, read_groupings, sources
from nextpert._adata.roles import Roles
from nextpert.core.screen import parts as _screen_part

N, P = 157, 12
COLUMNS = np.array([7, 2, 11, 4])


def environment_moments(adata, columns, groups, n_groups, *, layer=None):
    """The moments of groups of cells, a scatter for each."""
    groupings = [(np.asarray(groups), n_groups)]
    return read_groupings(adata, columns, groupings, Roles(layer=layer))[0][0]


@pytest.fixture(scope="module")
def values():
    """Log-normalised expression: sparse, with a gene no cell expresses and one all do."""
    rng = np.random.default_rng(0)
    x = np.log1p(rng.poisson(0.7, size=(N, P)) * rng.uniform(0.5, 2, size=(N, 1)))
    x[:, 2] = 0
    x[:, 4] += 6.5  # far from zero: squares about zero lose digits
    return x


@pytest.fixture(scope="module")
def groups():
    return np.random.default_rng(1).integers(-1, 3, size=N)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Blocks of 13 cells, read a few values at a time."""
    monkeypatch.setattr(read, "_BLOCK_ENTRIES", 13 * len(COLUMNS))
    monkeypatch.setattr(read, "_CELLS_A_GROUP", 1)
    monkeypatch.setattr(sources, "_DENSE_ENTRIES", 5 * P)
    monkeypatch.setattr(sources, "_NONZEROS", 29)


def make(x):
    return ad.AnnData(
        x,
        pd.DataFrame(index=[f"c{i}" for i in range(N)]),
        pd.DataFrame(index=[f"g{j}" for j in range(P)]),
    )


def doubled(x):
    """CSR with every entry given twice, as halves, and columns not in order."""
    csr = sp.csr_matrix(x)
    rows = [np.arange(csr.indptr[i], csr.indptr[i + 1])[::-1] for i in range(N)]
    order = np.concatenate([np.tile(row, 2) for row in rows])
    return sp.csr_matrix((csr.data[order] / 2, csr.indices[order], 2 * csr.indptr), csr.shape)


def shuffled(x):
    """CSC with the rows of each column in no order."""
    csc = sp.csc_matrix(x)
    rng = np.random.default_rng(3)
    columns = [np.arange(csc.indptr[j], csc.indptr[j + 1]) for j in range(P)]
    order = np.concatenate([rng.permutation(column) for column in columns])
    return sp.csc_matrix((csc.data[order], csc.indices[order], csc.indptr), csc.shape)


KINDS = {
    "dense": np.asarray,
    "float32": lambda x: x.astype(np.float32),
    "integer": lambda x: np.round(x).astype(np.int32),
    "fortran": np.asfortranarray,
    "csr": sp.csr_matrix,
    "csr float32": lambda x: sp.csr_array(x, dtype=np.float32),
    "csr integer": lambda x: sp.csr_matrix(np.round(x).astype(np.int64)),
    "csr repeated": doubled,
    "csc": sp.csc_matrix,
    "csc array": lambda x: sp.csc_array(np.round(x).astype(np.int32)),
    "csc unsorted": shuffled,
}
ON_DISK = (
    "dense",
    "float32",
    "csr",
    "csr float32",
    "csr integer",
    "csc",
    "csc array",
    "csc unsorted",
)


def as_array(kind, x):
    made = KINDS[kind](x)
    return np.asarray(made.toarray() if sp.issparse(made) else made, dtype=np.float64)


def check(moments, x, groups, columns=COLUMNS):
    """Against plain numpy, to 1e-10 of the spreads."""
    for g, got in enumerate(moments):
        cells = np.asarray(x, dtype=np.float64)[np.asarray(groups) == g][:, columns]
        centred = cells - cells.mean(axis=0)
        assert got.n == len(cells)
        np.testing.assert_allclose(got.mean, cells.mean(axis=0), rtol=1e-13)
        wanted = centred.T @ centred
        spread = np.sqrt(np.outer(np.diag(wanted), np.diag(wanted))) + 1e-300
        assert (np.abs(got.scatter - wanted) <= 1e-10 * spread).all()
        np.testing.assert_array_equal(got.scatter, got.scatter.T)


def assert_same_bits(one, two):
    for a, b in zip(one, two, strict=True):
        assert a.n == b.n
        assert a.mean.tobytes() == b.mean.tobytes()
        assert a.scatter.tobytes() == b.scatter.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_in_memory(kind, values, groups):
    x = KINDS[kind](values)
    before = x.copy()
    check(environment_moments(make(x), COLUMNS, groups, 3), as_array(kind, values), groups)
    if sp.issparse(x):  # nothing is sorted or summed in the user's own matrix
        assert np.array_equal(x.indices, before.indices)
        assert np.array_equal(x.data, before.data)


@pytest.mark.parametrize("kind", ON_DISK)
def test_in_a_file(kind, values, groups, tmp_path):
    adata = make(KINDS[kind](values))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    adata.write_zarr(tmp_path / "cells.zarr")
    inside = environment_moments(adata, COLUMNS, groups, 3)
    check(inside, as_array(kind, values), groups)
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert_same_bits(environment_moments(backed, COLUMNS, groups, 3), inside)
    backed.file.close()
    store = zarr.open_group(tmp_path / "cells.zarr", mode="r")["X"]
    stored = make(ad.io.sparse_dataset(store) if hasattr(store, "keys") else store)
    assert_same_bits(environment_moments(stored, COLUMNS, groups, 3), inside)


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_the_bits_do_not_depend_on_what_is_read_at_once(kind, values, groups, monkeypatch):
    adata = make(KINDS[kind](values))
    found = environment_moments(adata, COLUMNS, groups, 3)
    for size in (1, 7, 10**6):
        monkeypatch.setattr(sources, "_DENSE_ENTRIES", size * P)
        monkeypatch.setattr(sources, "_NONZEROS", size)
        assert_same_bits(environment_moments(adata, COLUMNS, groups, 3), found)


def test_sparse_formats_give_the_same_bits(values, groups):
    one = environment_moments(make(sp.csr_array(values)), COLUMNS, groups, 3)
    two = environment_moments(make(sp.csc_array(values)), COLUMNS, groups, 3)
    assert_same_bits(one, two)


@pytest.mark.parametrize("kind", ["csr", "csc", "csr repeated"])
def test_sparse_blocks_of_wide_panels(kind, values, groups, monkeypatch):
    monkeypatch.setattr(read, "_WIDE_PANEL", 2)
    monkeypatch.setattr(read, "_SPARSE_SHARE", 1.1)
    adata = make(KINDS[kind](values))
    for cells, block in read_blocks(adata, COLUMNS, np.arange(N)):
        assert sp.issparse(block)
        np.testing.assert_allclose(block.toarray(), values[cells][:, COLUMNS])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_sparse_and_dense_sums_agree(share, values, groups, monkeypatch):
    monkeypatch.setattr(_screen_part, "DENSE_SHARE", share)
    check(environment_moments(make(sp.csr_matrix(values)), COLUMNS, groups, 3), values, groups)


@pytest.mark.parametrize("offset", [10.0, 1e4, -1e6])
def test_sparse_cells_far_from_zero(offset, monkeypatch):
    monkeypatch.setattr(_screen_part, "DENSE_SHARE", 1.1)
    x = np.random.default_rng(4).normal(size=(N, P)) + offset
    x[np.random.default_rng(5).random((N, P)) < 0.5] = 0
    x[:, 4] = np.random.default_rng(6).normal(size=N) + offset
    groups = np.arange(N) % 3
    dense = environment_moments(make(x), COLUMNS, groups, 3)
    sparse = environment_moments(make(sp.csr_matrix(x)), COLUMNS, groups, 3)
    for a, b in zip(dense, sparse, strict=True):
        scale = np.sqrt(np.outer(np.diag(a.scatter), np.diag(a.scatter)))
        assert (np.abs(a.scatter - b.scatter) <= 1e-10 * scale).all()


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_layer(kind, values, groups):
    adata = make(np.full((N, P), np.nan))
    adata.layers["lognorm"] = KINDS[kind](values)
    moments = environment_moments(adata, COLUMNS, groups, 3, layer="lognorm")
    check(moments, values, groups)


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
@pytest.mark.parametrize("backed", [False, True])
def test_views_in_memory_and_on_disk(kind, backed, values, groups, tmp_path):
    adata = make(KINDS[kind](values))
    if backed:
        adata.write_h5ad(tmp_path / "cells.h5ad")
        adata = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    rows = np.random.default_rng(2).permutation(N)[:90]
    view = adata[rows, [f"g{j}" for j in (11, 7, 4, 0)]]
    assert view.is_view
    moments = environment_moments(view, [1, 0, 2], groups[rows], 3)
    check(moments, values[rows], groups[rows], [7, 11, 4])
    if backed:
        adata.file.close()


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_blocks_are_bounded_and_hold_every_cell_once(kind, values):
    cells = np.arange(0, N, 2)
    seen = []
    for which, block in read_blocks(make(KINDS[kind](values)), COLUMNS, cells):
        assert 0 < block.shape[0] <= 7
        np.testing.assert_array_equal(block, values[which][:, COLUMNS])
        seen.append(which)
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), cells)


def test_a_row_beyond_the_file_is_damage():
    csc = sp.csc_array(np.diag([1.0, 2.0, 3.0]))
    arrays = csc.data, csc.indices, csc.indptr
    assert sources._panel_of_csc(arrays, 3, np.array([2])).toarray().tolist() == [[0], [0], [3]]
    with pytest.raises(ValueError, match="row indices out of range"):
        sources._panel_of_csc(arrays, 2, np.array([2]))
