"""Draws of the prior variance that each shift has, cells seen, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nextpert.core._compile import lean

Array = NDArray[np.float64]
Single = NDArray[np.float32]


@lean
def fill_chances(
    square: Array, n: Array, tau2: Array, weights: Array, own: Array, below: Single, room: Array
) -> None:
    """Fill the chance of each prior variance and all smaller ones, cells seen (equation 8).

    ``square`` is ``E[r^2 / sigma^2]``; it, ``n`` and ``own`` are (n_perturbations, p), ``below``
    has one row a component more. Where a variance is given in ``own`` nothing is filled. ``room``
    holds two numbers a component, (2, n_components).
    """
    n_components = len(tau2)
    logs, log_weights = room[0], room[1]
    for j in range(square.shape[0]):
        for k in range(n_components):
            log_weights[k] = np.log(weights[j, k])
        for i in range(square.shape[1]):
            if not np.isnan(own[j, i]):
                continue
            cells, top = n[j, i], -np.inf
            for k in range(n_components):
                grown = 1.0 + cells * tau2[k]
                logs[k] = log_weights[k] - 0.5 * np.log(grown)
                logs[k] -= 0.5 * square[j, i] * cells / grown
                top = max(top, logs[k])
            total = 0.0
            for k in range(n_components):
                total += np.exp(logs[k] - top)
                below[j, i, k] = total
            for k in range(n_components):
                below[j, i, k] /= total


@lean
def draw_components(
    below: Single, n: Array, tau2: Array, own: Array, uniform: Array, share: Array, spare: Array
) -> None:
    """Fill share and spare variance of one component a perturbation and node, by ``uniform``."""
    last = len(tau2) - 1
    for j in range(n.shape[0]):
        for i in range(n.shape[1]):
            variance = own[j, i]
            if np.isnan(variance):
                k = 0
                while k < last and uniform[j, i] >= below[j, i, k]:
                    k += 1
                variance = tau2[k]
            spare[j, i] = variance / (1.0 + n[j, i] * variance)
            share[j, i] = n[j, i] * spare[j, i]


@lean
def add_scores(below: Single, own: Array, middle: Array, sums: Array, squares: Array) -> None:
    """Add the score of every shift to the sum of its perturbation, its square to that of its node.

    The score is the mean over the components of ``middle``, by their chances ``below``.
    """
    for j in range(below.shape[0]):
        for i in range(below.shape[1]):
            if not np.isnan(own[j, i]):
                continue
            score, before = 0.0, 0.0
            for k in range(len(middle)):
                score += middle[k] * (below[j, i, k] - before)
                before = below[j, i, k]
            sums[j] += score
            squares[i] += score**2
