"""Graphs: order, cycles, duplicates and every way in and out."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from nextpert.core import CycleError, Dag


def random_edges(p, seed, share=0.4):
    rng = np.random.default_rng(seed)
    order = rng.permutation(p)
    pairs = [(int(order[k]), int(order[i])) for i in range(p) for k in range(i)]
    return [pair for pair in pairs if rng.random() < share]


@pytest.mark.parametrize("seed", range(5))
def test_every_constructor_gives_the_same_graph(seed):
    p, edges = 7, random_edges(7, seed)
    matrix = np.zeros((p, p))
    for parent, child in edges:
        matrix[parent, child] = 0.3 - parent
    parents = [[k for k, i in edges if i == node] for node in range(p)]
    wanted = Dag.from_edges(p, edges)
    ways = [
        Dag.from_matrix(matrix),
        Dag.from_matrix(sp.csr_array(matrix)),
        Dag.from_matrix(sp.csc_matrix(matrix)),
        Dag.from_matrix(matrix != 0),
        Dag.from_parents(parents),
        Dag.from_edges(p, reversed(edges)),
        Dag(wanted.indptr, wanted.indices),
        Dag.from_matrix(wanted.to_matrix()),
    ]
    for dag in ways:
        assert dag == wanted
        np.testing.assert_array_equal(dag.order, wanted.order)
    assert sorted(wanted.edges()) == sorted(edges)
    assert wanted.n_edges == len(edges)
    assert wanted.n_nodes == p
    np.testing.assert_array_equal(wanted.to_matrix().toarray(), matrix != 0)
    for node in range(p):
        assert wanted.parents(node).tolist() == sorted(parents[node])
        assert wanted.in_degree[node] == len(parents[node])
    assert wanted != Dag.from_edges(p, edges[1:])
    assert wanted != "graph"


def test_order_puts_parents_first_and_smaller_numbers_where_free():
    for seed in range(20):
        dag = Dag.from_edges(9, random_edges(9, seed, 0.3))
        place = np.argsort(dag.order)
        assert sorted(dag.order.tolist()) == list(range(9))
        assert all(place[k] < place[i] for k, i in dag.edges())
        placed: set[int] = set()
        for node in dag.order:  # always the smallest node whose parents are all placed
            free = [i for i in range(9) if i not in placed and set(dag.parents(i)) <= placed]
            assert node == min(free)
            placed.add(int(node))


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ([(0, 0)], {0}),
        ([(0, 1), (1, 0)], {0, 1}),
        ([(4, 0), (0, 2), (2, 3), (3, 0), (3, 1), (1, 5)], {0, 2, 3}),
        ([(5, 0), (0, 1), (2, 3), (3, 4), (4, 5), (5, 3)], {3, 4, 5}),
    ],
)
def test_cycles_are_named_in_the_direction_of_their_edges(edges, cycle):
    with pytest.raises(CycleError, match="has a cycle") as caught:
        Dag.from_edges(6, edges)
    found = caught.value.cycle
    assert set(found) == cycle
    assert len(found) == len(cycle)
    for parent, child in zip(found, [*found[1:], found[0]], strict=True):
        assert (parent, child) in edges
    names = [f"gene{i}" for i in range(6)]
    path = " -> ".join(names[i] for i in [*found, found[0]])
    assert path in str(caught.value.named(names))
    assert caught.value.named(names).cycle == found
    assert isinstance(caught.value, ValueError)


def test_graphs_without_edges_or_nodes():
    dag = Dag.from_edges(3, [])
    assert (dag.n_edges, dag.edges(), dag.order.tolist()) == (0, [], [0, 1, 2])
    assert dag.to_matrix().shape == (3, 3)
    assert Dag.from_edges(0, []).n_nodes == 0
