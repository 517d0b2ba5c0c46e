"""Distances to first order against gradients by hand."""

import numpy as np
import pytest

from nextpert.core import Dag, DagBlr, Moments
from nextpert.core.design.distances import first_order_distances, states_of
from nextpert.core.design.goal import Goal


@pytest.fixture
def fitted():
    rng = np.random.default_rng(0)
    blr = DagBlr(Dag.from_edges(3, [(0, 1), (1, 2)]))
    blr = blr.update(Moments.from_array(rng.normal(size=(40, 3)) + 1))
    return states_of(blr, rng.normal(size=(4, 3)))


def test_squared_distances_by_their_gradient(fitted):
    target = np.array([1.0, -1.0, 0.5])
    expected, draws = first_order_distances(fitted, target, n_samples=30, rng=1)
    centre = fitted.mean[:-1]
    np.testing.assert_allclose(expected, ((centre - target) ** 2).sum(axis=1), rtol=1e-12)
    states = [drawn.states for drawn in fitted.draws(30, np.random.default_rng(1))]
    wanted = [
        expected + 2 * ((centre - target) * (state[:-1] - centre)).sum(axis=1) for state in states
    ]
    np.testing.assert_allclose(draws, wanted, rtol=1e-8)


def test_a_bound_counts_only_where_it_is_missed(fitted):
    low = np.array([-np.inf, 50.0, -np.inf])
    expected, draws = first_order_distances(fitted, Goal(np.zeros(3), low=low), rng=2)
    centre = fitted.mean[:-1]
    np.testing.assert_allclose(expected, (50 - centre[:, 1]) ** 2, rtol=1e-10)
    assert draws.std() > 0
    reached = first_order_distances(
        fitted, Goal(np.zeros(3), low=np.where(np.isinf(low), low, -50.0)), rng=2
    )
    assert not np.any(reached[1])
