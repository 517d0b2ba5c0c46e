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
    from collections.abc import Iterator, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray


_CHUNK = (1 << 18,)  # entries


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


def write_rows(path: Path, skeleton: AnnData, store: RowStore) -> None:
    """Write annotation and rows to an h5ad file: values to ``X``, counts to ``layers``."""
    import h5py  # type: ignore[import-untyped]

    skeleton.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        indptr = store.finish()
        if "X" in file:
            del file["X"]
        parts = []
        for name, kind in zip(("X", "layers/counts"), store.kinds, strict=False):
            matrix = file.create_group(name)
            matrix.attrs["encoding-type"] = "csr_matrix"
            matrix.attrs["encoding-version"] = "0.1.0"
            matrix.attrs["shape"] = np.array([store.n_cells, skeleton.n_vars], dtype=np.int64)
            matrix.create_dataset("indptr", data=indptr)
            for part, dtype in (("indices", indptr.dtype), ("data", kind)):
                matrix.create_dataset(part, indptr[-1:], dtype, maxshape=(None,), chunks=_CHUNK)
            parts.append(matrix)
        store.fill(parts)


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


def in_memory(store: RowStore, n_genes: int) -> list[sp.csr_matrix]:
    """Return the matrix of values and, if there are counts, that of counts."""
    indptr = store.finish()
    # Each matrix owns its indices: functions that change a matrix in place spare the other.
    n = int(indptr[-1])
    parts = [
        {"indices": np.empty(n, indptr.dtype), "data": np.empty(n, kind)} for kind in store.kinds
    ]
    store.fill(parts)
    shape = (store.n_cells, n_genes)
    return [sp.csr_matrix((part["data"], part["indices"], indptr.copy()), shape) for part in parts]


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
        kinds = [("gene", np.int32), ("value", np.float32), ("count", np.int32)]
        self._entry = np.dtype(kinds if counts else kinds[:2])
        self._cells, self._entries = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, self._entry)
        self._filled = 0
        # Nameless where the system has such files, so that nothing is left of a killed process.
        self._file: Any = tempfile.TemporaryFile(dir=folder) if folder else None  # noqa: SIM115
        # Of every group of cells: the number of entries of each, and where these lie.
        n_groups = -(-n_cells // _GROUP)
        self._fragments: list[list[tuple[NDArray[np.int32], Any]]] = [[] for _ in range(n_groups)]
        self._n_entries = np.zeros(n_cells, np.int64)

    @property
    def kinds(self) -> list[np.dtype]:
        """Types of the values and, if there are any, of the counts."""
        return [self._entry[name] for name in self._entry.names or () if name != "gene"]

    def close(self) -> None:
        """Forget all fragments."""
        self._fragments = []
        if self._file is not None:
            self._file.close()

    def add(
        self,
        cells: NDArray[np.int32],
        genes: NDArray[np.int32],
        values: NDArray[np.float64],
        counts: NDArray[np.int32],
    ) -> None:
        """Add entries, each of shape ``(n_entries,)``; no gene of a cell twice."""
        for start in range(0, len(cells), _BLOCK):
            some = slice(start, start + _BLOCK)
            n = len(cells[some])
            if self._filled + n > _BLOCK:
                self._put_aside()
            block = slice(self._filled, self._filled + n)
            self._cells[block] = cells[some]
            for name, part in (("gene", genes), ("value", values), ("count", counts)):
                if name in (self._entry.names or ()):
                    self._entries[name][block] = part[some]
            self._filled += n

    def finish(self) -> NDArray[np.int32] | NDArray[np.int64]:
        """Return where every row begins, ``indptr`` of CSR; nothing is added from now on."""
        self._put_aside()
        self._cells, self._entries = self._cells[:0].copy(), self._entries[:0].copy()
        indptr = np.concatenate([[0], np.cumsum(self._n_entries)])
        # The type of indices that scipy takes for so many entries.
        return indptr.astype(np.int32) if indptr[-1] <= np.iinfo(np.int32).max else indptr

    def fill(self, parts: Sequence[Any]) -> None:
        """Write indices and values, and those of the counts, row after row; let go of each group.

        ``parts`` are mappings, or groups of a file, with ``indices`` and ``data`` of all entries.
        """
        start = 0
        for fragments in self._fragments:
            lengths = [n_in_row for n_in_row, _ in fragments]
            rows = np.concatenate(
                [np.repeat(np.arange(len(n), dtype=np.uint16), n) for n in lengths]
                or [np.empty(0, np.uint16)]
            )
            entries = np.empty(len(rows), self._entry)
            done = 0
            for n_in_row, where in fragments:
                n = int(n_in_row.sum())
                entries[done : done + n] = self._read(where, n)
                done += n
            fragments.clear()
            order = np.argsort(rows, kind="stable")  # a radix sort: linear
            entries, rows = entries[order], rows[order]
            falls = np.diff(entries["gene"]) < 0
            if (falls & (rows[1:] == rows[:-1])).any():  # genes in another order than in the file
                entries = entries[np.lexsort((entries["gene"], rows))]
            stop = start + len(entries)
            for part, name in zip(parts, ("value", "count"), strict=False):
                # Opened anew each time: open datasets hold their chunks in memory.
                part["indices"][start:stop] = entries["gene"]
                part["data"][start:stop] = entries[name]
            start = stop

    def _put_aside(self) -> None:
        """Sort the entries collected by cell and file them by group."""
        n, self._filled = self._filled, 0
        cells = self._cells[:n]
        in_row = np.bincount(cells, minlength=self.n_cells).astype(np.int32)
        self._n_entries += in_row
        # scipy's counting sort, which keeps the order within a cell: columns are the order.
        place = (cells, np.arange(n, dtype=np.int32))
        order = sp.csr_array((np.ones(n, np.bool_), place), (self.n_cells, max(n, 1))).indices
        done = 0
        for group, fragments in enumerate(self._fragments):
            lengths = in_row[group * _GROUP : (group + 1) * _GROUP]
            stop = done + int(lengths.sum())
            if stop > done:
                fragments.append((lengths, self._write(self._entries[order[done:stop]])))
            done = stop

    def _write(self, entries: NDArray[Any]) -> Any:
        if self._file is not None:
            start = self._file.tell()
            self._file.write(entries.tobytes())
            return start
        # Memory of its own, which goes back to the system as soon as it is released.
        memory = mmap.mmap(-1, entries.nbytes)
        memory.write(entries.tobytes())
        return memory

    def _read(self, where: Any, n: int) -> NDArray[Any]:
        if self._file is None:
            return np.frombuffer(where, self._entry)[:n]
        self._file.seek(where)
        return np.frombuffer(self._file.read(n * self._entry.itemsize), self._entry)
