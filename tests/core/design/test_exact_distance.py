"""Distances of the means that exact shifts reach, against dense draws and exact cases."""

import numpy as np
import pytest

from nextpert.core import Dag, DagBlr, Moments, ranked_distance
from nextpert.core.design.distances import states_of


def target_distance(posterior, shifts, target, **options):
    """Mean and deviation of the squared distance, shifts known exactly."""
    found = ranked_distance(states_of(posterior, shifts), target, **options)
    return found.mean[:-1], found.draws.std(axis=0, ddof=1)[:-1]


@pytest.mark.slow
def test_one_weight_in_closed_form():
    # x_1 = B a_0 reached; B ~ N(m, M): the distance to t is (B a_0 - t)^2, a_0 hit exactly.
    blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=2.0)
    blr = blr.update(Moments.from_array([[1.0, 0.6]]))
    var, m = 1 / (1 / 2 + 1), 0.6 / (1 / 2 + 1)
    a, t, count = 1.5, 2.0, 6_000
    mean, sd = target_distance(blr, [[a, 0.0]], [a, t], n_samples=count, rng=0)
    spread, bias = a**2 * var, (a * m - t) ** 2
    wanted_sd = np.sqrt(2 * spread**2 + 4 * spread * bias)
    assert abs(mean[0] - (spread + bias)) < 5 * wanted_sd / np.sqrt(count)
    assert sd[0] == pytest.approx(wanted_sd, rel=0.05)


@pytest.mark.slow
def test_several_graphs_add_the_variance_between_them():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)) @ np.array([[1, 0.9, 0.5], [0, 1, 0.8], [0, 0, 1]])
    graphs = [[(0, 1), (1, 2)], [(2, 1), (1, 0)], []]
    blrs = [DagBlr(Dag.from_edges(3, g)).update(Moments.from_array(x)) for g in graphs]
    shifts, target, count = np.eye(3), np.ones(3), 2_500
    each = np.array([target_distance(b, shifts, target, n_samples=count, rng=1) for b in blrs])
    mean, sd = target_distance(blrs, shifts, target, n_samples=3 * count, rng=2)
    between = each[:, 0].var(axis=0)
    variance = (each[:, 1] ** 2).mean(axis=0) + between
    assert (between > 0.2 * variance).any()
    np.testing.assert_allclose(mean, each[:, 0].mean(axis=0), rtol=0.06)
    np.testing.assert_allclose(sd**2, variance, rtol=0.2)
    with pytest.raises(ValueError, match="the same nodes"):
        target_distance([blrs[0], DagBlr(Dag.from_edges(2, []))], shifts, target)
