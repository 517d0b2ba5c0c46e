"""Distances to goals of every kind: loops, projections by search, and forms that must agree."""

import numpy as np
import pytest
from scipy.optimize import minimize

from nextpert.core import Dag, DagBlr
from nextpert.core.design.distances import ranked_distance, states_of
from nextpert.core.design.goal import Goal, as_goal

P = 4


def rich(seed=0, **options):
    """A goal with every part, and its parts by name."""
    rng = np.random.default_rng(seed)
    parts = {
        "origin": rng.normal(size=P),
        "states": rng.normal(size=(2, P)),
        "signature": rng.normal(size=P),
        "low": np.array([-0.5, -np.inf, 0.2, -np.inf]),
        "high": np.array([0.5, np.inf, np.inf, -0.3]),
        "away_from": rng.normal(size=(2, P)),
        "away_weight": 1.7,
        "weights": np.array([0.5, 2.0, 1.0, 0.0]),
        "scale": np.array([1.0, 0.3, 4.0, 2.0]),
    } | options
    return Goal(**parts), parts


def by_loops(x, g):
    """The formula, term by term."""
    w = [a * b for a, b in zip(g["weights"], g["scale"], strict=True)]
    square = lambda v: sum(w[i] * v[i] ** 2 for i in range(P))  # noqa: E731
    total = 0.0
    for state in g["states"]:
        total += square(x - state) / len(g["states"])
    size = square(g["signature"]) ** 0.5
    along = sum(w[i] * g["signature"][i] * (x[i] - g["origin"][i]) for i in range(P)) / size
    total += max(size - along, 0) ** 2
    for i in range(P):
        total += w[i] * max(g["low"][i] - x[i], x[i] - g["high"][i], 0) ** 2
    for state in g["away_from"]:
        nearer = square(g["origin"] - state) ** 0.5 - square(x - state) ** 0.5
        total += g["away_weight"] * max(nearer, 0) ** 2
    return total


@pytest.mark.parametrize("seed", range(5))
def test_distance_by_loops(seed):
    goal, parts = rich(seed)
    points = 2 * np.random.default_rng(seed + 99).normal(size=(50, P))
    wanted = [by_loops(x, parts) for x in points]
    np.testing.assert_allclose(goal.distance(points), wanted, rtol=1e-12)
    moved = rich(seed, origin=np.ones(P))[0].distance(points)
    np.testing.assert_allclose(goal.distance(points, np.ones(P)), moved, rtol=1e-12)


def test_a_state_to_avoid_is_the_distance_to_the_sphere_through_the_control():
    rng = np.random.default_rng(4)
    weights, origin, avoided = np.array([0.5, 2.0, 1.0, 3.0]), *rng.normal(size=(2, P))
    length = lambda x: np.sqrt((weights * x**2).sum(axis=-1))  # noqa: E731
    goal = Goal(origin, states=[avoided], away_from=[avoided], away_weight=2.0, weights=weights)
    limit = length(origin - avoided)
    points = avoided + rng.normal(size=(40, P))
    near = length(points - avoided)
    assert (near < limit).any()
    assert (near > limit).any()
    directions = rng.normal(size=(300_000, P))
    sphere = avoided + limit * directions / length(directions)[:, None]
    for x, found in zip(points, goal.distance(points), strict=True):
        to_sphere = length(sphere - x).min() if length(x - avoided) < limit else 0.0
        wanted = length(x - avoided) ** 2 + 2 * to_sphere**2
        assert found == pytest.approx(wanted, rel=0.05, abs=0.05)
        exact = length(x - avoided) ** 2 + 2 * max(limit - length(x - avoided), 0) ** 2
        assert found == pytest.approx(exact, rel=1e-12)
    assert goal.distance([origin])[0] == pytest.approx(limit**2)
    assert not goal.is_states
    inside = Goal([0.0] * P, signature=np.ones(P), away_from=[[3.0, 0, 0, 0]])
    point, weight = inside.quadratic([1.0, 0, 0, 0])
    pushed, along = np.zeros(P), np.array([1.0, 0, 0, 0]) + (2 - 0.5) * np.ones(P) / 2
    np.testing.assert_allclose(weight, 1 + 1 / 4)
    np.testing.assert_allclose(point, (pushed + along / 4) / 1.25)


