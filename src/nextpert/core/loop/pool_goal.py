"""Goals of any kind on a pool of cells: some of their states are means of its perturbations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.predict.goal import Goal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class PoolGoal:
    """A goal, and which of its states are means of perturbations of a pool.

    Parameters
    ----------
    goal
        The goal; states of the pool stand in it as means of all of their cells.
    states, away
        Number of the perturbation that each wanted state, and each state to stay away from, is
        the mean of; -1 for none.
    """

    goal: Goal
    states: tuple[int, ...] = ()
    away: tuple[int, ...] = ()

    @property
    def own(self) -> list[int]:
        """Perturbations whose states are wanted."""
        return sorted({j for j in self.states if j >= 0})

    @property
    def used(self) -> list[int]:
        """Perturbations whose cells say what is wanted or to be stayed away from."""
        return sorted({j for j in (*self.states, *self.away) if j >= 0})

    def with_means(self, means: Mapping[int, Array]) -> Goal:
        """Return the goal with other means of the pool's perturbations, taken as exact."""
        old = self.goal

        def moved(rows: Array, numbers: tuple[int, ...]) -> Array | None:
            new = [
                means.get(j, row) for row, j in zip(rows, numbers or [-1] * len(rows), strict=True)
            ]
            return np.array(new) if new else None

        return Goal(
            old.origin, states=moved(old.states, self.states),
            shares=old.shares if len(old.states) else None, signature=old.signature,
            low=old.low, high=old.high, away_from=moved(old.away_from, self.away),
            margins=old.margins if len(old.margins) else None, weights=old.weights,
            penalty=old.penalty, direction_only=old.direction_only,
        )  # fmt: skip
