"""Batches as columns of the regression, against dense algebra over all cells and against draws."""

import numpy as np
import pytest

from nextpert.core import Civ, DagBlr, Moments, ScreenMoments, gap_variance
from nextpert.core.causal.weights import fit_weights
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictors.mean_perturbation import MeanPerturbation
from nextpert.core.screen.guides import pool_guides
from nextpert.core.screen.mean_distance import distance_difference, mean_distance
from tests.core.causal.test_weights import P, Screen


@pytest.fixture
def with_columns(monkeypatch):
    """Return the function that fits a screen and leaves the columns in the posterior."""
    monkeypatch.setattr(DagBlr, "without_fixed", lambda blr: blr)

    def fitted(screen, scale=1.0):
        blr = DagBlr(screen.dag, prior_scale=scale, prior_units="data", prior_rate=0.5)
        return fit_weights(blr, screen.pooled()[1], screen.shift[1:])

    yield fitted
    monkeypatch.undo()


def test_at_zero_of_the_columns_they_are_integrated_out(with_columns, monkeypatch):
    blr = with_columns(Screen())
    assert blr.n_fixed == 2
    monkeypatch.undo()
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


def test_evidence_of_the_scale_leaves_fixed_columns_out(with_columns):
    """Differences of the evidence over scales, by the eigenvalues, are those of the posterior's."""
    screen = Screen()
    screen.shift[:] = 0.0
    exact = {scale: with_columns(screen, scale) for scale in (0.01, 0.3, 5.0)}
    by_posterior = [each.log_evidence() for each in exact.values()]
    blr = exact[0.3]
    spectra = blr._spectra(np.ones(blr.vptr[-1]))
    by_eigenvalues = [blr._spectral_evidence(*spectra, 1 / scale).sum() for scale in exact]
    np.testing.assert_allclose(np.diff(by_eigenvalues), np.diff(by_posterior), rtol=1e-6)


def test_columns_span_what_groups_leave_free():
    """A batch of one perturbation without controls cannot be told from it and is left alone."""
    rng = np.random.default_rng(0)
    n = np.array([30, 20, 25, 25, 40])
    group, batch = np.array([0, 0, 1, 2, 3]), np.array([0, 1, 0, 1, 2])
    x = rng.normal(size=(n.sum(), 2)) + rng.normal(size=(3, 2))[np.repeat(batch, n)]
    screen = ScreenMoments.from_array(x, np.repeat(np.arange(5), n), 5)
    fixed = (batch[:, None] == [1, 2]).astype(float)
    columns, sd = screen.fixed_columns(fixed, group)
    # The third batch has a perturbation of its own, with whose effect its own is confounded.
    assert np.isfinite(sd).tolist() == [True, False]
    columns, sd = columns[:, :1], sd[:1]
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
        distance = mean_distance(*sides[:2], errors=errors[:2])
        found.append(distance.estimate)
        inside.append(distance.low <= 0.09 * p <= distance.high)
        difference = distance_difference(*sides, errors=errors)
        apart.append((difference[0], difference[1] <= -0.09 * p <= difference[2]))
    assert abs(np.mean(found) - 0.09 * p) < 4 * np.std(found) / 150**0.5
    assert np.mean(inside) > 0.9
    difference, covered = np.array(apart).T
    assert abs(difference.mean() + 0.09 * p) < 4 * difference.std() / 150**0.5
    assert covered.mean() > 0.9
