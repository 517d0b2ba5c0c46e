"""Classes of graphs against all graphs on four nodes; backward search from graphs too dense."""

import itertools

import numpy as np
import pytest

from nextpert.core import CycleError, Dag, LinearScm, Moments, PriorKnowledge
from nextpert.core.graph.dag import Pdag
from nextpert.core.search._classes import Scratch, backward, local_score, oriented_by
from nextpert.core.search.minimal_imap import make_score


@pytest.fixture(scope="module")
def classes(equivalence_class):
    """All graphs on four nodes, grouped by skeleton and colliders."""
    groups = {}
    pairs = list(itertools.combinations(range(4), 2))
    for choice in itertools.product((None, 0, 1), repeat=len(pairs)):
        edges = [
            pair[::-1] if way else pair
            for pair, way in zip(pairs, choice, strict=True)
            if way is not None
        ]
        try:
            dag = Dag.from_edges(4, edges)
        except CycleError:
            continue
        skeleton, colliders = equivalence_class(dag)
        groups.setdefault((frozenset(skeleton), frozenset(colliders)), []).append(dag)
    return groups


def test_number_of_graphs_and_classes(classes):
    assert sum(map(len, classes.values())) == 543
    assert len(classes) == 185


def test_directed_is_what_the_whole_class_agrees_on(classes):
    for members in classes.values():
        shared = set.intersection(*(set(dag.edges()) for dag in members))
        for dag in members:
            graph = Pdag.of_class(dag)
            directed = {(x, y) for y in range(4) for x in graph.parents(y)}
            joined = {frozenset((x, y)) for y in range(4) for x in graph.neighbours(y)}
            assert directed == shared
            assert joined == {frozenset(edge) for edge in set(dag.edges()) - shared}
            assert graph.to_dag() in members


@pytest.mark.parametrize("seed", range(4))
def test_backward_search_from_the_complete_graph(equivalence_class, seed):
    rng = np.random.default_rng(seed)
    weights = np.zeros((6, 6))
    for parent, child in itertools.combinations(range(6), 2):
        if rng.random() < 0.4:
            weights[child, parent] = rng.choice([-1, 1]) * rng.uniform(0.4, 0.8)
    scm = LinearScm(weights, np.ones(6))
    moments = Moments.from_array(scm.sample(50_000, rng=rng))
    problem = make_score(moments, 2.0, None)
    found = backward(
        problem, Dag.from_edges(6, itertools.combinations(rng.permutation(6).tolist(), 2))
    )
    assert equivalence_class(found) == equivalence_class(scm.dag)
    assert backward(problem, found) == found


@pytest.mark.slow
def test_the_member_that_agrees_is_found_where_there_is_one(classes):
    rng = np.random.default_rng(0)
    counts = {True: 0, False: 0}
    for members in classes.values():
        for _ in range(4):
            order = rng.permutation(4)
            before = [(order[a], order[b]) for a, b in rng.integers(0, 4, (3, 2)) if a < b]
            forbidden = [tuple(rng.permutation(4)[:2]) for _ in range(2)]
            prior = PriorKnowledge(4, before=before, forbidden=forbidden)
            agree = [dag for dag in members if prior.allows(dag)]
            graph = Pdag.of_class(members[0])
            counts[bool(agree)] += 1
            if agree:
                assert graph.to_dag(prior.before, prior.forbidden) in agree
            else:
                assert graph.to_dag(prior.before, prior.forbidden) is None
    assert min(counts.values()) > 100


@pytest.mark.parametrize("seed", range(4))
def test_backward_search_keeps_prior_knowledge(simulated, seed):
    """From the densest graph that agrees: thinner, agreeing, and no edge that may go should go."""
    scm, moments = simulated(8, 3, seed=seed)
    order = scm.dag.order
    barred = (order[0], order[1])
    required = [(order[0], order[7]), (order[2], order[3])]
    prior = PriorKnowledge(8, required=required, forbidden=[barred], before=[(order[4], order[5])])
    dense = Dag.from_edges(8, [pair for pair in itertools.combinations(order, 2) if pair != barred])
    problem = make_score(moments, 2.0, prior)
    thin = backward(problem, dense, prior)
    assert prior.allows(dense)
    assert prior.allows(thin)
    assert thin.n_edges < dense.n_edges

    def score(child, parents):
        row = np.zeros(8, dtype=bool)
        row[list(parents)] = True
        return local_score(problem, row, child, Scratch.empty(8))

    for parent, child in thin.edges():
        if not prior.required[parent, child]:
            above = set(thin.parents(child).tolist())
            assert score(child, above) >= score(child, above - {parent}) - 1e-6


def open_edges(dag, prior=None):
    return {(x, y) for x, y, how in oriented_by(dag, None, prior) if how == "open"}


def test_open_edges_are_those_that_another_member_turns(classes):
    rng = np.random.default_rng(1)
    some = 0
    for members in classes.values():
        dag = members[0]
        turned = {
            edge for edge in dag.edges() if any(edge[::-1] in other.edges() for other in members)
        }
        assert open_edges(dag) == turned
        order = dag.order
        before = [(order[a], order[b]) for a, b in rng.integers(0, 4, (2, 2)) if a < b]
        barred = [tuple(rng.permutation(4)[:2]) for _ in range(2)]
        prior = PriorKnowledge(
            4, before=before, forbidden=[edge for edge in barred if edge not in dag.edges()]
        )
        agree = [other.edges() for other in members if prior.allows(other)]
        wanted = {edge for edge in dag.edges() if any(edge[::-1] in edges for edges in agree)}
        assert open_edges(dag, prior) == wanted
        some += wanted != turned
    assert some > 20


@pytest.mark.parametrize("seed", range(6))
def test_backward_search_takes_the_best_deletion_of_any_member(equivalence_class, seed):
    """Against all members of a class, found by directing its skeleton along every order."""
    rng = np.random.default_rng(seed)
    moments = Moments.from_array(rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5)))
    problem = make_score(moments, 2.0, None)

    def score(child, parents):
        row = np.zeros(5, dtype=bool)
        row[list(parents)] = True
        return local_score(problem, row, child, Scratch.empty(5))

    def members(dag):
        wanted = equivalence_class(dag)
        for order in itertools.permutations(range(5)):
            place = np.argsort(order)
            turned = [
                edge if place[edge[0]] < place[edge[1]] else edge[::-1] for edge in dag.edges()
            ]
            member = Dag.from_edges(5, turned)
            if equivalence_class(member) == wanted:
                yield member

    dag = dense = Dag.from_edges(5, itertools.combinations(rng.permutation(5).tolist(), 2))
    while True:
        gains = {}
        for member in members(dag):
            for parent, child in member.edges():
                above = set(member.parents(child).tolist())
                thinner = Dag.from_edges(5, [a for a in member.edges() if a != (parent, child)])
                gains[thinner.edges().__repr__()] = (
                    score(child, above - {parent}) - score(child, above), thinner
                )  # fmt: skip
        gain, thinner = max(gains.values(), key=lambda pair: pair[0], default=(0.0, dag))
        if gain <= 1e-6:
            break
        dag = thinner
    assert 0 < dag.n_edges < dense.n_edges
    assert equivalence_class(backward(problem, dense)) == equivalence_class(dag)
