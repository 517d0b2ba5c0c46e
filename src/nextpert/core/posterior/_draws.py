"""Draws of weights and noise variances from a posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.posterior.dag_blr import DagBlr


def draw_posterior(
    blr: DagBlr, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return flat design weights ``(count, vptr[-1])`` and noise variances ``(count, n_nodes)``."""
    if blr.known_noise_var is None:
        noise_var = blr.rate / rng.standard_gamma(blr.shape, size=(count, blr.n_nodes))
    else:
        noise_var = np.tile(blr.known_noise_var, (count, 1))
    draws = rng.standard_normal((count, int(blr.vptr[-1])))
    blocks, sd = blr.blocks, np.sqrt(noise_var)
    for i in range(blr.n_nodes):
        columns = slice(blr.vptr[i], blr.vptr[i + 1])
        d = columns.stop - columns.start
        if d:
            low = np.linalg.cholesky(blocks["cov"][blr.mptr[i] : blr.mptr[i + 1]].reshape(d, d))
            scaled = (draws[:, columns] @ low.T) * sd[:, i, None]
            draws[:, columns] = blocks["weights"][columns] + scaled
    return draws, noise_var
