"""The tables of a plan of cells, the plan in words, and whether to stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert.core._shown import percent
from nextpert.core.design.distances import ranked_distance
from nextpert.core.design.stopping import (
    AT_TARGET,
    GO_ON,
    NO_DIFFERENCE,
    Stopping,
    choose_plate,
    differing,
    draw_plate,
    stopping,
)
from nextpert.tl._design_interventions.candidates import read_candidates
from nextpert.tl._design_interventions.own_genes import without_own_genes
from nextpert.tl._plan_cells.distances import INTERVAL

if TYPE_CHECKING:
    import anndata as ad

    from nextpert._adata import FittedPosterior
    from nextpert.core.design.cell_numbers import Layout
    from nextpert.tl._design_interventions.target import Wanted
    from nextpert.tl._diagnose.controls import StoredNull
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
            "highest_power": plan.limit(effect, confidence),
            "cells_for_half": plan.cells_for_width(effect / 2, INTERVAL),
        }
    )


def curves_table(
    measured: Measured, found: Distances | None, *, effect: float, confidence: float
) -> pd.DataFrame:
    """Return one row per number of guides and cells: precision, power, right choice."""
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


_MANY = 1e6  # cells that nobody measures


def effects_in_words(table: pd.DataFrame, layout: Layout, *, effect: float, power: float) -> str:
    """Return how many cells detect a change in one gene."""
    cells = table["cells_needed"].to_numpy(float)
    median, most = (float(np.quantile(cells, q, method="higher")) for q in (0.5, 0.9))
    said = (
        f"Detecting a change of {effect:g} with {_percent(power)} power takes {_cells(median)} per "
        f"perturbation for the median gene and {_cells(most)} for nine of ten genes, "
        f"{_layout(layout)}."
    )
    out = cells > _MANY
    if not out.any():
        return said
    guides = table["guides_needed"].to_numpy(float)[out]
    enough = guides[np.isfinite(guides) & (guides > layout.n_guides)]
    if len(enough):
        said += (
            f" {len(enough)} of {len(table)} genes need more guides, not more cells: "
            f"{_range(enough)}."
        )
    if len(enough) < out.sum():
        said += (
            f" {out.sum() - len(enough)} of {len(table)} genes need more controls or replicates: "
            f"more cells or guides do not suffice."
        )
    return said


def distances_in_words(
    table: pd.DataFrame, target: str, layout: Layout, *, tolerance: float, power: float
) -> str:
    """Return how many cells the nearest's distance takes, and its comparison with the second."""
    first = table.iloc[0]
    if np.isfinite(first["relative_distance"]):
        needed = _cells(float(first["cells_needed"]))
        said = (
            f"Estimating the squared distance of {first['perturbation']} to {target} within "
            f"±{_percent(tolerance)} of the control's distance takes {needed}"
            f"{_why_not(first, 'cells_needed', 'guides_needed', layout)}."
        )
    else:
        said = (
            f"The squared distance of the control to {target} is estimated as 0: precision cannot "
            f"be stated relative to it."
        )
    if len(table) > 1:
        second = table.iloc[1]
        said += (
            f" Distinguishing {first['perturbation']} from {second['perturbation']} with "
            f"{_percent(power)} power, if their distances differ as measured, takes "
            f"{_cells(float(first['cells_to_distinguish']))} of each"
            f"{_why_not(first, 'cells_to_distinguish', 'guides_to_distinguish', layout)}."
        )
    return said


def _why_not(row: pd.Series, cells: str, guides: str, layout: Layout) -> str:
    """Return what is needed if more cells do not suffice."""
    wanted = float(row[guides])
    if float(row[cells]) <= _MANY:
        return ""
    if layout.n_guides < wanted < np.inf:
        return f" (more guides are needed: {wanted:.0f})"
    if layout.replicate_variance > 0:
        return " (more cells of the target, or more replicates, are needed)"
    return " (more cells of the target are needed)"


def _cells(number: float) -> str:
    if number > _MANY:
        return "more than 1,000,000 cells"
    return f"{number:,.0f} cell{'s' * (round(number) != 1)}"


def _percent(share: float) -> str:
    return f"{100 * share:g}%"


def _layout(layout: Layout) -> str:
    parts = [
        f"{n} {what}{'s' * (n > 1)}"
        for n, what in ((layout.n_guides, "guide"), (layout.n_replicates, "replicate"))
    ]
    return f"with {parts[0]} and {parts[1]} of each"


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low} guides" if low == high else f"{low} to {high} guides"


NO_PERTURBATION = "no perturbation"
PLATE = 8  # perturbations on the next plate, as of tl.plan_screen
_NOT_NEAR = 0.9  # of the control's distance: a best known that hardly approaches the target
_SMALL = 0.01  # gain below which a larger plate is advised, share of the control's distance


