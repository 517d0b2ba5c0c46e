"""How many wells and cells, and which candidate goes into each well."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core.acquisition.uncertain_civ import UncertainCiv
from nextpert.core.plan.fill_plate import FilledPlate, fill_plate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.ranked_distance import RankedDistance
    from nextpert.tl._design_interventions.target import Target
    from nextpert.tl._plan_screen.constraints import Constraints

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]

AIMS = ("both", "best", "learn")
_TIE = 1e-9


class Wells(NamedTuple):
    """Most perturbations on a plate, cells of each, and control cells."""

    size: int
    each: int
    controls: int
    total: int
    least: int


class Plan(NamedTuple):
    """Candidates chosen, and for every well its cells, cost and what is expected up to it."""

    chosen: list[int]
    aims: list[str]
    gains: list[float]
    cells: Index
    cost: Vector
    covered: Vector
    removed: Vector
    n_controls: int
    control_cost: float


def split_cells(total: int, size: int, n_controls: int | None, least: int) -> Wells:
    """Return as many wells as cells suffice for, and the cells of each.

    Raises
    ------
    ValueError
        If they do not suffice for one.

    Examples
    --------
    >>> from nextpert.tl._plan_screen.wells import split_cells
    >>> split_cells(1200, 4, None, 20)
    Wells(size=4, each=200, controls=400, total=1200, least=20)
    >>> split_cells(100, 8, 10, 20).size
    4
    """
    for k in range(size, 0, -1):
        wanted = dunnett_controls(total, k) if n_controls is None else n_controls
        each = (total - wanted) // k
        if each >= least:
            return Wells(k, each, wanted, total, least)
    controls = "" if n_controls is None else f" beside {n_controls} controls"
    message = (
        f"{total} cells do not suffice for a perturbation of at least {least}{controls}: give more "
        f"n_cells, or fewer least_cells or n_controls."
    )
    raise ValueError(message)


def choose_wells(
    posteriors: Sequence[DagBlr],
    known: Sequence[ShiftPosterior],
    target: Target,
    distance: RankedDistance,
    limits: Constraints,
    wells: Wells,
    *,
    aim: str,
    most_new: int | None,
    fixed_controls: int | None,
    rng: np.random.Generator,
) -> Plan:
    """Return the plate."""
    # Only what matters for candidates that may come nearer than doing nothing is worth learning.
    nearer = distance.nearer[:-1]
    civ = UncertainCiv(
        posteriors, known, target.mean, n_cells=wells.each, noise_aware=True,
        weights=nearer if nearer.any() else None, rng=rng,
    )  # fmt: skip
    nearest = distance.nearest[:-1]
    pending = np.flatnonzero(limits.pending).tolist()
    learned = _Learned(civ)
    # What may be gained by looking for the best is what is not yet known of it: where a measured
    # candidate is the nearest for sure, wells go to what else is to be learned.
    doubt = 1 - nearest[known[0].n >= wells.least].max(initial=0.0) if aim == "both" else 1.0
    # Of equals, most of which are the nearest in no draw, the one nearest on average.
    closeness = np.argsort(np.argsort(-distance.mean[:-1], kind="stable")) / len(nearest)
    aims = {"best": lambda _: doubt * (nearest + _TIE * closeness), "learn": learned.gains}
    filled = FilledPlate([], [], [])
    for each in (wells.total / wells.size, wells.least):
        price = limits.cost + limits.cell_cost * each
        if each > wells.least and price[limits.must].sum() > limits.budget:
            continue
        filled = fill_plate(
            {name: aims[name] for name in aims if aim in (name, "both")},
            wells.size,
            allowed=limits.allowed,
            must=limits.must,
            pending=pending,
            cost=price,
            budget=limits.budget,
            new=known[0].n == 0,
            most_new=most_new,
        )
        if filled.chosen:
            break
    filled, cells, n_controls = _cells(filled, limits, wells, fixed_controls)
    order = [*pending, *filled.chosen]
    removed = np.array([learned.removed(order[: k + 1]) for k in range(len(pending), len(order))])
    covered = nearest[pending].sum() + np.cumsum(nearest[filled.chosen])
    cost = limits.cost[filled.chosen] + limits.cell_cost * cells
    control_cost = limits.cell_cost * n_controls
    return Plan(*filled, cells, cost, covered, removed, n_controls, control_cost)


class _Learned:
    """Shares removed by the cells of sets of candidates, each set looked at once."""

    def __init__(self, civ: UncertainCiv) -> None:
        self.civ, self._seen = civ, {}

    _seen: dict[tuple[int, ...], Vector]

    def after(self, chosen: Sequence[int]) -> Vector:
        key = tuple(chosen)
        if key not in self._seen:
            self._seen[key] = self.civ.removed_after(chosen)
        return self._seen[key]

    def removed(self, chosen: Sequence[int]) -> float:
        return float(self.after(chosen[:-1])[chosen[-1]]) if len(chosen) else 0.0

    def gains(self, chosen: Sequence[int]) -> Vector:
        return self.after(chosen) - self.removed(chosen)


def _cells(
    filled: FilledPlate, limits: Constraints, wells: Wells, fixed_controls: int | None
) -> tuple[FilledPlate, Index, int]:
    """Return the wells that cells and budget suffice for, cells of each, and control cells."""
    for k in range(len(filled.chosen), 0, -1):
        kept = FilledPlate(filled.chosen[:k], filled.aims[:k], filled.gains[:k])
        total = wells.total
        if limits.cell_cost > 0 and np.isfinite(limits.budget):
            spare = limits.budget - limits.cost[kept.chosen].sum()
            total = min(total, int(spare / limits.cell_cost))
        controls = dunnett_controls(total, k) if fixed_controls is None else fixed_controls
        each, more = divmod(total - controls, k)
        if each >= wells.least:
            return kept, each + (np.arange(k) < more).astype(np.int64), controls
    message = (
        f"No perturbation fits: the budget of {limits.budget:g} does not pay for one of at least "
        f"{wells.least} cells and its controls, or most_new leaves none."
    )
    raise ValueError(message)


def dunnett_controls(total: int, k: int) -> int:
    """Return the control cells that make ``k`` differences to them most precise.

    Each mean is of ``n`` cells and that of the controls of ``sqrt(k) n`` (Dunnett 1955).

    Examples
    --------
    >>> from nextpert.tl._plan_screen.wells import dunnett_controls
    >>> dunnett_controls(1200, 4)
    400
    """
    return round(total * k**0.5 / (k + k**0.5))
