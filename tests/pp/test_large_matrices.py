"""Preparation of a large screen in blocks: the values do not change, and memory is bounded."""

from __future__ import annotations

import json
import subprocess
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert._adata import join, sources
from nextpert.pp import _expression
from tests._screens import screen_of

FORMS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}


def screen(form="csr", dtype=np.float32, n_cells=300, n_genes=12):
    """Return counts with one control in three cells."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.5, (n_cells, n_genes)).astype(dtype)
    labels = np.where(np.arange(n_cells) % 3 == 0, "control", "g1")
    return screen_of(FORMS[form](counts), labels)


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


def test_counts_and_logarithms_share_their_columns():
    new = npt.pp.perturbation_screen(screen(), copy=True)
    assert np.shares_memory(new.X.indices, new.layers["counts"].indices)
    counts = new.layers["counts"].copy()
    for change in ("eliminate_zeros", "sort_indices", "sum_duplicates", "prune"):
        getattr(new.X, change)()
    np.testing.assert_array_equal(new.layers["counts"].toarray(), counts.toarray())


def test_columns_are_not_shared_where_zeros_are_stored():
    adata = screen()
    adata.X.data[::3] = 0
    counts = adata.X.toarray()
    new = npt.pp.perturbation_screen(adata, copy=True)
    assert new.X.nnz == adata.X.nnz
    new.X.eliminate_zeros()
    np.testing.assert_array_equal(new.layers["counts"].toarray(), counts)


def annotated(adata):
    """Return the screen with all kinds of annotation, and layers of three forms."""
    rng = np.random.default_rng(1)
    adata.layers["csr"] = sp.csr_array(adata.X * 2)
    adata.layers["csc"] = sp.csc_matrix(adata.X * 3)
    adata.layers["dense"] = adata.X.toarray()
    adata.obsm["pca"], adata.varm["loading"] = rng.random((adata.n_obs, 2)), rng.random((12, 2))
    adata.obsp["near"] = sp.csr_matrix(np.eye(adata.n_obs))
    adata.varp["cor"] = rng.random((12, 12))
    adata.uns["nested"] = {"values": np.arange(3), "deeper": {"name": "a"}}
    adata.obs["batch"] = pd.Categorical(np.repeat(["a", "b", "unused"], [200, 99, 1]))
    adata.uns["batch_colors"] = ["red", "green", "blue"]
    return adata


@pytest.mark.parametrize("has_raw", [False, True])
@pytest.mark.parametrize("kind", ["memory", "view", "permuted view", "backed", "backed view"])
def test_cells_are_taken_as_anndata_takes_them(kind, has_raw, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_NONZEROS", 50)  # some five cells at a time
    adata = annotated(screen())
    adata.X.data[:40:3] = 0  # entries that are zero stay
    if has_raw:
        adata.raw = adata.copy()
    cells, genes = np.arange(1, 150, 2), np.array([5, 0, 11, 2])
    if kind.startswith("backed"):
        adata.write_h5ad(tmp_path / "screen.h5ad")
        adata = ad.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    in_memory = ad.read_h5ad(tmp_path / "screen.h5ad") if adata.isbacked else adata
    original = in_memory
    if kind.endswith("view"):
        order = np.arange(299, 100, -1) if "permuted" in kind else np.arange(100, 300)
        adata, in_memory = adata[order, ::-1], in_memory[order, ::-1]
    expected = in_memory[cells, genes].copy()
    found = join.take(adata, cells, genes)
    assert not found.is_view
    assert not found.isbacked
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    pd.testing.assert_frame_equal(found.var, expected.var)
    assert list(found.uns["batch_colors"]) == list(expected.uns["batch_colors"])
    for slot in ("obsm", "varm", "obsp", "varp", "layers"):
        one, other = getattr(found, slot), getattr(expected, slot)
        assert sorted(one, key=str) == sorted(other, key=str)  # anndata 0.13 lists X among layers
        for name in one:
            assert type(one[name]) is type(other[name])
            np.testing.assert_array_equal(dense(one[name]), dense(other[name]))
    assert (found.raw is not None) == has_raw
    if has_raw:
        assert found.raw.shape == (75, 12)
        np.testing.assert_array_equal(dense(found.raw.X), dense(expected.raw.X))
    for layer in (None, "csr"):
        one, other = (
            (each.X if layer is None else each.layers[layer]) for each in (found, expected)
        )
        assert type(one) is type(other)
        for part in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
            assert getattr(one, part).dtype == getattr(other, part).dtype
    found.uns["nested"]["deeper"]["name"] = "b"
    found.X.data[:] = -1
    assert original.uns["nested"]["deeper"]["name"] == "a"
    assert original.X.data.min() == 0


# The peak of the process above its memory with the screen read or opened, in bytes, and the result.
MEASURE = """
import gc, json, sys
from pathlib import Path
import anndata as ad, nextpert as npt

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))

small, large, backed = sys.argv[1:]
npt.pp.perturbation_screen(ad.read_h5ad(small))  # imports
adata = ad.read_h5ad(large, backed="r" if backed == "backed" else None)
gc.collect()
Path("/proc/self/clear_refs").write_text("5")  # the peak is now the present memory
before = status("VmRSS:")
new = npt.pp.perturbation_screen(adata, copy=True)
values, counts = new.X, new.layers["counts"]
size = values.data.nbytes + values.indices.nbytes + counts.data.nbytes
print(json.dumps([status("VmHWM:") - before, size, new.n_vars]))
"""


@pytest.mark.processes
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak in /proc")
@pytest.mark.parametrize("kind", ["memory", "backed"])
def test_preparation_needs_the_memory_of_its_result(kind, tmp_path):
    # Of 250 genes, 150 are seen in two cells in three, and the others in one in twenty.
    rng, n_cells = np.random.default_rng(0), 240_000
    rate = np.repeat([1.1, 0.05], [150, 100])
    block = sp.csr_matrix(rng.poisson(rate, (n_cells // 24, 250)).astype(np.float32))
    obs = pd.DataFrame({"perturbation": np.where(rng.random(n_cells) < 0.05, "control", "g1")})
    obs.index = obs.index.astype(str)
    var = pd.DataFrame(index=[f"g{i}" for i in range(250)])
    adata = ad.AnnData(sp.vstack([block] * 24, format="csr"), obs, var)
    adata[:500].write_h5ad(tmp_path / "small.h5ad")
    adata.write_h5ad(tmp_path / "large.h5ad")
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, tmp_path / "small.h5ad"]
    command += [tmp_path / "large.h5ad", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    peak, result, n_genes = json.loads(done.stdout)
    assert n_genes == 150
    # Values, columns and counts; the limit leaves room for blocks, whose size is fixed, and for
    # the controls. Logarithms of all cells at once in double precision exceed it.
    assert 280e6 < result < 300e6
    assert result < peak < result + 250e6
