"""The plate: candidates chosen, cells of each, and its table."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata import strings
from nextpert._adata.progress import progress
from nextpert.core._shown import percent
from nextpert.core.causal.registry import find_acquisition
from nextpert.core.design.cell_numbers import dunnett_controls
from nextpert.core.design.distances import probability_nearest
from nextpert.core.design.plate import best_order, greedy_plate
from nextpert.core.design.remaining_variance import removed, split_by_variance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.design.candidates import Candidates
    from nextpert.core.design.remaining_variance import RemainingVariance
    from nextpert.core.fit.candidates import CandidateSet
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.tl._design_interventions.combinations import Admission
    from nextpert.tl._design_interventions.target import Wanted
    from nextpert.tl._plan_screen.pool import Constraints

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]

STRATEGIES = ("exploit", "explore", "both")
# Probability of containing the nearest at which a plate of both strategies turns to "explore".
SURE = 0.95
# Posterior draws: a probability of being the nearest has a standard error of at most 0.016.
N_SAMPLES = 1000
# Rows of standard plates, by their number of wells.
FORMATS = {8: 8, 96: 8, 384: 16}


class Wells(NamedTuple):
    """What a plate is to hold.

    Parameters
    ----------
    size
        Maximum number of perturbations.
    each
        Cells of each, if there are so many.
    total
        Cells in all, controls included.
    least
        Minimum number of cells of a perturbation.
    n_controls
        Control cells; ``None``: as many as are best for the perturbations (:func:`share_out`).
    """

    size: int
    each: int
    total: int
    least: int
    n_controls: int | None = None


def share_out(totals: Sequence[int], n_controls: int | None, least: int) -> tuple[Index, int]:
    """Return the cells of as many perturbations as they suffice for, and of the controls.

    ``totals`` are the cells of one perturbation and its controls, of two and theirs, and so on.
    """
    for k in range(len(totals), 0, -1):
        best = round(dunnett_controls(totals[k - 1], k)) if n_controls is None else n_controls
        each, more = divmod(totals[k - 1] - best, k)
        if each >= least:
            return each + (np.arange(k) < more).astype(np.int64), best
    return np.zeros(0, np.int64), 0


def split_cells(total: int, size: int, n_controls: int | None, least: int) -> Wells:
    """Return the number of perturbations that the cells suffice for, and the cells of each.

    Raises
    ------
    ValueError
        If they do not suffice for one.

    Examples
    --------
    >>> from nextpert.tl._plan_screen.wells import split_cells
    >>> split_cells(1200, 4, None, 20)
    Wells(size=4, each=200, total=1200, least=20, n_controls=None)
    >>> split_cells(100, 8, 10, 20).size
    4
    """
    most = (total - (n_controls or 0)) // least  # perturbations that cells suffice for
    cells, _ = share_out([total] * min(size, most), n_controls, least)
    if not len(cells):
        controls = "" if n_controls is None else f" beside {n_controls} controls"
        message = (
            f"{total} cells do not suffice for a perturbation of at least {least}{controls}: give "
            f"more n_cells, or fewer min_cells or n_controls."
        )
        raise ValueError(message)
    return Wells(len(cells), int(cells[-1]), total, least, n_controls)


class Chosen(NamedTuple):
    """Candidates chosen, and for each its strategy, the probability that chose it and its cells.

    The probability is NaN where none did.
    """

    candidates: list[int]
    strategies: list[str]
    chance: Vector
    cells: Index
    n_controls: int


@dataclass(frozen=True)
class Choice:
    """What the perturbations of a plate are chosen by.

    ``tl.plan_screen`` and every plate of ``tl.replay_design`` are chosen here.

    Parameters
    ----------
    asked
        The candidates, their distances, and what cells of each measure.
    limits, wells
        Constraints of the lab, and the numbers of perturbations and cells.
    admitted
        Candidates that ``"exploit"`` chooses from, shape ``(n_candidates,)``.
    """

    asked: Candidates
    limits: Constraints
    wells: Wells
    admitted: NDArray[np.bool_]

    def among(self, chosen: Sequence[int]) -> tuple[Vector, Vector, Vector]:
        """Return covariance and gains of those chosen, then in progress, and the noise of these."""
        under_way = self.limits.under_way
        fixed = self.asked.noise.rows(under_way).at(self.limits.pending)
        return *self.asked.remaining.among([*chosen, *under_way]), fixed

    def choose(self, strategy: str) -> Chosen:
        """Return the perturbations to include, and those that a strategy adds to them.

        ``strategy`` is one of :data:`STRATEGIES`, or the name of an acquisition.
        """
        asked, limits, wells = self.asked, self.limits, self.wells
        chance = np.full(asked.size, np.nan)
        # Each fills up to so many, by a rank or, without one, by what remains uncertain.
        stages: list[tuple[str, Vector | None, int]] = []
        if strategy in ("exploit", "both"):
            rank, chance, n_best = self._rank_best(strategy)
            if n_best:
                stages.append(("exploit", rank, min(len(limits.include) + n_best, wells.size)))
        if strategy in STRATEGIES:  # also fills what "exploit" leaves, if too few are nearer
            stages.append(("explore", None, wells.size))
        else:
            some = np.flatnonzero(limits.allowed)
            limited = np.isfinite(limits.budget) or limits.max_new is not None
            size = len(some) if limited else wells.size
            order = find_acquisition(strategy).plate(asked, some, size)
            rank = np.full(asked.size, -np.inf)
            rank[order] = -np.arange(len(order))
            stages.append(("acquisition", rank, wells.size))
        chosen: list[int] = []
        strategies: list[str] = []
        bar, noise = progress(wells.size, "Choosing perturbations"), asked.noise.at(wells.each)
        remaining, well_cost = asked.remaining, np.full(asked.size, limits.cost)
        left: RemainingVariance | None = None  # after those in progress and so many of those chosen
        n_observed = 0

        def gain(rank: Vector | None, before: list[int]) -> Vector:
            """Return a rank, or what a well of each candidate would remove after those before."""
            nonlocal left, n_observed
            bar.update(len(before) - bar.n)
            if rank is not None:
                return rank
            if left is None:
                left = deepcopy(remaining)
                in_progress = asked.noise.rows(limits.under_way).at(limits.pending)
                for k, variance in zip(limits.under_way, in_progress, strict=True):
                    left.observe(k, float(variance))
            for k in before[n_observed:]:
                left.observe(k, float(noise[k]))
            n_observed = len(before)
            return left.gains(noise)

        # With fewer cells each if the budget does not cover more.
        for each in (wells.total / wells.size, wells.least):
            price = well_cost + limits.cell_cost * each
            if each > wells.least and price[limits.include].sum() > limits.budget:
                continue
            chosen, strategies = list(limits.include), ["include"] * len(limits.include)
            for stage, by, end in stages:
                allowed = limits.allowed if by is None else np.isfinite(by)
                if strategy == "exploit" and (allowed & self.admitted).any():
                    allowed = allowed & self.admitted
                chosen = greedy_plate(
                    partial(gain, by), end, include=chosen, allowed=allowed, cost=price,
                    budget=limits.budget, per_cost=stage == "explore", new=~asked.measured,
                    max_new=limits.max_new,
                )  # fmt: skip
                strategies += [stage] * (len(chosen) - len(strategies))
            if chosen:
                break
        bar.close()
        totals = [wells.total] * len(chosen)
        if limits.cell_cost > 0 and np.isfinite(limits.budget):
            for k in range(len(chosen)):
                spare = limits.budget - well_cost[chosen[: k + 1]].sum()
                totals[k] = min(wells.total, int(spare / limits.cell_cost))
        cells, n_controls = share_out(totals, wells.n_controls, wells.least)
        if not len(cells):
            message = (
                f"No perturbation can be planned: the budget of {limits.budget:g} does not cover "
                f"one of at least {wells.least} cells and its controls, or max_new excludes all. "
                f"Raise one of them."
            )
            raise ValueError(message)
        chosen, strategies = chosen[: len(cells)], strategies[: len(cells)]
        if strategy == "explore":  # divided to reduce uncertainty most, else equally
            covariance, gains, fixed = self.among(chosen)
            own, total = asked.noise.rows(chosen), int(cells.sum())
            cells = split_by_variance(covariance, gains, own, total, wells.least, fixed)
        chance = np.where(np.array(strategies) == "exploit", chance[chosen], np.nan)
        return Chosen(chosen, strategies, chance, cells, n_controls)

    def _rank_best(self, strategy: str) -> tuple[Vector, Vector, int]:
        """Return a rank of every candidate, the higher the sooner, and the wells it fills.

        Candidates that are not allowed, or expected farther than the control, have the rank
        ``-inf``. Between them, the probability by which the second half of the wells is chosen,
        NaN for the others. With ``strategy="both"`` there are as many wells as surely enough hold
        the nearest of all candidates.
        """
        asked, limits, centre = self.asked, self.limits, self.asked.distances.centre
        expected, draws = asked.first_order(len(asked.distances.draws))
        some = np.flatnonzero(limits.allowed & self.admitted)
        usable = limits.allowed & self.admitted & (centre[:-1] < centre[-1])

        def ranked(size: int) -> tuple[Vector, Vector]:
            rank, chance = np.full(asked.size, -np.inf), np.full(asked.size, np.nan)
            order, chance[some] = best_order(expected[some], draws[:, some], size)
            rank[some[order]] = -np.arange(len(some))
            return np.where(usable, rank, -np.inf), chance

        n_best = max(self.wells.size - len(limits.include), 0)
        if strategy == "exploit":
            return *ranked(self.wells.size), n_best
        nearest = probability_nearest(draws)
        elsewhere = nearest[[*limits.include, *limits.under_way]].sum()
        for n in range(min(n_best, len(some) + 1)):
            rank = ranked(max(n, 1))[0]
            rank[limits.include] = -np.inf
            first = np.argsort(-rank, kind="stable")[: min(n, np.isfinite(rank).sum())]
            if elsewhere + nearest[first].sum() >= SURE:
                return *ranked(max(n, 1)), n
        return *ranked(max(n_best, 1)), n_best


def well_names(n: int, plate_format: int) -> list[str]:
    """Return the names of the first wells, column by column as a multichannel pipette fills them.

    Wells of further plates start with the number of the plate: ``2-A1``.

    Examples
    --------
    >>> from nextpert.tl._plan_screen.wells import well_names
    >>> well_names(9, 8)[-2:], well_names(10, 96)[-2:], well_names(17, 384)[-1]
    (['H1', '2-A1'], ['A2', 'B2'], 'A2')
    """
    names = []
    for i in range(n):
        plate, place = divmod(i, plate_format)
        column, row = divmod(place, FORMATS[plate_format])
        first = f"{plate + 1}-" if plate else ""
        names.append(f"{first}{chr(ord('A') + row)}{column + 1}")
    return names


def plate_table(
    pool: CandidateSet,
    choice: Choice,
    found: Chosen,
    admission: Admission,
    n_guides: Index,
    plate_format: int | None,
    wanted: Wanted,
    fit: FittedPosterior,
) -> pd.DataFrame:
    """Return one row per perturbation, in the order chosen, the controls last.

    ``n_guides`` are those of each, shape ``(n_perturbations,)``. There are wells if a format of
    plates is given.
    """
    given, distance, limits = pool.interventions, choice.asked.distances, choice.limits
    chosen = found.candidates
    rows = [*chosen, -1]  # the control is last in distances
    covered = distance.nearest[limits.under_way].sum() + np.cumsum(distance.nearest[chosen])
    covariance, gain, fixed = choice.among(chosen)
    noise = np.append(choice.asked.noise.rows(chosen).at(found.cells), fixed)
    before = choice.asked.remaining.before
    reduction = removed(covariance, gain, noise, len(chosen)) / (before if before > 0 else np.inf)
    names = [given.names[i] for i in chosen]
    seen = np.append(fit.n_cells, 0)[fit.rows_of(names)]
    n_cells = np.append(found.cells, found.n_controls)
    well_cost = np.full(len(given.names), limits.cost)[chosen]
    # Why each is there, by the value of the column that chose it.
    state, why = np.maximum(distance.centre, 0.0), []
    ranked = np.where(admission.admitted, distance.centre[:-1], np.inf)
    place, n = ranked.argsort(kind="stable").argsort() + 1, int(admission.admitted.sum())
    more = 100 * np.diff(reduction, prepend=0.0)
    for i, strategy, chance, percentage in zip(
        chosen, found.strategies, found.chance, more, strict=True
    ):
        words = "named in include"
        if strategy == "exploit" and np.isnan(chance):
            words = (
                f"rank {place[i]} of {n} by state_distance ({state[i]:.3g}; control "
                f"{state[-1]:.3g})"
            )
        elif strategy == "exploit":
            words = f"nearest of the remaining candidates with probability {percent(chance)}"
        elif strategy == "explore":
            resolved = f"{percentage:.2g}" if percentage >= 0.1 else "below 0.1"
            words = f"is expected to resolve {resolved}% more of the remaining uncertainty"
        elif strategy == "acquisition":
            words = "chosen by the acquisition"
        why.append(words)
    wells = {}
    if plate_format is not None:
        wells["well"] = strings(well_names(len(rows), plate_format))
    # Main columns are at both ends, as print leaves out the middle.
    table = pd.DataFrame(
        {
            **wells,
            "perturbation": strings([*names, str(fit.params["control"])]),
            "n_guides": np.append(n_guides, 0),
            "strategy": strings([*found.strategies, "control"]),
            "target_genes": strings([*(", ".join(given.targets[i]) for i in chosen), ""]),
            "genes_left_out": wanted.left_out_of(rows),
            "n_cells_seen": np.append(seen, fit.n_control_cells),
            "why": strings([*why, "reference for all others"]),
            "probability_among_rest": np.append(found.chance, np.nan),
            "probability_contains_best": np.minimum(np.append(covered, covered[-1]), 1.0),
            "variance_reduction": np.append(reduction, reduction[-1]),
            "predicted_distance": distance.median[rows],
            "predicted_low": distance.low[rows],
            "predicted_high": distance.high[rows],
            **{name: column[rows] for name, column in admission.columns.items()},
            "cost": np.append(well_cost, 0.0) + limits.cell_cost * n_cells,
            "state_distance": state[rows],
            "probability_best": distance.nearest[rows],
            "n_cells": n_cells,
        },
        index=pd.Index(np.arange(len(rows))),
    )
    return table if found.n_controls else table.head(len(chosen))
