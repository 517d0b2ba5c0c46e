"""The benchmark of prior networks: what it draws, the distance it shows, and its table."""

import itertools

import numpy as np
import pytest

from benchmarks import prior_network
from nextpert.core import Dag, random_dag

pytestmark = pytest.mark.benchmarks


@pytest.mark.parametrize(("network", "right"), [("100%", 1.0), ("70%", 0.7), ("50%", 0.5)])
def test_networks_are_right_as_said(network, right):
    truth = random_dag(36, "erdos_renyi", expected_degree=4, rng=0)
    edges = truth.to_matrix().toarray() != 0
    drawn = prior_network.draw_network(truth, 0.5, network, np.random.default_rng(1)) > 0
    assert (drawn & edges).sum() == round(edges.sum() / 2)
    assert (drawn & edges).sum() / drawn.sum() == pytest.approx(right, abs=0.02)
    assert not np.diag(drawn).any()


def test_the_random_network_is_as_large_as_that_of_70_percent():
    truth = random_dag(36, "erdos_renyi", expected_degree=4, rng=0)
    edges = truth.to_matrix().toarray() != 0
    sizes, right = set(), []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        drawn = prior_network.draw_network(truth, 0.5, "random", rng) > 0
        sizes.add(int(drawn.sum()))
        right.append((drawn & edges).sum() / drawn.sum())
    assert sizes == {int(prior_network.draw_network(truth, 0.5, "70%", rng).sum())}
    assert np.mean(right) == pytest.approx(edges.sum() / (36 * 35), abs=0.02)


def test_the_distance_of_classes_is_that_of_their_graphs_by_enumeration():
    """Of all graphs on three nodes: what every graph of a class has in common."""
    pairs = list(itertools.combinations(range(3), 2))
    graphs = []
    for marks in itertools.product((0, 1, 2), repeat=3):
        edges = [
            pair[:: 1 if mark == 1 else -1] for pair, mark in zip(pairs, marks, strict=True) if mark
        ]
        try:
            graphs.append(Dag.from_edges(3, edges))
        except ValueError:
            continue

    def describe(dag):
        edges = set(dag.edges())
        joined = {frozenset(edge) for edge in edges}
        met = {
            (a, b, c) for a, c in edges for b, d in edges if c == d and a < b
            and frozenset((a, b)) not in joined
        }  # fmt: skip
        return frozenset(joined), frozenset(met)

    def marks_of(dag):
        members = [set(other.edges()) for other in graphs if describe(other) == describe(dag)]
        every = set.union(*members)
        return [frozenset(every & {(a, b), (b, a)}) for a, b in pairs]

    for one, two in itertools.product(graphs, repeat=2):
        wanted = sum(a != b for a, b in zip(marks_of(one), marks_of(two), strict=True))
        assert prior_network.class_distance(one, two) == wanted


def test_one_row():
    row = prior_network.one(4, 500, 1.0, "100%", 0)
    along, against, before, after, *_ = row
    assert along > 2 > 0 > against
    assert after <= before
    assert row == prior_network.one(4, 500, 1.0, "100%", 0)
    line = prior_network._line(500, 4, 1.0, "100%", np.array([row, row]))
    assert line.startswith("| 500 | 4 | 100% | 100% | 2 of 2 | ")
    assert line.count("|") == 13
