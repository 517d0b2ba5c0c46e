"""``tl.learn_dag(n_graphs=...)``: graphs of resampled cells and frequencies of their edges."""

from __future__ import annotations

import importlib
import os
import signal

import anndata as ad
import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert.core import Moments, boss
from nextpert.core.search._classes import poisson_weights
from nextpert.tl._learn_dag import graphs


def control_cells(adata):
    return adata.X[(adata.obs["perturbation"] == "control").to_numpy()]


@pytest.mark.slow
def test_frequencies_are_those_of_the_control_cells(small_screen):
    controls = (small_screen.obs["perturbation"] == "control").to_numpy()
    panel = ["RIPK2", "MYC", "HLA-A", "STK3"]
    columns = [list(small_screen.var_names).index(gene) for gene in panel]
    cells = small_screen.X[:, columns]
    generator = np.random.default_rng(3)
    order = boss(Moments.from_array(cells[controls]), n_starts=2, rng=generator).order
    seeds = generator.integers(0, 2**64, 25, dtype=np.uint64)
    wanted = np.zeros((4, 4))
    for seed, stream in zip(seeds, generator.spawn(25), strict=True):
        weights = poisson_weights(np.array([seed]), np.arange(small_screen.n_obs))[0] * controls
        moments = Moments.from_array(np.repeat(cells, weights, axis=0))
        wanted += boss(moments, orders=order, rng=stream).dag.to_matrix().toarray() / 25
    small_screen.X[~controls] = np.nan
    options = {"genes": panel, "method": "boss", "search_options": {"n_runs": 2}, "rng": 3}
    npt.tl.learn_dag(small_screen, **options, key_added="alone")
    npt.tl.learn_dag(small_screen, **options, n_graphs=25)
    assert (small_screen.varp["dag"] != small_screen.varp["alone"]).nnz == 0
    found = small_screen.varp["dag_frequency"].toarray()
    np.testing.assert_allclose(found[np.ix_(columns, columns)], wanted, atol=1e-12)
    assert found.sum() == pytest.approx(wanted.sum())  # nothing outside the panel
    assert ((wanted > 0) & (wanted < 1)).any()
    assert small_screen.uns["dag"]["frequency_key"] == "dag_frequency"
    assert small_screen.uns["dag"]["params"]["n_graphs"] == 25
    assert "alone_frequency" not in small_screen.varp


@pytest.mark.parametrize("kind", ["csr", "csc", "view", "backed", "zarr"])
def test_frequencies_are_the_same_however_cells_are_stored(kind, small_screen, tmp_path):
    options = {"method": "boss", "search_options": {"n_runs": 1}, "n_graphs": 15, "key_added": "g"}
    npt.tl.learn_dag(small_screen, **options)
    other = small_screen.copy()
    if kind == "view":  # the same cells in the same order, out of a matrix in another order
        mixed = np.random.default_rng(0).permutation(other.n_obs)
        other = other[mixed].copy()[np.argsort(mixed)]
    elif kind in ("backed", "zarr"):
        other.X = sp.csr_matrix(other.X)
        getattr(other, "write_h5ad" if kind == "backed" else "write_zarr")(tmp_path / "cells")
        read = {"backed": lambda path: ad.read_h5ad(path, backed="r"), "zarr": ad.read_zarr}[kind]
        other = read(tmp_path / "cells")
        assert np.array_equal(  # what was written survives
            other.varp["g_frequency"].toarray(), small_screen.varp["g_frequency"].toarray()
        )
        assert other.varp["g_frequency"].format == "csr"
        assert other.uns["g"]["frequency_key"] == "g_frequency"
    else:
        other.X = getattr(sp, f"{kind}_matrix")(other.X)
    npt.tl.learn_dag(other, **options)
    first, again = (a.varp["g_frequency"].toarray() for a in (small_screen, other))
    assert ((first > 0) & (first < 1)).any()
    assert np.array_equal(first, again)


@pytest.mark.slow
def test_strong_edges_are_frequent_and_absent_ones_rare(truth, small_screen, graph):
    obs = pd.DataFrame({"perturbation": ["control"] * 5000}, index=np.arange(5000).astype(str))
    many_controls = ad.AnnData(truth.sample(5000, rng=3), obs, small_screen.var)
    npt.tl.learn_dag(many_controls, search_options={"n_runs": 10}, n_graphs=40)
    found = many_controls.varp["dag_frequency"].toarray()
    names = list(many_controls.var_names)
    joined = graph.to_matrix().toarray() + graph.to_matrix().toarray().T > 0
    assert (found + found.T)[joined].min() >= 0.95
    assert (found + found.T)[~joined].max() <= 0.4
    assert (found + found.T)[~joined].mean() <= 0.1
    for parent in ("STK3", "GATA1"):  # the collider
        assert found[names.index(parent), names.index("HLA-A")] >= 0.9


