"""Distances drawn from what is known given the rest of a draw, against draws of every state."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ks_2samp

from nextpert.core.design.goal import Goal
from nextpert.core.design.joint_draws import Draw, distance_draws, slope_draws

N = 8_000


def draw(rng, n=4, p=9, rows=()):
    """One draw of states with own parts, of which some are targets, and the goal's states."""
    states, spread = rng.normal(size=(n + 1, p)), rng.gamma(1.0, 0.5, size=(n + 1, p))
    spread[-1] = 0.0
    if not rows:
        return Draw(states, spread, N), rng.normal(size=(2, p))
    index = np.array(rows)[:, None]
    points = np.where(index >= 0, states[rows,] + 0.1, rng.normal(size=(len(rows), p)))
    return Draw(
        states, spread, N,
        target_error=np.where(index >= 0, states[rows,] - points, 0.0),
        target_spread=np.where(index >= 0, spread[rows,], 0.0), target_rows=rows,
    ), points  # fmt: skip


def both(goal, drawn):
    """Return draws of distances by sums over genes, and by states drawn one by one."""
    rng, own = np.random.default_rng(1), np.random.default_rng(2)
    each = (
        goal.distance(one.states, one.states[-1], errors(goal, one, own))
        for one in drawn.sampled(np.random.default_rng(3))
    )
    return distance_draws(goal, drawn, rng, own)[0], np.array(list(each))


def errors(goal, one, own):
    return sum(x for x in (goal.draw_errors(own), one.target_error) if x is not None)


def goals(points, p, rng):
    variance = [rng.gamma(1.0, 0.1, p), None]
    options = {"weights": rng.gamma(1.0, 1.0, p), "scale": rng.gamma(2.0, 0.5, p)}
    return [
        Goal(np.zeros(p), states=points[:1]),
        Goal(np.zeros(p), states=points, **options),
        Goal(np.zeros(p), states=points, variances=variance, **options),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("rows", [(), (1, -1), (1, 2)])
def test_distances_have_the_distribution_of_those_of_states(rows, which):
    rng = np.random.default_rng(len(rows) + sum(rows))
    drawn, points = draw(rng, rows=rows)
    if which == 0 and rows:
        drawn = replace(
            drawn, target_error=drawn.target_error[:1], target_spread=drawn.target_spread[:1],
            target_rows=rows[:1],
        )  # fmt: skip
    goal = goals(points, 9, rng)[which]
    sums, states = both(goal, drawn)
    assert sums.shape == states.shape == (N, 5)
    error = np.sqrt((sums.var(axis=0) + states.var(axis=0)) / N)
    assert (np.abs(sums.mean(axis=0) - states.mean(axis=0)) < 4.5 * error + 1e-9).all()
    np.testing.assert_allclose(sums.std(axis=0), states.std(axis=0), rtol=0.09, atol=1e-9)
    for one, other in zip(sums.T, states.T, strict=True):
        if other.std() > 1e-9:
            assert ks_2samp(one, other).statistic < 0.039  # 0.0308 is the 99.9% point of chance
    # Errors of targets are common to all: distances go together as those of states.
    alike = [np.corrcoef(x.T[x.std(axis=0) > 1e-9]) for x in (sums, states)]
    np.testing.assert_allclose(*alike, atol=0.07)
    if which == 0 and rows:
        np.testing.assert_allclose(sums[:, rows[0]], 0.0, atol=1e-12)


@pytest.mark.slow
def test_a_few_large_genes_among_many_keep_their_distribution():
    rng = np.random.default_rng(0)
    for large in range(8):
        spread = np.append(np.full(large, 2.0), rng.gamma(1.0, 0.1, 20))
        drawn = Draw(
            np.vstack([np.append(np.full(large, 2.0), rng.normal(size=20)), np.zeros(large + 20)]),
            np.vstack([spread, 0.0 * spread]), 2 * N,
        )  # fmt: skip
        goal = Goal.point(np.zeros(large + 20))
        sums = distance_draws(goal, drawn, np.random.default_rng(1), rng)[0]
        states = drawn.states[0] + spread * rng.normal(size=(2 * N, large + 20))
        assert ks_2samp(sums[:, 0], (states**2).sum(axis=1)).statistic < 0.027


def test_without_own_parts_distances_are_exact():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(3, 4))
    goal = Goal.point(np.ones(4))
    exact = goal.distance(states)
    for spread in (None, np.zeros((3, 4))):
        found = distance_draws(goal, Draw(states, spread, 1), rng, rng)[0]
        np.testing.assert_allclose(found, exact[None])


@pytest.mark.parametrize("goal", ["bounds", "signature", "direction"])
def test_other_goals_are_asked_draw_by_draw(goal):
    drawn, points = draw(np.random.default_rng(0))
    drawn = replace(drawn, count=30)
    wanted = {
        "bounds": Goal(np.zeros(9), low=np.zeros(9)),
        "signature": Goal(np.zeros(9), signature=points[0]),
        "direction": Goal(np.zeros(9), states=points[:1], distance="cosine"),
    }[goal]
    found = distance_draws(wanted, drawn, np.random.default_rng(5), np.random.default_rng(6))[0]
    each = drawn.sampled(np.random.default_rng(5))
    exact = [wanted.distance(one.states, one.states[-1]) for one in each]
    np.testing.assert_array_equal(found, exact)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [(), (1, -1), (1, 2)])
def test_slopes_have_the_distribution_of_those_of_states(rows):
    rng = np.random.default_rng(7)
    drawn, points = draw(rng, rows=rows)
    goal, mean = goals(points, 9, rng)[1], drawn.states + 0.05 * rng.normal(size=(5, 9))
    found = slope_draws(goal, mean, drawn, np.random.default_rng(1))

    def moved(one, step):
        off = None if one.target_error is None else step * one.target_error
        return goal.distance(mean + step * (one.states - mean), None, off)

    each = drawn.sampled(np.random.default_rng(2))
    exact = np.array([(moved(one, 1e-3) - moved(one, -1e-3)) / 2e-3 for one in each])
    error = np.sqrt((found.var(axis=0) + exact.var(axis=0)) / N)
    assert (np.abs(found.mean(axis=0) - exact.mean(axis=0)) < 4.5 * error + 1e-9).all()
    np.testing.assert_allclose(found.std(axis=0), exact.std(axis=0), rtol=0.03, atol=1e-9)
    # The controls have no own part, and no slope but that of an error of the target.
    alike = [np.corrcoef(x[:, :-1].T) for x in (found, exact)]
    np.testing.assert_allclose(*alike, atol=0.04)


def test_without_own_parts_slopes_are_exact():
    rng = np.random.default_rng(3)
    states, mean, points = (rng.normal(size=(n, 6)) for n in (4, 4, 2))
    goal, off = goals(points, 6, rng)[1], rng.normal(size=(2, 6))
    drawn = Draw(states, None, 1, target_error=off, target_rows=(-1, -1))
    found = slope_draws(goal, mean, drawn, rng)
    ends = [goal.distance(mean + step * (states - mean), None, step * off) for step in (0.5, -0.5)]
    np.testing.assert_allclose(found, [ends[0] - ends[1]])  # of a square, exact at any step
