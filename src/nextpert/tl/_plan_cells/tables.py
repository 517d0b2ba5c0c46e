"""The tables of a plan of cells: genes, and curves over cells and guides."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert.tl._plan_cells.distances import INTERVAL

if TYPE_CHECKING:
    from nextpert.tl._plan_cells.distances import Distances
    from nextpert.tl._plan_cells.screen import Measured

CELLS = (5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000)
GUIDES = (1, 2, 4, 8)


def genes_table(
    genes: list[str], measured: Measured, *, effect: float, power: float, confidence: float
) -> pd.DataFrame:
    """Return one row a gene: how well its effects are known now, and what it takes to find one."""
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
            "highest_power": plan.limit(effect, confidence),
            "cells_for_half": plan.cells_for_width(effect / 2, INTERVAL),
        }
    )


def curves_table(
    measured: Measured, found: Distances | None, *, effect: float, confidence: float
) -> pd.DataFrame:
    """Return one row a number of guides and cells: precision, power, chance of the right choice."""
    planned = measured.layout
    guides = {planned.n_guides, *(GUIDES if planned.guide_variance > 0 else ())}
    parts, apart = [], None if found is None else found.apart(0)
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
        if found is not None and apart is not None:
            nothing = found.nothing if found.nothing > 0 else np.nan
            width = replace(found.own[0], layout=layout).half_width(cells, INTERVAL)
            part["distance_half_width"] = width / nothing
            part["right_choice"] = replace(apart, layout=layout).chance(cells)
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)
