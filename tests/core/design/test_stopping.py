import numpy as np
import pytest

from nextpert.core import RankedDistance, ScreenMoments
from nextpert.core.design.goal import Goal
from nextpert.core.design.stopping import (
    AT_TARGET,
    CONFIRM,
    MEASURE,
    ORDER,
    STOP,
    UNTRUSTED,
    NextPlate,
    differing,
    is_apart,
    record_chance,
    record_gain,
    stopping,
)
from nextpert.core.model.scores import pooled_sizes
from nextpert.core.screen.guides import pool_guides


def ranked(draws, noise=0.0):
    """Distances of which only the draws matter, their means, and by how much these are too far."""
    draws = np.asarray(draws, float)
    none = np.zeros(draws.shape[1])
    centre = draws.mean(axis=0) - noise
    return RankedDistance(draws.mean(axis=0), none, none, none, centre, none, none, draws)


def plate_of(found, candidates=None, told=False):
    """A plate whose cells tell all of the distances, or nothing."""
    index = np.arange(found.draws.shape[1] - 1) if candidates is None else np.array(candidates)
    distances = found.draws[:, index]
    return NextPlate(index, distances, distances if told else 0 * distances)


def advised(found, measured, *, told=False, **options):
    options = {"min_gain": 0.0, **options}
    return stopping(found, measured, plate_of(found, told=told), **options)


def test_by_hand():
    # Two candidates and the control, all known.
    found = ranked([[2, 1, 10], [2, 4, 10], [2, 1.5, 10], [2, 2.5, 10]])
    result = advised(found, [True, True], tolerance=0.1, stop_probability=0.7)
    assert result.chosen == 0
    assert result.gain == result.relative_gain == 0
    assert result.good_enough == 1  # closer by 1 or less
    assert result.advice == CONFIRM
    tighter = advised(found, [True, True], tolerance=0.06, stop_probability=0.8)
    assert (tighter.good_enough, tighter.advice) == (0.75, ORDER)
    just = advised(found, [True, True], tolerance=0.06, stop_probability=0.75)
    assert just.advice == CONFIRM  # with that probability or more
    other = ranked([[2, 1, 10], [2, 1, 10]])
    assert advised(other, [True, False]).chosen == 0
    assert advised(other, [True, True]).chosen == 1


def test_the_gain_is_that_of_expected_distances_after_the_plate():
    rng = np.random.default_rng(0)
    draws = np.column_stack([np.full(2000, 5.0), rng.normal(6, 1, 2000), np.full(2000, 10.0)])
    found = ranked(draws)
    knows_nothing = advised(found, [True, True])
    assert knows_nothing.gain == pytest.approx(0, abs=0.02)
    told = advised(found, [True, True], told=True)
    expected = np.maximum(5 - draws[:, 1], 0).mean()  # E (1 - z)_+ of a standard normal
    assert expected == pytest.approx(0.083, abs=0.01)
    assert told.gain == pytest.approx(expected, abs=0.01)
    assert told.relative_gain == pytest.approx(told.gain / 10)
    # With the control alone to choose beside it, what a plate tells of one gains nothing.
    one = ranked(draws[:, 1:])
    assert advised(one, [True], told=True).gain == pytest.approx(0, abs=0.02)
    # More cells of those measured gain as much as any plate: these first.
    options = {"told": True, "tolerance": 0.005, "stop_probability": 0.95}
    assert advised(found, [True, True], **options).advice == ORDER
    both = plate_of(found, told=True)
    options = {"tolerance": 0.005, "min_gain": 0.005}
    assert stopping(found, [True, True], both, both, **options).advice == MEASURE
    # The gain is 0.8% of the control's distance: below 2%, a round is not worth its cost.
    assert stopping(found, [True, True], both, both, tolerance=0.005).advice == STOP
    assert stopping(found, [True, True], None, None, tolerance=0.005).advice == STOP
    first = plate_of(found, [0], told=True)
    said = stopping(found, [True, False], both, first, **options)
    assert (said.advice, said.gain_of_more) == (ORDER, 0)


def test_those_untested_may_be_like_those_tested():
    draws = np.tile([4.0, 5.0, 6.0, 8.0, 8.0, 10.0], (5, 1))
    every = advised(ranked(draws), np.ones(5, bool), tolerance=0.1)
    assert every.good_enough == 1
    some = np.arange(5) < 3
    few = advised(ranked(draws), some, tolerance=0.1)
    chance = record_chance([4.0, 5.0, 6.0], 2, 1.0, 4.0)
    assert 0 < chance < 0.4
    assert few.good_enough == pytest.approx(1 - chance)
    assert few.gain == pytest.approx(record_gain([4.0, 5.0, 6.0], 2, 0.0, 4.0))
    # None of them is on the plate: there is nothing to gain from them.
    assert stopping(ranked(draws), some, plate_of(ranked(draws), [0, 1])).gain == 0
    # None is closer than the target, so that it may stop where little can be gained.
    assert advised(ranked(draws), some, tolerance=0.4).good_enough == 1
    # The control is not of their kind: one of them has to be closer than it by that much.
    worse = ranked(np.tile([12.0, 13.0, 14.0, 15.0, 15.0, 10.0], (5, 1)))
    found = advised(worse, some, tolerance=0.1)
    assert found.chosen == 5
    assert found.good_enough == pytest.approx(1 - record_chance([12.0, 13.0, 14.0], 2, 3.0, 12.0))


