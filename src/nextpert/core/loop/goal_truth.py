"""How far perturbations are from a goal of any kind, by all of their cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.cells.mean_distance import covariance_of_mean
from nextpert.core.cells.moments import Moments
from nextpert.core.loop.pool_goal import PoolGoal
from nextpert.core.predict._goal_parts import sampling_root

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.loop.cell_pool import CellPool

    Array = NDArray[np.float64]

_N_DRAWS = 500


@dataclass(frozen=True)
class GoalTruth:
    """How far perturbations and controls are from a goal, by all of their cells.

    Parameters
    ----------
    distance, sd
        Distances less what sampling adds to those of wanted states, and their standard
        deviations, shape ``(n_perturbations,)``.
    control, control_sd
        The same of the control cells.
    draws
        Distances with means drawn as they are known, ``(n_draws, n_perturbations)``.
    """

    distance: Array
    sd: Array
    control: float
    control_sd: float
    draws: Array

    def as_good(self, candidates: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which candidates are not told apart from the best, at 95 %."""
        best = int(candidates[np.argmin(self.distance[candidates])])
        beyond = self.distance[candidates] - self.distance[best]
        apart = self.draws[:, candidates] - self.draws[:, [best]]
        return np.asarray(beyond <= 1.96 * apart.std(axis=0), np.bool_)


def goal_truth(pool: CellPool, wanted: PoolGoal) -> GoalTruth:
    """Return how far all perturbations and the controls are from a goal.

    Spreads come from draws of all means about those of the cells, with a fixed seed.
    """
    rng, control = np.random.default_rng(0), Moments.from_array(pool.control)
    every = [*(pool.moments(j) for j in range(pool.n_perturbations)), control]
    covariances = [covariance_of_mean(each) for each in every]
    goal = wanted.with_means({j: every[j].mean for j in wanted.used})
    numbers = [*wanted.states, *[-1] * (len(goal.states) - len(wanted.states))]
    variances = [
        own if j < 0 else covariances[j].diagonal()
        for j, own in zip(numbers, wanted.goal.variances, strict=True)
    ]

    def errors(j: int) -> Array:
        root = sampling_root(covariances[j], control.n_nodes)[0]
        return rng.standard_normal((_N_DRAWS, len(root))) @ root.T

    known = {j: errors(j) for j in wanted.used}
    moved = []  # the goal, draw by draw
    for k in range(_N_DRAWS):
        off = wanted.goal.draw_errors(rng)
        each = (
            goal
            if off is None
            else PoolGoal(goal, tuple(range(len(off)))).with_means(
                dict(enumerate(goal.states + off))
            )
        )
        means = {j: every[j].mean + error[k] for j, error in known.items()}
        moved.append(PoolGoal(each, wanted.states, wanted.away).with_means(means))
    distance, draws = np.empty(len(every)), np.empty((_N_DRAWS, len(every)))
    for j, cells in enumerate(every):
        added = sum(
            share * (goal.excess(covariances[j].diagonal()) + goal.excess(variance))
            for share, variance, number in zip(goal.shares, variances, numbers, strict=True)
            if number != j
        )
        distance[j] = goal.distance(cells.mean[None])[0] - added
        off = known[j] if j in known else errors(j)
        draws[:, j] = [
            each.distance((cells.mean + error)[None])[0]
            for each, error in zip(moved, off, strict=True)
        ]
    sd = draws.std(axis=0)
    return GoalTruth(distance[:-1], sd[:-1], float(distance[-1]), float(sd[-1]), draws[:, :-1])
