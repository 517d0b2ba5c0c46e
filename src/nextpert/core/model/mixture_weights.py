"""Weights of a mixture of known densities, by Newton's method."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Pairs of perturbation and gene that the weights of a mixture are learned from at most.
ENOUGH_PAIRS = 100_000
_MAX_NEWTON = 100  # steps; some 20 are needed
_TOLERANCE = 1e-4  # of the logarithm of the density


def best_weights(chance: Array, prior: Array, start: Array) -> Array:
    r"""Return the weights of a mixture that maximise a posterior density, by Newton's method.

    That is :math:`\sum_i \log \sum_k w_k c_{ik} + \sum_k a_k \log w_k`, which is concave. Steps of
    EM are so slow where components are hard to distinguish that they stay near where they start.
    The sum of the weights is 1 at the maximum of that less ``total`` times their sum (Kim et al.
    2020, doi:10.1080/10618600.2019.1689985).

    Parameters
    ----------
    chance
        Densities of every component, ``(n, n_components)``; a factor common to a row is no matter.
    prior, start
        The counts ``a``, above 0, and weights to start from, ``(n_components,)``.
    """
    weights, total = start, len(chance) + prior.sum()

    def value(x: Array) -> float:
        return float(np.log(chance @ x).sum() + prior @ np.log(x) - total * x.sum())

    now = value(weights)
    for _ in range(_MAX_NEWTON):
        part = chance / (chance @ weights)[:, None]
        slope = part.sum(axis=0) + prior / weights - total
        step = np.linalg.solve(part.T @ part + np.diag(prior / weights**2), slope)
        gain, length = float(slope @ step), 1.0
        if gain < _TOLERANCE:
            break
        falling = step < 0
        if falling.any():
            length = min(1.0, 0.99 * float((-weights[falling] / step[falling]).min()))
        while (new := value(weights + length * step)) < now + 0.1 * length * gain:
            length *= 0.5
        weights, now = weights + length * step, new
    return weights / weights.sum()
