"""Whether to stop, by the fit: what is left to gain beyond the best perturbation known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert.core.plan.stopping import Stopping, stopping
from nextpert.core.predict.ranked_distance import ranked_distance
from nextpert.tl._design_interventions.candidates import read_candidates

if TYPE_CHECKING:
    from nextpert._adata import FittedPosterior
    from nextpert.tl._design_interventions.target import Wanted

NOTHING = "doing nothing"


def ask(
    fit: FittedPosterior,
    target: Wanted,
    candidates: Any,
    *,
    target_is_candidate: bool,
    tolerance: float,
    confidence: float,
    n_samples: int,
    rng: int | np.random.Generator | None,
) -> dict[str, Any]:
    """Return what going on could gain, as it is stored.

    Raises
    ------
    ValueError
        If a candidate is unknown, or none is left but the target itself.
    """
    pool = read_candidates(candidates, None, fit, target, target_is_candidate=target_is_candidate)
    names = pool.interventions.names
    seen = set(fit.environments["perturbation"].astype(str))
    told = hasattr(candidates, "items")  # a table of shifts, whatever the names
    measured = [name in seen and not told for name in names]
    found = ranked_distance(
        fit.posteriors, fit.known(pool.prior), target.goal, n_samples=n_samples, rng=rng
    )
    said: Stopping = stopping(found, measured, tolerance=tolerance, confidence=confidence)
    return {
        "best_known": [*names, NOTHING][said.chosen],
        "gap": said.gap,
        "relative_gap": said.relative_gap,
        "good_enough": said.good_enough,
        "stop": int(said.stop),
        "candidates": _adata.strings(names),
    }


def stop_in_words(said: dict[str, Any], target: str, *, tolerance: float) -> str:
    """Return whether to stop, and why."""
    best, share = said["best_known"], f"{100 * tolerance:g} %"
    chance = (
        f"with probability {100 * said['good_enough']:.0f} % none of {len(said['candidates'])} "
        f"candidates is nearer to {target} than {best} by more than {share} of the distance of "
        f"doing nothing"
    )
    if said["stop"]:
        return f"Stop: {chance}."
    gain = f"{100 * said['relative_gap']:.0f} %" if np.isfinite(said["relative_gap"]) else "more"
    return f"Go on: only {chance}; the best of them is expected to be nearer by {gain} of it."