def ask(
    fit: FittedPosterior,
    target: Wanted,
    candidates: Any,
    measured: Measured,
    n_perturbations: int,
    n_cells: int,
    *,
    null: StoredNull,
    target_is_candidate: bool,
    tolerance: float,
    confidence: float,
    n_samples: int,
    rng: int | np.random.Generator | None,
) -> dict[str, Any]:
    """Return the expected gain of the next plate, as it is stored.

    Parameters
    ----------
    fit, target, candidates
        The fit, the target, and what could still be tested.
    measured
        The noise of the screen.
    n_perturbations, n_cells
        Perturbations on the next plate, and cells of each.
    null
        What a diagnosis says of the null. Where its controls are not trusted nothing is said to
        differ.
    target_is_candidate, tolerance, n_samples, rng
        As in ``tl.plan_cells``.
    confidence
        Probability of being good enough at which a campaign stops.

    Raises
    ------
    ValueError
        If a candidate is unknown, or none is left but the target itself.
    """
    pool = read_candidates(candidates, None, fit, target, target_is_candidate=target_is_candidate)
    pool, target = without_own_genes(pool, target, fit)
    names = pool.interventions.names
    told = hasattr(candidates, "items")  # a table of shifts, whatever the names
    apart = differing(measured.noise.pooled, factor=null.width.factor)
    each = zip(measured.names, apart.tolist(), strict=True)
    differs = {} if told else dict(each)
    seen = np.array([name in differs for name in names])
    found = ranked_distance(
        pool.states(fit, target.targets), target.goal, n_samples=n_samples, rng=rng
    )
    chosen = choose_plate(found, seen, n_perturbations)
    on_plate = pool.rows(chosen.tolist())
    plate = draw_plate(
        on_plate.states(fit, target.targets), target.goal.rows([*chosen, -1]), chosen,
        variance=measured.layout.spread(n_cells) * measured.noise.perturbed_variance,
        n_samples=n_samples, rng=rng,
    )  # fmt: skip
    distinct = [differs[name] for name in names if name in differs]
    said: Stopping = stopping(
        found, seen, plate, tolerance=tolerance, confidence=confidence,
        distinct=(any(distinct) or not distinct) and null.is_trusted,
    )  # fmt: skip
    known = np.isfinite(said.relative_gain)
    return {
        "best_known": [*names, NO_PERTURBATION][said.chosen],
        "gain": said.gain,
        "relative_gain": said.relative_gain,
        "relative_distance": float(found.mean[said.chosen] / found.mean[-1]) if known else np.nan,
        "good_enough": said.good_enough,
        "advice": said.advice,
        "stop": int(said.stop),
        "n_distinct": int(sum(distinct)),
        "controls_trusted": int(null.is_trusted),
        "n_untested": int((~seen).sum()),
        "n_perturbations": len(chosen),
        "n_cells": n_cells,
        "candidates": _adata.strings(names),
        "genes_left_out": target.genes_in_words,
    }


def plate_size(adata: ad.AnnData, measured: Measured) -> tuple[int, int]:
    """Return perturbations, and cells of each, of the plate in ``uns["plan"]``, or as usual."""
    plan = adata.uns.get("plan")
    table = plan.get("plate") if isinstance(plan, Mapping) else None
    if table is not None and {"strategy", "n_cells"} <= set(getattr(table, "columns", ())):
        cells = table.loc[table["strategy"].astype(str) != "control", "n_cells"]
        if len(cells) and cells.min() > 0:
            return len(cells), round(float(cells.median()))
    return PLATE, max(round(float(np.median(measured.n_cells))), 1)


def stop_in_words(said: Mapping[str, Any], target: str, *, tolerance: float) -> str:
    """Return whether to stop, and why."""
    advice, best = str(said["advice"]), str(said["best_known"])
    each = f"{said['n_perturbations']} perturbations, {said['n_cells']} cells each"
    if advice == NO_DIFFERENCE and not said.get("controls_trusted", 1):
        return (
            f"The negative controls of tl.diagnose are not trusted, so the gain of a further plate "
            f"of the same kind ({each}) cannot be estimated. Declare guides and batches that are "
            f"not declared, and fit again; if all are, the controls need more guides."
        )
    if advice == NO_DIFFERENCE:
        new = int(said["n_untested"])
        others = f"test the {new} untested candidates" if new > 1 else "test other perturbations"
        return (
            f"No perturbation can be distinguished from the others, so the gain of a further plate "
            f"of the same kind ({each}) cannot be estimated. Use more cells per perturbation, or "
            f"{others}."
        )
    if advice == AT_TARGET:
        return (
            f"The control cannot be distinguished from {target}: distances cannot be stated "
            f"relative to the control's, and the gain of a further plate cannot be estimated. "
            f"Choose a target farther from the control, or measure more cells of both."
        )
    best = "the control" if best == NO_PERTURBATION else best
    chance = (
        f"ith probability {percent(said['good_enough'])}, none of the {len(said['candidates'])} "
        f"candidates is closer to {target} than {best} by more than {100 * tolerance:g}% of the "
        f"control's distance"
    )
    if advice == GO_ON:
        gain = percent(said["relative_gain"]).replace("<", "less than")
        larger = ": plan a larger plate" if said["relative_gain"] < _SMALL else ""
        return (
            f"Go on: after the next plate ({each}), the best perturbation is expected to be closer "
            f"to {target} by {gain} of the control's distance{larger}. W{chance}."
        )
    short = ""
    if said.get("relative_distance", 0.0) > _NOT_NEAR and best != "the control":
        away = percent(said["relative_distance"])
        short = f" But {best} itself has {away} of the control's distance: no candidate reaches it."
    return f"You can stop here. W{chance}.{short}"
