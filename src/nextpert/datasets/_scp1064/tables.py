"""The study's tables of cells: metadata, guides, embedding, protein. Errors name file and line."""

from __future__ import annotations

import csv
import gzip
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert._adata import list_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


def read_protein(path: Path, *, counts: bool) -> pd.DataFrame:
    """Return a table of cells x antibodies, in the order of the file.

    Raises
    ------
    ValueError
        If a row is too short or too long, a cell or antibody is given twice, or a value is no
        finite number (no count, with ``counts``).
    """
    rows = _rows(path)
    header = next(rows, (0, []))[1]
    cells = header[1:]
    if not cells or header[0] not in ("", "Protein") or len(set(cells)) < len(cells):
        message = f"{path.name!r}, line 1 does not hold the names of cells, each once."
        raise ValueError(message)
    values: dict[str, np.ndarray] = {}
    for line, fields in rows:
        name = fields[0].removesuffix(" protein")
        if not name or name in values:
            message = f"{path.name!r}, line {line} names {name!r}: each antibody needs one name."
            raise ValueError(message)
        values[name] = _numbers(fields[1:], f"{path.name!r}, line {line}", cells, counts=counts)
    if not values:
        message = f"{path.name!r} holds no row beside its header."
        raise ValueError(message)
    return pd.DataFrame(values, index=pd.Index(cells))


def _numbers(
    fields: Sequence[str], where: str, cells: Sequence[str], *, counts: bool
) -> np.ndarray:
    try:
        values = np.array(fields, dtype=np.float64)
    except ValueError:
        values = pd.to_numeric(pd.Series(fields, dtype=object), errors="coerce").to_numpy(float)
    wrong = ~np.isfinite(values)
    if counts:
        wrong |= (values < 0) | (values != np.round(values))
    if wrong.any():
        i = int(np.argmax(wrong))
        kind = "count" if counts else "finite number"
        message = f"{where} holds {fields[i]!r} for cell {cells[i]!r}, which is no {kind}."
        raise ValueError(message)
    return values


def centred_log_ratio(counts: pd.DataFrame) -> pd.DataFrame:
    """Return ``ln(1 + count)`` minus its mean over the antibodies of the cell."""
    logged = np.log1p(counts.to_numpy(dtype=np.float64))
    logged -= logged.mean(axis=1, keepdims=True)
    return pd.DataFrame(logged, index=counts.index, columns=counts.columns)


def align_protein(
    protein: pd.DataFrame, cells: pd.Index, study: pd.Index, where: str
) -> pd.DataFrame:
    """Return the rows of ``cells``, NaN where absent; cells outside the study are an error."""
    other = protein.index.difference(study)
    if len(other):
        message = (
            f"{where} holds {len(other)} cells that the metadata lacks, such as {other[0]!r}: "
            "are both files of the same study?"
        )
        raise ValueError(message)
    return protein.reindex(cells).astype(np.float32)


METADATA = ("NAME", "library_preparation_protocol", "condition", "MOI", "sgRNA", "UMI_count")


@dataclass(frozen=True)
class Table:
    """Rows of a csv file by their first column.

    Parameters
    ----------
    file
        Its name.
    columns
        Values of every column of the header, as text.
    lines
        Line of every row.
    """

    file: str
    columns: dict[str, list[str]]
    lines: list[int]

    @property
    def names(self) -> list[str]:
        """The first column."""
        return next(iter(self.columns.values()))

    def numbers(self, column: str, *, whole: bool, least: float = -np.inf) -> NDArray[np.float64]:
        """Return a column as finite numbers of at least ``least``; ``whole`` ones if asked."""
        values = np.empty(len(self.lines))
        for i, text in enumerate(self.columns[column]):
            try:
                values[i] = float(text)
            except ValueError:
                values[i] = np.nan
        wrong = ~np.isfinite(values) | (values < least)
        if whole:
            wrong |= values != np.round(values)
        if wrong.any():
            i = int(np.argmax(wrong))
            kind = ("whole " if whole else "") + "number"
            kind += f" of at least {least:g}" if np.isfinite(least) else ""
            message = (
                f"{self.file!r}, line {self.lines[i]} holds {self.columns[column][i]!r} as "
                f"{column}, which is no {kind}."
            )
            raise ValueError(message)
        return values


