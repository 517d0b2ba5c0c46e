"""Compiled moments of sparse cells: only pairs of non-zero values are visited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextpert.core._compile import entry

if TYPE_CHECKING:
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray


@entry
def sparse_scatter(
    data: NDArray[np.float64],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    count: NDArray[np.int64],
    total: NDArray[np.float64],
    scatter: NDArray[np.float64],
    left: NDArray[np.float64],
) -> None:
    """Fill in the sums and scatters of groups of CSR rows, and the share of squares left of them.

    Columns must be sorted in each row, and none given twice. Every sum runs in the order of
    ``rows``, so that its bits do not depend on what else is in the matrix. ``count`` (a group's
    rows), ``total`` and ``scatter`` are zero before. The least share of a square that is left
    tells how many digits the difference of the sum of squares and the square of the mean has lost.
    """
    for r in range(len(rows)):
        group, first, last = groups[r], indptr[rows[r]], indptr[rows[r] + 1]
        count[group] += 1
        for a in range(first, last):
            value, j = data[a], indices[a]
            total[group, j] += value
            for b in range(a, last):
                scatter[group, j, indices[b]] += value * data[b]
    for group in range(len(count)):
        left[group] = 1.0
        for j in range(total.shape[1]):
            mean = total[group, j] / max(count[group], 1)
            square = scatter[group, j, j]
            for k in range(j, total.shape[1]):
                scatter[group, j, k] -= mean * total[group, k]
                scatter[group, k, j] = scatter[group, j, k]
            if square > 0:
                left[group] = min(left[group], scatter[group, j, j] / square)
