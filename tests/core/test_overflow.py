"""Cells in any units give the same graph, or are refused by name: nothing overflows unseen."""

import re

import numpy as np
import pytest

from nextpert.core import (
    Civ,
    DagBlr,
    Moments,
    boss,
    gsp,
    minimal_imap,
    random_scm,
)
from nextpert.core.screen.mean_distance import mean_distance

SCM = random_scm(6, rng=0)
X = SCM.sample(400, rng=1)


def whole(x, **options):
    """Search, fit and look ahead; the edges and the values."""
    cells = Moments.from_array(x)
    edges = [boss(cells, rng=0).dag.edges(), gsp(cells, rng=0).dag.edges()]
    edges.append(minimal_imap(cells, range(6)).edges())
    blr = DagBlr(SCM.dag, **options).update(cells)
    value = Civ(blr, x[0]).value(x[1])
    return edges, blr, value


@pytest.mark.parametrize("size", [1e145, 1e148, 1e149, 1e150, 1e152, 1e200, 1e300, 1e307])
@pytest.mark.parametrize("genes", [[2], [0, 1, 2, 3, 4, 5]])
@pytest.mark.parametrize("options", [{}, {"prior_scale": 1.0}, {"noise_var": 1.0}])
def test_huge_values_are_refused_or_give_numbers(size, genes, options):
    x = X.copy()
    x[:, genes] *= size
    try:
        edges, blr, value = whole(x, **options)
    except ValueError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert re.search("too large|comparable units", message), message
        return
    assert edges == whole(X, **options)[0]
    assert np.isfinite(value)
    for name, part in blr.to_dict().items():
        if not isinstance(part, str):
            assert np.isfinite(part).all(), name


def test_a_huge_mean_or_shift_is_refused():
    blr = DagBlr(SCM.dag).update(Moments.from_array(X))
    before = blr.to_dict()
    flat = Moments(5, np.full(6, 1e160), np.zeros((6, 6)))
    with pytest.raises(ValueError, match=r"\[0, 1, 2, 3, 4, 5\] contain values too large"):
        blr.update(flat, inplace=True)
    shift = np.zeros(6)
    shift[3] = -1e200
    with pytest.raises(ValueError, match=r"\[3\] contain values too large"):
        blr.update(Moments.from_array(X), shift, inplace=True)
    for name, part in blr.to_dict().items():
        np.testing.assert_array_equal(part, before[name])


def test_a_distance_of_huge_means_is_refused():
    cells = Moments.from_array(1e100 * X)
    for target in (np.zeros(6), cells.mean):
        with pytest.raises(ValueError, match="too large for squared distances"):
            mean_distance(cells, target)
    assert np.isfinite(mean_distance(Moments.from_array(1e60 * X), np.zeros(6)).high)
