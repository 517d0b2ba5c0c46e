"""What the members of measured combinations do together, each combination left out in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata.members import effects_alone, numbered, pooled
from nextpert.core.effects.interactions import Interactions, Together, learn_interactions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nextpert.core.effects.perturbations import Perturbations
    from nextpert.core.effects.random_shifts import RandomShifts


def learn_together(
    members: Sequence[tuple[str, ...]], found: RandomShifts, seen: Perturbations
) -> tuple[Interactions, Together] | None:
    """Return the interactions of a screen, and what they expect of its combinations.

    Each is expected by its members and the other combinations; labels of the same members are one
    of these. Members without cells of their own are told of by combinations alone. ``None`` where
    there is no combination.
    """
    first = {some: j for j, some in reversed(list(enumerate(members)))}
    rows = np.array([j for j, some in enumerate(members) if len(some) > 1], np.int64)
    if not len(rows):
        return None
    labels, combined = numbered(members[j] for j in rows.tolist())
    has = seen.n[rows] > 0
    within = seen.covariance().diagonal()
    shifts = found.prior.given(found.posterior)
    mean, variance = effects_alone([found.posterior], [shifts], within)
    alone, spread, common = np.full((3, len(labels), len(within)), np.nan)
    for k, label in enumerate(labels):
        if (label,) in first:
            j = first[label,]
            alone[k], spread[k], common[k] = mean[j], variance[j], shifts.share[j]
    measured, effects, noise, place = pooled(
        [some for some, cells in zip(combined, has, strict=True) if cells],
        seen.observed[rows[has]], seen.variance[rows[has]],
    )  # fmt: skip
    told = has.any() or not np.isnan(alone).all()
    known = learn_interactions(
        alone, spread, measured, effects, noise, scale=None if told else np.sqrt(within)
    )
    expected = np.zeros((2, len(rows), len(within)))
    expected[:, has] = np.array(known.left_out())[:, place]
    expected[:, ~has] = known.predict([combined[k] for k in np.flatnonzero(~has)])
    shared = known.strength * np.array([np.nansum(common[list(c)], axis=0) for c in combined])
    return known, Together(rows, expected[0], expected[1], shared)
