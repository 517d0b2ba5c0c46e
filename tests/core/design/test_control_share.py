"""Best shares of controls against grids."""

from __future__ import annotations

import numpy as np
import pytest

from nextpert.core import Dag, DagBlr, Moments
from nextpert.core.design.cell_numbers import control_share
from nextpert.core.design.plate import PlateCiv, best_split
from nextpert.core.model.shift_posterior import ShiftPosterior


def few_controls():
    """Return a chain of which few controls were seen, and candidates of uncertain shifts."""
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(8, 3)) @ np.array([[1, 0.8, 0], [0, 1, 0.8], [0, 0, 1]])
    blr = DagBlr(Dag.from_edges(3, [(0, 1), (1, 2)])).update(Moments.from_array(cells))
    prior = np.vstack([np.eye(3), -np.eye(3)])
    known = ShiftPosterior.exact(prior)
    return blr, ShiftPosterior(known.n, known.mean, prior, known.share, known.spare + 0.3)


def test_best_share_for_learning_by_a_grid():
    blr, known = few_controls()
    target = np.array([0.5, 0.5, 0.5])
    chosen = [0, 2, 4]
    found = control_share(blr, known, target, 90, chosen)
    # Controls as one more candidate of no shift, whose cells are set.
    zero = np.zeros((1, 3))
    more = ShiftPosterior(
        np.zeros(7), np.zeros((7, 3)), np.vstack([known.prior, zero]), np.zeros((7, 3)),
        np.vstack([known.spare, zero]),
    )  # fmt: skip
    weights = np.append(np.ones(6), 0.0)

    civ = PlateCiv(blr, more, target, gap_cells=90, weights=weights)

    def removed(share):
        low, high = np.array([0, 0, 0, 90 * share]), np.array([90, 90, 90, 90 * share])
        cells = np.zeros(7)
        cells[[*chosen, 6]] = best_split(civ, [*chosen, 6], 90, low, high)
        return civ.after(cells).removed

    grid = np.linspace(0, 0.9, 46)
    values = [removed(share) for share in grid]
    assert 0 < found.learning < 0.9
    np.testing.assert_allclose(found.learning, grid[np.argmax(values)], atol=0.02)
    assert found.removed >= max(values) - 1e-6
    np.testing.assert_allclose(found.removed_without, values[0], rtol=1e-5)
    np.testing.assert_allclose(found.removed_differences, removed(found.differences), rtol=1e-5)


@pytest.mark.parametrize("seen", [0, 20, 500])
def test_best_share_for_differences_by_a_grid(seen):
    blr, known = few_controls()
    found = control_share(blr, known, np.zeros(3), 90, [0, 1, 5], seen=seen)
    share = np.linspace(0, 0.999, 1000)
    with np.errstate(divide="ignore"):
        variance = 3 / (90 * (1 - share)) + 1 / (90 * share + seen)
    np.testing.assert_allclose(found.differences, share[variance.argmin()], atol=0.002)


def test_no_candidate_is_refused():
    blr, known = few_controls()
    for chosen in ([], [1, 1]):
        with pytest.raises(ValueError, match="at least one, each named once"):
            control_share(blr, known, np.zeros(3), 90, chosen)
