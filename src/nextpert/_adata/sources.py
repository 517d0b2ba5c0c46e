"""The panel's columns of a matrix, range of rows by range of rows, and checks that it can be read.

What is in memory at a time is bounded, whatever the size of the matrix. Dask arrays are read as
tasks, on threads or on whatever cluster is at hand.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import h5py  # type: ignore[import-untyped]
import numpy as np
import scipy.sparse as sp

from nextpert.core._compile import entry
from nextpert.core.screen.moments import (
    canonical_csr,
    damaged,
    require_numbers,
    require_shape,
    require_sound,
    require_sound_indices,
    require_sound_pointers,
    tree,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import anndata as ad
    import pandas as pd
    from numpy.typing import NDArray

    from nextpert.core.screen.moments import PairwiseSum

    Index: TypeAlias = NDArray[np.int64]
    Mask: TypeAlias = NDArray[np.bool_]
    Values: TypeAlias = NDArray[np.floating] | sp.csr_array

T = TypeVar("T")

# What is read at once: entries of dense rows, and non-zero entries of sparse ones.
_DENSE_ENTRIES = 2**22
_NONZEROS = 2**19  # the buffers stay in the processor's cache
# Bytes of a compressed chunk that is kept, so as not to unpack it again.
_LARGEST_CHUNK = 2**26
_STRETCH = 4096  # entries looked at before those found are dealt with; they stay in the cache
# Blocks of one graph of tasks: a power of two, so that the whole is one tree all the same. It
# bounds what a scheduler holds, and lets progress show.
_LEAVES = 1024


class Source(Protocol):
    """A matrix, read from front to back."""

    def read(self, first: int, wanted: Mask) -> Values:
        """Return the panel's values of those rows ``first + i`` for which ``wanted[i]``.

        ``first`` never lies before the end of the last call's range. Sparse values are CSR, of
        floats, with sorted columns given once.
        """


def open_source(matrix: Any, columns: Index) -> Source:
    """Return the source of a matrix in memory, or of an h5py or zarr array or sparse group.

    ``columns`` must be ascending. What a damaged matrix holds is checked as it is read.
    """
    form = getattr(matrix, "format", None)
    if sp.issparse(matrix) and form not in ("csr", "csc"):
        matrix, form = sp.csr_array(matrix), "csr"
    if form not in ("csr", "csc"):
        return DenseRows(matrix, columns)
    arrays = arrays_of(matrix)
    n_rows, n_genes = matrix.shape
    require_sound_pointers(arrays, n_rows if form == "csr" else n_genes)
    if form == "csr":
        return CsrRows(arrays, n_genes, columns)
    return CscColumns(arrays, n_rows, columns)


def arrays_of(matrix: Any) -> tuple[Any, Any, Any]:
    """Return data, indices and pointers of a sparse matrix in memory or in a file."""
    # Straight from the group: slices of anndata's sparse dataset parse it again each time.
    group = getattr(matrix, "group", None)
    if group is None:
        return matrix.data, matrix.indices, matrix.indptr
    absent = [part for part in ("data", "indices", "indptr") if part not in group]
    if absent:
        raise damaged(f"no {absent[0]}")
    return group["data"], group["indices"], group["indptr"]


class DenseRows:
    """Rows of a dense matrix in memory, or of an h5py or zarr array."""

    def __init__(self, matrix: Any, columns: Index) -> None:
        self._matrix, self._columns = matrix, columns
        self._step = max(1, _DENSE_ENTRIES // max(matrix.shape[1], 1))

    def read(self, first: int, wanted: Mask) -> Values:
        """Return the panel's values of the wanted rows."""
        values = np.empty((int(wanted.sum()), len(self._columns)))
        done = 0
        for start in range(0, len(wanted), self._step):
            rows = np.flatnonzero(wanted[start : start + self._step])
            if len(rows):
                least, most = first + start + int(rows[0]), first + start + int(rows[-1]) + 1
                block = np.asarray(self._matrix[least:most])
                values[done : done + len(rows)] = block[np.ix_(rows - rows[0], self._columns)]
                done += len(rows)
        return values


