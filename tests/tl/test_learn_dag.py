"""``tl.learn_dag``: control cells, panels and prior knowledge by name, graphs of the user's own."""

from __future__ import annotations

import importlib.util
import random
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert.core import Moments, boss, gsp, minimal_imap, random_scm
from tests._screens import edges_of, screen_of


@pytest.fixture
def many_controls(truth, small_screen):
    cells = truth.sample(5000, rng=3)
    return screen_of(cells, ["control"] * 5000, small_screen.var_names)


def test_skeleton_of_the_truth(many_controls, edges):
    npt.tl.learn_dag(many_controls)
    found = {frozenset(edge) for edge in edges_of(many_controls)}
    assert found == {frozenset(edge) for edge in edges}
    # GATA1 and STK3 both point to HLA-A, and are not joined: that collider shows in the data.
    assert {("STK3", "HLA-A"), ("GATA1", "HLA-A")} <= edges_of(many_controls)


def test_graph_of_the_controls_alone_in_the_columns_of_the_panel(small_screen):
    is_control = (small_screen.obs["perturbation"] == "control").to_numpy()
    panel = ["RIPK2", "MYC", "HLA-A", "STK3", "GATA1"]
    columns = [list(small_screen.var_names).index(gene) for gene in panel]
    cells = small_screen.X[is_control][:, columns]
    small_screen.X[~is_control] = np.nan  # must not be read
    small_screen.X[:, list(small_screen.var_names).index("CPQ")] = np.inf
    npt.tl.learn_dag(small_screen, genes=panel, search_options={"n_runs": 20}, rng=4)
    moments = Moments.from_array(cells)
    order = boss(moments, n_starts=10, rng=0).order
    wanted = gsp(moments, n_runs=20, orders=order, rng=4)
    assert edges_of(small_screen) == {(panel[k], panel[i]) for k, i in wanted.dag.edges()}
    assert wanted.dag.n_edges > 2
    stored = small_screen.uns["dag"]
    assert stored["genes"].tolist() == panel
    assert stored["n_edges"] == wanted.dag.n_edges
    assert stored["n_control_cells"] == 400
    assert stored["run_n_edges"].tolist() == wanted.n_edges.tolist()
    assert len(stored["run_n_edges"]) == 21
    place = {gene: i for i, gene in enumerate(stored["order"])}
    assert all(place[parent] < place[child] for parent, child in edges_of(small_screen))
    assert stored["params"] == {
        "method": "gsp", "n_runs": 20,
        "environments": "control", "n_graphs": 1,
        "perturbation_key": "perturbation", "control": "control", "rng": "4",
    }  # fmt: skip
    assert stored["cells_read"] == "controls"


def test_orders_turn_edges_round(many_controls):
    npt.tl.learn_dag(
        many_controls, search_options={"prior": {"before": [("UBR5", "OXR1"), ("STK3", "MYC")]}}
    )
    assert ("UBR5", "OXR1") in edges_of(many_controls)
    assert ("MYC", "STK3") not in edges_of(many_controls)
    npt.tl.learn_dag(
        many_controls, search_options={"prior": {"before": [("OXR1", "UBR5"), ("MYC", "STK3")]}}
    )
    assert {("OXR1", "UBR5"), ("MYC", "STK3")} <= edges_of(many_controls)


def test_tiers_as_lists_and_as_a_mapping(many_controls):
    tiers = [["RIPK2"], ["UBR5", "HLA-A"], ["OXR1"]]
    npt.tl.learn_dag(many_controls, search_options={"prior": {"tiers": tiers}})
    by_list = edges_of(many_controls)
    assert {("RIPK2", "OXR1"), ("UBR5", "OXR1"), ("RIPK2", "HLA-A")} <= by_list
    numbers = {gene: -5.0 + 2 * i for i, tier in enumerate(tiers) for gene in tier}
    prior = {"tiers": dict(reversed(numbers.items()))}
    npt.tl.learn_dag(many_controls, search_options={"prior": prior})
    assert edges_of(many_controls) == by_list
    with pytest.raises(ValueError, match="cycle, UBR5 -> UBR5"):
        npt.tl.learn_dag(
            many_controls, search_options={"prior": {"tiers": [["UBR5"], ["MYC", "UBR5"]]}}
        )


