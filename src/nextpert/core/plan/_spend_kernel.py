"""How many cells a price per cell leaves each candidate of a plate, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nextpert.core._compile import entry

Array = NDArray[np.float64]
Whole = NDArray[np.int64]


@entry
def spend(
    falls: Array, spare: Array, pending: Array, some: Whole, price: float, least: float,
    most: Array, cells: Array, gains: Array,
) -> None:  # fmt: skip
    """Fill the best cells of ``some`` candidates at a price per cell, and gains less their price.

    ``falls`` and ``spare`` are (m, P): the criterion falls by ``falls`` times what the cells tell
    of each node, ``k = n/(1 + n t)``, beyond those under way (``pending``). That is concave in the
    cells, so Newton's steps for its slope come from below. Gains are never too small: what the last
    step may leave is added.
    """
    for a in range(len(some)):
        j = some[a]
        n, most_here = least, max(most[j], least)
        if price <= 0.0:
            n = most_here
        over = 0.0
        for _ in range(200):
            slope, bend = -price, 0.0
            for i in range(falls.shape[1]):
                h = 1.0 / (1.0 + (n + pending[j]) * spare[j, i])
                one = falls[j, i] * h * h
                slope += one
                bend += 2.0 * one * h * spare[j, i]
            over = max(slope, 0.0)
            if n >= most_here or over <= 1e-9 * price:
                break
            n = min(n + over / bend, most_here) if bend > 0.0 else most_here
        gain = over * (most_here - n) - price * n
        for i in range(falls.shape[1]):
            t, under_way = spare[j, i], pending[j]
            gain += falls[j, i] * n / ((1.0 + (n + under_way) * t) * (1.0 + under_way * t))
        cells[a], gains[a] = n, gain
