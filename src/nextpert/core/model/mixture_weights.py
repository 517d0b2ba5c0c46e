"""Weights of the components of a mixture: the most probable ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_MAX_NEWTON = 100  # maximum number of steps; about 20 are needed
_TOLERANCE = 1e-4  # expected gain in log density at which steps stop


def best_weights(chance: Array, prior: Array, start: Array) -> Array:
    r"""Return the weights of a mixture that maximise a posterior density, by Newton's method.

    The log density is :math:`\sum_i \log \sum_k w_k c_{ik} + \sum_k a_k \log w_k`, which is
    concave; ``chance`` are the densities ``c``, and ``prior`` the counts ``a``. EM would converge
    slowly if components are hard to distinguish. The number of observations and counts, times the
    sum of the weights, is subtracted, which makes this sum 1 at the maximum (Kim et al. 2020,
    doi:10.1080/10618600.2019.1689985).
    """
    weights, total = start, len(chance) + prior.sum()

    def value(x: Array) -> float:
        return float(np.log(chance @ x).sum() + prior @ np.log(x) - total * x.sum())

    current = value(weights)
    for _ in range(_MAX_NEWTON):
        # Gradient and negative Hessian of the log density; weights must stay above 0.
        part = chance / (chance @ weights)[:, None]
        slope = part.sum(axis=0) + prior / weights - total
        step = np.linalg.solve(part.T @ part + np.diag(prior / weights**2), slope)
        gain, length = float(slope @ step), 1.0
        if gain < _TOLERANCE:
            break
        falling = step < 0
        if falling.any():
            length = min(1.0, 0.99 * float((-weights[falling] / step[falling]).min()))
        while (new := value(weights + length * step)) < current + 0.1 * length * gain:
            length *= 0.5
        weights, current = weights + length * step, new
    return weights / weights.sum()
