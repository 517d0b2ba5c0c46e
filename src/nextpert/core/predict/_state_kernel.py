"""Means reached by perturbations with uncertain shifts, under one draw of the weights, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nextpert.core._compile import lean

Array = NDArray[np.float64]
Whole = NDArray[np.int64]


@lean
def reach_states(
    indptr: Whole, indices: Whole, order: Whole, vptr: Whole, intercept: bool, draw: Array,
    mean: Array, prior: Array, share: Array, rest: Array, x: Array,
) -> None:  # fmt: skip
    """Fill ``x`` (p, m): a substitution along the order with ``a + u`` as the source.

    ``draw`` are the flat design weights, the other arrays are (p, m); ``rest`` is what the draw of
    ``u`` differs by from its mean given these weights, ``share (mean - a - c - B mean)``.
    """
    for t in range(len(order)):
        i = order[t]
        first = indptr[i]
        degree = indptr[i + 1] - first
        start = vptr[i + 1] - degree
        offset = draw[vptr[i]] if intercept else 0.0
        for j in range(x.shape[1]):
            source = prior[i, j] + offset
            x[i, j] = source + share[i, j] * (mean[i, j] - source) + rest[i, j]
        for a in range(degree):
            weight, k = draw[start + a], indices[first + a]
            for j in range(x.shape[1]):
                # cells believed whole (share 1) leave the weights no say in the source
                x[i, j] += weight * (x[k, j] - share[i, j] * mean[k, j])
