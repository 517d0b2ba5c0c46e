"""Tables of the page: a DataFrame and its columns, which one macro of the template draws."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert._files import as_csv

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

# Most rows on the page, and most characters of a file to download from it.
MOST_ROWS = 300
_MOST_CSV = 120_000
WIDTH = 140.0  # of an interval in a table, in pixels
_EDGE = 6.0
_WIDE = 30  # values that spread wider than this are drawn on a logarithmic scale
NOTHING = "–"


def number(value: Any, digits: int = 3) -> str:
    """Return a number in a few digits; a dash where there is none.

    Examples
    --------
    >>> from nextpert._report.tables import number
    >>> number(0.5), number(123.4), number(12345.6), number(float("nan")), number(0.0)
    ('0.500', '123', '12,346', '–', '0')
    """
    value = float(value)
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".") if value else "0"


def signed(value: Any) -> str:
    """Return a change, with its sign."""
    return f"+{number(value)}" if float(value) > 0 else number(value)


def count(value: Any) -> str:
    """Return a whole number with commas."""
    value = float(value)
    return f"{value:,.0f}" if math.isfinite(value) else number(value)


def share(value: Any) -> str:
    """Return a ratio of distances in per cent; unbiased ones may lie a little below 0.

    Examples
    --------
    >>> from nextpert._report.tables import share
    >>> share(0.004), share(0.99999), share(12.3), share(-0.001), share(-0.05)
    ('< 1%', '100%', '1,230%', '< 1%', '< 1%')
    """
    value = 100 * float(value)
    if not math.isfinite(value):
        return number(value)
    return "< 1%" if value < 1 else f"{value:,.0f}%"


def above_0(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table to show, with distances of at least 0: unbiased ones may lie below.

    Examples
    --------
    >>> import pandas as pd
    >>> from nextpert._report.tables import above_0
    >>> above_0(pd.DataFrame({"distance": [-0.1], "low": [-0.5], "high": [0.3], "sd": [-1.0]}))
       distance  low  high   sd
    0       0.0  0.0   0.3 -1.0
    """
    names = {"distance", "low", "high", "relative_distance"} & set(table)
    return table.assign(**{name: table[name].clip(lower=0.0) for name in names})


def rate(value: Any) -> str:
    """Return a small probability.

    Examples
    --------
    >>> from nextpert._report.tables import rate
    >>> rate(1e-9), rate(0.0421)
    ('below 0.001', '0.042')
    """
    return "below 0.001" if float(value) < 0.001 else number(value, 2)


def two_digits(value: Any) -> str:
    """Return a number in two digits, as of a standard error."""
    return number(value, 2)


class Scale(NamedTuple):
    """The scale of intervals in a table: its ends, and a value to mark in every row (or NaN)."""

    low: float
    high: float
    is_log: bool
    reference: float

    def place(self, value: float) -> float:
        """Return how far from the left a value lies, in pixels, within the drawing."""
        ends = [self.low, self.high, max(value, self.low) if self.is_log else value]
        low, high, at = np.log(ends) if self.is_log else ends
        part = (at - low) / (high - low)
        return round(_EDGE + (WIDTH - 2 * _EDGE) * min(max(float(part), 0.0), 1.0), 1)

    @property
    def mark(self) -> float | None:
        """Where the reference lies."""
        return self.place(self.reference) if math.isfinite(self.reference) else None


def scale_of(values: ArrayLike, low: ArrayLike, high: ArrayLike, reference: float) -> Scale:
    """Return the scale that covers all intervals; logarithmic if values differ by orders.

    Examples
    --------
    >>> from nextpert._report.tables import scale_of
    >>> scale_of([1.0, 3.0], [0.0, 2.0], [2.0, 4.0], 2.0)
    Scale(low=0.0, high=4.0, is_log=False, reference=2.0)
    >>> scale_of([0.01, 3.0], [0.0, 2.0], [0.1, 4.0], 2.0).is_log
    True
    """
    at, down, up = (np.asarray(x, dtype=np.float64) for x in (values, low, high))
    at = at[np.isfinite(at)]
    shown = np.append(at, reference) if math.isfinite(reference) else at
    if not len(shown):
        return Scale(0.0, 1.0, False, math.nan)
    is_log = bool(shown.min() > 0 and shown.max() > _WIDE * shown.min())
    every = np.concatenate([shown, down[np.isfinite(down)], up[np.isfinite(up)]])
    least = 0.5 * float(shown.min()) if is_log else float(every.min())
    most = float(every.max())
    return Scale(least, most if most > least else least + 1.0, is_log, float(reference))


