"""Domains of shifts: searches against exhaustive ones, moments against draws."""

import numpy as np
import pytest
from scipy.optimize import brentq

from nextpert.core import (
    Acquisition,
    Box,
    CausalVariance,
    Civ,
    CivOw,
    Dag,
    DagBlr,
    Greedy,
    MaxVariance,
    Moments,
    Pool,
    Random,
    Sparse,
    Sphere,
    TargetMeanVariance,
    random_scm,
)

LOOKAHEAD = [Civ, CausalVariance, MaxVariance, TargetMeanVariance]


def instance(p, seed, n=10, scale=1.0, **options):
    """Draw a posterior and a target mean."""
    rng = np.random.default_rng(seed)
    scm = random_scm(p, "complete", rng=rng)
    blr = DagBlr(scm.dag, prior_scale=1.0, prior_rate=1e-3 * scale**2, **options)
    blr = blr.update(Moments.from_array(scale * scm.sample(n, rng=rng)))
    return blr, scale * scm.mean(rng.normal(size=p)), rng


@pytest.mark.parametrize("kind", [*LOOKAHEAD, CivOw, Greedy])
def test_pool_takes_the_best_candidate_and_the_first_of_equals(kind):
    blr, target, rng = instance(6, 0)
    shifts = rng.normal(size=(200, 6))
    shifts[150] = shifts[20]
    acquisition = kind(blr, target)
    for pool in (shifts, np.vstack([shifts, shifts])):
        found = Pool(pool).minimise(acquisition, rng=0, n_random=3)
        values = [acquisition.value(a) for a in shifts]
        assert found.index == int(np.argmin(values))
        assert found.value == pytest.approx(min(values), rel=1e-12)
        np.testing.assert_array_equal(found.shift, shifts[found.index])


DOMAINS = {
    "pool": Pool(np.random.default_rng(1).normal(size=(7, 4))),
    "sphere": Sphere(2.5),
    "box": Box([-1.0, 0.0, 2.0, -3.0], [1.0, 0.5, 2.0, 3.0]),
    "sparse": Sparse(2, 1.5),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_moments_are_those_of_draws_and_projections_are_the_nearest_points(name):
    domain, rng = DOMAINS[name], np.random.default_rng(2)
    draws, b = domain.sample(40_000, 4, rng), rng.normal(size=4)
    mean, variance = domain.moments(4)
    square = domain.mean_square(b)
    for values, wanted in (
        (draws, mean),
        ((draws - mean) ** 2, variance),
        ((draws - b) ** 2, square),
    ):
        error = values.std(axis=0) / np.sqrt(len(draws))
        assert (np.abs(values.mean(axis=0) - wanted) <= 5 * error + 1e-10).all()
    np.testing.assert_allclose([domain.project(a) for a in draws[:20]], draws[:20], rtol=1e-12)
    for shift in 2 * rng.normal(size=(5, 4)):
        nearest = np.linalg.norm(domain.project(shift) - shift)
        assert nearest <= np.linalg.norm(draws - shift, axis=1).min() + 1e-12


def test_draws_of_pools_and_a_shift_of_zero():
    rng, pool = np.random.default_rng(3), DOMAINS["pool"]
    places = [(pool.shifts == a).all(axis=1).argmax() for a in pool.sample(7000, 4, rng)]
    counts = np.bincount(places, minlength=7)
    assert ((counts - 1000) ** 2 / 1000).sum() < 35  # chi square, 6 degrees of freedom
    np.testing.assert_array_equal(DOMAINS["sphere"].project(np.zeros(4)), [2.5, 0, 0, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pool(np.empty((0, 3))), "at least one"),
        (lambda: Pool(np.ones(3)), "at least one"),
        (lambda: Pool([[np.nan, 1.0]]), "NaN"),
        (lambda: Pool(np.eye(3)).moments(4), "3 nodes"),
        (lambda: Pool(np.eye(3)).minimise(Random(DagBlr(Dag.from_edges(4, [])), rng=0)), "pool"),
        *((lambda bad=bad: Sphere(bad), "radius") for bad in (0.0, -1.0, np.nan, np.inf)),
        (lambda: Box(1.0, 0.0), "low <= high"),
        (lambda: Box(-np.inf, 0.0), "low"),
        (lambda: Box(np.zeros(3), 1.0).moments(4), r"shape \(4,\)"),
        (lambda: Sparse(0), "k must"),
        (lambda: Sparse(1.5), "k must"),
        (lambda: Sparse(1, 0.0), "radius"),
        *(
            (
                lambda d=DOMAINS[d]: CivOw(DagBlr(Dag.from_edges(4, [])), np.ones(4), domain=d),
                "CIV-OW",
            )
            for d in ("box", "sparse")
        ),
    ],
)
def test_what_is_no_domain_is_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


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


@pytest.mark.parametrize("radius", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_point_of_a_sphere_for_an_acquisition_of_ones_own(seed, radius):
    rng = np.random.default_rng(seed)
    acquisition = Quadratic(rng.normal(size=(5, 5)), rng.normal(size=5))
    best = nearest_on_sphere(acquisition.root, acquisition.centre, radius)
    assert np.linalg.norm(best) == pytest.approx(radius)
    found = Sphere(radius).minimise(acquisition, starts=[acquisition.centre], n_random=4, rng=0)
    assert found.value == pytest.approx(acquisition.value(best), rel=1e-6)
    assert found.value == pytest.approx(acquisition.value(found.shift), rel=1e-12)
    assert np.linalg.norm(found.shift) == pytest.approx(radius)
