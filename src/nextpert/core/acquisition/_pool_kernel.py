"""What every node would have left of ``w`` after the cells of each shift of a pool."""

from __future__ import annotations

import numpy as np

from nextpert.core._compile import entry
from nextpert.core.acquisition._lookahead import _node_strip, _reach_strip


@entry
def w_of_pool(problem, shifts, out):
    """Fill ``w_i`` of every node (p, m) at every shift of ``shifts`` (p, m), by strips."""
    p, m = shifts.shape
    strip = 128
    x = np.empty((p, strip))
    d1, d2, part = np.empty(strip), np.empty(strip), np.empty(strip)
    for begin in range(0, m, strip):
        width = min(strip, m - begin)
        _reach_strip(problem, shifts, begin, width, x)
        for i in range(p):
            _node_strip(problem, i, width, x, d1, d2, part)
            for j in range(width):
                out[i, begin + j] = problem.w0[i] - d1[j] * d1[j] / d2[j]
