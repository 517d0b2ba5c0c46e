"""Distances of states: dense joint draws, exact shifts, limits, a noisy target."""

import numpy as np
import pytest

from nextpert.core import Dag, DagBlr, Moments
from nextpert.core.causal.weights import mean_draws
from nextpert.core.design.distances import (
    probability_nearest,
    ranked_distance,
    states_of,
)
from nextpert.core.design.goal import Goal
from nextpert.core.design.joint_draws import Draw, States, slope_draws


@pytest.mark.slow
def test_distances_by_dense_draws(uncertain):
    model = uncertain()
    count, target = 20_000, np.array([0.5, 0.0, 1.0, -1.0])
    states = model.draw(count, np.random.default_rng(3))[:, :-1]
    wanted = ((states - target) ** 2).sum(axis=2)
    found = ranked_distance(model.states, target, n_samples=count, rng=4)
    tolerance = 5 * np.sqrt(2 / count) * wanted.std(axis=0)
    assert (np.abs(found.mean[:-1] - wanted.mean(axis=0)) < tolerance).all()
    np.testing.assert_allclose(found.draws.std(axis=0, ddof=1)[:-1], wanted.std(axis=0), rtol=0.05)
    np.testing.assert_allclose(found.median[:-1], np.median(wanted, axis=0), rtol=0.03)
    # Equation 30: the lower end is that of the shortest interval, or of draws to first order.
    ends = [np.quantile(wanted, [a, a + 0.9], axis=0) for a in np.linspace(0, 0.1, 41)]
    shortest = np.array([low for low, _ in ends])[
        np.argmin([high - low for low, high in ends], axis=0), range(5)
    ]
    m = states.mean(axis=0) - target
    slope = (m**2).sum(axis=1) + 2 * ((states - states.mean(axis=0)) * m).sum(axis=2)
    low = np.minimum(shortest, np.maximum(np.quantile(slope, 0.05, axis=0), 0.0))
    scale = wanted.std(axis=0)
    assert (np.abs(found.low[:-1] - low) < 0.1 * scale).all()
    assert (np.abs(found.high[:-1] - np.quantile(wanted, 0.95, axis=0)) < 0.1 * scale).all()
    assert (found.low[:-1] < shortest - 0.1 * scale).any()
    centre = ((states.mean(axis=0) - target) ** 2).sum(axis=1)
    np.testing.assert_allclose(found.centre[:-1], centre, rtol=0.05, atol=0.05)
    spread = found.mean[:-1] - found.centre[:-1]
    np.testing.assert_allclose(spread, states.var(axis=0).sum(axis=1), rtol=0.1, atol=0.02)
    best = np.eye(5)[wanted.argmin(axis=1)].mean(axis=0)
    assert (np.abs(found.nearest[:-1] - best) < 5 * np.sqrt(0.5 / count)).all()
    assert found.nearest[:-1].sum() == pytest.approx(1)
    assert (best > 0.05).sum() > 1  # so that the order is open


def test_the_last_state_is_that_of_the_controls(fit_twice, graphs):
    _, blr = fit_twice(graphs["sparse"], intercept=True, known=False, n=200)
    shifts, rng = np.random.default_rng(0).normal(size=(3, 6)), np.random.default_rng
    states = states_of(blr, shifts)
    np.testing.assert_allclose(states.mean[-1], blr.predict_mean(np.zeros(6)))
    np.testing.assert_allclose(states.mean[:-1], blr.predict_mean(shifts))
    target = states.mean[-1] + 0.1
    ranked = ranked_distance(states, target, n_samples=400, rng=0)
    found = np.array(list(mean_draws([blr], shifts, n_samples=400, rng=rng(0))))
    other = ((found - target) ** 2).sum(axis=2)
    np.testing.assert_allclose(ranked.draws, other, rtol=1e-12)
    np.testing.assert_allclose(ranked.nearer, (other < other[:, -1:]).mean(axis=0))
    assert ranked.nearest[-1] == ranked.nearer[-1] == 0
    for last_is_nearest in (False, True):
        goal = states.mean[-2] if last_is_nearest else target
        ranked = ranked_distance(states, goal, n_samples=400, rng=0)
        other = ((found - goal) ** 2).sum(axis=2)
        np.testing.assert_allclose(ranked.mean, other.mean(axis=0), rtol=1e-9)


@pytest.mark.slow
def test_a_noisy_target_leaves_distances_unbiased_and_intervals_honest():
    count, blr = 60, DagBlr(Dag.from_edges(3, []), noise_var=1.0, intercept=False)
    states = np.array([[0.0, 0.0, 0.0], [0.3, 0.1, 0.0], [1.0, -1.0, 0.5]])
    known, rng = states_of(blr, states), np.random.default_rng(0)
    sd = np.array([0.1, 0.3, 0.2])
    truth = np.append((states**2).sum(axis=1), 0.0)  # the target is the first state
    found = [
        ranked_distance(known, Goal.point(sd * rng.normal(size=3), sd**2), n_samples=200, rng=rng)
        for _ in range(count)
    ]
    means = np.array([f.mean for f in found])
    error = means.std(axis=0) / np.sqrt(count)
    centres = np.array([f.centre for f in found])
    assert (np.abs(centres.mean(axis=0) - truth) < 5 * error).all()
    assert (np.abs(means.mean(axis=0) - truth) < 5 * error).all()
    inside = np.mean([(f.low <= truth) & (truth <= f.high) for f in found], axis=0)
    chance = 3.3 * np.sqrt(0.09 / count)
    assert (inside > 0.9 - chance).all()
    assert inside[2] < 0.9 + chance  # not by being wide: there the error is nearly normal


