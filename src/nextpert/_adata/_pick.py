"""Compiled loop that picks the panel's entries out of sparse rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._compile import entry

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

_STRETCH = 4096  # entries looked at before those found are dealt with; they stay in the cache


@entry
def pick_rows(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[np.int64],
    column_of: NDArray[np.int32],
    wanted: NDArray[np.bool_],
    values: NDArray[np.float64],
    columns: NDArray[np.int32],
    counts: NDArray[np.int64],
) -> int:
    """Copy the panel's entries of the wanted CSR rows; return how many, -1 for bad indices.

    Parameters
    ----------
    data, indices, indptr
        The rows; ``indptr`` starts at 0.
    column_of
        The panel's column of every gene, -1 outside the panel.
    wanted
        Whether to take a row.
    values, columns
        Where entries go, as long as ``data``.
    counts
        Where the number of entries of every row goes, zeros before.
    """
    n_genes = np.uintp(len(column_of))
    member = np.empty(len(column_of), np.int64)
    for j in range(len(column_of)):
        member[j] = column_of[j] >= 0
    found = np.empty(_STRETCH, np.int64)
    row, total = 0, 0
    for start in range(0, len(indices), _STRETCH):
        stop = min(start + _STRETCH, len(indices))
        largest = np.uintp(0)  # a negative index is a large unsigned one
        for k in range(start, stop):
            largest = max(largest, np.uintp(indices[k]))
        if largest >= n_genes:
            return -1
        # Without a branch, which would be foreseen wrongly at every entry of the panel.
        n_found = np.uintp(0)
        for k in range(start, stop):
            found[n_found] = k
            n_found += np.uintp(member[np.uintp(indices[k])])
        for q in range(n_found):
            k = found[q]
            while indptr[row + 1] <= k:
                row += 1
            if wanted[row]:
                values[total] = data[k]
                columns[total] = column_of[indices[k]]
                counts[row] += 1
                total += 1
    return total
