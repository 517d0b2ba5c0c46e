"""How many wells and cells, and which candidate goes into each well."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert.core.acquisition.uncertain_civ import UncertainCiv
from nextpert.core.plan.best_plate import best_plate, probable_plate
from nextpert.core.plan.control_share import dunnett_controls
from nextpert.core.plan.fill_plate import fill_plate
from nextpert.core.plan.whole_plate import removed_by_wells, whole_plate
from nextpert.core.predict.first_order import first_order_distances
from nextpert.core.predict.ranked_distance import probability_nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from nextpert.core import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.ranked_distance import RankedDistance
    from nextpert.tl._design_interventions.target import Wanted
    from nextpert.tl._plan_screen.constraints import Constraints

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]

AIMS = ("best", "learn", "both")
# Probability of holding the nearest with which a plate of both aims turns to learning.
SURE = 0.95


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
    cells: Index
    cost: Vector
    covered: Vector
    removed: Vector
    n_controls: int
    control_cost: float
    within: float


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
    most = (total - (n_controls or 0)) // least  # wells that cells suffice for
    for k in range(min(size, most), 0, -1):
        wanted = round(dunnett_controls(total, k)) if n_controls is None else n_controls
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
    target: Wanted,
    distance: RankedDistance,
    limits: Constraints,
    wells: Wells,
    *,
    aim: str,
    most_new: int | None,
    fixed_controls: int | None,
    rng: np.random.Generator,
) -> Plan:
    """Return the plate: what must be on it, what finds the best, and what teaches most."""
    # Only what matters for candidates that may come nearer than doing nothing is worth learning.
    nearer, nearest = distance.nearer[:-1], distance.nearest[:-1]
    weights = nearer if nearer.any() else None
    civ = UncertainCiv(
        posteriors, known, target.goal, n_cells=wells.each, noise_aware=True, weights=weights,
        rng=rng,
    )  # fmt: skip
    learned = _Learned(civ)
    distances = None
    if aim != "learn":
        distances = first_order_distances(
            posteriors, known, target.goal, n_samples=len(distance.draws), rng=rng
        )
    chosen: list[int] = []
    aims: list[str] = []
    for each in (wells.total / wells.size, wells.least):  # smaller wells where money is short
        price = limits.cost + limits.cell_cost * each
        if each > wells.least and price[limits.must].sum() > limits.budget:
            continue
        fill = partial(
            fill_plate, allowed=limits.allowed, pending=limits.under_way, cost=price,
            budget=limits.budget, new=known[0].n == 0, most_new=most_new,
        )  # fmt: skip
        chosen, aims = _fill(fill, learned, distances, limits, wells.size, aim)
        if chosen:
            break
    cells, n_controls = _cells(chosen, limits, wells, fixed_controls)
    chosen, before = chosen[: len(cells)], limits.under_way
    # As the wells were chosen: by the gap of the mean of a well.
    options: dict[str, Any] = {
        "pending": limits.pending, "weights": weights, "gap_cells": wells.each,
    }  # fmt: skip
    # To learn, cells go where they teach most; to find the best, all are given the same chance.
    alike = None if aim == "learn" else int(cells.min())
    split = whole_plate(
        posteriors, known, target.goal, len(chosen),
        int(cells.sum()) if alike is None else alike * len(chosen),
        chosen=chosen, must=limits.must, never=np.flatnonzero(~limits.allowed),
        least=alike or wells.least, most=alike, **options,
    )  # fmt: skip
    cells = split.cells if alike is None else cells
    removed = removed_by_wells(posteriors, known, target.goal, chosen, cells, **options)
    covered = np.minimum(nearest[before].sum() + np.cumsum(nearest[chosen]), 1.0)
    return Plan(
        chosen, aims[: len(cells)], cells, limits.cost[chosen] + limits.cell_cost * cells,
        covered, removed, n_controls, limits.cell_cost * n_controls, split.within,
    )  # fmt: skip


def _fill(
    fill: Callable[..., list[int]],
    learned: _Learned,
    distances: tuple[Vector, Vector] | None,
    limits: Constraints,
    size: int,
    aim: str,
) -> tuple[list[int], list[str]]:
    """Return candidates for the wells, and the aim of each."""
    chosen = list(limits.must)
    n_best = size if aim == "best" else 0
    if aim == "both" and distances is not None:
        n_best = _enough(*distances, limits, size - len(chosen))
    aims = ["must"] * len(chosen)
    if n_best and distances is not None:
        rank = _to_find_the_best(*distances, limits, n_best)
        until = min(len(chosen) + n_best, size)
        chosen = fill(lambda _: rank, until, must=chosen, per_cost=False)
        aims += ["best"] * (len(chosen) - len(aims))
    if aim != "best":
        chosen = fill(learned.after, size, must=chosen)
        aims += ["learn"] * (len(chosen) - len(aims))
    return chosen, aims


def _enough(expected: Vector, draws: Vector, limits: Constraints, size: int) -> int:
    """Return the wells, at most ``size``, that surely enough hold the nearest of all."""
    nearest = probability_nearest(draws)
    elsewhere = nearest[[*limits.must, *limits.under_way]].sum()
    for n in range(min(size, int(limits.allowed.sum()) + 1)):
        rank = _to_find_the_best(expected, draws, limits, max(n, 1))
        rank[limits.must] = -np.inf
        if elsewhere + nearest[np.argsort(-rank, kind="stable")[:n]].sum() >= SURE:
            return n
    return size


def _to_find_the_best(expected: Vector, draws: Vector, limits: Constraints, size: int) -> Vector:
    """Return a rank of every candidate, the higher the sooner it is to be tried."""
    some = np.flatnonzero(limits.allowed)
    first = best_plate(expected[some], draws[:, some], size)
    then = probable_plate(draws[:, some], len(some))
    order = np.append(first, then[~np.isin(then, first)])
    rank = np.full(len(limits.allowed), -np.inf)
    rank[some[order]] = -np.arange(len(some))
    return rank


class _Learned:
    """Shares removed by the cells of sets of candidates, each set looked at once."""

    def __init__(self, civ: UncertainCiv) -> None:
        self.civ = civ
        self._seen: dict[tuple[int, ...], Vector] = {}

    def after(self, chosen: Sequence[int]) -> Vector:
        key = tuple(chosen)
        if key not in self._seen:
            self._seen[key] = self.civ.removed_after(chosen)
        return self._seen[key]

    def removed(self, chosen: Sequence[int]) -> float:
        return float(self.after(chosen[:-1])[chosen[-1]]) if len(chosen) else 0.0


def _cells(
    chosen: Sequence[int], limits: Constraints, wells: Wells, fixed_controls: int | None
) -> tuple[Index, int]:
    """Return the cells of as many wells as cells and budget suffice for, and control cells."""
    for k in range(len(chosen), 0, -1):
        total = wells.total
        if limits.cell_cost > 0 and np.isfinite(limits.budget):
            spare = limits.budget - limits.cost[chosen[:k]].sum()
            total = min(total, int(spare / limits.cell_cost))
        wanted = dunnett_controls(total, k)
        controls = round(wanted) if fixed_controls is None else fixed_controls
        each, more = divmod(total - controls, k)
        if each >= wells.least:
            return each + (np.arange(k) < more).astype(np.int64), controls
    message = (
        f"No perturbation fits: the budget of {limits.budget:g} does not pay for one of at least "
        f"{wells.least} cells and its controls, or most_new leaves none."
    )
    raise ValueError(message)
