"""What the noise variances' posterior says: the terms of the gap's variance, the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from nextpert.core.posterior._parts import Layout, Prior, Statistics

    Vector = NDArray[np.float64]


def gap_terms(alpha: Vector, beta: Vector) -> tuple[Vector, Vector]:
    """Return ``e`` and ``kappa`` of equation 14 for noise variances ``IG(alpha, beta)``.

    Raises
    ------
    ValueError
        If ``alpha <= 2``: the variance of the gap is infinite.
    """
    if (alpha <= 2).any():
        message = (
            "The variance of the optimality gap is infinite while the noise variances have "
            "shape <= 2: update with control cells first, or raise prior_shape above 2."
        )
        raise ValueError(message)
    kappa = beta**2 * (2 * alpha - 1) / ((alpha - 1) ** 2 * (alpha - 2))
    return beta / (alpha - 1), kappa


def log_evidence(
    layout: Layout, statistics: Statistics, prior: Prior, blocks: Mapping[str, Vector]
) -> Vector:
    """Return the log evidence of every node, shape ``(n_nodes,)``.

    Raises
    ------
    ValueError
        If the prior of the noise variances is improper.
    """
    cells, residual = statistics.cells, blocks["residual"]
    constant = -0.5 * cells * np.log(2 * np.pi) + 0.5 * blocks["logdet"]
    if prior.noise_var is not None:
        return constant - 0.5 * cells * np.log(prior.noise_var) - 0.5 * residual / prior.noise_var
    if prior.rate == 0:
        message = "prior_rate=0 is improper: the evidence is undefined."
        raise ValueError(message)
    before_rate = prior.rates(layout, statistics)
    shape, rate = prior.shape + cells / 2, before_rate + residual / 2
    before = prior.shape * np.log(before_rate) - gammaln(prior.shape)
    after = -shape * np.log(rate) + gammaln(shape)
    return constant + before + after
