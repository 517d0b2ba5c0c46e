"""Combinations against dense Gaussian algebra over singles, departures and rests."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from nextpert.core.model import interactions
from nextpert.core.model.interactions import (
    CombinationPrediction,
    Measured,
    learn_interactions,
    size_of_effects,
)

PAIRS = [(0, 1), (1, 2), (4, 5), (2, 5), (0, 2, 5)]
ASKED = [(2, 1), (0, 3), (0, 4), (1,), (4,), (6,), (6, 0, 1), (3, 6), (0,)]


@pytest.fixture
def screen():
    """Seven members, of which two were never measured alone, and five combinations of them."""
    rng = np.random.default_rng(0)
    alone, effects = rng.normal(size=(7, 3)), rng.normal(size=(5, 3))
    alone[[4, 6]] = np.nan
    variance, noise = rng.gamma(1.0, 0.1, size=(7, 3)), rng.gamma(1.0, 0.1, size=(5, 3))
    return alone, variance, PAIRS, effects, noise


def dense(found, strength, dim, asked):
    """Mean and covariance of asked effects, and the log evidence: s, v, and all rests at once."""
    n, learned = len(found.alone), found.learned
    scale = learned.scale[dim]
    every = [*found.measured]
    every += [c for c in dict.fromkeys(tuple(sorted(a)) for a in asked) if c not in every]
    prior = np.concatenate([
        found.variance[:, dim],
        np.full(n, (learned.member_sd * scale) ** 2),
        np.full(len(every), (learned.rest_sd * scale) ** 2),
    ])  # fmt: skip
    mean = np.concatenate([found.alone[:, dim], np.zeros(n + len(every))])

    def row(some):
        out = np.zeros(len(mean))
        out[list(some)] = 1.0 if len(some) == 1 else strength
        if len(some) > 1:
            out[n + np.array(some)] = 1.0
            out[2 * n + every.index(tuple(sorted(some)))] = 1.0
        return out

    design = np.array([row(some) for some in found.measured])
    wanted = np.array([row(some) for some in asked])
    total = design * prior @ design.T + np.diag(found.noise[:, dim])
    gain = (prior[:, None] * design.T) @ np.linalg.inv(total)
    after = mean + gain @ (found.effects[:, dim] - design @ mean)
    covariance = np.diag(prior) - gain @ design * prior
    log = multivariate_normal(design @ mean, total).logpdf(found.effects[:, dim])
    return wanted @ after, wanted @ covariance @ wanted.T, log


def at(found, strength):
    learned = replace(found.learned, strengths=np.array([strength]), chances=np.ones(1))
    return replace(found, learned=learned)


def test_predictions_are_those_of_dense_algebra(screen):
    found = at(learn_interactions(*screen), 0.7)
    mean, variance = found.predict(ASKED)
    for d in range(3):
        wanted, covariance, _ = dense(found, 0.7, d, ASKED)
        np.testing.assert_allclose(mean[:, d], wanted, atol=1e-10)
        np.testing.assert_allclose(variance[:, d], np.diag(covariance), atol=1e-10)


def test_quadrature_is_that_of_a_fine_grid(screen):
    found = learn_interactions(*screen)
    grid = np.linspace(-1, 3, 401)
    log = norm(1.0, 0.3).logpdf(grid)
    moments = np.zeros((2, len(grid), len(ASKED), 3))
    for k, strength in enumerate(grid):
        for d in range(3):
            mean, covariance, evidence = dense(found, strength, d, ASKED)
            log[k] += evidence
            moments[:, k, :, d] = mean, np.diag(covariance) + mean**2
    chance = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    first, second = np.einsum("k,mkjd->mjd", chance, moments)
    mean, variance = found.predict(ASKED)
    np.testing.assert_allclose(mean, first, atol=2e-3)
    np.testing.assert_allclose(variance, second - first**2, rtol=0.01, atol=1e-3)
    assert found.learned.strength == pytest.approx(chance @ grid, abs=0.01)
    assert found.learned.strength_sd == pytest.approx(
        np.sqrt(chance @ (grid - chance @ grid) ** 2), rel=0.05
    )


def test_evidence_and_gradient_are_those_of_dense_algebra(screen, monkeypatch):
    pairs, effects, noise = screen[2:]
    found = learn_interactions(*screen)
    data = Measured.in_units(
        found.learned.scale, found.alone, found.variance, found.measured, effects, noise
    )

    def by_dense(at):
        strength, (member, rest) = at[0], np.exp(at[1:])
        other = replace(found, learned=replace(found.learned, member_sd=member, rest_sd=rest))
        return sum(dense(other, strength, d, [(0,)])[2] for d in range(3))

    # In units of the scale, densities have this factor.
    units = len(pairs) * np.log(found.learned.scale).sum()
    for most in (1, 2**21):  # one dimension after another, and all at once
        monkeypatch.setattr(interactions, "_MAX_COVARIANCE_ENTRIES", most)
        for at_ in ([0.7, -1.0, -2.0], [1.4, -0.3, 0.2]):
            value, slope = data.evidence(at_[0], *np.exp(at_[1:]))
            assert value == pytest.approx(by_dense(np.array(at_)) + units)
            steps = 1e-5 * np.eye(3)
            wanted = [(by_dense(at_ + step) - by_dense(at_ - step)) / 2e-5 for step in steps]
            np.testing.assert_allclose(slope, wanted, rtol=1e-6, atol=1e-6)


def test_hyperparameters_have_the_largest_density(screen):
    found = learn_interactions(*screen)
    learned = found.learned
    mode = learned.strengths[2]

    def density(strength, member, rest):
        other = replace(found, learned=replace(learned, member_sd=member, rest_sd=rest))
        log = sum(dense(other, strength, d, [(0,)])[2] for d in range(3))
        log += norm(1.0, 0.3).logpdf(strength)
        return log + norm(np.log(0.3), np.log(2)).logpdf(np.log([member, rest])).sum()

    best = density(mode, learned.member_sd, learned.rest_sd)
    for factor in (0.95, 1.05):
        assert density(mode * factor, learned.member_sd, learned.rest_sd) < best
        assert density(mode, learned.member_sd * factor, learned.rest_sd) < best
        assert density(mode, learned.member_sd, learned.rest_sd * factor) < best


@pytest.mark.parametrize("mixture", [False, True])
def test_left_out_is_what_the_others_say(screen, mixture):
    found = learn_interactions(*screen)
    found = found if mixture else at(found, 0.7)
    mean, variance = found.left_out()
    for c, some in enumerate(PAIRS):
        rest = np.arange(len(PAIRS)) != c
        fewer = replace(
            found, measured=tuple(np.array(found.measured, object)[rest]),
            effects=found.effects[rest], noise=found.noise[rest],
        )  # fmt: skip
        logs = [
            sum(dense(part, s, d, [(0,)])[2] for d in range(3))
            for part in (fewer, found)
            for s in found.learned.strengths
        ]
        before, after = np.array(logs).reshape(2, -1)
        log = np.log(found.learned.chances) + before - after
        chances = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
        learned = replace(found.learned, chances=chances)
        wanted = replace(fewer, learned=learned).predict([some])
        np.testing.assert_allclose(mean[c], wanted[0][0], atol=1e-9)
        np.testing.assert_allclose(variance[c], wanted[1][0], atol=1e-9)


def test_an_unknown_effect_says_nothing(screen):
    (*told, noise), c, d = screen, 2, 1
    noise[c, d] = np.inf
    found = learn_interactions(*told, noise)
    noise[c, d] = 1e15
    far = learn_interactions(*told, noise)
    for name in ("member_sd", "rest_sd", "strengths", "chances"):
        np.testing.assert_allclose(
            getattr(found.learned, name), getattr(far.learned, name), rtol=1e-5
        )
    far = replace(found, noise=far.noise)
    np.testing.assert_allclose(found.left_out(), far.left_out(), atol=1e-9)
    asked = [PAIRS[c], PAIRS[0], (0, 6)]
    np.testing.assert_allclose(found.predict(asked), far.predict(asked), atol=1e-9)
    kept = np.arange(len(PAIRS)) != c
    fewer = replace(
        found, measured=tuple(np.array(found.measured, object)[kept]),
        effects=found.effects[kept], noise=found.noise[kept],
    )  # fmt: skip
    one = [at(each, 0.7).predict(asked) for each in (found, fewer)]
    np.testing.assert_allclose(one[0][0][:, d], one[1][0][:, d], atol=1e-12)
    np.testing.assert_allclose(one[0][1][:, d], one[1][1][:, d], atol=1e-12)


def test_many_dimensions_are_learned_from_some(screen):
    alone, variance, pairs, effects, noise = screen
    many = [np.repeat(table, 128, axis=1) for table in (alone, variance, effects, noise)]
    found = learn_interactions(many[0], many[1], pairs, many[2], many[3])
    every = [table[:, ::3] for table in many]
    fewer = learn_interactions(
        every[0], every[1], pairs, every[2], every[3], scale=found.learned.scale[::3]
    )
    assert found.learned.strength == pytest.approx(fewer.learned.strength)
    assert found.predict(ASKED)[0].shape == (len(ASKED), 384)


def test_without_combinations_members_add_up_give_or_take():
    alone = np.array([[1.0, 0.0], [0.5, 2.0], [0.0, 1.0]])
    found = learn_interactions(alone, 0 * alone, [], np.zeros((0, 2)), np.zeros((0, 2)))
    mean, variance = found.predict([(0, 1), (2,)])
    np.testing.assert_allclose(mean, [alone[0] + alone[1], alone[2]])
    wanted = 0.3**2 * mean[0] ** 2 + 3 * 0.3**2 * found.learned.scale**2
    np.testing.assert_allclose(variance, [wanted, [0, 0]], atol=1e-12)


def test_combinations_tell_the_scale_where_no_member_is_known():
    unknown = np.full((2, 1), np.nan)
    found = learn_interactions(unknown, unknown, [(0, 1)], np.full((1, 1), 2.0), np.zeros((1, 1)))
    assert found.learned.scale[0] == pytest.approx(np.sqrt(2.0))  # 2^2 / 2 members, and as prior


def test_where_nothing_is_known_the_size_is_that_before_any_cells():
    none, unknown, unit = np.zeros((0, 2)), np.full((3, 2), np.nan), np.array([1.0, 5.0])
    found = learn_interactions(unknown, unknown, [], none, none, unit=unit)
    # Variances of 2^-13 to 2^5, equally probable up to an eighth, then halved at each doubling.
    grid = 2.0 ** np.arange(-13, 6)
    weight = np.where(grid <= 0.125, 1.0, 0.125 / grid)
    np.testing.assert_allclose(
        found.learned.scale, unit * np.sqrt(np.average(grid, weights=weight))
    )


@pytest.mark.parametrize("known", [True, False])
def test_strengths_do_not_depend_on_the_units_of_genes(screen, known):
    alone, variance, pairs, effects, noise = screen
    alone[:] = alone if known else np.nan
    unit = np.array([1.0, 1e-3, 30.0])
    here = learn_interactions(*screen)
    there = learn_interactions(
        alone * unit, variance * unit**2, pairs, effects * unit, noise * unit**2, unit=unit
    )
    np.testing.assert_allclose(there.learned.scale, here.learned.scale * unit)
    for name in ("strength", "strength_sd", "member_sd", "rest_sd"):
        assert getattr(there.learned, name) == pytest.approx(getattr(here.learned, name), rel=1e-6)


def test_sizes_of_genes_are_as_near_the_truth_as_their_number_allows():
    """Shrinkage by the best factor, found on a grid with the truth at hand."""
    rng, unit = np.random.default_rng(0), 10.0 ** np.arange(-2, 2).repeat(1_000)
    for spread, n in ((0.0, 5), (0.3, 5), (0.3, 40)):
        truth = np.exp(spread * rng.normal(size=4_000))
        squares = truth * rng.normal(size=(n, 4_000)) ** 2
        found = (size_of_effects(squares * unit**2, unit) / unit) ** 2
        mean = squares.mean(axis=0)
        grid = np.linspace(0, 1, 201)[:, None]
        errors = ((grid * mean + (1 - grid) * mean.mean() - truth) ** 2).mean(axis=1)
        assert ((found - truth) ** 2).mean() == pytest.approx(errors.min(), rel=0.05, abs=1e-3)
    # One effect does not distinguish genes; with equal ones, all genes count as one more.
    np.testing.assert_allclose(size_of_effects(np.array([[1.0, 7.0]]), 1.0), 2.0)
    np.testing.assert_allclose(size_of_effects(np.array([[1.0, 4.0]] * 2), 1.0) ** 2, [1.5, 3.5])


def test_what_is_clear_of_combinations_is_kept():
    mean = np.array([[1.0, -1.0, 0.5, 0.0]])
    variance = np.array([[0.16, 0.1, 0.05, 1.0]])
    together = CombinationPrediction(np.array([3]), mean, variance, np.zeros((1, 4)))
    np.testing.assert_array_equal(together.clear(), [[1.0, -1.0, 0.0, 0.0]])
    # The variance beside the rest of a combination's own, also of what is possible, but not kept.
    rest = np.array([0.05, 0.3, 0.0, 0.0])
    np.testing.assert_allclose(
        replace(together, residual_variance=rest).clear_variance(), [[0.11, 0.0, 0.05, 0.0]]
    )
    # What is nearly 0 is not in doubt.
    slight = replace(together, mean=0.9 * np.sqrt(together.variance))
    np.testing.assert_array_equal(slight.clear_variance(), np.zeros((1, 4)))


def test_members_never_seen_alone_have_the_mean_and_the_spread_of_the_others():
    rng = np.random.default_rng(0)
    alone, pairs = 1.0 + 0.2 * rng.normal(size=(5, 8)), [(0, 1), (2, 4), (3, 4)]
    alone[4], does, scale = np.nan, rng.normal(size=(3, 8)), np.full(8, 2.0)
    found = learn_interactions(alone, 0.1 + 0 * alone, pairs, does, 0.1 + 0 * does, scale=scale)
    centre = alone[:4].sum(axis=0) / 5
    np.testing.assert_allclose(found.alone[4], centre)
    np.testing.assert_allclose(found.variance[4], np.maximum(4.0 - centre**2, 0.4))
