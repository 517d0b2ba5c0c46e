"""Moments of Dask arrays: the same bits for any chunks, and as from memory."""

import contextlib

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert._adata import read, sources
from tests._adata.test_read import assert_same_bits, environment_moments
from tests._screens import screen_of

pytestmark = [pytest.mark.formats, pytest.mark.brief_chain]

da = pytest.importorskip("dask.array", reason="the extra dask is not installed")

N, P = 211, 9
COLUMNS = np.array([6, 1, 8])


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(read, "_BLOCK_ENTRIES", 17 * len(COLUMNS))
    monkeypatch.setattr(read, "_CELLS_A_GROUP", 1)
    monkeypatch.setattr(sources, "_AT_ONCE", 4)


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    return np.log1p(rng.poisson(0.3, size=(N, P))) * rng.uniform(1, 2, size=(N, 1))


@pytest.fixture(scope="module")
def groups():
    return np.random.default_rng(1).integers(-1, 4, size=N)


def make(x):
    labels = pd.Categorical(np.random.default_rng(2).choice(["control", "g1", "g3"], N))
    return screen_of(x, labels)


@pytest.mark.parametrize("chunks", [(50, P), (7, 4), (N, 2), ((1, 100, 110), (3, 6))])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csr_array, sp.csc_matrix])
def test_the_same_bits_as_from_memory(form, chunks, values, groups):
    inside = environment_moments(make(form(values)), COLUMNS, groups, 4)
    if form is np.asarray:
        lazy = da.from_array(values, chunks=chunks)
    else:
        rows = chunks[0]
        dense = da.from_array(values, chunks=(rows, -1))
        lazy = dense.map_blocks(form, dtype=values.dtype, meta=form((0, 0), dtype=values.dtype))
    found = environment_moments(make(lazy), COLUMNS, groups, 4)
    assert_same_bits(found, inside)
    for g, got in enumerate(found):
        cells = values[groups == g][:, COLUMNS]
        np.testing.assert_allclose(got.mean, cells.mean(axis=0), rtol=1e-13)
        centred = cells - cells.mean(axis=0)
        np.testing.assert_allclose(got.scatter, centred.T @ centred, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_anndata_read_lazily(form, values, groups, tmp_path):
    pytest.importorskip("xarray", reason="it comes with the extra dask")
    path = tmp_path / "cells.h5ad"
    adata = make(form(values))
    adata.write_h5ad(path)
    with h5py.File(path) as file:
        lazy = ad.experimental.read_lazy(file)
        assert_same_bits(
            environment_moments(lazy, COLUMNS, groups, 4),
            environment_moments(adata, COLUMNS, groups, 4),
        )


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_from_a_lazy_file_to_a_ranking(
    kind, form, small_screen, assert_same, tmp_path, monkeypatch
):
    """Labels in a lazy obs, missing ones among them; every result as from memory, to the bit."""
    monkeypatch.setattr(read, "_BLOCK_ENTRIES", 150 * small_screen.n_vars)  # a few blocks
    pytest.importorskip("xarray", reason="it comes with the extra dask")
    small_screen.X = form(np.where(small_screen.X > 0.5, small_screen.X, 0))
    path = tmp_path / f"cells.{kind}"
    getattr(small_screen, f"write_{kind}")(path)
    with h5py.File(path) if kind == "h5ad" else contextlib.nullcontext(path) as source:
        lazy = ad.experimental.read_lazy(source)
        assert hasattr(lazy.obs["perturbation"], "to_series")
        for adata in (small_screen, lazy):
            npt.tl.learn_dag(adata, search_options={"n_runs": 5}, n_graphs=3)
            with pytest.warns(UserWarning, match=r"HS2 \(not measured\)"):
                npt.tl.fit_dag_blr(adata, shift_sd=0)
            npt.tl.design_interventions(adata, "MYC+OXR1")
    for key in ("dag", "dag_frequency", "dag_blr_mean"):
        assert_same(lazy.varp[key], small_screen.varp[key])
    for key in ("dag", "dag_blr", "design"):
        assert_same(lazy.uns[key], small_screen.uns[key])


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_results_in_a_lazy_file_are_used(kind, small_screen, assert_same, tmp_path, monkeypatch):
    monkeypatch.setattr(read, "_BLOCK_ENTRIES", 150 * small_screen.n_vars)
    pytest.importorskip("xarray", reason="it comes with the extra dask")
    npt.tl.learn_dag(small_screen, search_options={"n_runs": 5})
    with pytest.warns(UserWarning, match="HS2"):
        npt.tl.fit_dag_blr(small_screen, shift_sd=0)
    npt.tl.design_interventions(small_screen, "MYC")
    path = tmp_path / f"cells.{kind}"
    getattr(small_screen, f"write_{kind}")(path)
    with h5py.File(path) if kind == "h5ad" else contextlib.nullcontext(path) as source:
        lazy = ad.experimental.read_lazy(source)
        for adata in (small_screen, lazy):  # a second question, on what the first left in the file
            npt.tl.design_interventions(adata, "STK3")
            with pytest.warns(UserWarning, match="HS2"):
                npt.tl.fit_dag_blr(adata, shift_sd=0, key_added="again")
    assert len(lazy.uns["design"]["trace"]) == 2
    for key in ("design", "again"):
        assert_same(lazy.uns[key], small_screen.uns[key])
