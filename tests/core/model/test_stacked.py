"""Expectations by a stack: the graph's part as a shift, the rest as an effect; members together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nextpert.core import Dag, DagBlr, Moments, ScreenMoments, random_scm
from nextpert.core.model.effects import estimate_effects
from nextpert.core.model.interactions import Together
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictor_weights import with_expectation
from nextpert.core.model.predictors.base import Prediction
from nextpert.core.model.predictors.graph import Graph
from nextpert.core.model.predictors.members import Members
from nextpert.core.model.random_shifts import fit_random_shifts, unseen_mixture
from nextpert.core.model.shift_prior import TAU2, ShiftPrior
from nextpert.core.screen.guides import pool_guides


def screen(rng, shifts, scm, n=50):
    label = np.repeat(np.arange(len(shifts)), n)
    return ScreenMoments.from_array(
        np.concatenate([scm.sample(n, a, rng=rng) for a in shifts]), label, len(shifts)
    )


def test_states_are_those_of_the_stack():
    rng = np.random.default_rng(0)
    scm = random_scm(6, expected_degree=3, rng=1)
    shifts = np.vstack([np.zeros(6), -np.eye(6)[:4]])
    found = Perturbations(screen(rng, shifts, scm), 0, [1, 2, 3, 4], [[0], [1], [2], [3]])
    blr = DagBlr(scm.dag).update(Moments.from_array(scm.sample(300, rng=rng)))
    own = np.where(found.own(), found.observed, 0.0)
    graph = Graph(blr.mean().toarray()).predict(found, found)
    other = Prediction("other", np.where(found.own(), 0.0, rng.normal(size=(4, 6))))
    weights = np.column_stack([[0.3, 0.0, 1.0, 0.5], [0.2, 0.4, 0.0, 0.6]])
    wanted = own + weights[:, :1] * graph.effects + weights[:, 1:] * other.effects
    # Own genes may be moved by the graph as well: the shift that reaches the own change exactly.
    exact = ShiftPrior.exact(np.zeros((4, 6)))
    prior = with_expectation(
        exact, own, [graph, other], {"graph": weights[:, 0], "other": weights[:, 1]}
    )
    total = np.linalg.inv(np.eye(6) - blr.mean().toarray())
    reached = prior.given(blr).states(blr) - blr.predict_mean(np.zeros(6))
    np.testing.assert_allclose(total.diagonal(), 1.0)
    np.testing.assert_allclose(reached, wanted, atol=1e-10)


def test_what_members_do_together_is_told_own_genes_included():
    rng = np.random.default_rng(0)
    scm = random_scm(5, expected_degree=2, rng=1)
    shifts = np.array([[0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 2, 0, 0, 0], [1, 2, 0, 0, 0]])
    moments = screen(rng, shifts, scm)
    seen = Perturbations(moments, 0, [1, 2, 3], [[0], [1], [0, 1]])
    mean, variance = rng.normal(size=(1, 5)), rng.gamma(1.0, size=(1, 5))
    together = Together(np.array([2]), mean, variance, np.full((1, 5), 0.5))
    said = Members(together).predict(seen, seen)
    assert said.fixed
    assert not said.effects[:2].any()
    np.testing.assert_array_equal(said.effects[2], [0, 0, *mean[0, 2:]])
    np.testing.assert_allclose(said.shared[2, 2:], 0.5 * seen.control_variance[2:])
    other = Members(together).silenced(Prediction("other", np.ones((3, 5)), np.ones((3, 5))))
    assert other.effects[:2].all()
    assert not other.effects[2].any()
    assert not other.shared[2].any()
    found = fit_random_shifts(DagBlr(scm.dag), pool_guides(moments, range(4), 4), np.zeros((3, 5)))
    blr, ratio = found.posterior, rng.gamma(1.0, size=5)
    prior = together.told(found.prior, ratio)
    unseen = replace(prior, n=np.zeros(3)).given(blr)
    reached = unseen.states(blr) - blr.predict_mean(np.zeros(5))
    np.testing.assert_allclose(reached[2], mean[0], atol=1e-10)
    np.testing.assert_allclose(unseen.spare[2] * blr.noise_var, variance[0] * ratio)
    np.testing.assert_array_equal(prior.effect[:2], found.prior.effect[:2])


def test_nothing_is_expected_by_weights_of_nothing():
    own = np.diag([-1.0, -2.0])
    prior = ShiftPrior.exact(np.zeros((2, 2)))
    prior = with_expectation(
        prior, own, [Prediction("other", np.ones((2, 2)))], {"other": np.zeros(2)}
    )
    blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False).update(
        Moments.from_array(np.random.default_rng(0).normal(size=(9, 2)))
    )
    np.testing.assert_allclose(prior.given(blr).states(blr), own, atol=1e-12)
    assert prior.weights.shape == (2, len(TAU2))


def test_unseen_effects_spread_as_those_left_out_do_whatever_the_graph():
    # Shifts along one programme: effects add up, where shifts drawn gene by gene would cancel.
    rng = np.random.default_rng(0)
    scm = random_scm(20, expected_degree=4, rng=1)
    truth = rng.normal(size=(40, 1)) * np.sqrt(scm.covariance().diagonal())
    shifts = truth @ (np.eye(20) - scm.weights).T
    label = np.repeat(np.arange(41), [4000, *[100] * 40])
    x = [scm.sample(4000, rng=rng), *(scm.sample(100, shift, rng=rng) for shift in shifts)]
    moments = ScreenMoments.from_array(np.concatenate(x), label, 41)
    cells = pool_guides(moments, np.arange(41), 41)
    found = fit_random_shifts(DagBlr(scm.dag), cells, np.zeros((40, 20)))
    sd = np.sqrt(moments.scatter.diagonal() / moments.n.sum())
    for part in (1.0, 0.5):
        weights = unseen_mixture(cells, found, (1 - part) * truth)
        wanted = part**2 * ((truth / sd) ** 2).mean()
        np.testing.assert_allclose(weights @ TAU2, wanted, rtol=0.15)
        new = replace(ShiftPrior.exact(np.zeros((1, 20))), weights=weights[None])
        told = estimate_effects([found.posterior], new).sd[0] / sd
        np.testing.assert_allclose((told**2).mean(), wanted, rtol=0.15)