def test_ties_are_split_and_no_perturbation_is_no_error():
    assert probability_nearest(np.array([[1.0, 1.0]])).tolist() == [0.5, 0.5]
    blr = DagBlr(Dag.from_edges(1, []), noise_var=1.0, intercept=False)
    found = ranked_distance(states_of(blr, np.empty((0, 1))), [2.0], n_samples=2)
    assert found.mean.tolist() == found.centre.tolist() == [4.0]


def joint_states(rng, n=4, p=3, n_targets=1):
    """States that go together with target states: the means, those of the goal, and draws."""
    root = rng.normal(size=((n + 1 + n_targets) * p,) * 2) / 3
    mean = rng.normal(size=(n + 1 + n_targets, p))

    def draws(n_samples, generator):
        for _ in range(n_samples):
            x = mean + (root @ generator.standard_normal(len(root))).reshape(mean.shape)
            yield Draw(x[: n + 1], target_error=x[n + 1 :] - mean[n + 1 :])

    return States(mean[: n + 1], draws), mean[n + 1 :], root @ root.T


@pytest.mark.slow
@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.5]])
def test_a_target_of_the_same_draws_is_drawn_with_the_candidates(shares):
    rng = np.random.default_rng(5)
    states, wanted, cov = joint_states(rng, n_targets=len(shares))
    n, p = states.mean.shape
    goal = Goal(np.zeros(p), states=wanted)
    found = ranked_distance(states, goal, n_samples=4_000, rng=1)
    blocks = cov.reshape(n + len(shares), p, n + len(shares), p)

    def between(i, j):
        return np.trace(blocks[i, :, j])

    expected = np.array([
        sum(
            c * (((states.mean[i] - m) ** 2).sum() + between(i, i) + between(n + k, n + k)
                 - 2 * between(i, n + k))
            for k, (c, m) in enumerate(zip(shares, wanted, strict=True))
        )
        for i in range(n)
    ])  # fmt: skip
    assert (
        np.abs(found.mean - expected) < 5 * found.draws.std(axis=0, ddof=1) / np.sqrt(4_000)
    ).all()
    np.testing.assert_allclose(found.centre, goal.distance(states.mean, states.mean[-1]))


@pytest.mark.slow
def test_what_is_known_of_another_target_is_added_to_what_is_drawn():
    rng = np.random.default_rng(6)
    states, wanted, _ = joint_states(rng)
    p = states.mean.shape[1]
    other, variance = rng.normal(size=p), np.full(p, 0.3)
    both = Goal(np.zeros(p), states=[wanted[0], other], variances=[None, variance])

    def padded(n_samples, generator):
        for drawn in states.draws(n_samples, generator):
            yield Draw(drawn.states, target_error=np.vstack([drawn.target_error, np.zeros(p)]))

    asked = {"n_samples": 4_000, "rng": 2}
    found = ranked_distance(States(states.mean, padded), both, **asked)
    own = ranked_distance(states, Goal.point(wanted[0]), **asked)
    alone = Goal.point(other, variance)
    told = ranked_distance(states._replace(draws=no_error(states)), alone, **asked)
    error = 5 * (own.draws.std(axis=0) + told.draws.std(axis=0)) / 2 / np.sqrt(4_000)
    assert (np.abs(found.mean - (own.mean + told.mean) / 2) < error).all()


def no_error(states):
    """Return draws of the same states, of which no target is one."""
    return lambda n, rng: (Draw(drawn.states) for drawn in states.draws(n, rng))


def first_order(states, goal, n_samples, rng):
    """Return distances of expected states, and draws of them to first order."""
    generator, expected = np.random.default_rng(rng), goal.distance(states.mean, states.mean[-1])
    slopes = [
        slope_draws(goal, states.mean, one, generator) for one in states.draws(n_samples, generator)
    ]
    return expected[:-1], (expected + np.concatenate(slopes))[:, :-1]


def test_to_first_order_the_target_moves_with_its_draw():
    states, wanted, _ = joint_states(np.random.default_rng(7))
    expected, draws = first_order(states, Goal.point(wanted[0]), 7, 3)
    apart = states.mean[:-1] - wanted[0]
    np.testing.assert_allclose(expected, (apart**2).sum(axis=1))
    for drawn, got in zip(states.draws(7, np.random.default_rng(3)), draws, strict=True):
        moved = (drawn.states - states.mean)[:-1] - drawn.target_error[0]
        np.testing.assert_allclose(got, expected + 2 * (apart * moved).sum(axis=1), atol=1e-8)


def test_to_first_order_by_gradients_and_a_bound_only_where_it_is_missed():
    rng = np.random.default_rng(0)
    blr = DagBlr(Dag.from_edges(3, [(0, 1), (1, 2)]))
    blr = blr.update(Moments.from_array(rng.normal(size=(40, 3)) + 1))
    states, target = states_of(blr, rng.normal(size=(4, 3))), np.array([1.0, -1.0, 0.5])
    centre = states.mean[:-1]
    expected, draws = first_order(states, Goal.point(target), 30, 1)
    np.testing.assert_allclose(expected, ((centre - target) ** 2).sum(axis=1), rtol=1e-12)
    for drawn, got in zip(states.draws(30, np.random.default_rng(1)), draws, strict=True):
        moved = ((centre - target) * (drawn.states[:-1] - centre)).sum(axis=1)
        np.testing.assert_allclose(got, expected + 2 * moved, rtol=1e-8)
    for bound, is_missed in ((50.0, True), (-50.0, False)):
        goal = Goal(np.zeros(3), low=[-np.inf, bound, -np.inf])
        expected, draws = first_order(states, goal, 400, 2)
        np.testing.assert_allclose(expected, is_missed * (50 - centre[:, 1]) ** 2, rtol=1e-10)
        assert (draws.std() > 0) == is_missed
