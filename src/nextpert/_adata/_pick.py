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
    member = np.empty(len(column_of), np.uint8)
    for j in range(len(column_of)):
        member[j] = column_of[j] >= 0
    found = np.empty(_STRETCH, np.int32)
    row, total = 0, 0
    for start in range(0, len(indices), _STRETCH):
        stretch = indices[start : start + _STRETCH]
        least, largest = stretch[0], stretch[0]  # of the type of the indices, for wide registers
        for k in range(len(stretch)):
            least, largest = min(least, stretch[k]), max(largest, stretch[k])
        if least < 0 or largest >= len(column_of):
            return -1
        # Without a branch, which would be foreseen wrongly at every entry of the panel.
        n_found = np.uintp(0)
        for k in range(len(stretch)):
            found[n_found] = k
            n_found += np.uintp(member[np.uintp(stretch[k])])
        for q in range(n_found):
            k = start + found[q]
            while indptr[row + 1] <= k:
                row += 1
            if wanted[row]:
                values[total] = data[k]
                columns[total] = column_of[indices[k]]
                counts[row] += 1
                total += 1
    return total
