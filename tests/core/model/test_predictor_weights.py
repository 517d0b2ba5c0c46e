"""Stacks against loops over refits, and screens whose predictors are right, useless and harmful."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from nextpert.core import ScreenMoments
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictor_weights import _mode, learn_predictor_weights
from nextpert.core.model.predictors.base import Prediction
from nextpert.core.model.predictors.mean_perturbation import MeanPerturbation


def learn(observed, tables, *, noise=0.0, scored=None, shared=None, sd=None):
    shares = [None] * len(tables) if shared is None else shared
    predictors = [
        Prediction(f"predictor {k}", t, s)
        for k, (t, s) in enumerate(zip(tables, shares, strict=True))
    ]
    used = np.ones(observed.shape, bool) if scored is None else scored
    scale = np.ones(observed.shape[1]) if sd is None else sd
    return learn_predictor_weights(
        observed, np.full(observed.shape, noise), predictors, used, sd=scale
    )


def by_refits(observed, tables, used, sd):
    """Weights, probability and slope by least squares on the effects one below the other."""
    every, k = np.arange(len(observed)), len(tables)
    y = np.where(used, observed / sd, 0.0)
    x = np.array([np.where(used, t / sd, 0.0) for t in tables])
    unit = y / np.linalg.norm(y, axis=1, keepdims=True)
    m = len(y) ** 2 / sum((a @ b) ** 2 for a in unit for b in unit)
    scale = np.sqrt((y**2).sum() / (len(y) * m))

    def stacked(rows):
        design = np.vstack([x[:, rows].reshape(k, -1).T / scale, np.eye(k)])  # the prior below
        return design, np.append(y[rows].ravel() / scale, np.zeros(k))

    def mode(rows):
        return lsq_linear(*stacked(rows), bounds=(0, 1), method="bvls", tol=1e-14).x

    fits = [np.einsum("k,kg->g", mode(np.delete(every, j)), x[:, j]) for j in every]
    fit = np.array(fits)
    slope = np.clip((fit * y).sum() / (fit * fit).sum(), 0, 1)
    weights, (design, seen) = mode(every), stacked(every)
    gain = ((seen**2).sum() - ((seen - design @ weights) ** 2).sum()) / 2
    odds = np.exp(gain) / np.sqrt(np.linalg.det(design.T @ design))
    return odds / (1 + odds) * slope * weights, odds / (1 + odds), slope


@pytest.fixture
def screen():
    """Effects of 9 perturbations on 30 genes, and three predictors of which two are of some use."""
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(9, 30)) * rng.gamma(1.0, size=(9, 1))
    tables = [
        rng.gamma(2.0, size=(9, 1)) * truth + 0.4 * rng.normal(size=(9, 30)),
        truth + 1.2 * rng.normal(size=(9, 30)),
        rng.normal(size=(9, 30)),
    ]
    used = rng.random((9, 30)) < 0.9
    return truth + 0.3 * rng.normal(size=(9, 30)), tables, used, rng.uniform(0.5, 2, 30)


def test_weights_are_those_of_refits(screen):
    observed, tables, used, sd = screen
    found = learn(observed, tables, scored=used, sd=sd)
    weights, probability, slope = by_refits(observed, tables, used, sd)
    assert 0.5 < slope < 1
    np.testing.assert_allclose(found.weights, weights, atol=1e-7)
    assert found.probability == pytest.approx(probability)
    assert found.calibration == pytest.approx(slope)
    for j in range(9):
        rest = np.arange(9) != j
        wanted, *_ = by_refits(observed[rest], [t[rest] for t in tables], used[rest], sd)
        np.testing.assert_allclose(found.left_out[j], wanted, atol=1e-7)
    expected = sum(found.left_out[:, [k]] * t for k, t in enumerate(tables))
    predictors = [Prediction("", t) for t in tables]
    np.testing.assert_allclose(found.expected(predictors), expected)
    z, y = (expected / sd)[used], (observed / sd)[used]
    assert found.error == pytest.approx(((y - z) ** 2).sum() / (y**2).sum())
    first = ((observed - tables[0]) / sd)[used]
    assert found.alone[0] == pytest.approx((first**2).sum() / (y**2).sum())


@pytest.mark.parametrize("size", [0.0, 0.15, 0.3])
def test_probability_is_that_of_a_grid_of_weights(size):
    """With weights that are no more than 0 to 1 by themselves, over all of the plane."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(2, 8, 5))
    y = size * (x[0] + x[1]) + rng.normal(size=(8, 5))
    found = learn(y, list(x))
    cosines = (y @ y.T / np.outer(np.linalg.norm(y, axis=1), np.linalg.norm(y, axis=1))) ** 2
    per = (y**2).sum() / (8 * 64 / cosines.sum())
    step = 0.02
    axis = np.arange(-4, 4, step)
    grid = np.array(np.meshgrid(axis, axis)).reshape(2, -1).T
    loss = sum(((y[j] - grid @ x[:, j]) ** 2).sum(axis=1) - (y[j] ** 2).sum() for j in range(8))
    density = np.exp(-(loss / per + (grid**2).sum(axis=1)) / 2) / (2 * np.pi)
    mean = density @ grid / density.sum()
    assert (mean > 0).all()
    assert (mean < 1).all()
    odds = density.sum() * step**2
    assert found.probability == pytest.approx(odds / (1 + odds), rel=1e-4)
    weights = found.calibration * found.probability * mean
    np.testing.assert_allclose(found.weights, weights, rtol=1e-4)


