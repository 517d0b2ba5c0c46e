"""``tl.learn_dag(environments="all")``: perturbed cells, batches, conditions and covariates."""

import threading

import anndata as ad
import joblib
import numpy as np
import pytest

import nextpert as npt
from nextpert._adata.roles import fitted_roles, read_roles
from nextpert._adata.screen import read_environments, screen_moments
from nextpert._adata.stored import with_format
from nextpert.core import LinearScm
from nextpert.core.search import context as context_module
from nextpert.core.search.context import Joint
from nextpert.study import searches as graphs
from nextpert.study.context_nodes import _distinguishable, _joined, context_nodes, target_table
from nextpert.study.prior import read_stored_targets
from nextpert.tl._read_graphs import read_held_out
from tests._screens import edges_of, screen_of

GENES = ["A", "B", "C", "D"]
WEIGHTS = np.zeros((4, 4))
WEIGHTS[1, 0], WEIGHTS[2, 1], WEIGHTS[3, 2] = 0.8, -0.7, 0.9  # A -> B -> C -> D


@pytest.fixture
def chain():
    """A chain, whose controls leave all directions open: knockouts, an enhancer, a double."""
    rng = np.random.default_rng(0)
    scm = LinearScm(WEIGHTS, np.ones(4))
    shifts = {
        "control": [0, 0, 0, 0], "A": [-1.5, 0, 0, 0], "enh": [0, 0, -1.5, 0],
        "A+D": [-1.5, 0, 0, 2], "D": [0, 0, 0, 2],
    }  # fmt: skip
    n = {"control": 1500}
    x = [scm.sample(n.get(k, 300), shift=np.array(s, float), rng=rng) for k, s in shifts.items()]
    labels = np.repeat(list(shifts), [n.get(k, 300) for k in shifts])
    return screen_of(np.vstack(x) + 5, labels, GENES)


def table(adata, columns=("perturbation", "gene")):
    rows = adata.uns["dag"]["direct_targets"]
    return set(rows[list(columns)].itertuples(index=False, name=None))


def test_directions_and_direct_targets(chain):
    npt.tl.learn_dag(chain, method="boss", environments="all")
    assert edges_of(chain) == {("A", "B"), ("B", "C"), ("C", "D")}
    stored = chain.uns["dag"]
    assert set(stored["edges"]["oriented_by"]) == {"interventions"}
    assert table(chain) == {("A", "A"), ("D", "D"), ("enh", "C")}  # the double is its members
    assert (stored["n_control_cells"], stored["n_cells"]) == (1500, 2700)
    npt.tl.learn_dag(chain, method="boss")
    assert set(chain.uns["dag"]["edges"]["oriented_by"]) == {"open"}
    assert "direct_targets" not in chain.uns["dag"]


@pytest.mark.parametrize(("environments", "n"), [("control", 3), ("all", 1)])
def test_three_cells_are_refused(chain, environments, n):
    few = chain[np.r_[:n, 1500 : 1500 + 3 - n]].copy()
    with pytest.raises(ValueError, match=r"^3 cells are too few to learn a graph: at least 4"):
        npt.tl.learn_dag(few, method="boss", environments=environments)


def test_tiers_put_targets_upstream(chain):
    prior = {"tiers": [["A", "D"], ["B", "C"]]}
    npt.tl.learn_dag(chain, method="boss", search_options={"prior": prior})
    assert set(chain.uns["dag"]["order"][:2]) == {"A", "D"}


@pytest.mark.parametrize("environments", ["control", "all"])
def test_batches_are_taken_out(chain, environments):
    """Batches of sd 1 on every gene, crossed: as without them, where ignoring them is far off."""
    rng = np.random.default_rng(1)
    clean = chain.copy()
    batches = rng.integers(0, 5, chain.n_obs)
    chain.obs["plate"] = batches.astype(str)
    chain.obs["donor"] = rng.integers(0, 2, chain.n_obs)
    chain.X += rng.normal(size=(5, 4))[batches] + rng.normal(size=(2, 4))[chain.obs["donor"]]
    npt.tl.learn_dag(clean, method="boss", environments=environments)
    npt.tl.learn_dag(chain, method="boss", environments=environments, key_added="ignored")
    npt.pp.setup_screen(chain, batch_key=["plate", "donor"])
    npt.tl.learn_dag(chain, method="boss", environments=environments)
    assert edges_of(chain) == edges_of(clean)
    assert edges_of(chain, "ignored") != edges_of(clean)
    assert chain.uns["dag"]["params"]["batch_key"].tolist() == ["plate", "donor"]


