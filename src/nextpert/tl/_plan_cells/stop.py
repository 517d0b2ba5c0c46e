"""Whether to stop, by the fit: what the next plate is expected to gain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert import _adata
from nextpert.core.plan.next_plate import draw_plate
from nextpert.core.plan.stopping import (
    AT_TARGET,
    GO_ON,
    NO_DIFFERENCE,
    Stopping,
    choose_plate,
    differing,
    stopping,
)
from nextpert.core.predict.ranked_distance import ranked_distance
from nextpert.tl._design_interventions.candidates import read_candidates

if TYPE_CHECKING:
    import anndata as ad

    from nextpert._adata import FittedPosterior
    from nextpert.tl._design_interventions.target import Wanted
    from nextpert.tl._plan_cells.screen import Measured

NO_PERTURBATION = "no perturbation"
PLATE = 8  # perturbations on the next plate, as of tl.plan_screen
_SMALL = 0.01  # gain below which a larger plate is advised, share of the control's distance


class PlateSize(NamedTuple):
    """Perturbations on the next plate, and cells of each."""

    n_perturbations: int
    n_cells: int


def ask(
    fit: FittedPosterior,
    target: Wanted,
    candidates: Any,
    measured: Measured,
    size: PlateSize,
    *,
    target_is_candidate: bool,
    tolerance: float,
    confidence: float,
    n_samples: int,
    rng: int | np.random.Generator | None,
) -> dict[str, Any]:
    """Return what the next plate is expected to gain, as it is stored.

    Raises
    ------
    ValueError
        If a candidate is unknown, or none is left but the target itself.
    """
    pool = read_candidates(candidates, None, fit, target, target_is_candidate=target_is_candidate)
    names = pool.interventions.names
    differs = dict(zip(measured.names, differing(measured.noise.pooled).tolist(), strict=True))
    told = hasattr(candidates, "items")  # a table of shifts, whatever the names
    seen = np.array([name in differs and not told for name in names])
    found = ranked_distance(
        fit.posteriors, fit.known(pool.prior), target.goal, n_samples=n_samples, rng=rng
    )
    chosen = choose_plate(found, seen, size.n_perturbations)
    plate = draw_plate(
        fit.posteriors, fit.known(pool.prior.rows(chosen)), target.goal, chosen,
        variance=measured.layout.spread(size.n_cells) * measured.noise.perturbed_variance,
        n_samples=n_samples, rng=rng,
    )  # fmt: skip
    distinct = [differs[name] for name, there in zip(names, seen, strict=True) if there]
    said: Stopping = stopping(
        found, seen, plate, tolerance=tolerance, confidence=confidence,
        distinct=any(distinct) or not distinct,
    )  # fmt: skip
    return {
        "best_known": [*names, NO_PERTURBATION][said.chosen],
        "gain": said.gain,
        "relative_gain": said.relative_gain,
        "good_enough": said.good_enough,
        "advice": said.advice,
        "stop": int(said.stop),
        "n_distinct": int(sum(distinct)),
        "n_untested": int((~seen).sum()),
        "n_perturbations": len(chosen),
        "n_cells": size.n_cells,
        "candidates": _adata.strings(names),
    }


def plate_size(adata: ad.AnnData, measured: Measured) -> PlateSize:
    """Return the size of the plate in ``uns["plan"]``, or of one like the screen."""
    plan = adata.uns.get("plan")
    table = plan.get("plate") if isinstance(plan, Mapping) else None
    if table is not None and {"aim", "n_cells"} <= set(getattr(table, "columns", ())):
        cells = table.loc[table["aim"].astype(str) != "control", "n_cells"]
        if len(cells) and cells.min() > 0:
            return PlateSize(len(cells), round(float(cells.median())))
    return PlateSize(PLATE, max(round(float(np.median(measured.n_cells))), 1))


def stop_in_words(said: Mapping[str, Any], target: str, *, tolerance: float) -> str:
    """Return whether to stop, and why."""
    advice, best = str(said["advice"]), str(said["best_known"])
    each = f"{said['n_perturbations']} perturbations, {said['n_cells']} cells each"
    if advice == NO_DIFFERENCE:
        new = int(said["n_untested"])
        others = f"test the {new} untested candidates" if new > 1 else "test other perturbations"
        return (
            f"No perturbation can be distinguished from the others, so what a further plate of the "
            f"same kind ({each}) would gain cannot be judged. Use more cells per perturbation, or "
            f"{others}."
        )
    if advice == AT_TARGET:
        return (
            f"The control cannot be distinguished from {target}: distances cannot be stated as "
            f"shares of the control's, and whether a further plate is worthwhile cannot be judged. "
            f"Choose a target farther from the control, or measure more cells of both."
        )
    best = "the control" if best == NO_PERTURBATION else best
    chance = (
        f"ith probability {percent(said['good_enough'])}, none of the {len(said['candidates'])} "
        f"candidates is closer to {target} than {best} by more than {100 * tolerance:g}% of the "
        f"control's distance"
    )
    if advice == GO_ON:
        gain = percent(said["relative_gain"]).replace("below", "less than")
        larger = ": plan a larger plate" if said["relative_gain"] < _SMALL else ""
        return (
            f"Go on: after the next plate ({each}), the best perturbation is expected to be closer "
            f"to {target} by {gain} of the control's distance{larger}. W{chance}."
        )
    return f"You can stop here. W{chance}."


def percent(share: float) -> str:
    """Return a share in percent; by draws, nothing is certain.

    Examples
    --------
    >>> from nextpert.tl._plan_cells.stop import percent
    >>> percent(0.004), percent(0.52), percent(1.0)
    ('below 1%', '52%', 'above 99%')
    """
    if not 0.01 <= share <= 0.99:
        return "below 1%" if share < 0.01 else "above 99%"
    return f"{100 * share:.0f}%"
