"""Draws of the prior variance that each shift has, cells seen, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nextpert.core._compile import entry

Array = NDArray[np.float64]


@entry
def draw_components(
    square: Array, n: Array, tau2: Array, weights: Array, own: Array, uniform: Array,
    share: Array, spare: Array,
) -> None:  # fmt: skip
    """Fill share and spare of one prior variance a perturbation and node, drawn by ``uniform``.

    ``square`` is ``E[r^2 / sigma^2]``, all but ``tau2`` and ``weights`` are (n_perturbations, p).
    """
    n_components = len(tau2)
    chance = np.empty(n_components)
    for j in range(square.shape[0]):
        log_weights = np.log(weights[j])
        for i in range(square.shape[1]):
            cells, variance = n[j, i], own[j, i]
            if np.isnan(variance):
                top = -np.inf
                for k in range(n_components):
                    grown = 1.0 + cells * tau2[k]
                    chance[k] = log_weights[k] - 0.5 * np.log(grown)
                    chance[k] -= 0.5 * square[j, i] * cells / grown
                    top = max(top, chance[k])
                total = 0.0
                for k in range(n_components):
                    chance[k] = np.exp(chance[k] - top)
                    total += chance[k]
                left, k = uniform[j, i] * total - chance[0], 0
                while left >= 0.0 and k < n_components - 1:
                    k += 1
                    left -= chance[k]
                variance = tau2[k]
            spare[j, i] = variance / (1.0 + cells * variance)
            share[j, i] = cells * spare[j, i]
