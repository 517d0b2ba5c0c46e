"""Searches for a user's own acquisition, a quadratic, whose best points are known exactly."""

import numpy as np
import pytest
from scipy.optimize import brentq, lsq_linear

from nextpert.core import Acquisition, Box, Sparse, Sphere


class Quadratic(Acquisition):
    """``|root (a - centre)|^2 + 5``: any acquisition with a value and a gradient will do."""

    name = "quadratic"

    def __init__(self, root, centre):
        self.root, self.centre, self.n_nodes = root, centre, len(centre)

    def value_and_grad(self, shift):
        gap = self.root @ (np.asarray(shift) - self.centre)
        return float(gap @ gap) + 5, 2 * self.root.T @ gap

    def values(self, shifts):
        return np.array([self.value(a) for a in self._pool(shifts)])


def instance(seed, p=5, unit=1.0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(p, p)) / unit
    return Quadratic(root, unit * rng.normal(size=p)), rng


def nearest_on_sphere(root, centre, radius):
    """Least ``|root (a - centre)|`` over ``|a| = radius``, by the secular equation."""
    hessian = root.T @ root
    values, vectors = np.linalg.eigh(hessian)
    slope = vectors.T @ hessian @ centre

    def norm_gap(t):
        return np.linalg.norm(slope / (values + t)) - radius

    low = -values[0] + 1e-12 * values[-1]
    t = brentq(norm_gap, low, 1e6 * values[-1], xtol=1e-14, rtol=1e-14)
    return vectors @ (slope / (values + t))


@pytest.mark.parametrize("floor", [0.0, 1e9])
@pytest.mark.parametrize("seed", range(3))
def test_a_single_descent_in_a_box_ends_at_the_best_point(seed, floor):
    """By itself: draws and looks around would hide a wrong gradient, scale or floor."""

    class Raised(Quadratic):
        floor = 0.0

        def value_and_grad(self, shift):
            value, grad = super().value_and_grad(shift)
            return value - 5 + self.floor, grad

    plain, rng = instance(seed)
    acquisition = Raised(plain.root, plain.centre)
    acquisition.floor = floor
    low = plain.centre - rng.uniform(0.1, 2, 5) * [1, 30, 1, 0.1, 1]
    high = low + rng.uniform(0.1, 2, 5) * [1, 30, 1, 0.1, 1]
    exact = lsq_linear(plain.root, plain.root @ plain.centre, (low, high), tol=1e-14).x
    found, value = Box(low, high)._descend(acquisition, low)
    assert value == acquisition.value(found)
    np.testing.assert_allclose(found, exact, atol=1e-3 * (high - low).max())
    gap, best = (plain.root @ (a - plain.centre) for a in (found, exact))
    assert gap @ gap <= best @ best * (1 + 1e-6) + 1e-6
    # Nothing is left to gain where a search starts at the best point of all.
    wide = Box(plain.centre - 1, plain.centre + 1)
    np.testing.assert_array_equal(wide._descend(acquisition, plain.centre)[0], plain.centre)


@pytest.mark.parametrize("radius", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_sphere(seed, radius):
    acquisition, _ = instance(seed)
    best = nearest_on_sphere(acquisition.root, acquisition.centre, radius)
    assert np.linalg.norm(best) == pytest.approx(radius)
    found = Sphere(radius).minimise(acquisition, starts=[acquisition.centre], n_random=4, rng=0)
    assert found.value == pytest.approx(acquisition.value(best), rel=1e-6)
    assert found.value == pytest.approx(acquisition.value(found.shift), rel=1e-12)
    assert np.linalg.norm(found.shift) == pytest.approx(radius)


def test_sparse_keeps_a_single_node_that_no_search_gets_below():
    class Spike(Quadratic):
        """As the quadratic, but -10 where node 2 alone is shifted: no slope leads there."""

        def value_and_grad(self, shift):
            value, grad = super().value_and_grad(shift)
            return (-10.0 if shift[2] == 1.0 else value), grad

    plain, _ = instance(3)
    acquisition = Spike(plain.root, plain.centre)
    found = Sparse(3).minimise(acquisition, n_random=0, rng=0)
    np.testing.assert_array_equal(found.shift, [0, 0, 1, 0, 0])
    assert found.value == acquisition.value(found.shift) == -10
