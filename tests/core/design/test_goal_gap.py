"""The gap that stands in for a goal: influence by dense inverses, weighted terms, plain goals."""

from __future__ import annotations

import numpy as np
import pytest
from nextpert.core.design.uncertain_civ import UncertainCiv, goal_gap
from nextpert.core.model.shift_posterior import pair_shifts

from nextpert.core import Dag, DagBlr, ShiftPosterior, uncertain_values
from nextpert.core.design.distances import expected_states, ranked_distance
from nextpert.core.design.goal import Goal

TARGET = np.array([0.5, -0.3, 1.0, 0.2])
WEIGHTS = np.array([0.0, 3.0, 0.0, 1.0])
SCALE = np.array([1.0, 0.5, 2.0, 4.0])
ACQUISITIONS = ("civ", "civ_ow", "greedy", "ei", "probability", "thompson")


def influence(blr):
    """``A_ki^2``, by a dense inverse."""
    return np.linalg.inv(np.eye(4) - np.asarray(blr.mean().todense())) ** 2


def test_a_node_counts_for_what_it_moves(uncertain):
    model = uncertain()
    goal = Goal(np.zeros(4), states=[TARGET], weights=WEIGHTS, scale=SCALE)
    point, weights = goal_gap(pair_shifts(model.blr, model.known), goal)
    a2, total = influence(model.blr), WEIGHTS * SCALE
    wanted = [
        SCALE[i] * sum(a2[k, i] * total[k] for k in range(4))
        / sum(a2[k, i] * SCALE[k] for k in range(4))
        for i in range(4)
    ]  # fmt: skip
    np.testing.assert_allclose(weights, wanted)
    assert (a2 > 0).sum() > 6  # so that nodes do move others
    at = expected_states(pair_shifts(model.blr, model.known))
    best = at[goal.distance(at, at[-1]).argmin()]
    np.testing.assert_allclose(point, np.where(WEIGHTS > 0, TARGET, best))
    scaled = Goal(np.zeros(4), states=[TARGET], scale=SCALE)
    _, weights = goal_gap(pair_shifts(model.blr, model.known), scaled)
    np.testing.assert_array_equal(weights, SCALE)  # that of nodes so scaled


@pytest.mark.parametrize("scatter", [False, True])
def test_weighted_terms_by_gaps_of_single_nodes(scatter, uncertain):
    models = [uncertain(seed) for seed in range(2)]
    blrs, known = [m.blr for m in models], [m.known for m in models]
    goal = Goal(np.zeros(4), states=[TARGET], scale=SCALE)
    found = UncertainCiv(blrs, known, goal, n_cells=7, noise_aware=scatter)
    # E g and Var g within a graph are sums over nodes: those of goals that see one node alone.
    one, each = np.eye(4), []
    for i in range(4):
        alone = UncertainCiv(blrs, known, TARGET, n_cells=7, noise_aware=scatter)
        alone._node = one[i]
        within = [
            UncertainCiv(b, k, TARGET, n_cells=7, noise_aware=scatter)
            for b, k in zip(blrs, known, strict=True)
        ]
        for civ in within:
            civ._node = one[i]
        each.append([civ.gap_moments() for civ in within])
    each = np.array(each)  # node, graph, mean or variance, candidate
    means = np.einsum("i,igj->gj", SCALE, each[:, :, 0])
    variances = np.einsum("i,igj->gj", SCALE**2, each[:, :, 1])
    for blr, shifts in zip(blrs, known, strict=True):
        given = {"n_cells": 7, "noise_aware": scatter}
        whole = UncertainCiv(blr, shifts, goal, **given)
        parts = [UncertainCiv(blr, shifts, TARGET, **given) for _ in range(4)]
        for i, civ in enumerate(parts):
            civ._node = one[i]
        wanted = SCALE**2 @ [civ.values() for civ in parts]
        np.testing.assert_allclose(whole.values(), wanted)
    mean, variance = found.gap_moments()
    np.testing.assert_allclose(mean, means.mean(axis=0))
    np.testing.assert_allclose(variance, variances.mean(axis=0) + means.var(axis=0))


def test_plain_goals_change_nothing(uncertain):
    model = uncertain()
    plain = Goal.point(TARGET)
    for acquisition in ACQUISITIONS:
        given = [
            uncertain_values(acquisition, model.blr, model.known, target, n_cells=5, rng=1)
            for target in (TARGET, plain)
        ]
        np.testing.assert_array_equal(*given)


@pytest.mark.slow
def test_acquisitions_take_any_goal(uncertain):
    model = uncertain()
    goals = {
        "signature": Goal(np.zeros(4), signature=[0, 1.0, 0, -1]),
        "region": Goal(np.zeros(4), low=[-np.inf, 1, -np.inf, -np.inf]),
        "direction": Goal(np.zeros(4), signature=[0, 1.0, 0, -1], direction_only=True),
        "away": Goal(np.zeros(4), states=[TARGET], away_from=[-TARGET], margins=[4.0]),
    }
    for goal in goals.values():
        for acquisition in ACQUISITIONS:
            found = uncertain_values(acquisition, model.blr, model.known, goal, n_cells=5, rng=1)
            assert np.isfinite(found).all()
        found = ranked_distance(model.blr, model.known, goal, rng=1)
        greedy = uncertain_values("greedy", model.blr, model.known, goal)
        np.testing.assert_allclose(greedy, found.centre[:-1])
        drawn = uncertain_values("probability", model.blr, model.known, goal, rng=1)
        np.testing.assert_allclose(drawn, -found.nearest[:-1])


def test_cells_are_taken_where_the_goal_looks():
    # Two independent edges; of which of them to learn depends on what is wanted.
    dag = Dag.from_edges(4, [(0, 1), (2, 3)])
    blr = DagBlr(dag, noise_var=1.0, intercept=False, prior_scale=1.0)
    known = ShiftPosterior.exact([[2.0, 0, 0, 0], [0, 0, 2.0, 0]])
    for best, counts in enumerate(([1, 1, 0, 0], [0, 0, 1, 1])):
        goal = Goal(np.zeros(4), states=[np.full(4, 2.0)], weights=counts)
        assert UncertainCiv(blr, known, goal, n_cells=10).values().argmin() == best
