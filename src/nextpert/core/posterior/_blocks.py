"""The posterior's blocks, from its statistics and the prior precision of every design column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.posterior import _kernels as kernels
from nextpert.core.posterior._evidence import log_evidence
from nextpert.core.posterior._parts import BLOCKS, cell_variance
from nextpert.core.posterior._prior_scale import learn_precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.posterior._parts import Layout, Prior, Statistics

    Vector = NDArray[np.float64]


def fill_blocks(layout: Layout, statistics: Statistics, prior: Prior) -> dict[str, Vector]:
    """Return the blocks under the prior, whose scale and units are learned where they are to be."""
    noise_var = prior.noise_var
    if not len(layout.indices):  # no arcs, so neither scale nor units matter
        intercepts = np.full(layout.vptr[-1], prior.intercept_precision)
        return solve_blocks(layout, statistics, intercepts)
    if prior.units == "data":
        return solve_blocks(layout, statistics, _column_precision(layout, statistics, prior, None))
    if noise_var is None:
        # Noise variances are not known before the fit: those of a first one, where variances of
        # the cells stand for them. Taken is 1 / E[1 / sigma^2], which is finite for any prior.
        variance = cell_variance(layout, statistics)
        precision = _column_precision(layout, statistics, prior, variance)
        plain = solve_blocks(layout, statistics, precision)
        rate = prior.rates(layout, statistics) + plain["residual"] / 2
        noise_var = rate / (prior.shape + statistics.cells / 2)
    by_noise = solve_blocks(
        layout, statistics, _column_precision(layout, statistics, prior, noise_var)
    )
    if prior.units == "noise":
        return by_noise
    # One unit for all genes, in the middle of theirs, so that the scale's hyperprior means the
    # same for both, in whatever units the data come.
    middle = np.full(layout.n_nodes, np.exp(np.log(noise_var).mean()))
    alike = solve_blocks(layout, statistics, _column_precision(layout, statistics, prior, middle))
    gain = log_evidence(layout, statistics, prior, by_noise)
    gain -= log_evidence(layout, statistics, prior, alike)
    return by_noise if gain.sum() > 0 else alike


def _column_precision(
    layout: Layout, statistics: Statistics, prior: Prior, units: Vector | None
) -> Vector:
    """Return the prior precision of every design column over ``sigma_i^2``, shape ``(width,)``.

    ``lambda_i`` in units of the data, ``lambda_i sigma_k^2`` for parent ``k`` in units of the
    noise: the prior variance of ``B_ik`` is then ``sigma_i^2 / (lambda_i sigma_k^2)``.
    """
    vptr = layout.vptr
    relative = np.ones(vptr[-1])
    if units is not None:
        relative[layout.is_weight] = units[layout.indices]
    scale = (
        learn_precision(layout, statistics, prior, relative)
        if prior.scale == "evidence"
        else np.full(layout.n_nodes, 1.0 / float(prior.scale))
    )
    precision = np.repeat(scale, np.diff(vptr)) * relative
    precision[~layout.is_weight] = prior.intercept_precision
    return precision


def solve_blocks(layout: Layout, statistics: Statistics, precision: Vector) -> dict[str, Vector]:
    """Return the blocks for the prior precision of every design column (equations 2 and 3).

    Raises
    ------
    ValueError
        If the parents of a node are collinear to working precision, or a result overflows.
    """
    vptr, mptr = layout.vptr, layout.mptr
    cov, weights = np.empty(mptr[-1]), np.empty(vptr[-1])
    residual, logdet = np.empty(layout.n_nodes), np.empty(layout.n_nodes)
    sums = (statistics.xtx, statistics.xty, statistics.yty)
    work = np.empty((4, layout.longest_row, layout.longest_row))
    kernels.posterior_blocks(vptr, mptr, precision, *sums, cov, weights, residual, logdet, work)
    failed = np.flatnonzero(~np.isfinite(logdet))
    if len(failed):
        message = (
            f"The parents of nodes {failed[:10].tolist()} are collinear to working precision: "
            "drop duplicated nodes or use a smaller prior_scale."
        )
        raise ValueError(message)
    values = (cov, weights, residual, logdet, precision)
    if not all(np.isfinite(value).all() for value in values):
        message = (
            "The posterior of the weights is not finite: the cells' values differ too much in "
            "size for floating point numbers. Give the genes in comparable units."
        )
        raise ValueError(message)
    return dict(zip(BLOCKS, values, strict=True))
