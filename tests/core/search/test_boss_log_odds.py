"""Log-odds of edges in the score search, against enumeration of all graphs."""

from itertools import combinations, permutations

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
from nextpert.core.graph._equivalence import Pdag
from nextpert.core.search._classes import best_member

PENALTY = 2.0


def best_of_all(cells, n_context, log_odds, prior):
    """The highest score of all graphs that agree: dense regressions, all orders, all parents."""
    n, p = cells.shape[0], cells.shape[1] - n_context

    def score(child, parents):
        design = np.c_[np.ones(n), cells[:, list(parents)]]
        y = cells[:, child] / cells[:, child].std()
        left = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        odds = sum(log_odds[k, child] for k in parents if k < p)
        fit = -n / 2 * np.log(np.mean(left**2))
        return fit - PENALTY / 2 * np.log(n) * len(parents) + odds

    every = [{} for _ in range(p)]
    for i in range(p):
        others = [j for j in range(cells.shape[1]) if j != i]
        for k in range(len(others) + 1):
            for s in combinations(others, k):
                genes = {j for j in s if j < p}
                required = set(np.flatnonzero(prior.required[:, i]).tolist())
                barred = set(np.flatnonzero(prior.forbidden[:, i]).tolist())
                if required <= genes and not genes & barred:
                    every[i][frozenset(s)] = score(i, s)
    best = -np.inf
    for order in permutations(range(p)):
        if not prior.allows_order(order):
            continue
        total = 0.0
        for m, i in enumerate(order):
            later = set(order[m + 1 :])
            total += max(value for s, value in every[i].items() if not s & later)
        best = max(best, total)
    return best


@pytest.mark.parametrize("score", ["bic", "bge"])
def test_no_log_odds_change_no_bit(simulated, score):
    _, moments = simulated(12, 3, seed=0, n_cells=300)
    plain = boss(moments, score=score, n_starts=3, rng=0)
    zero = boss(moments, score=score, n_starts=3, rng=0, log_odds=np.zeros((12, 12)))
    assert plain.score == zero.score
    assert plain.dag.edges() == zero.dag.edges()
    # The same for every edge is one more number a parent: not zero, so that the slow way is taken.
    tiny = boss(moments, score=score, n_starts=3, rng=0, log_odds=np.full((12, 12), 1e-9))
    assert tiny.dag.edges() == plain.dag.edges()


@pytest.mark.parametrize("seed", range(16))
def test_the_best_of_all_graphs_is_found(simulated, seed):
    p = 5 if seed % 8 == 0 else 3 + seed % 2
    _, moments = simulated(p, 2.5, seed=seed, n_cells=100)
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(0, 6, (p, p))
    # Cells of these very moments.
    cells = np.linalg.qr(np.c_[np.ones(100), rng.normal(size=(100, p))])[0][:, 1:]
    cells = cells @ np.linalg.cholesky(moments.scatter).T
    best = best_of_all(cells, 0, log_odds, PriorKnowledge(p))
    found = boss(moments, log_odds=log_odds, n_starts=10, rng=0)
    assert found.score == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("seed", range(1, 7))  # with 0, greedy parents are not the best of all
def test_beside_context_nodes_and_prior_knowledge(seed):
    p, q = 4, 2
    rng = np.random.default_rng(seed)
    scm = random_scm(p, expected_degree=2.5, standardise=True, rng=rng)
    shifts = np.zeros((q + 1, p))
    for e in range(1, q + 1):
        shifts[e, rng.integers(p)] = rng.normal()
    cells = np.vstack([scm.sample(60, shift=shift, rng=rng) for shift in shifts])
    groups = np.repeat(np.arange(q + 1), 60)
    indicators = np.eye(q + 1)[:, 1:]
    moments = context_moments(ScreenMoments.from_array(cells, groups, q + 1), indicators)
    log_odds = rng.normal(0, 3, (p, p))
    a, b, c, d = rng.permutation(p).tolist()
    prior = PriorKnowledge(p, required=[(a, b)], before=[(c, b)], forbidden=[(d, a)])
    best = best_of_all(np.c_[cells, indicators[groups]], q, log_odds, prior)
    found = boss(moments, n_context=q, prior=prior, log_odds=log_odds, n_starts=10, rng=0)
    assert prior.allows(found.dag)
    assert found.score == pytest.approx(best, abs=1e-6)


