"""Draws of weights and noise variances from a posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core import _blr_kernels as kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.dag_blr import DagBlr


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
    kernels.scale_blocks(blr.vptr, blr.mptr, blocks["cov"], draws, sd, blocks["weights"])
    return draws, noise_var