def test_predictors_that_may_get_no_weight_are_as_good_as_absent():
    rng = np.random.default_rng(0)
    truth, wrong = rng.normal(size=(2, 10, 20))
    seen, noise = truth + 0.1 * rng.normal(size=truth.shape), np.full(truth.shape, 0.01)

    def learned(*predictions):
        return learn_predictor_weights(seen, noise, predictions, noise > 0, sd=np.ones(20))

    barred = Prediction("barred", truth, most=0.0)
    alone, both = learned(Prediction("half", truth + wrong)), learned(
        Prediction("half", truth + wrong), barred
    )  # fmt: skip
    assert both.weights.tolist() == [*alone.weights, 0.0]
    assert (both.probability, both.error) == (alone.probability, alone.error)
    none = learned(barred)
    assert none.weights.tolist() == [0.0]
    assert none.error == 1.0
    some = learned(Prediction("bounded", truth, most=0.4))
    assert 0.3 < some.weights[0] <= 0.4


@pytest.mark.parametrize("most", [(1.0, 1.0, 1.0), (1.0, 0.3, 0.6)])
def test_modes_within_bounds_are_those_of_scipy(most):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(200, 6, 3))
    precision = root.transpose(0, 2, 1) @ root + 0.1 * np.eye(3)
    right = 3 * rng.normal(size=(200, 3))
    found = _mode(precision, right, np.array(most))
    for p, r, w in zip(precision, right, found, strict=True):
        lower = np.linalg.cholesky(p)
        wanted = lsq_linear(lower.T, np.linalg.solve(lower, r), (0, most), method="bvls", tol=1e-14)
        np.testing.assert_allclose(w, wanted.x, atol=1e-8)
    assert {0.0, *most} < set(found.ravel().tolist())


def test_fixed_predictors_are_believed_and_change_no_other_weight(screen):
    observed, tables, used, sd = screen
    pairs = np.vstack([observed[:3] + 1, observed])
    silent = [np.vstack([np.zeros((3, 30)), t]) for t in tables]
    said = np.vstack([observed[:3] + 0.9, np.zeros((9, 30))])
    predictors = [Prediction(str(k), t) for k, t in enumerate(silent)]
    predictors.insert(1, Prediction("fixed", said, fixed=True))
    noise = np.zeros(pairs.shape)
    used = np.vstack([np.ones((3, 30), bool), used])
    found = learn_predictor_weights(pairs, noise, predictors, used, sd=sd)
    assert found.weights[1] == 1
    assert (found.left_out[:, 1] == 1).all()
    np.testing.assert_allclose(found.expected(predictors)[:3], said[:3])
    fewer = learn_predictor_weights(
        observed, noise[3:], [Prediction("", t) for t in tables], used[3:], sd=sd
    )
    np.testing.assert_allclose(found.weights[[0, 2, 3]], fewer.weights, atol=1e-7)
    np.testing.assert_allclose(found.left_out[3:][:, [0, 2, 3]], fewer.left_out, atol=1e-7)
    assert found.error < fewer.error


def draw(rng, n, kinds, noise):
    """True and observed effects of heavy-tailed size, and predictors of some kinds."""
    size = np.exp(1.2 * rng.normal(size=(n, 1)))
    truth = size * rng.normal(size=(n, 50))
    tables = []
    for kind in kinds:
        other = rng.normal(size=(n, 50))
        if kind == "right":
            tables.append(0.5 * truth + 0.4 * size * other)
        elif kind == "useless":  # of the right size, in another direction
            tables.append(size * other)
        else:  # harmful: large, whatever the effect; right for a quarter of them
            table = 2 * np.exp(1.2 * rng.normal(size=(n, 1))) * other
            table[: n // 4] = truth[: n // 4]
            tables.append(table)
    return truth, truth + noise * rng.normal(size=truth.shape), tables


def test_noise_of_few_cells_has_little_say():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(20, 40))
    noise = np.where(np.arange(20) < 10, 100.0, 0.1)[:, None] * np.ones((20, 40))
    errors = []
    for _ in range(40):
        observed = truth + np.sqrt(noise) * rng.normal(size=truth.shape)
        predictor = Prediction("right", truth)
        full = np.ones(truth.shape, bool)
        found = learn_predictor_weights(observed, noise, [predictor], full, sd=np.ones(40))
        errors.append(found.weights[0] - 1)
    assert np.abs(errors).max() < 0.15  # weighted alike, it strays by .4
    assert found.residual_variance < 0.1


