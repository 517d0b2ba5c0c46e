"""What is read of a matrix and what is refused: needless cells, damaged files, NaN."""

import itertools

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from nextpert._adata import read, read_blocks, sources
from tests._adata.test_read import COLUMNS, N, P, environment_moments, make

pytestmark = pytest.mark.formats

FORMS = {"dense": np.asarray, "csr": sp.csr_matrix, "csc": sp.csc_matrix}


@pytest.fixture(scope="module")
def values():
    """Log-normalised expression with many zeros."""
    rng = np.random.default_rng(0)
    return np.log1p(rng.poisson(0.7, size=(N, P)) * rng.uniform(0.5, 2, size=(N, 1)))


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


class Watched:
    """An array that notes the slices that are read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, []

    def __getitem__(self, key):
        rows = key[0] if isinstance(key, tuple) else key
        self.read.append((rows.start, rows.stop))
        return self.array[key]


def test_only_what_is_needed_is_read(values):
    rows = np.array([43, 44, 59])
    dense = Watched(values)
    block = sources.DenseRows(dense, COLUMNS[:2]).read(rows)
    np.testing.assert_array_equal(block, values[rows][:, COLUMNS[:2]])
    assert dense.read == [(43, 45), (59, 60)]

    csr = sp.csr_array(values)
    data, indices, indptr = map(Watched, (csr.data, csr.indices, csr.indptr))
    block = sources.CsrRows((data, indices, indptr), P, np.sort(COLUMNS)).read(rows)
    np.testing.assert_array_equal(block.toarray(), values[rows][:, np.sort(COLUMNS)])
    assert indptr.read == [(43, 61)]
    assert data.read == indices.read
    assert all(b - a <= 29 for a, b in data.read)
    assert sum(b - a for a, b in data.read) < 0.7 * (csr.indptr[60] - csr.indptr[43])

    csc = sp.csc_array(values)
    data, indices = Watched(csc.data), Watched(csc.indices)
    panel = sources._panel_of_csc((data, indices, csc.indptr), N, np.array([4, 7]))
    np.testing.assert_array_equal(panel.toarray(), values[:, [4, 7]])
    assert data.read == indices.read == [(csc.indptr[j], csc.indptr[j + 1]) for j in (4, 7)]


@pytest.mark.parametrize("kind", ["dense", "csr", "csc", "dask"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_named(kind, bad, values, groups):
    x = values.copy()
    ones = np.flatnonzero(groups == 1)
    first, second = next((a, b) for a, b in itertools.pairwise(ones) if a // 13 == b // 13)
    x[first, 4] = x[first, 11] = bad
    x[second, 11] = -bad  # inf - inf
    x[first, 5] = bad  # outside the panel
    x[groups == -1, 7] = bad  # cells that are not read
    if kind == "dask":
        da = pytest.importorskip("dask.array", reason="the extra dask is not installed")
        adata = make(da.from_array(x, chunks=(50, 5)))
    else:
        adata = make(FORMS[kind](x))
    with pytest.raises(ValueError, match=r"infinite values: g11, g4\. Remove"):
        environment_moments(adata, COLUMNS, groups, 3)
    with pytest.raises(ValueError, match=r"infinite values: g11, g4\. Remove"):
        list(read_blocks(adata, COLUMNS, np.flatnonzero(groups == 1)))


def test_no_matrix(values, groups):
    adata = ad.AnnData(obs=pd.DataFrame(index=[f"c{i}" for i in range(N)]), var=make(values).var)
    with pytest.raises(ValueError, match=r"adata\.X is empty"):
        environment_moments(adata, COLUMNS, groups, 3)


def test_no_cells_at_all(values):
    for kind in ("dense", "csr", "csc"):
        moments = environment_moments(make(FORMS[kind](values)), COLUMNS, np.full(N, -1), 2)
        assert [m.n for m in moments] == [0, 0]


@pytest.mark.parametrize(
    ("part", "damage", "message"),
    [
        ("indices", lambda a: np.where(np.arange(len(a)) == 5, P + 3, a), "column indices out"),
        ("indices", lambda a: np.where(np.arange(len(a)) == 5, -1, a), "column indices out"),
        ("indptr", lambda a: a[np.r_[0, 2, 1, 3 : len(a)]], "row pointers that decrease"),
        ("data", lambda a: a[:-3], "fewer values"),
    ],
)
def test_damaged_files_are_refused(part, damage, message, values, groups, tmp_path):
    path = tmp_path / "cells.h5ad"
    make(sp.csr_matrix(values)).write_h5ad(path)
    with h5py.File(path, "a") as file:
        array = damage(file["X"][part][:])
        del file["X"][part]
        file["X"][part] = array
    backed = ad.read_h5ad(path, backed="r")
    with pytest.raises(ValueError, match=message):
        environment_moments(backed, COLUMNS, np.zeros(N, dtype=int), 1)
    backed.file.close()
