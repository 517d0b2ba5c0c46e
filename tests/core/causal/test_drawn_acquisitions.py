"""EI-, MI- and UCB-Int against loops over dense inverses, quadrature and many draws."""

import numpy as np
import pytest
from scipy.integrate import quad

from nextpert.core import (
    CausalVariance,
    Civ,
    CivOw,
    Dag,
    DagBlr,
    ExpectedImprovementInt,
    MaxVariance,
    MutualInformationInt,
    Sphere,
    TargetMeanVariance,
    UpperConfidenceInt,
    build_acquisition,
)

N_DRAWS = 7


def dense_draws(plain, blr, rng):
    """The draws of an acquisition, as dense weights, intercepts and noise variances."""
    flat, noise_var = blr.sample(N_DRAWS, rng)
    weights, offset = np.zeros((N_DRAWS, plain.p, plain.p)), np.zeros((N_DRAWS, plain.p))
    for i, parents in enumerate(plain.parents):
        own = flat[:, blr.vptr[i] : blr.vptr[i + 1]]
        weights[:, i, parents] = own[:, plain.intercept :]
        if plain.intercept:
            offset[:, i] = own[:, 0]
    return weights, offset, noise_var


@pytest.fixture
def pair():
    """Two nodes, one weight: N(0.6, 0.5 * 0.3) and noise variances 1.2 and 0.5."""
    blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=[1.2, 0.5], intercept=False, prior_scale=1)
    blr.blocks["cov"][:] = 0.3
    blr.blocks["weights"][:] = 0.6
    return blr


def normal_mean(function, mean, sd):
    """Expectation over a normal, by adaptive quadrature."""

    def weighted(z):
        return function(mean + sd * z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)

    return quad(weighted, -12, 12, limit=400, epsabs=1e-11)[0]


@pytest.mark.parametrize("quantile", [0.4, None])
def test_expected_improvement_by_loops(fitted, quantile):
    plain, blr = fitted
    rng = np.random.default_rng(0)
    target, shifts = rng.normal(size=plain.p), rng.normal(size=(4, plain.p))
    weights, offset, _ = dense_draws(plain, blr, np.random.default_rng(5))
    loss = np.empty((4, N_DRAWS))
    for j, shift in enumerate(shifts):
        for k in range(N_DRAWS):
            reached = np.linalg.inv(np.eye(plain.p) - weights[k]) @ (offset[k] + shift)
            loss[j, k] = ((reached - target) ** 2).sum()
    best = np.inf if quantile is None else float(np.quantile(loss, quantile))
    acquisition = ExpectedImprovementInt(blr, target, best=best, n_samples=N_DRAWS, rng=5)
    wanted = np.minimum(loss, best).mean(axis=1)
    np.testing.assert_allclose(acquisition.values(shifts), wanted, rtol=1e-9)
    np.testing.assert_allclose([acquisition.value(a) for a in shifts], wanted, rtol=1e-9)


