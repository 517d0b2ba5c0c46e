"""``tl.learn_dag(n_graphs=...)``: graphs of resampled cells and frequencies of their edges."""

from __future__ import annotations

import importlib

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert.core import Moments, boss
from nextpert.core.search._classes import poisson_weights


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
    # Searches without a fold of perturbations start anew, as that of all cells.
    n_folds = starts.count((2, False)) - 1
    assert n_folds > 0
    assert [each for each in starts if each != (2, False)] == [(1, True), (1, True)]
    monkeypatch.setattr(module, "_MAX_GENES_OF_OWN_START", small_screen.n_vars - 1)
    starts.clear()
    npt.tl.learn_dag(small_screen, **options)
    assert starts.count((2, False)) == 1 + n_folds
    assert [each for each in starts if each != (2, False)] == [(0, True), (0, True)]


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
