"""Tables of the page: columns, rows of cells, and the file to download."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert._files import as_csv
from nextpert._report.intervals import Dot, Scale, scale_of
from nextpert._report.numbers import between

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

# Most rows on the page, and most characters of a file to download from it.
MOST_ROWS = 300
_MOST_CSV = 120_000


class Column(NamedTuple):
    """A column: its heading, the column of the data frame, and how values are shown.

    ``show`` makes text of a value; without it the value is text. ``name`` holds three columns,
    value and ends of an interval, where that is to be drawn. ``is_head`` says that a column names
    its row, ``is_long`` that it holds sentences, ``on_paper`` that it is printed. ``reference`` is
    marked in what is drawn.
    """

    head: str
    name: str | tuple[str, str, str]
    show: Callable[[Any], str] | None = None
    is_head: bool = False
    is_long: bool = False
    reference: float = float("nan")
    on_paper: bool = True

    @property
    def is_interval(self) -> bool:
        """Whether it is drawn."""
        return isinstance(self.name, tuple)

    @property
    def classes(self) -> str:
        """What it is, for the style sheet."""
        kinds = {
            "interval": self.is_interval,
            "number": self.is_number and not self.is_interval,
            "long": self.is_long,
            "on-screen": not self.on_paper,
        }
        return " ".join(name for name, is_so in kinds.items() if is_so)

    @property
    def is_number(self) -> bool:
        """Whether it is sorted by number."""
        return self.is_interval or self.show is not None


class Cell(NamedTuple):
    """A cell: text, what it is sorted by (empty: last), and a drawing."""

    text: str
    value: str = ""
    dot: Dot | None = None


@dataclass(frozen=True)
class Table:
    """A table as the template draws it.

    Parameters
    ----------
    name
        Its identifier, and the name of its file.
    caption
        What it shows.
    columns, rows
        Its columns, and its cells, row by row.
    n_all
        Number of rows there are, of which those on the page may be the first.
    scales
        Scale of each column that is drawn, by position.
    csv
        Its file as a link that holds it; empty for none.
    n_csv, n_file
        Rows in that file, and rows that it should hold.
    in_print
        Most rows on paper.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    n_all: int
    scales: dict[int, Scale] = field(default_factory=dict)
    csv: str = ""
    n_csv: int = 0
    n_file: int = 0
    in_print: int = 10


def make_table(
    name: str,
    caption: str,
    frame: pd.DataFrame,
    columns: Sequence[Column],
    *,
    most: int = MOST_ROWS,
    n_all: int | None = None,
    download: pd.DataFrame | None = None,
    n_file: int | None = None,
    in_print: int = 10,
) -> Table:
    """Return a table of the first rows of a data frame.

    Parameters
    ----------
    name, caption, columns, in_print
        As in :class:`Table`.
    frame
        One row a row.
    most
        Most rows on the page.
    n_all
        Number of rows there are, if ``frame`` holds the first of them alone.
    download
        What the file holds; ``None`` for no file.
    n_file
        Number of rows of it, if ``download`` holds the first of them alone.
    """
    shown = frame.head(most)
    scales = {
        i: scale_of(shown[column.name[0]], shown[column.name[1]], shown[column.name[2]], mark)
        for i, column in enumerate(columns)
        if isinstance(column.name, tuple)
        for mark in [column.reference]
    }
    rows = [
        [_cell(column, row, scales.get(i)) for i, column in enumerate(columns)]
        for row in shown.to_dict("records")
    ]
    csv, n_csv = ("", 0) if download is None else as_link(download)
    whole = 0 if download is None else len(download)
    return Table(
        name, caption, columns, rows, len(frame) if n_all is None else n_all, scales, csv, n_csv,
        whole if n_file is None else n_file, in_print,
    )  # fmt: skip


def _cell(column: Column, row: dict[Any, Any], scale: Scale | None) -> Cell:
    if isinstance(column.name, tuple):
        value, low, high = (float(row[part]) for part in column.name)
        assert scale is not None
        return Cell(between(value, low, high), _sorted_by(value), scale.dot(value, low, high))
    value = row[column.name]
    if column.show is None:
        return Cell(str(value))
    return Cell(column.show(value), _sorted_by(float(value)))


def _sorted_by(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def as_link(frame: pd.DataFrame) -> tuple[str, int]:
    """Return a table as csv in a link, and its number of rows: the first where it is long."""
    n = min(len(frame), _MOST_CSV // 10)  # no row is shorter
    while True:
        text = as_csv(frame.head(n), float_format="%.6g", lineterminator="\r\n")
        if len(text) <= _MOST_CSV or n <= 1:
            break
        n = max(1, min(n - 1, int(0.95 * n * _MOST_CSV / len(text))))
    coded = base64.b64encode(text.encode("utf-8")).decode("ascii")
    return f"data:text/csv;charset=utf-8;base64,{coded}", n


def plain(value: Any) -> str:
    """Return a parameter's value as text: lists with commas, numbers in a few digits."""
    if isinstance(value, (np.ndarray, list, tuple)):
        return ", ".join(plain(each) for each in np.asarray(value).ravel().tolist())
    if isinstance(value, (float, np.floating)):
        return f"{value:g}"
    return str(value)
