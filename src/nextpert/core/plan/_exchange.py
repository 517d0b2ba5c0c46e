"""A quadratic over bounded amounts of a fixed total cost, minimised by exchanges, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nextpert.core._compile import entry

Array = NDArray[np.float64]


@entry
def exchange(
    slopes: Array, curves: Array, cost: Array, low: Array, high: Array, tol: float, most: int
) -> Array:
    """Return the step d that makes ``slopes'd + d'curves d/2`` least, at ``cost'd = 0``.

    ``low <= d <= high``, with 0 between them. Each exchange moves cost from the candidate whose
    cells are worth least to that whose are worth most (Frank-Wolfe, pairwise), as far as is best;
    they end where the two differ by less than ``tol``, or after ``most``.
    """
    n = len(slopes)
    step = np.zeros(n)
    g = slopes.copy()
    for _ in range(most):
        to, away = -1, -1
        for j in range(n):
            rate = g[j] / cost[j]
            if step[j] < high[j] and (to < 0 or rate < g[to] / cost[to]):
                to = j
            if step[j] > low[j] and (away < 0 or rate > g[away] / cost[away]):
                away = j
        if to < 0 or away < 0:
            break
        fall = g[away] / cost[away] - g[to] / cost[to]
        if fall <= tol:
            break
        bend = curves[to, to] / cost[to] ** 2 + curves[away, away] / cost[away] ** 2
        bend -= 2.0 * curves[to, away] / (cost[to] * cost[away])
        room_to = (high[to] - step[to]) * cost[to]
        room_away = (step[away] - low[away]) * cost[away]
        amount = fall / bend if bend > 0.0 else np.inf
        if amount >= min(room_to, room_away):  # onto the bound itself, not a rounding beside it
            amount = min(room_to, room_away)
        up, down = amount / cost[to], amount / cost[away]
        step[to] = high[to] if amount == room_to else step[to] + up
        step[away] = low[away] if amount == room_away else step[away] - down
        for j in range(n):
            g[j] += up * curves[j, to] - down * curves[j, away]
    return step
