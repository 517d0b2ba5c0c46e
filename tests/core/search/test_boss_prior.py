"""BOSS with prior knowledge: never worse than without, and the best order by enumeration."""

import importlib
import itertools

import numpy as np
import pytest

from nextpert.core import Moments, PriorKnowledge, boss
from nextpert.core.search._boss_kernel import State, climb, move_blocks
from nextpert.core.search._classes import Scratch
from nextpert.core.search._grow_shrink import Forest, Growth
from nextpert.core.search.minimal_imap import make_score

PENALTY = 2.0


def _plain_score(moments):
    """The BIC of one regression, by least squares on the scatter, remembered."""
    known, scatter = {}, moments.scatter

    def score(child, parents):
        k = sorted(parents)
        if (child, *k) not in known:
            rest = scatter[child, child] - (
                scatter[child, k] @ np.linalg.solve(scatter[np.ix_(k, k)], scatter[k, child])
            )
            share = rest / scatter[child, child]
            fit = -0.5 * moments.n * np.log(share)
            known[child, *k] = fit - 0.5 * PENALTY * np.log(moments.n) * len(k)
        return known[child, *k]

    return score


def _grow_shrink(score, prior, child, prefix):
    """Greedy parents that begin with, and keep, the required ones; no forbidden one is added."""
    required = set(np.flatnonzero(prior.required[:, child]).tolist())
    open_to = set(prefix) - set(np.flatnonzero(prior.forbidden[:, child]).tolist())
    parents, current = set(required), score(child, required)
    while gains := {k: score(child, parents | {k}) for k in open_to - parents}:
        best = max(gains, key=gains.get)
        if gains[best] <= current:
            break
        parents, current = parents | {best}, gains[best]
    while gains := {k: score(child, parents - {k}) for k in parents - required}:
        best = max(gains, key=gains.get)
        if gains[best] <= current:
            break
        parents, current = parents - {best}, gains[best]
    return current


def _random_prior(dag, rng):
    """Return orders, required and forbidden edges, half the time such that the truth has them."""
    p = dag.n_nodes
    order = dag.order if rng.random() < 0.5 else rng.permutation(p)
    pairs = [(order[a], order[b]) for a, b in itertools.combinations(range(p), 2)]

    def draw(n):
        return [pairs[k] for k in rng.choice(len(pairs), n, replace=False)]

    required = draw(rng.integers(0, 3))
    forbidden = [tuple(rng.permutation(p)[:2]) for _ in range(rng.integers(0, 4))]
    return PriorKnowledge(
        p,
        before=draw(rng.integers(1, 5)),
        required=required,
        forbidden=[edge for edge in forbidden if edge not in required],
    )


@pytest.mark.parametrize("seed", [2, 4, 22])
def test_required_edges_that_are_true_cost_no_score(simulated, equivalence_class, seed):
    """Once, three of 60 edges made it 97."""
    scm, moments = simulated(36, 4, seed=seed)
    edges = scm.dag.edges()
    chosen = np.random.default_rng(seed).choice(len(edges), 3, replace=False)
    prior = PriorKnowledge(36, required=[edges[k] for k in chosen])
    free, bound = boss(moments, rng=0), boss(moments, prior=prior, rng=0)
    assert prior.allows(bound.dag)
    assert bound.score >= free.score - 1e-6
    truth = equivalence_class(scm.dag)[0]
    assert len(equivalence_class(bound.dag)[0] ^ truth) <= 1


@pytest.mark.parametrize("seed", [13, 15, 23, 24])
def test_forbidden_edges_alone_are_kept_to_the_end(simulated, seed):
    """Of those found without it; another member of a class could bring them back."""
    _, moments = simulated(20, 4, seed=seed, n_cells=300)
    prior = PriorKnowledge(20, forbidden=boss(moments, rng=0).dag.edges()[:6])
    assert prior.allows(boss(moments, prior=prior, rng=0).dag)


@pytest.mark.parametrize("seed", [0, 1])
def test_orders_that_are_true_cost_no_score(simulated, seed):
    scm, moments = simulated(36, 4, seed=seed)
    order = scm.dag.order
    tiers = [order[:12], order[12:24], order[24:]]
    prior = PriorKnowledge(36, tiers=tiers, before=[(order[k], order[k + 2]) for k in range(30)])
    bound = boss(moments, prior=prior, rng=0)
    assert prior.allows(bound.dag)
    assert bound.score >= boss(moments, rng=0).score - 1e-6


