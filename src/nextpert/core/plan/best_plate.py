"""The plate that most probably holds the best candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import require_count
from nextpert.core.predict.ranked_distance import probability_nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def probable_plate(draws: Array, size: int) -> NDArray[np.int64]:
    """Return the candidates that together most probably hold the nearest one.

    Of different candidates at most one is the nearest, so the probability that a plate holds it
    is the sum of theirs, and the plate that makes it largest takes the most probable ones.
    Draws must be joint: what is unknown of all candidates alike then tells none of them apart.

    Parameters
    ----------
    draws
        Squared distances under joint draws, shape ``(n_draws, n_candidates)``.
    size
        Number of candidates; where there are fewer, all.

    Returns
    -------
    ndarray
        Indices, the most probable first. Of equally probable ones (most are the nearest in no
        draw) the one with the least mean distance comes first.

    Raises
    ------
    ValueError
        If ``size`` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.plan.best_plate import probable_plate
    >>> probable_plate(np.array([[1.0, 2.0, 3.0, 9.0], [4.0, 5.0, 3.0, 9.0]]), 3).tolist()
    [0, 2, 1]
    """
    wanted = require_count(size, "size")
    return np.lexsort((draws.mean(axis=0), -probability_nearest(draws)))[:wanted]


def best_plate(expected: Array, draws: Array, size: int) -> NDArray[np.int64]:
    """Return candidates for finding the nearest one: half by expectation, half by probability.

    Half of the wells (rounded up) take the candidates of least expected distance, the others
    those of the rest that are the most probably nearest (:func:`probable_plate`). Under draws a
    candidate whose state is hardly known is the nearest now and then by chance alone, and many
    such together crowd out those that a measured own gene or first cells point to.

    Parameters
    ----------
    expected
        Squared distances of the expected states, shape ``(n_candidates,)``.
    draws
        Squared distances under joint draws, shape ``(n_draws, n_candidates)``.
    size
        Number of candidates; where there are fewer, all.

    Returns
    -------
    ndarray
        Indices, those by expectation first.

    Raises
    ------
    ValueError
        If ``size`` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.plan.best_plate import best_plate
    >>> draws = np.array([[2.0, 3.0, 1.0, 9.0], [2.0, 3.0, 1.0, 9.0], [2.0, 3.0, 9.0, 9.0]])
    >>> best_plate(draws.mean(axis=0), draws, 2).tolist()
    [0, 2]
    """
    return best_order(expected, draws, size)[0][:size]


def best_order(expected: Array, draws: Array, size: int) -> tuple[NDArray[np.int64], Array]:
    """Return all candidates in the order in which a plate takes them, and what ordered them.

    Parameters
    ----------
    expected, draws, size
        As in :func:`best_plate`.

    Returns
    -------
    ndarray, ndarray
        Indices, of which the first ``size`` are :func:`best_plate`; and for every candidate the
        probability of being the nearest of those not chosen by expectation, NaN for those that
        are.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.plan.best_plate import best_order
    >>> draws = np.array([[2.0, 3.0, 1.0, 9.0], [2.0, 3.0, 1.0, 9.0], [2.0, 3.0, 9.0, 9.0]])
    >>> order, probability = best_order(draws.mean(axis=0), draws, 2)
    >>> order.tolist(), probability.round(2).tolist()
    ([0, 2, 1, 3], [nan, 0.33, 0.67, 0.0])
    """
    wanted = require_count(size, "size")
    first = np.argsort(expected, kind="stable")[: -(-wanted // 2)]
    rest = np.setdiff1d(np.arange(len(expected)), first)
    probability = np.full(len(expected), np.nan)
    if not len(rest):
        return first, probability
    probability[rest] = probability_nearest(draws[:, rest])
    return np.append(first, rest[probable_plate(draws[:, rest], len(rest))]), probability
