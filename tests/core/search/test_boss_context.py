"""The search with nodes that the experiment set, against enumeration."""

from functools import cache
from itertools import combinations, permutations, product

import numpy as np
import pytest

from nextpert.core import (
    Dag,
    Moments,
    PriorKnowledge,
    ScreenMoments,
    boss,
    context_moments,
    random_scm,
)
from nextpert.core.graph.dag import Pdag
from nextpert.core.search._classes import oriented_by


def screen(p, n_environments, seed, n_cells=300):
    """Controls and environments that each shift one or two nodes of a random model."""
    rng = np.random.default_rng(seed)
    scm = random_scm(p, expected_degree=2.5, rng=rng)
    shifts = np.zeros((n_environments + 1, p))
    for e in range(1, n_environments + 1):
        shifts[e, rng.choice(p, rng.integers(1, 3), replace=False)] = rng.normal(0, 2)
    cells = [scm.sample(n_cells, shift=shift, rng=rng) for shift in shifts]
    groups = np.repeat(np.arange(n_environments + 1), n_cells)
    moments = ScreenMoments.from_array(np.vstack(cells), groups, n_environments + 1)
    return scm, moments, np.eye(n_environments + 1)[:, 1:], np.vstack(cells), groups


def best_score(cells, indicators, penalty):
    """The highest score of all graphs: dense regressions, all orders, all sets of parents."""
    n, p = cells.shape
    q = indicators.shape[1]
    columns = np.c_[cells, indicators]

    def score(child, parents):
        design = np.c_[np.ones(n), columns[:, list(parents)]]
        y = columns[:, child] / columns[:, child].std()
        left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        return -n / 2 * np.log(np.mean(left**2)) - penalty / 2 * np.log(n) * len(parents)

    context = range(p, p + q)
    every = {
        (i, s): score(i, s)
        for i in range(p)
        for k in range(p + q)
        for s in combinations([j for j in range(p + q) if j != i], k)
    }
    best = -np.inf
    for order in permutations(range(p)):
        total = 0.0
        for m, i in enumerate(order):
            allowed = {*order[:m], *context}
            total += max(value for (j, s), value in every.items() if j == i and set(s) <= allowed)
        best = max(best, total)
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_best_of_all_graphs_is_found(seed):
    p, q = (3, 4, 4)[seed % 3], (1, 2, 3)[seed % 3]
    _, moments, indicators, cells, groups = screen(p, q, seed)
    joint = context_moments(moments, indicators)
    found = boss(joint, n_context=q, n_starts=5, rng=0)
    assert found.score == pytest.approx(best_score(cells, indicators[groups], 2.0), abs=1e-6)
    assert found.context_edges.shape == (q, p)
    assert found.dag.n_nodes == p


def colliders(edges):
    adjacent = edges | edges.T
    return {
        (a, child, b)
        for child in range(len(edges))
        for a, b in combinations(np.flatnonzero(edges[:, child]), 2)
        if not adjacent[a, b]
    }


def members_of(full, p, before=False):
    """Every graph of the first p nodes with the same skeleton and colliders, context first."""
    pairs = np.argwhere(np.triu(full[:p, :p] | full[:p, :p].T))
    for choice in range(2 ** len(pairs)):
        other = full.copy()
        other[:p, :p] = False
        for k, (a, b) in enumerate(pairs):
            other[(a, b) if choice >> k & 1 else (b, a)] = True
        try:
            Dag.from_matrix(other[:p, :p] | before)
        except ValueError:
            continue
        if colliders(other) == colliders(full):
            yield other


@pytest.mark.parametrize("seed", range(12))
def test_the_class_is_that_of_all_graphs_that_agree(seed):
    """Directed where every graph of the same skeleton and colliders, context first, agrees."""
    rng = np.random.default_rng(seed)
    p, q = 4, 2
    full = np.zeros((p + q, p + q), bool)
    full[:p, :p] = np.triu(rng.random((p, p)) < 0.7, 1)
    full[p:, :p] = rng.random((q, p)) < 0.4
    agreed = np.all(list(members_of(full, p)), axis=0)
    found = Pdag.of_class(Dag.from_matrix(full), q)
    assert np.array_equal(found.edges & ~found.edges.T, agreed)


@pytest.mark.parametrize("seed", range(8))
def test_what_settles_an_edge(seed):
    """By brute force over all graphs of the class: with and without context nodes, an order."""
    rng = np.random.default_rng(seed)
    p, q = 4, 2
    edges = np.triu(rng.random((p, p)) < 0.8, 1)
    given = rng.random((q, p)) < 0.3
    prior = PriorKnowledge(p, before=[(0, 2)])

    def agreed(context, before):
        full = np.zeros((p + q, p + q), bool)
        full[:p, :p], full[p:, :p] = edges, context
        return np.all([each[:p, :p] for each in members_of(full, p, before)], axis=0)

    nothing = np.zeros((p, p), bool)
    cells = agreed(np.zeros((q, p), bool), nothing)
    interventions = agreed(given, nothing)
    known = agreed(given, prior.before)
    for a, b, how in oriented_by(Dag.from_matrix(edges), given, prior):
        wanted = (
            "cells" if cells[a, b]
            else "interventions" if interventions[a, b]
            else "prior knowledge" if known[a, b]
            else "open"
        )  # fmt: skip
        assert how == wanted, (a, b)


