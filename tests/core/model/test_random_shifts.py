"""Random shifts against dense Gaussian algebra over all cells, and the bound of the ascent."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nextpert.core import Dag, DagBlr, Moments, ScreenMoments, random_scm
from nextpert.core.model import perturbations, random_shifts
from nextpert.core.model.random_shifts import fit_random_shifts, learn_mixtures
from nextpert.core.model.shift_prior import TAU2, UNSEEN_WEIGHTS, ShiftPrior
from nextpert.core.screen.guides import pool_guides

TAU_G2, TAU_2 = 0.07, 0.4


@pytest.fixture
def screen():
    """Cells of controls and two perturbations, with 2, 3 and 1 guides, on a graph of 4 nodes."""
    rng = np.random.default_rng(3)
    scm = random_scm(4, expected_degree=3, rng=5)
    guide = np.repeat(np.arange(6), [9, 7, 5, 4, 6, 3])
    group = np.array([0, 0, 1, 1, 1, 2])
    x = scm.sample(len(guide), rng=rng) + 0.3 * rng.normal(size=(6, 4))[guide] + 1.0
    shift = np.array([[0.0, 0, 0, 0], [1.0, 0, 0, 0], [0, 0, -0.5, 0.2]])
    return scm.dag, x, guide, group, shift


def dense(dag, x, guide, label, shift, tau2, scale=1.0):
    """Mean and covariance of weights and u of each node by brute force over all cells."""
    p = x.shape[1]
    out = []
    for i in range(p):
        design = np.column_stack([np.ones(len(x)), x[:, dag.parents(i)]])
        y = x[:, i] - shift[label, i]
        perturbed = np.equal.outer(label, np.arange(1, len(shift))).astype(float)
        guides = np.equal.outer(guide, np.arange(guide.max() + 1)).astype(float)
        noise = np.eye(len(x)) + TAU_G2 * guides @ guides.T
        columns = np.hstack([design, perturbed])
        d = design.shape[1]
        prior = np.r_[1e6, np.full(d - 1, scale), np.full(len(shift) - 1, tau2)]
        inverse = np.linalg.inv(noise)
        cov = np.linalg.inv(columns.T @ inverse @ columns + np.diag(1 / prior))
        mean = cov @ columns.T @ inverse @ y
        marginal = noise + columns @ np.diag(prior) @ columns.T
        shape = 2.0
        evidence = stats.multivariate_t(shape=0.5 / 2.0 * marginal, df=2 * shape).logpdf(y)
        rate = 0.5 + y @ np.linalg.solve(marginal, y) / 2
        out.append((mean, cov, rate, evidence, d))
    return out


def fitted(screen, monkeypatch, tau2):
    dag, x, guide, group, shift = screen
    monkeypatch.setattr(random_shifts, "_MAX_STEPS", 1)
    cells = pool_guides(ScreenMoments.from_array(x, guide, 6), group, 3, guide_variance=TAU_G2)
    cells.variance_ratio[:] = 1.0
    blr = DagBlr(dag, prior_scale=1.0, prior_units="data", prior_rate=0.5)
    ascent = random_shifts._Ascent(blr, cells, shift[1:], None, fixed=False)
    n = ascent.n
    ascent.share, ascent.spare = n * tau2 / (1 + n * tau2), tau2 / (1 + n * tau2)
    ascent.blr = ascent._fitted()
    return ascent


def test_weights_shifts_and_evidence_are_those_of_all_cells(screen, monkeypatch):
    dag, x, guide, group, shift = screen
    ascent = fitted(screen, monkeypatch, TAU_2)
    blr = ascent.blr
    weights = np.zeros((2, len(TAU2)))
    weights[:, 0] = 1.0  # replaced by the variance given
    prior = ShiftPrior(
        ascent.cells.n[1:], ascent.mean, np.ones((2, 4)), shift[1:], np.zeros((2, 4)),
        TAU_2 * np.tile(blr.noise_var, (2, 1)), weights,
    )  # fmt: skip
    total = 0.0
    known = prior.given(blr)
    for i, (mean, cov, rate, evidence, d) in enumerate(
        dense(dag, x, guide, group[guide], shift, TAU_2)
    ):
        block = slice(blr.vptr[i], blr.vptr[i + 1])
        np.testing.assert_allclose(blr.blocks["weights"][block], mean[:d], rtol=1e-6, atol=1e-8)
        found = blr.blocks["cov"][blr.mptr[i] : blr.mptr[i + 1]].reshape(d, d)
        np.testing.assert_allclose(found, cov[:d, :d], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(blr.rate[i], rate, rtol=1e-6)
        z = np.column_stack([np.ones(2), ascent.mean[:, dag.parents(i)]])
        away = ascent.mean[:, i] - shift[1:, i] - z @ mean[:d]
        np.testing.assert_allclose(known.share[:, i] * away, mean[d:], rtol=1e-6, atol=1e-9)
        w = known.share[:, i]
        leverage = np.einsum("ja,ab,jb->j", z, cov[:d, :d], z)
        np.testing.assert_allclose(known.spare[:, i] + w**2 * leverage, np.diag(cov)[d:], rtol=1e-6)
        np.testing.assert_allclose(-w[:, None] * (z @ cov[:d, :d]), cov[d:, :d], rtol=1e-5)
        total += evidence
    grown = np.log1p(np.bincount(guide) * TAU_G2).sum()
    by_shift = np.log1p(ascent.n * TAU_2).sum()
    gained = blr.log_evidence() - 0.5 * (4 * grown + by_shift)
    np.testing.assert_allclose(gained, total, rtol=1e-8)


def test_exact_shifts_are_the_posterior_of_the_paper(screen):
    dag, x, guide, group, shift = screen
    label = group[guide]
    cells = pool_guides(ScreenMoments.from_array(x, label, 3), [0, 1, 2], 3)
    cells.variance_ratio[:] = 1.0
    blr = DagBlr(dag)
    found = fit_random_shifts(blr, cells, shift[1:], fixed=True)
    for k in range(3):
        blr = blr.update(Moments.from_array(x[label == k]), shift[k])
    for name, block in blr.blocks.items():
        np.testing.assert_allclose(
            found.posterior.blocks[name], block, rtol=1e-9, atol=1e-11, err_msg=name
        )
    assert (found.prior.given(found.posterior).share == 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_never_falls(seed, monkeypatch):
    monkeypatch.setattr(random_shifts, "_TOLERANCE", 0.0)
    rng = np.random.default_rng(seed)
    scm = random_scm(8, expected_degree=3, rng=seed)
    group = np.repeat(np.arange(9), [60, *[12] * 8])
    shift = rng.normal(size=(9, 8)) * (rng.random((9, 8)) < 0.3) * (np.arange(9) > 0)[:, None]
    x = scm.sample(len(group), rng=rng) + shift[group]
    cells = pool_guides(ScreenMoments.from_array(x, group, 9), np.arange(9), 9)
    blr = DagBlr(scm.dag, prior_scale=1.0, prior_rate=0.1)
    found = fit_random_shifts(blr, cells, np.zeros((8, 8)))
    for stage in found.bound:
        assert len(stage) > 3
        assert (np.diff(stage) > -1e-7).all()


def test_the_bound_is_the_evidence_where_one_variance_is_left(screen, monkeypatch):
    ascent = fitted(screen, monkeypatch, TAU_2)
    monkeypatch.setattr(random_shifts, "TAU2", np.array([TAU_2]))
    ascent.weights, ascent.counts = np.ones((2, 1)), np.zeros((2, 1))
    bound = [ascent.step() for _ in range(3)][-1]
    dag, x, guide, group, shift = screen
    of_all_cells = dense(dag, x, guide, group[guide], shift, TAU_2)
    expected = sum(evidence for _, _, _, evidence, _ in of_all_cells)
    np.testing.assert_allclose(bound, expected, rtol=1e-8)


def test_mixtures_learned_for_other_expectations_find_them_right():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(21), [500, *[30] * 20])
    effect = np.where(np.arange(21)[:, None] > 0, rng.normal(size=(21, 30)), 0.0)
    x = rng.normal(size=(len(group), 30)) + effect[group]
    cells = pool_guides(ScreenMoments.from_array(x, group, 21), np.arange(21), 21)
    found = fit_random_shifts(DagBlr(Dag.from_edges(30, [])), cells, np.zeros((20, 30)))
    told = ShiftPrior(**{**vars(found.prior), "effect": effect[1:]})
    told = learn_mixtures(found.posterior, told)
    left = [(each.weights @ TAU2).mean() for each in (found.prior, told)]
    assert 0.5 < left[0] < 2
    assert left[1] < 0.01


def objective(weights, square, n):
    grown = 1 + n[:, None] * TAU2
    chance = np.exp(-0.5 * (np.log(grown) + square[:, None] * n[:, None] / grown))
    prior = random_shifts._PRIOR_COUNTS
    return np.log(chance @ weights).sum() + prior @ np.log(weights)


@pytest.mark.parametrize("seed", range(4))
def test_no_weights_common_to_a_screen_are_better(seed):
    rng = np.random.default_rng(seed)
    shape = (6, 40)
    n = rng.choice([15.0, 80.0], size=shape)
    tau2 = rng.choice([0.0, 0.01, 1.0], size=shape)
    square = rng.chisquare(1, size=shape) * (1 / n + tau2)
    own = np.where(rng.random(shape) < 0.1, 0.3, np.nan)
    found = random_shifts.shared_mixture(square, n, own)
    assert found.sum() == pytest.approx(1.0)
    assert (found > 0).all()
    mixed = np.isnan(own)
    best = objective(found, square[mixed], n[mixed])
    for other in [*np.eye(len(TAU2)), *rng.dirichlet(np.ones(len(TAU2)), size=50)]:
        for step in (1e-3, 0.1):
            near = (1 - step) * found + step * other
            assert objective(near, square[mixed], n[mixed]) < best + 1e-4
    # EM, which never lowers it, gains nothing more.
    weights = found
    for _ in range(200):
        grown = 1 + n[mixed][:, None] * TAU2
        chance = np.exp(-0.5 * (np.log(grown) + square[mixed][:, None] * n[mixed][:, None] / grown))
        share = weights * chance / (chance @ weights)[:, None]
        weights = share.sum(axis=0) + random_shifts._PRIOR_COUNTS
        weights = weights / weights.sum()
    assert objective(weights, square[mixed], n[mixed]) < best + 1e-3


def test_a_mixture_of_nothing_is_that_of_the_prior_counts():
    none = np.full((2, 3), 0.5)
    found = random_shifts.shared_mixture(none, none, none)
    expected = random_shifts._PRIOR_COUNTS
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=0.02)


def test_curvature_is_that_of_the_evidence():
    """An intercept's variance is minus one over the second derivative of the log evidence."""
    rng, n_groups, n = np.random.default_rng(2), 400, 40
    group = np.repeat(np.arange(n_groups + 1), [60, *[n] * n_groups])
    effects = np.append(0.0, rng.normal(size=n_groups) * rng.choice([0.02, 0.6], size=n_groups))
    x = rng.normal(size=(len(group), 1)) + effects[group][:, None]
    cells = pool_guides(ScreenMoments.from_array(x, group, n_groups + 1), range(401), 401)
    cells.variance_ratio[:] = 1.0
    blr = DagBlr(Dag.from_edges(1, []), noise_var=1.0)
    found = fit_random_shifts(blr, cells, np.zeros((n_groups, 1)))
    weights, mean, n_0 = found.prior.weights, cells.mean[:, 0], cells.n[0]

    def evidence(c):
        variance = 1 / n + TAU2
        each = np.exp(-0.5 * (mean[1:] - c)[:, None] ** 2 / variance) / np.sqrt(variance)
        return np.log((weights * each).sum(axis=1)).sum() - 0.5 * n_0 * (mean[0] - c) ** 2

    centre, step = found.posterior.intercept_mean[0], 1e-3
    second = (evidence(centre + step) - 2 * evidence(centre) + evidence(centre - step)) / step**2
    np.testing.assert_allclose(found.posterior.blocks["cov"][0], -1 / second, rtol=0.15)
    ascent = random_shifts._Ascent(blr, cells, np.zeros((n_groups, 1)), None, fixed=False)
    ascent.weights = weights
    for _ in range(3):
        ascent.step()
    assert ascent.blr.blocks["cov"][0] < 0.7 * -1 / second  # as if components were known
    current = ascent.current()
    np.testing.assert_allclose(current.blocks["weights"], ascent.blr.blocks["weights"], rtol=1e-9)
    np.testing.assert_allclose(current.blocks["residual"], ascent.blr.blocks["residual"])


