"""Posterior intervals hold the truth as often as they say, over distinct simulated instances."""

import numpy as np
import pytest

from benchmarks import calibration

pytestmark = pytest.mark.slow

N_INSTANCES = 60


@pytest.fixture(scope="module")
def setting():
    return calibration.Setting(10, "erdos_renyi", 400, 5, 60)


def coverages(setting, **options):
    """Mean over instances of every quantity, in %, and its standard error."""
    found = [
        calibration.coverage(setting, seed, n_samples=400, **options) for seed in range(N_INSTANCES)
    ]
    mean = 100 * np.mean(found, axis=0)
    error = 100 * np.std(found, axis=0, ddof=1) / np.sqrt(N_INSTANCES)
    return dict(zip(calibration.QUANTITIES, zip(mean, error, strict=True), strict=True))


@pytest.fixture(scope="module")
def known(setting):
    return coverages(setting)


@pytest.mark.parametrize("quantity", ["weights", "b", "distance"])
def test_ninety_percent_intervals_hold_85_to_95(known, quantity):
    mean, error = known[quantity]
    assert 85 < mean < 95
    assert error < 3  # enough instances to say so


def test_intervals_of_draws_and_of_lengths():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, 2))
    assert calibration.inside(draws, np.array([1.55, 1.75]), 0.9).tolist() == [True, False]
    # Gaps whose mean is the truth plus noise of the same covariance: 90 % by construction.
    for truth in (np.zeros(20), np.full(20, 0.3)):
        held = [
            calibration.score_inside(
                truth + 0.2 * rng.normal(size=20) + 0.2 * rng.normal(size=(500, 20)),
                float(truth @ truth),
                0.9,
            )
            for _ in range(400)
        ]
        assert 0.85 < np.mean(held) < 0.95
