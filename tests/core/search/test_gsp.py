"""GSP against the exhaustive search, with prior knowledge, and on bad input."""

import itertools

import numpy as np
import pytest

from nextpert.core import Dag, LinearScm, Moments, PriorKnowledge, boss, gsp, minimal_imap
from nextpert.core.graph.dag import Pdag
from nextpert.core.search.methods.gsp import _run
from nextpert.core.search.minimal_imap import make_tests

# A screen's worth of graphs on five nodes: collider, fork, diamond, dense, with an isolated node.
SMALL = {
    "collider": [(0, 2), (1, 2), (2, 3)],
    "fork": [(4, 0), (4, 1), (4, 2), (4, 3)],
    "diamond": [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)],
    "dense": [(a, b) for a in range(4) for b in range(a + 1, 4)] + [(3, 4), (0, 4)],
    "two parts": [(0, 1), (2, 3)],
}


def _moments(edges, seed, n_cells=200_000):
    rng = np.random.default_rng(seed)
    weights = np.zeros((5, 5))
    for parent, child in edges:
        weights[child, parent] = rng.choice([-1, 1]) * rng.uniform(0.4, 0.9)
    return Moments.from_array(LinearScm(weights, np.ones(5)).sample(n_cells, rng=rng))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("seed", range(2))
def test_finds_the_sparsest_permutation_and_the_true_class(equivalence_class, name, seed):
    moments = _moments(SMALL[name], seed)
    sparsest = min(
        minimal_imap(moments, order, alpha=1e-4).n_edges
        for order in itertools.permutations(range(5))
    )
    found = gsp(moments, alpha=1e-4, n_runs=20, rng=0)
    assert found.dag.n_edges == sparsest == min(found.n_edges)
    truth = Dag.from_edges(5, SMALL[name])
    assert equivalence_class(found.dag) == equivalence_class(truth)


def test_every_edge_is_significant_and_every_gap_is_not(simulated, p_value):
    _, moments = simulated(15, 4, seed=2)
    found = gsp(moments, n_runs=30, rng=0)
    place = np.argsort(found.order)
    for child in range(15):
        parents = found.dag.parents(child).tolist()
        assert all(place[k] < place[child] for k in parents)
        for k in parents:
            given = [other for other in parents if other != k]
            assert p_value(moments, k, child, given) < 1e-3


def test_depth_reaches_what_single_turns_do_not(simulated, monkeypatch):
    ends = {depth: [] for depth in (0, 1, 4)}
    for seed in range(6):
        _, moments = simulated(20, 6, seed=seed)
        for depth, counts in ends.items():
            monkeypatch.setattr("nextpert.core.search.methods.gsp.DEPTH", depth)
            counts.append(gsp(moments, n_runs=20, rng=0).n_edges)
    means = {depth: np.mean(counts) for depth, counts in ends.items()}
    assert means[4] < means[1] < means[0]


def test_same_result_for_any_number_of_workers(simulated):
    _, moments = simulated(36, 6, seed=0)
    one = gsp(moments, n_runs=350, rng=7)
    two = gsp(moments, n_runs=350, rng=np.random.default_rng(7), n_jobs=2)
    assert one.dag == two.dag
    assert one.best_run == two.best_run
    assert np.array_equal(one.n_edges, two.n_edges)
    assert one.n_edges[one.best_run] == one.n_edges.min() == one.dag.n_edges
    other = gsp(moments, n_runs=350, rng=8)
    assert not np.array_equal(one.n_edges, other.n_edges)


@pytest.mark.parametrize(("n_nodes", "degree", "seed"), [(20, 6, 1), (20, 6, 2), (25, 5, 2)])
def test_equals_are_told_apart_by_likelihood(simulated, n_nodes, degree, seed):
    _, moments = simulated(n_nodes, degree, seed=seed, n_cells=500)
    found = gsp(moments, n_runs=100, rng=0)
    seeds = np.random.default_rng(0).integers(0, 2**64, 100, dtype=np.uint64).tolist()
    (tests, threshold), nothing = make_tests(moments, 1e-3, None), PriorKnowledge(n_nodes)
    precision = np.linalg.inv(tests.matrix)
    fits = {}
    for run in np.flatnonzero(found.n_edges == found.n_edges.min()).tolist():
        parents = _run(tests, threshold, precision, nothing, seeds[run], None)[0]
        fits[run] = _fit(moments, Dag.from_matrix(parents.T))
    best = min(fits.values())
    assert max(fits.values()) > best + 1e-3  # there is something to tell apart
    assert _fit(moments, found.dag) == pytest.approx(best, abs=1e-6)
    assert found.best_run == next(run for run, fit in fits.items() if fit < best + 1e-6)


def _fit(moments, dag):
    total = 0.0
    scatter = moments.correlation()
    for i in range(dag.n_nodes):
        k = dag.parents(i)
        gain = scatter[i, k] @ np.linalg.solve(scatter[np.ix_(k, k)], scatter[k, i])
        total += np.log(scatter[i, i] - gain)
    return total