def test_nothing_seen_expects_effects_of_the_usual_size():
    assert UNSEEN_WEIGHTS.sum() == pytest.approx(1)
    assert 0.05 < UNSEEN_WEIGHTS @ TAU2 < 0.2
    assert (np.diff(UNSEEN_WEIGHTS) <= 0).all()


def sparse_screen(n=12, p=40):
    rng = np.random.default_rng(4)
    label = np.repeat(np.arange(n + 1), [400] + [30] * n)
    effect = rng.normal(size=(n + 1, p)) * (rng.random((n + 1, p)) < 0.2)
    effect[0] = 0.0
    x = effect[label] + rng.normal(size=(len(label), p))
    return pool_guides(ScreenMoments.from_array(x, label, n + 1), range(n + 1), n + 1)


def test_departures_held_in_blocks_are_those_held_at_once(monkeypatch):
    cells, graph = sparse_screen(), Dag.from_edges(40, [(0, 1), (1, 2), (5, 9)])
    shift = np.zeros((12, 40))
    once = fit_random_shifts(DagBlr(graph), cells, shift)
    monkeypatch.setattr(perturbations, "_ROOM", 90)  # two perturbations at a time
    parts = fit_random_shifts(DagBlr(graph), cells, shift)
    np.testing.assert_allclose(parts.prior.weights, once.prior.weights, rtol=1e-9)
    np.testing.assert_allclose(
        parts.posterior.mean().toarray(), once.posterior.mean().toarray(), rtol=1e-9
    )
    again = [learn_mixtures(once.posterior, once.prior).weights]
    monkeypatch.undo()
    again.append(learn_mixtures(once.posterior, once.prior).weights)
    np.testing.assert_allclose(*again, rtol=1e-9)