def test_signature_and_bounds_are_distances_to_the_nearest_point_that_keeps_them():
    rng = np.random.default_rng(1)
    weights = np.array([0.5, 2.0, 1.0, 3.0])
    origin, v = rng.normal(size=(2, P))
    low, high = np.array([0.0, -np.inf, -1, 1]), np.array([1.0, 0.5, np.inf, 1])
    halfspace = {
        "type": "ineq",
        "fun": lambda x: (weights * v) @ (x - origin) - (weights * v) @ v,
    }
    for x in rng.normal(size=(5, P)) + origin:
        away = lambda y, x=x: (weights * (y - x) ** 2).sum()  # noqa: E731
        near = minimize(away, x, constraints=halfspace, options={"ftol": 1e-12})
        found = Goal(origin, signature=v, weights=weights)
        assert found.distance([x])[0] == pytest.approx(near.fun, abs=1e-6)
        np.testing.assert_allclose(found.quadratic(x).point, near.x, atol=1e-4)
        box = minimize(away, np.clip(x, -9, 0.4), bounds=list(zip(low, high, strict=True)))
        found = Goal(origin, low=low, high=high, weights=weights)
        assert found.distance([x])[0] == pytest.approx(box.fun, abs=1e-6)
        np.testing.assert_allclose(found.quadratic(x).point, box.x, atol=1e-4)
    assert Goal(origin, signature=v).distance([origin, origin + v, origin + 9 * v]) == (
        pytest.approx([v @ v, 0, 0], abs=1e-12)
    )


def test_directions_by_angles():
    rng = np.random.default_rng(2)
    origin, scale = rng.normal(size=P), np.array([1.0, 2.0, 0.5, 3.0])
    states, points = rng.normal(size=(2, P)), rng.normal(size=(30, P))
    goal = Goal(origin, states=states, scale=scale, distance="cosine")
    root = np.sqrt(scale)
    units = [(x - origin) * root for x in (*states, *points)]
    units = [u / np.linalg.norm(u) for u in units]
    wanted = [1 - u @ (units[0] + units[1]) / 2 for u in units[2:]]
    np.testing.assert_allclose(goal.distance(points), wanted, rtol=1e-12)
    farther = origin + 7 * (points - origin)
    np.testing.assert_allclose(goal.distance(farther), wanted, rtol=1e-10)
    assert goal.distance([origin]).tolist() == [1.0]
    one = Goal(origin, signature=states[0] - origin, distance="cosine")
    for x in (points[0], 2 * origin - points[0]):  # towards it and, one of them, away from it
        point = one.quadratic(x).point
        assert one.distance([point])[0] == pytest.approx(0, abs=1e-12)
        steps = origin + np.linspace(0, 3, 3001)[:, None] * (states[0] - origin)
        near = steps[((steps - x) ** 2).sum(axis=1).argmin()]
        if (near != origin).any():
            np.testing.assert_allclose(point, near, atol=5e-3)


def test_forms_that_are_the_same_agree():
    rng = np.random.default_rng(3)
    mean, points = rng.normal(size=P), rng.normal(size=(40, P))
    plain = Goal.point(mean).distance(points)
    np.testing.assert_array_equal(plain, ((points - mean) ** 2).sum(axis=1))
    np.testing.assert_allclose(Goal(mean, low=mean, high=mean).distance(points), plain)
    np.testing.assert_array_equal(
        Goal(mean, states=[mean], weights=np.ones(P)).distance(points), plain
    )
    sd = np.array([0.5, 1.0, 2.0, 3.0])
    noise = Goal(mean, states=[mean], scale=1 / sd**2)
    np.testing.assert_allclose(noise.distance(points), Goal.point(mean / sd).distance(points / sd))
    both = np.array([mean, 3 * mean])
    two, middle = Goal(mean, states=both), 2 * mean
    constant = (both**2).sum() / 2 - middle @ middle
    wanted = Goal.point(middle).distance(points) + constant
    np.testing.assert_allclose(two.distance(points), wanted)
    point, weights = two.quadratic(points[0])
    np.testing.assert_allclose(point, middle)
    assert weights.tolist() == [1.0] * P
    np.testing.assert_array_equal(Goal.point(mean).quadratic(points[0]).point, mean)


