"""Tables of the page: a DataFrame and the names of its columns, which the template renders."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from nextpert._files import as_csv
from nextpert.core._text import percent

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# Maximum number of rows on the page, and in a file to download.
MAX_ROWS = 300
MAX_FILE_ROWS = 2000
WIDTH = 140.0  # of an interval in a table, in pixels
_EDGE = 6.0
_WIDE = 30  # values that spread wider than this are drawn on a logarithmic scale
NOTHING = "–"


def number(value: Any, digits: int = 3) -> str:
    """Return a number as text: rounded, or in full if it is whole, or a dash if it is missing.

    Examples
    --------
    >>> from nextpert._report.tables import number
    >>> number(0.5), number(123.4), number(12345.6), number(float("nan")), number(12.0)
    ('0.500', '123', '12,346', '–', '12')
    """
    value = float(value)
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value.is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def ratio(value: Any) -> str:
    """Return a ratio of distances as a percentage.

    Ratios below 1% are shown as "< 1%", including negative ones, because unbiased estimates may be
    negative.

    Examples
    --------
    >>> from nextpert._report.tables import ratio
    >>> ratio(0.004), ratio(0.99999), ratio(12.3), ratio(-0.001), ratio(-0.05)
    ('< 1%', '100%', '1,230%', '< 1%', '< 1%')
    """
    value = 100 * float(value)
    if not math.isfinite(value):
        return number(value)
    return "< 1%" if value < 1 else f"{value:,.0f}%"


def above_0(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table to show, in which unbiased estimates of distances below 0 are set to 0.

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


def _rate(value: float) -> str:
    return "below 0.001" if value < 0.001 else number(value, 2)


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value)


class Look(NamedTuple):
    """How a column is shown: heading, text of its numbers, columns of its interval, sentences."""

    head: str = ""
    show: Callable[[Any], str] | None = None
    ends: tuple[str, ...] = ()
    is_long: bool = False


# For columns whose name and type do not determine how they are shown.
LOOKS = {
    "n_cells_seen": Look("Cells so far"),
    "relative_distance": Look("Relative to control", ratio),
    "distance": Look(ends=("low", "high")),
    "predicted_distance": Look(ends=("predicted_low", "predicted_high")),
    "difference": Look("Difference to control", ends=("difference_low", "difference_high")),
    "mean": Look("Effect", ends=("lower", "upper")),
    "lfsr": Look("False sign rate", _rate),
    "share": Look("Share of the effects", ratio),
    "perturbations": Look("Perturbations and scores", is_long=True),
    "genes": Look("Genes and effects at a score of 1", is_long=True),
    "other": Look("Does the same as"),
    "parent": Look("Cause"),
    "child": Look("Effect"),
    "frequency": Look("In bootstrap graphs", ratio),
    "probability": Look(show=percent),
    "probability_best": Look("P(nearest)", percent),
    "probability_better": Look("P(nearer than control)", percent),
    "probability_nearer_than_members": Look("P(nearer than members)", percent),
    "probability_nearer_than_measured": Look("P(nearer than measured)", percent),
    "control": Look("Control cells"),
    "change": Look(show=_signed),
    "plates": Look("Rounds until found", partial(number, digits=2)),
    "plates_difference": Look("Rounds, difference", ends=("plates_low", "plates_high")),
    "relative_difference": Look("Distance, difference", ends=("relative_low", "relative_high")),
    "standard_error": Look("± standard error", partial(number, digits=2)),
    "share_good_last": Look("Found by the last round", ratio),
    "relative_last": Look("Distance after the last round", ratio),
    "nextpert": Look("nextpert"),
    **dict.fromkeys(("why", "options"), Look(is_long=True)),
}
_HEADS = ("perturbation", "quantity", "strategy")  # head the row; in other tables, the first does


class Scale(NamedTuple):
    """The scale of intervals in a table: its ends, and the position of a mark in pixels."""

    low: float
    high: float
    is_log: bool
    mark: float | None = None

    def place(self, value: float) -> float:
        """Return the distance of a value from the left of the drawing, in pixels."""
        ends = [self.low, self.high, max(value, self.low) if self.is_log else value]
        low, high, at = np.log(ends) if self.is_log else ends
        part = min(max(float((at - low) / (high - low)), 0.0), 1.0)
        return round(_EDGE + (WIDTH - 2 * _EDGE) * part, 1)


def scale_of(intervals: pd.DataFrame, reference: float) -> Scale:
    """Return the scale for a column of values with intervals.

    It is logarithmic if all values are positive and span more than a factor of 30; it then starts
    at half the smallest value, and intervals that extend below it are cut off.

    Examples
    --------
    >>> import pandas as pd
    >>> from nextpert._report.tables import scale_of
    >>> scale_of(pd.DataFrame({"at": [1.0, 3.0], "low": [0.0, 2.0], "high": [2.0, 4.0]}), 2.0)
    Scale(low=0.0, high=4.0, is_log=False, mark=70.0)
    >>> scale_of(pd.DataFrame({"at": [0.01, 3.0], "low": [0.0, 2.0]}), 2.0).is_log
    True
    """
    numbers = [np.append(values, reference) for values in intervals.to_numpy(float).T]
    at, finite = (x[np.isfinite(x)] for x in (numbers[0], np.concatenate(numbers)))
    if not len(at):
        return Scale(0.0, 1.0, False)
    is_log = bool(at.min() > 0 and at.max() > _WIDE * at.min())
    low = 0.5 * float(at.min()) if is_log else float(finite.min())
    high = float(finite.max())
    scale = Scale(low, high if high > low else low + 1.0, is_log)
    return scale._replace(mark=scale.place(reference)) if math.isfinite(reference) else scale


class Cell(NamedTuple):
    """A cell: text, sort key (empty: last), positions of a dot and of the ends of its interval."""

    text: str
    value: str = ""
    dot: tuple[float, ...] | None = None


@dataclass
class Column:
    """A column: its heading and kind for the style sheet, and the scale of its intervals."""

    name: str
    look: Look
    is_head: bool
    classes: str
    scale: Scale | None

    @property
    def head(self) -> str:
        """The heading."""
        return self.look.head or self.name.removeprefix("n_").replace("_", " ").capitalize()

    def cell(self, row: dict[Any, Any]) -> Cell:
        """Return the cell of a row."""
        if self.look.show is None:
            return Cell(str(row[self.name]))
        value = float(row[self.name])
        order = "" if math.isnan(value) else f"{value:.6g}"
        if self.scale is None or not math.isfinite(value):
            return Cell(self.look.show(value), order)
        low, high = (float(row[end]) for end in self.look.ends)
        text = f"{number(value)} ({number(low, 2)} to {number(high, 2)})"
        ends = [x if math.isfinite(x) else value for x in (low, high)]
        return Cell(text, order, tuple(map(self.scale.place, (value, *ends))))


@dataclass(frozen=True)
class Slider:
    """A slider over a table that sets the values of one column, and sorts the rows by them.

    ``label`` says what a position of the slider is, ``positions`` are the texts of all, with their
    ``unit``, and ``start`` is the one that the page shows first. ``head`` is the heading of the
    ``column``, with ``{}`` for the text of the position. ``numbers``, shape
    ``(n_rows, n_positions)``, are all values of the column, which ``show`` turns into text; the
    page looks them up and computes none.
    """

    column: str
    head: str
    label: str
    unit: str
    positions: Sequence[str]
    start: int
    numbers: NDArray[np.float64]
    show: Callable[[float], str] = percent

    def looked_up(self, n_rows: int) -> tuple[list[tuple[str, str]], list[str]]:
        """Return sort key and text of each different value, and their places in the first rows."""
        numbers = self.numbers[:n_rows]
        unique, places = np.unique(numbers, return_inverse=True)
        texts = [(f"{value:.6g}", self.show(value)) for value in unique.tolist()]
        rows = places.reshape(numbers.shape).astype(str)
        return texts, [" ".join(row) for row in rows]


@dataclass
class Table:
    """A DataFrame as the template renders it, row by row; columns without a value are left out.

    ``names`` are the columns shown, and ``marks`` the values to mark in their intervals.
    ``max_rows`` is the maximum number of rows on the page (``in_print`` on paper), and ``n_all``
    the number of all rows, if ``frame`` has only the first. ``download`` is the table to download,
    of which ``n_file`` rows exist. A ``slider`` sets the values of one of the columns.
    """

    name: str
    caption: str
    frame: pd.DataFrame
    names: Sequence[str]
    marks: Mapping[str, float] = field(default_factory=dict)
    max_rows: int = MAX_ROWS
    n_all: int = -1
    download: pd.DataFrame | None = None
    n_file: int = -1
    in_print: int = 10
    slider: Slider | None = None

    def __post_init__(self) -> None:
        self.n_all = len(self.frame) if self.n_all < 0 else self.n_all
        if self.n_file < 0 and self.download is not None:
            self.n_file = len(self.download)

    @cached_property
    def columns(self) -> list[Column]:
        """The columns that have a value."""
        shown = self.frame.head(self.max_rows)
        is_empty = shown.isin([np.nan, None, ""]).all() & bool(len(shown))
        names = [name for name in self.names if name in shown and not is_empty[name]]
        row_head = next((name for name in _HEADS if name in names), names[0])
        columns = []
        for name in names:
            look = LOOKS.get(name, Look())
            if self.slider is not None and name == self.slider.column:
                head = self.slider.head.format(self.slider.positions[self.slider.start])
                look = Look(head, self.slider.show)
            scale = None
            kind = "long" if look.is_long else ""
            if shown[name].dtype.kind not in "iuf":
                look = look._replace(show=None)
            elif look.ends and set(look.ends) <= set(shown):
                kind, look = "interval", look._replace(show=number)
                scale = scale_of(shown[[name, *look.ends]], self.marks.get(name, math.nan))
            else:
                kind, look = "number", look._replace(show=look.show or number)
            columns.append(Column(name, look, name == row_head, kind, scale))
        return columns

    @cached_property
    def rows(self) -> list[list[Cell]]:
        """The cells, row by row."""
        shown = self.frame.head(self.max_rows).to_dict("records")
        return [[column.cell(row) for column in self.columns] for row in shown]

    @cached_property
    def csv(self) -> tuple[str, int]:
        """The file as a data link (empty if there is none), and its number of rows."""
        if self.download is None:
            return "", 0
        first_rows = self.download.head(MAX_FILE_ROWS)
        text = as_csv(first_rows, float_format="%.6g", lineterminator="\r\n")
        coded = base64.b64encode(text.encode("utf-8")).decode("ascii")
        return f"data:text/csv;charset=utf-8;base64,{coded}", len(first_rows)
