"""Distances between graphs, wrong graphs, and random targets."""

from itertools import combinations

import numpy as np
import pytest

from nextpert.core import Dag, LinearScm, perturb_dag, random_dag, random_scm, random_target, shd


def by_pairs(one, two):
    """Missing, extra and reversed edges, pair by pair."""
    a, b = one.to_matrix().toarray(), two.to_matrix().toarray()
    missing = extra = turned = 0
    for i, k in combinations(range(len(a)), 2):
        before, after = (a[i, k], a[k, i]), (b[i, k], b[k, i])
        missing += before != (0, 0) and after == (0, 0)
        extra += before == (0, 0) and after != (0, 0)
        turned += before != (0, 0) and after == before[::-1]
    return missing, extra, turned


@pytest.mark.parametrize("seed", range(15))
def test_perturbed_graphs_have_exactly_the_changes_asked_for(seed):
    rng = np.random.default_rng(seed)
    family = ["erdos_renyi", "complete", "path"][seed % 3]
    dag = random_dag(9, family, rng=rng)
    free = 36 - dag.n_edges
    turned = int(rng.integers(dag.n_edges))
    missing = int(rng.integers(dag.n_edges - turned + 1))
    extra = int(rng.integers(free + 1))
    changes = {"n_missing": missing, "n_extra": extra, "n_reversed": turned}
    wrong = perturb_dag(dag, **changes, rng=seed)
    assert sorted(wrong.order) == list(range(9))
    assert by_pairs(dag, wrong) == (missing, extra, turned)
    assert shd(dag, wrong) == shd(wrong, dag) == missing + extra + turned
    assert wrong == perturb_dag(dag, **changes, rng=seed)
    assert shd(dag, dag) == 0


def test_changes_fall_everywhere_and_either_way():
    dag = random_dag(5, "path")
    turned, gone, new = np.zeros((5, 5)), np.zeros((5, 5)), np.zeros((5, 5))
    before = dag.to_matrix().toarray()
    for seed in range(400):
        turned += before - perturb_dag(dag, n_reversed=1, rng=seed).to_matrix().toarray() > 0
        gone += before - perturb_dag(dag, n_missing=1, rng=seed).to_matrix().toarray()
        new += perturb_dag(dag, n_extra=1, rng=seed).to_matrix().toarray() - before
    for counts in (turned, gone):
        assert (np.abs(counts[before > 0] - 100) < 45).all()
    rows = np.triu(before == 0, 1)
    assert (np.abs(new[rows] - 400 / 6) < 40).all()  # all along the path: the rest are cycles
    empty = Dag.from_edges(2, [])
    ways = sum(perturb_dag(empty, n_extra=1, rng=s).edges() == [(0, 1)] for s in range(200))
    assert 60 < ways < 140


def test_targets_are_sparse_unit_shifts_and_their_means():
    supports, signs = [], []
    for seed in range(200):
        scm = random_scm(6, rng=seed % 3)
        shift, mean = random_target(scm, 3, rng=seed)
        inverse = np.linalg.inv(np.eye(6) - scm.weights)
        np.testing.assert_allclose(mean, inverse @ shift, atol=1e-12)
        entries = shift[shift != 0]
        assert len(entries) == 3
        assert abs(entries @ entries - 1) < 1e-12
        assert np.abs(entries).max() <= 4 * np.abs(entries).min()
        supports.append(shift != 0)
        signs.append((entries > 0).mean())
    assert (np.abs(np.mean(supports, axis=0) - 0.5) < 0.18).all()
    assert abs(np.mean(signs) - 0.5) < 0.11


def test_downstream_targets_end_the_topological_order():
    weights = np.zeros((4, 4))
    weights[0, 3], weights[3, 1], weights[2, 3] = 0.5, 0.5, 0.5  # order 1, 3, 0, 2
    scm = LinearScm(weights, np.ones(4))
    shift, _ = random_target(scm, 2, where="downstream", rng=0)
    assert np.flatnonzero(shift).tolist() == [0, 2]
    with pytest.raises(ValueError, match=r"n_targets must be at most 4, .* but is 5"):
        random_target(scm, 5)
    with pytest.raises(ValueError, match="where must be"):
        random_target(scm, 2, where="upstream")


def test_no_more_changes_than_pairs_have_room_for():
    dag = random_dag(6, "path")
    assert perturb_dag(dag, n_extra=10, rng=0).n_edges == 15
    with pytest.raises(ValueError, match="n_extra must be at most 10, the number of node pairs"):
        perturb_dag(dag, n_extra=11, rng=0)
    with pytest.raises(ValueError, match=r"number of edges, 5, but is 6\."):
        perturb_dag(dag, n_missing=4, n_reversed=2, rng=0)
