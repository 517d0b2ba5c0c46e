"""The posterior's blocks, from its statistics and the prior precision of every design column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.posterior import _kernels as kernels
from nextpert.core.posterior import _storage as storage
from nextpert.core.posterior._prior_scale import learn_precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.posterior.dag_blr import DagBlr

    Vector = NDArray[np.float64]


def fill_blocks(blr: DagBlr) -> dict[str, Vector]:
    """Return the blocks under the prior the posterior asks for, learned where it is to be."""
    noise_var = blr.known_noise_var
    if noise_var is None or blr.prior_units == "data":
        plain = solve_blocks(blr, _column_precision(blr, None))
        if blr.prior_units == "data":
            return plain
        # Noise variances are not known before the fit: those of a first one, in units of the
        # data. Taken is 1 / E[1 / sigma^2], which is finite for any prior.
        noise_var = (blr.prior_rate + plain["residual"] / 2) / blr.shape
    return solve_blocks(blr, _column_precision(blr, noise_var))


def _column_precision(blr: DagBlr, units: Vector | None) -> Vector:
    """Return the prior precision of every design column over ``sigma_i^2``, shape ``(width,)``.

    ``lambda_i`` in units of the data, ``lambda_i sigma_k^2`` for parent ``k`` in units of the
    noise: the prior variance of ``B_ik`` is then ``sigma_i^2 / (lambda_i sigma_k^2)``.
    """
    relative = np.ones(blr.vptr[-1])
    if units is not None:
        relative[blr.is_weight] = units[blr.dag.indices]
    scale = (
        learn_precision(blr, relative)
        if blr.prior_scale == "evidence"
        else np.full(blr.n_nodes, 1.0 / float(blr.prior_scale))
    )
    precision = np.repeat(scale, np.diff(blr.vptr)) * relative
    if blr.intercept:
        precision[blr.vptr[:-1]] = blr.intercept_precision
    return precision


def solve_blocks(blr: DagBlr, precision: Vector) -> dict[str, Vector]:
    """Return the blocks for the prior precision of every design column (Lemma 1).

    Raises
    ------
    ValueError
        If the parents of a node are collinear to working precision.
    """
    cov, weights = np.empty(blr.mptr[-1]), np.empty(blr.vptr[-1])
    residual, logdet = np.empty(blr.n_nodes), np.empty(blr.n_nodes)
    kernels.posterior_blocks(
        blr.vptr, blr.mptr, precision, blr.xtx, blr.xty, blr.yty, cov, weights, residual, logdet
    )
    failed = np.flatnonzero(np.isnan(logdet))
    if len(failed):
        message = (
            f"The parents of nodes {failed[:10].tolist()} are collinear to working precision: "
            "drop duplicated nodes or use a smaller prior_scale."
        )
        raise ValueError(message)
    values = (cov, weights, residual, logdet, precision)
    return dict(zip(storage.BLOCKS, values, strict=True))
