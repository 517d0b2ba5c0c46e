"""Guides pooled, against generalised least squares over all cells, and their spread learned."""

import numpy as np
import pytest

from nextpert.core import ScreenMoments
from nextpert.core.screen.guides import pool_guides, spread_within


@pytest.mark.parametrize("tau2", [0.0, 0.05, 2.0])
def test_means_and_cells_are_those_of_generalised_least_squares(tau2):
    rng = np.random.default_rng(0)
    guide = np.repeat(np.arange(5), [30, 4, 11, 7, 50])
    x = rng.normal(size=(len(guide), 3))
    pooled = pool_guides(
        ScreenMoments.from_array(x, guide, 5), [0, 0, 0, 1, 1], 2, guide_variance=tau2
    )
    for group, guides in enumerate([(0, 1, 2), (3, 4)]):
        cells = np.isin(guide, guides)
        same = np.equal.outer(guide[cells], guide[cells])
        inverse = np.linalg.inv(np.eye(cells.sum()) + tau2 * same)
        ones = np.ones(cells.sum())
        np.testing.assert_allclose(pooled.n[group], ones @ inverse @ ones)
        np.testing.assert_allclose(
            pooled.mean[group], ones @ inverse @ x[cells] / (ones @ inverse @ ones)
        )
        assert pooled.n_cells[group] == cells.sum()
    if tau2 == 0:
        within = sum(
            (x[m] - x[m].mean(0)).T @ (x[m] - x[m].mean(0)) for m in (guide < 3, guide >= 3)
        )
        np.testing.assert_allclose(pooled.scatter, within, atol=1e-10)


def test_a_guide_never_counts_for_more_than_the_spread_allows():
    n = np.full(3, 100_000)
    screen = ScreenMoments(n, np.zeros((3, 2)), np.ones((3, 2)) * n[:, None], np.eye(2) * n.sum())
    pooled = pool_guides(screen, [0, 0, 0], 1, guide_variance=0.01)
    assert 299 < pooled.n[0] < 300


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_the_ratio_of_variances_counts_the_pooled_one_as_cells(scale):
    """Guides of one cell tell of no variance, those without cells neither; a flat gene is 1."""
    rng, guide = np.random.default_rng(3), np.repeat([0, 1, 2, 3], [9, 1, 6, 2])
    x = scale * rng.normal(size=(len(guide), 3))
    x[:, 2] = 1.0
    squares = [sum(((x[guide == g] - x[guide == g].mean(0)) ** 2).sum(0) for g in some)
               for some in ((0, 1), (2, 3))]  # fmt: skip
    pooled = sum(squares) / (8 + 0 + 5 + 1)
    screen = ScreenMoments.from_array(x, guide, 5)  # the last of them is empty
    found = pool_guides(screen, [0, 0, 1, 1, 1], 2)
    as_cells, freedom = found.prior_freedom, [8, 6]
    np.testing.assert_array_equal(found.freedom, freedom)
    wanted = [(as_cells + s[:2] / pooled[:2]) / (as_cells + f)
              for s, f in zip(squares, freedom, strict=True)]  # fmt: skip
    np.testing.assert_allclose(found.variance_ratio[:, :2], wanted)
    np.testing.assert_allclose(found.variance_ratio[:, 2], [as_cells / (as_cells + f)
                                                            for f in freedom])  # fmt: skip


@pytest.mark.parametrize(("true", "least", "most"), [(40, 30, 53), (5, 20, 20), (np.inf, 300, 1e4)])
def test_by_how_much_variances_differ_is_learned(true, least, most):
    """Inverse chi-square of 40 degrees of freedom; those of fewer than 20 are not believed."""
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(31), [500, *[60] * 30])
    variance = np.ones((31, 50))
    if np.isfinite(true):
        variance[1:] = true / rng.chisquare(true, size=(30, 50))
    x = np.sqrt(variance)[group] * rng.normal(size=(len(group), 50))
    whole = pool_guides(ScreenMoments.from_array(x, group, 31), range(31), 31)
    assert least <= whole.prior_freedom <= most


@pytest.mark.parametrize("tau2", [0.0, 0.01, 0.1])
def test_the_spread_of_guides_is_found(tau2):
    rng = np.random.default_rng(2)
    found = []
    for _ in range(20):
        guide = np.repeat(np.arange(15), rng.integers(30, 200, size=15))
        away = np.sqrt(tau2) * rng.normal(size=(15, 60)) * np.arange(1, 61)
        x = np.arange(1, 61) * rng.normal(size=(len(guide), 60)) + away[guide]
        x[guide == 3, :5] += 100.0  # a guide that hits something
        found.append(spread_within(ScreenMoments.from_array(x, guide, 15), np.zeros(15, int)))
    assert abs(np.mean(found) - tau2) < 0.1 * tau2 + 0.0008


def test_of_two_guides_nothing_is_learned():
    x = np.random.default_rng(0).normal(size=(60, 4))
    screen = ScreenMoments.from_array(x, np.repeat([0, 1], 30), 2)
    assert spread_within(screen, [0, 0]) == 0.0


def test_some_nodes_are_those_of_a_screen_without_the_others():
    rng = np.random.default_rng(3)
    x, group = rng.normal(size=(90, 5)), np.arange(90) % 6
    batch = (np.arange(90) % 2)[:, None].astype(float)
    every = ScreenMoments.from_array(np.hstack([x, batch]), group, 6)
    index = [4, 1]
    some = ScreenMoments.from_array(np.hstack([x[:, index], batch]), group, 6)
    found = pool_guides(every, [0, 0, 1, 1, 2, 2], 3, fixed_sd=[0.2]).subset(index)
    told = pool_guides(some, [0, 0, 1, 1, 2, 2], 3, fixed_sd=[0.2])
    for name in ("mean", "scatter", "fixed_scatter", "fixed", "n"):
        np.testing.assert_allclose(getattr(found, name), getattr(told, name), atol=1e-12)
