import numpy as np
import pytest

from nextpert.core import Moments
from nextpert.core.screen.mean_distance import distance_difference, mean_distance


def _moments(rng, n, p, mean=0.0):
    return Moments.from_array(rng.gamma(1.0, 1.0, (n, p)) + mean)


@pytest.mark.parametrize("known", [True, False])
def test_the_difference_of_two_unbiased_distances(known):
    rng = np.random.default_rng(0)
    x, y, t = _moments(rng, 9, 3, 0.5), _moments(rng, 7, 3), _moments(rng, 8, 3, 1.0)
    goal = t.mean if known else t
    difference, low, high = distance_difference(x, y, goal)
    wanted = mean_distance(x, goal).estimate - mean_distance(y, goal).estimate
    np.testing.assert_allclose(difference, wanted, rtol=1e-10)
    np.testing.assert_allclose(high - difference, difference - low)
    opposite = distance_difference(y, x, goal)
    np.testing.assert_allclose(opposite, [-difference, -high, -low], rtol=1e-10)


@pytest.mark.parametrize(("near", "far"), [(0.0, 0.0), (0.5, 0.5), (0.5, 3.0)])
def test_unbiased_with_the_coverage_it_claims(near, far):
    rng = np.random.default_rng(1)
    p, n, runs = 30, 40, 500
    scale = rng.uniform(0.3, 1.2, p)
    steps = rng.normal(size=(2, p))
    steps *= np.sqrt([[near], [far]]) / np.linalg.norm(steps, axis=1, keepdims=True)

    def draw(n_cells, mean=0.0):
        noise = (rng.random((n_cells, p)) < 0.4) * rng.gamma(2, 1, (n_cells, p)) - 0.8
        return Moments.from_array(noise * scale + mean)

    found = np.array(
        [distance_difference(draw(n, steps[0]), draw(200, steps[1]), draw(60)) for _ in range(runs)]
    )
    truth, sd = near - far, found[:, 0].std()
    assert abs(found[:, 0].mean() - truth) < 4 * sd / np.sqrt(runs)
    assert 0.85 < np.mean(found[:, 2] - found[:, 1]) / 3.92 / sd < 1.35
    assert 0.91 < np.mean((found[:, 1] <= truth) & (truth <= found[:, 2])) < 0.998