def test_batches_of_gsp_are_centred_as_by_hand(chain):
    rng = np.random.default_rng(1)
    batch = rng.integers(0, 3, chain.n_obs)
    chain.X += rng.normal(size=(3, 4))[batch]
    chain.obs["plate"] = batch.astype(str)
    by_hand = chain.copy()
    controls = (chain.obs["perturbation"] == "control").to_numpy()
    for level in range(3):
        by_hand.X[controls & (batch == level)] -= by_hand.X[controls & (batch == level)].mean(0)
    npt.pp.setup_screen(chain, batch_key="plate")
    npt.tl.learn_dag(chain, search_options={"n_runs": 10})
    npt.tl.learn_dag(by_hand, search_options={"n_runs": 10})
    assert edges_of(chain) == edges_of(by_hand)


def test_conditions_and_covariates_are_nodes(chain):
    rng = np.random.default_rng(2)
    depth, drug = rng.normal(size=chain.n_obs), rng.integers(0, 2, chain.n_obs)
    chain.obs["depth"] = depth
    chain.obs["drug"] = np.where(drug, "yes", "no")
    chain.X += np.outer(depth, [1, 1, 1, 1]) + np.outer(drug, [0, 0, 0, 2])
    npt.pp.setup_screen(chain, covariates=["depth", "drug"])
    npt.tl.learn_dag(chain, method="boss", environments="all")
    assert edges_of(chain) == {("A", "B"), ("B", "C"), ("C", "D")}
    assert {row for row in table(chain) if row[0] == "depth"} == {("depth", g) for g in GENES}
    assert {row for row in table(chain) if row[0] == "drug=yes"} == {("drug=yes", "D")}
    npt.tl.learn_dag(chain, search_options={"n_runs": 10})  # the tests of GSP hold them fixed
    assert {frozenset(edge) for edge in edges_of(chain)} == {
        frozenset(edge) for edge in [("A", "B"), ("B", "C"), ("C", "D")]
    }


def test_a_perturbation_that_a_batch_explains_is_named(chain, caplog):
    chain.obs["plate"] = np.where(chain.obs["perturbation"] == "enh", "p2", "p1")
    npt.pp.setup_screen(chain, batch_key="plate")
    npt.tl.learn_dag(chain, method="boss", environments="all")
    assert "Left out of the search: enh." in caplog.text
    assert "enh" not in {name for name, _ in table(chain)}


def test_frequencies_go_with_their_node_where_a_batch_explains_another(chain):
    chain.obs["plate"] = np.where(chain.obs["perturbation"].isin(["A", "A+D"]), "p2", "p1")
    npt.pp.setup_screen(chain, batch_key="plate")
    npt.tl.learn_dag(chain, method="boss", environments="all", n_graphs=5)
    frequency = chain.uns["dag"]["direct_targets"].set_index(["perturbation", "gene"])["frequency"]
    assert frequency[("D", "D")] == frequency[("enh", "C")] == 1.0
    assert "A" not in frequency


def test_a_target_of_half_the_graphs_is_shown():
    frequency = np.array([[1.0, 0.5], [0.4, 0.0]])
    edges = np.array([[True, False], [False, False]])
    rows = target_table(["P", "Q"], ["A", "B"], edges, frequency)
    assert rows.to_numpy().tolist() == [["P", "A", 1.0], ["P", "B", 0.5]]
    assert len(target_table(["P", "Q"], ["A", "B"], edges, None)) == 1


def test_members_that_are_always_set_together_are_one_node():
    sets = {"P+Q": ["P", "Q"], "P+Q+R": ["P", "Q", "R"], "R": ["R"]}
    assert _distinguishable(sets) == sets
    alike = np.array([[0.0, 0, 0], [1, 1, 0], [1, 1, 1]])
    names, columns = _joined(["P", "Q", "R"], alike)
    assert names == [["P", "Q"], ["R"]]
    np.testing.assert_array_equal(columns, alike[:, [0, 2]])


def test_adjacency_counts_both_directions(chain):
    npt.tl.learn_dag(chain, search_options={"n_runs": 2}, n_graphs=8)
    edges = chain.uns["dag"]["edges"]
    share = chain.varp["dag_frequency"]
    for row in edges.itertuples():
        k, i = GENES.index(row.parent), GENES.index(row.child)
        assert row.frequency == share[k, i]
        assert row.adjacency == share[k, i] + share[i, k]
    assert (edges["frequency"] < edges["adjacency"]).any()


def test_combinations_stand_for_members_that_cannot_be_distinguishable(chain):
    labels = chain.obs["perturbation"].replace({"A": "P+Q", "enh": "Q+R", "A+D": "R+S"})
    chain.obs["perturbation"] = labels  # three combinations of four members; D as before
    npt.tl.learn_dag(chain, method="boss", environments="all")
    assert table(chain) == {("P+Q", "A"), ("Q+R", "C"), ("R+S", "A"), ("R+S", "D"), ("D", "D")}
    chain.obs["perturbation"] = labels.replace({"D": "Q"})  # now all four are
    npt.tl.learn_dag(chain, method="boss", environments="all")
    assert {name for name, _ in table(chain)} <= {"P", "Q", "R", "S"}


