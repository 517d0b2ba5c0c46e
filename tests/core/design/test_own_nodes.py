"""Distances without own nodes, against loops over draws of states that know nothing of `Goal`."""

import numpy as np
import pytest

from nextpert.core.design.distances import ranked_distance
from nextpert.core.design.goal import Goal
from nextpert.core.design.joint_draws import (
    Draw,
    States,
    control_by_node,
    distance_draws,
    slope_draws,
)
from nextpert.core.design.remaining_variance import CellNoise

P, N = 8, 6_000
OWN = [[1], [], [2, 3], [5]]  # a single, one without nodes, a pair, and the target itself
COMMON = [5]


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def brute(states, wanted, weights, own, factor):
    """Return scaled distances, and the control's on the same nodes, by loops."""
    found, control = np.zeros(len(states)), np.zeros(len(states))
    for j in range(len(states)):
        for i in range(P):
            if i in COMMON or i in own[j]:
                continue
            found[j] += factor[j] * weights[i] * (states[j, i] - wanted[i]) ** 2
            control[j] += factor[j] * weights[i] * (states[-1, i] - wanted[i]) ** 2
    return found, control


def factors(by_node, own):
    """Return the control's distance over that on the nodes that count for each."""
    kept = [i for i in range(P) if i not in COMMON]
    whole = sum(by_node[i] for i in kept)
    return np.array([whole / sum(by_node[i] for i in kept if i not in some) for some in own])


def joint(rng, n_draws=40):
    """A posterior of four perturbations, of which the last is the target, and the control."""
    mean = rng.normal(size=(5, P))
    mean[2] = mean[3] + 0.6 * rng.normal(size=P)
    mean[0] = mean[4] + 0.3 * rng.normal(size=P)
    mean[4, 1] = mean[3, 1] + 1.5
    centres = mean + 0.3 * rng.normal(size=(n_draws, 5, P))
    spread = rng.gamma(2.0, 0.15, size=(5, P))
    spread[-1], spread[3, 1] = 0.0, 1.2
    point = centres[:, 3].mean(axis=0)

    def draws(n, _):
        for one in centres:
            yield Draw(
                one.copy(), spread.copy(), n // n_draws, target_error=(one[3] - point)[None],
                target_spread=spread[3:4], target_rows=(3,),
            )  # fmt: skip

    return States(centres.mean(axis=0), draws), centres, spread, point


