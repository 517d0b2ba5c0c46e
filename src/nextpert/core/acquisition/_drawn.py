"""What the criteria share that average over posterior draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core._checks import as_rng, as_vector, require_count, require_positive
from nextpert.core.acquisition import _draw_kernels as kernels
from nextpert.core.acquisition._lookahead import project_target
from nextpert.core.acquisition.base import Acquisition

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.posterior.dag_blr import DagBlr

    Vector = NDArray[np.float64]

_NO_GRADIENT = np.empty(0)


class DrawnAcquisition(Acquisition):
    """A mean over draws of the weights, the same for every shift: a smooth, repeatable function.

    Draws are ``B_iP | sigma_i^2 ~ N(m, sigma_i^2 M)``; with ``noisy`` each comes with the noise of
    the mean of ``n_cells`` cells.
    """

    kernel: Callable[[Any, Vector, Vector], float]
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
        cov, u, w = posterior.blocks["cov"], np.empty(posterior.vptr[-1]), np.empty(p)
        layout = (posterior.vptr, posterior.mptr, dag.indptr, dag.indices)
        project_target(*layout, int(posterior.intercept), cov, self.target_mean, u, w)
        self.draws = kernels.Draws(
            dag.indptr, dag.indices, dag.order, posterior.vptr, posterior.mptr,
            weights, np.ascontiguousarray(offset), self.target_mean, float(best),
            1.0 / self.n_cells, cov, u, w,
        )  # fmt: skip

    def starts(self) -> list[Vector]:
        """Return the current estimate of the ideal shift."""
        return [self.ideal_shift]

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Vector]:
        """Return the criterion and its gradient at one shift, shape ``(n_nodes,)``."""
        grad = np.empty(self.n_nodes)
        vector = as_vector(shift, self.n_nodes, "shift")
        return float(type(self).kernel(self.draws, vector, grad)), grad

    def values(self, shifts: ArrayLike) -> Vector:
        """Return the criterion at every shift of a pool, ``(n_shifts, n_nodes)``."""
        rows = np.ascontiguousarray(self._pool(shifts))
        kernel = type(self).kernel
        return np.array([kernel(self.draws, row, _NO_GRADIENT) for row in rows], dtype=np.float64)