def test_bge_takes_log_odds_too(simulated):
    _, moments = simulated(5, 2, seed=3, n_cells=200)
    rng = np.random.default_rng(3)
    log_odds = rng.normal(0, 4, (5, 5))
    plain = boss(moments, score="bge", n_starts=5, rng=0)
    found = boss(moments, score="bge", n_starts=5, rng=0, log_odds=log_odds)
    worth = sum(log_odds[edge] for edge in plain.dag.edges())
    assert found.score >= plain.score + worth - 1e-9


def test_a_chain_is_turned_round_where_its_first_step_gains_nothing():
    """Only the last edge of the chain has log-odds, and no single turn of an edge gains."""
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(500, 8))
    for k in range(1, 8):
        cells[:, k] += cells[:, k - 1]
    moments = Moments.from_array(cells)
    for a, b in ((7, 6), (0, 1)):
        log_odds = np.zeros((8, 8))
        log_odds[a, b] = 0.1
        assert (a, b) in boss(moments, log_odds=log_odds, rng=0).dag.edges()


@pytest.mark.parametrize("seed", range(10))
def test_the_best_member_of_a_class(seed, equivalence_class):
    """The best of all graphs of the class, by enumeration; a forest is one of them."""
    rng = np.random.default_rng(seed)
    p = 5
    above = {k: [int(rng.integers(k))] for k in range(1, p)}  # a tree
    if seed % 2:
        above[p - 1] = [0, *above[1]] if 0 not in above[1] else [0, 1]  # and a triangle
    dag = Dag.from_edges(p, [(a, k) for k, rows in above.items() for a in rows])
    log_odds = rng.normal(size=(p, p))
    best, wanted = -np.inf, equivalence_class(dag)
    pairs = sorted(dag.edges())
    for choice in range(2 ** len(pairs)):
        edges = [(b, a) if choice >> k & 1 else (a, b) for k, (a, b) in enumerate(pairs)]
        try:
            other = Dag.from_edges(p, edges)
        except ValueError:
            continue
        if equivalence_class(other) == wanted:
            best = max(best, sum(log_odds[child, parent] for parent, child in edges))
    found = best_member(dag, log_odds)
    assert equivalence_class(found) == wanted
    assert sum(log_odds[b, a] for a, b in found.edges()) == pytest.approx(best)


def test_the_best_member_agrees_with_what_is_known():
    dag = Dag.from_edges(3, [(0, 1), (1, 2)])
    log_odds = np.zeros((3, 3))
    log_odds[1, 2] = 5.0  # a row a child: 2 -> 1
    assert best_member(dag, log_odds).edges() == [(1, 0), (2, 1)]
    prior = PriorKnowledge(3, before=[(0, 1)])
    assert best_member(dag, log_odds, prior) is dag
    context = Dag.from_edges(4, [(0, 1), (1, 2), (3, 0)])
    wide = np.pad(log_odds, (0, 1))
    assert best_member(context, wide, n_context=1).edges() == context.edges()
    assert not Pdag.of_class(context, 1).neighbours[0]


@pytest.mark.parametrize("log_odds", [np.zeros((3, 4)), np.full((4, 4), np.inf)])
def test_log_odds_that_say_nothing_clear_are_refused(simulated, log_odds):
    _, moments = simulated(4, 2, seed=0, n_cells=100)
    with pytest.raises(ValueError, match=r"log_odds must be finite numbers of shape \(4, 4\)"):
        boss(moments, log_odds=log_odds)
