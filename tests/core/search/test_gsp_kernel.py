"""The compiled parts of GSP, one by one, against single tests by regression."""

from functools import cache

import numpy as np
import pytest
from numba import njit

from nextpert.core import PriorKnowledge, gsp, minimal_imap
from nextpert.core.search._classes import Scratch, shrink
from nextpert.core.search._gsp_kernel import Space, falling, sparse_order
from nextpert.core.search.minimal_imap import make_tests

ALPHA = 0.02


@pytest.fixture(params=[12, 70])
def model(simulated, request):
    """Moments and tests of few cells, which fall on either side of the threshold."""
    p = request.param
    _, moments = simulated(p, 5, seed=p, n_cells=4 * p)
    rng = np.random.default_rng(0)
    edges = [tuple(pair) for pair in rng.integers(0, p, (p, 2)) if pair[0] < pair[1]]
    return moments, *make_tests(moments, ALPHA, PriorKnowledge(p, required=edges[::2])), edges[::2]


@njit
def _falling(tests, scratch, space, a, b):
    return falling(tests, scratch, space, a, b)


def test_what_falls_when_an_edge_is_turned(model, p_value):
    moments, tests, threshold, required = model
    p = moments.n_nodes
    rng = np.random.default_rng(1)
    lost, nothing = np.zeros((2, p), dtype=bool), np.zeros((1, p, 2), np.int64)
    rest = nothing, np.zeros(1, np.uint64), np.zeros(1, np.int64)
    space = Space(np.zeros((p, p), dtype=bool), threshold, lost, *rest)
    scratch = Scratch.empty(p)
    total = 0
    for _ in range(30):
        nodes = rng.permutation(p)
        a, b, shared = int(nodes[0]), int(nodes[1]), nodes[2 : 2 + rng.integers(0, 7)].tolist()
        parents = np.zeros((p, p), dtype=bool)
        parents[a, shared] = parents[b, [*shared, a]] = True
        space.parents[:] = parents
        count = _falling(tests, scratch, space, a, b)
        fall = [np.flatnonzero(row).tolist() for row in space.lost]
        for child, extra, found in ((b, [], fall[0]), (a, [b], fall[1])):
            expected = [
                k
                for k in sorted(shared)
                if p_value(moments, child, k, [*set(shared) - {k}, *extra]) > ALPHA
                and (k, child) not in required
            ]
            assert found == expected
        assert count == len(fall[0]) + len(fall[1])
        total += count
    assert total > 20


@njit
def _shrunk(tests, row, child, scratch):
    return shrink(tests, row, child, scratch)


def test_pruning_takes_the_weakest_parent_first(model, p_value):
    moments, tests, _, required = model
    p = moments.n_nodes
    chosen = np.tril(np.random.default_rng(2).random((p, p)) < min(0.7, 8 / p), -1)
    found = chosen.copy()
    for child in range(p):
        _shrunk(tests, found[child], child, Scratch.empty(p))
    assert chosen.sum() - found.sum() > 5
    for child in range(p):
        parents = np.flatnonzero(chosen[child]).tolist()
        while True:
            values = {k: p_value(moments, child, k, set(parents) - {k}) for k in parents}
            loose = {k: v for k, v in values.items() if (k, child) not in required and v > ALPHA}
            if not loose:
                break
            # Degrees of freedom are the same for all, so the largest p-value is the weakest.
            parents.remove(max(loose, key=loose.get))
        assert np.flatnonzero(found[child]).tolist() == parents


@pytest.mark.parametrize("slack", [0, 3, -1])
def test_drawn_orders_have_the_edges_they_are_said_to_have(model, slack):
    moments, tests, threshold, required = model
    p = moments.n_nodes
    random, precision = np.array([7], np.uint64), np.linalg.inv(tests.matrix)
    orders = set()
    for _ in range(5):
        order, parents = sparse_order(precision, threshold, tests.after, slack, random)
        assert sorted(order) == list(range(p))
        place = np.argsort(order)
        assert all(place[a] < place[b] for a, b in required)
        imap = minimal_imap(moments, order, alpha=ALPHA)
        assert np.array_equal(parents.T, imap.to_matrix().toarray() != 0)
        orders.add(tuple(order))
    assert len(orders) > 1


def test_the_last_node_depends_on_the_fewest_of_those_left(simulated, p_value):
    _, moments = simulated(12, 5, seed=3, n_cells=48)
    tests, threshold = make_tests(moments, ALPHA, None)
    random, precision = np.array([5], np.uint64), np.linalg.inv(tests.matrix)
    for _ in range(5):
        order = sparse_order(precision, threshold, tests.after, 0, random)[0].tolist()
        while len(order) > 1:
            degrees = {
                a: sum(p_value(moments, a, b, set(order) - {a, b}) < ALPHA for b in order if b != a)
                for a in order
            }
            assert degrees[order.pop()] == min(degrees.values())


@pytest.mark.parametrize("seed", range(6))
def test_search_is_complete_to_its_depth(simulated, p_value, seed):
    """No sequence of up to four covered turns before the last, tried one by one, drops an edge."""
    _, moments = simulated(9, 4, seed=seed, n_cells=300)
    found = gsp(moments, alpha=0.05, n_runs=1, rng=3)

    def turns(parents):
        return [(a, b) for b, above in parents.items() for a in above if parents[a] == above - {a}]

    @cache
    def falls(a, b, shared):
        into_b = any(p_value(moments, b, k, shared - {k}) >= 0.05 for k in shared)
        return into_b or any(p_value(moments, a, k, (shared - {k}) | {b}) >= 0.05 for k in shared)

    def explore(parents, left):
        for a, b in turns(parents):
            assert not falls(a, b, frozenset(parents[a]))
            if left:
                explore(parents | {b: parents[b] - {a}, a: parents[a] | {b}}, left - 1)

    explore({i: set(found.dag.parents(i).tolist()) for i in range(9)}, 4)
