"""The noise-aware look ahead against cells that are really drawn and really used."""

import numpy as np
import pytest

from nextpert.core import (
    CausalVariance,
    Civ,
    DagBlr,
    MaxVariance,
    Moments,
    Pool,
    TargetMeanVariance,
    random_scm,
)


def posterior(intercept, n_nodes=6, n_cells=40):
    scm = random_scm(n_nodes, "complete", rng=3)
    blr = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=intercept, prior_scale=1.0)
    return blr.update(Moments.from_array(scm.sample(n_cells, rng=4))), np.linspace(-1, 1, n_nodes)


def dense_settled(blr, i, n_cells):
    """(M^-1 + n Cov_P)^-1 from the definition, by plain inverses."""
    effects = np.linalg.inv(np.eye(blr.n_nodes) - blr.mean().toarray())
    cov_x = effects @ np.diag(blr.noise_var) @ effects.T
    d = blr.vptr[i + 1] - blr.vptr[i]
    cov = blr.blocks["cov"][blr.mptr[i] : blr.mptr[i + 1]].reshape(d, d)
    parents = blr.dag.parents(i)
    k = d - len(parents)
    noise = np.zeros((d, d))
    noise[k:, k:] = cov_x[np.ix_(parents, parents)]
    return np.linalg.inv(np.linalg.inv(cov) + n_cells * noise), parents, k


@pytest.mark.parametrize("intercept", [False, True])
def test_every_acquisition_equals_its_dense_form(intercept):
    blr, target = posterior(intercept)
    n = 25
    shift = np.array([0.3, -0.5, 0.2, 0.7, 0.0, 0.1])
    effects = np.linalg.inv(np.eye(6) - blr.mean().toarray())
    reached = effects @ (blr.intercept_mean + shift)
    w, norm = np.empty(6), np.empty(6)
    for i in range(6):
        settled, parents, k = dense_settled(blr, i, n)
        row = np.concatenate([np.ones(k), reached[parents]])
        after = (
            np.linalg.inv(np.linalg.inv(settled) + n * np.outer(row, row)) if len(row) else settled
        )
        q = np.concatenate([np.ones(k), target[parents]])
        w[i] = q @ after @ q
        norm[i] = np.linalg.norm(after, 2) if len(row) else 0.0
    e = blr.noise_var
    options = {"n_cells": n, "noise_aware": True}
    assert CausalVariance(blr, target, **options).value(shift) == pytest.approx((e * w).max())
    assert MaxVariance(blr, target, **options).value(shift) == pytest.approx((e * norm).max())
    tmv = TargetMeanVariance(blr, target, **options)
    expected = ((effects**2).sum(axis=0) * e * w).sum()
    assert tmv.value(shift) == pytest.approx(expected, rel=1e-9)
    pool = np.vstack([shift, -shift])
    civ = Civ(blr, target, domain=Pool(pool), **options)
    b = (np.eye(6) - blr.mean().toarray()) @ target - blr.intercept_mean
    s = 1 / n + w
    direct = (2 * e**2 * s**2 + 4 * s * e * ((pool - b) ** 2).mean(axis=0)).sum()
    assert civ.value(shift) == pytest.approx(direct, rel=1e-9)
