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
from nextpert.core.screen.moments import require_sound
from nextpert.datasets._scp1064.expression import LARGEST
from nextpert.datasets._scp1064.portal import CONTROL_GUIDE, NO_GUIDE, label_cells
from nextpert.datasets._scp1064.rows import Study, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from numpy.typing import NDArray

    from nextpert.datasets._scp1064.rows import Entries

logger = logging.getLogger(__name__)
_NONE = ("", "nan", "None", "NaN", "<NA>")
_CONTROLS = ("control", "ctrl", "non-targeting", NO_GUIDE, CONTROL_GUIDE)
_ELEMENTS = 1 << 22  # of a block
_SINGLE = 2.0**-23  # of values in float32
_NO_COUNTS = np.zeros(0, np.int32)


@contextmanager
def opened(
    source: AnnData | str | os.PathLike[str], wanted: Wanted
) -> Iterator[tuple[AnnData, str]]:
    """Open an h5ad, or take an AnnData as it is; yield it and its name."""
    if not isinstance(source, (str, os.PathLike)):
        yield source, "AnnData"
        return
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
        yield adata, path.name
    finally:
        adata.file.close()


def read_object(adata: AnnData, name: str, wanted: Wanted) -> tuple[Study, Iterator[Entries]]:
    """Bring the study into the shape of the portal's files; its matrix comes in entries."""
    measured = _gene_names(adata)
    genes = measured if wanted.genes is None else list(wanted.genes)
    absent = [gene for gene in genes if gene not in set(measured)]
    if absent:
        message = f"{name!r} holds no such genes: {list_names(absent)}.{closest(absent, measured)}"
        raise ValueError(message)
    obs, guides = _cells(adata)
    kept = wanted.cells(obs["condition"])
    if obs["UMI_count"].isna().any():
        obs["UMI_count"] = _row_sums(adata.X, len(obs))
    obsm: dict[str, Any] = {}
    if "X_umap" in adata.obsm:
        obsm["X_umap"] = np.asarray(adata.obsm["X_umap"])[kept].astype(np.float32)
    elif {"umap_x", "umap_y"} <= set(adata.obs):
        obsm["X_umap"] = adata.obs.loc[kept, ["umap_x", "umap_y"]].to_numpy(dtype=np.float32)
    facts = {"source": name, "n_genes_study": len(measured), "protein": "none"}
    if wanted.protein and "protein" in adata.obsm:
        found = adata.obsm["protein"]
        table = found if isinstance(found, pd.DataFrame) else pd.DataFrame(np.asarray(found))
        table = table.iloc[np.flatnonzero(kept)].set_axis(obs.index[kept]).astype(np.float32)
        obsm["protein"] = table.set_axis([str(column) for column in table.columns], axis=1)
        facts["protein"] = "as in the source"
    elif wanted.protein:
        logger.info("The source has no obsm['protein']")
    study = Study(obs, guides, kept, genes, obsm, facts)
    return study, _entries(adata.X, measured, study, wanted)


def _cells(adata: AnnData) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the columns of ``obs`` in the shape of the portal's, and the table of guides.

    scPerturb's ``perturbation`` names one target of a cell and calls a cell with targeting and
    control guides a control, so that the labels follow from ``guide_id`` where it is there.
    """
    obs = adata.obs
    index = pd.Index(_text(obs, "cell_name") if "cell_name" in obs else adata.obs_names)
    index = index.rename(None)
    if not index.is_unique:
        message = "adata names cells more than once: call adata.obs_names_make_unique() first."
        raise ValueError(message)
    study = pd.DataFrame(index=index)
    study["condition"] = _text(obs, "condition", "perturbation_2", needed=True)
    study["sgRNA"] = _text(obs, "sgRNA")
    has_list = any(name in obs for name in ("guides", "guide_id"))
    listed = _text(obs, "guides", "guide_id") if has_list else study["sgRNA"]
    called = [[name.strip() for name in re.split("[;,]", text)] for text in listed]
    called = [[n for n in dict.fromkeys(names) if n not in _NONE] for names in called]
    labels, guides = label_cells(called, index, "adata.obs")
    if not has_list:
        _labels_without_list(labels, obs)
    moi = _numbers(obs, "MOI")
    study["MOI"] = np.where(np.isnan(moi), labels["n_guides"], moi).astype(np.int64)
    study["UMI_count"] = _numbers(obs, "UMI_count", "ncounts")
    study["library_preparation_protocol"] = _text(obs, "library_preparation_protocol")
    return study.join(labels), guides


def _labels_without_list(labels: pd.DataFrame, obs: pd.DataFrame) -> None:
    """Take the labels of cells that are not known to bear one guide from ``perturbation``."""
    column = _text(obs, "perturbation", needed=True)
    n_guides = np.nan_to_num(_numbers(obs, "MOI", "nperts"))
    names = labels["perturbation"].astype(str).to_numpy(dtype=object)
    n_targets = labels["n_targets"].to_numpy().copy()
    for i in np.flatnonzero(labels["n_guides"] == 0):
        targets = sorted({t for t in re.split(r"[+_;,]", column[i]) if t} - set(_CONTROLS))
        if column[i] in _CONTROLS or not targets:
            names[i] = CONTROL_GUIDE if n_guides[i] >= 1 else NO_GUIDE
        else:
            names[i], n_targets[i] = "+".join(targets), len(targets)
    labels["perturbation"] = pd.Categorical(names)
    labels["n_targets"] = n_targets
    known = np.maximum(n_guides.astype(np.int64), n_targets)
    labels["n_guides"] = np.maximum(known, labels["n_guides"])
    message = (
        "adata.obs has no list of guides ('guide_id'): the labels of cells with several guides are "
        "those of adata.obs['perturbation'], which may name one of several targets only."
    )
    warn(message)


def _gene_names(adata: AnnData) -> list[str]:
    """Return the genes' symbols."""
    names = [str(name) for name in adata.var_names]
    if all(name.startswith("ENSG") for name in names):
        for column in ("gene_symbol", "gene_symbols", "gene_name"):
            if column in adata.var:
                names = [str(name) for name in adata.var[column]]
                break
    twice = pd.Index(names)[pd.Index(names).duplicated()]
    if len(twice):
        message = (
            f"adata names genes more than once: {list_names(twice)}. Drop the copies, or call "
            "adata.var_names_make_unique() first."
        )
        raise ValueError(message)
    return names


