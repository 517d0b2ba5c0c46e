"""All that is read of cells, by fold: parts of it against the same cells alone."""

import numpy as np
import pytest
import scipy.sparse as sp

from nextpert.core import Moments, ScreenMoments
from nextpert.core.screen.moments import PairwiseSum
from nextpert.core.screen.parts import empty_part, merge, screen_part
from nextpert.core.screen.screen import Screen

P = 9
FOLD = np.array([0, 0, 2, 2, 5, 5])  # of six environments, number 3 without a cell
HALF = np.array([0, 1, 0, 1, 0, 1])


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    groups = rng.choice([0, 1, 2, 4, 5], size=300)
    values = np.where(rng.random((300, P)) < 0.1, rng.gamma(2.0, size=(300, P)), 0.0)
    return values + 0.1 * (groups == 4)[:, None] * (values > 0), groups


def read(x, groups):
    total = PairwiseSum(empty_part(P), merge)
    for first in range(0, len(groups), 70):
        s = slice(first, first + 70)
        total.add(screen_part(x[s], groups[s], fold=FOLD))
    columns = {"group": np.arange(6), "half": HALF}
    return Screen.from_part(total.total(), columns, FOLD)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_every_fold_is_that_of_its_own_cells(cells, form):
    x, groups = cells
    screen = read(form(x), groups)
    for fold in (0, 2, 5):
        own = FOLD[groups] == fold
        alone = Moments.from_array(x[own])
        found = screen.of_fold(fold)
        assert found.n == alone.n
        np.testing.assert_allclose(found.mean, alone.mean, atol=1e-12)
        np.testing.assert_allclose(found.scatter, alone.scatter, atol=1e-9)
        within = sum(Moments.from_array(x[groups == k]).scatter for k in set(groups[own]))
        np.testing.assert_allclose(screen.scatter[fold], within, atol=1e-9)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_what_is_left_is_that_of_the_other_cells(cells, form):
    x, groups = cells
    screen = read(form(x), groups)
    for gone in ([], [0, 1], [2, 3], [0, 1, 4, 5]):
        kept = ~np.isin(groups, gone)
        alone = ScreenMoments.from_array(x[kept], groups[kept], 6)
        found = screen.some(~np.isin(np.arange(6), gone))
        assert found.columns["group"].tolist() == [k for k in range(6) if k not in gone]
        moments = found.pool("group", 6)
        for name in ("n", "mean", "squares", "scatter"):
            np.testing.assert_allclose(getattr(moments, name), getattr(alone, name), atol=1e-9)


def test_a_fold_is_not_divided(cells):
    screen = read(*cells)
    with pytest.raises(ValueError, match="of a fold cannot be separated"):
        screen.halves("half")
    apart = Screen.from_part(
        screen_part(*cells, fold=HALF), {"group": np.arange(6), "half": HALF}, HALF
    )
    one, two = apart.halves("half")
    assert one.columns["group"].tolist() == [0, 2, 4]
    whole = one.pool("group", 6) + two.pool("group", 6)
    np.testing.assert_allclose(whole.scatter, screen.moments().scatter, atol=1e-9)


def test_another_order_changes_no_bit(cells):
    moments = read(*cells).moments()
    order = np.array([3, 0, 5, 1, 2, 4])
    turned = moments.pool(order, 7)
    assert turned.n[6] == 0
    for name in ("n", "mean", "squares"):
        np.testing.assert_array_equal(getattr(turned, name)[order], getattr(moments, name))
    np.testing.assert_array_equal(turned.scatter, moments.scatter)


def test_batches_are_taken_off_by_all_environments_and_added_as_columns_of_each_fold(cells):
    screen = read(*cells)
    group, batch = np.array([0, 0, 0, 1, 1, 1]), np.array([[0.0], [1], [0], [1], [1], [0]])
    found, sd = screen.without_batches(batch, group)
    moments = screen.moments()
    columns, wanted_sd = moments.fixed_columns(batch, group)
    np.testing.assert_array_equal(sd, wanted_sd)
    np.testing.assert_allclose(found.mean[:, :P], moments.without_fixed(batch, group).mean)
    np.testing.assert_array_equal(found.mean[:, P:], columns)
    part = found.some(FOLD == 2)
    assert not part.squares[:, P:].any()
    for k, each in part.scatter.items():
        np.testing.assert_array_equal(each, np.pad(screen.scatter[k], (0, 1)))


def test_some_environments_have_their_share_of_the_scatter(cells):
    moments = read(*cells).moments()
    some = moments.some([0, 4])
    np.testing.assert_array_equal(some.n, moments.n[[0, 4]])
    np.testing.assert_array_equal(some.mean, moments.mean[[0, 4]])
    np.testing.assert_allclose(some.scatter, moments.scatter * some.n.sum() / moments.n.sum())


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array])
def test_folds_that_overlap_are_each_that_of_a_screen_without_the_other_cells(cells, form):
    """The same bits, block by block, also where a block has no cell of a fold."""
    x, groups = cells
    member = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 1]])
    halves = np.arange(len(groups)) < len(groups) // 2

    def read(kept, fold):
        parts = [
            screen_part(form(x[kept & some]), groups[kept & some], fold=fold)
            for some in (halves, ~halves)
        ]
        return Screen.from_part(merge(*parts), {"group": np.arange(6)}, fold)

    screen = read(np.ones(len(groups), bool), member)
    for k in range(3):
        alone = read(member[groups, k] > 0, np.zeros(6, np.int64)).moments()
        found = screen.some(member[:, k]).moments()
        np.testing.assert_array_equal(found.scatter, alone.scatter)
        np.testing.assert_array_equal(found.mean, alone.mean[member[:, k] > 0])
    with pytest.raises(ValueError, match="of a fold cannot be separated"):
        screen.some([1, 0, 0, 0, 0, 0])