def test_a_state_that_may_be_the_target_leaves_nothing_to_gain():
    """Off the target by no more than its own error is as near as a state of such error can be."""
    draws, some = np.tile([2.0, 5.0, 6.0, 8.0, 8.0, 10.0], (5, 1)), np.arange(5) < 3
    error = np.array([1.0, 0, 0, 0, 0, 0])  # of two, one is the error
    assert advised(ranked(draws, error), some).good_enough == 1
    assert advised(ranked(draws), some).good_enough < 0.9


def test_no_plate_is_advised_where_controls_are_not_trusted():
    rng = np.random.default_rng(0)
    found = ranked(rng.gamma(4, size=(200, 9)) + 1)
    assert advised(found, np.ones(8, bool), told=True).advice == ORDER
    result = advised(found, np.ones(8, bool), told=True, is_trusted=False)
    assert result.advice == UNTRUSTED


def test_what_is_not_stated_does_not_change_what_is_used():
    """A test only warns: without the statement, the choice and its gain remain."""
    found = ranked([[2, 1, 10], [2, 4, 10], [2, 1.5, 10], [2, 2.5, 10]])
    options = {"tolerance": 0.1, "stop_probability": 0.7}
    stated, not_stated = (
        advised(found, [True, True], told=True, is_stated=x, **options) for x in (True, False)
    )
    assert (stated.advice, stated.good_enough) == (CONFIRM, 1)
    assert np.isnan(not_stated.good_enough)
    assert not_stated.advice == ORDER
    assert (not_stated.chosen, not_stated.gain) == (stated.chosen, stated.gain)


def test_shares_are_nan_where_the_control_is_at_the_target():
    """The distance of the control was clipped to 0, and shares of it were as large as 1e298."""
    rng = np.random.default_rng(0)
    for nothing in (-0.5, -1.0):
        found = ranked(rng.normal([3.0, 4.0, nothing], 0.3, (400, 3)))
        result = advised(found, [True, True], told=True)
        assert result.advice == AT_TARGET
        assert np.isnan([result.relative_gain, result.good_enough]).all()
        assert result.gain >= 0


def cells_and_target(rng, effect, n_target=20, n_control=200, p=30):
    """Return the goal of a target with few cells of coexpressed genes, and their covariance."""
    loadings = 0.6 * np.random.default_rng(1).normal(size=(3, p))
    covariance = np.eye(p) + loadings.T @ loadings
    root = np.linalg.cholesky(covariance)
    mean = effect + root @ rng.normal(size=p) / np.sqrt(n_target)
    control = root @ rng.normal(size=p) / np.sqrt(n_control)
    variances = [covariance.diagonal() / n_target]
    return Goal(control, states=[mean], variances=variances), np.full(p, n_control), covariance


def test_a_target_that_is_noise_is_denied_and_one_that_differs_is_not():
    """It was a quantile minus twice an error, and denied targets with q-values of 1e-15."""
    rng = np.random.default_rng(0)
    nothing, some = np.zeros(30), 2.0 * (np.arange(30) < 3)
    noise = np.mean([is_apart(*cells_and_target(rng, nothing)) for _ in range(1000)])
    assert 0.03 < noise < 0.07
    assert np.mean([is_apart(*cells_and_target(rng, some)) for _ in range(100)]) > 0.9
    # Only the genes that count.
    goal, counted, covariance = cells_and_target(rng, 10 * some)
    assert not is_apart(goal.leave_out([0, 1, 2], [], nothing), counted, covariance)


def test_vectors_signatures_and_bounds_differ_too():
    rng = np.random.default_rng(1)
    zero, unit = np.zeros(20), np.eye(20)
    counted, noise = np.full(20, 100.0), rng.normal(size=(1000, 20)) / 10
    vectors = [is_apart(Goal(x, states=zero[None]), counted, unit) for x in noise]
    assert 0.03 < np.mean(vectors) < 0.07
    # Genes at the controls' mean were not given, and do not hide a change of the others.
    changed = Goal(noise[0], states=[np.where(np.arange(20) == 4, 0.5, noise[0])])
    assert is_apart(changed, counted, unit)
    assert is_apart(Goal(zero, signature=0.01 * unit[0]), counted, unit)
    assert is_apart(Goal(zero, low=np.where(np.arange(20) == 2, 1.0, -np.inf)), counted, unit)
    near = np.where(np.arange(20) == 2, 0.05, -np.inf)
    assert not is_apart(Goal(zero, low=near), counted, unit)


