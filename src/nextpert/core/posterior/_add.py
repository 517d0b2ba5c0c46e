"""The cells of one more environment, added in place to statistics and blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.cells.moments import too_large
from nextpert.core.posterior import _kernels as kernels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.cells.moments import Moments
    from nextpert.core.graph.dag import Dag
    from nextpert.core.posterior._parts import Layout, Statistics

    Vector = NDArray[np.float64]

# Of a sum of squares; sums, products and differences of many such stay finite.
_LARGEST = 1e290


def require_squares(n: ArrayLike, means: Vector, scatter: Vector, shifts: Vector) -> None:
    """Raise, by node, where squares of the cells would not be finite numbers.

    Of one environment, or of several, ``n`` then a column.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # 0 cells times infinity
        squares = np.asarray(n, np.float64) * (np.abs(means) + np.abs(shifts)) ** 2
        largest = np.atleast_2d(squares).sum(axis=0)
    bad = ~(np.maximum(largest, np.diag(scatter)) < _LARGEST)
    if bad.any():
        raise too_large(bad)


def add_cells(
    dag: Dag,
    layout: Layout,
    statistics: Statistics,
    moments: Moments,
    shift: Vector,
    skip: NDArray[np.bool_],
) -> None:
    """Add the cells to the statistics of all nodes but those to ``skip``."""
    place = (dag.indptr, dag.indices, layout.vptr, layout.mptr)
    if moments.n == 1:
        kernels.add_cell(*place, moments.mean, shift, skip, *statistics)
    else:
        cells = (moments.n, moments.mean, moments.scatter)
        kernels.add_statistics(*place, *cells, shift, skip, *statistics)


def add_to_blocks(
    dag: Dag,
    layout: Layout,
    blocks: Mapping[str, Vector],
    cell: Vector,
    shift: Vector,
    skip: NDArray[np.bool_],
) -> None:
    """Add a single cell to the blocks of all nodes but those to ``skip``."""
    place = (dag.indptr, dag.indices, layout.vptr, layout.mptr)
    changing = (blocks[name] for name in ("cov", "weights", "residual", "logdet"))
    kernels.rank_one_update(*place, cell, shift, skip, *changing)
