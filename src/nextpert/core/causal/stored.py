"""The stored form of a posterior, and the checks when it is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._codec import array, flag, text
from nextpert.core.graph.dag import Dag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


@dataclass(frozen=True)
class StoredPosterior:
    """Graph, sums, blocks and options of a posterior.

    Parameters
    ----------
    indptr
        Offsets of the parents of each node in ``indices``.
    indices
        Parents of all nodes, node by node.
    xtx
        Products of the design columns (intercept, then parents), one square block per node.
    xty
        Products of the design columns with the node minus its shifts.
    yty
        Sum of squares of the node minus its shifts.
    cells
        Number of cells that count for each node.
    cov
        Posterior covariance of the weights over the noise variance, one square block per node.
    weights
        Posterior mean of intercept and weights, node by node.
    residual
        Sum of squares of each node that the regression does not explain (equation 3).
    logdet
        Log determinant of the posterior covariance minus that of the prior covariance.
    precision
        Prior precision of each design column.
    noise_known
        Whether noise variances are known.
    intercept
        Whether nodes have an intercept.
    n_fixed
        Number of additional columns with a nearly flat prior, such as batches.
    prior_scale
        Scale of the prior of the weights.
    prior_units
        Units of this scale.
    prior_shape
        Shape of the prior of the noise variances.
    prior_rate
        Rate of the prior of the noise variances; ``"cells"`` for a fraction of the cells' variance.
    known_noise_var
        Known noise variances.
    """

    stored_beside = (("format", 3),)

    indptr: NDArray[np.int64] = array("n_nodes+1", dtype=np.int64)
    indices: NDArray[np.int64] = array("n_edges", dtype=np.int64)
    xtx: Vector = array("n_squares")
    xty: Vector = array("n_columns")
    yty: Vector = array("n_nodes")
    cells: Vector = array("n_nodes")
    cov: Vector = array("n_squares")
    weights: Vector = array("n_columns")
    residual: Vector = array("n_nodes")
    logdet: Vector = array("n_nodes")
    precision: Vector = array("n_columns")
    noise_known: bool = flag()
    intercept: bool = flag()
    n_fixed: int = array(dtype=np.int64)
    prior_scale: float | str = array(unless="evidence")
    prior_units: str = text()
    prior_shape: float = array()
    prior_rate: float | str = array(unless="cells")
    known_noise_var: Vector | None = array("n_nodes", optional=True)
    dag: Dag = field(init=False)

    def __post_init__(self) -> None:
        if self.noise_known != (self.known_noise_var is not None):
            message = "noise_known and known_noise_var do not agree"
            raise ValueError(message)
        object.__setattr__(self, "dag", Dag(self.indptr, self.indices))
        # Node i has d_i columns: vectors have sum d_i numbers, matrices sum d_i^2.
        width = self.dag.in_degree + self.intercept + self.n_fixed
        if (width.sum(), (width**2).sum()) != (len(self.xty), len(self.xtx)):
            message = "its statistics do not match its graph"
            raise ValueError(message)
        # Check that every block is a covariance, for all nodes of one width at a time.
        starts = np.concatenate([[0], np.cumsum(width**2)])[:-1]
        for d in np.unique(width[width > 0]).tolist():
            blocks = self.cov[starts[width == d][:, None] + np.arange(d * d)].reshape(-1, d, d)
            spread = np.sqrt(np.abs(np.einsum("naa->na", blocks)))
            size = spread[:, :, None] * spread[:, None, :]
            if (np.abs(blocks - blocks.transpose(0, 2, 1)) > 1e-6 * size).any():
                message = "cov is not symmetric"
                raise ValueError(message)
            try:
                np.linalg.cholesky(blocks)
            except np.linalg.LinAlgError:
                message = "cov is not positive definite"
                raise ValueError(message) from None
