"""The knowledge gradient of a plate against nested simulation where everything is known."""

import numpy as np
import pytest

from nextpert.core.design.joint_draws import Draw, States
from nextpert.core.design.stopping import NextPlate, draw_plate, knowledge_gradient

P = 6


def normal_states(mean, variance):
    """States known as normal, each node by itself, and controls at 0: mean and variance (n, P)."""
    mean, sd = (np.vstack([x, np.zeros(P)]) for x in (mean, np.sqrt(variance)))

    def draws(n_samples, rng):
        return (Draw(mean + sd * rng.standard_normal(mean.shape)) for _ in range(n_samples))

    return States(mean, draws)


def nested(mean, variance, noise, elsewhere, known, rng, n_outer=200_000):
    """Return the gain by simulated plates, the posterior after each in closed form."""
    share = variance / (variance + noise)
    # The means after the plate scatter by the share of the variance that the plate resolves.
    after = mean + np.sqrt(share * variance) * rng.standard_normal((n_outer, *mean.shape))
    expected = (after**2).sum(axis=-1) + (variance * (1 - share)).sum(axis=-1)
    now = (mean**2 + variance).sum(axis=-1)
    best_now = min(now[known].min(initial=np.inf), elsewhere)
    return best_now - np.minimum(expected.min(axis=1), elsewhere).mean()


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "elsewhere"), [(0.05, 4.0), (0.3, 4.0), (0.3, 1.8), (2.0, 2.6)])
def test_against_nested_simulation(noise, elsewhere):
    """Conjugate normal states: the outer plates simulated, the inner expectation exact."""
    rng = np.random.default_rng(0)
    mean = np.sqrt(np.array([2.2, 1.5, 0.5, 1.0]) / P)[:, None] * np.ones(P)
    variance = np.array([0.05, 0.2, 0.4, 0.3])[:, None] * np.ones(P)
    known = np.array([True, True, False, False])
    truth = nested(mean, variance, noise, elsewhere, known, rng)
    states = normal_states(mean, variance)
    gains = []
    for seed in range(6):
        plate = draw_plate(
            states, np.zeros(P), np.arange(4), variance=noise, n_samples=2000, rng=seed
        )
        gains.append(knowledge_gradient(plate, known, elsewhere))
    error = np.std(gains, ddof=1) / np.sqrt(len(gains))
    assert truth > 0.02
    assert np.mean(gains) == pytest.approx(truth, abs=4 * error + 0.04 * truth)


def test_noise_promises_nothing():
    """Of eight equals the smallest draw is far below the mean, but a plate tells nothing."""
    rng, gains = np.random.default_rng(0), []
    for _ in range(50):
        distances = rng.gamma(4, size=(400, 8))
        plate = NextPlate(np.arange(8), distances, rng.normal(size=(400, 8)))
        gains.append(knowledge_gradient(plate, [True] * 8, 10.0))
    assert distances.mean(axis=0).min() - distances.min(axis=1).mean() > 2
    assert np.mean(gains) < 0.05


def test_a_plate_is_drawn_jointly_and_for_goals_of_any_kind():
    states = normal_states([[1.0] * P, [2.0] * P], np.full((2, P), 0.5))
    plate = draw_plate(states, np.zeros(P), [3, 5], variance=0.5, n_samples=4000, rng=0)
    assert plate.candidates.tolist() == [3, 5]
    np.testing.assert_allclose(plate.distances.mean(axis=0), [9.0, 27.0], rtol=0.05)
    # Half of the variance is error: the expected states lie nearer by what will still be unknown.
    np.testing.assert_allclose(plate.expected.mean(axis=0), [7.5, 25.5], rtol=0.05)
    known = draw_plate(states, np.zeros(P), [3, 5], variance=0.0, n_samples=50, rng=0)
    np.testing.assert_allclose(known.expected, known.distances)
