"""How often resamples take every cell, whatever the order in which cells are read."""

from __future__ import annotations

from math import exp, factorial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# P(weight <= k) of a Poisson weight of mean 1; what lies beyond is below 1e-20.
_POISSON = np.cumsum([exp(-1.0) / factorial(k) for k in range(20)])
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_S11, _S27, _S30, _S31 = (np.uint64(s) for s in (11, 27, 30, 31))


def poisson_weights(seeds: NDArray[np.uint64], cells: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return how often each resample takes each cell, shape ``(n_seeds, n_cells)``.

    Poisson of mean 1. The weight of cell ``k`` comes from number ``k`` of the splitmix64 stream
    of the resample's seed, so that it depends on neither the order nor the blocks of the cells.
    """
    steps = (cells.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    z = seeds[:, None] + steps
    z = (z ^ (z >> _S30)) * _MIX1
    z = (z ^ (z >> _S27)) * _MIX2
    z ^= z >> _S31
    uniform = (z >> _S11) * 2.0**-53
    return np.searchsorted(_POISSON, uniform, side="right").astype(np.uint8)
