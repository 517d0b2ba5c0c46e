"""The Perturb-CITE-seq study as one h5ad or AnnData, and code that all its formats share."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert._adata import closest, list_names
from nextpert._adata.guides import (
    count_cells,
    guide_sets,
    guide_table,
    split_lists,
    targets_before_number,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

logger = logging.getLogger(__name__)
CONDITIONS = ("Control", "IFNγ", "Co-culture")
_COLUMNS = (
    "condition",
    "MOI",
    "sgRNA",
    "guides",
    "UMI_count",
    "library_preparation_protocol",
    "perturbation",
    "n_guides",
    "n_targets",
)
_CELLS = 10_000  # read at a time
_WHOLE = 0.1  # how far a count may be from a whole number, because values are rounded


class Options(NamedTuple):
    """Options of the caller, named as in :func:`nextpert.datasets.perturb_cite_seq`."""

    condition: str | Sequence[str] | None
    genes: Sequence[str] | None
    counts: bool
    verify: bool

    def cells(self, conditions: pd.Series) -> NDArray[np.bool_]:
        """Return which cells are in the requested conditions, shape ``(n_cells,)``."""
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


@dataclass
class Study:
    """The study as read: ``is_requested`` marks cells, ``facts`` describes the source.

    ``obs`` and ``guides`` include all cells; the values of X, ln(1 + TPM), and ``obsm`` only the
    requested ones.
    """

    obs: pd.DataFrame
    guides: pd.DataFrame
    is_requested: NDArray[np.bool_]
    facts: dict[str, Any]
    x: sp.csr_matrix | None = None
    genes: Sequence[str] = ()
    obsm: dict[str, Any] = field(default_factory=dict)

    def to_anndata(self, options: Options) -> ad.AnnData:
        """Return the study as an AnnData."""
        facts = self.facts | {
            "accession": "SCP1064",
            "doi": "10.1038/s41588-021-00779-1",
            "values": "ln(1 + TPM)",
            "n_cells_study": len(self.obs),
            "counts": bool(options.counts),
            "verified": bool(options.verify),
        }
        obs = self.obs.loc[self.is_requested, list(_COLUMNS)].copy()
        # Categories are in the study's order.
        present = set(obs["condition"])
        in_order = [name for name in CONDITIONS if name in present]
        obs["condition"] = pd.Categorical(
            obs["condition"], [*in_order, *sorted(present - {*in_order})]
        )
        for name in ("sgRNA", "guides", "library_preparation_protocol", "perturbation"):
            obs[name] = pd.Categorical(obs[name])
        out = ad.AnnData(
            self.x,
            obs,
            pd.DataFrame(index=pd.Index([*self.genes])),
            obsm=self.obsm,
            uns={"guides": self.guides, "perturb_cite_seq": facts},
        )
        if options.counts:
            counts = out.X.copy()
            umi = np.repeat(obs["UMI_count"].to_numpy(np.float64), np.diff(counts.indptr))
            counts.data = np.rint(np.expm1(counts.data.astype(np.float64)) * umi / 1e6)
            out.layers["counts"] = counts.astype(np.int32)
        logger.info("%d cells x %d genes", *out.shape)
        return out


def require_whole(values: Array, umi: Array, where: str, options: Options) -> Array:
    """Return the counts behind values ln(1 + 1e6 count / UMI); raise if they are not whole.

    ``values`` and ``umi`` (the UMI of each value's cell) have shape ``(n_entries,)``.
    """
    counts = np.expm1(values) * umi / 1e6
    wrong = np.flatnonzero(np.abs(counts - np.rint(counts)) > _WHOLE)
    if len(wrong) and (options.counts or options.verify):
        i = wrong[0]
        message = (
            f"{where} holds {values[i]:g} for a cell with {umi[i]:g} UMI, which is a count "
            f"of {counts[i]:.6g}, not a whole number. Use the metadata of the same study, or pass "
            f"`{'counts' if options.counts else 'verify'}=False` to load the values unchanged."
        )
        raise ValueError(message)
    return np.rint(counts)


def label_cells(lists: pd.Series, where: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the columns of ``obs`` that follow from every cell's guides, and a table of guides.

    Guides are named ``TARGET_<number>`` and joined by commas.
    """
    codes, called = split_lists(lists, ",")
    names = pd.Index(sorted({name for of_cell in called for name in of_cell}), dtype=object)
    unclear = names[~names.str.fullmatch(r".+_\d+").astype(bool)]
    if len(unclear):
        message = (
            f"{where} holds guides that are not named 'TARGET_<number>': {list_names(unclear)}. "
            "Use the study's list of guides."
        )
        raise ValueError(message)
    guides = count_cells(guide_table(targets_before_number(names), "name: GENE_1"), called, codes)
    sets = guide_sets(called, guides, ",")
    without = np.where(sets["n_guides"] > 0, "control_guide", "no_guide")
    labels = pd.DataFrame(
        {
            "guides": sets["name"],
            "perturbation": sets["targets"]
            .map("+".join)
            .mask(sets["targets"].map(len) == 0, without),
            "n_guides": sets["n_guides"],
            "n_targets": sets["targets"].map(len),
        }
    )
    return labels.iloc[codes].set_axis(lists.index), guides


def open_h5ad(path: Path) -> ad.AnnData:
    """Open an h5ad file, with its values on disk.

    Raises
    ------
    ValueError
        If the file is damaged, or holds a MuData.
    """
    modalities: list[str] = []
    try:
        with h5py.File(path) as file:
            modalities = list(file.get("mod", ()))
        if not modalities:
            return ad.read_h5ad(path, backed="r")
    except OSError as error:
        message = (
            f"{path.name!r} is truncated or not an h5ad file ({error}): download it again, or pass "
            f"another file."
        )
        raise ValueError(message) from error
    message = (
        f"{path.name!r} holds a MuData ({list_names(modalities)}): pass one of its parts, such as "
        f"mudata.read_h5mu({path.name!r})[{modalities[0]!r}]."
    )
    raise ValueError(message)


@contextmanager
def opened(source: ad.AnnData | str | os.PathLike[str]) -> Iterator[tuple[ad.AnnData, str]]:
    """Yield an AnnData, opened if it is an h5ad file, and its name."""
    if isinstance(source, ad.AnnData):
        yield source, "AnnData"
        return
    adata = open_h5ad(Path(source))
    try:
        yield adata, Path(source).name
    finally:
        adata.file.close()


def read_object(adata: ad.AnnData, name: str, options: Options) -> Study:
    """Convert an h5ad or AnnData of the study to the format of the portal's files.

    An AnnData with ``uns["perturb_cite_seq"]`` was made here and has ln(1 + TPM); all other files
    of the study have counts.
    """
    measured = pd.Index(adata.var_names.astype(str))
    genes = [*measured] if options.genes is None else [*options.genes]
    columns = measured.get_indexer(pd.Index(genes))
    absent = [gene for gene, column in zip(genes, columns, strict=True) if column < 0]
    if absent:
        message = f"{name!r} lacks the genes {list_names(absent)}.{closest(absent, measured)}"
        raise ValueError(message)
    obs, guides = _cells(adata.obs)
    is_requested = options.cells(obs["condition"])
    holds = "ln(1 + TPM)" if "perturb_cite_seq" in adata.uns else "counts"
    facts = {"source": name, "values_of_source": holds, "n_genes_study": len(measured)}
    matrix: Any = adata.X
    if getattr(matrix, "format", "") == "csc":  # rows cannot be read one by one
        matrix = matrix.to_memory() if hasattr(matrix, "to_memory") else matrix
        matrix = sp.csr_matrix(matrix)
    rows = np.flatnonzero(is_requested)
    blocks = []
    for start in range(0, len(rows), _CELLS):
        block_rows = rows[start : start + _CELLS]
        block = sp.csr_matrix(matrix[block_rows], dtype=np.float64, copy=True)
        _to_log_tpm(block, obs.iloc[block_rows], measured, options, has_counts=holds == "counts")
        blocks.append(block.astype(np.float32)[:, columns])
    x = sp.vstack(blocks, "csr")
    x.sort_indices()
    obsm = {"protein": adata.obsm["protein"][is_requested]} if "protein" in adata.obsm else {}
    return Study(obs, guides, is_requested, facts, x, genes, obsm)


def centred_log_ratios(counts: pd.DataFrame) -> pd.DataFrame:
    """Return ``ln(1 + count)`` of cells x antibodies, less its mean over the cell's antibodies."""
    logged = counts.transform(np.log1p)
    return logged.sub(logged.mean(axis=1), axis=0).astype(np.float32)


def proteins_of(source: ad.AnnData | str | os.PathLike[str], cells: pd.Index) -> pd.DataFrame:
    """Return the proteins of cells from an object of raw counts; NaN for cells that it lacks.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it has none of the cells, a cell or an antibody twice, fewer than two antibodies, or
        values that are not counts.
    """
    if not isinstance(source, ad.AnnData) and not Path(source).is_file():
        message = f"There is no file {str(source)!r}: pass the path of an h5ad of the proteins."
        raise FileNotFoundError(message)
    with opened(source) as (adata, name):
        has_counts = adata.X is not None and adata.n_vars > 1
        matrix: Any = adata.X[:] if has_counts else np.zeros(adata.shape)
        counts = np.asarray(matrix.toarray() if sp.issparse(matrix) else matrix, np.float64)
        names = adata.obs_names
        antibodies = adata.var_names.astype(str)
    message = ""
    if not has_counts:
        message = (
            "needs X with the counts of at least two antibodies, relative to each other: pass "
        )
        message += "the proteins of the study"
    elif twice := [*names[names.duplicated()], *antibodies[antibodies.duplicated()]]:
        message = f"names {twice[0]!r} twice: give every cell and every antibody its own name"
    elif not names.isin(cells).any():
        message = "has none of the cells of the study: pass the proteins of the same cells, with "
        message += "their names as obs_names"
    elif not (np.isfinite(counts) & (counts >= 0) & (counts == np.round(counts))).all():
        message = "holds values that are not counts: pass the raw counts of the antibodies"
    if message:
        raise ValueError(f"{name!r} {message}.")
    return centred_log_ratios(pd.DataFrame(counts, names, antibodies)).reindex(cells)


def _cells(obs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the columns of ``obs`` in the format of the portal, and the table of guides.

    scPerturb's ``perturbation`` names one target of a cell, and calls a cell with targeting and
    control guides a control; labels are therefore made from ``guide_id``.
    """
    names = {"guide_id": "guides", "perturbation_2": "condition", "ncounts": "UMI_count"}
    cleaned = obs.drop(columns=[new for old, new in names.items() if old in obs], errors="ignore")
    columns = cleaned.rename(columns=names)
    needed = ("condition", "guides", "MOI", "sgRNA", "UMI_count", "library_preparation_protocol")
    if lacking := [name for name in needed if name not in columns]:
        message = (
            f"adata.obs lacks {list_names(lacking)}; it holds {list_names(obs.columns)}. Pass the "
            "Perturb-CITE-seq study (scPerturb's FrangiehIzar2021_RNA or pertpy's "
            "frangieh_2021_rna)."
        )
        raise ValueError(message)
    text = columns[[name for name in needed if name not in ("MOI", "UMI_count")]].astype(object)
    text = text.where(text.notna(), "").astype(str).rename_axis(index=None)
    labels, guides = label_cells(text.pop("guides").str.replace(";", ","), "adata.obs")
    text["MOI"] = columns["MOI"].astype(np.int64)
    text["UMI_count"] = columns["UMI_count"].astype(np.float64)
    return text.join(labels), guides


def _to_log_tpm(
    block: sp.csr_matrix, obs: pd.DataFrame, genes: pd.Index, options: Options, *, has_counts: bool
) -> None:
    """Turn counts into ln(1 + TPM) in place, and check the counts, or those behind ln(1 + TPM)."""
    block.sum_duplicates()
    block.eliminate_zeros()
    data = block.data
    cells = np.repeat(np.arange(len(obs)), np.diff(block.indptr))
    umi = obs["UMI_count"].to_numpy()
    wrong = ~np.isfinite(data) | (data < 0) | (has_counts & (data != np.round(data)))
    if wrong.any():
        i = int(wrong.argmax())
        message = (
            f"The source holds {data[i]:g} for gene {genes[block.indices[i]]!r} and cell "
            f"{obs.index[cells[i]]!r}, which is not a count: pass raw counts, or the output of "
            "perturb_cite_seq."
        )
        raise ValueError(message)
    counts = data if has_counts else require_whole(data, umi[cells], "The source", options)
    totals = np.bincount(cells, counts, len(umi))
    above = np.flatnonzero(totals > umi * (1 + 1e-5) + 1e-3)
    if options.verify and len(above):
        message = (
            f"The values of {len(above)} cells, such as {obs.index[above[0]]!r}, sum up to more "
            "UMI than the cell has: they do not agree with the UMI counts in obs. Correct these, "
            "or pass `verify=False` to load the values unchanged."
        )
        raise ValueError(message)
    if has_counts:
        block.data = np.log1p(data * 1e6 / umi[cells])
