"""Weights of models against finite differences, Monte Carlo and a quadrature."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import truncnorm

from nextpert.core import Dag, DagBlr, ScreenMoments, random_scm
from nextpert.core.design.distances import ranked_distance, state_draws
from nextpert.core.model.averaged import (
    Averaged,
    AveragedModel,
    _estimated,
    _expected_weights,
    as_effects,
    learn_average,
)
from nextpert.core.model.effects import estimate_effects
from nextpert.core.model.random_shifts import fit_random_shifts
from nextpert.core.model.shift_posterior import pair_shifts, weights_of
from nextpert.core.model.shift_prior import TAU2, ShiftPrior
from nextpert.core.screen.guides import pool_guides

P, N = 5, 12


def known_graph(seed=0):
    """A graph whose weights are known as good as exactly, and the covariance of its cells."""
    scm = random_scm(P, expected_degree=2, noise_var=np.linspace(0.5, 2.0, P), rng=seed)
    cells = scm.sample(200_000, rng=seed)
    start = DagBlr(scm.dag, noise_var=scm.noise_var)
    one = pool_guides(ScreenMoments.from_array(cells, np.zeros(len(cells), int), 1), [0], 1)
    fit = fit_random_shifts(start, one, np.zeros((0, P)), fixed=True)
    return fit.posterior, one.scatter / (len(cells) - 1)


def prior_of(mean, rng):
    """A prior of heavy tails about a shift and an effect, one own gene of a given variance."""
    shape = mean.shape
    heavy = np.where(np.isin(np.arange(len(TAU2)), [0, 8, 14, 17]), 0.25, 1e-12)
    own = np.full(shape, np.nan)
    own[0, 1] = 0.7
    shift, effect = 0.3 * rng.normal(size=(2, *shape))
    ones = np.ones(shape)
    return ShiftPrior(
        np.full(shape[0], float(N)), mean, ones, shift, effect, own, np.tile(heavy, (shape[0], 1))
    )


def test_what_follows_the_noise_is_that_of_finite_differences():
    blr, within = known_graph()
    rng = np.random.default_rng(1)
    prior = prior_of(rng.normal(size=(3, P)), rng)
    _, follows = _estimated(AveragedModel([blr], prior), within)
    step, expected = 1e-5, np.zeros(P)
    for j in range(3):
        for i in range(P):
            moved = np.zeros((3, P))
            moved[j, i] = step
            ends = [
                replace(prior, mean=prior.mean + sign * moved).given(blr).states(blr)[j]
                for sign in (1, -1)
            ]
            expected += ((ends[0] - ends[1]) / (2 * step)) * within[i] / N
    np.testing.assert_allclose(follows, expected, rtol=2e-3)


def test_the_estimate_of_the_error_is_unbiased():
    blr, within = known_graph(3)
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(40, P)) * (rng.random((40, P)) < 0.5)
    root = np.linalg.cholesky(within / N)
    noise = N**-1 * np.trace(within)
    prior = prior_of(truth, rng)
    estimated, true = [], []
    for _ in range(150):
        x = truth + rng.normal(size=truth.shape) @ root.T
        mean, follows = _estimated(AveragedModel([blr], replace(prior, mean=x)), within)
        estimated.append(((x - mean) ** 2).sum() + 2 * follows.sum() - len(x) * noise)
        true.append(((mean - truth) ** 2).sum())
    apart = np.array(estimated) - true
    assert abs(apart.mean()) < 3 * apart.std() / np.sqrt(len(apart))
    assert apart.std() / np.sqrt(len(apart)) < 0.05 * np.mean(true)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.3, 10.0])
def test_weights_of_two_are_the_mean_of_a_normal_cut_at_0_and_1(seed, noise):
    rng = np.random.default_rng(seed)
    away, follows = rng.normal(size=(2, 30)), 10 * rng.normal(size=2)
    gram = away @ away.T
    bend = gram[0, 0] + gram[1, 1] - 2 * gram[0, 1]
    top = (gram[1, 1] - gram[0, 1] + follows[1] - follows[0]) / bend
    spread = np.sqrt(noise / bend)
    expected = truncnorm.mean(-top / spread, (1 - top) / spread, top, spread)
    if expected < 0.02 or expected > 0.98:
        expected = round(expected)
    found = _expected_weights(gram, follows, noise)
    np.testing.assert_allclose(found, [expected, 1 - expected], atol=0.02)


def test_weights_of_three_are_those_of_quadrature():
    rng = np.random.default_rng(0)
    away, follows = rng.normal(size=(3, 30)), 2 * rng.normal(size=3)
    gram = away @ away.T

    def mass(power, k):
        def of(a, b):
            w = np.array([a, b, 1 - a - b])
            return w[k] ** power * np.exp(-(w @ gram @ w + 2 * w @ follows) / 60)

        return quad(lambda b: quad(of, 0, 1 - b, args=(b,))[0], 0, 1)[0]

    expected = np.array([mass(1, k) for k in range(3)]) / mass(0, 0)
    np.testing.assert_allclose(_expected_weights(gram, follows, 30.0), expected, atol=2e-3)


@pytest.mark.parametrize(("follows", "is_kept"), [(20, True), (30, True), (40, False), (90, False)])
def test_a_weight_below_a_fiftieth_is_none(follows, is_kept):
    """Of two models the weight of the second, by its sum over the grid, or nothing."""
    w = np.linspace(0, 1, 41)
    expected = (w * np.exp(-w * follows)).sum() / np.exp(-w * follows).sum()
    assert (expected > 0.02) == is_kept
    found = _expected_weights(np.zeros((2, 2)), np.array([0.0, follows]), 1.0)
    kept = expected if is_kept else 0.0
    np.testing.assert_allclose(found, [1 - kept, kept], rtol=1e-9)


@pytest.mark.parametrize("size", [1e-12, 1e9])
def test_units_do_not_matter(size):
    rng = np.random.default_rng(0)
    away, follows = rng.normal(size=(3, 30)), rng.normal(size=3)
    found = _expected_weights(size * away @ away.T, size * follows, size)
    np.testing.assert_allclose(found, _expected_weights(away @ away.T, follows, 1.0), atol=1e-9)


def test_the_noise_of_the_estimate_is_how_far_the_best_weights_scatter():
    blr, within = known_graph(3)
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(40, P))
    root = np.linalg.cholesky(within / N)
    near, far = (prior_of(truth, np.random.default_rng(k)) for k in (0, 1))
    best, spread = [], []
    for _ in range(300):
        x = truth + rng.normal(size=truth.shape) @ root.T
        both = [AveragedModel([blr], replace(prior, mean=x)) for prior in (near, far)]
        (m0, f0), (m1, f1) = (_estimated(model, within) for model in both)
        apart = (m0 - m1).ravel()
        best.append(((x - m1).ravel() @ apart - f0.sum() + f1.sum()) / (apart @ apart))
        noise = ((m0 - m1) @ within * (m0 - m1)).sum() / N
        spread.append(np.sqrt(noise) / (apart @ apart))
    assert np.std(best) == pytest.approx(np.mean(spread), rel=0.3)


def test_equal_models_share_alike():
    blr, within = known_graph()
    rng = np.random.default_rng(0)
    same = AveragedModel([blr], prior_of(rng.normal(size=(3, P)), rng))
    assert learn_average([same, same], within).tolist() == [0.5, 0.5]
    unseen = AveragedModel([], ShiftPrior.exact(np.zeros((1, 2))))
    assert learn_average([unseen, unseen], np.eye(2)).tolist() == [1, 0]


def reversed_screen(seed, n_cells=15):
    """Effects that pass a graph's edges, its cells, and the graph turned round."""
    rng = np.random.default_rng(seed)
    scm = random_scm(15, expected_degree=4, rng=seed)
    group = np.repeat(np.arange(31), [1000, *[n_cells] * 30])
    shift = np.zeros((31, 15))
    shift[np.arange(1, 31), rng.integers(15, size=30)] = 2.0
    effect = np.array([scm.mean(each) for each in shift]) - scm.mean(0 * shift[0])
    x, truth = scm.sample(len(group), rng=rng) + effect[group], effect[1:]
    cells = pool_guides(ScreenMoments.from_array(x, group, 31), np.arange(31), 31)
    return scm.dag, cells, truth


