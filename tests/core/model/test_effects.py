"""Effects of perturbations against exact draws, dense algebra, and cells drawn from the model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from nextpert.core import Dag, DagBlr, ScreenMoments, random_scm
from nextpert.core.model import _mixture as kernels
from nextpert.core.model.effects import estimate_effects, fit_without_graph
from nextpert.core.model.random_shifts import _Ascent, fit_random_shifts
from nextpert.core.model.shift_prior import TAU2, ShiftPrior
from nextpert.core.screen.guides import pool_guides

NOISE = np.array([1.0, 0.5, 2.0])


def chain_screen(n_cells, seed=0):
    """Cells of controls and of one perturbation on 0 -> 1 -> 2, and the graph."""
    rng = np.random.default_rng(seed)
    dag = Dag.from_edges(3, [(0, 1), (1, 2), (0, 2)])
    b = np.zeros((3, 3))
    b[1, 0], b[2, 1], b[2, 0] = 0.8, -0.6, 0.3
    group = np.repeat([0, 1], [400, n_cells])
    noise = rng.normal(size=(len(group), 3)) * np.sqrt(NOISE)
    shift = np.outer(group, [1.2, 0.0, 0.4])
    x = (1.0 + noise + shift) @ np.linalg.inv(np.eye(3) - b).T
    cells = pool_guides(ScreenMoments.from_array(x, group, 2), [0, 1], 2)
    cells.variance_ratio[:] = 1.0
    return dag, x, group, cells


def with_weights(dag, cells, weights, effect):
    """Fit of a graph whose mixture is known: posterior and prior."""
    start = DagBlr(dag, noise_var=NOISE, prior_scale=1.0, prior_units="data")
    ascent = _Ascent(start, cells, effect, None, fixed=False)
    ascent.weights = np.tile(weights, (len(effect), 1))
    for _ in range(20):
        ascent.step()
    out = ascent.result(weights, ([], []))
    return out.posterior, out.prior


def exact_draws(dag, x, group, weights, shift, n_draws, seed=1):
    """Draws of the effects, and of the component of each node's shift.

    Each node is an exact mixture of normals, the nodes are independent.
    """
    rng = np.random.default_rng(seed)
    p = x.shape[1]
    b, c, u = np.zeros((n_draws, p, p)), np.zeros((n_draws, p)), np.zeros((n_draws, p))
    drawn_from = np.zeros((n_draws, p), int)
    for i in range(p):
        parents = dag.parents(i)
        y = x[:, i] - shift[i] * group
        columns = np.column_stack([np.ones(len(x)), x[:, parents], group])
        means, covs, logs = [], [], []
        for tau2, weight in zip(TAU2, weights, strict=True):
            prior = np.r_[1e6, np.ones(len(parents)), max(tau2, 1e-12)]
            cov = np.linalg.inv(columns.T @ columns + np.diag(1 / prior))
            mean = cov @ columns.T @ y
            logs.append(
                np.log(weight) + 0.5 * np.linalg.slogdet(cov)[1] - 0.5 * np.log(prior).sum()
                + 0.5 * mean @ columns.T @ y / NOISE[i]
            )  # fmt: skip
            means.append(mean)
            covs.append(cov * NOISE[i])
        chance = np.exp(np.array(logs) - max(logs))
        which = rng.choice(len(TAU2), size=n_draws, p=chance / chance.sum())
        for k in np.unique(which):
            drawn = rng.multivariate_normal(means[k], covs[k], size=(which == k).sum())
            c[which == k, i] = drawn[:, 0]
            b[np.ix_(which == k, [i], parents)] = drawn[:, None, 1:-1]
            u[which == k, i] = drawn[:, -1]
        drawn_from[:, i] = which
    return np.linalg.solve(np.eye(p) - b, (shift + u)[:, :, None])[:, :, 0], drawn_from


@pytest.mark.parametrize(("n_cells", "expected"), [(12, 0.0), (60, 0.5)])
def test_effects_are_those_of_exact_draws_with_heavy_tails(n_cells, expected):
    dag, x, group, cells = chain_screen(n_cells)
    weights = np.where(np.isin(np.arange(len(TAU2)), [2, 9, 13, 16]), [[0.25]], 1e-9).ravel()
    weights /= weights.sum()
    effect = np.array([[expected, 0.0, 0.0]])
    posterior, prior = with_weights(dag, cells, weights, effect)
    found = estimate_effects([posterior], prior)
    shift = prior.shifts(posterior)[0]
    draws, drawn_from = exact_draws(dag, x, group, weights, shift, 100_000)
    np.testing.assert_allclose(found.mean[0], draws.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(found.sd[0], draws.std(axis=0), rtol=0.06)
    ends = np.quantile(draws, [0.05, 0.95], axis=0)
    np.testing.assert_allclose(found.lower[0], ends[0], atol=0.05)
    np.testing.assert_allclose(found.upper[0], ends[1], atol=0.05)
    # What a component's effects are too small to be told from 0 by counts against both signs.
    passed = posterior.mean().toarray() @ found.mean[0] + shift
    for i in range(3):
        both = np.zeros(2)
        for k, tau2 in enumerate(TAU2):
            mine = drawn_from[:, i] == k
            if mine.any():
                size = np.sqrt(n_cells * (passed[i] ** 2 / NOISE[i] + tau2))
                unclear = 2 * stats.norm.sf(size)
                up = (draws[mine, i] > 0).mean()
                both += mine.mean() * np.maximum([up, 1 - up], unclear)
        np.testing.assert_allclose(found.lfsr[0, i], both.min(), atol=0.02)


def one_variance(dag, cells, tau2, effect):
    """Fit of a graph with one prior variance of shifts."""
    weights = np.where(tau2 == TAU2, 1.0, 1e-300)
    return with_weights(dag, cells, weights, effect)


def test_one_variance_is_dense_gaussian_algebra():
    dag, x, group, cells = chain_screen(15)
    tau2 = 0.25
    posterior, prior = one_variance(dag, cells, tau2, np.zeros((1, 3)))
    found = estimate_effects([posterior], prior, level=0.8)
    total = np.linalg.inv(np.eye(3) - posterior.mean().toarray())
    variance, mean = np.zeros(3), np.zeros(3)
    each = []
    for i in range(3):
        parents = dag.parents(i)
        columns = np.column_stack([np.ones(len(x)), x[:, parents], group])
        prior_variance = np.r_[1e6, np.ones(len(parents)), tau2]
        cov = np.linalg.inv(columns.T @ columns + np.diag(1 / prior_variance))
        each.append((cov * NOISE[i], cov @ columns.T @ x[:, i], parents))
        mean += total[:, i] * each[-1][1][-1]
    for i, (cov, _, parents) in enumerate(each):
        slope = np.r_[0.0, mean[parents], 1.0]
        variance += total[:, i] ** 2 * (slope @ cov @ slope)
    np.testing.assert_allclose(found.mean[0], mean, rtol=1e-8)
    np.testing.assert_allclose(found.sd[0], np.sqrt(variance), rtol=1e-8)
    z = stats.norm.ppf(0.9)
    np.testing.assert_allclose(found.upper[0], mean + z * np.sqrt(variance), rtol=1e-4)
    np.testing.assert_allclose(found.lower[0], mean - z * np.sqrt(variance), rtol=1e-4)
    shift = np.array([weights[-1] for _, weights, _ in each])
    passed = mean - shift  # what the shifts of other nodes do to this one
    unclear = 2 * stats.norm.sf(np.sqrt(15 * (passed**2 / NOISE + tau2)))
    sign = stats.norm.sf(np.abs(mean) / np.sqrt(variance))
    assert (sign < unclear).any()
    assert (sign > unclear).any()
    np.testing.assert_allclose(found.lfsr[0], np.maximum(sign, unclear), rtol=1e-6)
    np.testing.assert_allclose(found.direct[0], [each[i][1][-1] for i in range(3)], rtol=1e-8)


def test_without_cells_the_expectation_and_its_variance_are_left():
    dag, _, _, cells = chain_screen(15)
    posterior, prior = one_variance(dag, cells, 0.25, np.zeros((1, 3)))
    shift, told = np.array([[1.0, 0.5, 0.0]]), np.array([[-0.3, 0.2, 0.7]])
    tables = {"n": np.zeros(1), "mean": np.zeros((1, 3)), "shift": shift, "effect": told}
    found = estimate_effects([posterior], ShiftPrior(**{**vars(prior), **tables}))
    total = np.linalg.inv(np.eye(3) - posterior.mean().toarray())
    follows, variance = total @ shift[0], np.zeros(3)
    for i in range(3):
        slope = np.r_[0.0, follows[dag.parents(i)]]
        cov = posterior.blocks["cov"][posterior.mptr[i] : posterior.mptr[i + 1]]
        term = slope @ cov.reshape(len(slope), -1) @ slope + 0.25
        variance += total[:, i] ** 2 * NOISE[i] * term
    np.testing.assert_allclose(found.mean[0], follows + told[0], rtol=1e-12)
    np.testing.assert_allclose(found.sd[0], np.sqrt(variance), rtol=1e-10)
    assert (found.data_weight == 0).all()


def test_an_effect_told_stays_where_it_is_while_the_weights_vary():
    dag, _, _, cells = chain_screen(15)
    posterior, prior = one_variance(dag, cells, 0.25, np.zeros((1, 3)))
    told = np.array([[0.8, -0.2, 0.5]])
    found = estimate_effects([posterior], ShiftPrior(**{**vars(prior), "effect": told}))
    # Cells and effects less what was told are those of a perturbation of which nothing was told.
    less = ShiftPrior(**{**vars(prior), "mean": prior.mean - told})
    alike = estimate_effects([posterior], less)
    np.testing.assert_allclose(found.mean, alike.mean + told, rtol=1e-10)
    np.testing.assert_allclose(found.sd, alike.sd, rtol=1e-10)


def test_the_own_gene_has_the_variance_given():
    dag, _, _, cells = chain_screen(15)
    posterior, prior = one_variance(dag, cells, 0.25, np.zeros((1, 3)))
    own = np.where(np.arange(3) == 1, 2.0**-3 * NOISE[1], np.nan)[None]
    weights = np.where(TAU2 == 2.0**-3, 1.0, 1e-300)
    told = ShiftPrior(**{**vars(prior), "own": own})
    other = ShiftPrior(**{**vars(prior), "weights": weights[None]})
    found, alike = (estimate_effects([posterior], each) for each in (told, other))
    np.testing.assert_allclose(found.direct[0, 1], alike.direct[0, 1], rtol=1e-12)
    assert not np.isclose(found.direct[0, 0], alike.direct[0, 0])
    np.testing.assert_allclose(found.data_weight[0, 1], alike.data_weight[0, 1])


def test_many_cells_have_the_last_word():
    dag, x, group, cells = chain_screen(200_000)
    posterior, prior = one_variance(dag, cells, 1.0, np.zeros((1, 3)))
    found = estimate_effects([posterior], prior)
    np.testing.assert_allclose(found.mean[0], x[group == 1].mean(0) - x[group == 0].mean(0),
                               atol=0.01)  # fmt: skip
    # What is left is the error of the controls' mean under the graph.
    b = posterior.mean().toarray()
    total = np.linalg.inv(np.eye(3) - b)
    np.testing.assert_allclose(found.sd[0] ** 2, total**2 @ NOISE / 400, rtol=0.05)


def test_graphs_add_the_variance_of_their_means():
    dag, _, _, cells = chain_screen(15)
    other = Dag.from_edges(3, [(2, 1)])
    fits = [one_variance(each, cells, 0.25, np.array([[0.5, 0, 0]])) for each in (dag, other)]
    prior = fits[0][1]
    each = [estimate_effects([posterior], prior) for posterior, _ in fits]
    found = estimate_effects([posterior for posterior, _ in fits], prior)
    means = np.array([effects.mean for effects in each])
    variance = np.mean([effects.sd**2 for effects in each], axis=0) + means.var(axis=0)
    np.testing.assert_allclose(found.mean, means.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.sd**2, variance, rtol=1e-10)
    np.testing.assert_allclose(found.direct, each[0].direct, rtol=1e-12)
    posteriors = [posterior for posterior, _ in fits]
    told = estimate_effects(posteriors, prior, main=posteriors[1])
    np.testing.assert_allclose(told.direct, each[1].direct, rtol=1e-12)


@pytest.mark.slow
def test_quantiles_of_mixtures_with_points_and_spikes():
    rng = np.random.default_rng(0)
    m, k = 300, 6
    chance = rng.dirichlet(np.full(k, 0.5), size=m)[None]
    centre, spread = rng.normal(size=(2, 1, m, k))
    spread = spread**2 * 10.0 ** rng.integers(-8, 1, size=spread.shape)
    spread[0, ::2, 0] = 0.0
    centre[0, ::4, 0] = 0.0
    mean, sd, lower, upper, lfsr = np.empty((5, 1, m))
    none = np.zeros((1, m))
    kernels.summarise(chance, centre, spread, np.zeros(k), none, none, 0.05, stats.norm.ppf(0.05),
                      mean, sd, lower, upper, lfsr, np.empty((4, k)))  # fmt: skip
    for i in range(m):

        def cdf(x, i=i, point=True):
            s = np.sqrt(spread[0, i])
            with np.errstate(divide="ignore", invalid="ignore"):
                z = (x - centre[0, i]) / s
            z[s == 0] = np.inf if point else -np.inf
            z[(s == 0) & (x < centre[0, i])] = -np.inf
            z[(s == 0) & (x > centre[0, i])] = np.inf
            return float(chance[0, i] @ stats.norm.cdf(z))

        for found, q in ((lower, 0.05), (upper, 0.95)):
            wanted = brentq(lambda x, q=q: cdf(x) - q, -60, 60, xtol=1e-12)
            # Components of less than 1e-4 are skipped, which moves the probability by as much.
            x, eps = found[0, i], 2e-5 * sd[0, i]
            near = abs(x - wanted) < 3e-5 * sd[0, i]
            assert near or cdf(x - eps) - 1e-3 <= q <= cdf(x + eps) + 1e-3
        left, right = cdf(0.0), 1.0 - cdf(0.0, point=False)
        np.testing.assert_allclose(lfsr[0, i], min(left, right), atol=6e-4)


def test_intervals_cover_the_effects_of_the_model():
    rng = np.random.default_rng(4)
    p, n_perturbations = 20, 60
    scm = random_scm(p, expected_degree=3, rng=4)
    group = np.repeat(np.arange(n_perturbations + 1), [400, *[20] * n_perturbations])
    strong = rng.random((n_perturbations, p)) < 0.15
    shift = rng.normal(size=strong.shape) * np.where(strong, 1.0, 0.05)
    x = scm.sample(len(group), rng=rng) + 0.0
    noise_to_state = np.linalg.inv(np.eye(p) - scm.weights)
    effect = shift @ noise_to_state.T
    x += np.vstack([np.zeros(p), effect])[group]
    cells = pool_guides(ScreenMoments.from_array(x, group, n_perturbations + 1),
                        np.arange(n_perturbations + 1), n_perturbations + 1)  # fmt: skip
    for dag in (scm.dag, Dag.from_edges(p, [])):
        fit = fit_random_shifts(DagBlr(dag), cells, np.zeros((n_perturbations, p)))
        found = estimate_effects([fit.posterior], fit.prior)
        inside = (found.lower <= effect) & (effect <= found.upper)
        assert 0.85 < inside.mean() < 0.96
        big = np.abs(effect) > 0.5
        assert inside[big].mean() > 0.8
        wrong = np.sign(found.mean) != np.sign(effect)
        sure = found.lfsr < 0.05
        assert sure.any()
        assert wrong[sure].mean() < 0.05


def test_genes_outside_are_shrunken_alone():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(9), [300, *[30] * 8])
    effect = 1.5 * (rng.random((9, 40)) < 0.1) * (np.arange(9) > 0)[:, None]
    x = rng.normal(size=(len(group), 40)) + effect[group]
    cells = pool_guides(ScreenMoments.from_array(x, group, 9), np.arange(9), 9)

    def effects(cells, **options):
        fit = fit_without_graph(cells, **options)
        return estimate_effects([fit.posterior], fit.prior)

    full = effects(cells)
    squares = np.diag(cells.scatter).copy()
    diagonal = type(cells)(**{**vars(cells), "scatter": np.broadcast_to(squares, (40, 40))})
    for name, table in vars(effects(diagonal)).items():
        np.testing.assert_array_equal(table, getattr(full, name))
    plain = cells.mean[1:] - cells.mean[0]
    assert ((full.mean - effect[1:]) ** 2).sum() < 0.5 * ((plain - effect[1:]) ** 2).sum()
    own = np.full((8, 40), np.nan)
    own[2, 3] = 0.04
    shift = np.where(np.isnan(own), 0.0, -1.0)
    told = effects(cells, shift=shift, own=own)
    n = cells.counted[3, 3]
    share = n * 0.04 / (n * 0.04 + 1.0)
    np.testing.assert_allclose(told.mean[2, 3], plain[2, 3] * share - (1 - share), atol=0.05)


@pytest.mark.parametrize("rounding", [0.0, 1e-18, -1e-18])
def test_an_interval_may_end_at_exactly_nothing(rounding):
    """With no effect at probability 0.93, which counts against both signs, rounded or not."""
    chance = np.array([[[0.93, 0.07]]])
    centre, spread = np.array([[[rounding, 2.0]]]), np.array([[[rounding**2, 1.0]]])
    mean, sd, lower, upper, lfsr = np.empty((5, 1, 1))
    one = np.ones((1, 1))
    kernels.summarise(chance, centre, spread, np.array([0.0, 5.0]), 40 * one, 0.1 * one, 0.05,
                      stats.norm.ppf(0.05), mean, sd, lower, upper, lfsr,
                      np.empty((4, 2)))  # fmt: skip
    np.testing.assert_allclose(lower[0, 0], 0.0, atol=1e-15)
    assert upper[0, 0] > 1.0
    np.testing.assert_allclose(lfsr, 0.93 + 0.07 * stats.norm.cdf(-2.0))
