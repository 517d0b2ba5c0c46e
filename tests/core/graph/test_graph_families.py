"""Every family of random graphs has the property that names it, checked by brute force."""

from itertools import combinations

import numpy as np
import pytest

from nextpert.core import random_dag
from nextpert.core.graph.random_dag import FAMILIES


def skeleton(dag):
    matrix = dag.to_matrix().toarray().astype(bool)
    return matrix | matrix.T


def is_connected(joined):
    reach = np.eye(len(joined), dtype=bool) | joined
    return bool((np.linalg.matrix_power(reach.astype(float), len(joined)) > 0).all())


def chordless_cycles(joined):
    """Sets of four or more nodes that induce a cycle: connected, every node with two neighbours."""
    found = []
    for size in range(4, len(joined) + 1):
        for nodes in combinations(range(len(joined)), size):
            part = joined[np.ix_(nodes, nodes)]
            if (part.sum(axis=0) == 2).all() and is_connected(part):
                found.append(nodes)
    return found


def is_eliminated(joined):
    """Whether nodes whose neighbours are all joined can be taken away one by one."""
    left = list(range(len(joined)))
    while left:
        for node in left:
            near = [k for k in left if joined[node, k]]
            if all(joined[i, k] for i, k in combinations(near, 2)):
                left.remove(node)
                break
        else:
            return False
    return True


def maximal_cliques(joined):
    p = len(joined)
    cliques = [
        set(nodes)
        for size in range(1, 6)
        for nodes in combinations(range(p), size)
        if all(joined[i, k] for i, k in combinations(nodes, 2))
    ]
    return [c for c in cliques if not any(c < other for other in cliques)]


@pytest.mark.parametrize("family", FAMILIES)
def test_nodes_are_in_topological_order_and_seeds_decide(family):
    for p in (1, 2, 3, 4, 17):
        for seed in range(5):
            dag = random_dag(p, family, rng=seed)
            assert dag.n_nodes == p
            assert all(k < i for k, i in dag.edges())
            assert dag == random_dag(p, family, rng=seed)
    drawn = {tuple(random_dag(17, family, rng=seed).edges()) for seed in range(5)}
    assert len(drawn) == (1 if family in {"complete", "path", "in_star", "out_star"} else 5)


@pytest.mark.parametrize("family", ["line", "tree", "rooted_tree", "path", "in_star", "out_star"])
def test_trees_are_connected_without_a_cycle(family):
    for seed in range(20):
        dag = random_dag(11, family, rng=seed)
        joined = skeleton(dag)
        assert dag.n_edges == 10
        assert is_connected(joined)
        if family == "line":
            assert sorted(joined.sum(axis=0)) == [1, 1] + [2] * 9
        if family == "rooted_tree":
            assert sorted(dag.in_degree) == [0] + [1] * 10


@pytest.mark.parametrize("family", ["line", "tree"])
def test_edges_point_either_way(family):
    # Each pair of edges that meet in a node points into it with probability 1/4.
    into, pairs = 0, 0
    for seed in range(200):
        dag = random_dag(8, family, rng=seed)
        degree = skeleton(dag).sum(axis=0)
        into += (dag.in_degree * (dag.in_degree - 1) // 2).sum()
        pairs += (degree * (degree - 1) // 2).sum()
    assert abs(into / pairs - 0.25) < 0.03
    if family == "line":
        assert pairs == 200 * 6


@pytest.mark.parametrize("family", ["tree", "rooted_tree"])
def test_labelled_trees_are_equally_likely(family):
    # Of the 16 labelled trees of four nodes 4 are stars.
    stars = [skeleton(random_dag(4, family, rng=s)).sum(axis=0).max() == 3 for s in range(600)]
    assert abs(np.mean(stars) - 0.25) < 0.09


@pytest.mark.slow
@pytest.mark.parametrize("family", ["chordal", "clique_tree"])
def test_chordal_graphs_are_moral_and_have_no_cycle_without_a_chord(family):
    sizes = set()
    for seed in range(12):
        dag = random_dag(8, family, expected_degree=2.0, rng=seed)
        joined = skeleton(dag)
        assert is_connected(joined)
        assert chordless_cycles(joined) == []
        for i in range(8):
            assert all(joined[k, j] for k, j in combinations(dag.parents(i), 2))
        sizes.add(dag.n_edges)
        large = random_dag(40, family, rng=seed)
        assert is_eliminated(skeleton(large))
        assert all(
            skeleton(large)[k, j] for i in range(40) for k, j in combinations(large.parents(i), 2)
        )
    assert len(sizes) > 1


def test_clique_trees_are_made_of_cliques_of_three_and_four():
    seen = set()
    for seed in range(10):
        dag = random_dag(13, "clique_tree", rng=seed)
        cliques = maximal_cliques(skeleton(dag))
        sizes = [len(c) for c in cliques]
        assert max(sizes) <= 4
        assert sum(size < 3 for size in sizes) <= 1  # the last one may be cut short
        seen |= set(sizes)
        # Cliques that overlap share one or two nodes.
        assert {len(a & b) for a, b in combinations(cliques, 2)} <= {0, 1, 2}
    assert {3, 4} <= seen


def test_barabasi_albert_has_hubs_and_its_number_of_parents():
    drawn = [random_dag(60, "barabasi_albert", expected_degree=4.0, rng=s) for s in range(20)]
    for dag in drawn:
        assert dag.in_degree.tolist() == [0, 1] + [2] * 58
    equal = [random_dag(60, "erdos_renyi", expected_degree=4.0, rng=s) for s in range(20)]
    most = [np.mean([skeleton(d).sum(axis=0).max() for d in graphs]) for graphs in (drawn, equal)]
    assert most[0] > 1.5 * most[1]
    # the third node is a parent of the fourth in proportion to its neighbours plus one
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1500):
        dag = random_dag(4, "barabasi_albert", expected_degree=2.0, rng=rng)
        hits += int(skeleton(dag)[:3, :3].sum(axis=0).argmax()) in dag.parents(3)
    assert abs(hits / 1500 - 3 / 7) < 5 * np.sqrt(0.25 / 1500)
