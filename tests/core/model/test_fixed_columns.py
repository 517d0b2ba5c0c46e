"""Batches as columns of the regression, against dense algebra over all cells and against draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nextpert.core import Civ, Dag, DagBlr, Moments, ScreenMoments, gap_variance, random_scm
from nextpert.core.design.distances import state_draws
from nextpert.core.model import random_shifts
from nextpert.core.model._blocks import _node_evidence, _spectra
from nextpert.core.model.effects import estimate_effects
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictors.mean_perturbation import MeanPerturbation
from nextpert.core.model.random_shifts import fit_random_shifts
from nextpert.core.model.scores import pooled_sizes
from nextpert.core.model.shift_prior import TAU2, ShiftPrior
from nextpert.core.screen.guides import pool_guides
from nextpert.core.screen.mean_distance import distance_difference, mean_distance

TAU_G2, TAU_2 = 0.07, 0.4
P, N_GROUPS, N_GUIDES = 4, 4, 7
GROUP = np.array([0, 0, 1, 1, 1, 2, 3])  # of every guide


class Screen:
    """Cells of controls and three perturbations in three batches, on a graph of four nodes.

    Guides are crossed with batches, but the last perturbation is in one batch alone.
    """

    def __init__(self, seed=3):
        rng = np.random.default_rng(seed)
        scm = random_scm(P, expected_degree=3, rng=5)
        self.dag = scm.dag
        self.guide = np.repeat(np.arange(N_GUIDES), [12, 9, 7, 6, 8, 9, 5])
        self.batch = rng.integers(3, size=len(self.guide))
        self.batch[self.guide == 6] = 2
        self.x = scm.sample(len(self.guide), rng=rng) + 0.3 * rng.normal(size=(7, P))[self.guide]
        self.x += 1.0 + rng.normal(size=(3, P))[self.batch]
        self.label = GROUP[self.guide]
        self.shift = np.zeros((N_GROUPS, P))
        self.shift[1:] = rng.normal(size=(3, P)) * (rng.random((3, P)) < 0.4)

    def pooled(self, *, cleaned=False, ratio=True):
        """Return columns by cell, and the cells as a fit takes them."""
        both, place = np.unique(
            np.column_stack([self.guide, self.batch]), axis=0, return_inverse=True
        )
        place = place.ravel()
        screen = ScreenMoments.from_array(self.x, place, len(both))
        fixed = (both[:, [1]] == [1, 2]).astype(float)
        columns, sd = screen.fixed_columns(fixed, GROUP[both[:, 0]])
        if cleaned:
            screen = screen.without_fixed(fixed, GROUP[both[:, 0]])
        guides = screen.with_columns(columns).pool(both[:, 0], N_GUIDES)
        cells = pool_guides(guides, GROUP, N_GROUPS, guide_variance=TAU_G2, fixed_sd=sd)
        if not ratio:
            cells.variance_ratio[:] = 1.0
        return columns[place], cells


def dense(screen, columns, i, tau2, scale=1.0):
    """Mean and covariance of node i's coefficients and shifts, rate and evidence, of all cells."""
    design = np.column_stack([np.ones(len(columns)), columns, screen.x[:, screen.dag.parents(i)]])
    y = screen.x[:, i] - screen.shift[screen.label, i]
    perturbed = np.equal.outer(screen.label, np.arange(1, N_GROUPS)).astype(float)
    guides = np.equal.outer(screen.guide, np.arange(N_GUIDES)).astype(float)
    noise = np.eye(len(y)) + TAU_G2 * guides @ guides.T
    every = np.hstack([design, perturbed])
    d, flat = design.shape[1], 1 + columns.shape[1]
    prior = np.r_[np.full(flat, 1e6), np.full(d - flat, scale), np.full(N_GROUPS - 1, tau2)]
    solved = np.linalg.solve(noise, every)
    cov = np.linalg.inv(every.T @ solved + np.diag(1 / prior))
    mean = cov @ solved.T @ y
    marginal = noise + every @ np.diag(prior) @ every.T
    rate = 0.5 + (y - every @ mean) @ np.linalg.solve(noise, y) / 2
    return mean, cov, rate, stats.multivariate_t(shape=0.25 * marginal, df=4).logpdf(y), d


def fitted(screen, tau2, monkeypatch):
    """Return the fit with one prior variance of all shifts: columns, cells, weights and prior."""
    columns, cells = screen.pooled(ratio=False)
    monkeypatch.setattr(random_shifts, "_MAX_STEPS", 1)
    blr = DagBlr(screen.dag, prior_scale=1.0, prior_units="data", prior_rate=0.5)
    ascent = random_shifts._Ascent(blr, cells, screen.shift[1:], None, fixed=False)
    ascent.share = ascent.n * tau2 / (1 + ascent.n * tau2)
    ascent.blr = ascent._fitted()
    return columns, cells, ascent.blr, one_variance(screen, cells, ascent.blr, tau2)


