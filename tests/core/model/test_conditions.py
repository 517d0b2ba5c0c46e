"""Fits to several conditions: against closed forms, pooling, and each condition alone."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from nextpert.core import ScreenMoments
from nextpert.core._codec import pack, unpack
from nextpert.core.model.conditions import (
    DEPARTURES,
    as_condition,
    departures,
    fit_each,
    joined,
    of_table,
    shared_effects,
)
from nextpert.core.model.effect_draws import Condition
from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.model.sampler import Chain
from nextpert.core.screen.departures import Coexpression
from nextpert.core.screen.guides import pool_guides

LINES, GENES = 3, 20


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


def values(effects, seed, cells=40, controls=300):
    """Return the cells of each line, and the number of their perturbation, 0 of controls."""
    rng = np.random.default_rng(seed)
    _, n, p = effects.shape
    code = np.repeat(np.arange(1 + n), np.append(controls, np.full(n, cells)))
    loading = rng.normal(scale=0.3, size=(2, p))
    made = []
    for each in effects:
        mean = np.vstack([np.zeros(p), each]) + rng.normal(size=p)  # what lines differ by
        x = mean[code] + rng.normal(size=(len(code), p))
        made.append(x + rng.normal(size=(len(code), 2)) @ loading)
    return made, code


def as_cells(x, code):
    n = int(code.max()) + 1
    return pool_guides(ScreenMoments.from_array(x, code, n), range(n), n)


def screen(effects, seed, **sizes):
    """Return controls and perturbations of each line."""
    every, code = values(effects, seed, **sizes)
    return [as_cells(x, code) for x in every]


def test_departures_are_those_of_bayes_rule_gene_by_gene():
    rng = np.random.default_rng(0)
    square, variance = rng.gamma(1.0, size=(3, 4)), rng.uniform(0.1, 0.3, size=(3, 4))
    changes = rng.random((3, 4))
    found = np.concatenate([x for _, x in departures(square, variance, changes)])
    prior = np.append(0.5, np.full(len(DEPARTURES) - 1, 0.5 / (len(DEPARTURES) - 1)))
    often = np.tile(prior, (3, 1))
    for _ in range(31):  # by loops
        counts, each = np.zeros((3, 4, len(DEPARTURES))), np.zeros((3, 4, len(DEPARTURES)))
        for j, i in np.ndindex(3, 4):
            density = norm.pdf(np.sqrt(square[j, i]), scale=np.sqrt(variance[j, i] + DEPARTURES))
            counts[j, i] = changes[j, i] * density * often[j] / (density @ often[j])
            each[j, i] = density
        before, all_of = often, counts.sum(axis=1)
        screen = (2 * prior + all_of.sum(axis=0)) / (2 + changes.sum())
        often = (screen + all_of) / (1 + changes.sum(axis=1))[:, None]
    np.testing.assert_allclose(before, often, atol=0.01)
    for j, i in np.ndindex(3, 4):
        wanted = each[j, i] * (screen + all_of[j] - counts[j, i])
        np.testing.assert_allclose(found[j, i], wanted / wanted.sum(), atol=0.01)


@pytest.mark.parametrize("cells", [(40, 10), (10, 40)])
def test_departures_of_the_size_of_sampling_are_taken_for_it(cells, monkeypatch):
    """Weights of the other line's cells by loops (equation 24)."""
    monkeypatch.setattr("nextpert.core.model.conditions.shared_effects", lambda *_: np.ones(12))
    effects = truth(1)
    here, other = (screen(effects, k, cells=n)[k] for k, n in enumerate(cells))
    unit, there = here.covariance.diagonal(), other.covariance.diagonal()
    ratio, significance = np.maximum(there / unit, 1.0), np.minimum(1.0, 2.0 * there / unit)
    own, noise = 1.0 / here.counted[1:], ratio / other.counted[1:]
    away = other.mean[1:] - other.mean[0] - here.mean[1:] + here.mean[0]
    both = own + noise + 1.0 / here.counted[0] + ratio / other.counted[0]
    changes = np.ones(away.shape)
    chances = departures(away**2 / unit, both, changes * significance)
    chance = np.concatenate([each for _, each in chances])
    wanted = here.counted[1:].copy()
    for j, i in np.ndindex(away.shape):
        counts = 8.0 * min(own[j, i], noise[j, i]) >= DEPARTURES
        assert 1 < counts.sum() < len(DEPARTURES)
        weight = (chance[j, i] / (noise[j, i] + DEPARTURES))[counts].sum()
        wanted[j, i] += significance[i] * weight
    np.testing.assert_allclose(joined([here, other], 0, changes).counted[1:], wanted)