@pytest.mark.parametrize(("search", "n_nodes"), [(gsp, 20), (boss, 20), (boss, 70)])
@pytest.mark.parametrize("seed", range(2))
def test_prior_knowledge_is_kept(simulated, search, n_nodes, seed):
    _, moments = simulated(n_nodes, 4, seed=seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(n_nodes)
    pairs = [(order[a], order[b]) for a, b in rng.integers(0, n_nodes, (2 * n_nodes, 2)) if a < b]
    options = {"n_runs": 20} if search is gsp else {"n_starts": 2}
    free = search(moments, **options, rng=0).dag
    required = [(order[a], order[-1]) for a in range(3)]
    forbidden = [edge for edge in free.edges() if edge not in required][:5]
    prior = PriorKnowledge(n_nodes, before=pairs, required=required, forbidden=forbidden)
    found = search(moments, **options, prior=prior, rng=0)
    assert prior.allows(found.dag)
    assert prior.first_conflict(found.order) is None
    assert not prior.allows(free)


def test_no_run_turns_to_a_forbidden_edge(simulated):
    scm, moments = simulated(15, 5, seed=0, n_cells=500)
    matrix = np.zeros((15, 15), dtype=bool)
    matrix[tuple(np.transpose([edge[::-1] for edge in scm.dag.edges()]))] = True
    known = PriorKnowledge(15, forbidden=np.argwhere(matrix))
    tests, threshold = make_tests(moments, 1e-3, known)
    precision = np.linalg.inv(tests.matrix)
    for seed in range(100):
        edges = _run(tests, threshold, precision, known, seed, None)[0].T
        assert edges.any()
        assert not (edges & matrix).any()


@pytest.mark.parametrize("seed", range(6))
def test_a_direction_forbidden_keeps_the_edge_the_other_way(simulated, equivalence_class, seed):
    """Once, orders that left the edge out looked sparser, and it was lost."""
    _, moments = simulated(8, 2, seed=seed)
    free = gsp(moments, n_runs=10, rng=0).dag
    graph = Pdag.of_class(free)
    open_to = [(x, y) for x, y in free.edges() if x in graph.neighbours(y)][:3]
    if not open_to:
        pytest.skip("the cells direct every edge")
    for edge in open_to:
        prior = PriorKnowledge(8, forbidden=[edge])
        found = gsp(moments, n_runs=100, prior=prior, rng=0)
        assert prior.allows(found.dag)
        assert equivalence_class(found.dag) == equivalence_class(free)


def test_a_full_order_gives_its_pruned_imap(simulated, p_value):
    _, moments = simulated(12, 4, seed=0)
    order = np.random.default_rng(0).permutation(12)
    prior = PriorKnowledge(12, before=itertools.pairwise(order.tolist()))
    found = gsp(moments, n_runs=3, prior=prior, rng=0)
    assert found.order.tolist() == order.tolist()
    imap = set(minimal_imap(moments, order).edges())
    assert set(found.dag.edges()) <= imap
    for parent, child in imap - set(found.dag.edges()):
        others = set(found.dag.parents(child).tolist())
        assert p_value(moments, parent, child, others) > 1e-4  # near the threshold at most
    assert len(set(found.n_edges)) == 1


SEARCHES = {"boss": (boss, "n_starts"), "gsp": (gsp, "n_runs")}


@pytest.mark.parametrize("name", SEARCHES)
def test_progress_is_reported_and_the_smallest_panels_are_searched(simulated, name):
    search, n_runs = SEARCHES[name]
    seen = []
    moments = simulated(6, 2, seed=0)[1]
    search(moments, **{n_runs: 3}, rng=0, progress=lambda *so_far: seen.append(so_far))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for p in (1, 2):
        x = np.random.default_rng(0).normal(size=(100, p)).cumsum(axis=1)
        assert search(Moments.from_array(x), **{n_runs: 2}, rng=0).dag.n_edges == p - 1


@pytest.mark.parametrize("search", [boss, gsp])
def test_cells_that_allow_no_test_are_refused(search):
    x = np.random.default_rng(0).normal(size=(50, 5))
    search(Moments.from_array(x[:4]), rng=0)
    with pytest.raises(ValueError, match=r"3 cells are too few .* at least 4 .* 7 or more"):
        search(Moments.from_array(x[:3]))
    constant = np.where(np.arange(5) == 3, 2.5, x)
    for bad, columns, message in (
        (constant, [3], r"Nodes \[3\] are constant"),
        (np.column_stack([x, -2 * x[:, 1] + 7]), [1, 5], "Nodes 1 and 5 are copies"),
        (np.column_stack([x, x[:, 0] + x[:, 2]]), [0, 2, 5], "are linearly dependent"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            search(Moments.from_array(bad))
        assert caught.value.columns.tolist() == columns
