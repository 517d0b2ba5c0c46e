"""What cells of candidates without cells and effects take from CIV, compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextpert.core._compile import entry, inner

Array = NDArray[np.float64]
Whole = NDArray[np.int64]


class Pool(NamedTuple):
    """The candidates on one graph; flat blocks as in the posterior's kernels."""

    indptr: Whole
    indices: Whole
    vptr: Whole
    mptr: Whole
    state: Array  # expected, (p, m)
    spare: Array  # variance of the shifts over the noise's, (p, m)
    square: Array  # squared expected term of the gap, (p, m)
    weight: Array  # in the average, (m,)
    e: Array  # (p,)
    kappa: Array  # (p,)
    inv_n: float


@inner
def _quadratics(
    pool: Pool,
    i: int,
    cov: Array,
    middle: Array,
    tells: Array,
    width: Array,
    taken: Array,
    cross: Array,
) -> None:
    """Fill ``v'Mv``, ``v'MCMv`` and ``q'Mv`` of each candidate with ``v = (1, state)``."""
    first, start, place = pool.indptr[i], pool.mptr[i], pool.vptr[i]
    d = pool.vptr[i + 1] - place
    k = d - (pool.indptr[i + 1] - first)
    m = len(width)
    for j in range(m):
        width[j], taken[j], cross[j] = 0.0, 0.0, 0.0
    rows = np.empty((d, m))
    for a in range(d):
        for j in range(m):
            if a < k:  # the intercept, and fixed columns
                rows[a, j] = 1.0 if a == 0 else 0.0
            else:
                rows[a, j] = pool.state[pool.indices[first + a - k], j]
        for j in range(m):
            cross[j] += tells[place + a] * rows[a, j]
        for b in range(a + 1):
            twice = 1.0 if a == b else 2.0
            one, two = twice * cov[start + a * d + b], twice * middle[start + a * d + b]
            for j in range(m):
                product = rows[a, j] * rows[b, j]
                width[j] += one * product
                taken[j] += two * product


@inner
def _fall(pool: Pool, i: int, j: int, q: float, taken: float, cross: float) -> float:
    """Return what node i's part falls by per cell, at the first cell of candidate j."""
    t = pool.spare[i, j]
    pull = 2.0 * pool.kappa[i] * (q + t + pool.inv_n) + 4.0 * pool.e[i] * pool.square[i, j]
    return taken + pool.weight[j] * pull * t * (2.0 * cross + t)


@entry
def promise(
    pool: Pool, cov: Array, middle: Array, tells: Array, others: float, inv_cells: float, out: Array
) -> None:
    """Add what the criterion falls by, to ``out`` (m,), with the sign of a fall.

    That is after ``1 / inv_cells`` cells of each candidate, all but what those taken one by one add
    in the fourth power, which is never negative: a lower bound. ``cov`` is M of each node,
    ``middle`` M C M with the sum C of pulls, ``tells`` M q, and after them q'Mq of each node;
    ``others`` is the weight of all those without cells and effects.
    """
    m = len(pool.weight)
    taken, width, cross = np.empty(m), np.empty(m), np.empty(m)
    for i in range(len(pool.vptr) - 1):
        _quadratics(pool, i, cov, middle, tells, width, taken, cross)
        kappa, q = pool.kappa[i], tells[pool.vptr[-1] + i]
        for j in range(m):
            t, k, weight = pool.spare[i, j], cross[j], pool.weight[j]
            fall = _fall(pool, i, j, q, taken[j], k)
            d2 = inv_cells + width[j] + t
            both = (k + t) * (k + t)
            fourth = others * k**4 + weight * (both * both - k**4)
            out[j] += kappa * fourth / (d2 * d2) - fall / d2


@entry
def first_falls(pool: Pool, cov: Array, middle: Array, tells: Array, out: Array) -> None:
    """Fill ``out`` (p, m) with what a node's part falls by per cell, at a candidate's first one."""
    m = len(pool.weight)
    taken, width, cross = np.empty(m), np.empty(m), np.empty(m)
    for i in range(len(pool.vptr) - 1):
        _quadratics(pool, i, cov, middle, tells, width, taken, cross)
        q = tells[pool.vptr[-1] + i]
        for j in range(m):
            out[i, j] = _fall(pool, i, j, q, taken[j], cross[j])