class CsrRows:
    """Rows of a CSR matrix in memory, or in an h5py or zarr group."""

    def __init__(self, arrays: tuple[Any, Any, Any], n_genes: int, columns: Index) -> None:
        data, indices, self._indptr = arrays
        self._data, self._indices = Reader(data), Reader(indices)
        self._n_columns = len(columns)
        self._column_of = np.full(n_genes, -1, dtype=np.int32)
        self._column_of[columns] = np.arange(len(columns))

    def read(self, first: int, wanted: Mask) -> Values:
        """Return the panel's values of the wanted rows."""
        values, columns = [np.empty(0)], [np.empty(0, np.int32)]
        counts = np.zeros(len(wanted), dtype=np.int64)
        for start, indptr, data, indices in self._runs(first, wanted):
            here = slice(start, start + len(indptr) - 1)
            to_values, to_columns = np.empty(len(data)), np.empty(len(data), np.int32)
            n = pick_rows(
                _as(data, "f"), _as(indices, "i"), indptr,
                self._column_of, wanted[here], to_values, to_columns, counts[here],
            )  # fmt: skip
            if n < 0:
                raise damaged("column indices out of range")
            values.append(to_values[:n].copy())  # lets go of the rest
            columns.append(to_columns[:n].copy())
        indptr = np.concatenate([[0], np.cumsum(counts[wanted])])
        shape = (len(indptr) - 1, self._n_columns)
        triple = (np.concatenate(values), np.concatenate(columns), indptr)
        return canonical_csr(sp.csr_array(triple, shape=shape))

    def _runs(
        self, first: int, wanted: Mask
    ) -> Iterator[tuple[int, Index, NDArray[Any], NDArray[Any]]]:
        """Yield ``(start, indptr, data, indices)`` of runs of rows that hold some wanted ones."""
        chosen = np.flatnonzero(wanted)
        if len(chosen) == 0:
            return
        begin, end = int(chosen[0]), int(chosen[-1]) + 1
        indptr = np.asarray(self._indptr[first + begin : first + end + 1]).astype(np.int64)
        start = begin
        while start < end:
            at = start - begin
            full = int(np.searchsorted(indptr, indptr[at] + _NONZEROS, side="right")) - 1
            stop = min(max(full, at + 1) + begin, end)
            if wanted[start:stop].any():
                pointers = indptr[at : stop - begin + 1]
                low, high = int(pointers[0]), int(pointers[-1])
                data, indices = self._data.read(low, high), self._indices.read(low, high)
                if len(data) != high - low or len(indices) != high - low:
                    raise damaged("fewer values than its row pointers say")
                yield start, pointers - low, data, indices
            start = stop


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