def test_guides_that_scatter_are_not_taken_for_direct_targets(chain):
    rng = np.random.default_rng(1)
    label = chain.obs["perturbation"].astype(str)
    chain.obs["guide"] = [f"{a}_{rng.integers(6)}" for a in label]
    codes = chain.obs["guide"].astype("category").cat.codes.to_numpy()
    chain.X = chain.X + 0.25 * rng.normal(size=(codes.max() + 1, 4))[codes]
    found = []
    for guide_key in (None, "guide"):
        npt.pp.setup_screen(chain, guide_key=guide_key)
        npt.tl.learn_dag(chain, method="boss", environments="all")
        found.append(table(chain))
    true = {("A", "A"), ("enh", "C"), ("D", "D")}
    assert true <= found[0]
    assert true <= found[1]
    assert len(found[1]) < len(found[0])
    assert len(found[1] - true) <= 2


def known(targets="known", **others):
    options = {"prior": {"perturbation_targets": targets}}
    return {"method": "boss", "environments": "all", "search_options": options} | others


def test_known_targets_are_the_genes_that_labels_name(chain):
    """The enhancer, which names no gene, is free; B's guide does nothing and has its edge."""
    label = chain.obs["perturbation"].astype(str).to_numpy()
    label[np.flatnonzero(label == "control")[:100]] = "B"
    chain.obs["perturbation"] = label
    npt.tl.learn_dag(chain, method="boss", environments="all")
    assert table(chain) == {("A", "A"), ("D", "D"), ("enh", "C")}
    assert "perturbation_targets" not in chain.uns["dag"]
    npt.tl.learn_dag(chain, **known())
    assert table(chain) == {("A", "A"), ("B", "B"), ("D", "D"), ("enh", "C")}
    assert edges_of(chain) == {("A", "B"), ("B", "C"), ("C", "D")}
    stored = chain.uns["dag"]
    assert stored["perturbation_targets"].to_numpy().tolist() == [
        ["A", "A"],
        ["B", "B"],
        ["D", "D"],
    ]


def test_targets_in_a_table(chain):
    npt.tl.learn_dag(chain, **known({"enh": ["B", "C"], "A": "A"}), n_graphs=4)
    assert {row for row in table(chain) if row[0] != "D"} == {
        ("A", "A"),
        ("enh", "B"),
        ("enh", "C"),
    }
    share = chain.uns["dag"]["direct_targets"].set_index(["perturbation", "gene"])["frequency"]
    assert share[("enh", "B")] == 1.0  # in every bootstrap graph
    npt.tl.learn_dag(chain, **known({"enh": []}))
    assert "enh" not in {name for name, _ in table(chain)}
    told = chain.uns["dag"]["perturbation_targets"]
    assert told.to_numpy().tolist() == [["enh", ""]]
    assert read_stored_targets(chain.uns["dag"]) == {"enh": ()}


def test_targets_of_members_and_conditions(chain):
    """A combination that is one node acts on the targets of its members, if all are known."""
    drug = np.random.default_rng(2).integers(0, 2, chain.n_obs)
    chain.obs["drug"] = np.where(drug, "yes", "no")
    chain.X[drug == 1] += [0, 0, 0, 2]
    chain.obs["perturbation"] = chain.obs["perturbation"].replace({"A+D": "P+Q"})
    npt.pp.setup_screen(chain, covariates=["drug"])
    npt.tl.learn_dag(chain, **known({"P": "A", "Q": "D", "drug=yes": ["C", "D"]}))
    rows = table(chain)
    assert {gene for name, gene in rows if name == "P+Q"} == {"A", "D"}
    assert {gene for name, gene in rows if name == "drug=yes"} == {"C", "D"}
    npt.tl.learn_dag(chain, **known({"P": "B"}))  # of Q nothing is known
    assert {gene for name, gene in table(chain) if name == "P+Q"} == {"A", "D"}
    npt.tl.learn_dag(chain, **known({"Q + P": "B"}))
    assert {gene for name, gene in table(chain) if name == "P+Q"} == {"B"}


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ({"enhh": ["C"]}, "names enhh, which is not a perturbation .* Close matches: enh"),
        ({"enh": ["CC"]}, r"\['enh'\] names genes outside the panel: CC. Close matches: C"),
        ({"D+A": ["D"]}, r"combination A\+D, which acts through .* targets of A, D instead"),
        ({"control": ["A"]}, "names control, which is not a perturbation"),
        ({"A+enh": "A", "enh + A": "A"}, "more than once"),
    ],
)
def test_wrong_targets_are_named(chain, targets, said):
    with pytest.raises(ValueError, match=said):
        npt.tl.learn_dag(chain, **known(targets))
    assert "dag" not in chain.uns


