"""What to do next: the advice, and the plan that follows it, by one rule for all functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata.arguments import above, at_least, between, options
from nextpert.core._codec import strings
from nextpert.core.design.stopping import (
    CONFIRM,
    MEASURE,
    MIN_GAIN,
    ORDER,
    STOP_PROBABILITY,
    TOLERANCE,
    differing,
    draw_plate,
    stopping,
)
from nextpert.core.fit.candidates import differs_from_control
from nextpert.study.advice import MAX_NEAR_DISTANCE, NO_PERTURBATION, in_words, name_of
from nextpert.study.controls import StoredControls
from nextpert.study.panel_target import measured_goal
from nextpert.study.plate import ADVISED, N_SAMPLES, PlateChoice
from nextpert.study.ranking import rank

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.design.stopping import NextPlate, Stopping
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.study.plate import ChosenPlate, PlateSize
    from nextpert.study.pool import Pool
    from nextpert.study.ranking import Ranking

    Vector = NDArray[np.float64]


# The defaults of tl.plan_screen, used if there is no plan.
PLAN = {"n_perturbations": 8, "n_cells": 2000, "min_cells": 20}
_MIN_AS_NEAR = 0.5  # probability of being as near as the best
_MAX_NAMED = 3  # candidates in the words of an advice
_MIN_LIKELY = 0.01  # probability of being the nearest from which more cells are advised
_INTERVAL = 1.645  # half the width of a 90% interval, in standard deviations
_GUIDES = (1, 2, 4, 8, 16)  # new guides per perturbation for which cells are computed
_MORE_CELLS = 1.25  # ratio to the cells with most guides up to which fewer guides are preferred


@options(tolerance=above(0), min_gain=at_least(0), stop_probability=between(0, 1))
@dataclass(frozen=True)
class StoppingRule:
    """``stopping``, documented in ``tl.plan_screen``."""

    tolerance: float = TOLERANCE
    min_gain: float = MIN_GAIN
    stop_probability: float = STOP_PROBABILITY


class NextRound(NamedTuple):
    """The advice, as it is stored, and the plan that follows it.

    The plan is a choice among the candidates of ``choice``: those that are admitted, included or
    in progress. It is empty if the advice is not to profile any cells. ``admitted`` says which of
    all candidates are admitted, and ``adds_up`` is that of their ranking.
    """

    advice: dict[str, Any]
    chosen: ChosenPlate
    choice: PlateChoice
    admitted: NDArray[np.bool_]
    adds_up: bool


def next_plate(
    fit: FittedPosterior,
    pool: Pool,
    size: PlateSize,
    *,
    null: StoredControls | None,
    strategy: str = ADVISED,
    n_guides: int,
    rule: StoppingRule | None = None,
    n_samples: int = N_SAMPLES,
    rng: int | np.random.Generator | None = 0,
) -> NextRound:
    """Return the next round with its advice.

    ``pool`` holds all candidates that can still be the best, and says which of them can be planned.
    ``n_guides`` is the number of guides per perturbation, and ``null`` has the tests of a stored
    diagnosis. A ``strategy`` other than ``"advised"`` fills the plan with candidates that can be
    planned; the advice is about all. If ``null`` is ``None``, as in replays, a plan of such a
    strategy has no advice, and all of the pool is ranked for it.
    """
    options: dict[str, Any] = {
        "n_guides": n_guides,
        "n_cells": size.cells_each,
        "n_samples": n_samples,
        "rng": rng,
    }
    filled: NextRound | None = None
    if strategy != ADVISED:
        planned = pool
        if null is not None:  # the others are in the pool for the advice
            planned = pool.rows(np.flatnonzero(pool.allowed | pool.is_needed))
        ranking = rank(planned, fit, **options)
        choice = PlateChoice(ranking, size)
        chosen = choice.choose(strategy)
        filled = NextRound({}, chosen, choice, ranking.admitted, ranking.adds_up)
        if null is None:
            return filled
    ranking = rank(pool, fit, **options)
    advised = _advised(
        fit, ranking, size, null or StoredControls(), rule or StoppingRule(), options
    )
    return advised if filled is None else filled._replace(advice=advised.advice)


def _advised(
    fit: FittedPosterior,
    ranking: Ranking,
    size: PlateSize,
    null: StoredControls,
    rule: StoppingRule,
    options: dict[str, Any],
) -> NextRound:
    """Return the advice and its plan, by the rule of :func:`~nextpert.core.design.stopping`.

    Combinations that are not admitted count neither for distances nor for probabilities.
    ``options`` are those of the ranking.
    """
    admitted, n_guides = ranking.admitted, options["n_guides"]
    is_part = admitted | ranking.pool.is_needed
    if not is_part.all() and is_part.any():  # draws of these candidates alone
        ranking = ranking.rows(np.flatnonzero(is_part), fit, **options)
    pool, choice = ranking.pool, PlateChoice(ranking, size)
    target = pool.target
    names, is_measured = pool.candidates.names, pool.candidates.measured
    rows = fit.rows_of(names)
    if fit.is_exact:
        is_measured = (rows >= 0) & (np.append(fit.n_cells, 0)[rows] > 0)
    tests = fit.environments if null.tests is None else null.tests
    tests = tests.set_index("perturbation").reindex(fit.names)
    differs = differing(tests["q_value"], tests["q_value_from_others"])[rows[is_measured]]
    order = choice.choose("exploit")
    remeasure = choice.measure(choice.likely(is_measured, _MIN_LIKELY))
    if is_measured[order.candidates].all():  # nothing untested would be ordered
        order = remeasure
    drawn = [
        _draw(plate, fit, ranking) if plate.candidates else None for plate in (order, remeasure)
    ]
    target_differs = differs_from_control(fit, measured_goal(target, fit), target.rows_in_fit)
    decision = stopping(
        ranking.draws.distances,
        is_measured,
        drawn[0],
        drawn[1],
        tolerance=rule.tolerance,
        min_gain=rule.min_gain,
        stop_probability=rule.stop_probability,
        is_stated=target_differs and fit.has_replicates,
        is_trusted=null.is_trusted,
    )
    chosen = choice.measure([])
    needed = pd.DataFrame({"n_guides": np.empty(0, int), "n_cells": np.empty(0)})
    named: list[int] = []
    if decision.advice == CONFIRM and decision.chosen < len(names):
        as_near = ranking.draws.distances.as_near(rule.tolerance)[0, :-1]
        also = np.flatnonzero(is_measured & (as_near >= _MIN_AS_NEAR))
        also = also[np.argsort(ranking.draws.distances.mean[also], kind="stable")]
        named = [decision.chosen, *also[also != decision.chosen].tolist()][:_MAX_NAMED]
        needed = _cells_needed(ranking, named, fit, n_guides, rule.tolerance)
        # Cells are counted only if the best known candidate is nearer than the control is.
        median = ranking.draws.distances.median
        is_near = median[decision.chosen] <= MAX_NEAR_DISTANCE * median[-1]
        chosen = choice.confirm(named, _best(needed)["n_cells"] if is_near else 0.0)
    elif decision.advice in (MEASURE, ORDER):
        chosen = order if decision.advice == ORDER else remeasure
        named = [i for i in chosen.candidates if i not in pool.include]
    advice = _stored(decision, ranking, rule) | {
        "perturbations": strings(names[i] for i in named),
        "n_perturbations": len(named),
        "n_cells": round(float(np.median(chosen.cells))) if named and len(chosen.cells) else 0,
        "n_new_guides": _best(needed)["n_guides"] if len(needed) else n_guides,
        "cells_needed": _best(needed)["n_cells"],
        "cells_by_guides": needed,
        "n_untested": int((~is_measured).sum()),
        "target_differs": int(target_differs),
        "candidates_differ": int(differs.any() or not is_measured.any()),
        "has_replicates": int(fit.has_replicates),
    }
    if not ranking.draws.noise.shared > 0:  # guides do not vary, or are not known
        advice["n_new_guides"] = 0
    advice["words"] = in_words(advice, name_of(target.name), target.genes_in_words)
    return NextRound(advice, chosen, choice, admitted, ranking.adds_up)


def _draw(
    plate: ChosenPlate,
    fit: FittedPosterior,
    ranking: Ranking,
) -> NextPlate:
    """Draw what the cells of a plan will show."""
    candidates, target = np.array(plate.candidates, np.int64), ranking.pool.target
    # The variance of a perturbed cell, the mean over perturbations.
    if fit.hierarchical is None or fit.means is None:
        of_cell: Vector = np.asarray(fit.posterior.noise_var, np.float64)
    else:
        n = fit.means.n[:, None]
        counted = (n / fit.means.ratio).sum(axis=0)
        ratio = np.where(counted > 0, n.sum() / np.where(counted > 0, counted, 1.0), 1.0)
        of_cell = np.asarray(fit.hierarchical.effects.unit**2 * ratio)
    n_cells = round(float(np.median(plate.cells)))
    return draw_plate(
        ranking.pool.candidates.rows(candidates).states(fit, target.rows_in_fit),
        target.goal.rows([*candidates, -1]),
        candidates,
        variance=(1 / n_cells + ranking.draws.noise.shared) * of_cell,
        n_samples=len(ranking.draws.distances.draws),
        rng=0,
    )


def _cells_needed(
    ranking: Ranking, named: list[int], fit: FittedPosterior, n_guides: int, tolerance: float
) -> pd.DataFrame:
    """Return the cells that confirm each of some candidates, by number of new guides.

    With these cells alone, the half width of a 90% interval of the distance is the tolerance, for
    the candidate whose distance is the least precise. Cells are rounded up to tens.
    """
    noise, at_most = ranking.draws.noise.rows(named), tolerance * ranking.draws.distances.mean[-1]
    guides = [n_guides]
    if noise.shared > 0:
        guides = sorted({n_guides, *(g for g in _GUIDES if g > n_guides)})
    cells = [
        noise._replace(shared=noise.shared * n_guides / g).cells_for((at_most / _INTERVAL) ** 2)
        for g in guides
    ]
    rounded = [10.0 * np.ceil(n_cells.max() / 10) for n_cells in cells]
    return pd.DataFrame({"n_guides": guides, "n_cells": rounded})


def _best(needed: pd.DataFrame) -> dict[str, Any]:
    """Return the fewest guides whose cells are at most 1.25 times those with most guides."""
    if not len(needed):
        return {"n_guides": 0, "n_cells": 0.0}
    cells = needed["n_cells"].to_numpy()
    row = int((cells <= _MORE_CELLS * cells[-1]).argmax())
    return {"n_guides": int(needed["n_guides"].iloc[row]), "n_cells": float(cells[row])}


def _stored(decision: Stopping, ranking: Ranking, rule: StoppingRule) -> dict[str, Any]:
    """Return the numbers of an advice that follow from distances."""
    distances, first = ranking.draws.distances, decision.chosen
    nothing = float(distances.mean[-1])
    is_apart = np.isfinite(decision.relative_gain)
    of_more = 0.0 if np.isnan(decision.gain_of_more) else decision.gain_of_more
    relative = distances.median[first] / distances.median[-1] if is_apart else np.nan
    return {
        "kind": decision.advice,
        "best_known": [*ranking.pool.candidates.names, NO_PERTURBATION][first],
        "probability_best_known": float(distances.nearest[first]),
        "good_enough": decision.good_enough,
        "relative_gain": decision.relative_gain,
        "relative_gain_of_more": of_more / nothing if is_apart else np.nan,
        "relative_distance": float(relative),
        "tolerance": rule.tolerance,
        "min_gain": rule.min_gain,
        "stop_probability": rule.stop_probability,
        "candidates": strings(ranking.pool.candidates.names),
    }
