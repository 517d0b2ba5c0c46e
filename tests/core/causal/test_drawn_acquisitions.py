"""EI-, MI- and UCB-Int against loops over dense inverses, quadrature and many draws."""

import numpy as np
import pytest

from nextpert.core import (
    CausalVariance,
    Civ,
    CivOw,
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