def of_states(rng, weights, centres, spread, factor, n):
    """Return distances draw by draw; the target is the state that candidate 3 has in the draw."""
    found = []
    for one in centres:
        for _ in range(n // len(centres)):
            states = one + spread * rng.standard_normal(one.shape)
            found.append(brute(states, states[3], weights, [*OWN, []], factor))
    return np.array(found).swapaxes(0, 1)


def test_what_each_node_adds_to_the_distance_of_the_control(rng):
    states, centres, spread, point = joint(rng)
    weights = rng.gamma(1.0, 1.0, P)
    found = control_by_node(states, Goal(np.zeros(P), states=[point], weights=weights))
    exact = np.zeros(P)
    for one in centres:
        for i in range(P):
            exact[i] += weights[i] * ((one[4, i] - one[3, i]) ** 2 + spread[3, i] ** 2)
    np.testing.assert_allclose(found, exact / len(centres))


def test_probabilities_are_those_of_loops_over_drawn_states(rng):
    states, centres, spread, point = joint(rng)
    weights = rng.gamma(2.0, 0.5, P)
    goal = Goal(np.zeros(P), states=[point], weights=weights)
    by_node = control_by_node(states, goal)
    bound = goal.leave_out(COMMON, OWN, by_node)
    factor = factors(by_node, [*OWN, []])
    np.testing.assert_allclose(bound.own_nodes.factor, factor)
    assert factor[-1] == 1.0
    assert factor[2] > 1.05
    exact, control = of_states(rng, weights, centres, spread, factor, 10_000)
    found = ranked_distance(states, bound, n_samples=10_000, rng=0)
    error = 4.5 * exact.std(axis=0) / np.sqrt(5_000)
    assert (np.abs(found.mean - exact.mean(axis=0)) <= error + 1e-9).all()
    np.testing.assert_allclose(
        found.draws.std(axis=0, ddof=1), exact.std(axis=0), rtol=0.08, atol=1e-9
    )
    np.testing.assert_allclose(found.mean[3], 0.0, atol=1e-12)  # the target itself
    nearer = (exact < control).mean(axis=0)
    np.testing.assert_allclose(found.nearer, nearer, atol=0.025)
    assert (found.nearer != (found.draws < found.draws[:, -1:]).mean(axis=0)).any()
    assert 0.1 < nearer[:3].min() < 0.6
    # Of those that are not the target, by one choice a draw.
    few = States(
        states.mean[[0, 1, 2, 4]], lambda n, r: map(without_the_target, states.draws(n, r))
    )
    among = ranked_distance(few, goal.leave_out(COMMON, OWN[:3], by_node), n_samples=10_000, rng=0)
    first = np.bincount(exact[:, :3].argmin(axis=1), minlength=3) / len(exact)
    np.testing.assert_allclose(among.nearest[:3], first, atol=0.025)
    assert first.max() < 0.97
    # The expected state, by the same sum.
    at_mean = brute(states.mean, point, weights, [*OWN, []], factor)[0]
    np.testing.assert_allclose(found.centre, at_mean)


def without_the_target(one):
    rows = [0, 1, 2, 4]
    return Draw(
        one.states[rows], one.spread[rows], one.count, target_error=one.target_error,
        target_spread=one.target_spread, target_rows=(-1,),
    )  # fmt: skip


@pytest.mark.parametrize("spread", [True, False])
def test_distances_are_without_own_nodes_in_every_draw(rng, spread):
    points, weights = rng.normal(size=(2, P)), rng.gamma(1.0, 1.0, P)
    goal = Goal(np.zeros(P), states=points, weights=weights)
    by_node = rng.gamma(1.0, 1.0, P)
    bound, factor = goal.leave_out(COMMON, OWN, by_node), factors(by_node, [*OWN, []])
    # What counts for nobody has no part in it.
    np.testing.assert_array_equal(bound.weights > 0, np.arange(P) != 5)
    states = rng.normal(size=(5, P))
    each = [brute(states, point, weights, [*OWN, []], factor) for point in points]
    exact, control = ((one + other) / 2 for one, other in zip(*each, strict=True))
    drawn = Draw(states, np.zeros((5, P)) if spread else None, 1)
    found, same = distance_draws(bound, drawn, rng, rng)
    np.testing.assert_allclose(found[0], exact)
    np.testing.assert_allclose(same[0], control)
    np.testing.assert_allclose(bound.distance(states), exact)
    for rows in ([3, -1], slice(1, 3)):
        np.testing.assert_allclose(bound.rows(rows).distance(states[rows]), exact[rows])


def test_errors_of_a_target_count_without_own_nodes(rng):
    variance, weights = rng.gamma(1.0, 0.2, P), rng.gamma(1.0, 1.0, P)
    goal = Goal(np.zeros(P), states=[rng.normal(size=P)], variances=[variance], weights=weights)
    by_node = rng.gamma(1.0, 1.0, P)
    assert goal.floor == pytest.approx(weights @ variance)
    bound, factor = goal.leave_out(COMMON, OWN, by_node), factors(by_node, [*OWN, []])
    states = rng.normal(size=(5, P))
    assert bound.rows([2, 0]).floor.tolist() == pytest.approx(bound.floor[[2, 0]])
    for j, own in enumerate([*OWN, []]):
        left = [i for i in range(P) if i not in (*COMMON, *own)]
        assert bound.floor[j] == pytest.approx(factor[j] * (weights * variance)[left].sum())
        slope = 2 * factor[j] * weights * (states[j] - goal.states[0])
        sd = np.sqrt((slope**2 * variance)[left].sum())
        assert bound.error_sd(states)[j] == pytest.approx(sd)


def test_directions_are_without_own_nodes(rng):
    wanted, states, weights = rng.normal(size=P), rng.normal(size=(5, P)), rng.gamma(1.0, 1.0, P)
    goal = Goal(np.zeros(P), states=[wanted], weights=weights, distance="cosine")
    found = goal.leave_out(COMMON, OWN, np.ones(P)).distance(states)
    for j, own in enumerate([*OWN, []]):
        w = np.where([i in (*COMMON, *own) for i in range(P)], 0.0, weights)
        sizes = np.sqrt((w * states[j] ** 2).sum() * (w * wanted**2).sum())
        assert found[j] == pytest.approx(1 - (w * states[j] * wanted).sum() / sizes)


def test_slopes_are_those_of_distances_without_own_nodes(rng):
    states, centres, spread, point = joint(rng)
    weights = rng.gamma(2.0, 0.5, P)
    goal = Goal(np.zeros(P), states=[point], weights=weights)
    by_node = control_by_node(states, goal)
    by_node[[1, 3]] *= 4.0
    bound, factor = goal.leave_out(COMMON, OWN, by_node), factors(by_node, [*OWN, []])
    drawn = Draw(
        centres[0], spread, N, target_error=(centres[0][3] - point)[None],
        target_spread=spread[3:4], target_rows=(3,),
    )  # fmt: skip
    found = slope_draws(bound, states.mean, drawn, np.random.default_rng(1))
    exact = np.zeros((N, 5))
    for k in range(N):
        here = centres[0] + spread * rng.standard_normal((5, P))
        off = here[3] - point
        for j, own in enumerate([*OWN, []]):
            for i in set(range(P)) - {*COMMON, *own}:
                slope = 2 * factor[j] * weights[i] * (states.mean[j, i] - point[i])
                exact[k, j] += slope * (here[j, i] - states.mean[j, i] - off[i])
    error = np.sqrt((found.var(axis=0) + exact.var(axis=0)) / N)
    assert (np.abs(found.mean(axis=0) - exact.mean(axis=0)) < 4.5 * error + 1e-9).all()
    np.testing.assert_allclose(found.std(axis=0), exact.std(axis=0), rtol=0.05, atol=1e-9)


def test_noise_of_cells_is_that_of_the_nodes_that_count(rng):
    weights, point = rng.gamma(1.0, 1.0, P), rng.normal(size=P)
    by_node, states = rng.gamma(1.0, 1.0, P), rng.normal(size=(4, P))
    bound = Goal(np.zeros(P), states=[point], weights=weights).leave_out(COMMON, OWN, by_node)
    own, loadings = rng.gamma(1.0, 1.0, P), rng.normal(size=(P, 2))
    found = CellNoise(own, loadings).terms(bound.rows(slice(0, 4)), states)
    within, factor = np.diag(own) + loadings @ loadings.T, factors(by_node, OWN)
    for j, some in enumerate(OWN):
        out = [i in (*COMMON, *some) for i in range(P)]
        q = factor[j] * np.diag(np.where(out, 0.0, weights))
        delta = states[j] - point
        assert found.linear[j] == pytest.approx(4 * delta @ q @ within @ q @ delta)
        assert found.square[j] == pytest.approx(2 * np.trace(q @ within @ q @ within))