@pytest.mark.parametrize("seed", range(3))
def test_a_graph_turned_round_harms_no_measured_effect(seed):
    dag, cells, truth = reversed_screen(seed)
    turned = Dag.from_edges(15, [(i, k) for k, i in dag.edges()])
    within = cells.scatter / (cells.n_cells.sum() - 31)
    graphs = (dag, turned, Dag.from_edges(15, []))
    fits = [fit_random_shifts(DagBlr(each), cells, np.zeros((30, 15))) for each in graphs]
    right, wrong, none = (AveragedModel([fit.posterior], fit.prior) for fit in fits)

    def error(models):
        weights = learn_average(models, within)
        mean = sum(w * _estimated(m, within)[0] for w, m in zip(weights, models, strict=True))
        return ((mean - truth) ** 2).sum()

    by_cells = ((cells.mean[1:] - truth) ** 2).sum()
    assert error([wrong]) > 1.1 * error([none])
    assert error([wrong, none]) < 1.05 * error([none])
    assert error([wrong, none]) < by_cells
    assert error([right, none]) < 0.7 * error([none])
    assert learn_average([right, none], within)[0] > 0.9


def three_ways(seed=0):
    """Three posteriors on graphs of their own, with their shifts."""
    _, cells, _ = reversed_screen(seed, 40)
    rng = np.random.default_rng(seed)
    graphs = [random_scm(15, expected_degree=3, rng=k).dag for k in range(2)]
    fits = [
        fit_random_shifts(DagBlr(dag), cells, 0.1 * rng.normal(size=(30, 15))) for dag in graphs
    ]
    return [fit.posterior for fit in fits], [fit.prior for fit in fits]