def _text(obs: pd.DataFrame, *names: str, needed: bool = False) -> NDArray[np.object_]:
    """Return the first of some columns that is there as text, ``""`` where it is missing."""
    for name in names:
        if name in obs:
            values = obs[name].astype(object).where(obs[name].notna(), "").astype(str)
            return values.where(~values.isin(_NONE), "").to_numpy(dtype=object)
    if needed:
        message = (
            f"adata.obs lacks {' and '.join(repr(name) for name in names)}; it holds "
            f"{list_names(obs.columns) or 'no column'}. Is this the Perturb-CITE-seq study "
            "(scPerturb's FrangiehIzar2021_RNA, pertpy's frangieh_2021_rna)?"
        )
        raise ValueError(message)
    return np.full(len(obs), "", dtype=object)


def _numbers(obs: pd.DataFrame, *names: str) -> NDArray[np.float64]:
    """Return the first of some columns that is there as numbers, NaN where it is missing."""
    for name in names:
        if name in obs:
            values = pd.to_numeric(obs[name].astype(object), errors="coerce")
            return values.to_numpy(dtype=np.float64)
    return np.full(len(obs), np.nan)


def _entries(matrix: Any, measured: list[str], study: Study, wanted: Wanted) -> Iterator[Entries]:
    """Yield the entries of a matrix of counts, or of ln(1 + TPM), with both, and check them.

    ``measured`` names the columns of the matrix, shape ``(n_cells, n_genes)``.
    """
    row = np.where(study.kept, np.cumsum(study.kept) - 1, -1).astype(np.int32)
    column = pd.Index(study.genes).get_indexer(pd.Index(measured)).astype(np.int32)
    umi = study.obs["UMI_count"].to_numpy(dtype=np.float64)
    totals = np.zeros(len(umi))
    is_counts: bool | None = None
    for cells, genes, data in _blocks(matrix):
        whole = data == np.round(data)
        if is_counts is None and len(data):
            # Logarithms are whole numbers by rare chance, damaged counts rarely broken ones.
            is_counts = bool(whole.mean() > 0.5)
        wrong = ~np.isfinite(data) | (data < 0)
        with np.errstate(invalid="ignore", over="ignore"):  # of values that are wrong
            if is_counts:
                what = "which is not a count"
                wrong |= ~whole
                values, counts, amounts = np.log1p(data * 1e6 / umi[cells]), data, data
            else:
                what = "which is not ln(1 + TPM)"
                wrong |= (data > LARGEST) & wanted.verify
                scale = umi[cells] / 1e6
                values, amounts = data, np.expm1(data)
                counts = amounts * scale
                if wanted.counts and not wrong.any():
                    what = "which is no whole number of its UMI"
                    unsure = (amounts + 1) * data * _SINGLE * scale + 1e-9
                    wrong = ~(np.abs(counts - np.round(counts)) <= unsure)
        if wrong.any():
            i = int(wrong.argmax())
            message = (
                f"The source holds {data[i]:g} for gene {measured[genes[i]]!r} and cell "
                f"{study.obs.index[cells[i]]!r}, {what}: pass raw counts, or ln(1 + TPM) with "
                "the UMI counts in obs."
            )
            raise ValueError(message)
        totals += np.bincount(cells, amounts, len(umi))
        kept = (row[cells] >= 0) & (column[genes] >= 0)
        whole_counts = np.round(counts[kept]).astype(np.int32) if wanted.counts else _NO_COUNTS
        yield row[cells[kept]], column[genes[kept]], values[kept], whole_counts
    study.facts["values_of_source"] = "counts" if is_counts else "ln(1 + TPM)"
    due, unit = (umi, "UMI") if is_counts else (1e6, "TPM")
    above = np.flatnonzero(totals > due * (1 + 1e-5) + 1e-3)
    if len(above):
        message = (
            f"The values of {len(above)} cells, such as {study.obs.index[above[0]]!r}, sum "
            f"up to more {unit} than the cell has: they are neither counts that agree with "
            "the UMI counts in obs, nor ln(1 + TPM)."
        )
        if wanted.verify:
            raise ValueError(f"{message} Pass `verify=False` to load them as they are.")
        warn(message)
    elif (totals < due * (1 - 1e-5) - 1e-3).any():
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
        block.eliminate_zeros()
        major = np.repeat(np.arange(some.start, some.stop), np.diff(block.indptr))
        data = block.data.astype(np.float64)
        yield (block.indices, major, data) if by_gene else (major, block.indices, data)


def _row_sums(matrix: Any, n_cells: int) -> NDArray[np.float64]:
    """Return every cell's sum, which is its UMI count if the matrix holds counts."""
    sums = np.zeros(n_cells)
    for cells, _, data in _blocks(matrix):
        if (data != np.round(data)).any():
            return np.full(n_cells, np.nan)
        sums += np.bincount(cells, data, n_cells)
    return sums
