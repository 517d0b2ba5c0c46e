"""How effects go together, against dense covariances and draws of states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nextpert.core import Dag, DagBlr, Moments
from nextpert.core.design.distances import state_draws
from nextpert.core.model.scores import effects_alike
from nextpert.core.model.shift_posterior import ShiftPosterior
from nextpert.core.model.shift_prior import TAU2, ShiftPrior


def dense(alike):
    return alike.loadings @ alike.loadings.T + np.diag(alike.rest)


@pytest.mark.parametrize("p", [6, 40])
def test_covariance_is_that_of_the_effects_drawn_to_independence(p):
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(30, 4)) @ rng.normal(size=(4, p)) + 0.1 * rng.normal(size=(30, p))
    sd = rng.uniform(0.5, 2.0, size=p)
    wanted = effects.T @ effects / 30
    size = np.mean(np.diagonal(wanted) / sd**2)
    wanted += np.diag(3 / 30 * size * sd**2)
    found = dense(effects_alike(effects, sd))
    np.testing.assert_allclose(np.diagonal(found), np.diagonal(wanted), rtol=1e-10)
    # Beyond 20 factors only the noise is left.
    np.testing.assert_allclose(found, wanted, atol=1e-10 if p < 20 else 0.03)


def test_no_effect_at_all_is_no_correlation():
    found = effects_alike(np.zeros((3, 4)), np.ones(4))
    assert (found.rest > 0).all()
    np.testing.assert_array_equal(found.loadings, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("together", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("edges", [[], [(0, 1), (1, 2)]])
def test_draws_go_together_as_told_and_keep_their_variances(edges, together):
    rng = np.random.default_rng(1)
    blr = DagBlr(Dag.from_edges(3, edges), noise_var=[1.0, 4.0, 0.25], intercept=False)
    blr = blr.update(Moments.from_array(rng.normal(size=(100_000, 3))))
    nothing, spare = np.zeros((1, 3)), np.array([[0.5, 0.2, 0.9]])
    known = ShiftPosterior(np.zeros(1), nothing, nothing, nothing, spare)
    effects = rng.normal(size=(5, 1)) @ np.array([[1.0, -2.0, 0.5]])
    told = effects_alike(effects, np.ones(3)).told(known, blr, together)
    slope = np.eye(3) - blr.mean().toarray()
    states = np.array([x[0] for x in state_draws(blr, told, n_samples=40_000, rng=2)])
    shifts = states @ slope.T
    np.testing.assert_allclose(shifts.var(axis=0), spare[0] * [1.0, 4.0, 0.25], rtol=0.03)
    wanted = (slope @ effects.T) @ (slope @ effects.T).T / 5
    wanted += np.diag(slope**2 @ np.full(3, 3 / 5 * (effects**2).sum() / 15))
    sd = np.sqrt(np.diagonal(wanted))
    wanted = together * wanted / sd / sd[:, None] + (1.0 - together) * np.eye(3)
    np.testing.assert_allclose(np.corrcoef(shifts.T), wanted, atol=0.02)


def test_sizes_of_the_shifts_of_one_perturbation_go_together():
    blr = DagBlr(Dag.from_edges(4, []), noise_var=1.0, intercept=False)
    even = np.full((2, len(TAU2)), 1.0 / len(TAU2))
    prior = replace(ShiftPrior.exact(np.zeros((2, 4))), weights=even)
    draw = prior.given(blr).components
    assert draw is not None
    drawn = draw(np.random.default_rng(0), 1.0)
    spares = np.array([next(drawn)[1] for _ in range(4000)])
    assert (spares == spares[:, :, :1]).all()  # alike in every gene, which have the same prior
    assert np.corrcoef(spares[:, 0, 0], spares[:, 1, 0])[0, 1] < 0.1  # perturbations are not
    np.testing.assert_allclose(spares[:, 0, 0].mean(), TAU2.mean(), rtol=0.1)
