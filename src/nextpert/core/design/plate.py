"""Plans: choice of perturbations and pairs, and the number of control cells."""

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
    """Return all candidates in the order of the plan, and the probabilities that determine it.

    Half of the positions (rounded up) go to the candidates with the smallest expected distance, the
    other half to the remaining candidates that are most probably nearest. Only one candidate is
    nearest, so the probability that a plan contains it is the sum of the probabilities of the
    plan's candidates. A candidate with a highly uncertain state is occasionally nearest in a draw
    by chance; the first half is chosen by expected distance so that many such candidates do not
    displace those with better evidence.

    Parameters
    ----------
    expected
        Squared distance of the expected state of each candidate to the target, shape
        ``(n_candidates,)``.
    draws
        Squared distances in joint draws, shape ``(n_draws, n_candidates)``. Joint draws are
        required so that uncertainty shared by all candidates does not change their order.
    size
        Number of perturbations in the next round, at least 1.

    Returns
    -------
    ndarray, ndarray
        The indices, the first ``size`` of which form the plan; and for each candidate the
        probability that it is nearest among the candidates not chosen by expected distance (NaN for
        candidates chosen by expected distance). Ties, which are frequent because most candidates
        are never nearest, are ordered by mean distance.

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
    remaining = np.setdiff1d(np.arange(len(expected)), first)
    probability = np.full(len(expected), np.nan)
    if len(remaining):
        probability[remaining] = probability_nearest(draws[:, remaining])
    order = np.lexsort((draws[:, remaining].mean(axis=0), -probability[remaining]))
    return np.append(first, remaining[order]), probability


def nearest_pairs(effects: Array, change: Array, n_best: int) -> Index:
    """Return the ``n_best`` pairs whose summed effects are nearest to a change, nearest first.

    ``effects`` has the shape ``(n_members, n_nodes)``, ``change`` ``(n_nodes,)``, and the result
    ``(n, 2)``.

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
    singles = (effects**2).sum(axis=1) - 2 * effects @ change
    for rows in in_blocks(n, n):
        first, second = np.nonzero(np.arange(n)[rows, None] < np.arange(n))
        score = singles[rows, None] + singles + 2 * effects[rows] @ effects.T
        best = np.append(best, score[first, second])
        pairs = np.vstack([pairs, np.column_stack([first + (rows.start or 0), second])])
        order = np.lexsort((*pairs.T[::-1], best))[:n_best]
        pairs, best = pairs[order], best[order]
    return pairs


def dunnett_controls(total: float, k: int) -> float:
    """Return how many of ``total`` cells should be controls in comparisons of ``k`` perturbations.

    The variance of a difference between the means of ``n`` perturbed cells and ``m`` controls,
    relative to that of a cell, is ``1/n + 1/m``. For a fixed total it is smallest at ``m = sqrt(k)
    n`` (Dunnett 1955, doi:10.2307/2281208).

    Examples
    --------
    >>> from nextpert.core.design.plate import dunnett_controls
    >>> dunnett_controls(1200, 4)
    400.0
    """
    return total * k**0.5 / (k + k**0.5)
