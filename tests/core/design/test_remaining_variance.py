"""The variance that remains, by dense matrices; noise by simulation; CIV in closed form."""

import itertools

import numpy as np
import pytest

from nextpert.core.design.goal import Goal
from nextpert.core.design.remaining_variance import (
    CellNoise,
    NoiseTerms,
    RemainingVariance,
    removed,
    split_by_variance,
)


@pytest.fixture(params=[0.0, 0.7], ids=["all in common", "with own parts"])
def problem(request):
    """Draws of twelve distances that go together, weights, noise, and their dense covariance."""
    rng = np.random.default_rng(3)
    draws = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 12))
    draws += request.param * rng.normal(size=draws.shape)
    weights, noise = rng.random(12), 0.1 + rng.random(12)
    return draws, weights / weights.sum(), noise, shrunken(draws, weights / weights.sum())


def shrunken(draws, weights):
    """The covariance with all covariances shrunk as equation 33 says, entry by entry."""
    c, n = np.cov(draws.T), len(draws)
    pairs = [(j, k) for j in range(len(c)) for k in range(len(c)) if j != k]
    weight = np.array([weights[j] * weights[k] for j, k in pairs])
    square = np.array([c[j, k] ** 2 for j, k in pairs])
    chance = np.array([(c[j, j] * c[k, k] + c[j, k] ** 2) / (n - 1) for j, k in pairs])
    alike = max(1 - weight @ chance / (weight @ square), 0)
    return alike * c + (1 - alike) * np.diag(np.diag(c))


def dense_gains(c, weights, noise):
    return np.array([weights @ c[:, k] ** 2 / (c[k, k] + noise[k]) for k in range(len(c))])


def test_greedy_choice_is_that_of_dense_matrices(problem):
    draws, weights, noise, c = problem
    left = RemainingVariance(draws, 7 * weights)
    assert left.before == pytest.approx(weights @ np.diag(c))
    for _ in range(8):  # some are chosen twice
        wanted = dense_gains(c, weights, noise)
        np.testing.assert_allclose(left.gains(noise), wanted, rtol=1e-9)
        k = int(wanted.argmax())
        left.observe(k, noise[k])
        c = c - np.outer(c[k], c[k]) / (c[k, k] + noise[k])


def test_a_plate_takes_what_removes_most_after_those_chosen_and_in_progress(problem):
    draws, weights, noise, _ = problem
    allowed = np.ones(12, bool)
    allowed[[0, 5]] = False
    options = {"allowed": allowed, "chosen": [2, 9], "pending": [(0, 0.3)]}
    left = RemainingVariance(draws, weights)
    plate = left.most_informative(5, noise, **options)
    assert len(plate) == len({*plate}) == 5
    assert plate[:2] == [2, 9]
    for k, variance in [(0, 0.3), (2, noise[2]), (9, noise[9])]:
        left.observe(k, variance)
    for k in range(2, 5):
        gains = np.where(allowed, left.gains(noise), -1.0)
        gains[plate[:k]] = -1.0
        assert plate[k] == gains.argmax()
        left.observe(plate[k], noise[plate[k]])
    assert sorted(left.most_informative(99, noise, allowed=allowed)) == [*np.flatnonzero(allowed)]


@pytest.mark.parametrize("shared", [0.0, 0.01])
def test_cells_for_a_variance_are_the_least_that_have_it(shared):
    noise = NoiseTerms(np.array([4.0, 0.5, 0.0]), np.array([2.0, 3.0, 1.0]), shared)
    for variance in (0.02, 0.3):
        for k, found in enumerate(noise.cells_for(variance)):
            enough = [n for n in range(1, 3000) if noise.at(n)[k] <= variance]
            assert found == (enough[0] if enough else np.inf)


def test_what_means_exceed_the_centre_by_is_reduced_by_own_cells_alone(problem):
    draws, weights, noise, c = problem
    centre = draws.mean(axis=0) - np.linspace(0.0, 2.0, 12)
    c = c + np.diag(np.linspace(0.0, 2.0, 12) ** 2)
    left = RemainingVariance(draws, weights, centre)
    assert left.before == pytest.approx(weights @ np.diag(c))
    for k in (11, 2, 11):
        np.testing.assert_allclose(left.gains(noise), dense_gains(c, weights, noise), rtol=1e-9)
        left.observe(k, noise[k])
        c = c - np.outer(c[k], c[k]) / (c[k, k] + noise[k])


