"""What a posterior is made of, as plain arrays: its helpers take these, not the posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Pointers = NDArray[np.int64]

# M, m, y'y - m'X'y, log|M| over the prior's, and the prior precision of every design column.
BLOCKS = ("cov", "weights", "residual", "logdet", "precision")


class Layout(NamedTuple):
    """Where the ragged blocks of every node lie in the flat arrays (see ``_kernels``)."""

    indices: Pointers  # parents, one node after the other
    vptr: Pointers
    mptr: Pointers
    intercept: bool

    @property
    def n_nodes(self) -> int:
        """Number of nodes (genes)."""
        return len(self.vptr) - 1

    @property
    def is_weight(self) -> NDArray[np.bool_]:
        """Which design columns are parents, not intercepts, shape ``(vptr[-1],)``."""
        mask = np.ones(self.vptr[-1], dtype=np.bool_)
        if self.intercept:
            mask[self.vptr[:-1]] = False
        return mask


class Statistics(NamedTuple):
    """Sums over the cells seen: ``X'X``, ``X'y``, ``y'y`` and the number of cells of each node."""

    xtx: Vector
    xty: Vector
    yty: Vector
    cells: Vector


class Prior(NamedTuple):
    """What was believed before any cell; the options of ``DagBlr`` by the same names."""

    scale: float | str
    units: str
    pooled: bool
    shape: float
    rate: float
    noise_var: Vector | None  # known ones
    intercept_precision: float