def all_dags(p):
    """Every graph of p nodes, as matrices with a row a parent."""
    pairs = list(combinations(range(p), 2))
    for marks in product((None, False, True), repeat=len(pairs)):
        edges = np.zeros((p, p), bool)
        for (a, b), turned in zip(pairs, marks, strict=True):
            if turned is not None:
                edges[(b, a) if turned else (a, b)] = True
        try:
            yield Dag.from_matrix(edges)
        except ValueError:
            continue


def bic_of(joint, penalty=2.0):
    """The BIC of a graph over standardised nodes by plain least squares, families remembered."""

    @cache
    def family(child, parents):
        k = list(parents)
        s = joint.scatter / joint.scatter[child, child]
        rest = s[child, child] - s[child, k] @ np.linalg.solve(s[np.ix_(k, k)], s[k, child])
        return -joint.n / 2 * np.log(rest) - penalty / 2 * np.log(joint.n) * len(k)

    def score(edges):
        return sum(family(i, tuple(np.flatnonzero(above))) for i, above in enumerate(edges.T))

    return score


@pytest.mark.parametrize("seed", range(6))
def test_with_known_targets_the_best_of_all_graphs_is_found(seed):
    """Right targets, and wrong ones, over all 543 graphs of four nodes; a third node is free."""
    p, q = 4, 3
    _, moments, indicators, _, _ = screen(p, q, seed, n_cells=100)
    joint = context_moments(moments, indicators)
    rng = np.random.default_rng(seed)
    told = {k: rng.choice(p, rng.integers(0, 3), replace=False).tolist() for k in (0, 2)}
    best, score = -np.inf, bic_of(joint)
    for dag in all_dags(p):
        edges = np.zeros((p + q, p + q), bool)
        edges[:p, :p] = dag.to_matrix().toarray() != 0
        for k, nodes in told.items():
            edges[p + k, nodes] = True
        for nodes in product((False, True), repeat=p):
            edges[p + 1, :p] = nodes
            best = max(best, score(edges))
    found = boss(joint, n_context=q, targets=told, n_starts=5, rng=0)
    assert found.score == pytest.approx(best, abs=1e-6)
    for k, nodes in told.items():
        assert np.flatnonzero(found.context_edges[k]).tolist() == sorted(nodes)


@pytest.mark.parametrize("seed", range(8))
def test_known_targets_find_the_interventional_class(seed):
    """From exact moments: what is found, and oriented, is what all graphs of the class share.

    The class is that of all graphs of four nodes whose graph with the context nodes has the same
    skeleton and colliders.
    """
    rng = np.random.default_rng(seed)
    p, q = 4, 2
    full = np.zeros((p + q, p + q), bool)
    full[:p, :p] = np.triu(rng.random((p, p)) < 0.6, 1)[np.ix_(order := rng.permutation(p), order)]
    full[p:, :p] = np.eye(p, dtype=bool)[rng.permutation(p)[:q]]
    weights = full * rng.uniform(0.5, 1, full.shape) * rng.choice([-1, 1], full.shape)
    total = np.linalg.inv(np.eye(p + q) - weights.T)
    joint = Moments(10_000, np.zeros(p + q), 10_000 * total @ total.T)
    members = []
    for dag in all_dags(p):
        other = full.copy()
        other[:p, :p] = dag.to_matrix().toarray() != 0
        same = np.array_equal(other | other.T, full | full.T)
        if same and colliders(other) == colliders(full):
            members.append(other[:p, :p])
    targets = {k: np.flatnonzero(full[p + k]).tolist() for k in range(q)}
    found = boss(joint, n_context=q, targets=targets, n_starts=5, rng=0)
    edges = found.dag.to_matrix().toarray() != 0
    assert any(np.array_equal(edges, member) for member in members)
    agreed = np.all(members, axis=0)
    for a, b, how in oriented_by(found.dag, found.context_edges):
        assert (how == "open") != agreed[a, b]


@pytest.mark.parametrize("targets", [{1: [0]}, {0: [3]}, {-1: [0]}, {0: [0.5]}])
def test_targets_of_nodes_that_are_not_there_are_refused(targets):
    _, moments, indicators, _, _ = screen(3, 1, 0)
    with pytest.raises((ValueError, TypeError), match="targets"):
        boss(context_moments(moments, indicators), n_context=1, targets=targets, rng=0)
