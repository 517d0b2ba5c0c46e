"""Every acquisition's value against the dense posterior one step ahead."""

import numpy as np
import pytest

from nextpert.core import (
    CausalVariance,
    Civ,
    CivOw,
    Dag,
    DagBlr,
    Greedy,
    MaxVariance,
    Pool,
    Random,
    Sphere,
    TargetMeanVariance,
)

N_CELLS = [1, 25]
LOOKAHEAD = [Civ, CivOw, CausalVariance, MaxVariance, TargetMeanVariance]


def draw_points(p, rng, n=4):
    return rng.normal(size=(n, p)), rng.normal(size=p)


def cross_polytope(p, radius):
    """Return +-R e_i: averages of quadratics over these points are exact for the sphere."""
    return radius * np.vstack([np.eye(p), -np.eye(p)])


@pytest.mark.parametrize("n", N_CELLS)
def test_civ_is_the_average_gap_variance_one_step_ahead(fitted, n):
    plain, blr = fitted
    rng = np.random.default_rng(n)
    p = plain.p
    shifts, target = draw_points(p, rng)
    candidates = rng.normal(size=(7, p))
    rules = {
        None: (cross_polytope(p, 1.0), None),
        Sphere(2.5): (cross_polytope(p, 2.5), None),
        Pool(candidates): (candidates, None),
    }
    for domain, (points, weights) in rules.items():
        civ = Civ(blr, target, domain=domain, n_cells=n)
        wanted = [
            np.average(plain.ahead(a, n).gap_variance(points, target, n), weights=weights)
            for a in shifts
        ]
        np.testing.assert_allclose([civ.value(a) for a in shifts], wanted, rtol=1e-8)
        now = np.average(plain.gap_variance(points, target, n), weights=weights)
        if plain.known is not None:  # unknown: the shape one step ahead differs
            assert civ.current() == pytest.approx(now, rel=1e-8)


@pytest.mark.parametrize("n", N_CELLS)
def test_largest_variances_and_that_of_the_mean_reached(fitted, n):
    """Of the ideal shift (CV), of any weight (MaxV), and of nodes by their effects."""
    plain, blr = fitted
    shifts, target = draw_points(plain.p, np.random.default_rng(n))
    effects = (np.linalg.inv(np.eye(plain.p) - plain.weights) ** 2).sum(axis=0)

    def tops(cov):
        return np.array([np.linalg.eigvalsh(c)[-1] if len(c) else 0.0 for c in cov])

    for a in shifts:
        later = plain.ahead(a, n)
        e, w = later.noise_moments()[0], later.w(target)
        wanted = {
            CausalVariance: (e * w).max(),
            MaxVariance: (e * tops(later.cov)).max(),
            TargetMeanVariance: (effects * e * w).sum(),
        }
        for kind, value in wanted.items():
            found = kind(blr, target, n_cells=n).value(a)
            assert found == pytest.approx(value, rel=1e-8, abs=1e-14)
    now = MaxVariance(blr, target, n_cells=n).current()
    assert now == pytest.approx((e * tops(plain.cov)).max(), rel=1e-9)


def test_greedy_is_the_squared_distance_to_the_estimate(fitted):
    plain, blr = fitted
    shifts, target = draw_points(plain.p, np.random.default_rng(0))
    greedy = Greedy(blr, target)
    wanted = [np.linalg.norm(a - plain.ideal(target)) ** 2 for a in shifts]
    np.testing.assert_allclose(greedy.values(shifts), wanted, rtol=1e-8)
    np.testing.assert_allclose([greedy.value(a) for a in shifts], wanted, rtol=1e-8)


def test_greedy_takes_the_nearest_point_of_each_domain(fit_twice, graphs):
    plain, blr = fit_twice(graphs["complete"], True, False)
    rng = np.random.default_rng(4)
    target = rng.normal(size=5)
    b, greedy = plain.ideal(target), Greedy(blr, target)
    domains = [Sphere(1.3), Pool(rng.normal(size=(30, 5)))]
    for domain in domains:
        found = domain.minimise(greedy, rng=0)
        others = domain.sample(5000, 5, rng)
        assert found.value <= ((others - b) ** 2).sum(axis=1).min()
        assert found.value == pytest.approx(((found.shift - b) ** 2).sum())
    np.testing.assert_allclose(domains[0].minimise(greedy).shift, 1.3 * b / np.linalg.norm(b))
    nearest = ((domains[1].shifts - b) ** 2).sum(axis=1).argmin()
    assert domains[1].minimise(greedy).index == nearest


def test_random_draws_uniformly_and_by_its_own_seed():
    shifts = np.eye(4)
    blr = DagBlr(Dag.from_edges(4, []))
    acquisition = Random(blr, rng=0)
    draws = np.array([Pool(shifts).minimise(acquisition).index for _ in range(4000)])
    counts = np.bincount(draws, minlength=4)
    assert ((counts - 1000) ** 2 / 1000).sum() < 25  # chi square, 3 degrees of freedom
    np.testing.assert_array_equal(
        Random(blr, rng=3).values(shifts), Random(blr, rng=3).values(shifts)
    )
    points = np.array([Sphere(2.0).minimise(acquisition).shift for _ in range(2000)])
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 2.0)
    z = points.mean(axis=0) / (points.std(axis=0) / np.sqrt(2000))
    assert np.abs(z).max() < 5


@pytest.mark.parametrize("kind", [*LOOKAHEAD, Greedy])
def test_values_over_a_pool_equal_values_one_by_one(fitted, kind):
    plain, blr = fitted
    rng = np.random.default_rng(6)
    target = rng.normal(size=plain.p)
    acquisition = kind(blr, target)
    shifts = rng.normal(size=(300, plain.p)) * rng.uniform(0, 3, (300, 1))
    shifts[7] = 0
    single = np.array([acquisition.value(a) for a in shifts])
    scale = max(np.abs(single).max(), 1e-300)
    np.testing.assert_allclose(acquisition.values(shifts), single, rtol=1e-12, atol=1e-14 * scale)
    fortran = np.asfortranarray(shifts.astype(np.float32))
    np.testing.assert_allclose(
        acquisition.values(fortran), acquisition.values(shifts.astype(np.float32)), rtol=0
    )
    assert acquisition.values(shifts[:0]).shape == (0,)
