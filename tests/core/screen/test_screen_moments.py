"""Moments of a screen against the cells themselves."""

import numpy as np
import pytest
import scipy.sparse as sp

from nextpert.core import Moments, ScreenMoments, context_moments
from nextpert.core.screen.moments import PairwiseSum
from nextpert.core.screen.parts import empty_part, merge, screen_part


@pytest.fixture
def cells():
    """500 cells of 6 genes in 7 environments (one of a single cell, one empty), sparse-like."""
    rng = np.random.default_rng(3)
    x = rng.poisson(0.6, (500, 6)) * rng.gamma(2.0, size=(500, 6)) + 0.0
    groups = rng.integers(0, 5, 500)
    groups[17] = 6
    x[groups == 2] += [0, 1, 0, 0, 2, 0]
    return x, groups


def brute(x, groups, e):
    here = x[groups == e]
    return here - here.mean(axis=0)


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array, sp.csc_array])
def test_sums_are_those_of_the_cells(cells, kind):
    x, groups = cells
    screen = ScreenMoments.from_array(kind(x), groups, 7)
    assert screen.n.tolist() == np.bincount(groups, minlength=7).tolist()
    scatter = np.zeros((6, 6))
    for e in np.unique(groups):
        centred = brute(x, groups, e)
        scatter += centred.T @ centred
        np.testing.assert_allclose(screen.mean[e], x[groups == e].mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(screen.squares[e], (centred**2).sum(axis=0), atol=1e-9)
    np.testing.assert_allclose(screen.scatter, scatter, atol=1e-9)
    assert (screen.mean[5] == 0).all()


def flat(part):
    """The arrays of sums of one fold."""
    assert part.scatter.keys() == {0}
    return [*part[:-1], part.scatter[0]]


@pytest.mark.parametrize("weighted", [False, True])
def test_thin_sparse_cells_are_summed_as_dense_ones(weighted):
    rng = np.random.default_rng(0)
    x = rng.poisson(0.1, (600, 20)) * rng.gamma(2.0, size=(600, 20))
    groups = rng.integers(0, 3, 600)
    groups[17] = 4  # alone
    weights = rng.poisson(1.0, 600) if weighted else None
    taken = np.repeat(np.arange(600), 1 if weights is None else weights)
    part = screen_part(sp.csr_array(x), groups, weights)
    x, groups = x[taken], groups[taken]
    centred = [brute(x, groups, e) for e in np.unique(groups)]
    assert part.n.tolist() == [len(c) for c in centred]
    for k, e in enumerate(part.groups):
        np.testing.assert_allclose(part.mean[k], x[groups == e].mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(part.squares[k], (centred[k] ** 2).sum(axis=0), atol=1e-9)
    every = np.vstack(centred)
    np.testing.assert_allclose(part.scatter[0], every.T @ every, atol=1e-9)


@pytest.mark.parametrize("spread", [1e-5, 1e-2])
def test_sparse_cells_far_from_zero_keep_their_digits(cells, spread):
    x, groups = cells
    far = sp.csr_array(x[:, :1] * spread + 1e4)
    mixed = sp.csr_array(np.hstack([far.toarray(), np.zeros((500, 9))]))
    screen = ScreenMoments.from_array(mixed, groups, 7)
    centred = np.vstack([brute(mixed.toarray(), groups, e) for e in np.unique(groups)])
    np.testing.assert_allclose(screen.scatter[0, 0], (centred[:, 0] ** 2).sum(), rtol=1e-9)
    np.testing.assert_allclose(screen.squares[:, 0].sum(), (centred[:, 0] ** 2).sum(), rtol=1e-9)


def test_cells_left_out_and_weights(cells):
    x, groups = cells
    weights = np.random.default_rng(0).poisson(1.0, 500)
    part = screen_part(x, groups, weights)
    again = screen_part(np.repeat(x, weights, axis=0), np.repeat(groups, weights))
    for one, other in zip(flat(part), flat(again), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)
    some = np.where(groups == 1, -1, groups)
    screen = ScreenMoments.from_array(x, some, 7)
    assert screen.n[1] == 0
    np.testing.assert_allclose(
        screen.scatter, ScreenMoments.from_array(x[some >= 0], some[some >= 0], 7).scatter
    )


def test_parts_add_up_in_any_split(cells):
    x, groups = cells
    whole = ScreenMoments.from_array(x, groups, 7)
    total = PairwiseSum(empty_part(6), merge)
    for first in range(0, 500, 37):
        total.add(screen_part(x[first : first + 37], groups[first : first + 37]))
    split = ScreenMoments.from_part(total.total(), 7)
    halves = ScreenMoments.from_array(x[:200], groups[:200], 7) + ScreenMoments.from_array(
        x[200:], groups[200:], 7
    )
    for other in (split, halves):
        np.testing.assert_allclose(other.mean, whole.mean, atol=1e-12)
        np.testing.assert_allclose(other.squares, whole.squares, atol=1e-9)
        np.testing.assert_allclose(other.scatter, whole.scatter, atol=1e-9)
        assert (other.n == whole.n).all()


def test_pool_and_total(cells):
    x, groups = cells
    screen = ScreenMoments.from_array(x, groups, 7)
    coarse = np.array([0, 1, 0, 1, 2, 2, 0])
    pooled = screen.pool(coarse, 3)
    wanted = ScreenMoments.from_array(x, coarse[groups], 3)
    for name in ("n", "mean", "squares", "scatter"):
        np.testing.assert_allclose(getattr(pooled, name), getattr(wanted, name), atol=1e-9)
    all_cells = Moments.from_array(x)
    np.testing.assert_allclose(screen.total().scatter, all_cells.scatter, atol=1e-8)
    np.testing.assert_allclose(screen.total().mean, all_cells.mean)
    np.testing.assert_allclose(screen.subset([4, 1]).total().gram, all_cells.subset([4, 1]).gram)


def residual_squares(y, columns):
    fitted = columns @ np.linalg.lstsq(columns, y, rcond=None)[0]
    return float(((y - fitted) ** 2).sum())


def from_moments(moments, child, parents):
    inside = moments.scatter[np.ix_(parents, parents)]
    cross = moments.scatter[parents, child]
    return moments.scatter[child, child] - cross @ np.linalg.solve(inside, cross)


@pytest.mark.parametrize("batches", [False, True])
def test_regressions_are_those_with_indicator_columns(batches):
    """Guides within perturbations, two crossed batch factors: as one dense regression."""
    rng = np.random.default_rng(5)
    n = 800
    pert, guide = rng.integers(0, 3, n), rng.integers(0, 2, n)
    plate, donor = rng.integers(0, 3, n), rng.integers(0, 2, n)
    key = np.unique(np.c_[pert, guide, plate, donor], axis=0, return_inverse=True)
    table, groups = key[0], key[1].ravel()
    x = rng.normal(size=(n, 4)) @ rng.normal(size=(4, 4))
    x += np.eye(4)[pert] * 2 + plate[:, None] * rng.normal(size=4) + donor[:, None] * 0.7
    indicators = (table[:, :1] == [1, 2]).astype(float)
    design = np.c_[table[:, 2:3] == [1, 2], table[:, 3:] == 1].astype(float)
    screen = ScreenMoments.from_array(x, groups, len(table))
    joint = context_moments(screen, indicators, fixed=design if batches else None)
    of_cell = np.c_[np.ones(n), design[groups]] if batches else np.ones((n, 1))
    nodes = np.c_[x, indicators[groups]]
    for child in range(4):
        for parents in ([(child + 1) % 4], [4], [4, 5], [(child + 2) % 4, 4], [5]):
            wanted = residual_squares(x[:, child], np.c_[of_cell, nodes[:, parents]])
            assert from_moments(joint, child, parents) == pytest.approx(wanted, rel=1e-9)


def test_what_batches_explain_but_for_rounding_is_exactly_zero():
    rng = np.random.default_rng(4)
    batch = np.eye(5)[rng.integers(0, 5, 40)][:, 1:] + 0.0
    mixed = batch @ [0.3, -1.7, 2.9, 0.1] + 1 / 3
    screen = ScreenMoments.from_array(rng.normal(size=(400, 3)), np.repeat(np.arange(40), 10), 40)
    joint = context_moments(screen, np.c_[mixed, rng.normal(size=40)], fixed=batch)
    assert not joint.scatter[3].any()
    assert not joint.scatter[:, 3].any()
    assert joint.scatter[4, 4] > 1


def test_batch_effects_come_off_the_means():
    """As by hand: least squares with one mean a perturbation and the batches, on the cells."""
    rng = np.random.default_rng(8)
    n, pert, batch = 900, rng.integers(0, 4, 900), rng.integers(0, 3, 900)
    pert[batch == 2] %= 2  # not every perturbation is in every batch
    effects = rng.normal(size=(3, 5)) * 3
    x = rng.normal(size=(n, 5)) + np.arange(4)[pert][:, None] + effects[batch]
    codes, groups = np.unique(np.c_[pert, batch], axis=0, return_inverse=True)
    groups = groups.ravel()
    design = (codes[:, 1:] == [1, 2]).astype(float)
    clean = ScreenMoments.from_array(x, groups, len(codes)).without_fixed(design, codes[:, 0])
    columns = np.c_[np.eye(4)[pert], design[groups]]
    estimate = np.linalg.lstsq(columns, x, rcond=None)[0][4:]
    by_hand = x - (design[groups] - design[groups].mean(axis=0)) @ estimate
    wanted = ScreenMoments.from_array(by_hand, groups, len(codes))
    np.testing.assert_allclose(clean.mean, wanted.mean, atol=1e-9)
    np.testing.assert_allclose(clean.scatter, wanted.scatter, atol=1e-8)
    # A perturbation that no cell bears, as in a resample, changes nothing.
    empty = ScreenMoments.from_array(x, groups, len(codes) + 1)
    lone = empty.without_fixed(np.vstack([design, [1, 0]]), np.append(codes[:, 0], 4))
    np.testing.assert_allclose(lone.mean[:-1], clean.mean, atol=1e-9)


def test_wrong_cells_are_refused(cells):
    x, groups = cells
    with pytest.raises(ValueError, match="one group per cell"):
        ScreenMoments.from_array(x, groups[:-1], 7)
    with pytest.raises(ValueError, match=r"groups must be below n_groups, .* is 6"):
        ScreenMoments.from_array(x, groups, 6)
    broken = x.copy()
    broken[3, 2] = np.inf
    for kind in (np.asarray, sp.csr_array):
        with pytest.raises(ValueError, match=r"Columns \[2\] contain NaN"):
            ScreenMoments.from_array(kind(broken), groups, 7)


def tree(parts):
    """Pairs of neighbours added, level by level."""
    while len(parts) > 1:
        pairs = [f"({a}{b})" for a, b in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[len(pairs) * 2 :]
    return parts[0]


@pytest.mark.parametrize("n", range(1, 40))
def test_parts_are_added_as_a_tree(n):
    total = PairwiseSum("", lambda a, b: f"({a}{b})")
    for k in range(n):
        total.add(f"{k} ")
    assert total.total() == tree([f"{k} " for k in range(n)])
