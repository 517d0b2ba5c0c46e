"""Turn entries that come gene by gene into the rows of an AnnData, in memory or in an h5ad file.

Entries are collected up to a few million, sorted by cell, and put aside in fragments: one for
every group of consecutive cells. The rows of a group are then joined from its fragments, one
group after the other, and the fragments released. So no more is held than the result and a
small part of it, or, by way of a file, the small part alone.
"""

from __future__ import annotations

import glob
import logging
import mmap
import os
import socket
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert._adata import closest, list_names
from nextpert._files import writing_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    # Rows and columns of the result, values and counts, all of shape (n_entries,).
    Entries = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64], NDArray[np.int32]]

logger = logging.getLogger(__name__)
CONDITIONS = ("Control", "IFNγ", "Co-culture")
_COLUMNS = (
    "condition", "MOI", "sgRNA", "guides", "UMI_count", "library_preparation_protocol",
    "perturbation", "n_guides", "n_targets",
)  # fmt: skip
_GROUP = 1024  # cells
_BLOCK = 1 << 23  # entries sorted at a time
_CHUNK = (1 << 18,)  # entries of an h5ad's chunk


@dataclass(frozen=True)
class Wanted:
    """What the caller asks for, under the names of :func:`nextpert.datasets.perturb_cite_seq`."""

    condition: str | Sequence[str] | None
    genes: Sequence[str] | None
    protein: bool | str
    counts: bool
    backed: str | os.PathLike[str] | None
    verify: bool

    def cells(self, conditions: pd.Series) -> NDArray[np.bool_]:
        """Return which cells are of the wanted conditions, shape ``(n_cells,)``."""
        if self.condition is None:
            return np.ones(len(conditions), dtype=bool)
        listed = [self.condition] if isinstance(self.condition, str) else self.condition
        names = [str(name) for name in listed]
        found = list(dict.fromkeys(conditions))
        unknown = [name for name in names if name not in found]
        if unknown or not names:
            message = (
                f"No cells of condition {list_names(unknown) or '[]'}.{closest(unknown, found)} "
                f"The conditions are {list_names(found)}."
            )
            raise ValueError(message)
        return np.array(conditions.isin(names))


@dataclass(frozen=True)
class Study:
    """What is known of the study beside its matrix.

    Parameters
    ----------
    obs, guides
        Columns of every cell of the study, and the table of guides.
    kept
        Which cells are wanted, shape ``(n_cells,)``.
    genes
        Columns of the result: complete when all entries have come, as are ``facts``.
    obsm
        UMAP and proteins of the cells wanted.
    facts
        Where it came from.
    """

    obs: pd.DataFrame
    guides: pd.DataFrame
    kept: NDArray[np.bool_]
    genes: list[str]
    obsm: dict[str, Any]
    facts: dict[str, Any]


def to_anndata(study: Study, entries: Iterable[Entries], wanted: Wanted) -> AnnData:
    """Return the AnnData of a study and its entries, in memory or backed by a file."""
    import anndata as ad

    target = None if wanted.backed is None else Path(wanted.backed)
    with nullcontext() if target is None else writing_to(target):
        store = RowStore(
            int(study.kept.sum()), counts=wanted.counts, folder=target and target.parent
        )
    with store:
        for some in entries:
            store.add(*some)
        facts = study.facts | {
            "accession": "SCP1064",
            "doi": "10.1038/s41588-021-00779-1",
            "values": "ln(1 + TPM)",
            "n_cells_study": len(study.obs),
            "counts": bool(wanted.counts),
            "verified": bool(wanted.verify),
        }
        obs = study.obs.loc[study.kept, list(_COLUMNS)].copy()
        found = set(obs["condition"])  # categories in the study's order
        known = [name for name in CONDITIONS if name in found]
        obs["condition"] = pd.Categorical(obs["condition"], [*known, *sorted(found - set(known))])
        for name in ("sgRNA", "guides", "library_preparation_protocol", "perturbation"):
            obs[name] = obs[name].astype("category").cat.remove_unused_categories()
        adata = ad.AnnData(
            obs=obs, var=pd.DataFrame(index=pd.Index(study.genes)), obsm=study.obsm,
            uns={"guides": study.guides, "perturb_cite_seq": facts},
        )  # fmt: skip
        logger.info("%d cells x %d genes", adata.n_obs, adata.n_vars)
        if target is not None:
            with part_file(target) as part:
                write_rows(part, adata, store)
            return open_backed(target)
        matrices = store.in_memory(adata.n_vars)
        adata.X = matrices[0]
        if wanted.counts:
            adata.layers["counts"] = matrices[1]
        return adata


def write_rows(path: Path, adata: AnnData, store: RowStore) -> None:
    """Write annotation and rows to an h5ad file: values to ``X``, counts to ``layers``."""
    import h5py  # type: ignore[import-untyped]
    from anndata.io import sparse_dataset, write_elem

    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        matrices: list[Any] = []
        places = ((file, "X"), (file["layers"], "counts"))
        for (group, name), kind in zip(places, store.kinds, strict=False):
            empty = sp.csr_matrix((0, adata.n_vars), dtype=kind)
            empty.indptr = store.indptr()[:1]
            write_elem(group, name, empty, dataset_kwargs={"chunks": _CHUNK})
            matrices.append(sparse_dataset(group[name]))
        for rows in store.rows(adata.n_vars):
            for matrix, some in zip(matrices, rows, strict=True):
                matrix.append(some)


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


