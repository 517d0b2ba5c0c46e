"""Draws of states and their distances: dense joint draws, exact shifts, limits, a noisy target."""

from __future__ import annotations

import numpy as np
import pytest
from nextpert.core.model.shift_posterior import ShiftPosterior, pair_shifts

from nextpert.core import Dag, DagBlr
from nextpert.core.design.distances import (
    first_order_distances,
    probability_nearest,
    ranked_distance,
    state_draws,
)
from nextpert.core.design.goal import Goal
from nextpert.core.design.joint_draws import Draw, States
from nextpert.core.design.stopping import draw_plate


@pytest.mark.parametrize("effects", [False, True])
def test_the_marginal_posterior_is_that_of_all_cells(effects, uncertain):
    model = uncertain(effects=effects)
    known, blr = model.known, model.blr
    np.testing.assert_allclose(blr.rate, model.rate)
    departure = known.share * known.departure(blr)
    for i, k in enumerate(model.parents):  # math: mean of u given the cells, by the regression
        np.testing.assert_allclose(departure[:, i], model.mean[i][1 + len(k) :], atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("effects", [False, True])
def test_states_have_the_joint_distribution_of_dense_draws(effects, uncertain):
    model = uncertain(1, effects=effects)
    count = 4_000
    _, wanted = model.draw(count, np.random.default_rng(1))
    found = np.array(list(state_draws(model.blr, model.known, n_samples=count, rng=2)))
    assert found.shape == wanted.shape
    flat = [x.reshape(count, -1) for x in (wanted, found)]
    sd = np.sqrt(sum(x.var(axis=0) for x in flat) / count)
    assert (np.abs(flat[0].mean(axis=0) - flat[1].mean(axis=0)) < 5 * sd + 1e-9).all()
    # covariances of all perturbations and nodes, those between perturbations among them
    about = [x - x.mean(axis=0) for x in flat]
    covariance = [x.T @ x / count for x in about]
    error = [(x**2).T @ x**2 / count - c**2 for x, c in zip(about, covariance, strict=True)]
    assert (np.abs(covariance[0] - covariance[1]) < 5.5 * np.sqrt(sum(error) / count) + 1e-9).all()


@pytest.mark.slow
def test_distances_by_dense_draws(uncertain):
    model = uncertain()
    count, target = 20_000, np.array([0.5, 0.0, 1.0, -1.0])
    _, states = model.draw(count, np.random.default_rng(3))
    wanted = ((states - target) ** 2).sum(axis=2)
    found = ranked_distance(model.blr, model.known, target, n_samples=count, rng=4)
    tolerance = 5 * np.sqrt(2 / count) * wanted.std(axis=0)
    assert (np.abs(found.mean[:-1] - wanted.mean(axis=0)) < tolerance).all()
    np.testing.assert_allclose(found.sd[:-1], wanted.std(axis=0), rtol=0.05)
    np.testing.assert_allclose(found.median[:-1], np.median(wanted, axis=0), rtol=0.03)
    # Equation 34: the lower end is that of the shortest interval, or of draws to first order.
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


@pytest.mark.slow
def test_doing_nothing_reaches_the_controls(uncertain):
    model = uncertain()
    found = np.array(list(state_draws(model.blr, model.known, n_samples=4000, nothing=True, rng=0)))
    wanted = model.blr.predict_mean(np.zeros(4))
    error = found[:, -1].std(axis=0) / np.sqrt(4000)
    assert (np.abs(found[:, -1].mean(axis=0) - wanted) < 5 * error + 0.01).all()
    target = wanted + 0.1
    ranked = ranked_distance(model.blr, model.known, target, n_samples=4000, rng=0)
    other = ((found - target) ** 2).sum(axis=2)
    np.testing.assert_allclose(ranked.draws, other, rtol=1e-12)
    np.testing.assert_allclose(ranked.nearer, (other < other[:, -1:]).mean(axis=0))
    assert ranked.nearest[-1] == ranked.nearer[-1] == 0


@pytest.mark.slow
def test_cells_believed_whole_have_the_last_word(uncertain):
    model = uncertain()
    n, mean = np.array([50.0]), np.array([[3.0, -1.0, 2.0, 0.5]])
    ones = np.ones((1, 4))
    known = ShiftPosterior(n, mean, np.zeros((1, 4)), ones, ones / 50)
    found = np.array(list(state_draws(model.blr, known, n_samples=4_000, rng=6)))[:, 0]
    error = found.std(axis=0) / np.sqrt(4_000)
    assert (np.abs(found.mean(axis=0) - mean[0]) < 5 * error).all()
    root = model.blr.noise_var[0] / 50  # the first node has no parents: its noise alone
    assert found[:, 0].var() == pytest.approx(root, rel=0.1)


def test_each_graph_has_its_own_shifts_and_an_equal_share_of_draws():
    blr = DagBlr(Dag.from_edges(1, []), noise_var=1.0, intercept=False)
    shifts = [ShiftPosterior.exact([[float(k)]]) for k in range(3)]
    drawn = list(state_draws([blr] * 3, shifts, n_samples=7))
    assert [float(x[0, 0]) for x in drawn] == [0.0] * 3 + [1.0] * 3 + [2.0] * 3


@pytest.mark.slow
@pytest.mark.parametrize("matrix", [False, True])
def test_a_noisy_target_leaves_distances_unbiased_and_intervals_honest(matrix):
    count, blr = 60, DagBlr(Dag.from_edges(3, []), noise_var=1.0, intercept=False)
    states = np.array([[0.0, 0.0, 0.0], [0.3, 0.1, 0.0], [1.0, -1.0, 0.5]])
    known, rng = ShiftPosterior.exact(states), np.random.default_rng(0)
    root = rng.normal(size=(3, 3)) / 4 if matrix else np.diag([0.1, 0.3, 0.2])
    covariance = root @ root.T
    given = covariance if matrix else np.diag(covariance)
    truth = np.append((states**2).sum(axis=1), 0.0)  # the target is the first state
    found = [
        ranked_distance(
            blr, known, root @ rng.normal(size=3), target_variance=given, n_samples=200, rng=rng
        )
        for _ in range(count)
    ]
    assert found[0].floor == pytest.approx(np.trace(covariance))
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
    found = ranked_distance(blr, ShiftPosterior.exact(np.empty((0, 1))), [2.0], n_samples=2)
    assert found.mean.tolist() == found.centre.tolist() == [4.0]


def test_the_same_seed_draws_the_same(uncertain):
    model = uncertain()
    twice = [ranked_distance(model.blr, model.known, np.ones(4), rng=7).draws for _ in range(2)]
    np.testing.assert_array_equal(*twice)


def test_bad_input_is_refused(uncertain):
    model = uncertain()
    blr, known, other = model.blr, model.known, DagBlr(Dag.from_edges(2, []), noise_var=1.0)
    spare = -np.ones((1, 4))
    negative = ShiftPosterior(*[np.zeros((1, 4))] * 4, spare)
    told = ShiftPosterior(*[np.zeros((1, 4))] * 5, np.zeros((1, 3)))
    wrong = {
        "effect has shape": (blr, told),
        "same nodes": ([blr, other], known),
        "once, or once for each of 2": ([blr, blr], [known]),
        "mean has shape": (other, known),
        "between 0 and 1": (blr, ShiftPosterior(*[np.full((1, 4), 2.0)] * 5)),
        "must not be negative": (blr, negative),
        "mean holds NaN": (blr, ShiftPosterior(*[np.full((1, 4), np.nan)] * 5)),
    }
    for message, (posterior, shifts) in wrong.items():
        with pytest.raises(ValueError, match=message):
            pair_shifts(posterior, shifts)
    for options, message in (
        ({"target_variance": np.ones(3)}, "target_variance must be"),
        ({"target_variance": -np.ones(4)}, "must not be negative"),
        ({"n_samples": 1}, "n_samples"),
        ({"confidence": 1.0}, "confidence"),
    ):
        with pytest.raises(ValueError, match=message):
            ranked_distance(blr, known, np.ones(4), **options)


def not_asked(n=4, p=3):
    """Return a posterior and shifts, which have no say where states are given."""
    return DagBlr(Dag.from_edges(p, []), noise_var=1.0), ShiftPosterior.exact(np.zeros((n, p)))


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
@pytest.mark.parametrize("shares", [[1.0], [0.3, 0.7]])
def test_a_target_of_the_same_draws_is_drawn_with_the_candidates(shares):
    rng = np.random.default_rng(5)
    states, wanted, cov = joint_states(rng, n_targets=len(shares))
    n, p = states.mean.shape
    goal = Goal(np.zeros(p), states=wanted, shares=shares)
    found = ranked_distance(*not_asked(), goal, states=states, n_samples=4_000, rng=1)
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
    assert (np.abs(found.mean - expected) < 5 * found.sd / np.sqrt(4_000)).all()
    assert found.floor == 0
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
    found = ranked_distance(*not_asked(), both, states=States(states.mean, padded), **asked)
    own = ranked_distance(*not_asked(), Goal.point(wanted[0]), states=states, **asked)
    alone = Goal.point(other, variance)
    told = ranked_distance(
        *not_asked(), alone, states=states._replace(draws=no_error(states)), **asked
    )
    error = 5 * (own.sd + told.sd) / 2 / np.sqrt(4_000)
    assert (np.abs(found.mean - (own.mean + told.mean) / 2) < error).all()


def no_error(states):
    """Return draws of the same states, of which no target is one."""
    return lambda n, rng: (Draw(drawn.states) for drawn in states.draws(n, rng))


def test_to_first_order_the_target_moves_with_its_draw():
    states, wanted, _ = joint_states(np.random.default_rng(7))
    blr, known = not_asked()
    expected, draws = first_order_distances(
        blr, known, Goal.point(wanted[0]), states=states, n_samples=7, rng=3
    )
    apart = states.mean[:-1] - wanted[0]
    np.testing.assert_allclose(expected, (apart**2).sum(axis=1))
    for drawn, got in zip(states.draws(7, np.random.default_rng(3)), draws, strict=True):
        moved = (drawn.states - states.mean)[:-1] - drawn.target_error[0]
        np.testing.assert_allclose(got, expected + 2 * (apart * moved).sum(axis=1), atol=1e-8)


def test_a_plate_measures_distances_to_the_target_of_the_same_draw():
    states, wanted, _ = joint_states(np.random.default_rng(8))
    blr, known = not_asked()
    plate = draw_plate(
        blr, known, Goal.point(wanted[0]), [0, 1, 2, 3], variance=0.1, states=states,
        n_samples=5, rng=4,
    )  # fmt: skip
    for drawn, got in zip(states.draws(5, np.random.default_rng(4)), plate.distances, strict=True):
        truth = ((drawn.states - wanted[0] - drawn.target_error[0]) ** 2).sum(axis=1)
        np.testing.assert_allclose(got, truth[:-1])
