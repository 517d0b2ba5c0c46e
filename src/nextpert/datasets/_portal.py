"""The study in the portal's files, which are read line by line; errors name file and line."""

from __future__ import annotations

import gzip
import logging
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert._adata import closest, list_names
from nextpert._adata.progress import progress
from nextpert.datasets._scp1064 import (
    Options,
    Study,
    centred_log_ratios,
    label_cells,
    require_whole,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Line = tuple[str, NDArray[np.int64], Array]

logger = logging.getLogger(__name__)
SUBSETS = ("1a", "1b_alpha", "1b_beta", "2", "3", "4")
_METADATA = ("library_preparation_protocol", "condition", "MOI", "sgRNA", "UMI_count")
_MAX_VALUE = float(np.log1p(1e6)) + 1e-6  # all of a cell's reads on one gene
_SUM_TOLERANCE = 10.0  # how far a sum of TPM may be from a million, because values are rounded
_ZEROS = (b"0", b"0.0")  # most fields


def read_portal(
    folder: str | os.PathLike[str], subset: str | Sequence[str] | None, options: Options
) -> Study:
    """Read the portal's files, in its own or any other subfolders of ``folder``."""
    root = Path(folder)
    if not root.is_dir():
        message = f"There is no folder or h5ad file {str(folder)!r}: pass the path of the study."
        raise FileNotFoundError(message)
    paths = _expression_files(root, subset)
    metadata = _table(_need(root, "RNA_metadata.csv"), "NAME", *_METADATA)
    assigned = _table(_need(root, "all_sgRNA_assignments.txt"), "Cell", "sgRNAs")
    obs, guides = _cells(metadata, assigned, verify=options.verify)
    tables = [WideTable(path) for path in paths]
    cells = pd.Index([cell for table in tables for cell in table.cells])
    _require_same(cells, obs.index, "The expression", part=subset is not None)
    is_requested = options.cells(obs["condition"]) & obs.index.isin(cells)
    if not is_requested.any():
        message = (
            f"No cell has the condition {options.condition!r} in subset {subset!r}: choose another "
            f"subset or condition."
        )
        raise ValueError(message)
    obsm: dict[str, pd.DataFrame] = {}
    path = _find(root, "raw_CITE_expression.csv")
    if path is not None:
        protein = _read_protein(path)
        _require_same(protein.index, obs.index, path.name, part=True)
        obsm["protein"] = protein.reindex(obs.index[is_requested])
    names = np.array([file.name for file in paths], dtype=object)
    study = Study(obs, guides, is_requested, {"source": "portal", "files": names}, obsm=obsm)
    _read_expression(tables, study, options)
    return study


def _expression_files(root: Path, subset: str | Sequence[str] | None) -> list[Path]:
    """Return the full file if it exists and no subset is named, and otherwise the subset files."""
    full = _find(root, "RNA_expression.csv") if subset is None else None
    if full is not None:
        return [full]
    names = [subset] if isinstance(subset, str) else [*(SUBSETS if subset is None else subset)]
    unknown = [name for name in names if name not in SUBSETS]
    if unknown or not names or len(set(names)) < len(names):
        message = f"subset must name some of {list_names(SUBSETS)}, each once, but is {names}."
        raise ValueError(message)
    instead = ", or name other subsets"
    return [_need(root, f"RNA_expression_subset{name}.csv", instead) for name in names]


def _need(root: Path, name: str, instead: str = "") -> Path:
    path = _find(root, name)
    if path is None:
        message = (
            f"{root.name!r} lacks '{name}.gz': download it from the portal (SCP1064){instead}."
        )
        raise FileNotFoundError(message)
    return path


def _find(root: Path, name: str) -> Path | None:
    """Return a file's path: the gzipped file, which has a checksum, rather than a plain copy."""
    for file in (f"{name}.gz", name):
        paths = [path for path in root.rglob(file) if path.is_file()]
        if len(paths) > 1:
            shown = list_names([str(path.relative_to(root)) for path in paths])
            message = f"The folder {root.name!r} has several files {file!r}: {shown}. Keep one."
            raise ValueError(message)
        if paths:
            return paths[0]
    return None


def _table(path: Path, *columns: str) -> pd.DataFrame:
    """Return a csv file as text, without the portal's TYPE row; the first column names the rows."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (EOFError, OSError, ValueError, zlib.error) as error:
        message = f"{path.name!r} is not a complete csv file in UTF-8 ({error}): download it again."
        raise ValueError(message) from error
    if absent := [name for name in columns if name not in table]:
        message = (
            f"{path.name!r} lacks {list_names(absent)}; its columns are "
            f"{list_names(table.columns)}. Download it again."
        )
        raise ValueError(message)
    table = table[table[columns[0]] != "TYPE"].set_index(columns[0]).rename_axis(index=None)
    twice = table.index[table.index.duplicated()]
    if len(twice):
        message = f"{path.name!r} has more than one row named {twice[0]!r}: download it again."
        raise ValueError(message)
    if "" in table.index:
        raise ValueError(f"{path.name!r} has a row without a name: download it again.")
    table.attrs["file"] = path.name
    return table


def _numbers(table: pd.DataFrame, column: str, *, minimum: float = -np.inf) -> NDArray[np.float64]:
    """Return a column as finite numbers of at least ``minimum``."""
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= minimum)))
    if len(wrong):
        name, text = table.index[wrong[0]], table[column].iloc[wrong[0]]
        file = table.attrs["file"]
        message = (
            f"{file!r} holds {text!r} as {column} of {name!r}, which is not a valid number: "
            f"download it again."
        )
        raise ValueError(message)
    return values


def _require_same(names: pd.Index, cells: pd.Index, file: str, *, part: bool = False) -> None:
    """Raise unless a file holds each cell of the metadata once, or with ``part`` some of them."""
    twice = names[names.duplicated()]
    other = [*names.difference(cells), *([] if part else cells.difference(names))]
    if len(twice) or other:
        problem = f"holds cells twice, such as {twice[0]!r}" if len(twice) else ""
        if not problem:
            problem = f"and RNA_metadata.csv differ in {len(other)} cells, such as {other[0]!r}"
        message = f"{file} {problem}: use files of the same study."
        raise ValueError(message)


def _cells(
    metadata: pd.DataFrame, assigned: pd.DataFrame, *, verify: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the columns of ``obs``, and the table of guides."""
    _require_same(assigned.index, metadata.index, "all_sgRNA_assignments.txt")
    obs = metadata[["condition", "sgRNA"]].copy()
    obs["MOI"] = _numbers(metadata, "MOI", minimum=0).astype(np.int64)
    obs["UMI_count"] = _numbers(metadata, "UMI_count", minimum=1e-9)
    obs["library_preparation_protocol"] = metadata["library_preparation_protocol"]
    listed = assigned.loc[metadata.index, "sgRNAs"]
    labels, guides = label_cells(listed, "all_sgRNA_assignments.txt")
    obs = obs.join(labels)
    differs = obs["MOI"] != obs["n_guides"]
    differs |= (obs["n_guides"] == 1) & (obs["sgRNA"] != obs["guides"].astype(str))
    if verify and differs.any():
        message = (
            f"MOI or sgRNA of {int(differs.sum())} cells, such as {obs.index[differs][0]!r}, "
            f"differ from all_sgRNA_assignments.txt: pass `verify=False` to use the latter."
        )
        raise ValueError(message)
    return obs, guides


class WideTable:
    """A csv file with a column per cell, gzipped or not: ``cells``, and the ``line`` read last."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line = 1
        header = next(self._lines(), b"")
        try:
            corner, *self.cells = header.decode("utf-8-sig").replace('"', "").split(",")
        except UnicodeDecodeError as error:
            raise self.error("is not a line of names") from error
        twice = pd.Index(self.cells)
        twice = twice[twice.duplicated()]
        if corner.upper() not in ("GENE", "PROTEIN", "") or not self.cells or "" in self.cells:
            raise self.error("does not begin with GENE and names of cells")
        if len(twice):
            raise self.error(f"names cell {twice[0]!r} twice")

    def error(self, problem: str) -> ValueError:
        """Return an error about the line read last."""
        return ValueError(
            f"{self.path.name!r}, line {self.line} {problem}: download the file again."
        )

    def rows(self, bar: Any = None, maximum: float = _MAX_VALUE) -> Iterator[Line]:
        """Yield every line's name, its fields that are not zero, and their values.

        Values above ``maximum`` are errors. The progress bar advances by the bytes read.
        """
        lines = self._lines(bar)
        next(lines)
        names: set[str] = set()
        for self.line, line in enumerate(lines, 2):
            first, *texts = line.split(b",")
            if len(texts) != len(self.cells):
                n_cells = len(self.cells)
                raise self.error(f"holds {len(texts)} values, not one for each of {n_cells} cells")
            name = first.decode("utf-8", "replace").strip('"')
            if not name or name in names:
                raise self.error(f"begins with {name!r}, which is empty or names an earlier line")
            names.add(name)
            fields = np.array([i for i, text in enumerate(texts) if text not in _ZEROS], np.int64)
            try:
                values = np.array([float(texts[i]) for i in fields])
            except ValueError as error:
                raise self.error(f"holds a value that is not a number ({error})") from error
            wrong = np.flatnonzero(~((values >= 0) & (values <= maximum)))
            if len(wrong):
                problem = f"holds {values[wrong[0]]:g} for cell {self.cells[fields[wrong[0]]]!r}"
                raise self.error(f"{problem}, which is not between 0 and {maximum:.4g}")
            yield name, fields[values != 0], values[values != 0]
        if self.line == 1:
            raise self.error("is the only line")

    def _lines(self, bar: Any = None) -> Iterator[bytes]:
        with self.path.open("rb") as raw:
            opened: Any = gzip.GzipFile(fileobj=raw) if self.path.suffix == ".gz" else raw
            try:
                for line in opened:
                    yield line.rstrip(b"\r\n")
                    if bar is not None:
                        bar.update(raw.tell() - bar.n)
            except (EOFError, OSError, zlib.error) as error:
                raise self.error(f"is followed by a damaged part ({error})") from error


def _read_protein(path: Path) -> pd.DataFrame:
    """Return cells x antibodies, as :func:`centred_log_ratios` of the raw counts."""
    wide = WideTable(path)
    counts = {}
    for name, fields, values in wide.rows(maximum=1e9):
        if (values != np.round(values)).any():
            raise wide.error("holds a value that is not a count")
        counts[name.removesuffix(" protein")] = column = np.zeros(len(wide.cells))
        column[fields] = values
    return centred_log_ratios(pd.DataFrame(counts, index=wide.cells))


def _read_expression(tables: Sequence[WideTable], study: Study, options: Options) -> None:
    """Read tables of genes x cells, and add their genes and values to the study.

    Tables without a requested cell are skipped.
    """
    genes: list[str] = []  # of the first table
    blocks, places = [], []
    for table in tables:
        rows = study.obs.index.get_indexer(pd.Index(table.cells))
        if not study.is_requested[rows].any():
            continue
        x, measured = _read_table(table, rows, study, options)
        genes = genes or measured
        requested = options.genes or genes
        at = pd.Index(measured).get_indexer(pd.Index(requested))
        if unknown := [gene for gene, column in zip(requested, at, strict=True) if column < 0]:
            message = f"{table.path.name!r} lacks the genes {list_names(unknown)}."
            raise ValueError(message + closest(unknown, measured))
        if other := sorted(set(measured) ^ set(genes)):
            message = (
                f"{table.path.name!r} and the first file differ in the genes {list_names(other)}: "
                f"use files of the same study."
            )
            raise ValueError(message)
        blocks.append(x[:, at])
        places.append(rows[study.is_requested[rows]])
    study.facts["n_genes_study"] = len(genes)
    study.genes = options.genes or genes
    study.x = sp.vstack(blocks, "csr")[np.argsort(np.concatenate(places))]
    study.x.sort_indices()


def _read_table(
    table: WideTable, rows: NDArray[np.int64], study: Study, options: Options
) -> tuple[sp.csr_matrix, list[str]]:
    """Return ln(1 + TPM) of the requested cells, and the genes; ``rows`` is the row of each cell.

    Genes that are not requested are checked, but have no values.
    """
    is_requested = study.is_requested[rows]
    umi = study.obs["UMI_count"].to_numpy(np.float64)[rows]
    row = np.where(is_requested, np.cumsum(is_requested) - 1, -1)
    genes: list[str] = []
    sums = np.zeros(len(rows))
    requested = set(options.genes or ())
    data, indices, indptr = [np.empty(0, np.float32)], [np.empty(0, np.int32)], [0]
    with progress(table.path.stat().st_size, "Expression", unit="B", unit_scale=True) as bar:
        for gene, fields, values in table.rows(bar):
            sums[fields] += np.expm1(values)
            where = f"{table.path.name!r}, line {table.line},"
            require_whole(values, umi[fields], where, options)
            is_used = (row[fields] >= 0) & (gene in requested or not requested)
            data.append(values[is_used].astype(np.float32))
            indices.append(row[fields[is_used]].astype(np.int32))
            indptr.append(indptr[-1] + int(is_used.sum()))
            genes.append(gene)
    off = np.abs(sums - 1e6)
    if options.verify and not (off <= _SUM_TOLERANCE).all():
        worst = int(off.argmax())
        message = (
            f"{table.path.name!r}: TPM of cell {table.cells[worst]!r} sum to {sums[worst]:.2f}, "
            f"not a million. Download the file again, or pass `verify=False` to load its values "
            f"unchanged."
        )
        raise ValueError(message)
    parts = (np.concatenate(data), np.concatenate(indices), np.array(indptr))
    return sp.csc_matrix(parts, shape=(int(is_requested.sum()), len(genes))).tocsr(), genes
