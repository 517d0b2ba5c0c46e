"""The tables of a plan of cells, and the plan in words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert.tl._plan_cells.distances import INTERVAL

if TYPE_CHECKING:
    from nextpert.core.design.cell_numbers import Layout
    from nextpert.tl._plan_cells.distances import Distances, Measured


CELLS = (5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000)
GUIDES = (1, 2, 4, 8)


def genes_table(
    genes: list[str], measured: Measured, *, effect: float, power: float, confidence: float
) -> pd.DataFrame:
    """Return one row per gene: the precision of its effects now, and the cells to detect one."""
    plan = measured.effects()
    now = [float(np.median(measured.n_cells))]
    return pd.DataFrame(
        {
            "gene": _adata.strings(genes),
            "cell_sd": np.sqrt(measured.noise.perturbed_variance),
            "half_width": plan.half_width(now, INTERVAL)[0],
            "power": plan.power(now, effect, confidence)[0],
            "cells_needed": plan.cells_for_power(effect, power, confidence),
            "guides_needed": plan.guides_for_power(effect, power, confidence),
        }
    )


def curves_table(
    measured: Measured, distances: Distances | None, *, effect: float, confidence: float
) -> pd.DataFrame:
    """Return one row per number of guides and cells: precision, power, right choice."""
    planned = measured.layout
    guides = {planned.n_guides, *(GUIDES if planned.guide_variance > 0 else ())}
    parts, apart = [], None if distances is None else distances.apart(0)
    for g in sorted(guides):
        layout = replace(planned, n_guides=g)
        cells = np.array([n for n in CELLS if n >= g])
        plan = measured.effects(layout)
        part = {
            "n_guides": np.full(len(cells), g, np.int64),
            "n_cells": cells.astype(np.int64),
            "half_width": np.median(plan.half_width(cells, INTERVAL), axis=1),
            "power": plan.power(cells, effect, confidence).mean(axis=1),
        }
        if distances is not None and apart is not None:
            of_control = distances.of_control if distances.of_control > 0 else np.nan
            width = replace(distances.own[0], layout=layout).half_width(cells, INTERVAL)
            part["distance_half_width"] = width / of_control
            part["right_choice"] = replace(apart, layout=layout).chance(cells)
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


_MANY = 1e6  # cells that nobody measures


def effects_in_words(table: pd.DataFrame, layout: Layout, *, effect: float, power: float) -> str:
    """Return how many cells detect a change in one gene."""
    cells = table["cells_needed"].to_numpy(float)
    median, most = (float(np.quantile(cells, q, method="higher")) for q in (0.5, 0.9))
    parts = [
        f"{n} {what}{'s' * (n > 1)}"
        for n, what in ((layout.n_guides, "guide"), (layout.n_replicates, "replicate"))
    ]
    text = (
        f"Detecting a change of {effect:g} with {100 * power:g}% power takes {_cells(median)} per "
        f"perturbation for the median gene and {_cells(most)} for nine of ten genes, "
        f"with {' and '.join(parts)} of each."
    )
    lacking = cells > _MANY
    guides = table["guides_needed"].to_numpy(float)[lacking]
    enough = guides[np.isfinite(guides) & (guides > layout.n_guides)]
    if len(enough):
        low, high = int(enough.min()), int(enough.max())
        text += (
            f" {len(enough)} of {len(table)} genes need more guides, not more cells: "
            f"{low if low == high else f'{low} to {high}'} guides."
        )
    if len(enough) < lacking.sum():
        text += (
            f" {lacking.sum() - len(enough)} of {len(table)} genes need more controls or "
            f"replicates: more cells or guides do not suffice."
        )
    return text


def distances_in_words(
    table: pd.DataFrame, target: str, layout: Layout, *, tolerance: float, power: float
) -> str:
    """Return how many cells the nearest's distance takes, and its comparison with the second."""
    first = table.iloc[0]
    if np.isfinite(first["relative_distance"]):
        needed = _cells(float(first["cells_needed"]))
        text = (
            f"Estimating the squared distance of {first['perturbation']} to {target} within "
            f"±{100 * tolerance:g}% of the control's distance takes {needed}"
            f"{_why_not(first, 'cells_needed', 'guides_needed', layout)}."
        )
    else:
        text = (
            f"The squared distance of the control to {target} is estimated as 0: precision cannot "
            f"be stated relative to it."
        )
    if len(table) > 1:
        second = table.iloc[1]
        text += (
            f" Distinguishing {first['perturbation']} from {second['perturbation']} with "
            f"{100 * power:g}% power, if their distances differ as measured, takes "
            f"{_cells(float(first['cells_to_distinguish']))} of each"
            f"{_why_not(first, 'cells_to_distinguish', 'guides_to_distinguish', layout)}."
        )
    return text


def _why_not(row: pd.Series, cells: str, guides: str, layout: Layout) -> str:
    """Return what is needed if more cells do not suffice."""
    needed = float(row[guides])
    if float(row[cells]) <= _MANY:
        return ""
    if layout.n_guides < needed < np.inf:
        return f" (more guides are needed: {needed:.0f})"
    if layout.replicate_variance > 0:
        return " (more cells of the target, or more replicates, are needed)"
    return " (more cells of the target are needed)"


def _cells(number: float) -> str:
    if number > _MANY:
        return "more than 1,000,000 cells"
    return f"{number:,.0f} cell{'s' * (round(number) != 1)}"
