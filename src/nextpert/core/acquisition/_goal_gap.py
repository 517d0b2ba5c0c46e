"""The optimality gap that stands in for the distance to a goal of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.posterior.pair_shifts import weights_of
from nextpert.core.predict.goal import Quadratic
from nextpert.core.predict.ranked_distance import expected_states

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.goal import Goal

    Array = NDArray[np.float64]


def goal_gap(pairs: list[tuple[DagBlr, ShiftPosterior]], goal: Goal) -> Quadratic:
    """Return the ideal state and what every node's shift counts for in the gap.

    The ideal is the point that the goal's quadratic has near the best expected state, that of a
    candidate or of doing nothing. The gap is measured in shifts, the goal in states, and a shift
    moves what is downstream: so node ``i`` counts for the mean of the weights over what a shift
    of it moves, ``d_i sum_k A_ki^2 w_k / sum_k A_ki^2 d_k`` with ``A = (I - B)^-1`` and the goal's
    scale ``d``. Regulators count for what they regulate; where all nodes count alike it is 1, the
    gap of Zhang et al. 2023, and with a scale that of nodes so scaled.
    """
    if goal.is_plain:
        return Quadratic(goal.states[0], goal.scale)
    at = expected_states(pairs)
    best = int(goal.distance(at, at[-1]).argmin())
    point, weights = goal.quadratic(at[best])
    if np.array_equal(weights, goal.scale):
        return Quadratic(point, weights)
    p = goal.n_nodes
    each = [blr.solve(np.eye(p)) ** 2 for blr, _ in pairs]
    moved = np.average(each, axis=0, weights=weights_of(pairs))
    return Quadratic(point, goal.scale * (weights @ moved) / (goal.scale @ moved))
