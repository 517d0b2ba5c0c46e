"""An AnnData or h5ad of the study to the shape of the portal's files, block by block."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._adata import closest, list_names
from nextpert._warn import warn
from nextpert.core.screen.moments import require_sound
from nextpert.datasets._scp1064.annotated import embeddings_of, gene_names, study_of
from nextpert.datasets._scp1064.expression import GeneColumns
from nextpert.datasets._scp1064.matrix import LARGEST
from nextpert.datasets._scp1064.study import Wanted, assemble, in_condition

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray

    from nextpert.datasets._scp1064.store import RowStore

logger = logging.getLogger(__name__)
_ELEMENTS = 1 << 22  # of a block
_SINGLE = 2.0**-23


def read_object(
    source: AnnData | str | os.PathLike[str], wanted: Wanted, *, protein: bool
) -> AnnData:
    """Bring an AnnData or h5ad of the study into the shape of the portal's files."""
    if not isinstance(source, (str, os.PathLike)):
        return _convert(source, wanted, "AnnData", protein=protein)
    import anndata as ad

    path = Path(source)
    if wanted.backed is not None and Path(wanted.backed).resolve() == path.resolve():
        message = f"backed names {path.name!r}, the file that is read: choose another name."
        raise ValueError(message)
    try:
        adata = ad.read_h5ad(path, backed="r")
    except OSError as error:
        message = f"{path.name!r} is truncated or no h5ad file ({error})."
        raise ValueError(message) from error
    try:
        return _convert(adata, wanted, path.name, protein=protein)
    finally:
        adata.file.close()


def _convert(adata: AnnData, wanted: Wanted, name: str, *, protein: bool) -> AnnData:
    genes = GeneColumns(wanted.genes)
    measured = gene_names(adata)
    if wanted.genes is None:
        genes.names = measured
    column = {gene: j for j, gene in enumerate(genes.names)}
    absent = [gene for gene in genes.names if gene not in set(measured)]
    if absent:
        message = f"{name!r} holds no such genes: {list_names(absent)}.{closest(absent, measured)}"
        raise ValueError(message)
    columns = np.array([column.get(gene, -1) for gene in measured], dtype=np.int32)
    study, guides = study_of(adata)
    keep = in_condition(study["condition"], wanted.condition)
    rows = study.index[keep]
    row = np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int32)
    if study["UMI_count"].isna().any():
        study["UMI_count"] = _row_sums(adata.X, len(study))
    facts = {"source": name, "n_genes_study": len(measured), "protein": "none"}
    obsm = embeddings_of(adata, study.index, rows, protein=protein)
    if "protein" in obsm:
        facts["protein"] = "as in the source"
    elif protein:
        logger.info("The source has no obsm['protein']")

    def fill(store: RowStore) -> None:
        values = _Values(study, measured, wanted)
        for cells, of_gene, data in _blocks(adata.X):
            value, count = values.of(cells, of_gene, data)
            kept = (row[cells] >= 0) & (columns[of_gene] >= 0)
            store.add(row[cells[kept]], columns[of_gene[kept]], value[kept], count[kept])
        values.check_totals()
        facts["values_of_source"] = "counts" if values.is_counts else "ln(1 + TPM)"

    return assemble(study, rows, genes, fill, wanted, facts, obsm=obsm, guides=guides)


