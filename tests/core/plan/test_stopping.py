import numpy as np
import pytest

from nextpert.core import RankedDistance
from nextpert.core.plan.stopping import record_chance, stopping


def ranked(draws, noise=0.0):
    """Distances of which only the draws matter, their means, and by how much these are too far."""
    draws = np.asarray(draws, float)
    none = np.zeros(draws.shape[1])
    centre = draws.mean(axis=0) - noise
    return RankedDistance(
        draws.mean(axis=0), none, none, none, centre, none, none, 0.0, draws
    )  # fmt: skip


def test_by_hand():
    # Two candidates and doing nothing, all known.
    found = ranked([[2, 1, 10], [2, 4, 10], [2, 1.5, 10], [2, 2.5, 10]])
    result = stopping(found, [True, True], tolerance=0.1, confidence=0.7)
    assert result.chosen == 0
    assert result.gap == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    assert result.relative_gap == pytest.approx(0.0375)
    assert result.good_enough == 1  # nearer by 1 or less
    assert result.stop
    tighter = stopping(found, [True, True], tolerance=0.06, confidence=0.8)
    assert (tighter.good_enough, tighter.stop) == (0.75, False)
    other = ranked([[2, 1, 10], [2, 1, 10]])
    assert stopping(other, [True, False]).chosen == 0
    assert stopping(other, [True, True]).chosen == 1


def test_others_are_taken_about_their_expected_states_and_the_best_as_it_is():
    draws = [[2, 5, 10], [2, 7, 10], [2, 6, 10]]
    assert stopping(ranked(draws), [True, True]).good_enough == 1
    # Little is known of the state of the second: in the draws it is farther by 5 for that alone.
    found = stopping(ranked(draws, [0.0, 5.0, 0.0]), [True, True], tolerance=0.15)
    assert found.chosen == 0
    assert found.good_enough == pytest.approx(2 / 3)
    assert found.gap == pytest.approx((2 + 0 + 1) / 3)
    # That of the best known makes it no nearer, so long as others are known well.
    found = stopping(ranked(draws, [1.5, 5.0, 0.0]), [True, True], tolerance=0.15)
    assert found.good_enough == pytest.approx(2 / 3)


def test_those_never_tried_may_be_like_those_tried():
    draws = np.tile([4.0, 5.0, 6.0, 8.0, 8.0, 10.0], (5, 1))
    every = stopping(ranked(draws), np.ones(5, bool), tolerance=0.1)
    assert every.good_enough == 1
    few = stopping(ranked(draws), np.arange(5) < 3, tolerance=0.1)
    chance = record_chance([4.0, 5.0, 6.0], 2, 1.0, 4.0)
    assert 0 < chance < 0.4
    assert few.good_enough == pytest.approx(1 - chance)
    # None comes nearer than the target, so that it may stop where little can be gained.
    assert stopping(ranked(draws), np.arange(5) < 3, tolerance=0.4).good_enough == 1
    # Doing nothing is not of their kind: one of them must come nearer than it by that much.
    worse = ranked(np.tile([12.0, 13.0, 14.0, 15.0, 15.0, 10.0], (5, 1)))
    found = stopping(worse, np.arange(5) < 3, tolerance=0.1)
    assert found.chosen == 5
    assert found.good_enough == pytest.approx(1 - record_chance([12.0, 13.0, 14.0], 2, 3.0, 12.0))


def test_doing_nothing_is_chosen_where_nothing_was_tried():
    found = ranked([[20, 11, 10], [30, 14, 10]])
    result = stopping(found, [False, False])
    assert (result.chosen, result.stop, result.good_enough) == (2, False, 0.0)
    assert stopping(found, [True, True]).stop


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


def test_stops_too_early_no_more_often_than_said():
    """Truths drawn from the posterior itself: the error rate is one less the confidence."""
    rng, n_early, n_stopped = np.random.default_rng(0), 0, 0
    for _ in range(6000):
        mean, sd = rng.uniform(1, 5, 6), rng.uniform(0.1, 1, 6)
        truth = np.append(rng.normal(mean, sd), 6.0)
        draws = np.column_stack([rng.normal(mean, sd, (200, 6)), np.full(200, 6.0)])
        result = stopping(ranked(draws), np.ones(6, bool), tolerance=0.1)
        n_stopped += result.stop
        n_early += result.stop and truth[result.chosen] - truth.min() > 0.6
    assert n_stopped > 100
    assert n_early <= 0.1 * n_stopped + 3 * np.sqrt(0.09 * n_stopped)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measured": [True]}, "one truth value for each of 2 candidates"),
        ({"tolerance": 0.0}, "tolerance must be a finite number above 0"),
        ({"confidence": 1.0}, "confidence must lie between 0 and 1"),
    ],
)
def test_bad_arguments(options, message):
    arguments = {"measured": [True, False], **options}
    with pytest.raises(ValueError, match=message):
        stopping(ranked([[1, 2, 3], [1, 2, 3]]), **arguments)
