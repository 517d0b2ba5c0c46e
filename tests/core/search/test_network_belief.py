"""Belief in prior networks: its evidence and likelihood by brute force, and what it does."""

import itertools

import numpy as np
import pytest

from nextpert.core import (
    Dag,
    PriorKnowledge,
    ScreenMoments,
    boss,
    boss_with_network,
    context_moments,
    random_scm,
)
from nextpert.core.graph._equivalence import Pdag
from nextpert.core.search.network_belief import edge_evidence, estimate_belief

PENALTY = 2.0


def is_acyclic(edges):
    try:
        Dag.from_matrix(edges)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("seed", range(4))
def test_evidence_is_that_of_dense_regressions(seed):
    p, q = 6, 2
    rng = np.random.default_rng(seed)
    scm = random_scm(p, "erdos_renyi", expected_degree=3, standardise=True, rng=rng)
    shifts = np.vstack([np.zeros(p), rng.normal(size=(q, p)) * (rng.random((q, p)) < 0.3)])
    cells = np.vstack([scm.sample(80, shift=shift, rng=rng) for shift in shifts])
    groups = np.repeat(np.arange(q + 1), 80)
    indicators = np.eye(q + 1)[:, 1:]
    moments = context_moments(ScreenMoments.from_array(cells, groups, q + 1), indicators)
    found = boss(moments, n_context=q, rng=0)
    got, score_odds = edge_evidence(moments, found.dag, found.context_edges, n_context=q)
    full, n = np.c_[cells, indicators[groups]], len(cells)
    assert score_odds == pytest.approx(-0.5 * np.log(n))
    edges = found.dag.to_matrix().toarray() != 0

    def fit(child, parents):
        columns = [*parents, *(p + np.flatnonzero(found.context_edges[:, child]))]
        design = np.c_[np.ones(n), full[:, columns]]
        left = full[:, child] - design @ np.linalg.lstsq(design, full[:, child], rcond=None)[0]
        return -n / 2 * np.log(left @ left)

    whole = np.zeros((p + q, p + q))
    whole[:p, :p], whole[p:, :p] = edges, found.context_edges
    class_ = Pdag.of_class(Dag.from_matrix(whole), q)
    for parent, child in itertools.permutations(range(p), 2):
        others = np.flatnonzero(edges[:, child] & (np.arange(p) != parent))
        wanted = fit(child, [*others, parent]) - fit(child, others) - 0.5 * np.log(n)
        turned = edges.copy()
        turned[child, parent], turned[parent, child] = False, True
        if parent in class_.neighbours[child] and edges[child, parent]:
            assert got[parent, child] == got[child, parent]
        elif is_acyclic(turned):
            assert got[parent, child] == pytest.approx(wanted, abs=1e-6)
        else:
            assert got[parent, child] == -np.inf
    assert np.isnan(np.diag(got)).all()


def test_pairs_known_before_are_not_looked_at(simulated):
    _, moments = simulated(5, 2, seed=0, n_cells=200)
    prior = PriorKnowledge(5, before=[(0, 1)], forbidden=[(2, 3)])
    found = boss(moments, prior=prior, score="bge", rng=0)
    got, score_odds = edge_evidence(
        moments, found.dag, found.context_edges, prior=prior, score="bge"
    )
    unknown = np.isnan(got) & ~np.eye(5, dtype=bool)
    assert sorted(map(tuple, np.argwhere(unknown).tolist())) == [(0, 1), (1, 0), (2, 3), (3, 2)]
    assert score_odds == 0.0


def log_likelihood(state, weights, base, along, against):
    """Of the network's pairs, one state after the other."""
    total, p = 0.0, len(state)
    start = base / 2 / (1 - base)
    for a, b in itertools.combinations(range(p), 2):
        if np.isnan(state[a, b]) or not (weights[a, b] or weights[b, a]):
            continue
        odds = []
        for i, j in ((a, b), (b, a)):
            power = along * weights[i, j] if weights[i, j] else against * weights[j, i]
            odds.append((start * np.exp(power), np.exp(state[i, j])))
        total += np.log(1 + sum(o * e for o, e in odds)) - np.log(1 + sum(o for o, _ in odds))
    return total