def one_variance(screen, cells, blr, tau2):
    weights = np.zeros((N_GROUPS - 1, len(TAU2)))
    weights[:, 0] = 1.0  # replaced by the variance given
    return ShiftPrior(
        cells.n[1:], cells.mean[1:], cells.variance_ratio[1:], screen.shift[1:],
        np.zeros((N_GROUPS - 1, P)), tau2 * np.tile(blr.noise_var, (N_GROUPS - 1, 1)), weights,
        cells.fixed[1:],
    )  # fmt: skip


def test_weights_batches_shifts_and_evidence_are_those_of_all_cells(monkeypatch):
    screen = Screen()
    columns, cells, blr, prior = fitted(screen, TAU_2, monkeypatch)
    known, total = prior.given(blr), 0.0
    assert blr.n_fixed == 2
    for i in range(P):
        mean, cov, rate, evidence, d = dense(screen, columns, i, TAU_2)
        block = slice(blr.vptr[i], blr.vptr[i + 1])
        np.testing.assert_allclose(blr.blocks["weights"][block], mean[:d], rtol=1e-8, atol=1e-9)
        found = blr.blocks["cov"][blr.mptr[i] : blr.mptr[i + 1]].reshape(d, d)
        np.testing.assert_allclose(found, cov[:d, :d], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(blr.rate[i], rate, rtol=1e-8)
        z = np.column_stack([np.ones(3), cells.fixed[1:], cells.mean[1:, screen.dag.parents(i)]])
        w, away = known.share[:, i], known.departure(blr)[:, i]
        np.testing.assert_allclose(w * away, mean[d:], rtol=1e-8, atol=1e-9)
        leverage = np.einsum("ja,ab,jb->j", z, cov[:d, :d], z)
        np.testing.assert_allclose(known.spare[:, i] + w**2 * leverage, np.diag(cov)[d:], rtol=1e-8)
        np.testing.assert_allclose(-w[:, None] * (z @ cov[:d, :d]), cov[d:, :d], rtol=1e-6)
        total += evidence
    grown = np.log1p(np.bincount(screen.guide) * TAU_G2).sum()
    grown = P * grown + np.log1p(prior.counted() * TAU_2).sum()
    np.testing.assert_allclose(blr.log_evidence() - 0.5 * grown, total, rtol=1e-8)


def test_effects_have_the_variance_of_all_cells(monkeypatch):
    """On no graph an effect is a shift: the dense posterior's, batches unknown in it."""
    screen = Screen()
    screen.dag = Dag.from_edges(P, [])
    columns, _, blr, prior = fitted(screen, TAU_2, monkeypatch)
    found = estimate_effects([blr], prior)
    for i in range(P):
        mean, cov, _, _, d = dense(screen, columns, i, TAU_2)
        np.testing.assert_allclose(found.mean[:, i] - screen.shift[1:, i], mean[d:], atol=1e-8)
        variance = blr.noise_var[i] * np.diag(cov)[d:]
        np.testing.assert_allclose(found.sd[:, i] ** 2, variance, rtol=1e-8)


@pytest.mark.slow
def test_draws_scatter_as_effects_and_gaps_say(monkeypatch):
    screen = Screen()
    _, _, blr, prior = fitted(screen, TAU_2, monkeypatch)
    blr.prior_shape += 1e4  # noise variances that hardly vary, as first order takes them
    blr.prior_rate = 1e4 * 0.5
    blr._blocks["cov"] /= 50.0  # and weights
    blr._blocks["residual"] /= 50.0
    prior = one_variance(screen, screen.pooled(ratio=False)[1], blr, TAU_2)
    known = prior.given(blr)
    draws = np.array(list(state_draws(blr, known, n_samples=40000, nothing=True, rng=0)))
    found = estimate_effects([blr], prior)
    effects = draws[:, :-1] - draws[:, -1:]
    np.testing.assert_allclose(effects.mean(axis=0), found.mean, atol=0.01)
    np.testing.assert_allclose(effects.std(axis=0), found.sd, rtol=0.05)


def test_at_zero_of_the_columns_they_are_integrated_out(monkeypatch):
    screen = Screen()
    _, _, blr, _ = fitted(screen, TAU_2, monkeypatch)
    alone = blr.without_fixed()
    again = alone._copied(with_blocks=False)
    again._blocks = None  # the blocks that follow of the statistics are the same
    target, shifts = np.linspace(0.5, 1.5, P), np.random.default_rng(0).normal(size=(5, P))
    for each in (alone, again):
        assert each.n_fixed == 0
        np.testing.assert_allclose(each.intercept_mean, blr.intercept_mean, rtol=1e-8)
        np.testing.assert_allclose(each.mean().toarray(), blr.mean().toarray(), rtol=1e-8)
        np.testing.assert_allclose(each.predict_mean(shifts), blr.predict_mean(shifts), rtol=1e-8)
        np.testing.assert_allclose(each.ideal_shift(target), blr.ideal_shift(target), rtol=1e-8)
        np.testing.assert_allclose(each.rate, blr.rate, rtol=1e-8)
    for i in range(P):
        d = blr.vptr[i + 1] - blr.vptr[i]
        kept = np.r_[0, 3:d]
        cov = blr.blocks["cov"][blr.mptr[i] : blr.mptr[i + 1]].reshape(d, d)[np.ix_(kept, kept)]
        for each in (alone, again):
            found = each.blocks["cov"][each.mptr[i] : each.mptr[i + 1]]
            np.testing.assert_allclose(found, cov.ravel(), rtol=1e-7)
    np.testing.assert_allclose(
        gap_variance(blr, shifts[0], target), gap_variance(alone, shifts[0], target)
    )
    assert Civ(blr, target).value(shifts[0]) == Civ(alone, target).value(shifts[0])


def test_what_least_squares_takes_off_beforehand_changes_nothing():
    screen = Screen()
    shift = screen.shift[1:]
    found = [
        fit_random_shifts(
            DagBlr(screen.dag, prior_rate=0.5), screen.pooled(cleaned=each, ratio=False)[1], shift
        )
        for each in (False, True)
    ]
    effects = [estimate_effects([each.posterior], each.prior) for each in found]
    for name in ("mean", "sd", "lower", "upper"):
        one, two = (getattr(each, name) for each in effects)
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5, err_msg=name)


