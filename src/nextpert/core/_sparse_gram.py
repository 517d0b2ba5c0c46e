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
    total: NDArray[np.float64],
    scatter: NDArray[np.float64],
) -> float:
    """Fill in sums and scatter of some CSR rows; return the least share of a square that is left.

    Columns must be sorted in each row, and none given twice. Every sum runs in the order of
    ``rows``, so that its bits do not depend on what else is in the matrix. ``total`` and
    ``scatter`` are zero before. The share tells how many digits the difference of the sum of
    squares and the square of the mean has lost.
    """
    p = len(total)
    for row in rows:
        first, last = indptr[row], indptr[row + 1]
        for a in range(first, last):
            value, j = data[a], indices[a]
            total[j] += value
            for b in range(a, last):
                scatter[j, indices[b]] += value * data[b]
    least = 1.0
    for j in range(p):
        mean = total[j] / len(rows)
        square = scatter[j, j]
        for k in range(j, p):
            scatter[j, k] -= mean * total[k]
            scatter[k, j] = scatter[j, k]
        if square > 0:
            least = min(least, scatter[j, j] / square)
    return least
