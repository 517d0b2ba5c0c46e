"""Random graphs and models: families, numbers of edges, ranges of weights."""

import itertools
from collections import Counter

import numpy as np
import pytest

from nextpert.core import Dag, random_dag, random_scm
from nextpert.core.causal.scm import matched_random_dag


@pytest.mark.parametrize(
    ("family", "edges"),
    [("complete", 45), ("path", 9)],
)
def test_families_have_their_number_of_edges(family, edges):
    for seed in range(5):
        dag = random_dag(10, family, rng=seed)
        assert dag.n_edges == edges
        assert all(k < i for k, i in dag.edges())
    if family == "path":
        assert dag.edges() == [(i, i + 1) for i in range(9)]


@pytest.mark.parametrize("degree", [1.0, 4.0, 100.0])
def test_erdos_renyi_has_the_expected_degree(degree):
    p, draws = 20, 300
    counts = np.zeros((p, p))
    edges = []
    for seed in range(draws):
        dag = random_dag(p, expected_degree=degree, rng=seed)
        counts += dag.to_matrix().toarray()
        edges.append(dag.n_edges)
    share = min(degree / (p - 1), 1.0)
    wanted = share * p * (p - 1) / 2
    assert abs(np.mean(edges) - wanted) <= 5 * np.sqrt(wanted * (1 - share) / draws)
    upper = np.triu_indices(p, 1)
    assert (counts[np.tril_indices(p)] == 0).all()
    bound = 5 * np.sqrt(draws * share * (1 - share))
    assert np.abs(counts[upper] - draws * share).max() <= bound


@pytest.mark.parametrize("graph", ["complete", "erdos_renyi", "path"])
def test_weights_are_uniform_on_both_sides_before_standardising(graph):
    values = []
    for seed in range(60):
        scm = random_scm(12, graph, noise_var=0.7, standardise=False, rng=seed)
        np.testing.assert_array_equal(scm.noise_var, 0.7)
        values.append(scm.weights[scm.weights != 0])
        assert scm.dag.n_edges == len(values[-1])
    values = np.concatenate(values)
    size = np.abs(values)
    assert size.min() >= 0.25
    assert size.max() <= 1
    assert abs((values > 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(len(values))
    assert abs(size.mean() - 0.625) < 5 * 0.75 / np.sqrt(12 * len(values))
    assert abs((size < 0.4375).mean() - 0.25) < 5 * np.sqrt(0.1875 / len(values))


def test_standardised_models_have_unit_variances_and_the_same_graph():
    plain = random_scm(15, "erdos_renyi", standardise=False, rng=3)
    unit = random_scm(15, "erdos_renyi", rng=3)
    assert plain.dag == unit.dag
    np.testing.assert_allclose(np.diag(unit.covariance()), 1, rtol=1e-12)
    inverse = np.linalg.inv(np.eye(15) - plain.weights)
    scale = np.sqrt(np.diag(inverse @ inverse.T))
    np.testing.assert_allclose(unit.weights, plain.weights * scale / scale[:, None], atol=1e-14)
    np.testing.assert_allclose(unit.noise_var, 1 / scale**2)
    assert not np.array_equal(random_scm(15, rng=3).weights, random_scm(15, rng=4).weights)


def test_a_given_graph_and_range_are_kept():
    dag = Dag.from_edges(3, [(2, 0), (0, 1)])
    scm = random_scm(3, dag, low=0.5, high=0.5, standardise=False, rng=0)
    assert scm.dag == dag
    np.testing.assert_allclose(np.abs(scm.weights[scm.weights != 0]), 0.5)
    with pytest.raises(ValueError, match="3 nodes, but n_nodes is 4"):
        random_scm(4, dag)


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