class CscColumns:
    """Rows of a CSC matrix: every column of the panel is read on, a buffer at a time."""

    def __init__(self, arrays: tuple[Any, Any, Any], n_rows: int, columns: Index) -> None:
        data, indices, indptr = arrays
        ends = np.asarray(indptr[:]).astype(np.int64)
        size = max(_NONZEROS // max(len(columns), 1), 1)
        self._columns = [Column(data, indices, ends[j], ends[j + 1], size, n_rows) for j in columns]

    def read(self, first: int, wanted: Mask) -> Values:
        """Return the panel's values of the wanted rows."""
        data, rows, ends = [np.empty(0)], [np.empty(0, np.int64)], [0]
        for column in self._columns:
            for values, which in column.read_to(first, first + len(wanted)):
                local = np.asarray(which, dtype=np.int64) - first
                keep = wanted[local]
                data.append(np.asarray(values, dtype=np.float64)[keep])
                rows.append(local[keep])
            ends.append(sum(map(len, rows)))
        place = np.cumsum(wanted) - 1
        shape = (int(wanted.sum()), len(self._columns))
        triple = (np.concatenate(data), place[np.concatenate(rows)], np.array(ends))
        return canonical_csr(sp.csc_array(triple, shape=shape))


class Column:
    """One CSC column, read from front to back; in memory its indices may be in any order."""

    def __init__(
        self, data: Any, indices: Any, first: int, stop: int, size: int, n_rows: int
    ) -> None:
        self._arrays = data, indices
        self._at, self._stop, self._size = int(first), int(stop), size
        self._n_rows = n_rows
        self._data, self._rows = np.empty(0), np.empty(0, np.int64)
        self._last = -1  # the last row that was loaded
        if isinstance(indices, np.ndarray):
            self._data, self._rows, self._at = data[first:stop], indices[first:stop], self._stop
            if not _ascend(self._rows):
                order = np.argsort(self._rows, kind="stable")
                self._data, self._rows = self._data[order], self._rows[order]
            self._require_rows()

    def read_to(self, first: int, stop: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield values and rows of the entries from row ``first`` to row ``stop``."""
        while True:
            low, high = np.searchsorted(self._rows, [first, stop])
            if high > low:
                yield self._data[low:high], self._rows[low:high]
            reached = high < len(self._rows) or self._at >= self._stop
            self._data, self._rows = self._data[high:], self._rows[high:]
            if reached:
                return
            end = min(self._at + self._size, self._stop)
            self._data, self._rows = (np.asarray(a[self._at : end]) for a in self._arrays)
            self._at = end
            if self._rows[0] < self._last or not _ascend(self._rows):
                raise damaged("row indices that are not sorted")
            self._require_rows()
            self._last = int(self._rows[-1])

    def _require_rows(self) -> None:
        if len(self._rows) and (self._rows[0] < 0 or self._rows[-1] >= self._n_rows):
            raise damaged("row indices out of range")


def _ascend(rows: NDArray[Any]) -> bool:
    # Not by differences, which unsigned integers wrap.
    return not (rows[1:] < rows[:-1]).any()


class Reader:
    """Slices of a one-dimensional array; those of an HDF5 file go to the same memory each time."""

    def __init__(self, array: Any) -> None:
        self._array, self._buffer = array, np.empty(0, array.dtype)
        self._file = _front_to_back(array) if isinstance(array, h5py.Dataset) else None

    def read(self, first: int, stop: int) -> NDArray[Any]:
        """Return a slice, to be used before the next is read."""
        n = min(stop, self._array.shape[0]) - first
        if self._file is None or n <= 0:
            return np.asarray(self._array[first:stop])
        if n > len(self._buffer):
            self._buffer = np.empty(max(n, _NONZEROS), self._array.dtype)
        part = self._buffer[:n]
        space = self._file.get_space()
        space.select_hyperslab((first,), (n,))
        self._file.read(h5py.h5s.create_simple((n,)), space, part)
        return part


def _front_to_back(dataset: h5py.Dataset) -> Any:
    """Return the dataset opened anew for one read from front to back.

    HDF5 copies every chunk to a cache first, a third of the time of a read where nothing is
    compressed. A compressed chunk that is larger than the cache it would unpack for every slice.
    """
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    chunk = dataset.dtype.itemsize * (dataset.chunks or (0,))[0]
    size = 0 if dataset.compression is None else min(chunk, _LARGEST_CHUNK)
    access.set_chunk_cache(1, size, 1.0)
    return h5py.h5d.open(dataset.file.id, dataset.name.encode(), access)


def _as(array: NDArray[Any], kind: str) -> NDArray[Any]:
    # Two types of each kind are compiled, no more.
    known = ("float32", "float64") if kind == "f" else ("int32", "int64")
    if array.dtype.name in known and array.dtype.isnative:
        return array
    return array.astype(known[1])


def is_lazy(matrix: Any) -> bool:
    """Whether the matrix is a Dask array."""
    return hasattr(matrix, "dask") and hasattr(matrix, "rechunk")


def computed(task: Any) -> Any:
    """Return the result of a task; a file whose parts do not fit is said to be damaged."""
    try:
        return task.compute()
    except (IndexError, KeyError, TypeError) as error:
        what = f"parts that cannot be read together ({error})"
        raise damaged(what, "The matrix read lazily") from error


class LazyBlocks:
    """The panel's columns of a Dask array in blocks of ``n_rows`` rows, whatever its chunks."""

    def __init__(self, matrix: Any, columns: NDArray[np.int64], n_rows: int) -> None:
        self._is_sparse = sp.issparse(matrix._meta)
        panel = _as_dense(_checked(matrix)[:, columns])
        self._blocks = panel.rechunk({0: n_rows, 1: -1}).to_delayed()[:, 0]

    def read(self, block: int, rows: NDArray[np.int64]) -> Values:
        """Return some rows of a block."""
        return _rows(computed(self._blocks[block]), rows, self._is_sparse)

    def fold(
        self,
        tasks: Sequence[tuple[int, NDArray[np.int64], tuple[Any, ...]]],
        part: Callable[..., T],
        add: Callable[[T, T], T],
        total: PairwiseSum[T],
        on_progress: Callable[[int], object],
    ) -> None:
        """Add to ``total`` the ``part(values, *more)`` of every ``(block, rows, more)``.

        Many blocks make one graph of tasks, a tree that ends where ``total`` goes on, so that the
        sum is that of one worker, and workers wait for each other only between such graphs.
        """
        from dask import delayed

        of_rows, joined = delayed(_part, pure=False), delayed(add, pure=False)
        for first in range(0, len(tasks), _LEAVES):
            some = tasks[first : first + _LEAVES]
            leaves = [
                of_rows(part, self._blocks[block], rows, self._is_sparse, *more)
                for block, rows, more in some
            ]
            total.add(computed(tree(leaves, joined)))
            on_progress(sum(len(rows) for _, rows, _ in some))


def lazy_rows(
    matrix: Any, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return a few rows, for which no chunk is read but their own."""
    values: NDArray[np.float64] = computed(_as_dense(_checked(matrix)[rows][:, columns]))
    return values


def _checked(matrix: Any) -> Any:
    # Before columns are taken, by a kernel that a damaged chunk would crash.
    return matrix.map_blocks(_sound, dtype=matrix.dtype, meta=matrix._meta)


def _as_dense(matrix: Any) -> Any:
    return matrix.map_blocks(_dense, dtype=np.float64, meta=np.empty((0, 0)))


def _part(part: Any, block: NDArray[np.float64], rows: Any, is_sparse: bool, *more: Any) -> Any:
    return part(_rows(block, rows, is_sparse), *more)


def _rows(block: NDArray[np.float64], rows: NDArray[np.int64], is_sparse: bool) -> Values:
    # Back to sparse values, so that sums are the same to the bit as from sparse cells in memory.
    return sp.csr_array(block[rows]) if is_sparse else block[rows]


def _sound(chunk: Any) -> Any:
    require_numbers(chunk)
    require_sound(chunk)
    return chunk


def _dense(chunk: Any) -> NDArray[np.float64]:
    dense = chunk.toarray() if sp.issparse(chunk) else np.asarray(chunk)
    return dense.astype(np.float64, copy=False)


_SLOTS = ("layers", "obsm", "varm", "obsp", "varp")


def require_sound_matrices(adata: ad.AnnData) -> None:
    """Raise if a sparse matrix of ``adata`` is damaged; of a view, those it is a view of.

    A subset or a copy of a view goes through all of them by kernels that trust the indices.

    Raises
    ------
    ValueError
        If indices lie out of range, or pointers fall; the matrix is named.
    """
    for name, matrix in _matrices(adata):
        if is_lazy(matrix):
            _require_lazy(matrix, name)
        elif getattr(matrix, "group", None) is not None and hasattr(matrix, "format"):
            shape = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
            arrays = arrays_of(matrix)
            require_sound_pointers(arrays, shape[0], name)
            require_sound_indices(arrays[1], shape[1], name)
        else:
            require_sound(matrix, name)


def real_values(table: pd.DataFrame | pd.Series, name: str) -> NDArray[np.float64]:
    """Return the values of a table or column as floats, NaN where one is missing.

    Raises
    ------
    ValueError
        If it holds complex numbers, whose imaginary part would be lost, or what is no number.
    """
    lost = np.exceptions.ComplexWarning
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", lost)
            return table.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError, lost):
        message = f"{name} must hold real numbers alone, but some of its values do not."
        raise ValueError(message) from None


def _matrices(adata: ad.AnnData) -> Iterator[tuple[str, Any]]:
    whole = adata._adata_ref if adata.is_view and adata._adata_ref is not None else adata
    if whole.X is not None:
        require_shape(whole.X, (whole.n_obs, whole.n_vars), "adata.X")
        yield "adata.X", whole.X
    for slot in _SLOTS:
        for key, matrix in getattr(whole, slot).items():
            if key is not None:  # anndata 0.13 lists X as the layer None
                yield f"adata.{slot}[{key!r}]", matrix
    if whole.raw is not None:
        yield "adata.raw.X", whole.raw.X


def _require_lazy(matrix: Any, name: str) -> None:
    def check(chunk: Any) -> Any:
        require_numbers(chunk, name)
        require_sound(chunk, name)
        return np.zeros((1,) * chunk.ndim, dtype=bool)

    chunks = tuple((1,) * n for n in matrix.numblocks)
    meta = np.empty((0,) * matrix.ndim)
    computed(matrix.map_blocks(check, dtype=bool, chunks=chunks, meta=meta))