def test_a_weight_of_two_is_a_graph_that_comes_twice():
    blrs, priors = three_ways()
    twice = [blrs[0], blrs[0], blrs[1]]
    found = estimate_effects(blrs, priors, weights=[2, 1])
    expected = estimate_effects(twice, [priors[0], *priors])
    for name, table in vars(expected).items():
        np.testing.assert_allclose(getattr(found, name), table, rtol=1e-6, atol=1e-8)
    target = np.zeros(15)
    known = [prior.given(blr) for blr, prior in zip(blrs, priors, strict=True)]
    weighted = [replace(known[0], weight=2.0), known[1]]
    weighted_too = [*weighted, replace(known[0], weight=0.0)]
    asked = (
        (blrs, weighted), ([*blrs, blrs[1]], weighted_too), (twice, [known[0], *known]),
    )  # fmt: skip
    centre = [ranked_distance(b, k, target, n_samples=6, rng=0).centre for b, k in asked]
    np.testing.assert_allclose(centre[0], centre[2], rtol=1e-10)
    np.testing.assert_allclose(centre[1], centre[2], rtol=1e-10)


def test_draws_come_from_graphs_by_their_weights():
    blrs = [DagBlr(Dag.from_edges(1, []), noise_var=1e-12, intercept=False)] * 2
    one, two = (ShiftPrior.exact([[value]]) for value in (1.0, 2.0))
    known = [
        replace(prior.given(blrs[0]), weight=weight) for prior, weight in ((one, 0.3), (two, 0.7))
    ]
    drawn = np.ravel(list(state_draws(blrs, known, n_samples=1000, rng=0)))
    assert len(drawn) == 1000
    assert abs((drawn == 2.0).sum() - 700) <= 1
    single = [np.ravel(list(state_draws(blrs, known, n_samples=1, rng=k)))[0] for k in range(400)]
    assert np.mean(np.array(single) == 2.0) == pytest.approx(0.7, abs=0.08)
    np.testing.assert_allclose(weights_of(pair_shifts(blrs, known)), [0.3, 0.7])


def test_weights_that_make_no_sense_are_refused():
    blr = DagBlr(Dag.from_edges(1, []), noise_var=1.0)
    known = ShiftPrior.exact([[1.0]]).given(blr)
    for weight, word in ((-1.0, "0 or more"), (np.nan, "0 or more"), (0.0, "above 0")):
        with pytest.raises(ValueError, match=word):
            pair_shifts([blr, blr], [replace(known, weight=weight)] * 2)


def test_all_models_expect_the_same_of_perturbations_without_cells():
    blrs, priors = three_ways()
    none = DagBlr(Dag.from_edges(15, []))
    cells = reversed_screen(0, 40)[1]
    alone = fit_random_shifts(none, cells, np.zeros((30, 15)))
    every = Averaged(
        (AveragedModel(blrs, priors[0], 0.25), AveragedModel([alone.posterior], alone.prior, 0.75))
    )
    rng = np.random.default_rng(0)
    shift, effect = rng.normal(size=(2, 2, 15))
    nothing = np.zeros_like(shift)
    unseen = ShiftPrior(
        np.zeros(2), nothing, nothing + 1, shift, effect, np.full(shift.shape, np.nan),
        priors[0].weights[:2],
    )  # fmt: skip
    joined = every.joined(unseen).rows([30, 3, 31])
    np.testing.assert_allclose(joined.weights, [0.125, 0.125, 0.75])
    states = [
        known.states(blr) - blr.predict_mean(np.zeros(15))
        for blr, known in zip(joined.posteriors, joined.known(), strict=True)
    ]
    np.testing.assert_allclose(np.mean(states[:2], axis=0)[[0, 2]], states[2][[0, 2]], rtol=1e-8)
    own = np.linalg.inv(np.eye(15) - blrs[0].mean().toarray()) @ shift.T
    np.testing.assert_allclose(as_effects(unseen, blrs[:1]).effect, effect + own.T, rtol=1e-8)
    told = every.on_graph(unseen)
    assert [known.weight for known in told.known()] == [0.5, 0.5, 0.0]
