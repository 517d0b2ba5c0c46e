"""BOSS with prior knowledge: never worse than without, and the best order by enumeration."""

import itertools

import numpy as np
import pytest

from nextpert.core import Moments, PriorKnowledge, boss
from nextpert.core.search._boss_kernel import State, climb, move_blocks
from nextpert.core.search._classes import Scratch
from nextpert.core.search._grow_shrink import Forest, Growth
from nextpert.core.search.minimal_imap import make_score
from tests.core.search.test_boss import grow_shrink, plain_score

PENALTY = 2.0


def total(score, prior, nodes):
    """The score of an order, of greedy parents that keep the prior knowledge."""
    return sum(grow_shrink(score, v, nodes[:m], prior)[1] for m, v in enumerate(nodes))


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


@pytest.mark.parametrize("seed", range(12))
def test_the_best_of_all_orders_that_agree(simulated, seed):
    p = 4 + seed % 3
    scm, moments = simulated(p, 3, seed=seed, n_cells=200)
    prior = _random_prior(scm.dag, np.random.default_rng(seed))
    score = plain_score(moments, PENALTY)
    best = max(
        total(score, prior, order)
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
    score = plain_score(moments, PENALTY)

    final = state.order.tolist()
    best = total(score, prior, final)
    assert prior.allows_order(final)
    assert state.score.sum() == pytest.approx(best, abs=1e-6)
    for v in final:
        for other in _with_those_it_may_not_pass(prior, final, v):
            assert prior.allows_order(other)
            assert total(score, prior, other) <= best + 2e-6


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
        score, order = plain_score(moments, PENALTY), state.order.tolist()

        here = total(score, prior, order)
        gains = {
            step: any(
                total(score, prior, other) > here + 1e-5
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
        assert state.score.sum() == pytest.approx(
            total(score, prior, state.order.tolist()), abs=1e-6
        )
    assert {(True, False), (False, True)} <= seen
