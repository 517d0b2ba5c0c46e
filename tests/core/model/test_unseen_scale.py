"""Factors of departures of perturbations without cells, against loops and known truths."""

from functools import cache

import numpy as np
import pytest
from scipy.stats import norm

from nextpert.core import ScreenMoments
from nextpert.core.model.effect_draws import VARIANCE
from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.model.predictor_weights import LeftOut, _Slopes, learn_scales
from nextpert.core.model.sampler import Chain
from nextpert.core.screen.guides import pool_guides

N, GENES, CELLS = 24, 15, 200
SHORT = Chain(80, 40, 2)


@cache
def fitted():
    """Return a fit, the true effects, and those of its cells."""
    rng = np.random.default_rng(3)
    effects = np.exp(0.5 * rng.normal(size=(N, 1))) * rng.normal(size=(N, GENES))
    code = np.repeat(np.arange(N + 1), [5000, *[CELLS] * N])
    x = np.vstack([np.zeros(GENES), effects])[code] + rng.normal(size=(len(code), GENES))
    moments = ScreenMoments.from_array(x, code, N + 1)
    fit = fit_hierarchical(pool_guides(moments, range(N + 1), N + 1), rng=0, chain=SHORT)
    return fit, effects, moments.mean[1:] - moments.mean[0]


def left_out(described, alone, known=None, scored=None):
    every = np.ones((N, GENES), bool) if scored is None else scored
    known = np.ones(N, bool) if known is None else known
    return LeftOut(described, alone, np.full((N, GENES), 1 / CELLS), every, known)


def test_density_and_slopes_are_those_of_loops():
    fit, _, seen = fitted()
    used = np.random.default_rng(0).random((N, GENES)) < 0.8
    away = 0.5 * seen
    slopes = _Slopes.of(fit, away, np.full(away.shape, 1 / CELLS), used)
    drawn = fit.predict(np.zeros((N, GENES)), rng=0)
    centre = np.stack([drawn.given(k)[0] for k in range(drawn.n_draws)], axis=-1)

    def density(shared, own):
        found = np.full((N, GENES), np.nan)
        for j, g in np.argwhere(used):
            variance = VARIANCE[drawn.place[j, g]] * 2.0**own * drawn.unit[g] ** 2 + 1 / CELLS
            middle = 2.0 ** (shared / 2) * centre[j, g]
            chance = norm.pdf(away[j, g], middle, np.sqrt(variance)).mean()
            found[j, g] = np.log(chance * drawn.unit[g])
        return found

    at, step = np.array([-1.3, 0.4]), 1e-4
    value, slope, counted = slopes.at(at)
    wanted = np.nanmean(density(*at), axis=1)
    np.testing.assert_allclose(np.diff(value), np.diff(wanted), atol=1e-9)  # up to a constant
    every = [(density(*(at + d)) - density(*(at - d))) / (2 * step) for d in step * np.eye(2)]
    mean = np.nanmean(every, axis=2)
    np.testing.assert_allclose(slope, mean.T, atol=1e-6)
    within = sum(np.nanmean(np.square(x), axis=1).mean() - x_mean.mean() ** 2
                 for x, x_mean in zip(every, mean, strict=True))  # fmt: skip
    between = mean.var(axis=1, ddof=1).sum()
    np.testing.assert_allclose(counted, min(within / between, used.mean() * GENES) * (N - 3) / N)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
def test_what_departs_by_a_share_of_effects_has_its_square_as_factor(share):
    fit, effects, _ = fitted()
    rng = np.random.default_rng(1)
    away = share * effects + rng.normal(size=effects.shape) / np.sqrt(CELLS)
    found = learn_scales(fit, left_out(away, away))
    assert 0.7 < found[0, 1] / share**2 < 1.8  # these effects are own parts
    np.testing.assert_array_equal(found[0], found[1])
    # Against a search on a grid of the same density and prior.
    slopes = _Slopes.of(fit, away, np.full(away.shape, 1 / CELLS), np.ones(away.shape, bool))
    own = np.log2(found[0])
    per = slopes.at(own)[2]

    def worth(x):
        return per * slopes.at(x)[0].sum() - 0.5 * (x**2).sum()

    best = worth(own)
    for move in ([0.3, 0.0], [-0.3, 0.0], [0.0, 0.3], [0.0, -0.3], [0.3, 0.3], [-0.3, 0.3]):
        assert worth(own + move) < best


def test_draws_have_the_variance_that_is_wanted():
    fit = fitted()[0]
    factor = np.repeat([1.0, 0.3, 0.05, 3.0], 900)
    own = np.full((len(factor), GENES), np.nan)
    own[:, 0] = 0.7
    expected = np.ones(own.shape)
    both = np.column_stack([factor, factor])
    found = fit.predict(expected, own_variance=own, scale=both, rng=0)
    np.testing.assert_allclose(found.posterior_mean(), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.sd()[:, 0] ** 2, 0.7, rtol=1e-5)
    square = (found.sd()[:, 1:] ** 2).reshape(4, -1).mean(axis=1)
    np.testing.assert_allclose(square / square[0], [1.0, 0.3, 0.05, 3.0], rtol=0.08)
    plain, one = fit.predict(expected, rng=0), fit.predict(expected, scale=both**0, rng=0)
    np.testing.assert_array_equal(plain.posterior_mean(), one.posterior_mean())
    np.testing.assert_array_equal(plain.given(0)[0], one.given(0)[0])
    np.testing.assert_array_equal(plain.place, one.place)


def test_enough_perturbations_are_compared():
    many = np.ones((500, 1000), bool)
    many[::2] = False
    rows = LeftOut.rows(many)
    assert len(rows) == 50
    assert many[rows].any(axis=1).all()
    assert len(LeftOut.rows(np.zeros((4, 3), bool))) == 0
