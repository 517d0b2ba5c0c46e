"""The advice on what to do next towards a target, the same in every function for the same fit."""

from __future__ import annotations

import logging
from math import floor
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert.core._checks import as_rng
from nextpert.core._shown import percent
from nextpert.core.design.plate import best_order
from nextpert.core.design.stopping import (
    AT_TARGET,
    CONFIRM,
    MEASURE,
    NO_DIFFERENCE,
    ORDER,
    differing,
    draw_plate,
    stopping,
)
from nextpert.core.fit.candidates import as_asked
from nextpert.tl._design_interventions.candidates import admit
from nextpert.tl._diagnose.controls import stored_null
from nextpert.tl._plan_screen.pool import Constraints, guides_of
from nextpert.tl._plan_screen.wells import N_SAMPLES, Choice, split_cells

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert.core.fit.candidates import CandidateSet
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.tl._design_interventions.target import PanelTarget
    from nextpert.tl._plan_screen.wells import Chosen, Wells

    Vector = NDArray[np.float64]

logger = logging.getLogger(__name__)  # of all advice; the command line prints it as a result

# The defaults of tl.plan_screen, used if there is no plan.
PLAN = {"n_perturbations": 8, "n_cells": 2000, "min_cells": 20}
TOLERANCE = 0.1  # smallest gain that counts, relative to the control's distance
CONFIDENCE = 0.95  # probability of being good enough from which the best known is to be confirmed
AS_ASSUMED = ", if pairs interact as the prior assumes"  # no measured combination shows how
NO_PERTURBATION = "no perturbation"
_FAR = 0.9  # share of the control's distance above which the best known is not near the target
_AS_NEAR, _NAMED = 0.5, 3  # probability of being as near as the best, and how many are named
_LIKELY = 0.01  # probability of being the nearest from which more cells are advised
_INTERVAL = 1.645  # half the width of a 90% interval, in standard deviations


def advise(
    adata: ad.AnnData,
    fit: FittedPosterior,
    pool: CandidateSet,
    target: PanelTarget,
    *,
    wells: Wells | None = None,
    n_guides: int | None = None,
    tolerance: float = TOLERANCE,
    are_admitted: bool = False,
    rng: int | np.random.Generator | None = 0,
) -> dict[str, Any]:
    """Return the advice, as it is stored, for the plan that ``tl.plan_screen`` makes by default.

    The plan has the size ``wells``, by default that of the plan in ``uns["plan"]``, or
    :data:`PLAN`; ``n_guides`` is by default that of the screen. ``are_admitted`` says whether
    untested combinations that are not admitted are already left out.
    """
    wells = wells or _usual(adata)
    guides = guides_of(adata, fit)[1] if n_guides is None else n_guides
    asked = as_asked(
        fit, pool, target.goal, target.targets, n_guides=guides, n_cells=wells.each,
        n_samples=N_SAMPLES, rng=as_rng(rng),
    )  # fmt: skip
    every = np.ones(len(pool.place), bool)
    admitted = every if are_admitted else admit(asked, pool, fit, target).admitted
    choice = Choice(asked, Constraints(every), wells, admitted)
    planned = choice.choose("exploit")
    return advice_on(adata, fit, pool, target, choice, planned, guides, tolerance=tolerance)


def _usual(adata: ad.AnnData) -> Wells:
    """Return the size of the plan in ``uns["plan"]``, or the default size."""
    size, controls = PLAN, None
    try:
        plan = _adata.read_stored(adata, "plan", "tl.plan_screen")
        size = {name: int(plan["params"][name]) for name in PLAN}
        controls = int(plan["summary"]["n_controls"])
    except (ValueError, KeyError):  # no plan, or one in another format
        pass
    return split_cells(size["n_cells"], size["n_perturbations"], size["min_cells"], controls)