def test_the_quadratic_weighs_single_nodes_as_the_distance_does():
    goal, _ = rich(away_from=None, signature=[0, 1.0, 0, 0])
    at = np.array([3.0, -2.0, -4.0, 1.0])  # outside every bound, short of the signature
    point, weights = goal.quadratic(at)
    constant = goal.distance([at])[0] - weights @ (at - point) ** 2
    for x in at + 0.1 * np.random.default_rng(0).normal(size=(10, P)):
        assert goal.distance([x])[0] == pytest.approx(weights @ (x - point) ** 2 + constant)
    free = Goal(np.zeros(P), high=[-1.0, np.inf, np.inf, np.inf]).quadratic(at)
    assert free.point.tolist() == [-1, -2, -4, 1]
    assert free.weights.tolist() == [1, 0, 0, 0]


@pytest.mark.slow
def test_wanted_states_known_with_error_leave_distances_unbiased():
    blr = DagBlr(Dag.from_edges(3, []), noise_var=1.0, intercept=False)
    states = np.array([[0.0, 0.0, 0.0], [0.3, 0.1, 0.0], [1.0, -1.0, 0.5]])
    weights = np.array([2.0, 0.5, 1.0])
    rng = np.random.default_rng(0)
    sds = [np.array([0.1, 0.3, k]) for k in (0.2, 0.5)]
    centres = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    known = states_of(blr, states)
    truth = Goal(np.zeros(3), states=centres, weights=weights).distance(
        np.vstack([states, np.zeros(3)])
    )
    found = []
    for _ in range(250):
        seen = [c + sd * rng.normal(size=3) for c, sd in zip(centres, sds, strict=True)]
        goal = Goal(np.zeros(3), states=seen, variances=[sd**2 for sd in sds], weights=weights)
        found.append(ranked_distance(known, goal, n_samples=60, rng=rng))
    for name in ("mean", "centre"):
        values = np.array([getattr(f, name) for f in found])
        error = values.std(axis=0) / np.sqrt(250)
        assert (np.abs(values.mean(axis=0) - truth) < 5 * error).all()


def test_errors_of_target_states_move_distances_to_first_order_by_their_sd():
    rng = np.random.default_rng(5)
    weights, variances = rng.gamma(1.0, 1.0, P), 1e-8 * rng.gamma(1.0, 1.0, (2, P))
    goal = Goal(np.zeros(P), states=rng.normal(size=(2, P)), variances=variances, weights=weights)
    points = rng.normal(size=(3, P))
    drawn = [goal.distance(points, None, goal.draw_errors(rng)) for _ in range(4000)]
    np.testing.assert_allclose(goal.error_sd(points), np.std(drawn, axis=0), rtol=0.05)


def test_draws_start_from_doing_nothing_of_the_same_draw(uncertain):
    states = uncertain().states
    goal = Goal(np.full(P, 9.0), signature=np.arange(1.0, 5.0))
    found = ranked_distance(states, goal, n_samples=50, rng=4)
    assert found.draws[:, -1] == pytest.approx([30.0] * 50)
    assert found.nearest.sum() == pytest.approx(1)
    turned = Goal(np.full(P, 9.0), signature=np.arange(1.0, 5.0), distance="cosine")
    assert (ranked_distance(states, turned, rng=4).draws[:, -1] == 1).all()


def test_bad_goals_are_refused():
    zero, one = np.zeros(P), np.ones(P)
    wrong = {
        "goal has no part": {},
        "asks for no change": {"signature": zero},
        "low is above high at nodes": {"low": one, "high": zero},
        "a bound that no state can meet": {"low": np.inf * one},
        "weights must be": {"states": [one], "weights": zero},
        "away_weight": {"states": [one], "away_from": [one], "away_weight": 0.0},
        "away_from has the origin": {"states": [one], "away_from": [one, zero]},
        "leave out other parts": {"states": [one], "away_from": [one], "distance": "cosine"},
        "scale must be": {"states": [one], "scale": -one},
        "variances must have one entry": {"states": [one], "variances": [one, one]},
        "variances must not be negative": {"states": [one], "variances": [-one]},
        "one row per state": {"states": [[1.0, 2.0]]},
        "states contains NaN": {"states": [np.nan * one]},
        "takes either states or": {"states": [one], "high": one, "distance": "cosine"},
        "distance=.cosine. takes": {"states": [one], "signature": one, "distance": "cosine"},
    }
    for message, options in wrong.items():
        with pytest.raises(ValueError, match=message):
            Goal(zero, **options)
    with pytest.raises(ValueError, match="goal has 4 nodes"):
        as_goal(Goal.point(one), 3)
