"""Expression files to a store of rows: which genes and cells are kept, and what is checked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from nextpert._adata import closest, in_order, list_names
from nextpert._warn import warn
from nextpert.datasets._scp1064.matrix import LARGEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from nextpert.datasets._scp1064.matrix import Line, MatrixReader
    from nextpert.datasets._scp1064.store import RowStore

logger = logging.getLogger(__name__)
# How far sums of TPM may be off where values were float64, and float32, before being printed.
_DOUBLE, _SINGLE = 1e-6, 13.9 * 1e6 * 2.0**-24


class GeneColumns:
    """Columns of genes: of those wanted, in their order, or of all, in the order they come."""

    def __init__(self, wanted: Sequence[str] | None) -> None:
        if isinstance(wanted, str):
            message = f"genes must be a list of gene names, but is a string: use [{wanted!r}]."
            raise TypeError(message)
        names = None if wanted is None else [str(name) for name in in_order(wanted)]
        if names is not None and (not names or len(set(names)) < len(names)):
            message = f"genes must name some genes, each once, but is {list_names(names) or '[]'}."
            raise ValueError(message)
        self.names: list[str] = names or []
        self.n_seen = 0
        self._column = {name: j for j, name in enumerate(self.names)}
        self._grows = names is None
        self._first_file: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    def start_file(self) -> None:
        """Begin with a new file, which is to hold the same genes as the first."""
        self._first_file = self._first_file or self._seen
        self._seen = {}

    def place(self, name: str, line: int, reader: MatrixReader) -> int:
        """Return the column of the gene on a line, -1 if it is not wanted."""
        if self._seen.setdefault(name, line) != line:
            what = f"names gene {name!r}, as line {self._seen[name]} does"
            raise reader.error(what, line=line)
        if self._first_file and name not in self._first_file:
            raise reader.error(f"names gene {name!r}, which other files lack", line=line)
        if self._grows and not self._first_file:
            self._column[name] = len(self.names)
            self.names.append(name)
        return self._column.get(name, -1)

    def end_file(self, reader: MatrixReader) -> None:
        """Raise if genes are missing."""
        self.n_seen = len(self._seen)
        absent = [name for name in self._first_file if name not in self._seen]
        if absent:
            what = f"genes that other files hold are missing: {list_names(absent, limit=3)}"
            raise reader.error(what)
        unknown = [name for name in self.names if name not in self._seen]
        if unknown:
            message = (
                f"{reader.path.name!r} holds no such genes: {list_names(unknown)}."
                f"{closest(unknown, self._seen)} Correct the names or leave these genes out."
            )
            raise ValueError(message)


def read_expression(
    readers: Sequence[MatrixReader],
    obs: pd.DataFrame,
    rows: dict[str, int],
    genes: GeneColumns,
    store: RowStore,
    *,
    counts: bool,
    verify: bool,
    show_progress: bool,
) -> None:
    """Read files of genes x cells into a store.

    ``obs`` describes every cell of the study, ``rows`` gives the row of those wanted. Files
    without any are left out.
    """
    umi = obs["UMI_count"].to_dict()
    total = sum(reader.path.stat().st_size for reader in readers)
    done = 0
    with tqdm(
        total=total, desc="Expression", unit="B", unit_scale=True, disable=not show_progress
    ) as bar:
        for reader in readers:
            row = np.array([rows.get(cell, -1) for cell in reader.cells], dtype=np.int32)
            if (row >= 0).any():
                genes.start_file()
                depth = np.array([umi[cell] for cell in reader.cells])
                limit = LARGEST if verify else np.inf
                for line in reader.lines(row, depth, counts=counts, limit=limit):
                    if line.off is not None and (counts or verify):
                        raise _no_whole_count(line, reader, depth, counts=counts)
                    column = genes.place(line.gene, line.number, reader)
                    if column >= 0:
                        store.add(
                            line.cells, np.full(len(line.cells), column, np.int32), line.data,
                            line.counts,
                        )  # fmt: skip
                    bar.update(done + reader.position - bar.n)
                genes.end_file(reader)
                _check_totals(reader, verify=verify)
            done += reader.path.stat().st_size
            bar.update(done - bar.n)


def _no_whole_count(
    line: Line, reader: MatrixReader, umi: NDArray[np.float64], *, counts: bool
) -> ValueError:
    """Return an error about the first value of a line that is no count of its cell."""
    field, value = line.off or (0, 0.0)
    depth = umi[field]
    count = np.expm1(value) * depth / 1e6
    what = (
        f"holds {value!r} for gene {line.gene!r} and cell {reader.cells[field]!r}: with "
        f"{depth:g} UMI that is a count of {count:.6g}, no whole number within the digits printed. "
        "Are the metadata of the same study? "
    )
    what += (
        "Pass `counts=False` to do without counts" if counts else
        "Pass `verify=False` to load the values as they are"
    )  # fmt: skip
    return reader.error(what, line=line.number)


def _check_totals(reader: MatrixReader, *, verify: bool) -> None:
    """Compare every cell's transcripts per million with a million."""
    apart = np.abs(reader.totals - 1e6) - reader.slack
    # Values that went through float32 are off by more than their digits tell: then all cells are.
    wrong = np.flatnonzero(apart > (_DOUBLE if np.median(apart) <= _DOUBLE else _SINGLE))
    if not len(wrong):
        logger.info("%s: the values of every cell sum up to a million TPM", reader.path.name)
        return
    j = int(wrong[np.argmax(np.abs(reader.totals[wrong] - 1e6))])
    message = (
        f"{reader.path.name!r}: the values of {len(wrong)} of {len(reader.cells)} cells do not "
        f"sum up to a million transcripts per million (cell {reader.cells[j]!r}: "
        f"{reader.totals[j]:.2f}): values are altered, or genes missing."
    )
    if verify:
        message += " Download the file anew, or pass `verify=False` to load it as it is."
        raise ValueError(message)
    warn(message)
