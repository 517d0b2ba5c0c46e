"""CIV-OW against importance-weighted sampling and quadrature of its weights' definition."""

import itertools

import numpy as np
import pytest
from scipy import integrate, stats

from nextpert.core import Civ, CivOw, Pool, Sphere


def chain(p):
    return [list(range(max(i - 2, 0), i)) for i in range(p)]


def cosine_density(t, p):
    """Density of a'b/(|a||b|) for a uniform on the sphere: (t + 1)/2 is a beta variable."""
    half = (p - 1) / 2
    return stats.beta.pdf((t + 1) / 2, half, half) / 2


def sphere_about(b, t, rng):
    """Unit vectors at cosine ``t`` to ``b``, uniform otherwise."""
    pole = b / np.linalg.norm(b)
    side = rng.normal(size=(len(t), len(b)))
    side -= (side @ pole)[:, None] * pole
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return t[:, None] * pole + np.sqrt(1 - t**2)[:, None] * side


def ratio_of_means(values, weights):
    """Self-normalised importance estimate and its standard error (delta method)."""
    estimate = (weights * values).sum() / weights.sum()
    error = np.sqrt((weights**2 * (values - estimate) ** 2).sum()) / weights.sum()
    return estimate, error


@pytest.mark.parametrize("known_variance", [True, False])
@pytest.mark.parametrize("p", [2, 4, 5, 6, 7, 8])
def test_civ_ow_by_importance_weights(p, known_variance, fit_twice):
    plain, blr = fit_twice(chain(p), False, known_variance)
    rng = np.random.default_rng(p)
    target, shift = rng.normal(size=p), rng.normal(size=p)
    b, radius, count = plain.ideal(target), 4.0, 100_000
    # Half the points uniform on the sphere, half nearer the poles, so that the weights of
    # eq. 8, one over the density of t, stay bounded.
    even = rng.normal(size=(count, p))
    even /= np.linalg.norm(even, axis=1, keepdims=True)
    points = np.vstack([even, sphere_about(b, rng.uniform(-1, 1, count), rng)])
    t = np.clip(points @ b / np.linalg.norm(b), -1 + 1e-12, 1 - 1e-12)
    base, proposal = cosine_density(t, p), 0.5 * cosine_density(t, p) + 0.25
    weights = base / proposal / base  # of uniform points against these, times eq. 8's
    later = plain.ahead(shift, 3)
    # weights are even in t: each point goes with its opposite, which takes much noise away
    values = sum(later.gap_variance(sign * radius * points, target, 3) for sign in (1, -1)) / 2
    wanted, error = ratio_of_means(values, weights)
    found = CivOw(blr, target, domain=Sphere(radius), n_cells=3).value(shift)
    assert abs(found - wanted) < 5 * error
    square = CivOw(blr, target, domain=Sphere(radius)).mean_square()
    uniform = Civ(blr, target, domain=Sphere(radius)).mean_square()
    scores = []
    for i in range(p):
        wanted, error = ratio_of_means(radius**2 * points[:, i] ** 2 + b[i] ** 2, weights)
        assert abs(square[i] - wanted) < 5 * error
        scores.append(abs(uniform[i] - wanted) / error)
    assert max(scores) > 20  # the sample is large enough to tell the two apart


@pytest.mark.parametrize("kappa", [0.05, 1.0, 3.0, 40.0, 2000.0])
@pytest.mark.parametrize("p", [2, 3, 4, 7, 30])
def test_concentration_form_by_quadrature(p, kappa):
    b = np.random.default_rng(p).normal(size=p)

    def density(angle):
        # bimodal von Mises-Fisher about +-b, t = cos(angle), with sin^(p - 2) for the area
        both = np.exp(kappa * (np.cos(angle) - 1)) + np.exp(-kappa * (np.cos(angle) + 1))
        return both * np.sin(angle) ** (p - 2)

    scale = 1 / np.sqrt(kappa)
    edges = np.unique(np.clip([0, 3 * scale, 12 * scale, np.pi / 2], 0, np.pi / 2))
    pieces = list(itertools.pairwise(edges))
    total = sum(integrate.quad(density, *ab, epsabs=0)[0] for ab in pieces)
    square = sum(
        integrate.quad(lambda a: np.cos(a) ** 2 * density(a), *ab, epsabs=0)[0] for ab in pieces
    )
    tau, share = square / total, b**2 / (b @ b)
    wanted = b**2 + 4 * (tau * share + (1 - tau) * (1 - share) / (p - 1))
    found = Sphere(2.0).output_weighted_square(b, kappa)
    np.testing.assert_allclose(found, wanted, rtol=1e-8)
    if p == 3 and kappa == 3.0:
        assert tau == pytest.approx(1 - 2 * (1 / np.tanh(3) - 1 / 3) / 3)
        assert tau == pytest.approx(0.5522, abs=5e-5)


def test_pool_weights_make_the_predicted_gap_uniform_on_its_range(fit_twice, graphs):
    _, blr = fit_twice(graphs["complete"], True, False)
    rng = np.random.default_rng(2)
    pool, target = Pool(rng.normal(size=(4000, 5))), rng.normal(size=5)
    b = blr.ideal_shift(target)
    weights = pool.output_weights(b)
    gap = ((pool.shifts - b) ** 2).sum(axis=1)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    low, high = gap.min(), gap.max()
    dense_part = low + (high - low) * np.linspace(0.05, 0.6, 12)
    shares = [weights[gap <= level].sum() for level in dense_part]
    np.testing.assert_allclose(shares, np.linspace(0.05, 0.6, 12), atol=0.02)
    square = CivOw(blr, target, domain=pool).mean_square()
    np.testing.assert_allclose(square, (weights[:, None] * (pool.shifts - b) ** 2).sum(axis=0))
    sphere = CivOw(blr, target).mean_square()
    assert not np.allclose(square, sphere)
