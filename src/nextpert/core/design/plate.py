"""Plates: candidates chosen well by well, by a gain or by the probability of being nearest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import require_count
from nextpert.core.design.distances import probability_nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Array = NDArray[np.float64]


def greedy_plate(
    gain: Callable[[list[int]], Vector],
    size: int,
    *,
    allowed: NDArray[np.bool_],
    include: Sequence[int] = (),
    cost: Vector | None = None,
    budget: float = np.inf,
    per_cost: bool = True,
    new: NDArray[np.bool_] | None = None,
    max_new: int | None = None,
) -> list[int]:
    """Choose the candidates of a plate greedily, within what a lab can pay for and make.

    Parameters
    ----------
    gain
        From the candidates chosen before to what each of all candidates would gain besides, shape
        ``(n_candidates,)``. Of equal gains the first candidate is taken.
    size
        Most wells.
    allowed
        Candidates to choose from, shape ``(n_candidates,)``.
    include
        Candidates that are chosen first, in this order.
    cost
        Cost of a well of every candidate, cells included, shape ``(n_candidates,)``.
    budget
        Most to be spent.
    per_cost
        Whether gains are compared per cost; else costs count for the budget alone.
    new, max_new
        Candidates that have to be made first, shape ``(n_candidates,)``, and most of them on the
        plate.

    Returns
    -------
    list of int
        Candidates in the order chosen; fewer than ``size`` where no more fit.

    Raises
    ------
    ValueError
        If the candidates that must be chosen are more than the wells or, those that are new, more
        than ``max_new``, or cost more than the budget.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.plate import greedy_plate
    >>> gain = lambda chosen: np.array([0.1, 0.3, 0.2]) / (1 + len(chosen))
    >>> greedy_plate(gain, 2, allowed=np.ones(3, dtype=bool))
    [1, 2]
    >>> greedy_plate(gain, 2, allowed=np.ones(3, dtype=bool), cost=np.array([1, 9, 2]), budget=3)
    [0, 2]
    """
    price = np.zeros(len(allowed)) if cost is None else np.asarray(cost, dtype=np.float64)
    fresh = np.zeros(len(allowed), dtype=np.bool_) if new is None else new
    size, chosen = require_count(size, "size"), list(include)
    spent = float(price[chosen].sum())
    room = np.inf if max_new is None else max_new - fresh[chosen].sum()
    message = ""
    if len(chosen) > size:
        message = f"{len(chosen)} candidates must be on a plate of {size}: allow more wells."
    elif spent > budget:
        message = f"The candidates that must be on the plate cost {spent:g} of {budget:g}."
    elif room < 0:
        message = f"More candidates that must be on the plate are new than max_new={max_new}."
    if message:
        raise ValueError(message)
    left = allowed.copy()
    left[chosen] = False
    unit = np.where(price > 0, price, 1.0) if per_cost else np.ones(len(price))
    while len(chosen) < size:
        usable = left & (price <= budget - spent) & (~fresh if room < 1 else True)
        if not usable.any():
            break
        best = int(np.where(usable, gain(chosen) / unit, -np.inf).argmax())
        chosen.append(best)
        left[best] = False
        spent += float(price[best])
        room -= fresh[best]
    return chosen


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
    >>> from nextpert.core.design.plate import probable_plate
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
    >>> from nextpert.core.design.plate import best_plate
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
    >>> from nextpert.core.design.plate import best_order
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