def test_cells_of_several_remove_what_the_dense_formula_says(problem):
    draws, weights, noise, c = problem
    plate, under_way = [3, 7], [1, 10]
    every = [*plate, *under_way]
    found = removed(*RemainingVariance(draws, weights).among(every), noise[every], 2)
    for k in (1, 2):
        some = [*plate[:k], *under_way]
        inner = np.linalg.inv(c[np.ix_(some, some)] + np.diag(noise[some]))
        wanted = sum(weights[j] * c[j, some] @ inner @ c[some, j] for j in range(12))
        assert found[k - 1] == pytest.approx(wanted)


def test_cells_in_fives_are_split_as_an_exhaustive_search_does(problem):
    draws, weights, noise, _ = problem
    covariance, gain = RemainingVariance(draws, weights).among([3, 7, 1, 10])
    terms = NoiseTerms(20 * noise[[3, 7, 1]], 50 * noise[[3, 7, 1]], 0.01)
    fixed = noise[[10]]
    found = split_by_variance(covariance, gain, terms, 62, 4, fixed)
    assert found.sum() == 62
    assert found.min() >= 4

    def value(cells):
        return removed(covariance, gain, np.append(terms.at(cells), fixed), 3)[-1]

    best = max(
        value(np.array([a, b, 62 - a - b]))
        for a, b in itertools.product(range(4, 55), repeat=2)
        if 62 - a - b >= 4
    )
    assert value(found) > 0.999 * best
    assert value(found) > value(np.array([21, 21, 20]))


def test_a_distance_that_is_known_has_nothing_to_gain():
    draws = np.random.default_rng(0).normal(size=(50, 4))
    draws[:, 1] = 2.0
    left = RemainingVariance(draws, [0.0, 1.0, 0.0, 0.0])
    np.testing.assert_array_equal(left.weights, 0.25)  # what counts is certain
    left.observe(1, 0.0)
    assert left.gains(np.zeros(4))[1] == 0
    alone = RemainingVariance(draws[:, :1], [1.0])
    np.testing.assert_allclose(alone.gains(np.ones(1)), alone.before**2 / (alone.before + 1))


def test_of_many_independent_distances_few_cells_remove_little():
    left = RemainingVariance(np.random.default_rng(0).normal(size=(100, 3000)), np.ones(3000))
    for k in range(30):
        left.observe(k, 0.0)
    after = left.weights @ (left._common + left._own)
    assert 1 - after / left.before == pytest.approx(0.01, abs=0.004)  # 0.23 without shrinkage


def test_noise_terms_are_those_of_dense_matrices():
    rng = np.random.default_rng(2)
    noise = CellNoise(rng.random(5), rng.normal(size=(5, 2)))
    states, weights = rng.normal(size=(3, 5)), np.array([1.0, 2.0, 0.0, 1.0, 3.0])
    targets = rng.normal(size=(2, 5))
    found = noise.terms(Goal(np.zeros(5), states=targets, weights=weights), states)
    w, q = np.diag(noise.own_variance) + noise.loadings @ noise.loadings.T, np.diag(weights)
    away = states - targets.mean(axis=0)
    np.testing.assert_allclose(found.linear, [4 * d @ q @ w @ q @ d for d in away])
    np.testing.assert_allclose(found.square, 2 * np.trace(q @ w @ q @ w))


@pytest.mark.parametrize(
    "goal",
    [
        Goal(np.zeros(5), states=[np.ones(5), np.arange(5.0)], weights=[1, 2, 0, 1, 3]),
        Goal(np.zeros(5), states=[np.ones(5)], distance="cosine"),
        Goal(np.zeros(5), low=[1.0, -np.inf, 2.0, -np.inf, -np.inf]),
    ],
    ids=["states", "direction", "bounds"],
)
def test_noise_is_that_of_simulated_cells(goal):
    rng = np.random.default_rng(1)
    noise = CellNoise(rng.uniform(0.5, 1, 5), rng.normal(size=(5, 2)), 0.02)
    states = rng.normal(size=(3, 5)) - 2.0
    found = noise.terms(goal, states).at(40)
    v = 1 / 40 + 0.02
    covariance = v * (np.diag(noise.own_variance) + noise.loadings @ noise.loadings.T)
    for state, variance in zip(states, found, strict=True):
        drawn = goal.distance(rng.multivariate_normal(state, covariance, size=40_000))
        # Draws give the terms of goals without a closed form.
        assert variance == pytest.approx(drawn.var(), rel=0.04 if goal.is_states else 0.4)
