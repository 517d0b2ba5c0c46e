"""Turn entries that come gene by gene into rows of cells, in memory or in an h5ad file.

Entries are collected up to a few million, sorted by cell, and put aside in fragments: one for
every group of consecutive cells. The rows of a group are then joined from its fragments, one
group after the other, and the fragments released. So no more is held than the result and a
small part of it, or, by way of a file, the small part alone.
"""

from __future__ import annotations

import glob
import mmap
import os
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._files import writing_to

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray


_CHUNK = 1 << 18  # entries


@contextmanager
def part_file(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` that takes its place at the end, or vanishes after an error.

    What a killed process left there is removed: the name tells whose it is.
    """
    beginning = f".{target.name}.{socket.gethostname()}-"
    for left in target.parent.glob(f"{glob.escape(beginning)}*.part"):
        if not _is_running(left.name.removeprefix(beginning).removesuffix(".part")):
            left.unlink(missing_ok=True)
    part = target.with_name(f"{beginning}{os.getpid()}.part")
    try:
        with writing_to(target):
            yield part
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _is_running(pid: str) -> bool:
    if not pid.isdecimal() or os.name == "nt":  # there, a signal 0 would interrupt
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_rows(path: Path, skeleton: AnnData, store: RowStore, *, is_sorted: bool) -> None:
    """Write annotation and rows to an h5ad file: values to ``X``, counts to ``layers``."""
    import h5py  # type: ignore[import-untyped]

    skeleton.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        groups = store.groups(is_sorted=is_sorted)
        n = int(store.n_entries.sum())
        index = index_type(n)
        indptr = np.concatenate([[0], np.cumsum(store.n_entries)]).astype(index)
        if "X" in file:
            del file["X"]
        names = ["X", "layers/counts"][: len(store.kinds)]
        matrices = [file.create_group(name) for name in names]
        for matrix, kind in zip(matrices, store.kinds, strict=True):
            matrix.attrs["encoding-type"] = "csr_matrix"
            matrix.attrs["encoding-version"] = "0.1.0"
            matrix.attrs["shape"] = np.array([store.n_cells, skeleton.n_vars], dtype=np.int64)
            matrix.create_dataset("indptr", data=indptr)
            for part, dtype in (("indices", index), ("data", kind)):
                matrix.create_dataset(part, (n,), dtype, maxshape=(None,), chunks=(_CHUNK,))
        start = 0
        for columns, *parts in groups:
            stop = start + len(columns)
            for matrix, values in zip(matrices, parts, strict=True):
                matrix["indices"][start:stop] = columns
                matrix["data"][start:stop] = values
            start = stop


def open_backed(path: Path) -> AnnData:
    """Open an h5ad file with values, and counts if there are any, left on disk."""
    import anndata as ad
    import h5py
    from anndata.io import read_elem, sparse_dataset

    file = h5py.File(path, "r")
    if "layers/counts" not in file:
        file.close()
        return ad.read_h5ad(path, backed="r")
    slots: dict[str, Any] = {name: read_elem(file[name]) for name in ("obs", "var", "uns", "obsm")}
    # read_h5ad would take the layer into memory.
    layers = {"counts": sparse_dataset(file["layers/counts"])}
    return ad.AnnData(filename=path, filemode="r", layers=layers, **slots)


_GROUP = 1024  # cells
_BLOCK = 1 << 23  # entries sorted at a time


class RowStore:
    """Collects entries of a matrix of cells x genes and gives its rows.

    Parameters
    ----------
    n_cells
        Number of cells.
    counts
        Whether every entry brings its count.
    folder
        Folder for a temporary file that holds the fragments; ``None`` keeps them in memory.
    """

    def __init__(self, n_cells: int, *, counts: bool, folder: Path | None = None) -> None:
        self.n_cells = n_cells
        self.n_entries = np.zeros(n_cells, dtype=np.int64)  # a cell
        self._types = [np.dtype(np.int32), np.dtype(np.float32)]
        self._types += [np.dtype(np.int32)] if counts else []
        self._block = [np.empty(_BLOCK, dtype) for dtype in [np.dtype(np.int32), *self._types]]
        self._filled = 0
        n_groups = -(-n_cells // _GROUP)
        # Nameless where the system has such files, so that nothing is left of a killed process.
        self._file: Any = tempfile.TemporaryFile(dir=folder) if folder else None  # noqa: SIM115
        self._fragments: list[list[mmap.mmap | tuple[int, int]]] = [[] for _ in range(n_groups)]

    @property
    def kinds(self) -> list[np.dtype]:
        """Types of the values and, if there are any, of the counts."""
        return self._types[1:]

    def close(self) -> None:
        """Forget all fragments."""
        self._fragments = []
        self._block = []
        if self._file is not None:
            self._file.close()

    def add(
        self,
        cells: NDArray[np.int32],
        genes: NDArray[np.int32],
        values: NDArray[np.float64],
        counts: NDArray[np.int32],
    ) -> None:
        """Add entries; those of one cell come in the order of its row."""
        parts: list[NDArray] = [cells, genes, values]
        parts += [counts] if len(self._types) == 3 else []
        start = 0
        while start < len(cells):
            n = min(len(cells) - start, _BLOCK - self._filled)
            for room, part in zip(self._block, parts, strict=True):
                room[self._filled : self._filled + n] = part[start : start + n]
            start += n
            self._filled += n
            if self._filled == _BLOCK:
                self._put_aside()

    def groups(self, *, is_sorted: bool) -> Iterator[list[NDArray]]:
        """Return columns, values and counts of groups of cells in order, row after row.

        ``is_sorted`` tells that genes were added in the order of their columns. A group's
        fragments are released when it has been yielded.
        """
        self._put_aside()
        self._block = []
        return self._groups(is_sorted=is_sorted)

    def _groups(self, *, is_sorted: bool) -> Iterator[list[NDArray]]:
        for group, fragments in enumerate(self._fragments):
            lengths = self.n_entries[group * _GROUP : (group + 1) * _GROUP]
            starts = np.concatenate([[0], np.cumsum(lengths)])
            joined = [np.empty(starts[-1], dtype) for dtype in self._types]
            next_place = starts[:-1].copy()
            for fragment in fragments:
                n_in_row, *parts = self._read(fragment, len(lengths))
                # Entry k of row r goes to where row r goes on, k places on.
                first = np.cumsum(n_in_row) - n_in_row
                place = np.repeat(next_place - first, n_in_row)
                place += np.arange(len(place))
                for part, whole in zip(parts, joined, strict=True):
                    whole[place] = part
                next_place += n_in_row
                del n_in_row, parts, part
            fragments.clear()
            if not is_sorted:
                order = np.lexsort((joined[0], np.repeat(np.arange(len(lengths)), lengths)))
                joined = [part[order] for part in joined]
            yield joined

    def _put_aside(self) -> None:
        """Sort the entries collected by cell and file them by group."""
        n, self._filled = self._filled, 0
        cells, *parts = [room[:n] for room in self._block]
        in_row = np.bincount(cells, minlength=self.n_cells)
        ends = np.cumsum(in_row)
        self.n_entries += in_row
        # scipy's counting sort, which keeps the order within a cell: columns are the order.
        place = (cells, np.arange(n, dtype=np.int32))
        order = sp.csr_array((np.ones(n, np.bool_), place), (self.n_cells, max(n, 1)))
        ordered = [part[order.indices] for part in parts]
        lengths = in_row.astype(np.int32)
        for group, fragments in enumerate(self._fragments):
            first, stop = group * _GROUP, min((group + 1) * _GROUP, self.n_cells)
            entries = slice(ends[first] - in_row[first], ends[stop - 1])
            if entries.stop > entries.start:
                fragments.append(self._write([lengths[first:stop], *(p[entries] for p in ordered)]))

    def _write(self, parts: list[NDArray]) -> mmap.mmap | tuple[int, int]:
        n_bytes = sum(part.nbytes for part in parts)
        if self._file is not None:
            start = self._file.tell()
            for part in parts:
                self._file.write(part.data.cast("B"))
            return start, n_bytes
        # Memory of its own, which goes back to the system as soon as it is released.
        memory = mmap.mmap(-1, n_bytes)
        for part in parts:
            memory.write(part.data.cast("B"))
        return memory

    def _read(self, fragment: mmap.mmap | tuple[int, int], n_rows: int) -> list[NDArray]:
        if isinstance(fragment, tuple):
            start, n_bytes = fragment
            self._file.seek(start)
            raw: NDArray | mmap.mmap = np.empty(n_bytes, np.uint8)
            self._file.readinto(raw)
        else:
            raw = fragment
        lengths = np.frombuffer(raw, np.int32, n_rows)
        n, offset, parts = int(lengths.sum()), lengths.nbytes, [lengths]
        for dtype in self._types:
            parts.append(np.frombuffer(raw, dtype, n, offset))
            offset += n * dtype.itemsize
        return parts


def in_memory(store: RowStore, n_genes: int, *, is_sorted: bool) -> list[sp.csr_matrix]:
    """Return the matrix of values and, if there are counts, that of counts."""
    groups = store.groups(is_sorted=is_sorted)
    n = int(store.n_entries.sum())
    index = index_type(n)
    indptr = np.concatenate([[0], np.cumsum(store.n_entries)]).astype(index)
    indices = np.empty(n, index)
    data = [np.empty(n, kind) for kind in store.kinds]
    start = 0
    for columns, *parts in groups:
        stop = start + len(columns)
        indices[start:stop] = columns
        for whole, part in zip(data, parts, strict=True):
            whole[start:stop] = part
        start = stop
    shape = (store.n_cells, n_genes)
    # Each matrix owns its indices: functions that change a matrix in place spare the other.
    return [
        sp.csr_matrix((part, indices if k == 0 else indices.copy(), indptr.copy()), shape=shape)
        for k, part in enumerate(data)
    ]


def index_type(n_entries: int) -> type[np.int32] | type[np.int64]:
    """Return the type of indices that scipy takes for so many entries."""
    return np.int32 if n_entries <= np.iinfo(np.int32).max else np.int64