def advice_on(
    adata: ad.AnnData,
    fit: FittedPosterior,
    pool: CandidateSet,
    target: PanelTarget,
    choice: Choice,
    planned: Chosen,
    n_guides: int,
    *,
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """Return the advice on a plan, as it is stored: one rule for all functions.

    ``choice`` is the choice that led to the plan, and ``n_guides`` the guides per perturbation.
    """
    is_kept = choice.admitted.copy()
    is_kept[planned.candidates] = True  # also those included on request
    kept = np.flatnonzero(is_kept)
    distances, noise = choice.asked.distances.rows(kept), choice.asked.noise
    pool, target = pool.rows(kept), target.rows(kept)
    names, seen = pool.interventions.names, pool.measured
    rows = fit.rows_of(names)
    if fit.is_exact:
        seen = (rows >= 0) & (np.append(fit.n_cells, 0)[rows] > 0)
    null = stored_null(adata, fit)
    tests = fit.environments if null.tests is None else null.tests
    tests = tests.set_index("perturbation").reindex(fit.names)
    differs = differing(tests["q_value"], tests["q_value_from_others"])[rows[seen]]
    n_cells = round(float(np.median(planned.cells)))
    plate, with_cells = np.searchsorted(kept, planned.candidates), np.flatnonzero(seen)
    plates = [plate]
    if len(with_cells) and not seen[plate].all():  # as large a plate of candidates with cells alone
        order, _ = best_order(
            distances.centre[with_cells], distances.draws[:, with_cells], len(plate)
        )
        plates.append(with_cells[order[: len(plate)]])
    # The variance of a perturbed cell, the mean over perturbations.
    if fit.hierarchical is None or fit.means is None:
        of_cell = np.asarray(fit.posterior.noise_var, np.float64)
    else:
        n = fit.means.n[:, None]
        counted = (n / fit.means.ratio).sum(axis=0)
        ratio = np.where(counted > 0, n.sum() / np.where(counted > 0, counted, 1.0), 1.0)
        of_cell = np.asarray(fit.hierarchical.effects.unit**2 * ratio)
    variance = (1 / n_cells + noise.shared) * of_cell
    drawn = [
        draw_plate(
            pool.rows(some).states(fit, target.targets), target.goal.rows([*some, -1]), some,
            variance=variance, n_samples=len(distances.draws), rng=0,
        )
        for some in plates
    ]  # fmt: skip
    advised = stopping(
        distances, seen, drawn[0], drawn[-1] if len(with_cells) else None, tolerance=tolerance,
        confidence=CONFIDENCE, distinct=(differs.any() or not seen.any()) and null.is_trusted,
    )  # fmt: skip
    nothing = float(distances.mean[-1])
    is_apart = np.isfinite(advised.relative_gain)
    first, named, cells = advised.chosen, np.zeros(0, np.int64), 0.0
    if advised.advice == CONFIRM and first < len(names):
        near = distances.draws - distances.draws.min(axis=1, keepdims=True) <= tolerance * nothing
        also = np.flatnonzero(seen & (near.mean(axis=0)[:-1] >= _AS_NEAR))
        also = also[np.argsort(distances.mean[also], kind="stable")]
        named = np.append(first, also[also != first])[:_NAMED]
        of_named = noise.rows(kept[named].tolist())
        cells = float(of_named.cells_for((tolerance * nothing / _INTERVAL) ** 2).max())
        cells = 10.0 * float(np.ceil(cells / 10))
    elif advised.advice == MEASURE:
        # The plan may include candidates that are unlikely to be the nearest.
        likely = distances.nearest[plates[-1]] >= _LIKELY
        named = plates[-1][likely] if likely.any() else plates[-1]
    of_more = advised.gain_of_more if len(with_cells) else 0.0
    relative = distances.median[first] / distances.median[-1] if is_apart else np.nan
    stored = {
        "kind": advised.advice,
        "best_known": [*names, NO_PERTURBATION][first],
        "probability_best_known": float(distances.nearest[first]),
        "good_enough": advised.good_enough,
        "relative_gain": advised.relative_gain,
        "relative_gain_of_more": of_more / nothing if is_apart else np.nan,
        "relative_distance": float(relative),
        "perturbations": _adata.strings(names[i] for i in named),
        "cells_needed": cells,
        "n_perturbations": len(plate),
        "n_cells": n_cells,
        "n_new_guides": n_guides if noise.shared > 0 else 0,
        "n_untested": int((~seen).sum()),
        "controls_trusted": int(null.is_trusted),
        "tolerance": tolerance,
        "candidates": _adata.strings(names),
    }
    return stored | {"words": in_words(stored, name_of(target.name), target.genes_in_words)}


def is_advised(plan: Mapping[str, Any]) -> bool:
    """Whether a stored plan follows its advice: all of it, or only perturbations that it names."""
    advice, table = plan["advice"], plan["plate"]
    chosen = set(table["perturbation"][table["strategy"].astype(str) != "control"].astype(str))
    return advice["kind"] == ORDER or chosen <= {*map(str, advice["perturbations"])}


def name_of(target: Any) -> str:
    """Return the name of a target, shortened if it lists many means.

    Examples
    --------
    >>> from nextpert.tl._advice import name_of
    >>> name_of("STAT1"), name_of("STAT1; own genes included"), name_of("IRF1=0.2, " * 9)
    ('STAT1', 'STAT1 (own genes included)', 'the target state')
    """
    if len(str(target)) > 60:
        return "the target state"
    state, *how = str(target).split("; ")
    return f"{state} ({'; '.join(how)})" if how else state


def in_words(advice: Mapping[str, Any], target: str, genes: str = "") -> str:
    """Return an advice in one or two sentences; ``genes`` says which genes are left out."""
    kind, untested = str(advice["kind"]), int(advice["n_untested"])
    if kind == AT_TARGET:
        return (
            f"Order nothing: {target} cannot be distinguished from the control{' ' * bool(genes)}"
            f"{genes}, so no perturbation can be said to be nearer. Choose a target farther from "
            f"the control, or measure more cells of both."
        )
    if kind == NO_DIFFERENCE and not advice["controls_trusted"]:
        return (
            "Order nothing: because tl.diagnose does not trust the negative controls, no "
            "perturbation can be said to differ from the others. Declare any undeclared guides and "
            "batches, and fit again; if all are declared, use more control guides."
        )
    if kind == NO_DIFFERENCE:
        others = f"the {untested} untested candidates" if untested > 1 else "other perturbations"
        return (
            f"Order no perturbation by this ranking: no candidate with cells differs both from the "
            f"controls and from the other perturbations. Measure more "
            f"cells per perturbation, or test {others}."
        )
    best = str(advice["best_known"])
    best = "the control" if best == NO_PERTURBATION else best
    # Rounded down, so that no probability below 0.95 reads as 95%.
    enough, n = floor(100 * advice["good_enough"]) / 100, len(advice["candidates"])
    which, probability = ("none", enough) if enough >= 0.5 else ("at least one", 1 - enough)
    chance = (
        f"ith probability {percent(probability)}, {which} of the {n} candidates is closer to "
        f"{target} than {best} by more than {100 * advice['tolerance']:g}% of the control's "
        f"distance"
    )
    named, x = _adata.list_names(advice["perturbations"], limit=8), advice["relative_distance"]
    if kind == CONFIRM and best == "the control":
        return f"Order nothing: w{chance}."
    if kind == CONFIRM:
        each = " each" * (len(advice["perturbations"]) > 1)
        needed = float(advice["cells_needed"])
        needed_in_words = f" with at least {needed:,.0f} new cells{each}" * (0 < needed < np.inf)
        what = f"nothing new; confirm {named}{needed_in_words}"
        what = "nothing, as no candidate comes close" if x > _FAR else what
        fraction = "less than 1%" if x < 0.01 else f"{100 * x:,.0f}%"
        return f"Order {what}: w{chance}. {best} has {fraction} of the control's distance."
    gain, of_more = (
        percent(advice[name]).replace("<", "less than")
        for name in ("relative_gain", "relative_gain_of_more")
    )
    each, n_new = f"{advice['n_cells']:,} cells each", int(advice["n_new_guides"])
    each += f", with {n_new} new guide{'s' * (n_new > 1)} each" * (kind == MEASURE and n_new > 0)
    what, instead = f"Order a plan of {advice['n_perturbations']} perturbations ({each})", ""
    if kind == MEASURE:
        what, gain, of_more = f"Measure more cells of {named} first ({each})", of_more, gain
    if untested:
        other = "the best plan with untested candidates" if kind == MEASURE else (
            "more cells of measured candidates"
        )  # fmt: skip
        instead = f" ({other}: {of_more})"
    return (
        f"{what}: after that, the best known perturbation is expected to be closer by {gain} of "
        f"the control's distance{instead}. W{chance}."
    )
