"""What the campaigns of a replay are to reach: states of perturbations, and targets of any kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert import _adata
from nextpert._adata.target import Target, listed, parts_of
from nextpert.core.loop.cell_pool import GoalTruth, PoolGoal, goal_truth
from nextpert.tl._design_interventions.target import read_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import LabelTable, Roles
    from nextpert.core.loop.cell_pool import CellPool, Truth

FEWEST = 4  # cells of a perturbation: half of a target's are held back
_CLEAR = 3.0  # standard errors that a target lies off the controls, unless it was asked for


@dataclass(frozen=True)
class Goal:
    """What is to be reached: the state of a perturbation, by its number in the pool, or a goal."""

    name: str
    wanted: int | PoolGoal
    truth: Truth | GoalTruth

    @property
    def own(self) -> list[int]:
        """Perturbations whose states are wanted."""
        return self.wanted.own if isinstance(self.wanted, PoolGoal) else [self.wanted]

    def as_good(self, pool: CellPool, candidates: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which candidates are not told apart from the best, by all cells at 95 %."""
        if isinstance(self.truth, GoalTruth):
            return self.truth.as_good(candidates)
        return pool.as_good(self.own[0], candidates)


class Panel(NamedTuple):
    """What :func:`read_target` needs of a fit."""

    genes: list[str]
    columns: NDArray[np.int64]
    control_mean: NDArray[np.float64]
    params: dict[str, Any]


def read_wanted(targets: Any, labels: LabelTable, control: str) -> list[str | Target]:
    """Return targets as labels, where they are states of perturbations alone, or as they are.

    Raises
    ------
    ValueError
        If there are none, or a label is unknown or that of the controls.
    """
    if targets is None:
        return []
    given = list(targets) if isinstance(targets, (list, tuple)) else _adata.in_order(targets)
    wanted: list[str | Target] = []
    for each in given:
        label = str(each.state) if _is_label(each) else each
        wanted += [label] if isinstance(label, Target) else labels.spelled([str(label)])
    wanted = list(dict.fromkeys(wanted))
    if not wanted:
        message = "targets is empty: name a label, or leave it at None for all clear ones."
        raise ValueError(message)
    names = [each for each in wanted if isinstance(each, str)]
    labels.require(names, "Targets")
    if control in names:
        message = f"targets holds {control!r}, the control state itself: leave it out."
        raise ValueError(message)
    return wanted


def labels_of(wanted: str | Target, labels: LabelTable, roles: Roles) -> list[str]:
    """Return the perturbations whose states a target names."""
    if isinstance(wanted, str):
        return [wanted]
    states = (wanted.state, wanted.away_from)
    return [label for each in states for label in _labels(each, labels, roles) if label]


def require_cells(wanted: Sequence[str], names: Sequence[str]) -> None:
    """Raise if the perturbation of a target has too few cells."""
    absent = [name for name in wanted if name not in names]
    if absent:
        message = f"Targets of fewer than {FEWEST} cells: {_adata.list_names(absent)}."
        raise ValueError(message)


def label_goal(name: str, names: Sequence[str], pool: CellPool) -> Goal:
    """Return the state of a perturbation as a goal."""
    index = list(names).index(name)
    return Goal(name, index, pool.truth(index))


def target_goal(
    adata: ad.AnnData,
    target: Target,
    pool: CellPool,
    names: Sequence[str],
    panel: Panel,
    labels: LabelTable,
    roles: Roles,
) -> Goal:
    """Return a target of any kind as a goal on the pool.

    Raises
    ------
    ValueError
        If a part of it is unknown, or it is reached by the controls.
    """
    fit: Any = panel
    read = read_target(adata, target, fit, roles.perturbation_key)
    place = {name: j for j, name in enumerate(names)}
    states, away = (
        tuple(place.get(label, -1) for label in _labels(part, labels, roles))
        for part in (target.state, target.away_from)
    )
    wanted = PoolGoal(read.goal, states, away)
    return Goal(read.name, wanted, goal_truth(pool, wanted))


def clear_goals(names: Sequence[str], pool: CellPool) -> list[Goal]:
    """Return the states of all perturbations that lie clearly off the controls.

    Raises
    ------
    ValueError
        If there is none.
    """
    every = [label_goal(name, names, pool) for name in names]
    clear = [goal for goal in every if goal.truth.control > _CLEAR * goal.truth.control_sd]
    if not clear:
        message = (
            f"No perturbation lies {_CLEAR:g} standard errors off the controls, so there is no "
            f"state to find: name targets yourself, or widen the panel."
        )
        raise ValueError(message)
    return clear


def _is_label(target: Any) -> bool:
    return isinstance(target, Target) and (
        isinstance(target.state, str) and set(parts_of(target)) == {"state"}
    )


def _labels(states: Any, labels: LabelTable, roles: Roles) -> list[str]:
    """Return the perturbation of each state, empty for those that are none."""
    found = []
    for state in listed(states):
        own = isinstance(state, tuple) and state[0] == roles.perturbation_key
        label = str(state[1]) if own else state if isinstance(state, str) else ""
        found.append("" if label == roles.control else label)
    return labels.spelled(found)
