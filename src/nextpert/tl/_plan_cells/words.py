"""A plan of cells in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from nextpert.core.plan.layout import Layout

_MANY = 1e6  # cells that nobody measures


def effects_in_words(table: pd.DataFrame, layout: Layout, *, effect: float, power: float) -> str:
    """Return how many cells find a change in one gene."""
    cells = table["cells_needed"].to_numpy(float)
    median, most = (float(np.quantile(cells, q, method="higher")) for q in (0.5, 0.9))
    said = (
        f"A change of {effect:g} is found with probability {_percent(power)} by {_cells(median)} a "
        f"perturbation in the median gene and by {_cells(most)} in nine of ten genes, "
        f"{_layout(layout)}."
    )
    out = cells > _MANY
    if not out.any():
        return said
    guides = table["guides_needed"].to_numpy(float)[out]
    enough = guides[np.isfinite(guides) & (guides > layout.n_guides)]
    if len(enough):
        said += (
            f" In {len(enough)} of {len(table)} genes it takes more guides, not more cells: "
            f"{_range(enough)}."
        )
    if len(enough) < out.sum():
        said += (
            f" In {out.sum() - len(enough)} of {len(table)} genes neither cells nor guides do, but "
            f"more controls or replicates."
        )
    return said


def distances_in_words(
    table: pd.DataFrame, target: str, layout: Layout, *, tolerance: float, power: float
) -> str:
    """Return how many cells tell the distance of the nearest, and it from the second."""
    first = table.iloc[0]
    if np.isfinite(first["relative_distance"]):
        known = _cells(float(first["cells_needed"]))
        said = (
            f"The squared distance of {first['perturbation']} to {target} is known to "
            f"{_percent(tolerance)} of that of doing nothing from {known}"
            f"{_why_not(first, 'cells_needed', 'guides_needed', layout)}."
        )
    else:
        said = (
            f"The squared distance of the control to {target} is estimated as 0: precision cannot "
            f"be stated as a share of it."
        )
    if len(table) > 1:
        second = table.iloc[1]
        said += (
            f" {first['perturbation']} is told from {second['perturbation']}, if their distances "
            f"differ as measured, with probability {_percent(power)} by "
            f"{_cells(float(first['cells_to_tell']))} of each"
            f"{_why_not(first, 'cells_to_tell', 'guides_to_tell', layout)}."
        )
    return said


def _why_not(row: pd.Series, cells: str, guides: str, layout: Layout) -> str:
    """Return what it takes where it is not cells."""
    wanted = float(row[guides])
    if float(row[cells]) <= _MANY:
        return ""
    if layout.n_guides < wanted < np.inf:
        return f": it takes more guides ({wanted:.0f}), not more cells"
    if layout.replicate_variance > 0:
        return ": it takes more cells of the target, or more replicates"
    return ": it takes more cells of the target"


def _cells(number: float) -> str:
    return f"{number:,.0f} cells" if number <= _MANY else "no number of cells"


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _layout(layout: Layout) -> str:
    parts = [
        f"{n} {what}{'s' * (n > 1)}"
        for n, what in ((layout.n_guides, "guide"), (layout.n_replicates, "replicate"))
    ]
    return f"with {parts[0]} and {parts[1]} of each"


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low} guides" if low == high else f"{low} to {high} guides"
