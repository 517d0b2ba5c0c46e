"""Turn entries that come gene by gene into the rows of an h5ad file.

Some millions of entries at a time are sorted by cell and put into a temporary file. The rows of a
group of cells are then joined from the blocks of this file, one group after the other. So no more
is held in memory than one block, and than the result if that is to be in memory.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert._adata import closest, list_names
from nextpert._files import whole_file

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    # Rows and columns of the result, values and counts, all of shape (n_entries,).
    Entries = tuple[NDArray[Any], NDArray[Any], NDArray[np.float64], NDArray[np.float64]]

logger = logging.getLogger(__name__)
CONDITIONS = ("Control", "IFNγ", "Co-culture")
_COLUMNS = (
    "condition", "MOI", "sgRNA", "guides", "UMI_count", "library_preparation_protocol",
    "perturbation", "n_guides", "n_targets",
)  # fmt: skip
_GROUP = 1024  # cells
_BLOCK = 1 << 22  # entries sorted at a time
_CHUNK = (1 << 18,)  # entries of an h5ad's chunk
_ENTRY = np.dtype([("cell", "i4"), ("gene", "i4"), ("value", "f4"), ("count", "i4")])
_WHOLE = 0.1  # how far a count may be from a whole number, by the digits printed


@dataclass(frozen=True)
class Options:
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
        names = [self.condition] if isinstance(self.condition, str) else [*self.condition]
        present = list(dict.fromkeys(conditions))
        unknown = [name for name in names if name not in present]
        if unknown or not names:
            message = (
                f"No cells of condition {list_names(unknown) or '[]'}.{closest(unknown, present)} "
                f"The conditions are {list_names(present)}."
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

    @property
    def row(self) -> NDArray[np.int64]:
        """The row of the result of every cell of the study, -1 for those not wanted."""
        return np.where(self.kept, np.cumsum(self.kept) - 1, -1)


def counts_of(
    values: NDArray[np.float64], umi: NDArray[np.float64], where: str, options: Options
) -> NDArray[np.float64]:
    """Return the counts behind values ln(1 + 1e6 count / UMI), or raise where they are not whole.

    ``values`` and ``umi``, that of each value's cell, have shape ``(n_entries,)``.
    """
    counts = np.expm1(values) * umi / 1e6
    wrong = np.flatnonzero(np.abs(counts - np.rint(counts)) > _WHOLE)
    if len(wrong) and (options.counts or options.verify):
        i = wrong[0]
        message = (
            f"{where} holds {values[i]:g} for a cell with {umi[i]:g} UMI: that is a count of "
            f"{counts[i]:.6g}, no whole number. Are the metadata of the same study? Pass "
            f"`{'counts' if options.counts else 'verify'}=False` to load the values as they are."
        )
        raise ValueError(message)
    return np.rint(counts)


def to_anndata(study: Study, entries: Iterable[Entries], options: Options) -> AnnData:
    """Return the AnnData of a study and its entries, in memory or backed by a file."""
    import anndata as ad

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "study.h5ad") if options.backed is None else Path(options.backed)
        with whole_file(path) as part, RowStore(int(study.kept.sum()), part.parent) as store:
            for some in entries:
                store.add(*some)
            adata = _annotated(study, options)
            logger.info("%d cells x %d genes", adata.n_obs, adata.n_vars)
            write_rows(part, adata, store, counts=options.counts)
        return ad.read_h5ad(path, backed=None if options.backed is None else "r")


def _annotated(study: Study, options: Options) -> AnnData:
    """Return the AnnData of a study without its matrices."""
    import anndata as ad

    facts = study.facts | {
        "accession": "SCP1064",
        "doi": "10.1038/s41588-021-00779-1",
        "values": "ln(1 + TPM)",
        "n_cells_study": len(study.obs),
        "counts": bool(options.counts),
        "verified": bool(options.verify),
    }
    obs = study.obs.loc[study.kept, list(_COLUMNS)].copy()
    present = set(obs["condition"])  # categories in the study's order
    known = [name for name in CONDITIONS if name in present]
    obs["condition"] = pd.Categorical(obs["condition"], [*known, *sorted(present - set(known))])
    for name in ("sgRNA", "guides", "library_preparation_protocol", "perturbation"):
        obs[name] = pd.Categorical(obs[name])
    return ad.AnnData(
        obs=obs, var=pd.DataFrame(index=pd.Index(study.genes)), obsm=study.obsm,
        uns={"guides": study.guides, "perturb_cite_seq": facts},
    )  # fmt: skip


def write_rows(path: Path, adata: AnnData, store: RowStore, *, counts: bool) -> None:
    """Write annotation and rows to an h5ad file: values to ``X``, counts to ``layers``."""
    import h5py  # type: ignore[import-untyped]
    from anndata.io import sparse_dataset, write_elem

    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        places = {"value": "X"} | ({"count": "layers/counts"} if counts else {})
        for name, place in places.items():
            empty = sp.csr_matrix((0, adata.n_vars), dtype=_ENTRY[name])
            if store.n_entries.sum() > np.iinfo(np.int32).max:
                empty.indptr = empty.indptr.astype(np.int64)
            *groups, key = place.split("/")  # newer anndata refuses a path as a key
            group = file.require_group(groups[0]) if groups else file
            write_elem(group, key, empty, dataset_kwargs={"chunks": _CHUNK})
        matrices = {name: sparse_dataset(file[place]) for name, place in places.items()}
        for rows in store.rows(adata.n_vars):
            for name, matrix in matrices.items():
                matrix.append(rows[name])


class RowStore:
    """Collects entries of a matrix of cells x genes in a temporary file and gives its rows."""

    def __init__(self, n_cells: int, folder: Path) -> None:
        self.n_entries = np.zeros(n_cells, np.int64)
        self._edges = np.append(np.arange(0, n_cells, _GROUP), n_cells)
        self._new: list[NDArray[Any]] = []
        # Where the entries of each group begin, of every block.
        self._starts: list[NDArray[np.int64]] = []
        # Nameless where the system has such files, so that nothing is left of a killed process.
        self._file: Any = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def __enter__(self) -> RowStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(
        self,
        cells: NDArray[Any],
        genes: NDArray[Any],
        values: NDArray[np.float64],
        counts: NDArray[np.float64],
    ) -> None:
        """Add entries, each of shape ``(n_entries,)``; no gene of a cell twice."""
        entries = np.empty(len(cells), _ENTRY)
        for name, part in zip(_ENTRY.names or (), (cells, genes, values, counts), strict=True):
            entries[name] = part
        self._new.append(entries)
        if sum(map(len, self._new)) > _BLOCK:
            self._put_aside()

    def _put_aside(self) -> None:
        """Sort the new entries by cell and write them."""
        entries = np.concatenate([np.empty(0, _ENTRY), *self._new])
        self._new = []
        entries = entries[np.argsort(entries["cell"], kind="stable")]
        self.n_entries += np.bincount(entries["cell"], minlength=len(self.n_entries))
        start = self._file.seek(0, 2) // _ENTRY.itemsize
        self._starts.append(start + np.searchsorted(entries["cell"], self._edges))
        self._file.write(entries.view(np.uint8).data)

    def rows(self, n_genes: int) -> Iterator[dict[str, sp.csr_matrix]]:
        """Yield the values, and the counts, of one group of cells after the other."""
        self._put_aside()
        for group, first in enumerate(self._edges[:-1]):
            parts = []
            for start, stop in (starts[group : group + 2] for starts in self._starts):
                self._file.seek(start * _ENTRY.itemsize)
                data = self._file.read((stop - start) * _ENTRY.itemsize)
                parts.append(np.frombuffer(data, _ENTRY))
            entries = np.concatenate(parts)
            place = (entries["cell"] - first, entries["gene"])
            shape = (self._edges[group + 1] - first, n_genes)
            yield {
                name: sp.csr_matrix((entries[name], place), shape) for name in ("value", "count")
            }