def test_evidence_of_the_scale_leaves_fixed_columns_out(monkeypatch):
    """Differences of the evidence over scales, by the eigenvalues, are those of the posterior's."""
    screen = Screen()
    screen.shift[1:] = 0.0
    cells = screen.pooled(ratio=False)[1]
    options = {"prior_units": "data", "prior_rate": 0.5}
    exact = {
        scale: fit_random_shifts(
            DagBlr(screen.dag, prior_scale=scale, **options), cells, screen.shift[1:], fixed=True
        ).posterior
        for scale in (0.01, 0.3, 5.0)
    }
    blr = exact[0.3]
    sums = blr._statistics._replace(cells=blr.xtx[blr.mptr[:-1]].copy())
    values, scores, rest = _spectra(blr._layout, sums, 1e-6, np.ones(blr.vptr[-1]))
    tail = (np.full(P, 2.0), np.full(P, 0.5), blr.cells / 2, np.zeros(P))
    by_eigenvalues = [
        sum(
            _node_evidence(i, blr.vptr, 3, values, scores, rest, -np.log(scale), *tail)
            for i in range(P)
        )
        for scale in exact
    ]
    by_posterior = [each.log_evidence() for each in exact.values()]
    np.testing.assert_allclose(np.diff(by_eigenvalues), np.diff(by_posterior), rtol=1e-6)


def test_fixed_columns_survive_storage_and_need_an_intercept(monkeypatch):
    _, _, blr, _ = fitted(Screen(), TAU_2, monkeypatch)
    stored = blr.to_dict()
    again = DagBlr.from_dict(stored)
    assert again.n_fixed == 2
    for name, block in blr.blocks.items():
        np.testing.assert_array_equal(again.blocks[name], block)
    for bad in (1, 3, -2, 0.5, 10**12):
        with pytest.raises(ValueError, match="stored posterior is damaged"):
            DagBlr.from_dict({**stored, "n_fixed": bad})
    with pytest.raises(ValueError, match="need an intercept"):
        DagBlr(blr.dag, intercept=False, n_fixed=1)
    plain = DagBlr(blr.dag, intercept=False, noise_var=1.0)
    cells = Screen().pooled(cleaned=True)[1]
    found = fit_random_shifts(plain, cells, np.zeros((N_GROUPS - 1, P)))
    assert found.posterior.n_fixed == found.prior.fixed.shape[1] == 0


