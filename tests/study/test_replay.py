"""Campaigns by a model, on pools of cells: what they draw, find, and expect before any cell."""

from __future__ import annotations

import numpy as np
import pytest

from nextpert.core import Dag, DagBlr, random_scm
from nextpert.core.evaluate import BY_MEANS, CellPool, replay_plates
from nextpert.core.fit.interventions import Plan
from nextpert.core.fit.learn import Graphs, Spec
from nextpert.core.fit.naming import Naming
from nextpert.study.replay import Setting, known_strategies
from tests.core.evaluate.test_plates import J, P, make_pool

pytestmark = [pytest.mark.slow, pytest.mark.brief_chain]


def run(pool, deal, strategy, *, dag=None, own=None, rng=0, **options):
    """A campaign on a pool whose perturbations target genes ``own``, or none that is measured."""
    p, n = pool.control.shape[1], len(pool.n_cells)
    genes = [f"G{i}" for i in range(p)]
    targets = [[] if own is None else [genes[own[j]]] for j in range(n)]
    plan = Plan([f"P{j}" for j in range(n)], targets, [], "knockout")
    spec = Spec(genes, plan, DagBlr, Naming(frozenset(genes)))
    graphs = Graphs.single(Dag.from_edges(p, []) if dag is None else dag)
    chosen = known_strategies(Setting(spec, graphs, guided=False))[strategy]
    return replay_plates(pool, deal, chosen, np.random.default_rng(rng), **options)


@pytest.mark.parametrize("strategy", ["exploit", "explore", "both", "ei", "random", *BY_MEANS])
def test_cells_are_drawn_once_and_from_candidates_alone(strategy):
    pool, may = make_pool(), [0, 2, 4, 5]
    deal = pool.deal(4, 50, rng=2)
    options = {"candidates": may, "n_rounds": 7, "n_perturbations": 3, "n_cells": 25}
    result, again = (run(pool, deal, strategy, rng=5, **options) for _ in range(2))
    np.testing.assert_array_equal(result.chosen, again.chosen)
    np.testing.assert_array_equal(result.recommended, again.recommended)
    assert set(result.recommended) <= set(may)
    assert set(result.chosen[result.chosen >= 0]) <= set(may)
    for plate in result.chosen:
        kept = plate[plate >= 0]
        assert len(kept) == len(set(kept))
    for j in may:
        assert (result.chosen == j).sum() == -(-len(deal.orders[j]) // 25)  # all of them
    assert (result.chosen[-1] < 0).all()
    assert result.recommended[-1] == result.recommended[-2]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["exploit", "ei", "thompson", "explore", "random"])
def test_a_target_that_stands_out_is_found(strategy):
    found = []
    pool = make_pool(200, size=4.0, seed=1)
    for t in range(J):
        deal = pool.deal(t, 100, rng=t)
        result = run(pool, deal, strategy, n_rounds=3, n_perturbations=3, rng=t)
        found.append(result.recommended[-1] == t)
    assert np.mean(found) > 0.75


@pytest.mark.parametrize("strategy", ["exact_greedy", "exact_civ", "exact_exploit"])
def test_exact_shifts_that_are_right_need_no_cells(strategy):
    rng, scm = np.random.default_rng(0), random_scm(P, rng=3)
    full = 3.0
    control = scm.sample(2000, rng=rng)
    control += full - control.mean(axis=0)  # a full knockout is minus this mean
    cells = [scm.sample(100, -full * (np.arange(P) == j), rng=rng) + full for j in range(P)]
    pool = CellPool(control, cells)
    for t in range(P):
        deal = pool.deal(t, 1500, rng=t)
        result = run(pool, deal, strategy, dag=scm.dag, own=range(P), n_rounds=1)
        assert result.recommended.tolist() == [t, t]


@pytest.mark.parametrize("n_rounds", [0, 1])
def test_a_measured_own_gene_points_to_its_perturbation(n_rounds):
    rng = np.random.default_rng(0)
    mean = np.full(P, 2.0)
    cells = [rng.normal(mean - 1.5 * (np.arange(P) == j), 0.3, (40, P)) for j in range(P)]
    pool = CellPool(rng.normal(mean, 0.3, (100, P)), cells)
    for t in range(P):
        deal = pool.deal(t, 50, rng=t)
        result = run(pool, deal, "random", own=range(P), n_rounds=n_rounds, n_perturbations=3)
        assert (result.recommended == t).all()