@dataclass
class _Values:
    """Turns counts or ln(1 + TPM), whichever the source holds, into both."""

    study: pd.DataFrame
    genes: list[str]
    wanted: Wanted
    is_counts: bool | None = None

    def __post_init__(self) -> None:
        self.umi = self.study["UMI_count"].to_numpy(dtype=np.float64)
        self.totals = np.zeros(len(self.umi))

    def of(
        self, cells: NDArray, genes: NDArray, data: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Return ln(1 + TPM) and counts of some entries."""
        whole = data == np.round(data)
        if self.is_counts is None and len(data):
            # Logarithms are whole numbers by rare chance, damaged counts rarely broken ones.
            self.is_counts = bool(whole.mean() > 0.5)
        wrong = ~np.isfinite(data) | (data < 0)
        wrong |= ~whole if self.is_counts else (data > LARGEST) & self.wanted.verify
        kind = "a count" if self.is_counts else "ln(1 + TPM)"
        self._require(~wrong, cells, genes, data, f"which is not {kind}")
        if self.is_counts:
            self.totals += np.bincount(cells, data, len(self.umi))
            return np.log1p(data * 1e6 / self.umi[cells]), data.astype(np.int32)
        tpm = np.expm1(data)
        self.totals += np.bincount(cells, tpm, len(self.umi))
        if not self.wanted.counts:
            return data, np.zeros(len(data), dtype=np.int32)
        scale = self.umi[cells] / 1e6
        count = tpm * scale
        near = np.abs(count - np.round(count)) <= (tpm + 1) * data * _SINGLE * scale + 1e-9
        self._require(near, cells, genes, data, "which is no whole number of its UMI")
        return data, np.round(count).astype(np.int32)

    def _require(
        self, right: NDArray[np.bool_], cells: NDArray, genes: NDArray, data: NDArray, what: str
    ) -> None:
        if not right.all():
            i = int(np.argmin(right))
            message = (
                f"The source holds {data[i]:g} for gene {self.genes[genes[i]]!r} and cell "
                f"{self.study.index[cells[i]]!r}, {what}: pass raw counts, or ln(1 + TPM) with "
                "the UMI counts in obs."
            )
            raise ValueError(message)

    def check_totals(self) -> None:
        """Compare every cell's sum with its UMI count, or a million TPM."""
        due, unit = (self.umi, "UMI") if self.is_counts else (1e6, "TPM")
        above = np.flatnonzero(self.totals > due * (1 + 1e-5) + 1e-3)
        if len(above):
            message = (
                f"The values of {len(above)} cells, such as {self.study.index[above[0]]!r}, sum "
                f"up to more {unit} than the cell has: they are neither counts that agree with "
                "the UMI counts in obs, nor ln(1 + TPM)."
            )
            if self.wanted.verify:
                raise ValueError(f"{message} Pass `verify=False` to load them as they are.")
            warn(message)
        elif (self.totals < due * (1 - 1e-5) - 1e-3).any():
            logger.info("Cells have more %s than the genes of the source", unit)


def _blocks(matrix: Any) -> Iterator[tuple[NDArray, NDArray, NDArray[np.float64]]]:
    """Yield cells, genes and values of the entries of a matrix that are not zero."""
    require_sound(matrix, "The matrix of the source")
    n_cells, n_genes = matrix.shape
    by_gene = getattr(matrix, "format", "") == "csc"
    length, width = (n_genes, n_cells) if by_gene else (n_cells, n_genes)
    step = max(_ELEMENTS // max(width, 1), 1)
    for start in range(0, length, step):
        some = slice(start, min(start + step, length))
        block = matrix[:, some] if by_gene else matrix[some]
        block = block if sp.issparse(block) else sp.csr_matrix(np.asarray(block))
        require_sound(block, "The matrix of the source")
        block = block.copy()
        block.sum_duplicates()
        major = np.repeat(np.arange(some.start, some.stop), np.diff(block.indptr))
        kept = block.data != 0
        minor, data = block.indices[kept], block.data[kept].astype(np.float64)
        major = major[kept]
        yield (minor, major, data) if by_gene else (major, minor, data)


def _row_sums(matrix: Any, n_cells: int) -> NDArray[np.float64]:
    """Return every cell's sum, which is its UMI count if the matrix holds counts."""
    sums = np.zeros(n_cells)
    for cells, _, data in _blocks(matrix):
        if (data != np.round(data)).any():
            return np.full(n_cells, np.nan)
        sums += np.bincount(cells, data, n_cells)
    return sums
