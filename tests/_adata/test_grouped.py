"""Moments of many environments in one pass over sparse rows."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from nextpert._adata import _grouped
from nextpert._adata._grouped import grouped_moments
from nextpert.core import Moments

P = 9


@pytest.fixture
def cells():
    """Sparse rows of five environments, number 3 without a cell; a large mean in one of them."""
    rng = np.random.default_rng(0)
    groups = rng.choice([0, 1, 2, 4, 5], size=300)
    values = np.where(rng.random((300, P)) < 0.1, rng.gamma(2.0, size=(300, P)), 0.0)
    values[groups == 4, 2] = 1e8 + rng.random((groups == 4).sum())
    return values, groups


@pytest.mark.parametrize("entries", [1, 2 * P * P, 2**22])
def test_every_environment_is_that_of_its_own_cells(cells, entries, monkeypatch):
    values, groups = cells
    monkeypatch.setattr(_grouped, "_SCATTER_ENTRIES", entries)
    parts = grouped_moments(sp.csr_array(values), groups)
    assert sorted(parts) == [0, 1, 2, 4, 5]
    for group, moments in parts.items():
        own = values[groups == group]
        assert moments.n == len(own)
        np.testing.assert_allclose(moments.mean, own.mean(axis=0), rtol=1e-13)
        centred = own - own.mean(axis=0)
        np.testing.assert_allclose(moments.scatter, centred.T @ centred, rtol=1e-9, atol=1e-9)
        # The same to the bit as from these cells alone, and for any number summed at once.
        alone = Moments.from_array(sp.csr_array(own))
        np.testing.assert_array_equal(moments.mean, alone.mean)
        np.testing.assert_array_equal(moments.scatter, alone.scatter)


def test_columns_that_are_not_finite_are_named(cells):
    values, groups = cells
    values[7, 3], values[8, 5] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"\[3, 5\]") as error:
        grouped_moments(sp.csr_array(values), groups)
    np.testing.assert_array_equal(error.value.columns, [3, 5])