class Cell(NamedTuple):
    """A cell: text, what it is sorted by (empty: last), places of a dot and of its interval."""

    text: str
    value: str = ""
    dot: tuple[float, float, float] | None = None


class Column(NamedTuple):
    """A column: its heading, the column of the DataFrame, and how values are shown.

    ``show`` makes text of a number; without it the value is text. ``name`` holds three columns,
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
    def is_number(self) -> bool:
        """Whether it is sorted by number."""
        return isinstance(self.name, tuple) or self.show is not None

    @property
    def classes(self) -> str:
        """What it is, for the style sheet."""
        is_interval = isinstance(self.name, tuple)
        kinds = {
            "interval": is_interval,
            "number": self.is_number and not is_interval,
            "long": self.is_long,
            "on-screen": not self.on_paper,
        }
        return " ".join(name for name, is_so in kinds.items() if is_so)

    def cell(self, row: dict[Any, Any], scale: Scale | None) -> Cell:
        """Return the cell of a row."""
        if scale is None or not isinstance(self.name, tuple):
            value = row[self.name]
            if self.show is None:
                return Cell(str(value))
            return Cell(self.show(value), _sorted_by(float(value)))
        at, low, high = (float(row[part]) for part in self.name)
        if not math.isfinite(at):
            return Cell(NOTHING if math.isnan(at) else number(at), _sorted_by(at))
        ends = [x if math.isfinite(x) else at for x in (low, high)]
        text = f"{number(at)} ({number(low, 2)} to {number(high, 2)})"
        dot = scale.place(at), scale.place(ends[0]), scale.place(ends[1])
        return Cell(text, _sorted_by(at), dot)


def _sorted_by(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


@dataclass
class Table:
    """A DataFrame as the template draws it, row by row.

    Parameters
    ----------
    name
        Its identifier, and the name of its file.
    caption
        What it shows.
    frame, columns
        The data, and what of them is shown.
    most, n_all
        Most rows on the page, and number of rows there are, if ``frame`` holds the first alone.
    download, n_file
        What its file holds (``None`` for no file), and the rows that there are of that.
    in_print, kept
        Most rows on paper, and a row that is printed in any case, with the one before it.
    """

    name: str
    caption: str
    frame: pd.DataFrame
    columns: Sequence[Column]
    most: int = MOST_ROWS
    n_all: int = -1
    download: pd.DataFrame | None = None
    n_file: int = -1
    in_print: int = 10
    kept: int = -1

    def __post_init__(self) -> None:
        self.n_all = len(self.frame) if self.n_all < 0 else self.n_all
        whole = 0 if self.download is None else len(self.download)
        self.n_file = whole if self.n_file < 0 else self.n_file
        shown = self.frame.head(self.most)
        self.scales = {}
        for i, column in enumerate(self.columns):
            if isinstance(column.name, tuple):
                value, low, high = (shown[part] for part in column.name)
                self.scales[i] = scale_of(value, low, high, column.reference)

    @cached_property
    def rows(self) -> list[list[Cell]]:
        """Its cells, row by row."""
        return [
            [column.cell(row, self.scales.get(i)) for i, column in enumerate(self.columns)]
            for row in self.frame.head(self.most).to_dict("records")
        ]

    @cached_property
    def csv(self) -> tuple[str, int]:
        """Its file as a link that holds it (empty for none), and its rows: the first of many."""
        if self.download is None:
            return "", 0
        n = min(len(self.download), _MOST_CSV // 10)  # no row is shorter
        while True:
            text = as_csv(self.download.head(n), float_format="%.6g", lineterminator="\r\n")
            if len(text) <= _MOST_CSV or n <= 1:
                break
            n = max(1, min(n - 1, int(0.95 * n * _MOST_CSV / len(text))))
        coded = base64.b64encode(text.encode("utf-8")).decode("ascii")
        return f"data:text/csv;charset=utf-8;base64,{coded}", n