@pytest.mark.parametrize("agree", [0.0, 1.0])
def test_joined_cells_have_the_mean_and_covariance_of_their_parts(monkeypatch, agree):
    monkeypatch.setattr("nextpert.core.model.conditions.shared_effects", lambda *_: np.ones(5))
    monkeypatch.setattr("nextpert.core.model.conditions.coexpression", lambda *_: None)
    parts = screen(np.zeros((3, 5, GENES)), 1, controls=100)
    rng = np.random.default_rng(3)
    parts[2] = replace(parts[2], n=parts[2].n * rng.uniform(0.3, 1.0, size=6))
    weights = np.zeros((5, GENES, len(DEPARTURES)))
    weights[:, :, 0] = agree * np.array([1.0, 0.0, 0.5, 1.0, 0.2])[:, None]
    monkeypatch.setattr(
        "nextpert.core.model.conditions.departures", lambda *_: [(slice(None), weights)]
    )
    for name in ("maximum", "minimum"):
        monkeypatch.setattr(
            f"nextpert.core.model.conditions.np.{name}", lambda a, b: np.ones(np.shape(b))
        )
    both = joined(parts, 0, np.ones((5, GENES)))
    parted = np.array([part.counted[1:] for part in parts])
    parted[1:] *= weights[:, :, 0]
    share = parted / parted.sum(axis=0)
    away = np.array([part.mean[1:] - part.mean[0] for part in parts])
    np.testing.assert_allclose(both.mean[1:] - both.mean[0], (share * away).sum(axis=0))
    # Errors of controls, per gene on average: those of every line by its share, common to all.
    mean_share = share.mean(axis=2)
    of_controls = mean_share.T @ np.diag([1 / part.n[0] for part in parts]) @ mean_share
    errors = both.fixed_errors[1:]
    np.testing.assert_allclose(errors @ errors.T + 1 / both.n[0], of_controls, atol=1e-12)
    np.testing.assert_allclose(both.counted[1:], parted.sum(axis=0))


def test_all_genes_together_show_that_a_condition_denies_an_effect():
    """Effects of squared size 4 on 60 of 250 genes, too small for any gene (equation 24)."""
    rng, n, p, noise = np.random.default_rng(0), 60, 250, 1 / 30 + 1 / 200
    gamma = 0.3 * rng.normal(size=(p, 4))
    unit = np.sqrt(1.0 + (gamma**2).sum(axis=1))
    cells = Coexpression(gamma / unit[:, None], 1.0 / unit**2, unit)
    effect = np.zeros((n, p))
    effect[:, :60] = rng.choice([-1, 1], (n, 60)) * np.sqrt(4 / 60)

    def seen(true):
        error = rng.normal(size=(n, p)) + rng.normal(size=(n, 4)) @ gamma.T
        return true + np.sqrt(noise) * error

    errors = np.full((n, p), noise)
    kind = np.arange(n) % 3  # in both, in one only, in none
    one = effect * (kind < 2)[:, None]
    other = effect * (kind == 0)[:, None]
    weight = shared_effects(seen(one), seen(other), errors, errors, cells)
    assert weight[kind == 0].mean() > 0.9
    assert weight[kind == 1].mean() < 0.35
    assert weight[kind == 2].mean() > 0.8
    # Which of the two is here does not matter, nor do the units of genes.
    x, y = seen(one), seen(other)
    by = rng.uniform(0.5, 2.0, p)
    scaled = cells._replace(unit=cells.unit * by)
    np.testing.assert_allclose(
        shared_effects(x, y, errors, errors, cells),
        shared_effects(y * by, x * by, errors, errors, scaled),
    )