def test_frequencies_go_with_the_graph_they_are_of(small_screen, assert_same_adata):
    options = {"method": "boss", "search_options": {"n_runs": 1}}
    npt.tl.learn_dag(small_screen, **options, n_graphs=2)
    before = small_screen.copy()
    written = npt.tl.learn_dag(small_screen, **options, copy=True)
    assert_same_adata(small_screen, before)
    assert set(written.varp) == {"dag"}
    assert "frequency_key" not in written.uns["dag"]
    small_screen.varp["other_frequency"] = np.ones((8, 8))  # not ours
    npt.tl.learn_dag(small_screen, method="given", dag=[("MYC", "STK3")])
    npt.tl.learn_dag(small_screen, **options, key_added="other")
    assert set(small_screen.varp) == {"dag", "other", "other_frequency"}


@pytest.mark.processes
def test_same_for_any_number_of_workers(small_screen):
    for method in ("boss", "gsp"):
        found = []
        for n_jobs in (1, 2):
            npt.tl.learn_dag(
                small_screen, method=method, search_options={"n_runs": 4}, n_jobs=n_jobs, n_graphs=6
            )
            found.append([small_screen.varp[key].toarray() for key in ("dag", "dag_frequency")])
        assert np.array_equal(found[0], found[1])


def test_a_gene_seen_in_one_cell_has_no_edges_where_that_is_not_drawn(small_screen):
    controls = np.flatnonzero(small_screen.obs["perturbation"] == "control")
    small_screen.X[controls, 6] = 0
    small_screen.X[controls[9], 6] = 1
    npt.tl.learn_dag(small_screen, method="boss", search_options={"n_runs": 2}, n_graphs=20)
    frequency = small_screen.varp["dag_frequency"]
    assert frequency[[6]].sum() + frequency[:, [6]].sum() < 14  # two thirds of the resamples
    assert frequency.sum() > 5


def test_graphs_are_stored_whole(small_screen, tmp_path):
    npt.tl.learn_dag(small_screen, method="boss", environments="all", n_graphs=7)
    small_screen.write_h5ad(tmp_path / "screen.h5ad")
    stored = ad.read_h5ad(tmp_path / "screen.h5ad").uns["dag"]["graphs"]
    graphs = sp.csr_array(
        (np.ones(len(stored["indices"])), stored["indices"], stored["indptr"]), shape=(7 * 8, 8)
    )
    mean = sum(graphs[8 * k : 8 * (k + 1)] for k in range(7)) / 7
    assert stored["n_graphs"] == 7
    np.testing.assert_allclose(mean.toarray(), small_screen.varp["dag_frequency"].toarray())


@pytest.mark.processes
def test_a_killed_worker_changes_no_graph(small_screen, monkeypatch):
    """With joblib's processes: what is finished is kept, the rest is computed here."""
    options = {"method": "boss", "search_options": {"n_runs": 1}, "n_graphs": 6}
    npt.tl.learn_dag(small_screen, **options)
    expected = small_screen.uns["dag"]["graphs"]
    parent, search = os.getpid(), graphs._resampled

    def killed(*task):
        if os.getpid() != parent and task[3].bit_generator.seed_seq.spawn_key[-1] % 6 == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return search(*task)

    monkeypatch.setattr(graphs, "_resampled", killed)
    with (
        joblib.parallel_config("loky"),
        pytest.warns(UserWarning, match="A worker was killed.*finished tasks are kept"),
    ):
        npt.tl.learn_dag(small_screen, **options, n_jobs=2)
    found = small_screen.uns["dag"]["graphs"]
    for part in ("indptr", "indices"):
        np.testing.assert_array_equal(found[part], expected[part])


def test_resamples_of_many_genes_start_from_the_order_of_all_cells_alone(small_screen, monkeypatch):
    starts = []

    def spied(cells, **options):
        starts.append((options["n_starts"], options["orders"] is not None))
        return boss(cells, **options)

    module = importlib.import_module("nextpert.core.search.methods.boss")
    monkeypatch.setattr(module, "boss", spied)
    options = {
        "method": "boss",
        "environments": "all",
        "search_options": {"n_runs": 2},
        "n_graphs": 2,
    }
    npt.tl.learn_dag(small_screen, **options)
    monkeypatch.setattr(module, "_MOST_GENES", small_screen.n_vars - 1)
    npt.tl.learn_dag(small_screen, **options)
    assert starts == [(2, False), (1, True), (1, True), (2, False), (0, True), (0, True)]
