import numpy as np
import pytest

from nextpert.core import RankedDistance
from nextpert.core.plan.stopping import stopping


def ranked(draws, noise=0.0):
    """Distances of which only the draws matter, their means, and by how much these are too far."""
    draws = np.asarray(draws, float)
    none = np.zeros(draws.shape[1])
    centre = draws.mean(axis=0) - noise
    return RankedDistance(
        draws.mean(axis=0), none, none, none, centre, none, none, 0.0, draws
    )  # fmt: skip


def test_by_hand():
    # Two candidates and doing nothing; the second was never tried.
    found = ranked([[2, 1, 10], [2, 4, 10], [2, 1.5, 10], [2, 0.5, 10]])
    result = stopping(found, [True, False], tolerance=0.1, confidence=0.7)
    assert result.chosen == 0
    assert result.gap == pytest.approx((1 + 0 + 0.5 + 1.5) / 4)
    assert result.relative_gap == pytest.approx(0.075)
    assert result.good_enough == 0.75  # all but the last: nearer by 1 or less
    assert result.stop
    assert not stopping(found, [True, False], tolerance=0.1, confidence=0.8).stop
    assert stopping(found, [True, True]).chosen == 1


def test_draws_are_taken_about_the_expected_states():
    draws = [[2, 5, 10], [2, 7, 10], [2, 6, 10]]
    assert stopping(ranked(draws), [True, False]).good_enough == 1
    # The second is of unknown state, and farther in the draws by 5 for that alone.
    found = stopping(ranked(draws, [0.0, 5.0, 0.0]), [True, False], tolerance=0.15)
    assert found.chosen == 0
    assert found.good_enough == pytest.approx(2 / 3)
    assert found.gap == pytest.approx((2 + 0 + 1) / 3)


def test_doing_nothing_is_chosen_where_nothing_was_tried():
    found = ranked([[2, 1, 10], [3, 4, 10]])
    result = stopping(found, [False, False])
    assert (result.chosen, result.stop, result.good_enough) == (2, False, 0.0)
    farther = ranked([[20, 11, 10], [30, 14, 10]])
    assert stopping(farther, [True, False]).stop


def test_stops_too_early_no_more_often_than_said():
    """Truths drawn from the posterior itself: the error rate is one less the confidence."""
    rng, n_early, n_stopped = np.random.default_rng(0), 0, 0
    for _ in range(6000):
        mean, sd = rng.uniform(1, 5, 6), rng.uniform(0.1, 1, 6)
        truth = np.append(rng.normal(mean, sd), 6.0)
        draws = np.column_stack([rng.normal(mean, sd, (200, 6)), np.full(200, 6.0)])
        result = stopping(ranked(draws), rng.random(6) < 0.6, tolerance=0.1)
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
