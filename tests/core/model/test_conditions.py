"""Effects in several conditions against dense algebra, and against pooling and each line alone."""

from __future__ import annotations

import numpy as np
import pytest

from nextpert.core import ScreenMoments
from nextpert.core._codec import pack, unpack
from nextpert.core.model.chain import Chain
from nextpert.core.model.conditions import _as_draws, _Conditions, beside, fit_conditions
from nextpert.core.model.effect_draws import SCALES, TAILS, VARIANCE
from nextpert.core.model.hierarchical import Hierarchical, fit_hierarchical
from nextpert.core.screen.guides import pool_guides

LINES, GENES = 3, 20
SHORT = Chain(60, 60, 2)


def truth(seed, n=12, *, kind="same"):
    """Return effects, ``(LINES, n, GENES)``: the first perturbation acts in one line if told so."""
    rng = np.random.default_rng(seed)
    effect = np.where(rng.random((n, GENES)) < 0.2, rng.normal(size=(n, GENES)), 0.0)
    effect[n // 2 :] = 0.0
    every = np.repeat(effect[None], LINES, axis=0)
    if kind == "one":
        every[:, 0] = 0.0
        every[0, 0, :8] = rng.choice([-0.9, 0.9], 8)
    return every


def screen(effects, seed, cells=40, controls=300):
    """Return moments of the lines, each with controls and perturbations in turn."""
    rng = np.random.default_rng(seed)
    n_lines, n, p = effects.shape
    mean = np.concatenate([np.zeros((n_lines, 1, p)), effects], axis=1)
    mean += rng.normal(size=(n_lines, 1, p))  # what lines differ by
    number = np.broadcast_to(np.append(controls, np.full(n, cells)), (n_lines, 1 + n)).ravel()
    code = np.repeat(np.arange(number.size), number)
    loading = rng.normal(scale=0.3, size=(2, p))
    x = mean.reshape(-1, p)[code] + rng.normal(size=(len(code), p))
    return ScreenMoments.from_array(
        x + rng.normal(size=(len(code), 2)) @ loading, code, number.size
    )


def fitted(moments, *, lines=LINES, **options):
    n = moments.n_environments
    cells = pool_guides(moments, np.arange(n), n)
    return fit_conditions(cells, [f"line {k}" for k in range(lines)], rng=0, **options)


def pooled(moments, *, lines=LINES):
    """Return the fit to all lines as batches."""
    n = moments.n_environments // lines
    group = np.tile(np.arange(n), lines)
    clean, sd = moments.without_batches(np.repeat(np.eye(lines), n, axis=0), group)
    return fit_hierarchical(pool_guides(clean, group, n, fixed_sd=sd), rng=0, chain=SHORT)


def test_effects_given_the_rest_are_those_of_dense_algebra():
    moments = screen(truth(0, kind="one"), 1)
    n = moments.n_environments
    own = np.full((n // LINES - 1, GENES), np.nan)
    own[2, 3] = 0.7
    cells = pool_guides(moments, np.arange(n), n)
    expected = np.random.default_rng(5).normal(scale=0.2, size=own.shape)
    made = _Conditions(cells, LINES, expected, own, np.random.default_rng(0))
    for sweep in range(20):
        made.sweep(sweep, map)
    rng = np.random.default_rng(2)  # variances of all sizes
    made.low.state.place[:] = rng.integers(len(VARIANCE) - 1, size=made.low.state.place.shape)
    made.share[:] = rng.dirichlet(np.ones(LINES), made.shape[1]).T[:, :, None]
    mean, variance = made.effects()
    top, low = made.top, made.low
    design, q = top.means.design, len(top.means.design) - 1
    for j, i in ((0, 0), (2, 3), (5, 9)):
        rows = j + np.arange(LINES) * made.shape[1]
        u = top.means.told[j, i] if j == 2 else VARIANCE[top.state.place[j, i]]
        noise = low.means.psi[i] * low.means.error[rows, i]
        effects = u + np.diag(VARIANCE[low.state.place[rows, i]])  # of own parts and departures
        shared = top.state.scores[j, : 1 + q] @ design[:, i]
        shared += low.state.scores[rows, : 1 + q] @ design[:, i]
        along = low.state.scores[rows, 1 + q :] @ design[1:, i]
        left = made.y[:, j, i] - made.offset[:, i] - top.control[i] - shared - along
        left -= expected[j, i] / top.unit[i]
        gain = effects @ np.linalg.inv(effects + np.diag(noise))
        each, cov = shared + gain @ left, effects - gain @ effects
        share = made.share[:, j, 0]
        np.testing.assert_allclose(mean[1:, j, i], each, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(variance[1:, j, i], np.diag(cov), rtol=1e-5)
        np.testing.assert_allclose(mean[0, j, i], share @ each, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(variance[0, j, i], share @ cov @ share, rtol=1e-5)


def test_what_all_controls_share_may_be_told_either_way():
    moments = screen(truth(0), 1)
    cells = pool_guides(moments, np.arange(moments.n_environments), moments.n_environments)
    levels = []
    for more in (0.0, 0.4):
        made = _Conditions(cells, LINES, None, None, np.random.default_rng(0))
        for sweep in range(3):
            made.sweep(sweep, map)
        made.top.control += more
        made.offset -= more
        made._draw_offsets()
        assert np.abs((made.weight * made.offset).sum(axis=0)).max() < 1e-8 * made.weight.max()
        levels.append(made.level())
    np.testing.assert_allclose(levels[0], levels[1], atol=1e-10)


def test_draws_have_the_variances_of_each_draw():
    rng = np.random.default_rng(0)
    variance = rng.gamma(2.0, 0.1, size=(2, 3, 40)).astype(np.float32)
    place = rng.integers(len(SCALES) + len(TAILS) - 1, size=variance.shape).astype(np.int8)
    unit, total = np.array([1.0, 2.0, 0.5]), []
    for seed in range(400):
        centre = np.zeros(variance.shape, np.float32)
        made = _as_draws(
            unit, np.zeros((2, 3)), centre, variance, place, np.random.default_rng(seed)
        )
        total.append(made.sd() ** 2)
    np.testing.assert_allclose(np.mean(total, axis=0), unit**2 * variance.mean(axis=2), rtol=0.08)


@pytest.mark.slow
def test_an_effect_in_one_line_is_found_there_and_nowhere_else():
    found = alone = false = 0
    for seed in range(3):
        effects = truth(seed, kind="one")
        moments = screen(effects, [seed, 1])
        n = moments.n_environments // LINES
        one = fit_hierarchical(pool_guides(moments.some(np.arange(n)), np.arange(n), n), rng=0)
        alone += int((one.effects.summary().lfsr[0, :8] < 0.05).sum())
        each = [part.effects.summary() for part in fitted(moments).conditions]
        found += int((each[0].lfsr[0, :8] < 0.05).sum())
        false += sum(int((part.lfsr[0] < 0.05).sum()) for part in each[1:])
    assert alone > 12
    assert found >= 0.8 * alone
    assert false <= 2


@pytest.mark.slow
def test_where_lines_agree_the_error_is_that_of_pooling():
    error = np.zeros(3)
    for seed in range(4):
        effects = truth(seed)
        moments = screen(effects, [seed, 2], cells=20)
        ours = fitted(moments)
        each = [part.effects.posterior_mean() for part in ours.conditions]
        error += (
            np.mean((np.array(each) - effects) ** 2),
            np.mean((ours.effects.posterior_mean() - effects[0]) ** 2),
            np.mean((pooled(moments).effects.posterior_mean() - effects[0]) ** 2),
        )
    assert error[0] <= 1.1 * error[2]
    assert error[1] <= 1.1 * error[2]


def test_intervals_cover_effects_of_lines_that_differ():
    inside = []
    for seed in range(3):
        effects = truth(seed, kind="one")
        effects[1:, 1] *= -1.0
        effects[2, 2] *= 0.3
        each = [part.effects.summary() for part in fitted(screen(effects, [seed, 3])).conditions]
        lower, upper = (np.array([getattr(part, x) for part in each]) for x in ("lower", "upper"))
        inside.append((lower <= effects) & (effects <= upper))
    assert np.mean(inside) > 0.9
    assert np.mean(np.array(inside)[:, :, :6]) > 0.85


def test_few_controls_of_a_line_are_known_from_its_perturbations():
    effects = np.zeros((2, 30, GENES))
    moments = screen(effects, 4, cells=40, controls=np.array([5]))
    error = []
    for part in fitted(moments, lines=2).conditions:
        error.append(np.mean(part.effects.posterior_mean() ** 2) / np.mean(part.change**2))
    assert max(error) < 0.1  # of five controls the noise is common to all 30 differences


def test_a_perturbation_without_cells_in_a_line_is_expected_as_in_the_others():
    effects = truth(1)
    moments = screen(effects, 5)
    gone = effects.shape[1] + 1 + 1  # of the second line
    moments.n[gone] = 0
    moments.mean[gone] = moments.squares[gone] = 0.0
    fit = fitted(moments)
    line = fit.conditions[1]
    assert line.n_cells[0] == 0
    assert (line.n_cells[1:] == 40).all()
    assert (line.change[0] == 0).all()
    np.testing.assert_allclose(line.change[1], moments.mean[gone + 1] - moments.mean[gone - 1])
    found = line.effects.summary()
    large = np.abs(effects[1, 0]) > 0.5
    assert large.any()
    np.testing.assert_allclose(found.mean[0, large], effects[1, 0, large], atol=0.35)
    assert found.sd[0].mean() > fit.conditions[0].effects.summary().sd[0].mean()


def test_states_start_from_the_controls_given():
    moments = screen(truth(2), 6)
    start = np.arange(GENES, dtype=float)
    fit = fitted(moments, control=start, chain=SHORT)
    for level in (fit.control, *(part.control for part in fit.conditions)):
        np.testing.assert_allclose(level.mean(axis=0), start, atol=0.3)
    n = moments.n_environments // LINES
    usual = fitted(moments, chain=SHORT).control.mean(axis=0)
    np.testing.assert_allclose(usual, moments.mean[::n].mean(axis=0), atol=0.3)


def test_the_same_bits_for_any_number_of_threads_and_after_storing():
    moments = screen(truth(3), 7)
    one = fitted(moments, chain=Chain(5, 12, 1))
    two = fitted(moments, chain=Chain(5, 12, 1), n_jobs=2)
    read = unpack(Hierarchical, pack(one), "The result", "run it again")
    for other in (two, read):
        for mine, its in zip(one.conditions, other.conditions, strict=True):
            assert mine.name == its.name
            np.testing.assert_array_equal(mine.effects.centre, its.effects.centre)
            np.testing.assert_array_equal(mine.control, its.control)
    few = one.thinned(100_000_000)
    assert few.effects.n_draws == len(few.conditions[2].control) == 10
    assert few.conditions[2].effects.n_draws == 10


def test_progress_counts_the_sweeps_of_all_conditions():
    seen = []
    fitted(screen(truth(0), 1), chain=Chain(3, 4, 5), progress=lambda *done: seen.append(done))
    assert seen == [(k, 23) for k in range(1, 24)]


@pytest.mark.slow
def test_a_short_chain_that_starts_at_likely_tails_is_nearer_to_a_long_one(monkeypatch):
    monkeypatch.setattr("nextpert.core.model._sweep.ENOUGH_PAIRS", 20_000)
    rng, (n, p) = np.random.default_rng(1), (150, 60)
    every = np.zeros((2, n, p))  # few effects: some in both lines, some in the second alone
    strong = rng.normal(size=(2, n // 10, p)) * (rng.random((2, n // 10, p)) < 0.1)
    every[:, ::10], every[1, 5::10] = strong[0], strong[1]
    moments = screen(every, 1, cells=60, controls=1000)
    found = {}
    # The short ones are as long as for 50 million effects and more.
    for name, chain in {
        "long": Chain(100, 100, 2), "short": Chain(15, 10, 2), "warm": Chain(15, 10, 2, 10)
    }.items():  # fmt: skip
        fit = fitted(moments, lines=2, chain=chain)
        found[name] = np.array([each.effects.posterior_mean() for each in fit.conditions])
    away = {name: ((found[name] - found["long"]) ** 2).mean() for name in ("short", "warm")}
    error = {name: ((mean - every) ** 2).mean() for name, mean in found.items()}
    assert away["warm"] < 0.85 * away["short"]
    assert error["warm"] < 0.85 * error["short"]


def test_a_condition_without_controls_raises():
    moments = screen(truth(0), 8)
    moments.n[moments.n_environments // LINES] = 0
    with pytest.raises(ValueError, match="Every condition needs controls"):
        fitted(moments)


def test_a_table_beside_a_screen_has_the_variances_that_it_states():
    moments = screen(truth(1)[:1], 9)
    cells = pool_guides(moments, np.arange(13), 13)
    rng = np.random.default_rng(0)
    variance = rng.uniform(0.01, 0.1, size=(12, GENES))
    known = rng.random((12, GENES)) < 0.8
    known[:, 0] = False
    both = beside(cells, rng.normal(size=(12, GENES)), np.where(known, 1 / variance, 0.0))
    _, error = both.rows(np.arange(13, 26)).to_controls()
    within = cells.covariance.diagonal()
    np.testing.assert_allclose((error * within)[known], variance[known])
    assert (error[~known] > 1e5).all()
    # The controls are as many cells as the most of a perturbation.
    of_control, of_most = 1 / both.counted[13], 1 / both.counted[14:].max(axis=0)
    np.testing.assert_allclose(of_control[1:], of_most[1:])
    np.testing.assert_array_equal(both.rows(np.arange(13)).counted, cells.counted)


@pytest.mark.slow
def test_a_table_beside_a_screen_counts_as_its_cells_do():
    effects = truth(2)[:2]
    moments = screen(effects, 10, cells=40, controls=40)
    every = pool_guides(moments, np.arange(26), 26)
    here = pool_guides(moments.some(np.arange(13)), np.arange(13), 13)
    change, error = every.rows(np.arange(13, 26)).to_controls()
    table = beside(here, change, 1 / (error * every.covariance.diagonal()))
    one, two = (
        fit_conditions(each, ["here", "there"], rng=0, chain=Chain(200, 200, 2)).in_condition(0)
        for each in (every, table)
    )
    mine, its = (fit.effects.posterior_mean() for fit in (one, two))
    alone = fit_hierarchical(here, rng=0).effects.posterior_mean()
    far = ((alone - effects[0]) ** 2).sum()
    assert ((its - effects[0]) ** 2).sum() < 0.8 * far
    assert ((mine - its) ** 2).sum() < 0.1 * ((alone - mine) ** 2).sum()
