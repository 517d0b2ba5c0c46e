"""The portal's files: where they lie, and what they say of the cells. Errors name the file."""

from __future__ import annotations

import logging
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import closest, list_names
from nextpert._warn import warn
from nextpert.datasets._scp1064.expression import WideTable, read_expression
from nextpert.datasets._scp1064.rows import Options, Study

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from nextpert.datasets._scp1064.rows import Entries

logger = logging.getLogger(__name__)
SUBSETS = ("1a", "1b_alpha", "1b_beta", "2", "3", "4")
NO_GUIDE, CONTROL_GUIDE = "no_guide", "control_guide"
_KINDS = {"NO_SITE": "no_site", "ONE_NON-GENE_SITE": "one_non-gene_site"}
_METADATA = ("library_preparation_protocol", "condition", "MOI", "sgRNA", "UMI_count")
_GUIDE = re.compile(r"(?P<target>.+)_\d+")


def read_portal(
    folder: str | os.PathLike[str], subset: str | Sequence[str] | None, options: Options
) -> tuple[Study, Iterator[Entries]]:
    """Read what a folder of the portal's files says of the cells; the matrix comes in entries.

    The files lie in the portal's folders, or anywhere else in the folder.

    Raises
    ------
    FileNotFoundError
        If the folder or a file needed is absent.
    ValueError
        If ``subset`` or a condition is unknown, a file exists twice or is damaged, or files are
        not of the same study.
    """
    root = Path(folder)
    if not root.is_dir():
        message = f"There is no folder or h5ad file {str(folder)!r}: pass where the study lies."
        raise FileNotFoundError(message)
    paths = _expression_files(root, subset)
    metadata = _table(_need(root, "RNA_metadata.csv"), "NAME", *_METADATA)
    assigned = _table(_need(root, "all_sgRNA_assignments.txt"), "Cell", "sgRNAs")
    obs, guides = _cells(metadata, assigned, verify=options.verify)
    tables = [WideTable(path) for path in paths]
    held = pd.Index([cell for table in tables for cell in table.cells])
    _require_same(held, obs.index, "The expression", part=subset is not None)
    kept = options.cells(obs["condition"]) & obs.index.isin(held)
    if not kept.any():
        message = (
            f"No cell of RNA_metadata.csv is of condition {options.condition!r} and in subset "
            f"{subset!r}: choose others."
        )
        raise ValueError(message)
    obsm: dict[str, Any] = {}
    if (path := _find(root, "RNA_UMAP_cluster.csv")) is None:
        logger.info("No RNA_UMAP_cluster.csv: the result has no obsm['X_umap']")
    else:
        umap = _table(path, "NAME", "X", "Y")
        _require_same(umap.index, obs.index, path.name)
        xy = umap.loc[obs.index[kept]]
        obsm["X_umap"] = np.column_stack([_numbers(xy, name) for name in "XY"]).astype(np.float32)
    raw, scaled, kind = "raw_CITE_expression.csv", "Protein_expression.csv", options.protein
    if kind is True:
        kind = "clr" if _find(root, raw) else "study" if _find(root, scaled) else False
        if not kind:
            logger.info("No file of proteins: the result has no obsm['protein']")
    if kind:
        path = _need(root, scaled if kind == "study" else raw, ", or pass `protein=False`")
        protein = _read_protein(path, str(kind))
        _require_same(protein.index, obs.index, path.name, part=True)
        obsm["protein"] = protein.reindex(obs.index[kept])
    names = np.array([path.name for path in paths], dtype=object)
    facts = {"source": "portal", "files": names, "protein": kind or "none"}
    study = Study(obs, guides, kept, list(options.genes or ()), obsm, facts)
    return study, read_expression(tables, study, options)


def _expression_files(root: Path, subset: str | Sequence[str] | None) -> list[Path]:
    """Return the one full file if it exists, and else the subset files, or those named."""
    full = _find(root, "RNA_expression.csv") if subset is None else None
    if full is not None:
        return [full]
    names = [subset] if isinstance(subset, str) else [*(SUBSETS if subset is None else subset)]
    unknown = [name for name in names if name not in SUBSETS]
    if unknown or not names or len(set(names)) < len(names):
        message = (
            f"subset must name some of {list_names(SUBSETS)}, each once, but is {names}."
            f"{closest(unknown, SUBSETS)}"
        )
        raise ValueError(message)
    return [_need(root, f"RNA_expression_subset{name}.csv", ", or name others") for name in names]


def _need(root: Path, name: str, instead: str = "") -> Path:
    path = _find(root, name)
    if path is None:
        message = (
            f"The folder {root.name!r} lacks '{name}' and '{name}.gz': download it from the "
            f"portal (SCP1064){instead}."
        )
        raise FileNotFoundError(message)
    return path


def _find(root: Path, name: str) -> Path | None:
    """Return a file's path; of a gzipped one and a plain copy of it, the first has a checksum."""
    for file in (f"{name}.gz", name):
        paths = [path for path in root.rglob(file) if path.is_file()]
        if len(paths) > 1:
            shown = list_names([str(path.relative_to(root)) for path in paths])
            message = f"The folder {root.name!r} holds {file!r} more than once: {shown}."
            raise ValueError(message)
        if paths:
            return paths[0]
    return None


