"""Acquisitions averaged over posterior draws: values and gradients by two substitutions a draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nextpert.core._checks import as_rng, as_vector, require_count
from nextpert.core.causal._lookahead import adjoint_by_draws, reach_by_draws
from nextpert.core.causal.base import Acquisition

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from nextpert.core.causal.dag_blr import DagBlr

Array = NDArray[np.float64]


class DrawnAcquisition(Acquisition):
    """A mean over draws of the weights, the same for every shift: a smooth, repeatable function.

    Draws are ``B_iP | sigma_i^2 ~ N(m, sigma_i^2 M)``; with ``noisy`` each comes with the noise of
    the mean of ``n_cells`` cells.
    """

    noisy = False

    def __init__(
        self,
        posterior: DagBlr,
        target_mean: ArrayLike,
        *,
        n_cells: float = 1,
        n_samples: int,
        rng: int | np.random.Generator | None,
    ) -> None:
        super().__init__(posterior, target_mean, n_cells=n_cells)
        posterior, p = self.posterior, self.n_nodes
        count, generator = require_count(n_samples, "n_samples"), as_rng(rng)
        weights, noise_var = posterior.sample(count, generator)
        # One column a draw: weights (vptr[-1], n_samples), and c plus noise, (p, n_samples).
        weights = np.ascontiguousarray(weights.T)
        self.offset = weights[posterior.vptr[:-1]] if posterior.intercept else np.zeros((p, count))
        if self.noisy:
            sd = np.sqrt(noise_var / self.n_cells)
            self.offset = self.offset + (sd * generator.standard_normal((count, p))).T
        self._draws = (posterior.place, posterior.dag.order, weights)

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Array]:
        """Return the acquisition and its gradient at one shift, shape ``(n_nodes,)``."""
        vector = as_vector(shift, self.n_nodes, "shift")
        # (I - B)^-1 (c + a + noise) for every draw, and the slopes back through (I - B)^-1'.
        x = np.ascontiguousarray(self.offset + vector[:, None])
        reach_by_draws(*self._draws, x)
        value, slopes = self.at_means(x)
        adjoint_by_draws(*self._draws, slopes)
        return value, slopes.sum(axis=1)

    def at_means(self, x: Array) -> tuple[float, Array]:
        """Return the acquisition if the draws reach ``x``, ``(n_nodes, n_samples)``, and slopes."""
        raise NotImplementedError

    def values(self, shifts: ArrayLike) -> Array:
        """Return the acquisition at every shift of a pool, ``(n_shifts, n_nodes)``."""
        return np.array([self.value(row) for row in self._pool(shifts)], dtype=np.float64)
