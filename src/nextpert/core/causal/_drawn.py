"""Acquisitions averaged over posterior draws: values and gradients by two substitutions a draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextpert.core._checks import as_rng, as_vector, require_count
from nextpert.core._compile import entry
from nextpert.core.causal._kernels import longest_row
from nextpert.core.causal._lookahead import add_slope, adjoint, look_ahead, reach
from nextpert.core.causal.base import Acquisition, project

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from nextpert.core.causal.dag_blr import DagBlr

Array = NDArray[np.float64]


class Draws(NamedTuple):
    """The draws, and their posterior; layout of the blocks as in ``_kernels``."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    order: NDArray[np.int64]
    vptr: NDArray[np.int64]
    mptr: NDArray[np.int64]
    weights: Array  # of each draw, flat: (s, vptr[-1])
    offset: Array  # c plus noise of each draw, (s, p)
    target: Array  # (p,)
    best: float  # squared distance to beat (improvement)
    inv_n: float
    cov: Array  # M of each node, flat (information)
    u: Array  # M q of each node, flat (information)
    w0: Array  # q' M q, (p,) (information)


@entry
def improvement(draws: Any, shift: Array, grad: Array) -> float:
    """Mean of ``min(|x - target|^2, best)``; adds its gradient to ``grad``."""
    s, p = draws.offset.shape
    layout = (draws.indptr, draws.indices, draws.vptr, draws.mptr)
    x, value = np.empty(p), 0.0
    for j in range(s):
        reach(layout, draws.order, draws.weights[j], draws.offset[j], shift, x)
        loss = 0.0
        for i in range(p):
            x[i] -= draws.target[i]
            loss += x[i] * x[i]
        value += min(loss, draws.best) / s
        if loss < draws.best:  # the slope by x is 2 (x - target)
            adjoint(layout, draws.order, draws.weights[j], x)
            for i in range(p):
                grad[i] += 2.0 / s * x[i]
    return value


@entry
def information(draws: Any, shift: Array, grad: Array) -> float:
    """Mean of ``sum_i log(w_i' / w_i) / 2``, ``w_i'`` after cells at ``x``; adds its gradient."""
    s, p = draws.offset.shape
    layout = (draws.indptr, draws.indices, draws.vptr, draws.mptr)
    order, cov, u, w0, vptr = draws.order, draws.cov, draws.u, draws.w0, draws.vptr
    most = longest_row(vptr)
    x, gx, row, y = np.empty(p), np.empty(p), np.empty(most), np.empty(most)
    value = 0.0
    for j in range(s):
        reach(layout, order, draws.weights[j], draws.offset[j], shift, x)
        gx[:] = 0.0
        for i in range(p):
            if w0[i] > 0.0:  # else no parents, or none with a place in the target
                k = vptr[i + 1] - vptr[i] - (draws.indptr[i + 1] - draws.indptr[i])
                d1, d2 = look_ahead(layout, k, draws.inv_n, cov, u, i, x, row, y)
                ratio = d1 / d2
                value += np.log1p(-d1 * ratio / w0[i])
                scale = 1.0 / (w0[i] - d1 * ratio) / s
                add_slope(layout, k, i, scale, ratio, y, u[vptr[i] :], gx)
        adjoint(layout, order, draws.weights[j], gx)
        for i in range(p):
            grad[i] += gx[i]
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
        weights, noise_var = posterior.sample(count, generator)
        offset = np.zeros((count, p))
        if posterior.intercept:
            offset = weights[:, posterior.vptr[:-1]]
        if self.noisy:
            sd = np.sqrt(noise_var / self.n_cells)
            offset = offset + sd * generator.standard_normal((count, p))
        u, w = project(posterior, self.target_mean)
        self.draws = Draws(
            dag.indptr, dag.indices, dag.order, posterior.vptr, posterior.mptr,
            weights, np.ascontiguousarray(offset), self.target_mean, float(best),
            1.0 / self.n_cells, posterior.blocks["cov"], u, w,
        )  # fmt: skip

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Array]:
        """Return the acquisition and its gradient at one shift, shape ``(n_nodes,)``."""
        grad = np.zeros(self.n_nodes)
        vector = as_vector(shift, self.n_nodes, "shift")
        return float(type(self).kernel(self.draws, vector, grad)), grad

    def values(self, shifts: ArrayLike) -> Array:
        """Return the acquisition at every shift of a pool, ``(n_shifts, n_nodes)``."""
        return np.array([self.value(row) for row in self._pool(shifts)], dtype=np.float64)