@pytest.mark.parametrize("seed", range(3))
def test_the_estimate_is_the_highest_of_a_grid(seed):
    rng = np.random.default_rng(seed)
    p = 20
    truth = np.triu(rng.random((p, p)) < 0.15, 1)
    state = rng.normal(-3, 1, (p, p)) + 8 * truth
    weights = np.where(truth & (rng.random((p, p)) < 0.6), 1.0, 0.0)
    weights[rng.integers(0, 8, 12), rng.integers(8, 16, 12)] = 1.0
    weights[weights > 0] *= rng.uniform(0.5, 1.5, int((weights > 0).sum()))
    np.fill_diagonal(weights, 0)
    np.fill_diagonal(state, np.nan)
    got = estimate_belief(state, weights)

    def objective(along, against):
        logits = np.array([got.base_odds + along, got.base_odds + against, 0.0])
        shares = np.array([got.base / 2, got.base / 2, 1 - got.base])
        pseudo = shares @ (logits - np.log(np.exp(logits).sum()))
        return log_likelihood(state, weights, got.base, along, against) + 4 * pseudo

    grid = [(a, b) for a in np.linspace(-2, 8, 41) for b in np.linspace(-6, 4, 41)]
    assert objective(got.along, got.against) >= max(objective(*at) for at in grid) - 1e-4
    n_pairs = int(((weights > 0) | (weights.T > 0)).sum() // 2)
    gain = log_likelihood(state, weights, got.base, got.along, got.against) - log_likelihood(
        state, weights, got.base, 0, 0
    )
    assert got.evidence == pytest.approx(gain - np.log(n_pairs), abs=1e-6)
    a, b = np.nonzero(np.triu((weights == 0) & (weights.T == 0), 1))
    outside = np.log((np.exp(state[a, b]) + np.exp(state[b, a])) / 2)
    shares = np.linspace(0.001, 0.5, 500)
    fits = [np.log(1 - s + s * np.exp(outside)).sum() + 0.5 * np.log(s * (1 - s)) for s in shares]
    assert got.base == pytest.approx(shares[int(np.argmax(fits))], abs=0.002)


def _network(dag, right, rng):
    """Half of the true edges and so many others that a share is right."""
    edges = dag.to_matrix().toarray() != 0
    true = rng.permutation(np.argwhere(edges))[: edges.sum() // 2]
    other = rng.permutation(np.argwhere(~edges & ~np.eye(len(edges), dtype=bool)))
    out = np.zeros(edges.shape)
    out[tuple(true.T)] = 1.0
    out[tuple(other[: round(len(true) * (1 - right) / right)].T)] = 1.0
    return out


@pytest.mark.slow
def test_a_network_that_is_mostly_right_turns_edges_the_right_way(simulated):
    errors = np.zeros(2)
    for seed in range(6):
        scm, moments = simulated(36, 8, seed=seed, n_cells=500)
        network = _network(scm.dag, 0.7, np.random.default_rng(seed))
        found, belief = boss_with_network(moments, network, n_starts=3, rng=0)
        plain = boss(moments, n_starts=3, rng=0)
        truth = set(scm.dag.edges())
        errors += [len(truth ^ set(result.dag.edges())) for result in (plain, found)]
        assert belief.along > 2
        assert belief.along > belief.against
        assert belief.n_along > 0.6 * belief.n_edges
        worth = belief.log_odds[network > 0]
        assert np.all(worth == belief.along)
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.slow
def test_a_random_network_changes_nothing(simulated):
    believed = 0
    for seed in range(20):
        _, moments = simulated(20, 4, seed=seed, n_cells=500)
        rng = np.random.default_rng(seed)
        network = np.zeros(400)
        network[rng.choice(400, 40, replace=False)] = 1.0
        found, belief = boss_with_network(moments, network.reshape(20, 20), rng=0)
        plain = boss(moments, rng=0)
        if belief.along == 0:
            assert found.dag.edges() == plain.dag.edges()
            assert found.score == plain.score
            assert not belief.log_odds.any()
        believed += belief.along != 0
    assert believed <= 2


def test_a_network_of_all_true_edges_lets_no_false_one_in(simulated):
    """Nothing else is an edge then, and edges of the network are not to be had for nothing."""
    scm, moments = simulated(36, 4, seed=1, n_cells=500)
    rng = np.random.default_rng(0)
    edges = scm.dag.to_matrix().toarray() != 0
    false = np.zeros(edges.shape, bool)
    false[tuple(rng.permutation(np.argwhere(~edges & ~np.eye(36, dtype=bool)))[:30].T)] = True
    found, belief = boss_with_network(moments, (edges | false).astype(float), rng=0)
    assert belief.along < 5  # the score's own log-odds are 3.1
    assert (found.dag.to_matrix().toarray() != 0)[false].sum() <= 2


def test_weights_say_which_edges_are_believed_more(simulated):
    scm, moments = simulated(36, 8, seed=2, n_cells=500)
    network = _network(scm.dag, 0.9, np.random.default_rng(0))
    signed = network * np.random.default_rng(1).choice([-1, 1], network.shape)
    equal = boss_with_network(moments, network, rng=0)[1]
    assert np.array_equal(boss_with_network(moments, 7 * signed, rng=0)[1].log_odds, equal.log_odds)
    weighted = network * np.random.default_rng(1).uniform(0.5, 1.5, network.shape)
    belief = boss_with_network(moments, weighted, rng=0)[1]
    some = weighted[network > 0]
    assert np.array_equal(np.argsort(belief.log_odds[network > 0]), np.argsort(some))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (np.zeros((6, 6)), "no edge between two of the nodes"),
        (np.eye(6), "no edge between two of the nodes"),
        (np.ones((5, 5)), r"shape \(6, 6\)"),
        (np.full((6, 6), np.nan), "finite"),
    ],
)
def test_networks_that_say_nothing_are_refused(simulated, network, message):
    _, moments = simulated(6, 2, seed=0, n_cells=100)
    with pytest.raises(ValueError, match=message):
        boss_with_network(moments, network)


def test_log_odds_of_ones_own_are_refused(simulated):
    _, moments = simulated(6, 2, seed=0, n_cells=100)
    with pytest.raises(TypeError, match="use boss for log-odds of your own"):
        boss_with_network(moments, np.ones((6, 6)), log_odds=np.ones((6, 6)))
