"""BOSS with prior knowledge: never worse than without, and the best order by enumeration."""

import itertools

import numpy as np
import pytest

from nextpert.core import PriorKnowledge, boss
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
        if prior.first_conflict(order) is None
    )
    found = boss(moments, penalty=PENALTY, prior=prior, n_starts=5, rng=0)
    assert found.score >= best - 1e-6
    assert prior.allows(found.dag)
    assert prior.first_conflict(found.order) is None
    own = sum(score(i, found.dag.parents(i).tolist()) for i in range(p))
    assert own == pytest.approx(found.score, abs=1e-6)