def read_table(path: Path, needed: Sequence[str], *, optional: Sequence[str] = ()) -> Table:
    """Read a csv file of unique names; the portal's TYPE row is skipped.

    Raises
    ------
    ValueError
        If a column is absent, a row is too short or too long, a name is empty or given twice,
        or the file is no readable text.
    """
    rows = _rows(path)
    header = [field.strip() for field in next(rows, (0, []))[1]]
    absent = [name for name in needed if name not in header]
    if absent or len(set(header)) < len(header):
        message = (
            f"{path.name!r}, line 1: the header lacks {list_names(absent)}."
            if absent
            else f"{path.name!r}, line 1: a column is named twice."
        )
        raise ValueError(f"{message} It holds {list_names(header) or 'nothing'}.")
    place = {name: header.index(name) for name in (*needed, *optional) if name in header}
    first: dict[str, int] = {}
    kept = []
    for line, fields in rows:
        name = fields[place[needed[0]]]
        if not first and line == 2 and name == "TYPE":
            continue
        if not name or name in first:
            what = f"as line {first[name]} does" if name else "which is no name"
            message = f"{path.name!r}, line {line} names cell {name!r}, {what}."
            raise ValueError(message)
        first[name] = line
        kept.append(fields)
    if not first:
        message = f"{path.name!r} holds no row beside its header."
        raise ValueError(message)
    columns = {name: [fields[j] for fields in kept] for name, j in place.items()}
    return Table(path.name, columns, list(first.values()))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of every row of a csv file, gzipped or not, all as long."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    opened = gzip.open if is_gzip else open
    line, n = 0, 0
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            for fields in reader:
                line = reader.line_num
                if not fields:
                    continue
                n = n or len(fields)
                if len(fields) != n:
                    message = (
                        f"{path.name!r}, line {line} holds {len(fields)} fields, but the header "
                        f"{n}: is the file truncated?"
                    )
                    raise ValueError(message)
                yield line, fields
    except (EOFError, OSError, zlib.error) as error:
        message = f"{path.name!r}, after line {line}: it is truncated or corrupted ({error})."
        raise ValueError(message) from error
    except (UnicodeDecodeError, csv.Error) as error:
        message = f"{path.name!r}, after line {line}: it is no csv text in UTF-8 ({error})."
        raise ValueError(message) from error


def align(table: Table, cells: Sequence[str], whose: str) -> list[int]:
    """Return for every cell the table's row; both must hold the same cells.

    Raises
    ------
    ValueError
        If one of them holds cells that the other lacks.
    """
    row = {name: i for i, name in enumerate(table.names)}
    absent = [name for name in cells if name not in row]
    known = set(cells)
    other = [i for i, name in enumerate(table.names) if name not in known]
    if absent or other:
        parts = []
        if other:
            shown = list_names([table.names[i] for i in other], limit=3)
            parts.append(
                f"line {table.lines[other[0]]} and others name cells not in {whose}: {shown}"
            )
        if absent:
            parts.append(f"cells of {whose} are missing: {list_names(absent, limit=3)}")
        message = f"{table.file!r}: {'; '.join(parts)}. Are both files of the same study?"
        raise ValueError(message)
    return [row[name] for name in cells]


def cell_columns(metadata: Table) -> pd.DataFrame:
    """Return the columns of ``obs`` that the metadata gives, indexed by cell."""
    missing = [i for i, name in enumerate(metadata.columns["condition"]) if not name]
    if missing:
        message = f"{metadata.file!r}, line {metadata.lines[missing[0]]} gives no condition."
        raise ValueError(message)
    return pd.DataFrame(
        {
            "condition": metadata.columns["condition"],
            "MOI": metadata.numbers("MOI", whole=True, least=0).astype(np.int64),
            "sgRNA": pd.Categorical(metadata.columns["sgRNA"]),
            "UMI_count": metadata.numbers("UMI_count", whole=False, least=1e-9),
            "library_preparation_protocol": pd.Categorical(
                metadata.columns.get("library_preparation_protocol", [""] * len(metadata.lines))
            ),
        },
        index=pd.Index(metadata.names),
    )


def split_guides(table: Table) -> list[list[str]]:
    """Return every cell's guides; a list that names a guide twice is an error."""
    called = []
    for line, text in zip(table.lines, table.columns["sgRNAs"], strict=True):
        names = [name.strip() for name in text.split(",")] if text.strip() else []
        if "" in names or len(set(names)) < len(names):
            message = f"{table.file!r}, line {line} holds {text!r}, which is no list of guides."
            raise ValueError(message)
        called.append(names)
    return called