def test_columns_span_what_groups_leave_free():
    """A batch of one perturbation without controls cannot be told from it and is left alone."""
    rng = np.random.default_rng(0)
    n = np.array([30, 20, 25, 25, 40])
    group, batch = np.array([0, 0, 1, 2, 3]), np.array([0, 1, 0, 1, 2])
    x = rng.normal(size=(n.sum(), 2)) + rng.normal(size=(3, 2))[np.repeat(batch, n)]
    screen = ScreenMoments.from_array(x, np.repeat(np.arange(5), n), 5)
    fixed = (batch[:, None] == [1, 2]).astype(float)
    columns, sd = screen.fixed_columns(fixed, group)
    assert columns.shape == (5, 1)
    np.testing.assert_allclose(np.average(columns[:, 0], weights=n), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.average(columns[:, 0] ** 2, weights=n), 1.0)
    # Least squares of cells on a mean of each group and the columns.
    design = np.column_stack([np.eye(4)[group], columns])[np.repeat(np.arange(5), n)]
    cov = np.linalg.inv(design.T @ design)
    np.testing.assert_allclose(sd**2, cov[4:, 4:].diagonal())
    fit = np.linalg.lstsq(design, x, rcond=None)[0]
    np.testing.assert_allclose(
        screen.mean - columns @ fit[4:], screen.without_fixed(fixed, group).mean
    )
    # The variance of a difference to the controls.
    cells = pool_guides(screen.with_columns(columns), group, 4, fixed_sd=sd)
    raw_mean = np.column_stack([-np.ones(3), np.eye(3)])
    at = np.hstack([raw_mean, np.zeros((3, 1))])
    variance = 1 / cells.n[1:] + 1 / cells.n[0] + cells.fixed_error()[1:]
    np.testing.assert_allclose(variance, np.einsum("ja,ab,jb->j", at, cov, at))


def drawn_in_batches(rng, effects, controls=30, cells=40, n_batches=4):
    """Return clean moments of groups and their pooled cells; perturbation j is in batch j % 4."""
    n_groups, p = effects.shape
    batch = np.concatenate([np.arange(n_batches), np.arange(n_groups - 1) % n_batches])
    group = np.concatenate([np.zeros(n_batches, int), np.arange(1, n_groups)])
    n = np.where(group == 0, controls, cells)
    place = np.repeat(np.arange(len(n)), n)
    x = rng.normal(size=(len(place), p)) + effects[group][place]
    x += rng.normal(size=(n_batches, p))[batch][place]
    screen = ScreenMoments.from_array(x, place, len(n))
    fixed = (batch[:, None] == np.arange(1, n_batches)).astype(float)
    columns, sd = screen.fixed_columns(fixed, group)
    clean = screen.without_fixed(fixed, group)
    pooled = pool_guides(clean.with_columns(columns), group, n_groups, fixed_sd=sd)
    return clean.pool(group, n_groups), pooled


@pytest.mark.slow
def test_observed_effects_vary_and_go_together_as_said():
    """Variances of effects, and what the mean of others shares with them, over many screens."""
    rng, p, n_groups = np.random.default_rng(0), 4000, 9
    moments, pooled = drawn_in_batches(rng, np.zeros((n_groups, p)))
    targets = [[] for _ in range(n_groups - 1)]
    seen = Perturbations(moments, 0, np.arange(1, n_groups), targets, batches=pooled.fixed_errors)
    # Genes are independent and alike: moments over them stand for those over screens.
    np.testing.assert_allclose(
        (seen.observed**2).mean(axis=1), seen.variance.mean(axis=1), rtol=0.1
    )
    mean = MeanPerturbation().held_out(seen)
    shared = (seen.observed * mean.effects).mean(axis=1)
    np.testing.assert_allclose(shared, mean.shared.mean(axis=1), atol=0.003)
    without = Perturbations(moments, 0, np.arange(1, n_groups), targets)
    assert without.variance.mean() < 0.7 * seen.variance.mean()
    p_value = pooled_sizes(pooled)[0].p_value
    assert (p_value > 0.001).all()


def test_squared_distances_of_cells_in_other_batches_are_unbiased():
    rng, p, n_groups = np.random.default_rng(1), 30, 9
    truth = np.zeros((n_groups, p))
    truth[3] = 0.3
    found, apart, inside = [], [], []
    for _ in range(150):
        moments, pooled = drawn_in_batches(rng, truth)
        noise = moments.scatter * np.eye(p) / (moments.n.sum() - 12)
        sides = [
            Moments(int(moments.n[j]), moments.mean[j], noise * (moments.n[j] - 1))
            for j in (1, 3, 7)
        ]
        errors = pooled.fixed_errors[[1, 3, 7]]  # the last two are of one batch
        distance = mean_distance(sides[1], sides[2], errors=errors[1:])
        found.append(distance.estimate)
        inside.append(distance.low <= 0.09 * p <= distance.high)
        difference = distance_difference(*sides, errors=errors)
        apart.append((difference[0], difference[1] <= -0.09 * p <= difference[2]))
    assert abs(np.mean(found) - 0.09 * p) < 4 * np.std(found) / 150**0.5
    assert np.mean(inside) > 0.9
    difference, covered = np.array(apart).T
    assert abs(difference.mean() + 0.09 * p) < 4 * difference.std() / 150**0.5
    assert covered.mean() > 0.9
