import itertools
from collections import Counter

import numpy as np
import pytest

from nextpert.core import random_dag
from nextpert.core.graph.random_dag import matched_random_dag


def test_every_node_keeps_its_number_of_parents():
    for seed in range(20):
        given = random_dag(25, expected_degree=6, rng=seed)
        drawn = matched_random_dag(given.in_degree, rng=seed)
        assert drawn.in_degree.tolist() == given.in_degree.tolist()
        assert drawn != given
    assert matched_random_dag([0, 0]).n_edges == 0


@pytest.mark.slow
def test_graphs_come_as_often_as_they_should():
    degree, draws = [2, 1, 0, 1], 4000
    expected = Counter()
    orders = [
        order
        for order in itertools.permutations(range(4))
        if all(place >= degree[node] for place, node in enumerate(order))
    ]
    for order in orders:
        choices = [list(itertools.combinations(order[:k], degree[n])) for k, n in enumerate(order)]
        for parents in itertools.product(*choices):
            edges = frozenset((k, n) for n, ks in zip(order, parents, strict=True) for k in ks)
            expected[edges] += 1 / len(orders) / np.prod([len(c) for c in choices])
    rng = np.random.default_rng(0)
    found = Counter(frozenset(matched_random_dag(degree, rng=rng).edges()) for _ in range(draws))
    assert set(found) == set(expected)
    for graph, share in expected.items():
        assert abs(found[graph] - draws * share) < 4.5 * np.sqrt(draws * share)
