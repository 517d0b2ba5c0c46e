"""Distances of the screen's perturbations to a target, and the cells that tell them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import norm

from nextpert import _adata
from nextpert.core.plan.power import DistancePrecision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.tl._design_interventions.target import Wanted
    from nextpert.tl._plan_cells.screen import Measured

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Distances:
    """Perturbations by their squared distance to a target, nearest first.

    Parameters
    ----------
    names
        Perturbations, that of the target not among them.
    n_cells
        Cells of each.
    distance
        Unbiased squared distances, shape ``(n_perturbations,)``.
    sd
        Their standard deviations with the cells there are.
    nothing
        That of the control cells.
    own
        Precision of each distance, with guides and replicates as planned.
    apart
        Precision of each one's difference to the nearest; of the nearest itself, to the second.
    """

    names: list[str]
    n_cells: NDArray[np.int64]
    distance: Array
    sd: Array
    nothing: float
    own: list[DistancePrecision]
    apart: list[DistancePrecision]

    @property
    def differences(self) -> Array:
        """Distances beyond the nearest; of the nearest itself, of the second beyond it."""
        beyond = self.distance - self.distance[0]
        beyond[0] = beyond[1] if len(beyond) > 1 else np.nan
        return beyond


def read_distances(measured: Measured, target: Wanted) -> Distances | None:
    """Return distances and their precision; ``None`` where no perturbation is left to measure.

    Weights of genes count as units in which they are measured.
    """
    noise, root = measured.noise, np.sqrt(target.goal.weights)
    both = np.outer(root, root)
    own = [
        j for j, name in enumerate(measured.names, start=1)
        if name != target.label and noise.pooled.n_cells[j] > 1
    ]  # fmt: skip
    if not own:
        return None
    goal = both * _covariance(noise.covariance, target)
    away = root * (noise.pooled.mean - target.goal.states[0])
    every = np.array([
        away[j] @ away[j] - noise.spread(j) * (root**2 @ noise.variance(j)) - np.trace(goal)
        for j in range(len(away))
    ])  # fmt: skip
    rows = np.array(own)[np.argsort(every[own], kind="stable")]
    found, apart, sd = [], [], []
    for row, j in enumerate(rows):
        k = rows[0] if row else rows[min(1, len(rows) - 1)]
        cells = both * noise.cell_covariance(j), both * noise.cell_covariance(k)
        errors = cells[0] * noise.spread(j), cells[1] * noise.spread(k)
        plan = measured.layout
        one = DistancePrecision.of_distance(
            away[j], cells[0], target_covariance=goal, error=errors[0] + goal, layout=plan
        )
        found.append(one)
        sd.append(float(one.sd_at(noise.spread(j))))
        apart.append(
            DistancePrecision.of_difference(
                (away[j], away[k]), cells, target_covariance=goal, errors=errors, layout=plan
            )
        )
    names = [measured.names[j - 1] for j in rows]
    n_cells = noise.pooled.n_cells[rows]
    return Distances(names, n_cells, every[rows], np.array(sd), float(every[0]), found, apart)


def distances_table(
    found: Distances, *, tolerance: float, power: float, confidence: float
) -> pd.DataFrame:
    """Return one row a perturbation: its distance, and the cells and guides that it takes."""
    nothing = found.nothing if found.nothing > 0 else np.nan
    sd = tolerance * nothing / norm.ppf((1 + confidence) / 2)
    beyond = found.differences
    tell = np.abs(beyond) / norm.ppf(power)
    pairs = list(zip(found.apart, tell, strict=True))
    return pd.DataFrame(
        {
            "perturbation": _adata.strings(found.names),
            "n_cells": found.n_cells.astype(np.int64),
            "distance": found.distance,
            "sd": found.sd,
            "relative_distance": found.distance / nothing,
            "cells_needed": np.array([float(plan.cells_for(sd)) for plan in found.own]),
            "guides_needed": np.array([float(plan.guides_for(sd)) for plan in found.own]),
            "difference": beyond,
            "cells_to_tell": np.array([float(plan.cells_for(s)) for plan, s in pairs]),
            "guides_to_tell": np.array([float(plan.guides_for(s)) for plan, s in pairs]),
        }
    )


def _covariance(cell: Array, target: Wanted) -> Array:
    """Return the covariance of the target's mean: its variances, and the cells' correlations."""
    own = np.maximum(cell.diagonal(), np.finfo(float).tiny)
    root = np.sqrt(target.goal.variances[0] / own)
    return cell * np.outer(root, root)
