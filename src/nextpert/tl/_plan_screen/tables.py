"""The table of a plate, as it is handed to the bench."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import strings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior
    from nextpert.core.predict.ranked_distance import RankedDistance
    from nextpert.tl._design_interventions.candidates import Candidates
    from nextpert.tl._plan_screen.wells import Plan

    Vector = NDArray[np.float64]

# Rows of the plates that are sold, by their number of wells.
FORMATS = {8: 8, 96: 8, 384: 16}


def well_names(n: int, plate_format: int) -> list[str]:
    """Return the names of the first wells, column by column as a multichannel pipette fills them.

    Wells of further plates bear the number of the plate: ``2-A1``.

    Examples
    --------
    >>> from nextpert.tl._plan_screen.tables import well_names
    >>> well_names(9, 8)[-2:], well_names(10, 96)[-2:], well_names(17, 384)[-1]
    (['H1', '2-A1'], ['A2', 'B2'], 'A2')
    """
    rows = FORMATS[plate_format]
    names = []
    for i in range(n):
        plate, place = divmod(i, plate_format)
        column, row = divmod(place, rows)
        first = f"{plate + 1}-" if plate else ""
        names.append(f"{first}{chr(ord('A') + row)}{column + 1}")
    return names


def plate_table(
    pool: Candidates,
    plan: Plan,
    n_guides: NDArray[np.int64],
    plate_format: int | None,
    distance: RankedDistance,
    fit: FittedPosterior,
) -> pd.DataFrame:
    """Return one row a perturbation, in the order chosen, the controls last."""
    given, index = pool.interventions, np.array(plan.chosen, dtype=np.int64)
    names = fit.environments["perturbation"].astype(str)
    seen = dict(zip(names, fit.environments["n_cells"].astype(int), strict=True))
    columns: dict[str, Any] = {
        "perturbation": [given.names[i] for i in index],
        "target_genes": [", ".join(given.targets[i]) for i in index],
        "n_guides": n_guides,
        "n_cells": plan.cells,
        "n_cells_seen": [seen.get(given.names[i], 0) for i in index],
        "aim": plan.aims,
        "why": _why(plan, distance),
        "state_distance": np.maximum(distance.centre[index], 0.0),
        "probability_among_rest": plan.chance,
        "probability_best": distance.nearest[index],
        "probability_covered": plan.covered,
        "uncertainty_removed": plan.removed,
        "predicted_distance": np.maximum(distance.mean[index], 0.0),
        "predicted_low": distance.low[index],
        "predicted_high": distance.high[index],
        "cost": plan.cost,
    }
    table = pd.DataFrame(columns)
    if plan.n_controls:
        table.loc[len(table)] = [
            str(fit.params["control"]), "", 0, plan.n_controls, fit.n_control_cells, "control",
            "reference for all others", max(distance.centre[-1], 0.0), np.nan, 0.0,
            plan.covered[-1], plan.removed[-1], max(distance.mean[-1], 0.0), distance.low[-1],
            distance.high[-1], plan.control_cost,
        ]  # fmt: skip
    if plate_format is not None:
        table.insert(0, "well", well_names(len(table), plate_format))
    for name in {"well", "perturbation", "target_genes", "aim", "why"} & set(table):
        table[name] = strings(table[name])
    for name in ("n_guides", "n_cells", "n_cells_seen"):
        table[name] = table[name].astype(np.int64)
    return table


def pending_table(names: Sequence[str], cells: Vector) -> pd.DataFrame:
    """Return the candidates counted as under way, with their cells."""
    return pd.DataFrame(
        {"perturbation": strings(names), "n_cells": cells}, index=pd.Index(np.arange(len(names)))
    )


def best_known(
    pool: Candidates, distance: RankedDistance, n_cells: Vector, least: int
) -> dict[str, str | float]:
    """Return the measured candidate that most probably is the nearest, and how probably.

    Of those that are as probable, as where none ever is, the one expected nearest.
    """
    known = np.flatnonzero(n_cells >= least)
    if not len(known):
        return {"best_known": "", "probability_known": 0.0}
    chance, centre = distance.nearest[:-1][known], distance.centre[:-1][known]
    best = int(known[np.lexsort((centre, -chance))[0]])
    return {
        "best_known": pool.interventions.names[best],
        "probability_known": float(distance.nearest[best]),
    }


def _why(plan: Plan, distance: RankedDistance) -> list[str]:
    """Say why each is on the plate, by the value of the column that chose it."""
    state = np.maximum(distance.centre, 0.0)
    place = distance.centre[:-1].argsort(kind="stable").argsort() + 1
    words, before = [], 0.0
    for i, aim, chance, removed in zip(
        plan.chosen, plan.aims, plan.chance, plan.removed, strict=True
    ):
        if aim == "best" and np.isnan(chance):
            words.append(
                f"rank {place[i]} of {len(place)} by state_distance ({state[i]:.3g}; control "
                f"{state[-1]:.3g})"
            )
        elif aim == "best":
            words.append(
                f"nearest of the remaining candidates with probability {_at_least(chance, 0.01)}"
            )
        elif aim == "learn":
            more = _at_least(100 * (removed - before), 0.1)
            words.append(f"is expected to resolve {more}% more of the remaining uncertainty")
        elif aim == "acquisition":
            words.append("is among the first by the acquisition")
        else:
            words.append("has to be on the plate")
        before = removed
    return words


def _at_least(value: float, least: float) -> str:
    return f"{value:.2g}" if value >= least else f"below {least:g}"
