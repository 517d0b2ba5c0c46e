"""The panel's columns of a matrix, read in ranges of rows, with checks of its structure.

The memory in use is bounded for a matrix of any size. Dask arrays are read as tasks, on threads or
on the current cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert.core._checks import list_names
from nextpert.core.screen.moments import (
    canonical_csr,
    damaged,
    require_numbers,
    require_sound,
    require_sound_arrays,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Index: TypeAlias = NDArray[np.int64]
    Values: TypeAlias = NDArray[np.floating] | sp.csr_array

T = TypeVar("T")

# Maximum numbers read at once: entries of dense rows, and non-zero entries of sparse rows.
_DENSE_ENTRIES = 2**22
_NONZEROS = 2**19
_AT_ONCE = 16  # blocks that Dask computes together, whose sums are in memory


class Source(Protocol):
    """A matrix, read from front to back."""

    def read(self, rows: Index) -> Values:
        """Return the panel's values in ascending rows, in which a row may occur several times.

        The rows never begin before the last row of the previous call. Sparse values are CSR floats
        with sorted columns without repeats.
        """


def open_source(matrix: Any, columns: Index) -> Source:
    """Return the source of a matrix in memory, or of an h5py or zarr array or sparse group.

    ``columns`` must be ascending. Damage to the matrix is detected while it is read.
    """
    form = getattr(matrix, "format", None)
    if sp.issparse(matrix) and form not in ("csr", "csc"):
        matrix = sp.csr_array(matrix)
        form = "csr"
    if form not in ("csr", "csc"):
        return DenseRows(matrix, columns)
    n_rows, n_genes = matrix.shape
    arrays = arrays_of(matrix)
    require_sound_arrays(arrays, (n_rows if form == "csr" else n_genes, None))
    if form == "csc":
        panel = _panel_of_csc(arrays, n_rows, columns)
        arrays = arrays_of(panel)
        n_genes = len(columns)
        columns = np.arange(len(columns))
    return CsrRows(arrays, n_genes, columns)


def arrays_of(matrix: Any) -> tuple[Any, Any, Any]:
    """Return data, indices and pointers of a sparse matrix in memory or in a file."""
    # Arrays of the group itself: each slice of anndata's sparse dataset parses the group again.
    group = getattr(matrix, "group", None)
    if group is None:
        return matrix.data, matrix.indices, matrix.indptr
    absent = [part for part in ("data", "indices", "indptr") if part not in group]
    if absent:
        raise damaged(f"no {absent[0]}")
    return group["data"], group["indices"], group["indptr"]


@dataclass(frozen=True)
class DenseRows:
    """Rows of a dense matrix in memory, or of an h5py or zarr array."""

    matrix: Any
    columns: Index

    def read(self, rows: Index) -> Values:
        """Return the panel's values of some rows."""
        values = np.empty((len(rows), len(self.columns)))
        done = 0
        step = max(1, _DENSE_ENTRIES // max(self.matrix.shape[1], 1))
        while done < len(rows):
            stop = int(np.searchsorted(rows, rows[done] + step))
            some = rows[done:stop]
            block = np.asarray(self.matrix[int(some[0]) : int(some[-1]) + 1])
            values[done:stop] = block[np.ix_(some - some[0], self.columns)]
            done = stop
        return values


class CsrRows:
    """Rows of a CSR matrix in memory, or in an h5py or zarr group."""

    def __init__(self, arrays: tuple[Any, Any, Any], n_genes: int, columns: Index) -> None:
        self._data, self._indices, self._indptr = arrays
        self._n_genes = n_genes
        self._columns = columns

    def read(self, rows: Index) -> Values:
        """Return the panel's values of some rows."""
        blocks = [sp.csr_array((0, len(self._columns))), *self.runs(rows)]
        return canonical_csr(sp.vstack(blocks, format="csr"))

    def runs(self, rows: Index) -> Iterator[sp.csr_array]:
        """Yield the panel's values of ascending rows, in runs of a bounded number of entries.

        Types of values do not change unless SciPy has no product of them; columns may repeat.
        """
        done = 0
        first = int(rows[0])
        indptr = np.asarray(self._indptr[first : int(rows[-1]) + 2]).astype(np.int64)
        local = rows - first
        while done < len(local):
            start = int(local[done])
            full = int(np.searchsorted(indptr, indptr[start] + _NONZEROS, side="right")) - 1
            stop = int(np.searchsorted(local, max(full, start + 1)))
            some = local[done:stop] - start
            pointers = indptr[start : start + int(some[-1]) + 2]
            span = slice(int(pointers[0]), int(pointers[-1]))
            data, indices = np.asarray(self._data[span]), np.asarray(self._indices[span])
            if not len(data) == len(indices) == span.stop - span.start:
                raise damaged("fewer values than its row pointers say")
            if len(indices) and not 0 <= indices.min() <= indices.max() < self._n_genes:
                raise damaged("column indices out of range")  # scipy does not check
            if data.dtype.kind == "f" and data.dtype.itemsize not in (4, 8):
                data = data.astype(np.float64)
            data = data.astype(data.dtype.newbyteorder("="), copy=False)
            pointers = (pointers - pointers[0]).astype(np.int32)
            triple = (data, indices.astype(np.int32, copy=False), pointers)
            block = sp.csr_array(triple, shape=(len(pointers) - 1, self._n_genes))
            yield block[:, self._columns][some]
            done = stop


def rows_and_columns(matrix: Any, rows: Index, columns: Index) -> Any:
    """Return ascending rows, and columns in any order, of a CSR matrix in memory or in a file.

    The entries are those that indexing returns. The memory in use is that of the result and of one
    run of rows; indexing needs all columns of the rows, and in a file twice the result.
    """
    arrays, (n_rows, n_genes) = arrays_of(matrix), matrix.shape
    require_sound_arrays(arrays, (n_rows, None))
    form = type(matrix[:0])  # a matrix or an array of SciPy, also of a file
    n_stored = np.diff(np.asarray(arrays[2]).astype(np.int64))[rows]
    # Room for all columns; what is not written takes no memory, and is given back.
    size = int(n_stored.sum())
    index = np.int32 if size <= np.iinfo(np.int32).max else np.int64
    data, indices = np.empty(0), np.empty(size, index)
    pointers, row = np.zeros(len(rows) + 1, index), 0
    for block in CsrRows(arrays, n_genes, columns).runs(rows):
        if row == 0:
            data = np.empty(size, block.dtype)
        start, stop = pointers[row], pointers[row] + block.nnz
        data[start:stop], indices[start:stop] = block.data, block.indices
        pointers[row : row + block.shape[0] + 1] = start + block.indptr
        row += block.shape[0]
    for values in (data, indices):
        values.resize(pointers[-1], refcheck=False)
    return form((data, indices, pointers), shape=(len(rows), len(columns)))


def _panel_of_csc(arrays: tuple[Any, Any, Any], n_rows: int, columns: Index) -> sp.csr_array:
    """Return the panel of a CSC matrix as CSR; only the columns of the panel are read."""
    data, indices, indptr = arrays
    ends = np.asarray(indptr[:]).astype(np.int64)
    spans = [slice(ends[j], ends[j + 1]) for j in columns]
    rows = np.concatenate([np.empty(0, np.int64), *(np.asarray(indices[span]) for span in spans)])
    if rows.size and not 0 <= rows.min() <= rows.max() < n_rows:
        raise damaged("row indices out of range")
    values = np.concatenate([np.empty(0), *(np.asarray(data[span]) for span in spans)])
    pointers = np.append(0, np.cumsum([span.stop - span.start for span in spans]))
    panel = sp.csc_array((values, rows, pointers), shape=(n_rows, len(columns)))
    return sp.csr_array(panel)


def is_lazy(matrix: Any) -> bool:
    """Whether the matrix is a Dask array."""
    return hasattr(matrix, "dask") and hasattr(matrix, "rechunk")


def computed(task: Any) -> Any:
    """Return the result of a task; an inconsistent file raises an error that it is damaged."""
    try:
        return task.compute()
    except (IndexError, KeyError, TypeError) as error:
        fault = f"parts that cannot be read together ({error})"
        raise damaged(fault, "The matrix read lazily") from error


class LazyBlocks:
    """The panel's columns of a Dask array with any chunks, in blocks of ``n_rows`` rows."""

    def __init__(self, matrix: Any, columns: NDArray[np.int64], n_rows: int) -> None:
        self._is_sparse = sp.issparse(matrix._meta)
        self._n_rows = n_rows
        # Checked before columns are selected, because a damaged chunk would crash the selection.
        checked = matrix.map_blocks(_sound, dtype=matrix.dtype, meta=matrix._meta)
        empty = np.empty((0, 0))
        panel = checked[:, columns].map_blocks(dense, dtype=np.float64, meta=empty)
        self._blocks = panel.rechunk({0: n_rows, 1: -1}).to_delayed()[:, 0]

    def read(self, rows: NDArray[np.int64]) -> Values:
        """Return some rows of one block."""
        block = self._blocks[rows[0] // self._n_rows]
        n = self._n_rows
        return _rows(computed(block), rows % n, self._is_sparse)

    def each(
        self, tasks: Sequence[tuple[Index, tuple[Any, ...]]], part: Callable[..., T]
    ) -> Iterator[tuple[int, T]]:
        """Yield the number of rows and ``part(values, *more)`` for each task, in order.

        A task is ``(rows of a block, more)``. Dask's workers compute several blocks at a time.
        """
        from dask import delayed

        of_rows = delayed(_part, pure=False)
        n = self._n_rows
        for first in range(0, len(tasks), _AT_ONCE):
            some = tasks[first : first + _AT_ONCE]
            leaves = [
                of_rows(part, self._blocks[rows[0] // n], rows % n, self._is_sparse, *more)
                for rows, more in some
            ]
            for (rows, _), sums in zip(some, computed(delayed(list)(leaves)), strict=True):
                yield len(rows), sums


def _part(part: Any, block: NDArray[np.float64], rows: Any, is_sparse: bool, *more: Any) -> Any:
    return part(_rows(block, rows, is_sparse), *more)


def _rows(block: NDArray[np.float64], rows: NDArray[np.int64], is_sparse: bool) -> Values:
    # Made sparse again, so that sums are bitwise identical to those of sparse cells in memory.
    return sp.csr_array(block[rows]) if is_sparse else block[rows]


def _sound(chunk: Any) -> Any:
    require_numbers(chunk)
    require_sound(chunk)
    return chunk


def dense(values: Any) -> NDArray[np.float64]:
    """Return a dense or sparse matrix in memory as a dense array of float64."""
    return np.asarray(values.toarray() if sp.issparse(values) else values, np.float64)


def real_values(
    table: pd.DataFrame | pd.Series, name: str, remedy: str = ""
) -> NDArray[np.float64]:
    """Return the values of a table or column as floats, NaN for missing values.

    ``remedy`` ends the error message.
    """
    frame = table if isinstance(table, pd.DataFrame) else table.to_frame()
    columns = [_real(column) for _, column in frame.items()]
    if bad := [str(key) for key, values in zip(frame, columns, strict=True) if values is None]:
        faulty = f"those of {list_names(bad)}" if table is frame else "some of its values"
        message = f"{name} must contain only real numbers, but {faulty} are not.{remedy}"
        raise ValueError(message)
    values = np.array(columns, np.float64).reshape(frame.shape[::-1]).T
    return values if table is frame else values[:, 0]


def _real(column: pd.Series) -> NDArray[np.float64] | None:
    if column.dtype.kind == "O" and all(isinstance(x, Real) or pd.isna(x) for x in column):
        column = column.astype(object)
    elif column.dtype.kind not in "biuf":  # dates would become nanoseconds
        return None
    try:
        return column.to_numpy(np.float64, na_value=np.nan)
    except OverflowError:
        return None
