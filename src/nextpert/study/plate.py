"""The plan: the candidates chosen, cells of each, the table, and the constructs to make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata import strings
from nextpert.core._text import percent
from nextpert.core.causal.registry import find_acquisition
from nextpert.core.design.distances import probability_nearest
from nextpert.core.design.plate import best_order, dunnett_controls
from nextpert.core.design.remaining_variance import removed, split_by_variance

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.study.ranking import Ranking

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]


STRATEGIES = ("exploit", "explore", "both")
ADVISED = "advised"  # the strategy that plans what is advised; all others fill the plan
# Probability of containing the nearest candidate at which "both" changes to "explore".
MIN_PROBABILITY_OF_BEST = 0.95
# Posterior draws: a probability of being the nearest has a standard error of at most 0.016.
N_SAMPLES = 1000


class PlateSize(NamedTuple):
    """The size of a plan.

    At most ``size`` perturbations with ``cells_each`` cells each if there are that many,
    ``total`` cells including controls, at least ``min_cells`` cells per perturbation, and
    ``n_controls`` (``None``: as many as give the most precise differences; replays have none).
    """

    size: int
    cells_each: int
    total: int
    min_cells: int
    n_controls: int | None = None

    def share_out(self, n_chosen: int) -> tuple[Index, int]:
        """Return the cells of each perturbation, for as many as they suffice, and of controls."""
        for k in range(n_chosen, 0, -1):
            controls = self.n_controls
            if controls is None:
                controls = round(dunnett_controls(self.total, k))
            cells_each, n_larger = divmod(self.total - controls, k)
            if cells_each >= self.min_cells:
                return cells_each + (np.arange(k) < n_larger).astype(np.int64), controls
        return np.zeros(0, np.int64), 0


def split_cells(total: int, size: int, min_cells: int, n_controls: int | None = None) -> PlateSize:
    """Return the number of perturbations for which the cells suffice, and the cells of each.

    Raises
    ------
    ValueError
        If the cells do not suffice for one perturbation.

    Examples
    --------
    >>> from nextpert.study.plate import split_cells
    >>> split_cells(1200, 4, 20)
    PlateSize(size=4, cells_each=200, total=1200, min_cells=20, n_controls=None)
    """
    plate_size = PlateSize(size, min_cells, total, min_cells, n_controls)
    cells, _ = plate_size.share_out(min(size, (total - (n_controls or 0)) // min_cells))
    if not len(cells):
        message = (
            f"{total} cells do not suffice for one perturbation with at least {min_cells} cells "
            f"and its controls: raise n_cells, or lower min_cells."
        )
        raise ValueError(message)
    return plate_size._replace(size=len(cells), cells_each=int(cells[-1]))


class ChosenPlate(NamedTuple):
    """ChosenPlate candidates, with the strategy, the probability that chose each, and the cells.

    The probability is NaN for candidates that were chosen in another way.
    """

    candidates: list[int]
    strategies: list[str]
    chance: Vector
    cells: Index
    n_controls: int


@dataclass(frozen=True)
class PlateChoice:
    """The choice of the perturbations of a plan, in ``tl.plan_screen`` and in replays.

    It uses a ranking with the constraints of its pool, and the numbers of perturbations and cells.
    """

    ranking: Ranking
    plate_size: PlateSize

    def share_out(self, chosen: Sequence[int]) -> tuple[Index, int]:
        """Return the cells of chosen candidates and of controls that cells and budget allow."""
        limits, plate_size = self.ranking.pool, self.plate_size
        if limits.price is not None:
            cell_budget = limits.budget - float(limits.price[list(chosen)].sum())
            total = plate_size.total if cell_budget >= 0 else 0
            if limits.cell_price > 0:
                total = min(total, int(cell_budget / limits.cell_price))
            plate_size = plate_size._replace(total=total)
        return plate_size.share_out(len(chosen))

    def fits(self, chosen: Sequence[int]) -> bool:
        """Return whether the budget, if there is one, pays for these candidates."""
        return self.ranking.pool.price is None or len(self.share_out(chosen)[0]) == len(chosen)

    @property
    def price(self) -> Vector | None:
        """The price of every candidate with the usual number of cells; ``None`` without costs."""
        pool = self.ranking.pool
        if pool.price is None:
            return None
        return np.maximum(pool.price + self.plate_size.cells_each * pool.cell_price, 1e-300)

    def _per_price(self, order: Index) -> Index:
        """Return candidates by their probability of being the nearest per price; ties as given."""
        if self.price is None:
            return order
        worth = self.ranking.draws.distances.nearest[order] / self.price[order]
        return order[np.argsort(-worth, kind="stable")]

    def among(self, chosen: Sequence[int]) -> tuple[Vector, Vector, Vector]:
        """Return covariance and gains of chosen and pending candidates, and noise of the latter."""
        pending = self.ranking.pool.pending
        covariance, gains = self.ranking.draws.remaining.among([*chosen, *pending])
        noise = self.ranking.draws.noise.rows([*pending])
        return covariance, gains, noise.at([*pending.values()])

    def choose(self, strategy: str) -> ChosenPlate:
        """Return the perturbations to include, and those that a strategy adds to them.

        ``strategy`` is one of :data:`STRATEGIES`, or the name of an acquisition.
        """
        candidates, limits = self.ranking.draws, self.ranking.pool
        plate_size = self.plate_size
        chosen, chance = list(limits.include), np.full(candidates.size, np.nan)
        if len(chosen) > plate_size.size:
            message = (
                f"include has {len(chosen)} candidates, but the plan has room for "
                f"{plate_size.size}: raise n_perturbations or n_cells, or include fewer."
            )
            raise ValueError(message)
        if not self.fits(chosen):
            message = "The candidates in include cost more than costs['budget']: include fewer."
            raise ValueError(message)
        strategies = ["include"] * len(chosen)
        if strategy in ("exploit", "both"):
            order, chance, n_best = self._best(strategy)
            self._add(chosen, order, len(limits.include) + n_best)
            strategies += ["exploit"] * (len(chosen) - len(strategies))
        if strategy in STRATEGIES:  # also fills the rest of "exploit", if too few are nearer
            allowed = limits.allowed
            if strategy == "exploit" and (allowed & self.ranking.admitted).any():
                allowed = allowed & self.ranking.admitted
            pending_noise = candidates.noise.rows([*limits.pending]).at([*limits.pending.values()])
            pending = zip(limits.pending, pending_noise.tolist(), strict=True)
            chosen = candidates.remaining.most_informative(
                plate_size.size,
                candidates.noise.at(plate_size.cells_each),
                allowed=allowed,
                chosen=chosen,
                pending=pending,
                price=self.price,
                fits=self.fits,
            )
            strategies += ["explore"] * (len(chosen) - len(strategies))
        else:
            allowed_rows = np.flatnonzero(limits.allowed)
            n_ranked = plate_size.size if limits.price is None else len(allowed_rows)
            order = find_acquisition(strategy).plate(candidates, allowed_rows, n_ranked)
            self._add(chosen, order, plate_size.size)
            strategies += ["acquisition"] * (len(chosen) - len(strategies))
        cells, n_controls = self.share_out(chosen)
        # For "explore", cells are divided to reduce uncertainty most, otherwise equally.
        if strategy == "explore":
            covariance, gains, fixed = self.among(chosen)
            noise, total = candidates.noise.rows(chosen), int(cells.sum())
            cells = split_by_variance(covariance, gains, noise, total, plate_size.min_cells, fixed)
        chance = np.where(np.array(strategies) == "exploit", chance[chosen], np.nan)
        return ChosenPlate(chosen, strategies, chance, cells, n_controls)

    def _add(self, chosen: list[int], order: Iterable[int], size: int) -> None:
        """Add candidates to those chosen, in an order, up to a size and as the budget pays."""
        for i in map(int, order):
            if len(chosen) < size and i not in chosen and self.fits([*chosen, i]):
                chosen.append(i)

    def likely(self, is_measured: NDArray[np.bool_], probability: float) -> list[int]:
        """Return the measured candidates of which more cells can show the nearest, in order.

        They are those of the plan that ``"exploit"`` makes of measured candidates alone, without
        those that are the nearest with less than some probability.
        """
        distances, limits = self.ranking.draws.distances, self.ranking.pool
        measured = np.flatnonzero(is_measured & limits.allowed)
        measured = measured[~np.isin(measured, limits.include)]
        size = self.plate_size.size - len(limits.include)
        if not len(measured) or size < 1:
            return []
        order, _ = best_order(distances.centre[measured], distances.draws[:, measured], size)
        measured = self._per_price(measured[order])[:size]
        is_likely = distances.nearest[measured] >= probability
        likely: list[int] = (measured[is_likely] if is_likely.any() else measured).tolist()
        return likely

    def measure(self, candidates: Sequence[int]) -> ChosenPlate:
        """Return a plan of the candidates to include and of some others, with equal cells."""
        include = self.ranking.pool.include
        chosen = list(include)
        self._add(chosen, candidates, len(chosen) + len(candidates))
        cells, n_controls = self.share_out(chosen)
        strategies = ["include"] * len(include) + ["measure"] * len(candidates)
        n = len(cells)
        return ChosenPlate(chosen[:n], strategies[:n], np.full(n, np.nan), cells, n_controls)

    def confirm(self, candidates: Sequence[int], n_cells: float) -> ChosenPlate:
        """Return a plan of the candidates to include and of those to confirm.

        Those to confirm get ``n_cells`` cells, or as many as the budget allows; none if this is 0
        or not finite, or they cannot be planned.
        """
        is_finite = 0 < n_cells < np.inf
        pool = self.ranking.pool
        also = [i for i in candidates if pool.allowed[i] and i not in pool.include]
        plate = self.measure(also if is_finite else [])
        cells = np.minimum(
            plate.cells, max(int(n_cells) if is_finite else 0, self.plate_size.min_cells)
        )
        if not also or not is_finite:
            return plate
        controls = round(len(cells) ** 0.5 * float(cells.mean())) if len(cells) else 0
        strategies = ["confirm" if x == "measure" else x for x in plate.strategies]
        return plate._replace(
            strategies=strategies, cells=cells, n_controls=min(controls, plate.n_controls)
        )

    def _best(self, strategy: str) -> tuple[Index, Vector, int]:
        """Return the order in which ``"exploit"`` takes candidates, probabilities, and a number.

        The candidates are those that are allowed and expected to be nearer than the control. The
        probabilities, one per candidate, choose the second half of the plan (NaN for the first
        half). The number is how many perturbations ``"exploit"`` chooses; with ``strategy="both"``,
        as many as contain the nearest of all candidates with probability
        :data:`MIN_PROBABILITY_OF_BEST`.
        """
        candidates, limits = self.ranking.draws, self.ranking.pool
        expected, to_control = candidates.distances.centre[:-1], candidates.distances.centre[-1]
        draws = candidates.distances.draws[:, :-1]
        allowed = np.flatnonzero(limits.allowed & self.ranking.admitted)
        is_nearer = expected < to_control

        def ordered(size: int) -> tuple[Index, Vector]:
            chance = np.full(candidates.size, np.nan)
            order, chance[allowed] = best_order(expected[allowed], draws[:, allowed], size)
            order = allowed[order][is_nearer[allowed[order]]]
            return self._per_price(order), chance

        n_best = max(self.plate_size.size - len(limits.include), 0)
        if strategy == "exploit":
            return *ordered(self.plate_size.size), n_best
        nearest = probability_nearest(draws)
        elsewhere = nearest[[*limits.include, *limits.pending]].sum()
        for n in range(min(n_best, len(allowed) + 1)):
            order = ordered(max(n, 1))[0]
            order = order[~np.isin(order, limits.include)][:n]
            if elsewhere + nearest[order].sum() >= MIN_PROBABILITY_OF_BEST:
                return *ordered(max(n, 1)), n
        return *ordered(max(n_best, 1)), n_best


def plate_table(
    choice: PlateChoice,
    plan: ChosenPlate,
    n_guides: Index,
    fit: FittedPosterior,
    advised: Iterable[str],
) -> pd.DataFrame:
    """Return one row per perturbation, in the order chosen, with the controls last.

    ``n_guides`` is the number of guides of each, shape ``(n_perturbations,)``, and ``advised`` are
    the perturbations that the advice names.
    """
    ranking, pool = choice.ranking, choice.ranking.pool
    interventions, distance, target = (
        pool.candidates.interventions,
        ranking.draws.distances,
        pool.target,
    )
    chosen = plan.candidates
    # The control is last in distances.
    rows = [*chosen, -1]
    probability_pending = distance.nearest[[*pool.pending]].sum()
    covered = probability_pending + np.cumsum(np.append(distance.nearest[chosen], 0.0))
    covariance, gain, fixed = choice.among(chosen)
    noise = np.append(ranking.draws.noise.rows(chosen).at(plan.cells), fixed)
    before = ranking.draws.remaining.before
    reduction = removed(covariance, gain, noise, len(chosen)) / (before if before > 0 else np.inf)
    reduction = np.append(reduction, reduction[-1] if chosen else 0.0)
    names = [interventions.names[i] for i in chosen]
    cells_seen = np.append(fit.n_cells, 0)[fit.rows_of(names)]
    n_cells = np.append(plan.cells, plan.n_controls)
    # The reason for each candidate cites the value of the column that chose it.
    state, why = np.maximum(distance.centre, 0.0), []
    ranked = np.where(ranking.admitted, distance.centre[:-1], np.inf)
    rank, n = ranked.argsort(kind="stable").argsort() + 1, int(ranking.admitted.sum())
    added = 100 * np.diff(reduction[:-1], prepend=0.0)
    for i, strategy, chance, percentage in zip(
        chosen, plan.strategies, plan.chance, added, strict=True
    ):
        words = "named in include"
        if strategy == "exploit" and np.isnan(chance):
            words = (
                f"rank {rank[i]} of {n} by state_distance ({state[i]:.3g}; control {state[-1]:.3g})"
            )
        elif strategy == "exploit":
            words = f"nearest of the remaining candidates with probability {percent(chance)}"
        elif strategy == "explore":
            resolved = f"{percentage:.2g}" if percentage >= 0.1 else "below 0.1"
            words = f"is expected to resolve {resolved}% more of the remaining uncertainty"
        elif strategy == "acquisition":
            words = "chosen by the acquisition"
        elif strategy in ("measure", "confirm"):
            aim = "may be the nearest" if strategy == "measure" else "is to be confirmed"
            words = f"{aim}; nearest with probability {percent(distance.nearest[i])}"
        why.append(words)
    is_advised = np.isin(names, [*map(str, advised)])
    costs: dict[str, Vector] = {}
    if pool.price is not None:  # of the controls, that of their cells
        costs = {"cost": np.append(pool.price[chosen], 0.0) + pool.cell_price * n_cells}
    # The main columns are at both ends, because print leaves out the middle.
    table = pd.DataFrame(
        {
            "perturbation": strings([*names, str(fit.params["control"])]),
            "n_guides": np.append(n_guides, 0),
            "strategy": strings([*plan.strategies, "control"]),
            "target_genes": strings([*(", ".join(interventions.targets[i]) for i in chosen), ""]),
            "genes_left_out": target.left_out_of(rows),
            "n_cells_seen": np.append(cells_seen, fit.n_control_cells),
            "why": strings([*why, "reference for all others"]),
            "is_advised": np.append(is_advised, is_advised.any()),
            "probability_contains_best": np.minimum(covered, 1.0),
            "variance_reduction": reduction,
            "predicted_distance": distance.median[rows],
            "predicted_low": distance.low[rows],
            "predicted_high": distance.high[rows],
            **{name: column[rows] for name, column in ranking.columns.items()},
            "state_distance": state[rows],
            "probability_best": distance.nearest[rows],
            **costs,
            "n_cells": n_cells,
        },
        index=pd.Index(np.arange(len(rows))),
    )
    return table if chosen and plan.n_controls else table.head(len(chosen))
