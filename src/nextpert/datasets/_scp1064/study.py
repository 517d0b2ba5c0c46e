"""The portal's files to one AnnData."""

from __future__ import annotations

import logging
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import closest, list_names
from nextpert._files import writing_to
from nextpert._warn import warn
from nextpert.datasets._scp1064 import h5ad, protein, store, tables
from nextpert.datasets._scp1064.expression import GeneColumns, read_expression
from nextpert.datasets._scp1064.files import find_files
from nextpert.datasets._scp1064.labels import guide_table, perturbation_columns
from nextpert.datasets._scp1064.matrix import MatrixReader

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from anndata import AnnData

    from nextpert.datasets._scp1064.files import PortalFiles

logger = logging.getLogger(__name__)
CONDITIONS = ("Control", "IFNγ", "Co-culture")
COLUMNS = (
    "condition", "MOI", "sgRNA", "guides", "UMI_count", "library_preparation_protocol",
    "perturbation", "n_guides", "n_targets",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What the caller asks for."""

    condition: str | Sequence[str] | None
    genes: Sequence[str] | None
    counts: bool
    backed: str | os.PathLike[str] | None
    show_progress: bool
    verify: bool


def read_portal(
    folder: str | os.PathLike[str],
    wanted: Wanted,
    *,
    subset: str | Sequence[str] | None,
    protein_kind: bool | str,
) -> AnnData:
    """Read a folder of the portal's files."""
    genes = GeneColumns(wanted.genes)
    files = find_files(folder, subset, protein_kind)
    metadata = tables.read_table(
        files.metadata,
        [name for name in tables.METADATA if name != "library_preparation_protocol"],
        optional=["library_preparation_protocol"],
    )
    assigned = tables.read_table(files.guides, ["Cell", "sgRNAs"])
    study = tables.cell_columns(metadata)
    order = tables.align(assigned, metadata.names, metadata.file)
    called = tables.split_guides(assigned)
    guides = guide_table({name for some in called for name in some}, repr(assigned.file))
    labels = perturbation_columns([called[i] for i in order], guides)
    study = study.join(labels.set_index(study.index))
    _compare_guides(study, assigned.file, verify=wanted.verify)
    with ExitStack() as stack:
        readers = [stack.enter_context(MatrixReader(path)) for path in files.expression]
        keep = in_condition(study["condition"], wanted.condition)
        keep &= _cells_in_files(readers, metadata.file, study.index, is_whole=files.is_whole)
        rows = study.index[keep]
        if not len(rows):
            message = (
                f"No cell of {metadata.file!r} is of condition {wanted.condition!r} and in subset "
                f"{subset!r}: choose others."
            )
            raise ValueError(message)
        facts: dict[str, Any] = {
            "source": "portal",
            "files": np.array([path.name for path in files.expression], dtype=object),
            "protein": files.protein_kind or "none",
        }

        def fill(rows_of_cells: store.RowStore) -> None:
            read_expression(
                readers, study, {name: i for i, name in enumerate(rows)}, genes, rows_of_cells,
                counts=wanted.counts, verify=wanted.verify, show_progress=wanted.show_progress,
            )  # fmt: skip
            facts["n_genes_study"] = genes.n_seen

        obsm = _embeddings(files, rows, study.index)
        return assemble(study, rows, genes, fill, wanted, facts, obsm=obsm, guides=guides)


def assemble(
    study: pd.DataFrame,
    rows: pd.Index,
    genes: GeneColumns,
    fill: Callable[[store.RowStore], None],
    wanted: Wanted,
    facts: dict[str, Any],
    *,
    obsm: dict[str, Any],
    guides: pd.DataFrame,
) -> AnnData:
    """Fill a store of rows and return the AnnData, in memory or backed by a file."""
    import anndata as ad

    target = None if wanted.backed is None else Path(wanted.backed)
    with nullcontext() if target is None else writing_to(target):
        cells = store.RowStore(
            len(rows), counts=wanted.counts, folder=None if target is None else target.parent
        )
    try:
        fill(cells)
        skeleton = ad.AnnData(
            obs=_tidy(study.loc[rows, list(COLUMNS)]),
            var=pd.DataFrame(index=pd.Index(genes.names)),
            obsm=obsm,
            uns={"guides": guides, "perturb_cite_seq": facts | _facts(study, wanted)},
        )
        logger.info("%d cells x %d genes", skeleton.n_obs, skeleton.n_vars)
        if target is None:
            matrices = store.in_memory(cells, len(genes.names), is_sorted=genes.is_sorted)
            skeleton.X = matrices[0]
            if wanted.counts:
                skeleton.layers["counts"] = matrices[1]
            return skeleton
        with h5ad.part_file(target) as part:
            h5ad.write_rows(part, skeleton, cells, is_sorted=genes.is_sorted)
    finally:
        cells.close()
    return h5ad.open_backed(target)


def _tidy(obs: pd.DataFrame) -> pd.DataFrame:
    """Return the columns with the categories that occur; conditions in the study's order."""
    obs = obs.copy()
    found = set(obs["condition"])
    known = [name for name in CONDITIONS if name in found]
    categories = [*known, *sorted(found - set(known))]
    obs["condition"] = pd.Categorical(obs["condition"], categories=categories)
    for name in ("sgRNA", "guides", "library_preparation_protocol", "perturbation"):
        obs[name] = obs[name].astype("category").cat.remove_unused_categories()
    return obs


def _facts(study: pd.DataFrame, wanted: Wanted) -> dict[str, Any]:
    return {
        "accession": "SCP1064",
        "doi": "10.1038/s41588-021-00779-1",
        "values": "ln(1 + TPM)",
        "n_cells_study": len(study),
        "counts": bool(wanted.counts),
        "verified": bool(wanted.verify),
    }


def in_condition(column: pd.Series, condition: str | Sequence[str] | None) -> np.ndarray:
    """Return which cells are of the wanted conditions, all for ``None``."""
    if condition is None:
        return np.ones(len(column), dtype=bool)
    names = [condition] if isinstance(condition, str) else [str(name) for name in condition]
    found = list(dict.fromkeys(column))
    unknown = [name for name in names if name not in found]
    if unknown or not names:
        message = (
            f"No cells of condition {list_names(unknown) or '[]'}.{closest(unknown, found)} The "
            f"conditions are {list_names(found)}."
        )
        raise ValueError(message)
    return np.array(column.isin(names))


def _compare_guides(study: pd.DataFrame, file: str, *, verify: bool) -> None:
    """Raise or warn where the metadata's number of guides or single guide is not the list's."""
    single = study["n_guides"] == 1
    named = study["sgRNA"].astype(str)
    differs = study["MOI"] != study["n_guides"]
    differs |= (named != "") & (named != study["guides"].astype(str))
    differs |= single & (named == "")
    if differs.any():
        message = (
            f"MOI or sgRNA of the metadata differ from the guides in {file!r} for "
            f"{int(differs.sum())} cells, such as {study.index[differs][0]!r}"
        )
        if verify:
            message += ": are both of the same study? Pass `verify=False` to go by the latter."
            raise ValueError(message)
        warn(f"{message}; the latter are used.")


def _cells_in_files(
    readers: Sequence[MatrixReader], metadata: str, study: pd.Index, *, is_whole: bool
) -> np.ndarray:
    """Return which cells of the metadata the expression files hold, each once."""
    held = np.zeros(len(study), dtype=bool)
    for reader in readers:
        place = study.get_indexer(pd.Index(reader.cells))
        if (place < 0).any():
            other = [reader.cells[j] for j in np.flatnonzero(place < 0)]
            what = (
                f"names {len(other)} cells that {metadata!r} lacks: {list_names(other, limit=3)}. "
                "Are both files of the same study?"
            )
            raise reader.error(what, line=1)
        if held[place].any():
            twice = study[place[held[place]]]
            what = f"names cells that another file holds too: {list_names(twice, limit=3)}"
            raise reader.error(what, line=1)
        held[place] = True
    if is_whole and not held.all():
        absent = study[~held]
        names = list_names([reader.path.name for reader in readers])
        message = (
            f"{names} lack {len(absent)} cells of {metadata!r}, such as {absent[0]!r}: are the "
            "files of the same study?"
        )
        raise ValueError(message)
    return held


def _embeddings(files: PortalFiles, rows: pd.Index, study: pd.Index) -> dict[str, Any]:
    obsm: dict[str, Any] = {}
    if files.umap is None:
        logger.info("No RNA_UMAP_cluster.csv: the result has no obsm['X_umap']")
    else:
        umap = tables.read_table(files.umap, ["NAME", "X", "Y"])
        order = np.array(tables.align(umap, list(study), "the metadata"))
        xy = np.column_stack([umap.numbers(name, whole=False) for name in ("X", "Y")])
        obsm["X_umap"] = xy[order[study.get_indexer(rows)]].astype(np.float32)
    if files.protein is not None:
        found = protein.read_protein(files.protein, counts=files.protein_kind != "study")
        if files.protein_kind == "clr":
            found = protein.centred_log_ratio(found)
        obsm["protein"] = protein.align_protein(found, rows, study, repr(files.protein.name))
    return obsm
