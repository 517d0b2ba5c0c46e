"""Weights of a graph from a screen, against one dense regression over all its cells."""

import numpy as np
import pytest
from scipy import stats

from nextpert.core import Dag, DagBlr, Moments, ScreenMoments, random_scm
from nextpert.core.causal.weights import downstream, fit_weights, mean_draws
from nextpert.core.screen.guides import pool_guides

TAU_G2 = 0.07
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

    def pooled(self, *, cleaned=False):
        """Return columns by cell, and the cells as a fit takes them, of one variance."""
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
        cells.variance_ratio[:] = 1.0
        return columns[place], cells


def dense(screen, columns, i, *, free):
    """Return mean, covariance and rate of node i's intercept and weights, and the evidence.

    All cells are one regression with batches, guides of the variance given, and a column with a
    flat prior for each perturbation (``free``), or the known shift less.
    """
    parents = screen.dag.parents(i)
    design = np.column_stack([np.ones(len(screen.x)), screen.x[:, parents], columns])
    perturbed = np.equal.outer(screen.label, np.arange(1, N_GROUPS)).astype(float)
    y = screen.x[:, i] - (0.0 if free else screen.shift[screen.label, i])
    guides = np.equal.outer(screen.guide, np.arange(N_GUIDES)).astype(float)
    noise = np.eye(len(y)) + TAU_G2 * guides @ guides.T
    every = np.hstack([design, perturbed]) if free else design
    d = 1 + len(parents)
    precision = np.zeros(every.shape[1])
    precision[: design.shape[1]] = np.r_[1e-6, np.ones(d - 1), np.full(columns.shape[1], 1e-6)]
    solved = np.linalg.solve(noise, every)
    cov = np.linalg.inv(every.T @ solved + np.diag(precision))
    mean, away = cov @ solved.T @ y, y - every @ cov @ solved.T @ y
    rate = 0.5 + (away @ np.linalg.solve(noise, away) + precision @ mean**2) / 2
    evidence = np.nan
    if not free:
        marginal = noise + every / precision @ every.T
        evidence = stats.multivariate_t(shape=0.25 * marginal, df=4).logpdf(y)
    return mean[:d], cov[:d, :d], rate, evidence


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("batches", [True, False])
def test_weights_are_those_of_a_regression_over_all_cells(free, batches):
    screen = Screen()
    columns, cells = screen.pooled()
    if not batches:
        columns = np.zeros((len(screen.x), 0))
        moments = ScreenMoments.from_array(screen.x, screen.guide, N_GUIDES)
        cells = pool_guides(moments, GROUP, N_GROUPS, guide_variance=TAU_G2)
        cells.variance_ratio[:] = 1.0
    start = DagBlr(screen.dag, prior_scale=1.0, prior_units="data", prior_rate=0.5)
    blr = fit_weights(start, cells, None if free else screen.shift[1:])
    # Each free shift takes a degree of freedom: that of a perturbation's mean.
    assert (blr.cells == len(screen.x) - (N_GROUPS - 1) * free).all()
    assert blr.n_fixed == 0
    total = 0.0
    for i in range(P):
        mean, cov, rate, evidence = dense(screen, columns, i, free=free)
        block = slice(blr.vptr[i], blr.vptr[i + 1])
        found = blr.blocks["cov"][blr.mptr[i] : blr.mptr[i + 1]].reshape(cov.shape)
        np.testing.assert_allclose(blr.blocks["weights"][block], mean, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(found, cov, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(blr.rate[i], rate, rtol=1e-8)
        total += evidence
    if not free and not batches:
        grown = P * np.log1p(np.bincount(screen.guide) * TAU_G2).sum()
        np.testing.assert_allclose(blr.log_evidence() - 0.5 * grown, total, rtol=1e-8)


@pytest.mark.parametrize("intercept", [True, False])
def test_known_shifts_are_those_of_one_environment_after_the_other(intercept):
    screen = Screen()
    moments = ScreenMoments.from_array(screen.x, screen.label, N_GROUPS)
    cells = pool_guides(moments, np.arange(N_GROUPS), N_GROUPS)
    cells.variance_ratio[:] = 1.0
    wanted = start = DagBlr(screen.dag, intercept=intercept)
    for j in range(N_GROUPS):
        wanted = wanted.update(Moments.from_array(screen.x[screen.label == j]), screen.shift[j])
    blr = fit_weights(start, cells, screen.shift[1:])
    for name, block in wanted.blocks.items():
        np.testing.assert_allclose(blr.blocks[name], block, rtol=1e-9, atol=1e-12, err_msg=name)
    np.testing.assert_array_equal(blr.cells, wanted.cells)
    assert blr.log_evidence() == pytest.approx(wanted.log_evidence())


def test_free_shifts_leave_what_scatters_alone():
    """Whatever perturbations do, and those without cells, weights stay what they are."""
    screen, rng = Screen(), np.random.default_rng(0)
    moved = screen.x + 10.0 * rng.normal(size=(N_GROUPS, P))[screen.label] * (
        screen.label[:, None] > 0
    )

    def fitted(x, n_groups):
        moments = ScreenMoments.from_array(x, screen.label, n_groups)
        cells = pool_guides(moments, np.arange(n_groups), n_groups)
        return fit_weights(DagBlr(screen.dag), cells)

    blr = fitted(screen.x, N_GROUPS)
    for other in (fitted(moved, N_GROUPS), fitted(screen.x, N_GROUPS + 1)):
        np.testing.assert_allclose(other.mean().toarray(), blr.mean().toarray(), atol=1e-9)
        np.testing.assert_allclose(other.noise_var, blr.noise_var)
        np.testing.assert_array_equal(other.cells, blr.cells)


def test_what_follows_of_changes_and_draws_of_means_are_dense_algebra():
    rng, screen = np.random.default_rng(1), Screen()
    cells = screen.pooled()[1]
    graphs = [screen.dag, Dag.from_edges(P, [(0, 1), (1, 3)]), Dag.from_edges(P, [])]
    fits = [fit_weights(DagBlr(dag), cells) for dag in graphs]
    change, one = rng.normal(size=(3, P)), np.eye(P)
    total = [np.linalg.inv(one - blr.mean().toarray()) for blr in fits]
    wanted = change @ (np.mean(total, axis=0) - one).T
    np.testing.assert_allclose(downstream(fits, change), wanted, atol=1e-12)
    assert not downstream(fits[2:], change).any()
    # Six draws, as many of each graph; the last row is the mean without a shift.
    draws, stream = list(mean_draws(fits, change, n_samples=4, rng=3)), np.random.default_rng(3)
    assert len(draws) == 6
    given = np.vstack([change, np.zeros(P)])
    for k, blr in enumerate(fits):
        for flat, found in zip(blr.sample(2, stream)[0], draws[2 * k : 2 * k + 2], strict=True):
            b, c = np.zeros((P, P)), np.zeros(P)
            for i in range(P):
                c[i], *b[i, blr.dag.parents(i)] = flat[blr.vptr[i] : blr.vptr[i + 1]]
            np.testing.assert_allclose(found, np.linalg.solve(one - b, (given + c).T).T)


TWO, THREE = (DagBlr(Dag.from_edges(n, []), noise_var=1.0) for n in (2, 3))


@pytest.mark.parametrize("n_perturbations", [1, 6])
def test_the_scale_learned_with_free_shifts_is_the_mode_of_the_evidence_of_given_scales(
    n_perturbations,
):
    rng, p = np.random.default_rng(4), 6
    weights = np.tril(rng.normal(size=(p, p)), -1)
    group = np.repeat(np.arange(1 + n_perturbations), 60)
    shift = np.where(group[:, None] > 0, rng.normal(size=(1 + n_perturbations, p))[group], 0.0)
    x = (5 + shift + rng.normal(size=(len(group), p))) @ np.linalg.inv(np.eye(p) - weights).T
    screen = ScreenMoments.from_array(x, group, 1 + n_perturbations)
    cells = pool_guides(screen, np.arange(1 + n_perturbations), 1 + n_perturbations)
    dag = Dag.from_edges(p, [(k, i) for i in range(p) for k in range(i)])

    def fitted(scale):
        options = {"prior_scale": scale, "prior_units": "data"}
        return fit_weights(DagBlr(dag, **options), cells)

    def posterior(log_precision):  # log lambda ~ N(0, 3^2)
        evidence = fitted(float(np.exp(-log_precision))).log_evidence()
        return evidence - 0.5 * (log_precision / 3.0) ** 2

    learned = fitted("evidence")
    mode = np.log(learned.blocks["precision"][learned.is_weight][0])
    away = posterior(mode) - np.array([posterior(mode - 0.05), posterior(mode + 0.05)])
    assert (away > 0).all()
    assert away[0] == pytest.approx(away[1], rel=0.2)  # a parabola about its top
