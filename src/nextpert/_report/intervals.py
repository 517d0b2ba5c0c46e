"""Dots with intervals on one scale, as small drawings in the cells of a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

WIDTH = 140.0
_EDGE = 6.0
# Values that spread wider than this are drawn on a logarithmic scale.
_WIDE = 30


class Dot(NamedTuple):
    """Places of a dot and the ends of its interval, in pixels from the left."""

    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Scale:
    """The scale of a column.

    Parameters
    ----------
    low, high
        Its ends.
    is_log
        Whether it is logarithmic.
    reference
        A value to mark in every row, NaN for none.
    """

    low: float
    high: float
    is_log: bool
    reference: float

    def place(self, value: float) -> float:
        """Return how far from the left a value lies, in pixels, within the drawing."""
        ends = [self.low, self.high, max(value, self.low) if self.is_log else value]
        low, high, at = np.log(ends) if self.is_log else ends
        share = (at - low) / (high - low)
        return round(_EDGE + (WIDTH - 2 * _EDGE) * min(max(float(share), 0.0), 1.0), 1)

    def dot(self, value: float, low: float, high: float) -> Dot | None:
        """Return the places of a dot, or ``None`` where there is no value."""
        if not math.isfinite(value):
            return None
        ends = [x if math.isfinite(x) else value for x in (low, high)]
        return Dot(*(self.place(x) for x in (value, *ends)))

    @property
    def mark(self) -> float | None:
        """Where the reference lies."""
        return self.place(self.reference) if math.isfinite(self.reference) else None


def scale_of(values: ArrayLike, low: ArrayLike, high: ArrayLike, reference: float) -> Scale:
    """Return the scale that holds all intervals; logarithmic where values spread very wide.

    Examples
    --------
    >>> from nextpert._report.intervals import scale_of
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
