"""Effects of levels within blocks against permutations, least squares and contingency tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from nextpert.core import ScreenMoments
from nextpert.core.screen.guides import distinct
from nextpert.core.screen.levels import independence_p_value, level_effects


def cells(rng, n_genes=8, n_labels=6, n_cells=30, n_control=80, n_levels=3, *, nested=False):
    """Coexpressed cells of perturbations with effects and variances of their own, and levels."""
    label = np.repeat(np.arange(n_labels + 1), [n_control] + [n_cells] * n_labels)
    loading, n = rng.normal(size=(n_genes, 2)), len(label)
    x = rng.normal(size=(n, n_genes)) + rng.normal(size=(n, 2)) @ loading.T
    x = x * np.exp(0.3 * rng.normal(size=n_labels + 1))[label, None]
    x += rng.normal(size=(n_labels + 1, n_genes))[label]
    level = rng.integers(n_levels, size=n)
    if nested:
        level = np.where(label == 0, level, rng.integers(n_levels, size=n_labels + 1)[label])
    return x, label, level


def effects_of(x, label, level):
    rows, place = distinct(label, level)
    screen = ScreenMoments.from_array(x, place, len(rows))
    return level_effects(screen, rows[:, 0], rows[:, 1], int(level.max()) + 1)


def regressed(x, label, level):
    """Sums of squares that levels explain, by least squares on labels, and the coefficients."""
    blocks = (label[:, None] == np.unique(label)).astype(float)
    columns = (level[:, None] == np.arange(level.max() + 1)).astype(float)
    both = np.linalg.lstsq(np.hstack([blocks, columns]), x, rcond=None)[0]
    alone = x - blocks @ np.linalg.lstsq(blocks, x, rcond=None)[0]
    rest = x - np.hstack([blocks, columns]) @ both
    return (alone**2).sum(axis=0) - (rest**2).sum(axis=0), both[blocks.shape[1] :]


def test_effects_are_those_of_least_squares():
    x, label, level = cells(np.random.default_rng(0))
    found, (_, direct) = effects_of(x, label, level), regressed(x, label, level)
    differences = found.effects - found.effects[0], direct - direct[0]
    unit = differences[0][1] / differences[1][1]  # one over the standard deviation of a cell
    np.testing.assert_allclose(differences[0][2], unit * differences[1][2], rtol=1e-8)
    assert 0.2 < unit.min() < unit.max() < 1.2


@pytest.mark.parametrize("nested", [False, True])
def test_the_p_value_is_that_of_permutations_within_labels(nested):
    rng, found, permuted = np.random.default_rng(1), [], []
    for _ in range(8):
        x, label, level = cells(rng, nested=nested)
        x += 0.25 * rng.normal(size=(3, 8))[level]
        found.append(effects_of(x, label, level).p_value)
        # The variance of a gene, by which its sum of squares is divided, stays the same.
        centred = x - np.array([x[label == k].mean(axis=0) for k in range(label.max() + 1)])[label]
        many = np.unique(label[[len(set(level[label == k])) > 1 for k in label]])
        scale = (centred[np.isin(label, many)] ** 2).mean(axis=0)
        sizes = []
        for draw in range(400):
            order = np.lexsort([rng.random(len(label)), label]) if draw else np.arange(len(label))
            sizes.append((regressed(x, label, level[order])[0] / scale).sum())
        permuted.append(np.mean(np.array(sizes) >= sizes[0]))
    np.testing.assert_allclose(found, permuted, atol=0.08)
    assert min(permuted) < 0.2


def test_levels_that_labels_determine_are_not_tested():
    x, label, _ = cells(np.random.default_rng(0))
    assert effects_of(x, label, label % 2) is None
    assert effects_of(np.ones_like(x), label, np.arange(len(label)) % 2) is None


def test_shifts_of_groups_are_unbiased():
    rng, found = np.random.default_rng(2), []
    shares = np.array([[0.5, -0.5], [0.0, 0.0]])
    for _ in range(300):
        x, label, level = cells(rng, n_levels=2)
        found.append(effects_of(x, label, level).squared_shifts(shares))
    found = np.array(found)
    error = found[:, 0].mean(axis=1).std() / np.sqrt(len(found))
    assert abs(found[:, 0].mean()) < 3 * error
    assert not found[:, 1].any()
    x, label, level = cells(rng, n_levels=2, n_cells=4000, n_control=4000)
    sd = np.sqrt(np.mean([x[label == k].var(axis=0) for k in np.unique(label)], axis=0))
    shifted = effects_of(x + 0.4 * sd * level[:, None], label, level).squared_shifts(shares)
    np.testing.assert_allclose(shifted[0], 0.2**2, rtol=0.15)


@pytest.mark.slow
def test_random_columns_cause_no_false_alarm_and_a_batch_is_found():
    """Of 300 columns, random within labels or among controls, at most one has a p-value of 0.1%."""
    p_values = np.array([
        effects_of(*cells(np.random.default_rng(k), n_genes=30, nested=bool(k % 2))).p_value
        for k in range(300)
    ])  # fmt: skip
    assert np.mean(p_values < 0.05) < 0.09
    assert np.sum(p_values < 0.001) <= 1
    for k in range(40):
        rng = np.random.default_rng(k)
        x, label, level = cells(rng, n_genes=30, n_cells=60, n_control=200, n_levels=2)
        x += 0.3 * x.std(axis=0) * rng.choice([-1, 1], 30) * level[:, None]
        assert effects_of(x, label, level).p_value < 0.001


def tables(level, chosen, stratum):
    """Numbers of chosen and of other cells, by stratum and level."""
    counts = np.zeros((2, 2, 3))
    np.add.at(counts, ((~chosen).astype(int), stratum, level), 1)
    return counts


def test_independence_is_that_of_a_table_of_counts():
    rng = np.random.default_rng(0)
    level, chosen, one = rng.integers(3, size=400), rng.random(400) < 0.3, np.zeros(400, int)
    counts = tables(level, chosen, one)
    n = 399 / 400  # variance of a draw without replacement
    statistic = chi2_contingency(counts[:, 0], correction=False).statistic * n
    expected = np.exp(-statistic / 2)  # chi-square with two degrees of freedom
    assert independence_p_value(*counts) == pytest.approx(expected)
    assert np.isnan(independence_p_value(*counts[..., :1]))
    assert np.isnan(independence_p_value(*tables(level[:12], chosen[:12], one[:12])))
    assert np.isnan(independence_p_value(*np.zeros((2, 1, 3))))


def test_independence_is_compared_within_strata():
    """Strata differ in levels and in chosen cells, but within them they are independent."""
    rng, p_values = np.random.default_rng(0), []
    for _ in range(200):
        stratum = rng.integers(2, size=300)
        level, chosen = rng.random(300) < 0.2 + 0.6 * stratum, rng.random(300) < 0.2 + 0.5 * stratum
        counts = tables(level.astype(int), chosen, stratum)
        p_values.append(independence_p_value(*counts))
    assert np.mean(np.array(p_values) < 0.05) < 0.1
    assert independence_p_value(*counts.sum(axis=1, keepdims=True)) < 0.001