@pytest.mark.parametrize("n", [1, 20])
def test_mutual_information_by_loops(fitted, n):
    plain, blr = fitted
    rng = np.random.default_rng(1)
    target, shifts = rng.normal(size=plain.p), rng.normal(size=(3, plain.p))
    generator = np.random.default_rng(5)
    weights, offset, noise_var = dense_draws(plain, blr, generator)
    noise = generator.standard_normal((N_DRAWS, plain.p)) * np.sqrt(noise_var / n)
    now = plain.w(target)
    wanted = np.zeros(3)
    for j, shift in enumerate(shifts):
        for k in range(N_DRAWS):
            inverse = np.linalg.inv(np.eye(plain.p) - weights[k])
            x = inverse @ (offset[k] + shift + noise[k])
            for i, cov in enumerate(plain.cov):
                if len(cov):
                    row = plain.design(x[None], i)[0]
                    later = np.linalg.inv(np.linalg.inv(cov) + n * np.outer(row, row))
                    q = plain.design(target[None], i)[0]
                    wanted[j] += 0.5 * np.log(q @ later @ q / now[i]) / N_DRAWS
    acquisition = MutualInformationInt(blr, target, n_cells=n, n_samples=N_DRAWS, rng=5)
    np.testing.assert_allclose(acquisition.values(shifts), wanted, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(
        [acquisition.value(a) for a in shifts], wanted, rtol=1e-6, atol=1e-12
    )
    assert (wanted <= 0).all()


def test_mutual_information_by_its_definition(pair):
    # I = E log p(x1 | x0, b) - E log p(x1 | x0): two nested integrals over densities.
    shift, n = np.array([1.5, 0.0]), 40_000
    prior, noise = 0.5 * 0.3, 0.5

    def entropy(variance):
        def density(z):
            return np.exp(-z * z / (2 * variance)) / np.sqrt(2 * np.pi * variance)

        reach = 12 * np.sqrt(variance)
        return -quad(lambda z: density(z) * np.log(density(z)), -reach, reach, limit=200)[0]

    def gain(x0):
        return entropy(noise + prior * x0**2) - entropy(noise)

    wanted = normal_mean(gain, 1.5, np.sqrt(1.2))
    acquisition = MutualInformationInt(pair, [1.0, 0.0], n_samples=n, rng=0)
    spread = normal_mean(lambda x: (gain(x) - wanted) ** 2, 1.5, np.sqrt(1.2))
    assert abs(-acquisition.value(shift) - wanted) < 4 * np.sqrt(spread / n)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_upper_confidence_by_many_draws(fit_twice, graphs, beta):
    n = 100_000
    for seed, (name, known) in enumerate([("complete", True), ("sparse", False)]):
        # With a wide posterior, so that uncertainty shows.
        plain, blr = fit_twice(graphs[name], bool(seed), known, n=8, seed=seed)
        rng = np.random.default_rng(seed)
        target, shift = rng.normal(size=plain.p), rng.normal(size=plain.p)
        weights, offset, _ = plain.draw(n, rng)
        ideal = target - weights @ target - offset
        gap = ((shift - ideal) ** 2).sum(axis=1)
        acquisition = UpperConfidenceInt(blr, target, beta=beta)
        wanted = gap.mean() - beta * gap.std()
        off = (gap - gap.mean()) / gap.std()
        error = gap.std() * np.sqrt(1 + beta**2 * ((off**4).mean() - 1) / 4) / np.sqrt(n)
        assert abs(acquisition.value(shift) - wanted) < 6 * error
        assert gap.std() > 20 * error / (1 + beta)


def test_every_option_reaches_the_acquisition_of_a_name(fit_twice, graphs):
    plain, blr = fit_twice(graphs["complete"], True, True)
    target, shift, domain = np.ones(plain.p), np.full(plain.p, 0.4), Sphere(2.5)
    ahead = {"n_cells": 7, "noise_aware": True}
    mine = {
        "maxv": MaxVariance(blr, target, **ahead),
        "cv": CausalVariance(blr, target, **ahead),
        "target_mean_variance": TargetMeanVariance(blr, target, **ahead),
        "civ": Civ(blr, target, domain=domain, **ahead),
        "civ_ow": CivOw(blr, target, domain=domain, **ahead),
        "mi": MutualInformationInt(blr, target, n_cells=7, rng=3),
        "ei": ExpectedImprovementInt(blr, target, best=2.0, rng=3),
    }
    options = {"domain": domain, "best": 2.0, "rng": 3, **ahead}
    for name, acquisition in mine.items():
        made = build_acquisition(name, blr, target, **options)
        assert made.value(shift) == acquisition.value(shift), name
        assert type(made) is type(acquisition)
        other = build_acquisition(name, blr, target, domain=Sphere(), n_cells=1, best=9.0, rng=4)
        assert made.value(shift) != other.value(shift)  # the options matter here


def test_nothing_to_learn():
    blr = DagBlr(Dag.from_edges(2, []), noise_var=1.0, intercept=False)
    assert MutualInformationInt(blr, [1.0, 2.0], rng=0).value([1.0, 1.0]) == 0
    value, grad = UpperConfidenceInt(blr, [1.0, 2.0]).value_and_grad([0.0, 2.0])
    assert value == 1
    assert grad.tolist() == [-2.0, 0.0]
