"""Distances of the screen's perturbations to a target, and the cells that tell them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import norm

from nextpert import _adata
from nextpert.core.plan.nearer_chance import NearerChance, draw_noise
from nextpert.core.plan.power import DistancePrecision, quadratic_form

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from nextpert.tl._design_interventions.target import Wanted
    from nextpert.tl._plan_cells.screen import Measured

    Array = NDArray[np.float64]

INTERVAL = 0.9  # coverage of intervals, one level in the whole package


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
        Of a row: the chance that it comes out as it is, farther than the nearest; of the nearest
        itself, nearer than the second.
    """

    names: list[str]
    n_cells: NDArray[np.int64]
    distance: Array
    sd: Array
    nothing: float
    own: list[DistancePrecision]
    apart: Callable[[int], NearerChance]

    @property
    def differences(self) -> Array:
        """Distances beyond the nearest; of the nearest itself, of the second beyond it."""
        beyond = self.distance - self.distance[0]
        beyond[0] = beyond[1] if len(beyond) > 1 else np.nan
        return beyond


def read_distances(
    measured: Measured, target: Wanted, rng: int | np.random.Generator | None
) -> Distances | None:
    """Return distances and their precision; ``None`` where no perturbation is left to measure.

    Weights of genes count as units in which they are measured.
    """
    noise, root = measured.noise, np.sqrt(target.goal.weights)
    own = [
        j for j, name in enumerate(measured.names, start=1)
        if name != target.label and noise.pooled.n_cells[j] > 1
    ]  # fmt: skip
    if not own:
        return None
    of_goal = root * _scale(noise.covariance, target)
    goal = noise.covariance * np.outer(of_goal, of_goal)
    away = root * (noise.pooled.mean - target.goal.states[0])
    every = np.array([
        away[j] @ away[j] - noise.spread(j) * (root**2 @ noise.variance(j)) - np.trace(goal)
        for j in range(len(away))
    ])  # fmt: skip
    rows = np.array(own)[np.argsort(every[own], kind="stable")]
    plans = []
    for j in rows:
        cells = np.outer(root, root) * noise.cell_covariance(j)
        plans.append(
            DistancePrecision.of_distance(
                away[j], cells, target_covariance=goal,
                error=cells * noise.spread(j) + goal, layout=measured.layout,
            )
        )  # fmt: skip
    sd = [float(plan.sd_at(noise.spread(j))) for plan, j in zip(plans, rows, strict=True)]
    draws = draw_noise(noise.covariance, rng)

    def apart(row: int) -> NearerChance:
        pair = rows[row], rows[0] if row else rows[min(1, len(rows) - 1)]
        a, b = (away[j] for j in pair)
        scales = [root * np.sqrt(noise.pooled.variance_ratio[j]) for j in pair]
        cells = [noise.covariance * np.outer(scale, scale) for scale in scales]
        wrong = [cell * noise.spread(j) for cell, j in zip(cells, pair, strict=True)]
        return NearerChance.of_draws(
            (a, b), draws,
            scales=(scales[0], scales[1], of_goal),
            difference=every[pair[0]] - every[pair[1]],
            variances=(
                quadratic_form(a, cells[0], wrong[0] + goal),
                quadratic_form(b, cells[1], wrong[1] + goal),
                quadratic_form(a - b, goal, wrong[0] + wrong[1]),
            ),
            layout=measured.layout,
        )  # fmt: skip

    names = [measured.names[j - 1] for j in rows]
    n_cells = noise.pooled.n_cells[rows]
    return Distances(names, n_cells, every[rows], np.array(sd), float(every[0]), plans, apart)


def distances_table(found: Distances, *, tolerance: float, power: float) -> pd.DataFrame:
    """Return one row a perturbation: its distance, and the cells and guides that it takes."""
    nothing = found.nothing if found.nothing > 0 else np.nan
    sd = tolerance * nothing / norm.ppf((1 + INTERVAL) / 2)
    beyond = found.differences
    told = []
    for pair in map(found.apart, range(len(found.names))):
        spread = pair.spread_for(power)
        told.append((float(pair.layout.cells_for(spread)), float(pair.layout.guides_for(spread))))
    return pd.DataFrame(
        {
            "perturbation": _adata.strings(found.names),
            "n_cells": found.n_cells.astype(np.int64),
            "distance": found.distance,
            "sd": found.sd,
            "relative_distance": found.distance / nothing,
            "cells_needed": _of_width(found.own, "cells_for", sd),
            "guides_needed": _of_width(found.own, "guides_for", sd),
            "difference": beyond,
            "cells_to_tell": np.array([cells for cells, _ in told]),
            "guides_to_tell": np.array([guides for _, guides in told]),
        }
    )


def _of_width(plans: list[DistancePrecision], what: str, sd: float) -> Array:
    """Return what it takes for a standard deviation; NaN where there is none to reach."""
    if not np.isfinite(sd):
        return np.full(len(plans), np.nan)
    return np.array([float(getattr(plan, what)(sd)) for plan in plans])


def _scale(cell: Array, target: Wanted) -> Array:
    """Return the sd of the target's mean over that of a cell; its correlations are the cells'."""
    own = np.maximum(cell.diagonal(), np.finfo(float).tiny)
    return np.asarray(np.sqrt(target.goal.variances[0] / own))