def test_mixtures_of_very_large_screens_are_learned_from_some_genes(monkeypatch):
    cells = sparse_screen(n=30, p=200)
    shift, empty = np.zeros((30, 200)), Dag.from_edges(200, [])
    noise = np.linspace(0.8, 1.2, 200)
    every = fit_random_shifts(DagBlr(empty, noise_var=noise), cells, shift)
    monkeypatch.setattr("nextpert.core.model.perturbations.ENOUGH", 3000)
    monkeypatch.setattr("nextpert.core.model.perturbations._LEARNED", 3000)  # 100 of 200 genes
    some = fit_random_shifts(DagBlr(empty, noise_var=noise), cells, shift)
    assert some.prior.mean.shape == (30, 200)
    usual, known = (x.prior.given(x.posterior).expected(x.posterior) for x in (every, some))
    assert ((usual - known) ** 2).mean() < 0.02 * (usual**2).mean()
    size = [w @ TAU2 for w in (every.common, some.common)]
    assert 0.7 < size[0] / size[1] < 1.4
    own = [learn_mixtures(x.posterior, x.prior).weights @ TAU2 for x in (every, some)]
    assert 0.8 < np.mean(own[0]) / np.mean(own[1]) < 1.25
    one = random_shifts.unseen_mixture(cells, some, shift)
    monkeypatch.undo()
    two = random_shifts.unseen_mixture(cells, every, shift)
    assert 0.7 < (one @ TAU2) / (two @ TAU2) < 1.4