@pytest.mark.slow
def test_a_real_effect_of_one_line_survives_and_is_in_no_other():
    found = alone = false = 0
    for seed in range(3):
        effects = truth(seed, kind="one")
        parts = screen(effects, [seed, 1])
        alone += int((fit_hierarchical(parts[0], rng=0).effects.summary().lfsr[0, :8] < 0.05).sum())
        each = [fit.effects.summary() for fit in fit_each(parts, rng=0)]
        found += int((each[0].lfsr[0, :8] < 0.05).sum())
        false += sum(int((part.lfsr[0] < 0.05).sum()) for part in each[1:])
        size = (each[0].mean[0, :8] * effects[0, 0, :8]).sum() / (effects[0, 0, :8] ** 2).sum()
        assert size > 0.75
    assert alone > 12
    assert found >= 0.9 * alone
    assert false <= 2


def test_a_perturbation_without_cells_in_a_line_is_expected_as_in_the_others():
    effects = truth(1)
    every, code = values(effects, 5)
    parts = [as_cells(x, code) for x in every]
    kept = code != 1
    parts[1] = pool_guides(ScreenMoments.from_array(every[1][kept], code[kept], 13), range(13), 13)
    fits = fit_each(parts, rng=0, chain=Chain(100, 100, 2))
    line = as_condition(fits[1], parts[1], "B", np.arange(GENES, dtype=float))
    assert line.n_cells[0] == 0
    assert (line.n_cells[1:] == 40).all()
    assert (line.change[0] == 0).all()
    np.testing.assert_allclose(line.control.mean(axis=0), np.arange(GENES), atol=0.3)
    found = line.effects.summary()
    large = np.abs(effects[1, 0]) > 0.5
    assert large.any()
    np.testing.assert_allclose(found.mean[0, large], effects[1, 0, large], atol=0.35)
    assert found.sd[0].mean() > 0.9 * fits[0].effects.summary().sd[0].mean()


def test_the_same_bits_for_any_number_of_threads_and_after_storing():
    parts = screen(truth(3), 7)
    one, two = (fit_each(parts, rng=0, chain=Chain(5, 12, 1), n_jobs=k) for k in (1, 2))
    for fit, other, part in zip(one, two, parts, strict=True):
        mine, its = (as_condition(x, part, "A", np.zeros(GENES)) for x in (fit, other))
        read = unpack(Condition, pack(mine), "The result", "run it again")
        for each in (its, read):
            np.testing.assert_array_equal(mine.effects.centre, each.effects.centre)
            np.testing.assert_array_equal(mine.control, each.control)
        np.testing.assert_allclose(
            mine.effects.posterior_mean(), fit.effects.posterior_mean(), atol=1e-6
        )


def test_a_table_has_the_variances_that_it_states():
    cells = screen(truth(1)[:1], 9)[0]
    rng = np.random.default_rng(0)
    variance = rng.uniform(0.01, 0.1, size=(12, GENES))
    known = rng.random((12, GENES)) < 0.8
    known[:, 0] = False
    there = of_table(cells, rng.normal(size=(12, GENES)), np.where(known, 1 / variance, 0.0))
    _, error = there.to_controls()
    within = cells.covariance.diagonal()
    np.testing.assert_allclose((error * within)[known], variance[known])
    assert (error[~known] > 1e5).all()
    # The controls are as many cells as the most of a perturbation.
    of_control, of_most = 1 / there.counted[0], 1 / there.counted[1:].max(axis=0)
    np.testing.assert_allclose(of_control[1:], of_most[1:])