def test_noise_that_all_effects_share_is_not_taken_for_knowledge():
    """Nothing has an effect; few controls, whose error is in every effect."""
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(16), [60, *[60] * 15])
    with_shared, without = [], []
    for _ in range(20):
        moments = ScreenMoments.from_array(rng.normal(size=(960, 30)), groups, 16)
        found = Perturbations(moments, 0, np.arange(1, 16), [[]] * 15)
        mean = MeanPerturbation().held_out(found)
        for predictor, rows in ((mean, with_shared), (Prediction("", mean.effects), without)):
            stack = learn_predictor_weights(
                found.observed, found.variance, [predictor], found.scored(), sd=found.sd
            )
            rows.append(stack.weights[0])
    assert np.mean(with_shared) < 0.2
    assert np.mean(without) > 0.8


def test_error_is_that_of_the_true_effects():
    rng = np.random.default_rng(0)
    got, wanted = [], []
    for _ in range(60):
        truth, observed, tables = draw(rng, 15, ["right", "useless"], 1.0)
        error = observed - truth
        tables[0] = tables[0] + 0.5 * error  # shares half of the sampling error
        shared = [np.full(truth.shape, 0.5), None]
        found = learn(observed, tables, noise=1.0, shared=shared)
        expected = found.expected([Prediction("", t) for t in tables])
        size = (truth**2).mean()
        got.append([found.error * size, *(found.alone * size)])
        each = [expected, *tables]
        wanted.append([((e - truth) ** 2).mean() for e in each])
    np.testing.assert_allclose(np.mean(got, axis=0), np.mean(wanted, axis=0), rtol=0.05)


def test_many_perturbations_are_left_out_in_blocks():
    rng = np.random.default_rng(0)
    _, observed, tables = draw(rng, 230, ["right", "useless"], 0.1)
    tables[0] *= 2  # the weight it deserves is below 1
    found = learn(observed, tables)
    np.testing.assert_array_equal(found.left_out[:100], found.left_out[100:200])
    rest = np.arange(230) % 100 != 7
    w = np.linalg.lstsq(tables[0][rest].reshape(-1, 1), observed[rest].ravel(), rcond=None)[0][0]
    assert found.left_out[7, 0] == pytest.approx(w, rel=0.05)
    changed = observed.copy()
    changed[107] = 1e3
    again = learn(changed, tables)
    np.testing.assert_allclose(again.left_out[7], found.left_out[7])
    assert abs(again.left_out[8] - found.left_out[8]).max() > 1e-3


def test_perturbations_without_cells_take_the_weights_of_all(screen):
    observed, tables, used, _ = screen
    used = used.copy()
    used[[2, 6]] = False
    observed = np.where(used, observed, np.nan)
    found = learn(observed, tables, scored=used)
    np.testing.assert_array_equal(found.left_out[[2, 6]], [found.weights] * 2)
    assert (found.left_out[0] != found.weights).any()


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_hardly_anything_measured_teaches_hardly_anything(n):
    rng = np.random.default_rng(n)
    truth = rng.normal(size=(4, 20))
    used = np.arange(4)[:, None] < n + np.zeros((4, 20))
    found = learn(truth, [truth, np.zeros((4, 20))], scored=used)
    assert np.isfinite(found.weights).all()
    low, high = [(0, 0), (0, 0), (0.3, 0.7), (0.7, 0.95)][n]  # the predictions are right
    assert low <= found.weights[0] <= high
    assert found.weights[1] == 0
    assert (found.left_out[:n, 0] <= (0.0 if n < 3 else 0.7)).all()
    assert np.isnan(found.error) == (n == 0)


def test_weights_of_very_large_screens_are_those_of_some_genes(monkeypatch):
    rng = np.random.default_rng(0)
    truth, wrong = rng.normal(size=(2, 20, 50))
    seen, noise = truth + 0.1 * rng.normal(size=truth.shape), np.full(truth.shape, 0.01)
    tables = [Prediction("right", truth, 0.1 * noise), Prediction("wrong", wrong)]
    monkeypatch.setattr("nextpert.core.model.predictor_weights.ENOUGH_EFFECTS", 900)
    monkeypatch.setattr("nextpert.core.model.predictor_weights._LEARNED", 400)
    some = np.sort(np.random.default_rng(0).choice(50, 20, replace=False))
    found = learn_predictor_weights(seen, noise, tables, noise > 0, sd=np.ones(50))
    monkeypatch.undo()
    tables = [
        Prediction("right", truth[:, some], 0.1 * noise[:, some]),
        Prediction("wrong", wrong[:, some]),
    ]
    told = learn_predictor_weights(
        seen[:, some], noise[:, some], tables, noise[:, some] > 0, sd=np.ones(20)
    )
    np.testing.assert_array_equal(found.left_out, told.left_out)
    assert found.error == told.error