def test_required_and_forbidden_edges(many_controls):
    forbidden = [("MYC", "STK3"), ("STK3", "MYC")]
    prior = {"required": [("CPQ", "MYC")], "forbidden": forbidden}
    npt.tl.learn_dag(many_controls, search_options={"prior": prior})
    assert ("CPQ", "MYC") in edges_of(many_controls)
    assert not set(forbidden) & edges_of(many_controls)
    with pytest.raises(ValueError, match="CPQ -> MYC is both required and forbidden"):
        npt.tl.learn_dag(
            many_controls,
            search_options={"prior": prior | {"forbidden": [("MYC", "CPQ"), ("CPQ", "MYC")]}},
        )


def test_copies_are_named(small_screen):
    small_screen.X[:, 7] = 2 * small_screen.X[:, 3] + 1
    with pytest.raises(ValueError, match=r"^HLA-A, CPQ are copies"):
        npt.tl.learn_dag(small_screen)


def control_cells(adata):
    return adata.X[(adata.obs["perturbation"] == "control").to_numpy()]


@pytest.mark.parametrize(
    ("options", "n_runs"),
    [
        ({}, 10),
        ({"n_runs": 2}, 2),
    ],
)
def test_boss_of_the_controls(small_screen, options, n_runs):
    npt.tl.learn_dag(small_screen, method="boss", rng=4, search_options=options)
    names = list(small_screen.var_names)
    best = boss(Moments.from_array(control_cells(small_screen)), rng=4, n_starts=n_runs)
    assert edges_of(small_screen) == {(names[k], names[i]) for k, i in best.dag.edges()}
    stored = small_screen.uns["dag"]
    assert stored["score"] == pytest.approx(best.score, abs=1e-6)
    np.testing.assert_allclose(stored["run_scores"], best.scores)
    assert "run_n_edges" not in stored
    assert stored["params"] == {
        "method": "boss", "n_runs": n_runs, "perturbation_key": "perturbation",
        "control": "control", "environments": "control", "n_graphs": 1, "rng": "4",
    }  # fmt: skip


def test_boss_finds_the_truth_and_keeps_to_prior_knowledge(many_controls, edges):
    npt.tl.learn_dag(many_controls, method="boss", search_options={"n_runs": 3})
    assert {frozenset(edge) for edge in edges_of(many_controls)} == {frozenset(a) for a in edges}
    npt.tl.learn_dag(
        many_controls,
        method="boss",
        search_options={
            "n_runs": 3,
            "prior": {
                "before": [("OXR1", "UBR5"), ("STK3", "MYC")],
                "required": [("CPQ", "OXR1")],
                "forbidden": [("MYC", "GATA1")],
            },
        },
    )
    found = edges_of(many_controls)
    assert {("OXR1", "UBR5"), ("STK3", "MYC"), ("CPQ", "OXR1")} <= found
    assert ("MYC", "GATA1") not in found


def many_genes(n_genes, seed):
    truth = random_scm(n_genes, "erdos_renyi", expected_degree=6, rng=seed)
    obs = pd.DataFrame({"perturbation": ["control"] * 5000}, index=np.arange(5000).astype(str))
    names = [f"g{i}" for i in range(n_genes)]
    return truth, ad.AnnData(truth.sample(5000, rng=2), obs, pd.DataFrame(index=names))


@pytest.mark.slow
def test_gsp_is_as_sparse_as_the_order_of_boss():
    truth, adata = many_genes(70, 10)
    moments = Moments.from_array(adata.X)
    alone = gsp(moments, n_runs=20, rng=0).dag.n_edges
    with warnings.catch_warnings(action="error"):
        npt.tl.learn_dag(adata, search_options={"n_runs": 20})
    found = adata.uns["dag"]["n_edges"]
    sparse = minimal_imap(moments, boss(moments, n_starts=10, rng=0).order).n_edges
    assert truth.dag.n_edges * 0.97 < found <= sparse < alone
    true = {frozenset((f"g{k}", f"g{i}")) for k, i in truth.dag.edges()}
    assert len(true ^ {frozenset(edge) for edge in edges_of(adata)}) <= 2
    assert len(adata.uns["dag"]["run_n_edges"]) == 21


def open_edges(adata):
    edges = adata.uns["dag"]["edges"]
    assert set(zip(edges["parent"], edges["child"], strict=True)) == edges_of(adata)
    left = edges[edges["oriented_by"] == "open"]
    return set(zip(left["parent"], left["child"], strict=True))


