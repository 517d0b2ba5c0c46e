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
RATE_SHARE = 1e-3  # the default rate of a noise variance, over the variance of the cells


class Layout(NamedTuple):
    """Where the ragged blocks of every node lie in the flat arrays (see ``_kernels``)."""

    indices: Pointers  # parents, one node after the other
    vptr: Pointers
    mptr: Pointers
    fixed: int  # columns before the parents, with a flat prior: the intercept, and batches

    @property
    def n_nodes(self) -> int:
        """Number of nodes (genes)."""
        return len(self.vptr) - 1

    @property
    def longest_row(self) -> int:
        """Number of columns of the longest design row."""
        return int(np.diff(self.vptr).max(initial=0))

    @property
    def is_weight(self) -> NDArray[np.bool_]:
        """Which design columns are parents, not fixed, shape ``(vptr[-1],)``."""
        mask = np.ones(self.vptr[-1], dtype=np.bool_)
        mask[self.vptr[:-1, None] + np.arange(self.fixed)] = False
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
    rate: float | None  # a share of the cells' variance where None
    noise_var: Vector | None  # known ones
    intercept_precision: float

    def rates(self, layout: Layout, statistics: Statistics) -> Vector:
        """Return the rate of every node's noise variance, shape ``(n_nodes,)``."""
        if self.rate is None:
            return RATE_SHARE * cell_variance(layout, statistics)
        return np.full(layout.n_nodes, self.rate)


def cell_variance(layout: Layout, statistics: Statistics) -> Vector:
    """Return the variance of every node's cells less their shifts: a number in its units.

    Above 0 throughout: the mean square where the cells do not vary, 1 where there are none.
    """
    cells, square = np.maximum(statistics.cells, 1), statistics.yty
    variance = square.copy()
    if layout.fixed:
        variance -= statistics.xty[layout.vptr[:-1]] ** 2 / cells
    variance = np.where(variance > 1e-12 * square, variance, square) / cells
    return np.where(variance > 0, variance, 1.0)