def _table(path: Path, *columns: str) -> pd.DataFrame:
    """Return a csv file as text, without the portal's TYPE row; the first column names the rows."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (EOFError, OSError, ValueError, zlib.error) as error:
        message = f"{path.name!r} is no whole csv text in UTF-8 ({error})."
        raise ValueError(message) from error
    if absent := [name for name in columns if name not in table]:
        message = f"{path.name!r} lacks {list_names(absent)}. It holds {list_names(table.columns)}."
        raise ValueError(message)
    table = table[table[columns[0]] != "TYPE"].set_index(columns[0]).rename_axis(index=None)
    twice = table.index[table.index.duplicated()]
    if len(twice) or "" in table.index:
        message = f"{path.name!r} names {twice[0] if len(twice) else ''!r} in several rows."
        raise ValueError(message)
    table.attrs["file"] = path.name
    return table


def _numbers(table: pd.DataFrame, column: str, *, least: float = -np.inf) -> NDArray[np.float64]:
    """Return a column as finite numbers of at least ``least``."""
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= least)))
    if len(wrong):
        name, text = table.index[wrong[0]], table[column].iloc[wrong[0]]
        file = table.attrs["file"]
        message = f"{file!r} holds {text!r} as {column} of {name!r}, which is no such number."
        raise ValueError(message)
    return values


def _require_same(names: pd.Index, cells: pd.Index, file: str, *, part: bool = False) -> None:
    """Raise unless a file holds the cells of the metadata, each once; or a part of these."""
    twice = names[names.duplicated()]
    other = [*names.difference(cells), *([] if part else cells.difference(names))]
    if len(twice) or other:
        what = f"holds cells twice, such as {twice[0]!r}" if len(twice) else (
            f"and RNA_metadata.csv differ in {len(other)} cells, such as {other[0]!r}"
        )  # fmt: skip
        message = f"{file} {what}: are all files of the same study?"
        raise ValueError(message)


def _cells(
    metadata: pd.DataFrame, assigned: pd.DataFrame, *, verify: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the columns of ``obs``, and the table of guides."""
    _require_same(assigned.index, metadata.index, "all_sgRNA_assignments.txt")
    obs = metadata[["condition", "sgRNA"]].copy()
    obs["MOI"] = _numbers(metadata, "MOI", least=0).astype(np.int64)
    obs["UMI_count"] = _numbers(metadata, "UMI_count", least=1e-9)
    obs["library_preparation_protocol"] = metadata["library_preparation_protocol"]
    listed = assigned.loc[metadata.index, "sgRNAs"]
    called = [[name.strip() for name in text.split(",") if name.strip()] for text in listed]
    labels, guides = label_cells(called, obs.index, "all_sgRNA_assignments.txt")
    obs = obs.join(labels)
    differs = obs["MOI"] != obs["n_guides"]
    differs |= (obs["n_guides"] == 1) & (obs["sgRNA"] != obs["guides"].astype(str))
    if differs.any():
        message = (
            f"MOI or sgRNA of the metadata differ from the guides in all_sgRNA_assignments.txt for "
            f"{int(differs.sum())} cells, such as {obs.index[differs][0]!r}"
        )
        if verify:
            message += ": are both of the same study? Pass `verify=False` to go by the latter."
            raise ValueError(message)
        warn(f"{message}; the latter are used.")
    return obs, guides


def label_cells(
    called: Sequence[Sequence[str]], cells: pd.Index, where: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the columns of ``obs`` that follow from every cell's guides, and a table of guides.

    Guides are named ``TARGET_<number>``; gene names hold dashes, control names underscores.
    ``perturbation`` joins the sorted targets by ``+``; control guides beside targeting ones do
    not enter it.
    """
    names = sorted({name for some in called for name in some})
    matches = [_GUIDE.fullmatch(name) for name in names]
    unclear = [name for name, match in zip(names, matches, strict=True) if match is None]
    if unclear:
        message = (
            f"{where} holds guides that are not named 'TARGET_<number>': {list_names(unclear)}. "
            "Is this the study's list of guides?"
        )
        raise ValueError(message)
    stems = [match["target"] for match in matches if match is not None]
    targets = ["" if stem in _KINDS else stem for stem in stems]
    kinds = pd.Categorical([_KINDS.get(stem, "targeting") for stem in stems])
    index = pd.Index(names, name="guide")
    guides = pd.DataFrame({"target": targets, "kind": kinds}, index=index)
    target = dict(zip(names, targets, strict=True))
    hit = [sorted({target[name] for name in some} - {""}) for some in called]
    labels = {
        "guides": pd.Categorical([",".join(some) for some in called]),
        "perturbation": pd.Categorical([
            "+".join(genes) if genes else CONTROL_GUIDE if some else NO_GUIDE
            for genes, some in zip(hit, called, strict=True)
        ]),
        "n_guides": [len(some) for some in called],
        "n_targets": [len(genes) for genes in hit],
    }  # fmt: skip
    return pd.DataFrame(labels, index=cells), guides


def _read_protein(path: Path, kind: str) -> pd.DataFrame:
    """Return a table of cells x antibodies, in the order of the file.

    With ``kind="clr"``, counts :math:`c` become :math:`ln(1 + c)` minus its mean over the
    antibodies of the cell.
    """
    wide = WideTable(path)
    antibodies = {}
    for name, fields, values in wide.rows(least=-np.inf if kind == "study" else 0):
        if kind != "study" and (values != np.round(values)).any():
            raise wide.error("holds what is no whole count")
        antibodies[name.removesuffix(" protein")] = np.zeros(len(wide.cells))
        antibodies[name.removesuffix(" protein")][fields] = values
    table = pd.DataFrame(antibodies, index=wide.cells)
    if kind == "clr":
        logged = np.log1p(table.to_numpy())
        table[:] = logged - logged.mean(axis=1, keepdims=True)
    return table.astype(np.float32)
