"""The graphs of resamples in fit and design, against one graph at a time."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert import core
from nextpert._adata import posterior_from, read_graph, read_graphs
from nextpert._adata.graph import graphs_record
from nextpert._adata.stored import with_format
from nextpert.core._codec import pack
from nextpert.core.design.distances import states_of
from nextpert.study.ranking import candidates_of
from tests._screens import with_fit

pytestmark = pytest.mark.filterwarnings("ignore:Perturbations left out")
N_GRAPHS = 6


@pytest.fixture
def many(small_screen):
    options = {"method": "boss", "environments": "all", "search_options": {"n_runs": 1}, "rng": 0}
    npt.tl.learn_dag(small_screen, **options, n_graphs=N_GRAPHS)
    npt.tl.fit_dag_blr(small_screen, shift_sd=0)
    return small_screen


@pytest.fixture
def torn(many):
    """The same with graphs that contradict one another: as learned, turned round, and empty."""
    edges = read_graph(many, "dag")[2].to_matrix().toarray()
    graphs = [sp.csr_array(each) for each in (edges, edges.T, 0 * edges)]
    stored = {k: v for k, v in many.uns["dag"].items() if k not in ("format", "contents")}
    many.uns["dag"] = with_format({**stored, "graphs": pack(graphs_record(graphs))})
    npt.tl.fit_dag_blr(many, shift_sd=0)
    return many


def graphs_of(adata):
    genes, _, dag = read_graph(adata, "dag")
    return read_graphs(adata, "dag", genes, dag)


def alone(adata):
    """The same screen with the graph of all cells only."""
    other = adata.copy()
    return with_fit(other, read_graph(adata, "dag")[2], genes=None, shift_sd=0)


def test_graphs_are_read_back_as_they_were_counted(many):
    share = sum(g.to_matrix().toarray() for g in graphs_of(many)) / N_GRAPHS
    np.testing.assert_allclose(many.varp["dag_frequency"].toarray(), share, atol=1e-12)
    assert ((share > 0) & (share < 1)).any()


def test_every_graph_is_fitted_as_if_it_were_the_only_one(many):
    fit, graphs = posterior_from(many), graphs_of(many)
    assert len(fit.ensemble) == len(graphs) == N_GRAPHS
    for found, graph in zip(fit.ensemble, graphs, strict=True):
        other = many.copy()
        other.varp["one"] = graph.to_matrix()
        npt.tl.fit_dag_blr(other, shift_sd=0, dag_key="one", key_added="one_blr")
        wanted = posterior_from(other, "one_blr")
        assert not wanted.ensemble
        assert np.array_equal(found.mean().toarray(), wanted.posterior.mean().toarray())
        assert np.array_equal(found.noise_var, wanted.posterior.noise_var)
    one = alone(many)
    assert "ensemble" not in one.uns["dag_blr"]
    assert (one.varp["dag_blr_mean"] != many.varp["dag_blr_mean"]).nnz == 0


def test_a_graph_changed_by_hand_stands_alone(many):
    matrix = many.varp["dag"].copy().tolil()
    parent, child = many.varp["dag"].nonzero()
    matrix[parent[0], child[0]] = 0
    many.varp["dag"] = matrix.tocsr()
    with pytest.warns(UserWarning, match="bootstrap graphs are not used"):
        npt.tl.fit_dag_blr(many, shift_sd=0)
    assert not posterior_from(many).ensemble


def designed(adata, target="MYC", **options):
    npt.tl.design_interventions(adata, target, candidates="genes", **options)
    stored = adata.uns["design"]
    return candidates_of(stored["ranking"]).set_index("perturbation").sort_index(), stored


@pytest.mark.parametrize("acquisition", ["civ", "civ_ow", "cv"])
def test_a_design_ranks_by_the_variance_over_graphs(torn, acquisition):
    table, stored = designed(torn, acquisition=acquisition)
    fit, target = posterior_from(torn), stored["target_mean"]
    shifts = stored["shifts"].toarray()
    asked = core.Candidates(fit.ensemble, shifts, target, n_cells=100, noise_aware=True)
    values, removed = core.find_acquisition(acquisition).of_candidates(asked)
    ranking = candidates_of(stored["ranking"])
    np.testing.assert_allclose(ranking["acquisition"], values, rtol=1e-10)
    np.testing.assert_allclose(ranking["variance_reduction"], removed, rtol=1e-8)
    alone_table, _ = designed(alone(torn), acquisition=acquisition)
    assert (table["acquisition"] > alone_table["acquisition"]).all()
    assert stored["params"]["n_graphs"] == 3


@pytest.mark.slow
def test_distances_hold_what_is_not_known_of_the_graph(torn):
    means = torn.X[(torn.obs["perturbation"] == "MYC").to_numpy()].mean(axis=0)
    goal = dict(zip(torn.var_names, means, strict=True))  # as given, so known without error
    ensemble, stored = designed(torn, goal, n_samples=3000, acquisition="greedy")
    one, _ = designed(alone(torn), goal, n_samples=3000, acquisition="greedy")
    assert not np.array_equal(ensemble["acquisition"], one["acquisition"])
    ranking, shifts = candidates_of(stored["ranking"]), stored["shifts"].toarray()
    fits = posterior_from(torn).ensemble
    alone_each = [
        core.ranked_distance(states_of(blr, shifts), stored["target_mean"], n_samples=3000, rng=1)
        for blr in fits
    ]
    # Quantiles of the draws of all graphs together.
    draws = np.vstack([found.draws[:, :-1] for found in alone_each])
    median, high = np.quantile(draws, [0.5, 0.95], axis=0)
    np.testing.assert_allclose(ranking["predicted_distance"], median, rtol=0.1)
    np.testing.assert_allclose(ranking["predicted_high"], high, rtol=0.1)
    means = np.array([found.mean[:-1] for found in alone_each])
    assert (means.var(axis=0) > 0.3 * draws.var(axis=0)).any()
