"""The map of a plate: every well by row and column."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

# Rows and columns of the plates that are sold, by their number of wells.
SHAPES = {8: (8, 1), 96: (8, 12), 384: (16, 24)}
# Sign and words of every aim, in the order of the legend.
AIMS = {
    "best": ("●", "to find the best"),
    "learn": ("■", "to learn the way"),
    "acquisition": ("▲", "by the acquisition"),
    "must": ("◆", "has to be on it"),
    "control": ("|", "controls"),
}
_JOINT = re.compile(r"(?<=[+_\-.,;:/|])")
_WELL = re.compile(r"(?:(\d+)-)?([A-P])(\d+)")


class Well(NamedTuple):
    """What is in a well."""

    name: str
    perturbation: str
    n_cells: int
    aim: str
    sign: str

    @property
    def parts(self) -> list[str]:
        """The name in parts, after which a narrow well may break it.

        Examples
        --------
        >>> from nextpert._report.plate import Well
        >>> Well("A1", "MYC+STK3_2", 10, "best", "").parts
        ['MYC+', 'STK3_', '2']
        """
        return [part for part in _JOINT.split(self.perturbation) if part]


class Plate(NamedTuple):
    """A plate: its number, the names of its columns, and its rows of wells by name of the row."""

    number: int
    columns: list[int]
    rows: list[tuple[str, list[Well | None]]]


def plates_of(table: pd.DataFrame, plate_format: int) -> list[Plate]:
    """Return the maps of all plates of a plan.

    Examples
    --------
    >>> import pandas as pd
    >>> from nextpert._report.plate import plates_of
    >>> row = {"well": "2-B1", "perturbation": "MYC", "n_cells": 9, "aim": "best"}
    >>> plate = plates_of(pd.DataFrame([row]), 8)[0]
    >>> plate.number, plate.rows[1][0], plate.rows[1][1][0].perturbation
    (2, 'B', 'MYC')
    """
    n_rows, n_columns = SHAPES[plate_format]
    wells: dict[int, dict[tuple[str, int], Well]] = {}
    for row in table.to_dict("records"):
        found = _WELL.fullmatch(str(row["well"]))
        if found is None:
            message = f"The plan names a well {row['well']!r}: run tl.plan_screen again."
            raise ValueError(message)
        aim = str(row["aim"])
        sign = AIMS.get(aim, ("", ""))[0]
        well = Well(str(row["well"]), str(row["perturbation"]), int(row["n_cells"]), aim, sign)
        wells.setdefault(int(found[1] or 1), {})[found[2], int(found[3])] = well
    columns = list(range(1, n_columns + 1))
    names = [chr(ord("A") + i) for i in range(n_rows)]
    return [
        Plate(plate, columns, [(name, [held.get((name, c)) for c in columns]) for name in names])
        for plate, held in sorted(wells.items())
    ]


def legend_of(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Return aim, sign and words of the aims on a plate."""
    there = set(table["aim"].astype(str))
    return [(aim, sign, words) for aim, (sign, words) in AIMS.items() if aim in there]