def test_graphs_without_a_perturbation_know_the_targets(chain, tmp_path):
    """Those that a fit and the diagnosis search anew, of whichever labels are left."""
    npt.tl.learn_dag(chain, **known({"A": "A", "enh": ["B"]}))
    chain.write_h5ad(tmp_path / "chain.h5ad")
    stored = ad.read_h5ad(tmp_path / "chain.h5ad")
    roles = fitted_roles(stored, stored.uns["dag"]["params"])
    held_out = read_held_out(stored, "dag", roles, GENES, np.arange(4), ["A"], "")
    assert held_out.targets == {"A": ("A",), "enh": ("B",)}
    rest = held_out.environments.only(["control", "enh", "D"])
    context = context_nodes(rest, GENES, held_out.targets)
    assert {context.names[k]: nodes for k, nodes in context.targets.items()} == {"enh": [1]}


def test_known_targets_go_with_their_node_where_a_batch_explains_another(chain):
    chain.obs["plate"] = np.where(chain.obs["perturbation"].isin(["A", "A+D"]), "p2", "p1")
    npt.pp.setup_screen(chain, batch_key="plate")
    npt.tl.learn_dag(chain, **known({"A": "A", "D": ["B"], "enh": ["C", "D"]}))
    assert table(chain) == {("D", "B"), ("enh", "C"), ("enh", "D")}


def test_graphs_of_folds_know_the_targets(chain, monkeypatch):
    seen, real = [], graphs.search

    def record(joint, *rest, **more):
        seen.append({joint.names[k]: nodes for k, nodes in joint.targets.items()})
        return real(joint, *rest, **more)

    monkeypatch.setattr(graphs, "search", record)
    npt.tl.learn_dag(chain, **known({"A": ["A", "B"]}))
    assert {"A": [0, 1]} in seen
    assert all(told in ({}, {"A": [0, 1]}) for told in seen)


def test_cells_of_weak_perturbations_have_a_mean_of_their_own(monkeypatch):
    """Beyond the number of nodes that a search takes: as by least squares on the cells."""
    monkeypatch.setattr(context_module, "_MAX_CONTEXT_NODES", 2)
    real, n_columns = context_module.context_moments, []

    def record(screen, columns, **options):
        n_columns.append(columns.shape[1])
        return real(screen, columns, **options)

    monkeypatch.setattr(context_module, "context_moments", record)
    rng = np.random.default_rng(0)
    group = rng.integers(0, 6, 900)
    x = rng.normal(size=(900, 3)) + np.array([0.0, 0.1, 3.0, 0.2, -2.0, 0.1])[group, None]
    adata = screen_of(x, np.array(["control", *"PQRST"])[group], list("ABC"))
    environments = read_environments(adata, read_roles(adata))
    screen = screen_moments(adata, np.arange(3), environments)
    joint = Joint.of(screen, 3, context_nodes(environments, list("ABC")))
    assert joint.names == ["Q", "S"]
    assert n_columns[:3] == [2, 2, 1]  # the shares of five nodes, at most two at once
    fixed = np.column_stack([np.ones(900), *(group == k for k in (1, 3, 5))])
    nodes = np.column_stack([x, group == 2, group == 4])
    left = nodes - fixed @ np.linalg.lstsq(fixed, nodes)[0]
    np.testing.assert_allclose(joint.moments.scatter, left.T @ left, atol=1e-6)
    npt.tl.learn_dag(adata, method="boss", environments="all")
    assert set(adata.uns["dag"]["direct_targets"]["perturbation"]) == {"Q", "S"}


def test_the_graphs_of_a_fit_run_where_joblib_is_configured_to(chain, monkeypatch):
    npt.tl.learn_dag(chain, method="boss", environments="all")
    threads, real = set(), graphs.search

    def record(*given, **more):
        threads.add(threading.get_ident())
        return real(*given, **more)

    monkeypatch.setattr(graphs, "search", record)
    # As a version wrote it that stored no graphs of folds.
    parts = set(chain.uns["dag"]) - {"held_out", "format", "contents"}
    chain.uns["dag"] = with_format({name: chain.uns["dag"][name] for name in sorted(parts)})
    alone = npt.tl.fit_dag_blr(chain, copy=True)
    assert threads == {threading.get_ident()}
    two = npt.tl.fit_dag_blr(chain, n_jobs=2, copy=True)
    assert len(threads) > 1
    assert two.uns["dag_blr"]["digest"] == alone.uns["dag_blr"]["digest"]
    threads.clear()
    with joblib.parallel_config("threading", n_jobs=2):
        npt.tl.fit_dag_blr(chain)
    assert len(threads) > 1
    assert chain.uns["dag_blr"]["digest"] == alone.uns["dag_blr"]["digest"]
