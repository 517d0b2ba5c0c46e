"""What the members of measured combinations do together, each combination left out in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata.members import effects_alone, numbered
from nextpert.core.effects.interactions import Interactions, learn_interactions
from nextpert.core.effects.stacked import Together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nextpert.core.effects.experts import Perturbations
    from nextpert.core.effects.random_shifts import RandomShifts


def learn_together(
    members: Sequence[tuple[str, ...]], found: RandomShifts, seen: Perturbations
) -> tuple[Interactions, Together] | None:
    """Return the interactions of a screen, and what they expect of its combinations.

    Each is expected by its members and the other combinations. Members without cells of their own
    are told of by combinations alone. ``None`` where no combination was measured.
    """
    first = {some: j for j, some in reversed(list(enumerate(members)))}
    rows = [j for some, j in first.items() if len(some) > 1 and seen.n[j] > 0]
    if not rows:
        return None
    rows = sorted(rows)
    labels, combined = numbered(members[j] for j in rows)
    within = seen.covariance().diagonal()
    shifts = found.prior.given(found.posterior)
    mean, variance = effects_alone([found.posterior], [shifts], within)
    alone, spread, common = np.full((3, len(labels), len(within)), np.nan)
    for k, label in enumerate(labels):
        if (label,) in first:
            j = first[label,]
            alone[k], spread[k], common[k] = mean[j], variance[j], shifts.share[j]
    known = learn_interactions(alone, spread, combined, seen.observed[rows], seen.variance[rows])
    shared = known.strength * np.array([np.nansum(common[list(c)], axis=0) for c in combined])
    return known, Together(np.array(rows), *known.left_out(), shared)


def interactions_record(known: Interactions) -> dict[str, Any]:
    """Return what was learned of interactions as it is stored."""
    return {
        "strength": known.strength,
        "strength_sd": known.strength_sd,
        "strengths": known.strengths,
        "chances": known.chances,
        "scale": known.scale,
        "member_sd": known.member_sd,
        "rest_sd": known.rest_sd,
        "n_combinations": len(known.measured),
    }