@contextmanager
def part_file(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` that takes its place at the end, or vanishes after an error.

    What a killed process left there is removed: the name tells whose it is.
    """
    beginning = f".{target.name}.{socket.gethostname()}-"
    for left in target.parent.glob(f"{glob.escape(beginning)}*.part"):
        pid = left.name.removeprefix(beginning).removesuffix(".part")
        if pid.isdecimal() and os.name != "nt":  # there, a signal 0 would interrupt
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                left.unlink(missing_ok=True)
            except OSError:  # runs, under another user
                pass
    part = target.with_name(f"{beginning}{os.getpid()}.part")
    try:
        with writing_to(target):
            yield part
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


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
        kinds = [("gene", np.int32), ("value", np.float32), ("count", np.int32)]
        self._entry = np.dtype(kinds if counts else kinds[:2])
        self.kinds = [self._entry[name] for name in ("value", "count")[: 1 + counts]]
        self._cells, self._entries = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, self._entry)
        self._filled = 0
        # Nameless where the system has such files, so that nothing is left of a killed process.
        self._file: Any = tempfile.TemporaryFile(dir=folder) if folder else None  # noqa: SIM115
        # Of every group of cells: the number of entries of each, and where these lie.
        n_groups = -(-n_cells // _GROUP)
        self._fragments: list[list[tuple[NDArray[np.int32], Any]]] = [[] for _ in range(n_groups)]
        self._n_entries = np.zeros(n_cells, np.int64)

    def __enter__(self) -> RowStore:
        return self

    def __exit__(self, *_: object) -> None:
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
        """Add up to ``_BLOCK`` entries, each of shape ``(n_entries,)``; no gene of a cell twice."""
        if self._filled + len(cells) > _BLOCK:
            self._put_aside()
        block = slice(self._filled, self._filled + len(cells))
        self._cells[block] = cells
        for name, part in zip(self._entry.names or (), (genes, values, counts), strict=False):
            self._entries[name][block] = part
        self._filled = block.stop

    def indptr(self) -> NDArray[np.int32] | NDArray[np.int64]:
        """Return where every row begins, as of CSR."""
        self._put_aside()
        indptr = np.concatenate([[0], np.cumsum(self._n_entries)])
        # The type of indices that scipy takes for so many entries.
        return indptr.astype(np.int32) if indptr[-1] <= np.iinfo(np.int32).max else indptr

    def in_memory(self, n_genes: int) -> list[sp.csr_matrix]:
        """Return the matrix of values and, if there are counts, that of counts."""
        indptr = self.indptr()
        n, shape = int(indptr[-1]), (len(indptr) - 1, n_genes)
        # Each matrix owns its indices: functions that change a matrix in place spare the other.
        parts = [
            (np.empty(n, kind), np.empty(n, indptr.dtype), indptr.copy()) for kind in self.kinds
        ]
        start = 0
        for rows in self.rows(n_genes):
            for (data, indices, _), some in zip(parts, rows, strict=True):
                data[start : start + some.nnz] = some.data
                indices[start : start + some.nnz] = some.indices
            start += rows[0].nnz
        return [sp.csr_matrix(part, shape) for part in parts]

    def rows(self, n_genes: int) -> Iterator[list[sp.csr_matrix]]:
        """Yield the values, and the counts, of one group of cells after the other; forget each."""
        self._put_aside()
        self._cells, self._entries = self._cells[:0].copy(), self._entries[:0].copy()
        first = 0
        for fragments in self._fragments:
            n_entries = self._n_entries[first : first + _GROUP]
            first += _GROUP
            cells = [np.repeat(np.arange(len(n), dtype=np.uint16), n) for n, _ in fragments]
            found = [self._read(where, n.sum()) for n, where in fragments]
            entries = np.concatenate([self._entries, *found])
            in_row = np.concatenate([np.empty(0, np.uint16), *cells])
            fragments.clear()
            order = np.argsort(in_row, kind="stable")  # a radix sort: linear
            entries, in_row = entries[order], in_row[order]
            falls = np.diff(entries["gene"]) < 0
            if (falls & (in_row[1:] == in_row[:-1])).any():  # genes in another order than the file
                entries = entries[np.lexsort((entries["gene"], in_row))]
            indptr = np.concatenate([[0], np.cumsum(n_entries)])
            yield [
                sp.csr_matrix((entries[name], entries["gene"], indptr), (len(n_entries), n_genes))
                for name in ("value", "count")[: len(self.kinds)]
            ]

    def _put_aside(self) -> None:
        """Sort the entries collected by cell and file them by group."""
        n, self._filled = self._filled, 0
        cells = self._cells[:n]
        in_row = np.bincount(cells, minlength=len(self._n_entries)).astype(np.int32)
        self._n_entries += in_row
        # scipy's counting sort, which keeps the order within a cell: columns are the order.
        place = (cells, np.arange(n, dtype=np.int32))
        shape = (len(in_row), max(n, 1))
        order = sp.csr_array((np.ones(n, np.bool_), place), shape).indices
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
