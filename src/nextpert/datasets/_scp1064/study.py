"""The portal's files to one AnnData: where they lie, what guides target, which are controls."""

from __future__ import annotations

import logging
import re
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import closest, list_names
from nextpert._files import writing_to
from nextpert._warn import warn
from nextpert.datasets._scp1064 import store, tables
from nextpert.datasets._scp1064 import store as h5ad
from nextpert.datasets._scp1064 import tables as protein
from nextpert.datasets._scp1064.expression import GeneColumns, read_expression
from nextpert.datasets._scp1064.matrix import MatrixReader

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from anndata import AnnData


SUBSETS = ("1a", "1b_alpha", "1b_beta", "2", "3", "4")
_DEEPEST = 4  # cluster/<number>/file, in a folder SCP1064


@dataclass(frozen=True)
class PortalFiles:
    """Paths of the study's files; ``None`` for those not there or not asked for.

    Parameters
    ----------
    expression
        The full expression file, or subset files.
    is_whole
        Whether these files together are to hold every cell of the study.
    protein, protein_kind
        Protein file and what to make of it: ``"clr"``, ``"counts"`` or ``"study"``.
    """

    expression: list[Path]
    is_whole: bool
    metadata: Path
    guides: Path
    umap: Path | None
    protein: Path | None
    protein_kind: str | None


def find_files(
    folder: str | os.PathLike[str], subset: str | Sequence[str] | None, protein: bool | str
) -> PortalFiles:
    """Find the files in the portal's folders, or anywhere up to four folders deep.

    Raises
    ------
    FileNotFoundError
        If the folder or a file needed is absent.
    ValueError
        If ``subset`` is unknown, or a file is there twice.
    """
    root = Path(folder)
    if not root.is_dir():
        message = f"There is no folder or h5ad file {str(folder)!r}: pass where the study lies."
        raise FileNotFoundError(message)
    expression, is_whole = _expression(root, subset)
    kind = protein if isinstance(protein, str) else "clr" if protein else None
    path = None
    if kind is not None:
        raw, study = _find(root, "raw_CITE_expression.csv"), _find(root, "Protein_expression.csv")
        if protein is True and raw is None and study is not None:
            kind = "study"
        path = study if kind == "study" else raw
        if path is None:
            name = "Protein" if kind == "study" else "raw_CITE"
            message = (
                f"The folder {root.name!r} lacks {name}_expression.csv.gz: download it from the "
                "portal (SCP1064), or pass `protein=False`."
            )
            raise FileNotFoundError(message)
    return PortalFiles(
        expression, is_whole, _need(root, "RNA_metadata.csv"),
        _need(root, "all_sgRNA_assignments.txt"), _find(root, "RNA_UMAP_cluster.csv"), path, kind,
    )  # fmt: skip


def _expression(root: Path, subset: str | Sequence[str] | None) -> tuple[list[Path], bool]:
    if subset is None:
        full = _find(root, "RNA_expression.csv")
        if full is not None:
            return [full], True
        found = {name: _find(root, f"RNA_expression_subset{name}.csv") for name in SUBSETS}
        absent = [name for name, path in found.items() if path is None]
        if absent:
            message = (
                f"The folder {root.name!r} holds neither RNA_expression.csv.gz nor all six "
                f"RNA_expression_subset*.csv.gz (missing: {list_names(absent)}): download them "
                "from the portal (SCP1064), or name the subsets there are with `subset`."
            )
            raise FileNotFoundError(message)
        return [path for path in found.values() if path is not None], True
    names = [subset] if isinstance(subset, str) else [str(name) for name in subset]
    unknown = [name for name in names if name not in SUBSETS]
    if unknown or not names or len(set(names)) < len(names):
        message = (
            f"subset must name some of {list_names(SUBSETS)}, each once, but is {names}."
            f"{closest(unknown, SUBSETS)}"
        )
        raise ValueError(message)
    paths = [_need(root, f"RNA_expression_subset{name}.csv") for name in names]
    return paths, set(names) == set(SUBSETS)


def _need(root: Path, name: str) -> Path:
    found = _find(root, name)
    if found is None:
        message = (
            f"The folder {root.name!r} lacks {name!r} (or the same with .gz): download it from "
            "the portal (SCP1064)."
        )
        raise FileNotFoundError(message)
    return found


def _find(root: Path, name: str) -> Path | None:
    """Return a file's path; of a gzipped one and a plain copy of it, the first has a checksum."""
    for wanted in (f"{name}.gz", name):
        found = [p for depth in range(_DEEPEST) for p in root.glob("*/" * depth + wanted)]
        found = [path for path in found if path.is_file()]
        if len(found) > 1:
            shown = list_names([str(path.relative_to(root)) for path in found])
            message = f"The folder {root.name!r} holds {wanted!r} more than once: {shown}."
            raise ValueError(message)
        if found:
            return found[0]
    return None


NO_GUIDE, CONTROL_GUIDE = "no_guide", "control_guide"
_KINDS = {"NO_SITE": "no_site", "ONE_NON-GENE_SITE": "one_non-gene_site"}
_GUIDE = re.compile(r"(?P<target>.+)_\d+")


def guide_table(guides: Iterable[str], where: str) -> pd.DataFrame:
    """Return target and kind of every guide, sorted by name.

    Guides are named ``TARGET_<number>``; gene names hold dashes, control names underscores.
    """
    names = sorted(set(guides))
    found = [_GUIDE.fullmatch(name) for name in names]
    unclear = [name for name, match in zip(names, found, strict=True) if match is None]
    if unclear:
        message = (
            f"{where} holds guides that are not named 'TARGET_<number>': {list_names(unclear)}. "
            "Is this the study's list of guides?"
        )
        raise ValueError(message)
    stems = [match["target"] for match in found if match is not None]
    kinds = [_KINDS.get(stem, "targeting") for stem in stems]
    targets = ["" if stem in _KINDS else stem for stem in stems]
    index = pd.Index(names, name="guide")
    return pd.DataFrame({"target": targets, "kind": pd.Categorical(kinds)}, index=index)


def perturbation_columns(guides: Sequence[Sequence[str]], table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of ``obs`` that follow from every cell's guides.

    ``perturbation`` joins the sorted targets by ``+``; control guides beside targeting ones do
    not enter it.
    """
    target = dict(zip(table.index, table["target"], strict=True))
    hit = [sorted({target[name] for name in some} - {""}) for some in guides]
    labels = [
        "+".join(names) if names else CONTROL_GUIDE if some else NO_GUIDE
        for names, some in zip(hit, guides, strict=True)
    ]
    return pd.DataFrame(
        {
            "guides": pd.Categorical([",".join(some) for some in guides]),
            "perturbation": pd.Categorical(labels),
            "n_guides": [len(some) for some in guides],
            "n_targets": [len(names) for names in hit],
        }
    )


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
            matrices = store.in_memory(cells, len(genes.names))
            skeleton.X = matrices[0]
            if wanted.counts:
                skeleton.layers["counts"] = matrices[1]
            return skeleton
        with h5ad.part_file(target) as part:
            h5ad.write_rows(part, skeleton, cells)
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
