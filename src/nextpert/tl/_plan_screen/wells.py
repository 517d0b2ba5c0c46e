"""How many cells and which candidate go into each well, and the table of the plate."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata import strings
from nextpert.core.design.candidates import Candidates
from nextpert.core.design.cell_numbers import dunnett_controls
from nextpert.core.design.distances import first_order_distances, probability_nearest
from nextpert.core.design.plate import PlateCiv, allocate_cells, best_order, greedy_plate
from nextpert.core.design.registry import find_acquisition

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior
    from nextpert.core.design.distances import RankedDistance
    from nextpert.core.design.goal import Goal
    from nextpert.core.model.averaged import Averaged
    from nextpert.core.model.shift_prior import ShiftPrior
    from nextpert.tl._design_interventions.candidates import CandidateSet
    from nextpert.tl._plan_screen.pool import Constraints

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]

# Rows of the plates that are sold, by their number of wells.
FORMATS = {8: 8, 96: 8, 384: 16}


def well_names(n: int, plate_format: int) -> list[str]:
    """Return the names of the first wells, column by column as a multichannel pipette fills them.

    Wells of further plates bear the number of the plate: ``2-A1``.

    Examples
    --------
    >>> from nextpert.tl._plan_screen.wells import well_names
    >>> well_names(9, 8)[-2:], well_names(10, 96)[-2:], well_names(17, 384)[-1]
    (['H1', '2-A1'], ['A2', 'B2'], 'A2')
    """
    rows = FORMATS[plate_format]
    names = []
    for i in range(n):
        plate, place = divmod(i, plate_format)
        column, row = divmod(place, rows)
        first = f"{plate + 1}-" if plate else ""
        names.append(f"{first}{chr(ord('A') + row)}{column + 1}")
    return names


def plate_table(
    pool: CandidateSet,
    plan: Plan,
    n_guides: NDArray[np.int64],
    plate_format: int,
    distance: RankedDistance,
    fit: FittedPosterior,
) -> pd.DataFrame:
    """Return one row a well, in the order chosen, the controls last."""
    given, index = pool.interventions, np.array(plan.chosen, dtype=np.int64)
    names = fit.environments["perturbation"].astype(str)
    seen = dict(zip(names, fit.environments["n_cells"].astype(int), strict=True))
    columns: dict[str, Any] = {
        "perturbation": [given.names[i] for i in index],
        "target_genes": [", ".join(given.targets[i]) for i in index],
        "n_guides": n_guides,
        "n_cells": plan.cells,
        "n_cells_seen": [seen.get(given.names[i], 0) for i in index],
        "aim": plan.aims,
        "why": _why(plan, distance),
        "state_distance": np.maximum(distance.centre[index], 0.0),
        "probability_among_rest": plan.chance,
        "probability_best": distance.nearest[index],
        "probability_covered": plan.covered,
        "uncertainty_removed": plan.removed,
        "predicted_distance": np.maximum(distance.mean[index], 0.0),
        "predicted_low": distance.low[index],
        "predicted_high": distance.high[index],
        "cost": plan.cost,
    }
    table = pd.DataFrame(columns)
    if plan.n_controls:
        table.loc[len(table)] = [
            str(fit.params["control"]), "", 0, plan.n_controls, fit.n_control_cells, "control",
            "reference for all others", max(distance.centre[-1], 0.0), np.nan, 0.0,
            plan.covered[-1], plan.removed[-1], max(distance.mean[-1], 0.0), distance.low[-1],
            distance.high[-1], plan.control_cost,
        ]  # fmt: skip
    table.insert(0, "well", well_names(len(table), plate_format))
    for name in ("well", "perturbation", "target_genes", "aim", "why"):
        table[name] = strings(table[name])
    for name in ("n_guides", "n_cells", "n_cells_seen"):
        table[name] = table[name].astype(np.int64)
    return table


def pending_table(names: Sequence[str], cells: Vector) -> pd.DataFrame:
    """Return the candidates counted as under way, with their cells."""
    return pd.DataFrame(
        {"perturbation": strings(names), "n_cells": cells}, index=pd.Index(np.arange(len(names)))
    )


def best_known(
    pool: CandidateSet, distance: RankedDistance, n_cells: Vector, least: int
) -> dict[str, str | float]:
    """Return the measured candidate that most probably is the nearest, and how probably.

    Of those that are as probable, as where none ever is, the one expected nearest.
    """
    known = np.flatnonzero(n_cells >= least)
    if not len(known):
        return {"best_known": "", "probability_known": 0.0}
    chance, centre = distance.nearest[:-1][known], distance.centre[:-1][known]
    best = int(known[np.lexsort((centre, -chance))[0]])
    return {
        "best_known": pool.interventions.names[best],
        "probability_known": float(distance.nearest[best]),
    }


def _why(plan: Plan, distance: RankedDistance) -> list[str]:
    """Say why each is on the plate, by the value of the column that chose it."""
    state = np.maximum(distance.centre, 0.0)
    place = distance.centre[:-1].argsort(kind="stable").argsort() + 1
    words, before = [], 0.0
    for i, aim, chance, removed in zip(
        plan.chosen, plan.aims, plan.chance, plan.removed, strict=True
    ):
        if aim == "best" and np.isnan(chance):
            words.append(
                f"rank {place[i]} of {len(place)} by state_distance ({state[i]:.3g}; control "
                f"{state[-1]:.3g})"
            )
        elif aim == "best":
            words.append(
                f"nearest of the remaining candidates with probability {_at_least(chance, 0.01)}"
            )
        elif aim == "learn":
            more = _at_least(100 * (removed - before), 0.1)
            words.append(f"is expected to resolve {more}% more of the remaining uncertainty")
        elif aim == "acquisition":
            words.append("is among the first by the acquisition")
        else:
            words.append("has to be on the plate")
        before = removed
    return words


def _at_least(value: float, least: float) -> str:
    return f"{value:.2g}" if value >= least else f"below {least:g}"


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


class Chosen(NamedTuple):
    """Candidates chosen, and for every well its aim, the probability that chose it and its cells.

    The probability is NaN where none did.
    """

    candidates: list[int]
    aims: list[str]
    chance: Vector
    cells: Index
    n_controls: int


class Plan(NamedTuple):
    """Candidates chosen, and for every well its cells, cost and what is expected up to it.

    ``chance`` is the probability by which a well was chosen, NaN where it was not.
    """

    chosen: list[int]
    aims: list[str]
    chance: Vector
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


class Choice:
    """What wells are chosen by, each part made once and when it is asked for.

    ``tl.plan_screen`` and every plate of ``tl.replay_design`` choose their wells here.

    Parameters
    ----------
    fit, prior
        The fit, and what it expects of the candidates.
    goal
        What is wanted.
    limits, wells
        What a lab can do, and how many wells and cells there are.
    n_samples, rng
        Number of draws, and their generator.
    """

    def __init__(
        self,
        fit: FittedPosterior,
        prior: ShiftPrior | Averaged,
        goal: Goal,
        limits: Constraints,
        wells: Wells,
        *,
        n_samples: int,
        rng: np.random.Generator,
    ) -> None:
        self.limits, self.wells = limits, wells
        self.asked = Candidates(
            fit.posteriors, fit.known(prior), goal, n_cells=wells.each, n_samples=n_samples,
            graphs=fit.ensemble or [fit.posterior], main=fit.posterior, rng=rng,
        )  # fmt: skip

    @property
    def distance(self) -> RankedDistance:
        """The distances of all candidates, and of the control."""
        return self.asked.distances

    @cached_property
    def civ(self) -> PlateCiv:
        """What cells teach of the distances of all candidates that may be nearer than control."""
        nearer = self.distance.nearer[:-1]
        return PlateCiv(
            self.asked.posteriors, self.asked.shifts, self.asked.goal, gap_cells=self.wells.each,
            pending=self.limits.pending, weights=nearer if nearer.any() else None,
        )  # fmt: skip

    def _best(self) -> _Best:
        asked, centre = self.asked, self.distance.centre
        expected, draws = first_order_distances(
            asked.posteriors, asked.shifts, asked.goal, n_samples=len(self.distance.draws),
            rng=asked.rng,
        )  # fmt: skip
        allowed = self.limits.allowed
        return _Best(expected, draws, allowed, allowed & (centre[:-1] < centre[-1]))

    def choose(self, aim: str, *, most_new: int | None, fixed_controls: int | None) -> Chosen:
        """Return what must be on the plate, and what finds the best, or what teaches most.

        ``aim`` is one of :data:`AIMS`, or the name of an acquisition, whose plate is taken then.
        """
        limits, wells = self.limits, self.wells
        best = self._best() if aim in ("best", "both") else None
        ranked = None
        if aim not in AIMS:
            some = np.flatnonzero(limits.allowed)
            limited = np.isfinite(limits.budget) or most_new is not None
            size = len(some) if limited else wells.size
            ranked = find_acquisition(aim).plate(self.asked, some, size)
        chosen: list[int] = []
        aims: list[str] = []
        chance = np.zeros(0)
        for each in (wells.total / wells.size, wells.least):  # smaller wells where money is short
            price = limits.cost + limits.cell_cost * each
            if each > wells.least and price[limits.must].sum() > limits.budget:
                continue
            fill = partial(
                greedy_plate, allowed=limits.allowed, cost=price, budget=limits.budget,
                new=self.asked.shifts[0].n == 0, most_new=most_new,
            )  # fmt: skip
            if ranked is None:
                chosen, aims, chance = _fill(fill, self._gain, best, limits, wells.size, aim)
            else:
                chosen = _in_order(fill, ranked, limits, wells.size)
                aims = ["must"] * len(limits.must)
                aims += ["acquisition"] * (len(chosen) - len(aims))
                chance = np.full(len(chosen), np.nan)
            if chosen:
                break
        cells, n_controls = _cells(chosen, limits, wells, fixed_controls)
        k = len(cells)
        if aim == "learn":  # cells go where they teach most; to find the best, all have as many
            cells = allocate_cells(self.civ, chosen[:k], int(cells.sum()), least=wells.least)
        return Chosen(chosen[:k], aims[:k], chance[:k], cells, n_controls)

    def _gain(self, chosen: list[int]) -> Callable[[Index], Vector]:
        return self.civ.gain(chosen, self.wells.each)

    def plan(self, found: Chosen) -> Plan:
        """Return the wells with their costs and what is expected of them."""
        limits, nearest = self.limits, self.distance.nearest[:-1]
        chosen, cells = found.candidates, found.cells
        covered = nearest[limits.under_way].sum() + np.cumsum(nearest[chosen])
        return Plan(
            chosen, found.aims, found.chance, cells,
            limits.cost[chosen] + limits.cell_cost * cells, np.minimum(covered, 1.0),
            self.civ.removed_by_wells(chosen, cells), found.n_controls,
            limits.cell_cost * found.n_controls,
        )  # fmt: skip


def _in_order(
    fill: Callable[..., list[int]], ranked: Index, limits: Constraints, size: int
) -> list[int]:
    """Return candidates for ``size`` wells in the order in which an acquisition ranked them."""
    rank = np.full(len(limits.allowed), -np.inf)
    rank[ranked] = -np.arange(len(ranked))
    usable = limits.allowed & np.isfinite(rank)
    return fill(
        lambda _: lambda some: rank[some], size, must=limits.must, per_cost=False, allowed=usable
    )


def _fill(
    fill: Callable[..., list[int]],
    gain: Callable[[list[int]], Callable[[Index], Vector]],
    best: _Best | None,
    limits: Constraints,
    size: int,
    aim: str,
) -> tuple[list[int], list[str], Vector]:
    """Return candidates for ``size`` wells, the aim of each, and the probability that chose it.

    ``fill`` is :func:`greedy_plate` with the lab's limits, ``gain`` what cells teach.
    """
    chosen = list(limits.must)
    aims, chance = ["must"] * len(chosen), np.full(len(limits.allowed), np.nan)
    if best is not None:
        n_best = max(size - len(chosen), 0)
        if aim == "both":
            n_best = best.enough(limits, n_best)
        if n_best:
            rank, chance = best.rank(size if aim == "best" else n_best)
            chosen = fill(
                lambda _: lambda some: rank[some], min(len(chosen) + n_best, size), must=chosen,
                per_cost=False, allowed=best.usable,
            )  # fmt: skip
            aims += ["best"] * (len(chosen) - len(aims))
    # Also the wells for which no candidate is expected nearer than the control.
    chosen = fill(gain, size, must=chosen)
    aims += ["learn"] * (len(chosen) - len(aims))
    return chosen, aims, np.where(np.array(aims) == "best", chance[chosen], np.nan)


class _Best(NamedTuple):
    """What finds the best: distances of the expected states, draws of them, and who is usable.

    Usable are those allowed whose expected state is nearer than the control.
    """

    expected: Vector
    draws: Vector
    allowed: NDArray[np.bool_]
    usable: NDArray[np.bool_]

    def enough(self, limits: Constraints, size: int) -> int:
        """Return the wells, at most ``size``, that surely enough hold the nearest of all."""
        nearest = probability_nearest(self.draws)
        elsewhere = nearest[[*limits.must, *limits.under_way]].sum()
        for n in range(min(size, int(self.allowed.sum()) + 1)):
            rank, _ = self.rank(max(n, 1))
            rank[limits.must] = -np.inf
            best = np.argsort(-rank, kind="stable")[: min(n, np.isfinite(rank).sum())]
            if elsewhere + nearest[best].sum() >= SURE:
                return n
        return size

    def rank(self, size: int) -> tuple[Vector, Vector]:
        """Return a rank of every candidate, the higher the sooner, and its probability.

        The probability is that by which the second half of the wells is chosen, NaN for others.
        """
        rank, chance = np.full(len(self.allowed), -np.inf), np.full(len(self.allowed), np.nan)
        some = np.flatnonzero(self.allowed)
        order, chance[some] = best_order(self.expected[some], self.draws[:, some], size)
        rank[some[order]] = -np.arange(len(some))
        return np.where(self.usable, rank, -np.inf), chance


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
