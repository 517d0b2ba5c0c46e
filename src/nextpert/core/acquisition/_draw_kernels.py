"""Criteria averaged over posterior draws, compiled: values and gradients by two substitutions.

Arrays of draws have one column a draw, so that inner loops run along memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextpert.core._compile import entry, inner

Array = NDArray[np.float64]


class Draws(NamedTuple):
    """The draws, and the posterior they come from; layout of the blocks as in ``_blr_kernels``."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    order: NDArray[np.int64]
    vptr: NDArray[np.int64]
    mptr: NDArray[np.int64]
    weights: Array  # of each draw, flat: (vptr[-1], s)
    offset: Array  # c plus noise of each draw, (p, s)
    target: Array  # (p,)
    best: float  # squared distance to beat (improvement)
    inv_n: float
    cov: Array  # M of each node, flat (information)
    u: Array  # M q of each node, flat (information)
    w0: Array  # q' M q, (p,) (information)


@inner
def _reach(draws: Any, shift: Array, x: Array) -> None:
    """Fill ``x`` (p, s): where each draw puts the cells of a shift."""
    for t in range(len(draws.order)):
        i = draws.order[t]
        first = draws.indptr[i]
        degree = draws.indptr[i + 1] - first
        start = draws.vptr[i + 1] - degree
        for j in range(x.shape[1]):
            x[i, j] = draws.offset[i, j] + shift[i]
        for a in range(degree):
            k = draws.indices[first + a]
            for j in range(x.shape[1]):
                x[i, j] += draws.weights[start + a, j] * x[k, j]


@inner
def _adjoint(draws: Any, gx: Array, grad: Array) -> None:
    """Fill ``grad`` (p,) from the gradient ``gx`` (p, s) by ``x``, which is used up."""
    for t in range(len(draws.order) - 1, -1, -1):
        i = draws.order[t]
        first = draws.indptr[i]
        degree = draws.indptr[i + 1] - first
        start = draws.vptr[i + 1] - degree
        total = 0.0
        for j in range(gx.shape[1]):
            total += gx[i, j]
        grad[i] = total
        for a in range(degree):
            k = draws.indices[first + a]
            for j in range(gx.shape[1]):
                gx[k, j] += draws.weights[start + a, j] * gx[i, j]


@entry
def improvement(draws: Any, shift: Array, grad: Array) -> float:
    """Mean of ``min(|x - target|^2, best)``; fills its gradient unless ``grad`` is empty."""
    p, s = draws.offset.shape
    x, loss = np.empty((p, s)), np.zeros(s)
    _reach(draws, shift, x)
    for i in range(p):
        for j in range(s):
            x[i, j] -= draws.target[i]
            loss[j] += x[i, j] * x[i, j]
    value = 0.0
    for j in range(s):
        value += min(loss[j], draws.best) / s
    if len(grad):
        for i in range(p):
            for j in range(s):
                x[i, j] *= 2.0 / s if loss[j] < draws.best else 0.0
        _adjoint(draws, x, grad)
    return value


@inner
def _node(draws: Any, i: int, x: Array, y: Array, d1: Array, d2: Array) -> None:
    """Fill ``y = M x_P`` (d, s), ``d1 = u' x_P`` and ``d2 = 1/n + x_P' M x_P``, each (s,)."""
    first, v, m = draws.indptr[i], draws.vptr[i], draws.mptr[i]
    d, s = draws.vptr[i + 1] - v, x.shape[1]
    k = d - (draws.indptr[i + 1] - first)
    for j in range(s):
        d1[j], d2[j] = 0.0, draws.inv_n
    for a in range(d):
        for j in range(s):
            y[a, j] = draws.cov[m + a * d] if k else 0.0
        for b in range(k, d):
            entry = draws.cov[m + a * d + b]
            other = draws.indices[first + b - k]
            for j in range(s):
                y[a, j] += entry * x[other, j]
        if a < k:
            for j in range(s):
                d1[j] += draws.u[v + a]
                d2[j] += y[a, j]
        else:
            own = draws.indices[first + a - k]
            for j in range(s):
                d1[j] += draws.u[v + a] * x[own, j]
                d2[j] += y[a, j] * x[own, j]


@entry
def information(draws: Any, shift: Array, grad: Array) -> float:
    """Mean of ``sum_i log(w_i' / w_i) / 2``, ``w_i'`` after cells at ``x``; fills its gradient."""
    p, s = draws.offset.shape
    widest = 0
    for i in range(p):
        widest = max(widest, draws.vptr[i + 1] - draws.vptr[i])
    x, gx, y = np.empty((p, s)), np.zeros((p, s)), np.empty((widest, s))
    d1, d2, slope = np.empty(s), np.empty(s), np.empty(s)
    _reach(draws, shift, x)
    value = 0.0
    for i in range(p):
        w = draws.w0[i]
        if w <= 0.0:  # no parents, or none with a place in the target: nothing to learn
            continue
        _node(draws, i, x, y, d1, d2)
        for j in range(s):
            ratio = d1[j] / d2[j]
            value += np.log1p(-d1[j] * ratio / w)
            d1[j] = ratio
            slope[j] = ratio / (w - ratio * ratio * d2[j]) / s
        if not len(grad):
            continue
        first, v = draws.indptr[i], draws.vptr[i]
        k = draws.vptr[i + 1] - v - (draws.indptr[i + 1] - first)
        for a in range(draws.indptr[i + 1] - first):
            own, u = draws.indices[first + a], draws.u[v + k + a]
            for j in range(s):
                gx[own, j] += slope[j] * (d1[j] * y[k + a, j] - u)
    if len(grad):
        _adjoint(draws, gx, grad)
    return value / (2.0 * s)
