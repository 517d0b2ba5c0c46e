"""Acquisitions averaged over posterior draws: values and gradients by two substitutions, compiled.

Arrays of draws have one column a draw, so that inner loops run along memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextpert.core._checks import as_rng, as_vector, require_count
from nextpert.core._compile import entry
from nextpert.core.causal._kernels import longest_row
from nextpert.core.causal._lookahead import adjoint, node_columns, reach
from nextpert.core.causal.base import Acquisition, project

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from nextpert.core.causal.dag_blr import DagBlr

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


@entry
def improvement(draws: Any, shift: Array, grad: Array) -> float:
    """Mean of ``min(|x - target|^2, best)``; fills its gradient unless ``grad`` is empty."""
    p, s = draws.offset.shape
    x, loss = np.empty((p, s)), np.zeros(s)
    reach(draws, shift, x)
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
        adjoint(draws, x, grad)
    return value


@entry
def information(draws: Any, shift: Array, grad: Array) -> float:
    """Mean of ``sum_i log(w_i' / w_i) / 2``, ``w_i'`` after cells at ``x``; fills its gradient."""
    p, s = draws.offset.shape
    layout = (draws.indptr, draws.indices, draws.vptr, draws.mptr)
    x, gx, most = np.empty((p, s)), np.zeros((p, s)), longest_row(draws.vptr)
    rows, y = np.empty((most, s)), np.empty((most, s))
    d1, d2, slope = np.empty(s), np.empty(s), np.empty(s)
    reach(draws, shift, x)
    value = 0.0
    for i in range(p):
        w = draws.w0[i]
        if w <= 0.0:  # no parents, or none with a place in the target: nothing to learn
            continue
        node_columns(layout, draws.cov, draws.u, i, x, rows, y, d1, d2)
        for j in range(s):
            d2[j] += draws.inv_n
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
        adjoint(draws, gx, grad)
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
        super().__init__(posterior, target_mean, n_cells=n_cells)
        posterior, p, dag = self.posterior, self.n_nodes, self.posterior.dag
        count, generator = require_count(n_samples, "n_samples"), as_rng(rng)
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

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Array]:
        """Return the acquisition and its gradient at one shift, shape ``(n_nodes,)``."""
        grad = np.empty(self.n_nodes)
        vector = as_vector(shift, self.n_nodes, "shift")
        return float(type(self).kernel(self.draws, vector, grad)), grad

    def values(self, shifts: ArrayLike) -> Array:
        """Return the acquisition at every shift of a pool, ``(n_shifts, n_nodes)``."""
        rows = np.ascontiguousarray(self._pool(shifts))
        kernel = type(self).kernel
        return np.array([kernel(self.draws, row, _NO_GRADIENT) for row in rows], dtype=np.float64)
