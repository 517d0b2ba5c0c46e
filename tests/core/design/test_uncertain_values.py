"""Acquisitions by name over uncertain shifts: draws of the states, incumbents, plates."""

import numpy as np
import pytest

from nextpert.core import (
    Candidates,
    Dag,
    DagBlr,
    Moments,
    find_acquisition,
)
from nextpert.core.causal.acquisitions.thompson import thompson_plate
from nextpert.core.design.distances import ranked_distance
from nextpert.core.design.goal import Goal
from nextpert.core.design.remaining_variance import RemainingVariance

TARGET = np.array([0.5, -0.3, 1.0, 0.2])
ON_DRAWS = ("remaining_variance", "greedy", "ei", "probability", "thompson", "random")
EXACT = ("civ", "civ_ow", "cv", "maxv", "mi", "target_mean_variance", "ucb")


def values_of(acquisition, asked):
    return find_acquisition(acquisition).of_candidates(asked).values


def test_greedy_is_the_mean_distance_and_remaining_variance_what_remains_of_it(uncertain):
    model = uncertain()
    found = model.candidates(TARGET, n_cells=9, n_samples=400)
    drawn = found.distances
    greedy = values_of("greedy", model.candidates(TARGET, n_samples=400))
    np.testing.assert_array_equal(greedy, drawn.mean[:-1])
    left = RemainingVariance(drawn.draws[:, :-1], drawn.nearer[:-1], drawn.centre[:-1])
    found_left = values_of("remaining_variance", model.candidates(TARGET, n_cells=9, n_samples=400))
    np.testing.assert_allclose(found_left, left.before - left.gains(found.noise.at(9)))


@pytest.mark.parametrize("acquisition", EXACT)
def test_acquisitions_of_exact_shifts_are_refused_where_shifts_are_uncertain(
    acquisition, uncertain
):
    model = uncertain()
    with pytest.raises(ValueError, match=r"exact shifts.*shift_sd=0.*nextpert\.core"):
        values_of(acquisition, model.candidates(TARGET))
    asked = model.candidates(TARGET)
    with pytest.raises(ValueError, match="exact shifts"):
        find_acquisition(acquisition).plate(asked, np.arange(5), 2)
    exact = np.random.default_rng(0).normal(size=(5, 4))
    exact = Candidates(model.blr, exact, TARGET, n_cells=5)
    assert np.isfinite(values_of(acquisition, exact)).all()


@pytest.mark.slow
def test_acquisitions_take_any_goal(uncertain):
    model = uncertain()
    goals = (
        Goal(np.zeros(4), signature=[0, 1.0, 0, -1]),
        Goal(np.zeros(4), low=[-np.inf, 1, -np.inf, -np.inf]),
        Goal(np.zeros(4), signature=[0, 1.0, 0, -1], distance="cosine"),
    )
    for goal in goals:
        for acquisition in ON_DRAWS:
            found = values_of(acquisition, model.candidates(goal, n_cells=5))
            assert np.isfinite(found).all()
        found = ranked_distance(model.states, goal, rng=1)
        drawn = values_of("probability", model.candidates(goal))
        np.testing.assert_allclose(drawn, -found.nearest[:-1])


@pytest.mark.slow
def test_expected_improvement_and_probability_by_dense_draws(uncertain):
    model, count = uncertain(2), 20_000
    states = model.draw(count, np.random.default_rng(1))
    target = model.mean[[1, 3]].mean(axis=0)  # between one with cells and one without
    distance = ((states - target) ** 2).sum(axis=2)
    distance, measured = distance[:, :5], distance[:, [0, 1, 2, 5]]  # of the first three, controls
    best = measured[:, measured.mean(axis=0).argmin()]
    kept = np.minimum(distance, best[:, None])
    found = values_of("ei", model.candidates(target, n_samples=count, rng=2))
    error = np.sqrt(2 / count) * kept.std(axis=0)
    assert (np.abs(found - kept.mean(axis=0)) < 5 * error).all()
    assert np.ptp(found) > 10 * error.max()
    chance = np.eye(5)[distance.argmin(axis=1)].mean(axis=0)
    assert (chance > 0.05).sum() > 1  # so that the order is open
    found = values_of("probability", model.candidates(target, n_samples=count, rng=2))
    assert (np.abs(found + chance) < 5 * np.sqrt(0.5 / count)).all()
    first = [
        values_of("thompson", model.candidates(target, rng=seed)).argmin() for seed in range(500)
    ]
    drawn = np.bincount(first, minlength=5) / 500
    assert (np.abs(drawn - chance) < 5 * np.sqrt(0.25 / 500)).all()


def test_thompson_takes_every_graph_in_turn():
    blrs = [DagBlr(Dag.from_edges(1, []), noise_var=1.0, intercept=True) for _ in range(4)]
    blrs = [b.update(Moments.from_array(np.full((10**6, 1), k))) for k, b in enumerate(blrs, 1)]
    asked = (Candidates(blrs, [[0.0]], [0.0], rng=seed) for seed in range(200))
    found = [values_of("thompson", each)[0] for each in asked]
    counts = np.unique(np.round(found), return_counts=True)[1]
    assert len(counts) == 4
    assert counts.min() > 25


def test_the_incumbent_is_the_nearest_with_cells_or_doing_nothing():
    blr = DagBlr(Dag.from_edges(1, []), noise_var=1.0, intercept=False)
    for target, wanted in ((0.0, [0.0, 0.0]), (1.5, [2.25, 0.25]), (3.5, [0.25, 0.25])):
        asked = Candidates(blr, [[3.0], [1.0]], [target], measured=[True, False])
        assert values_of("ei", asked).tolist() == wanted


def test_a_plate_of_thompson_draws_has_no_candidate_twice():
    draws = np.random.default_rng(0).random((50, 6))
    draws[:, 2] -= 1.0  # always the nearest
    plates = np.array([thompson_plate(draws, 3, rng=seed) for seed in range(300)])
    assert (plates[:, 0] == 2).all()
    assert all(len(set(plate)) == 3 for plate in plates.tolist())
    assert len(np.unique(plates[:, 1])) == 5
    assert sorted(thompson_plate(draws, 10, rng=0).tolist()) == list(range(6))