def test_which_perturbations_differ():
    rng = np.random.default_rng(0)
    group = np.arange(500) % 5
    x = rng.normal(size=(500, 8)) + 1.0 * np.isin(group, [3, 4])[:, None]

    def differ(groups):
        kept = np.isin(group, groups)
        screen = ScreenMoments.from_array(x[kept], group[kept], 5)
        return differing(
            *(x.q_value for x in pooled_sizes(pool_guides(screen, np.arange(5), 5)))
        ).tolist()

    assert differ([0, 1, 2, 3, 4]) == [False, False, True, True]
    assert differ([0, 1, 2]) == [False] * 4
    # Two that do the same do not differ; one alone has the controls to differ from.
    assert differ([0, 3, 4]) == [False] * 4
    assert differ([0, 3]) == [False, False, True, False]


def test_the_control_is_chosen_where_nothing_was_tested():
    found = ranked([[20, 11, 10], [30, 14, 10]])
    result = advised(found, [False, False])
    assert (result.chosen, result.good_enough) == (2, 0.0)
    assert advised(found, [True, True]).advice == CONFIRM
    rng = np.random.default_rng(0)
    found = ranked(rng.normal([3, 1, 2, 5, 6, 9], 0.1, (50, 6)))
    assert advised(found, np.arange(5) > 2).chosen == 3


@pytest.mark.slow
def test_the_gain_of_a_record_is_the_integral_of_its_chance():
    """Exponential lower tails, bounded: the mean of the gains told is that which comes about."""
    rng, told, happened = np.random.default_rng(0), [], []
    for k in range(3000):
        values = -rng.exponential(size=18)
        if k % 10 == 0:
            told.append(record_gain(values[:12], 6, 0.0, 50.0))
        happened.append(max(values[:12].min() - values[12:].min(), 0.0))
    # Scales told by five spacings have long tails, so that much is thought possible.
    assert np.mean(happened) == pytest.approx(np.median(told), rel=0.2)
    assert record_gain([1.0], 6, 0.0, 5.0) == 0
    assert record_gain([1.0, 2.0], 0, 0.0, 5.0) == 0
    assert record_gain([1.0, 2.0], 3, 0.0, 0.0) == 0


@pytest.mark.parametrize(("k", "m", "excess"), [(12, 6, 0.0), (12, 6, 0.3), (12, 20, 1.0)])
def test_the_chance_of_a_record_against_draws(k, m, excess):
    """Exponential lower tails: the mean of the chances told is how often it comes about."""
    rng, told, happened = np.random.default_rng(0), [], []
    for _ in range(3000):
        values = -rng.exponential(size=k + m)
        told.append(record_chance(values[:k], m, excess, np.inf))
        happened.append(values[k:].min() < values[:k].min() - excess)
    assert np.mean(told) == pytest.approx(np.mean(happened), abs=0.03)


def test_the_chance_of_a_record_has_ends():
    values = [1.0, 2.0, 4.0]
    assert record_chance(values, 0, 0.0, [5.0]).tolist() == [0.0]
    assert record_chance([], 3, 0.0, [5.0]).tolist() == [1.0]
    assert record_chance([1.0], 3, 0.5, [0.2, 5.0]).tolist() == [0.0, 0.75]
    assert record_chance([1.0, 1.0], 2, 0.1, [5.0]) < 1e-100  # no spacings, no scale
    chances = [float(record_chance(values, 3, excess, 2.0)) for excess in np.linspace(0, 2, 9)]
    assert chances[0] == 0.5
    assert chances[-1] == 0.0
    assert (np.diff(chances) < 0).all()


@pytest.mark.slow
def test_stops_too_early_no_more_often_than_said():
    """Truths drawn from the posterior itself: the error rate is one less the confidence."""
    rng, n_early, n_stopped = np.random.default_rng(0), 0, 0
    for _ in range(6000):
        mean, sd = rng.uniform(1, 5, 6), rng.uniform(0.1, 1, 6)
        truth = np.append(rng.normal(mean, sd), 6.0)
        draws = np.column_stack([rng.normal(mean, sd, (200, 6)), np.full(200, 6.0)])
        result = advised(ranked(draws), np.ones(6, bool), tolerance=0.1)
        n_stopped += result.advice == CONFIRM
        n_early += result.advice == CONFIRM and truth[result.chosen] - truth.min() > 0.6
    assert n_stopped > 100
    assert n_early <= 0.1 * n_stopped + 3 * np.sqrt(0.09 * n_stopped)