@pytest.mark.parametrize("method", ["gsp", "boss"])
def test_edges_that_cells_do_not_direct_are_stored_and_counted(many_controls, method, caplog):
    with caplog.at_level("INFO", logger="nextpert"):
        npt.tl.learn_dag(many_controls, method=method, search_options={"n_runs": 5})
    found = open_edges(many_controls)
    assert found < edges_of(many_controls)
    assert frozenset(("MYC", "STK3")) in map(frozenset, found)
    assert not {("STK3", "HLA-A"), ("GATA1", "HLA-A")} & found  # a collider
    assert f"; {len(found)} remain unoriented" in caplog.text
    npt.tl.learn_dag(
        many_controls,
        method=method,
        search_options={"n_runs": 5, "prior": {"before": [("MYC", "STK3")]}},
    )
    assert ("MYC", "STK3") in edges_of(many_controls)
    assert ("MYC", "STK3") not in open_edges(many_controls)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gsp", "boss"])
def test_as_many_genes_as_controls_with_one_warning(method):
    """Learn, fit and diagnose 100 genes with 100 control cells and 12 perturbations."""
    truth = random_scm(100, "erdos_renyi", expected_degree=2, rng=0)
    names = [f"g{i}" for i in range(100)]
    labels, cells = ["control"] * 100, [truth.sample(100, rng=1)]
    for k in range(12):
        shift = np.zeros(100)
        shift[k] = -1.5
        labels += [names[k]] * 30
        cells.append(truth.sample(30, shift=shift, rng=k + 2))
    adata = screen_of(np.vstack(cells), labels, names)
    with pytest.warns(UserWarning, match="Only 100 control cells for 100 genes") as caught:
        npt.tl.learn_dag(adata, method=method, search_options={"n_runs": 2})
    assert [str(one.message).endswith('use method="boss".') for one in caught] == [method == "gsp"]
    assert caught[0].filename == __file__
    true = {frozenset((names[k], names[i])) for k, i in truth.dag.edges()}
    found = {frozenset(edge) for edge in edges_of(adata)}
    assert len(found & true) > (0.35 if method == "gsp" else 0.7) * len(true)
    npt.tl.fit_dag_blr(adata)
    npt.tl.diagnose(adata)


BAD = [
    ({"environments": "some"}, "environments must be 'control' or 'all', but is 'some'"),
    ({"environments": "all"}, 'environments="all" needs method="boss"'),
    (
        {"search_options": {"prior": {"require": []}}},
        r"search_options\['prior'\] takes .*, but holds require\. Close matches: required",
    ),
    ({"method": "boss", "search_options": {"n_runs": 0}}, "n_starts|n_runs"),
    (
        {"search_options": {"prior": {"perturbation_targets": "known"}}},
        'needs environments="all"',
    ),
    ({"search_options": {"n_run": 1}}, "n_run.* matches: n_runs"),
    ({"n_graphs": 0}, "n_graphs"),
    ({"n_graphs": 2.5}, "n_graphs"),
    ({"method": "given", "dag": [("MYC", "STK3")], "n_graphs": 3}, "applies only to learned"),
    ({"method": "causaldag", "search_options": {"prior": {"before": []}}}, "not support prior"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options(options, message, small_screen, assert_same_adata):
    before = small_screen.copy()
    with pytest.raises(ValueError, match=message):
        npt.tl.learn_dag(small_screen, **options)
    assert_same_adata(small_screen, before)


def test_causaldag_is_asked_for_where_it_is_absent(small_screen, assert_same_adata, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "graphical_model_learning", None)
    before = small_screen.copy()
    with pytest.raises(ImportError, match=r"nextpert\[causaldag\]"):
        npt.tl.learn_dag(small_screen, method="causaldag")
    assert_same_adata(small_screen, before)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("graphical_model_learning") is None,
    reason="the extra causaldag is not installed",
)
def test_causaldag_finds_the_skeleton_and_leaves_the_global_generators(many_controls, edges):
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    npt.tl.learn_dag(many_controls, method="causaldag", search_options={"n_runs": 10})
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # noqa: NPY002
    assert {frozenset(edge) for edge in edges_of(many_controls)} == {frozenset(a) for a in edges}
    assert many_controls.uns["dag"]["params"]["method"] == "causaldag"
