"""The study as one h5ad or AnnData (scPerturb's, pertpy's, or made by this package)."""

from __future__ import annotations

import logging
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert._adata import closest, list_names
from nextpert._warn import warn
from nextpert.datasets._scp1064.portal import label_cells
from nextpert.datasets._scp1064.rows import Options, Study, counts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    from nextpert.datasets._scp1064.rows import Entries

logger = logging.getLogger(__name__)
_ELEMENTS = 1 << 22  # of a block


@contextmanager
def opened(
    source: AnnData | str | os.PathLike[str], options: Options
) -> Iterator[tuple[AnnData, str]]:
    """Open an h5ad, or take an AnnData as it is; yield it and its name."""
    if not isinstance(source, (str, os.PathLike)):
        yield source, "AnnData"
        return
    import anndata as ad

    path = Path(source)
    if options.backed is not None and Path(options.backed).resolve() == path.resolve():
        message = f"backed names {path.name!r}, the file that is read: choose another name."
        raise ValueError(message)
    try:
        adata = ad.read_h5ad(path, backed="r")
    except OSError as error:
        message = f"{path.name!r} is truncated or no h5ad file ({error})."
        raise ValueError(message) from error
    try:
        yield adata, path.name
    finally:
        adata.file.close()


def read_object(adata: AnnData, name: str, options: Options) -> tuple[Study, Iterator[Entries]]:
    """Bring the study into the shape of the portal's files; its matrix comes in entries.

    What this function made says so in ``.uns`` and holds ln(1 + TPM); all other files of the study
    hold counts.
    """
    holds = "ln(1 + TPM)" if "perturb_cite_seq" in adata.uns else "counts"
    measured = [*map(str, adata.var_names)]
    genes = measured if options.genes is None else list(options.genes)
    absent = [gene for gene in genes if gene not in set(measured)]
    if absent:
        message = f"{name!r} holds no such genes: {list_names(absent)}.{closest(absent, measured)}"
        raise ValueError(message)
    obs, guides = _cells(adata.obs)
    kept = options.cells(obs["condition"])
    obsm: dict[str, Any] = {}
    if "X_umap" in adata.obsm:
        obsm["X_umap"] = np.asarray(adata.obsm["X_umap"])[kept].astype(np.float32)
    elif {"umap_x", "umap_y"} <= set(adata.obs):
        obsm["X_umap"] = adata.obs.loc[kept, ["umap_x", "umap_y"]].to_numpy(dtype=np.float32)
    facts = {"source": name, "values_of_source": holds, "n_genes_study": len(measured)}
    facts["protein"] = "none"
    if options.protein and "protein" in adata.obsm:
        obsm["protein"] = adata.obsm["protein"][kept]
        facts["protein"] = "as in the source"
    elif options.protein:
        logger.info("The source has no obsm['protein']")
    study = Study(obs, guides, kept, genes, obsm, facts)
    return study, _entries(adata.X, measured, study, options)


def _cells(obs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the columns of ``obs`` in the shape of the portal's, and the table of guides.

    scPerturb's ``perturbation`` names one target of a cell and calls a cell with targeting and
    control guides a control, so that the labels follow from ``guide_id``.
    """
    names = {"guide_id": "guides", "perturbation_2": "condition", "ncounts": "UMI_count"}
    own = obs.drop(columns=[new for old, new in names.items() if old in obs], errors="ignore")
    columns = own.rename(columns=names)
    needed = ("condition", "guides", "MOI", "sgRNA", "UMI_count", "library_preparation_protocol")
    if lacking := [name for name in needed if name not in columns]:
        message = (
            f"adata.obs lacks {list_names(lacking)}; it holds {list_names(obs.columns)}. Is this "
            "the Perturb-CITE-seq study (scPerturb's FrangiehIzar2021_RNA, pertpy's "
            "frangieh_2021_rna)?"
        )
        raise ValueError(message)
    text = columns[[name for name in needed if name not in ("MOI", "UMI_count")]].astype(object)
    text = text.where(text.notna(), "").astype(str)
    called = [
        [name for name in re.split("[;,]", guides) if name not in ("", "nan")]
        for guides in text.pop("guides")
    ]
    study = text.rename_axis(index=None)
    labels, guides = label_cells(called, study.index, "adata.obs")
    study["MOI"] = columns["MOI"].astype(np.int64)
    study["UMI_count"] = columns["UMI_count"].astype(np.float64)
    return study.join(labels), guides


def _entries(matrix: Any, measured: list[str], study: Study, options: Options) -> Iterator[Entries]:
    """Yield the entries of a matrix of counts, or of ln(1 + TPM), as both, and check them.

    ``measured`` names the columns of the matrix, shape ``(n_cells, n_genes)``.
    """
    has_counts = study.facts["values_of_source"] == "counts"
    row, umi = study.row, study.obs["UMI_count"].to_numpy()
    column = pd.Index(study.genes).get_indexer(pd.Index(measured))
    totals = np.zeros(len(umi))
    for cells, genes, data in _blocks(matrix):
        wrong = ~np.isfinite(data) | (data < 0) | (has_counts & (data != np.round(data)))
        if wrong.any():
            i = int(wrong.argmax())
            message = (
                f"The source holds {data[i]:g} for gene {measured[genes[i]]!r} and cell "
                f"{study.obs.index[cells[i]]!r}, which is not a count: pass raw counts, or what "
                "perturb_cite_seq made."
            )
            raise ValueError(message)
        if has_counts:
            values, counts = np.log1p(data * 1e6 / umi[cells]), data
        else:
            values, counts = data, counts_of(data, umi[cells], "The source", options)
        totals += np.bincount(cells, counts, len(umi))
        kept = (row[cells] >= 0) & (column[genes] >= 0)
        yield row[cells[kept]], column[genes[kept]], values[kept], counts[kept]
    above = np.flatnonzero(totals > umi * (1 + 1e-5) + 1e-3)
    if len(above):
        message = (
            f"The values of {len(above)} cells, such as {study.obs.index[above[0]]!r}, sum up to "
            "more UMI than the cell has: they do not agree with the UMI counts in obs."
        )
        if options.verify:
            raise ValueError(f"{message} Pass `verify=False` to load them as they are.")
        warn(message)


def _blocks(matrix: Any) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]]:
    """Yield cells, genes and values of the entries of a matrix that are not zero."""
    n_cells, n_genes = matrix.shape
    by_gene = getattr(matrix, "format", "") == "csc"
    length, width = (n_genes, n_cells) if by_gene else (n_cells, n_genes)
    step = max(_ELEMENTS // max(width, 1), 1)
    for start in range(0, length, step):
        some = slice(start, start + step)
        block = sp.coo_matrix(matrix[:, some] if by_gene else matrix[some])
        block.sum_duplicates()
        block.eliminate_zeros()
        cells, genes = (block.row, block.col + start) if by_gene else (block.row + start, block.col)
        yield cells, genes, block.data.astype(np.float64)
