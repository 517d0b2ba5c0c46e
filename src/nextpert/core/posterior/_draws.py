"""Draws of noise variances and weights from a posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.posterior._parts import Layout


def draw_noise_var(
    shape: NDArray[np.float64],
    rate: NDArray[np.float64],
    known: NDArray[np.float64] | None,
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return noise variances ``(count, n_nodes)``: inverse gamma, or the known ones."""
    if known is not None:
        return np.tile(known, (count, 1))
    return rate / rng.standard_gamma(shape, size=(count, len(shape)))


def draw_weights(
    layout: Layout,
    cov: NDArray[np.float64],
    weights: NDArray[np.float64],
    noise_var: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Return flat design weights ``(count, vptr[-1])``, given noise variances of every draw."""
    draws, sd = rng.standard_normal((len(noise_var), int(layout.vptr[-1]))), np.sqrt(noise_var)
    for i in range(layout.n_nodes):
        columns = slice(layout.vptr[i], layout.vptr[i + 1])
        d = columns.stop - columns.start
        if d:
            block = cov[layout.mptr[i] : layout.mptr[i + 1]].reshape(d, d)
            scaled = (draws[:, columns] @ np.linalg.cholesky(block).T) * sd[:, i, None]
            draws[:, columns] = weights[columns] + scaled
    return draws
