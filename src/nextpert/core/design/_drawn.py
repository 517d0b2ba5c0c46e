"""Acquisitions averaged over posterior draws: values and gradients by two substitutions, compiled.

Arrays of draws have one column a draw, so that inner loops run along memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextpert.core._checks import as_rng, as_vector, require_count, require_positive
from nextpert.core._compile import entry, inner
from nextpert.core.design.base import Acquisition, project

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from nextpert.core.model.dag_blr import DagBlr

Array = NDArray[np.float64]
_NO_GRADIENT = np.empty(0)


class Draws(NamedTuple):
    """The draws, and their posterior; layout of the blocks as in ``posterior._kernels``."""

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


class DrawnAcquisition(Acquisition):
    """A mean over draws of the weights, the same for every shift: a smooth, repeatable function.

    Draws are ``B_iP | sigma_i^2 ~ N(m, sigma_i^2 M)``; with ``noisy`` each comes with the noise of
    the mean of ``n_cells`` cells.
    """

    kernel: Callable[[Any, Array, Array], float]
    noisy = False

    def __init__(
        self,
        posterior: DagBlr,
        target_mean: ArrayLike,
        *,
        n_cells: float,
        best: float,
        n_samples: int,
        rng: int | np.random.Generator | None,
    ) -> None:
        posterior = posterior.without_fixed()
        p, dag = posterior.n_nodes, posterior.dag
        count, generator = require_count(n_samples, "n_samples"), as_rng(rng)
        self.posterior, self.n_nodes = posterior, p
        self.target_mean = as_vector(target_mean, p, "target_mean")
        self.n_cells = require_positive(n_cells, "n_cells")
        self.ideal_shift = posterior.ideal_shift(self.target_mean)
        drawn, noise_var = posterior.sample(count, generator)
        weights = np.ascontiguousarray(drawn.T)
        offset = weights[posterior.vptr[:-1]] if posterior.intercept else np.zeros((p, count))
        if self.noisy:
            sd = np.sqrt(noise_var / self.n_cells)
            offset = offset + (sd * generator.standard_normal((count, p))).T
        u, w = project(posterior, self.target_mean)
        self.draws = Draws(
            dag.indptr, dag.indices, dag.order, posterior.vptr, posterior.mptr,
            weights, np.ascontiguousarray(offset), self.target_mean, float(best),
            1.0 / self.n_cells, posterior.blocks["cov"], u, w,
        )  # fmt: skip

    def starts(self) -> list[Array]:
        """Return the current estimate of the ideal shift."""
        return [self.ideal_shift]

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Array]:
        """Return the criterion and its gradient at one shift, shape ``(n_nodes,)``."""
        grad = np.empty(self.n_nodes)
        vector = as_vector(shift, self.n_nodes, "shift")
        return float(type(self).kernel(self.draws, vector, grad)), grad

    def values(self, shifts: ArrayLike) -> Array:
        """Return the criterion at every shift of a pool, ``(n_shifts, n_nodes)``."""
        rows = np.ascontiguousarray(self._pool(shifts))
        kernel = type(self).kernel
        return np.array([kernel(self.draws, row, _NO_GRADIENT) for row in rows], dtype=np.float64)
