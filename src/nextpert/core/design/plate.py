"""Plates: who is on one, which pairs may be, and how many cells are controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._blas import in_blocks
from nextpert.core._checks import require_count
from nextpert.core.design.distances import probability_nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]


def best_order(expected: Array, draws: Array, size: int) -> tuple[Index, Array]:
    """Return all candidates in the order of the plate, and the probabilities that determine it.

    Half of the places (rounded up) are for the candidates with the smallest expected distance, the
    others for the remaining candidates that are most probably the nearest. Only one candidate is
    the nearest, so the probability that a plate contains it is the sum of their probabilities. A
    candidate with a highly uncertain state is occasionally the nearest in a draw by chance; the
    first half is chosen by expected distance so that many such candidates do not displace those
    with better evidence.

    Parameters
    ----------
    expected
        Squared distance of the expected state of each candidate to the target, shape
        ``(n_candidates,)``.
    draws
        Squared distances in joint draws, shape ``(n_draws, n_candidates)``. They have to be joint:
        uncertainty that all candidates share then does not change their order.
    size
        Number of perturbations in the next round, at least 1.

    Returns
    -------
    ndarray, ndarray
        The indices, of which the first ``size`` are the plate; and for each candidate the
        probability that it is the nearest of those not chosen by expected distance (NaN for the
        latter). Ties, which are frequent because most candidates are never the nearest, are ordered
        by mean distance.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.plate import best_order
    >>> draws = np.array([[2.0, 3.0, 1.0, 9.0], [2.0, 3.0, 1.0, 9.0], [2.0, 3.0, 9.0, 9.0]])
    >>> order, probability = best_order(draws.mean(axis=0), draws, 2)
    >>> order.tolist(), probability.round(2).tolist()
    ([0, 2, 1, 3], [nan, 0.33, 0.67, 0.0])
    """
    half = -(-require_count(size, "size") // 2)
    first = np.argsort(expected, kind="stable")[:half]
    rest = np.setdiff1d(np.arange(len(expected)), first)
    probability = np.full(len(expected), np.nan)
    if len(rest):
        probability[rest] = probability_nearest(draws[:, rest])
    order = np.lexsort((draws[:, rest].mean(axis=0), -probability[rest]))
    return np.append(first, rest[order]), probability


def nearest_pairs(effects: Array, change: Array, n_best: int) -> Index:
    """Return the pairs whose summed effects are nearest to a change, nearest first, ``(n, 2)``.

    ``effects`` has the shape ``(n_members, n_nodes)``, ``change`` ``(n_nodes,)``.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.plate import nearest_pairs
    >>> effects = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    >>> nearest_pairs(effects, np.array([2.0, 1.0]), 2).tolist()
    [[1, 2], [0, 1]]
    """
    n = len(effects)
    pairs, best = np.empty((0, 2), np.int64), np.empty(0)
    # |a + b - t|^2 = |a|^2 - 2 a't + |b|^2 - 2 b't + 2 a'b + |t|^2
    own = (effects**2).sum(axis=1) - 2 * effects @ change
    for rows in in_blocks(n, n):
        first, second = np.nonzero(np.arange(n)[rows, None] < np.arange(n))
        score = own[rows, None] + own + 2 * effects[rows] @ effects.T
        best = np.append(best, score[first, second])
        pairs = np.vstack([pairs, np.column_stack([first + (rows.start or 0), second])])
        order = np.lexsort((*pairs.T[::-1], best))[:n_best]
        pairs, best = pairs[order], best[order]
    return pairs


def dunnett_controls(total: float, k: int) -> float:
    """Return how many of ``total`` cells should be controls, for ``k`` differences to be precise.

    The variance of a difference between ``n`` perturbed cells and ``m`` controls, relative to that
    of a cell, is ``1/n + 1/m``. For a fixed total it is smallest at ``m = sqrt(k) n`` (Dunnett
    1955, doi:10.2307/2281208).

    Examples
    --------
    >>> from nextpert.core.design.plate import dunnett_controls
    >>> dunnett_controls(1200, 4)
    400.0
    """
    return total * k**0.5 / (k + k**0.5)