@pytest.mark.parametrize("seed", range(12))
def test_the_best_of_all_orders_that_agree(simulated, seed):
    p = 4 + seed % 3
    scm, moments = simulated(p, 3, seed=seed, n_cells=200)
    prior = _random_prior(scm.dag, np.random.default_rng(seed))
    score = _plain_score(moments)
    best = max(
        sum(_grow_shrink(score, prior, v, order[:m]) for m, v in enumerate(order))
        for order in itertools.permutations(range(p))
        if prior.allows_order(order)
    )
    found = boss(moments, penalty=PENALTY, prior=prior, n_starts=5, rng=0)
    assert found.score >= best - 1e-6
    assert prior.allows(found.dag)
    assert prior.allows_order(found.order)
    own = sum(score(i, found.dag.parents(i).tolist()) for i in range(p))
    assert own == pytest.approx(found.score, abs=1e-6)


def _with_those_it_may_not_pass(prior, order, v, steps=(-1, 1)):
    """Yield every order in which v went to one end with its block, the others hopping over it."""
    for step in steps:
        limits = prior.before[:, v] if step < 0 else prior.before[v]
        line = list(order)[::step]
        here = line.index(v)
        block, passed = [v], []
        for node in line[here + 1 :]:
            if limits[node]:
                block.append(node)
            else:
                passed.append(node)
            rest = line[here + 1 + len(block) - 1 + len(passed) :]
            yield (line[:here] + passed + block + rest)[::step]


@pytest.mark.parametrize("seed", [6, 17, 30, 37, 70])
def test_blocks_find_what_nodes_alone_miss(simulated, seed, monkeypatch):
    scm, moments = simulated(6, 3, seed=seed, n_cells=200)
    prior = _random_prior(scm.dag, np.random.default_rng(seed))
    found = boss(moments, prior=prior, n_starts=1, rng=0)
    assert prior.allows(found.dag)
    module = importlib.import_module("nextpert.core.search.methods.boss")
    monkeypatch.setattr(module, "move_blocks", lambda *_: 0)
    assert found.score > boss(moments, prior=prior, n_starts=1, rng=0).score + 0.01


@pytest.mark.parametrize("seed", range(4))
def test_ends_where_no_move_of_a_block_gains(simulated, seed):
    _, moments = simulated(9, 4, seed=seed, n_cells=300)
    rng = np.random.default_rng(seed)
    order = rng.permutation(9)
    pairs = [(order[a], order[b]) for a, b in rng.integers(0, 9, (12, 2)) if a < b]
    prior = PriorKnowledge(9, before=pairs, required=[(order[0], order[5]), (order[5], order[8])])
    problem = make_score(moments, PENALTY, prior)
    state, parents = State.start(order), np.zeros((9, 9), dtype=bool)
    tools = Forest.empty(9), Growth.empty(9), Scratch.empty(9)
    random = np.array([seed], np.uint64)
    gained = 1
    while gained:
        climb(problem, *tools, state, random, parents)
        gained = move_blocks(problem, *tools, state)
    score = _plain_score(moments)

    def total(nodes):
        return sum(_grow_shrink(score, prior, v, nodes[:m]) for m, v in enumerate(nodes))

    final = state.order.tolist()
    best = total(final)
    assert prior.allows_order(final)
    assert state.score.sum() == pytest.approx(best, abs=1e-6)
    for v in final:
        for other in _with_those_it_may_not_pass(prior, final, v):
            assert prior.allows_order(other)
            assert total(other) <= best + 2e-6


@pytest.mark.slow
def test_blocks_move_exactly_where_that_gains():
    """After single moves, against the plain scores of all block moves, to the left and right."""
    seen = set()
    for seed in range(120):
        rng = np.random.default_rng(seed)
        edges = [pair for pair in itertools.combinations(range(6), 2) if rng.random() < 0.3]
        prior = PriorKnowledge(6, before=edges)
        moments = Moments.from_array(rng.normal(size=(100, 6)) @ rng.normal(size=(6, 6)))
        problem = make_score(moments, PENALTY, prior)
        start = prior.nearest_order(rng.permutation(6))
        state, parents = State.start(start), np.zeros((6, 6), dtype=bool)
        tools = Forest.empty(6), Growth.empty(6), Scratch.empty(6)
        climb(problem, *tools, state, np.array([1], np.uint64), parents)
        score, order = _plain_score(moments), state.order.tolist()

        def total(nodes, score=score, prior=prior):
            return sum(_grow_shrink(score, prior, v, nodes[:m]) for m, v in enumerate(nodes))

        here = total(order)
        gains = {
            step: any(
                total(other) > here + 1e-5
                for v in order
                for other in _with_those_it_may_not_pass(prior, order, v, (step,))
            )
            for step in (-1, 1)
        }
        assert move_blocks(problem, *tools, state) == any(gains.values())
        if any(gains.values()):
            assert state.score.sum() > here + 1e-6
            seen.add(tuple(gains.values()))
        else:
            assert state.order.tolist() == order
        assert prior.allows_order(state.order)
        assert state.score.sum() == pytest.approx(total(state.order.tolist()), abs=1e-6)
    assert {(True, False), (False, True)} <= seen
