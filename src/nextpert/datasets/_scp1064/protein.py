"""The study's protein files: antibodies x cells, in an order of cells of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert.datasets._scp1064.tables import _rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


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
        if len(fields) != len(header):
            message = (
                f"{path.name!r}, line {line} holds {len(fields) - 1} values, but the header names "
                f"{len(cells)} cells: is the file truncated?"
            )
            raise ValueError(message)
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
