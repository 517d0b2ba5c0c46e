"""Whole wells and whole cells: a plate by exact greedy choice, with a certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._checks import as_nodes, as_vector, require_count
from nextpert.core.plan._plate_criterion import PlateCriterion
from nextpert.core.plan.allocation import allocate, read_limits
from nextpert.core.plan.whole_bound import Wells, bound_plates

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.plan._plate_criterion import Look
    from nextpert.core.plan.allocation import Limits
    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.goal import Goal

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]

_EXACT = 32  # candidates valued exactly at a time
_PASSES = 3  # over the wells, each given to the best candidate for it


class WholePlate(NamedTuple):
    """Candidates in the order chosen, cells of each, and how near the best plate that comes.

    ``value`` is the criterion after the cells, above its floor; that of no plate of as many wells
    and cells is below ``bound`` (:func:`~nextpert.core.plan.whole_bound.bound_plates`).
    ``removed`` is the share of the criterion now that the cells are expected to remove.
    """

    chosen: Index
    cells: Index
    value: float
    bound: float
    removed: float

    @property
    def within(self) -> float:
        """What the best plate may be better by at most, as a share of the value."""
        return max(1 - self.bound / self.value, 0.0) if self.value > 0 else 0.0


def whole_plate(
    posterior: DagBlr | Sequence[DagBlr],
    shifts: ShiftPosterior | Sequence[ShiftPosterior],
    target: ArrayLike | Goal,
    n_wells: int,
    n_cells: int,
    *,
    must: Iterable[int] = (),
    never: Iterable[int] = (),
    pending: ArrayLike | None = None,
    least: int = 1,
    most: int | None = None,
    chosen: Sequence[int] | None = None,
    weights: ArrayLike | None = None,
    gap_cells: float | None = None,
    tolerance: float = 1e-3,
) -> WholePlate:
    """Choose the candidates of a plate and their whole cells such that CIV is least.

    Wells are filled one by one, all with as many cells, each with the candidate that takes most
    from the criterion given those before (exactly, not by slopes). The cells are then split anew
    among the chosen (:func:`allocate_cells`) and rounded. Where the certificate leaves room, each
    well is given once more to the candidate that is best beside the others.

    Parameters
    ----------
    posterior, shifts, target, pending, weights, gap_cells
        As in :func:`allocate_cells`.
    n_wells
        Number of different candidates; where there are fewer, all.
    n_cells
        Cells of the whole plate.
    must, never
        Indices of candidates that have to be on the plate, and that cannot be.
    least, most
        Bounds of the cells of each candidate on the plate. Where both are the same, all have
        as many.
    chosen
        Candidates of the wells where they are chosen already, those that have to be among them:
        their cells are split, and they are held against every other plate.
    tolerance
        How near the bound is to be to the best mixture of plates, as a share of its value.

    Raises
    ------
    ValueError
        If constraints contradict each other, or cells do not suffice.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.plan.whole_plate import whole_plate
    >>> from nextpert.core.posterior.shift_posterior import ShiftPosterior
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> known = ShiftPosterior.exact([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    >>> plate = whole_plate(blr, known, [1.0, 0.0], 2, 20, least=5)
    >>> plate.chosen.tolist(), plate.cells.tolist()
    ([0, 2], [15, 5])
    """
    criterion = PlateCriterion(
        posterior, shifts, target, require_count(n_cells, "n_cells"),
        gap_cells=gap_cells, weights=weights, pending=pending,
    )  # fmt: skip
    size = criterion.size
    first, barred = as_nodes(must, size, "must"), as_nodes(never, size, "never")
    allowed = np.ones(size, dtype=np.bool_)
    allowed[barred] = False
    n_wells = min(require_count(n_wells, "n_wells"), int(allowed.sum()))
    if chosen is not None:
        _check_chosen(list(chosen), list(first), allowed, n_wells)
    _check(allowed, list(first), n_wells, n_cells, least, most)
    limits = read_limits(size, float(n_cells), None, 0.0, np.where(allowed, most or n_cells, 0.0))
    filled = chosen is None
    if chosen is None:
        chosen = fill_wells(criterion, list(first), allowed, n_wells, n_cells / n_wells)
    plate = _split(criterion, limits, np.array(chosen, dtype=np.int64), least)
    wells = Wells(n_wells, float(n_cells), float(least), limits.most, list(first))
    bound = bound_plates(criterion, wells, plate.cells_of(size), tolerance)
    if filled and plate.value - bound > tolerance * plate.value:
        better = _exchange(criterion, limits, plate, allowed, list(first), least)
        if better.value < plate.value:
            plate = better
            again = bound_plates(criterion, wells, plate.cells_of(size), tolerance)
            bound = max(bound, again)
    before = criterion.before()
    removed = 1 - plate.value / before if before > 0 else 0.0
    return WholePlate(plate.chosen, plate.cells, plate.value, bound, removed)


def removed_by_wells(
    posterior: DagBlr | Sequence[DagBlr],
    shifts: ShiftPosterior | Sequence[ShiftPosterior],
    target: ArrayLike | Goal,
    chosen: Sequence[int],
    cells: ArrayLike,
    *,
    pending: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    gap_cells: float | None = None,
) -> Vector:
    """Return the shares of CIV that the first well of a plate, the first two and so on remove.

    Parameters
    ----------
    posterior, shifts, target, pending, weights, gap_cells
        As in :func:`allocate_cells`; what cells under way remove is counted too.
    chosen, cells
        Candidates in the order of the wells, and cells of each.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.plan.whole_plate import removed_by_wells
    >>> from nextpert.core.posterior.shift_posterior import ShiftPosterior
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> known = ShiftPosterior.exact([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    >>> removed_by_wells(blr, known, [1.0, 0.0], [0, 2], [15, 5]).round(3).tolist()
    [0.99, 0.991]
    """
    wells, cells = np.array(chosen, dtype=np.int64), as_vector(cells, len(chosen), "cells")
    criterion = PlateCriterion(
        posterior, shifts, target, float(cells.sum()),
        gap_cells=gap_cells, weights=weights, pending=pending,
    )  # fmt: skip
    on_plate, removed = np.zeros(criterion.size), []
    for j, n in zip(wells, cells, strict=True):
        on_plate[j] += n
        criterion.settle(float(on_plate.sum()))
        working = criterion.work_on(wells)
        before = criterion.before()
        value = working.look(on_plate[working.columns]).value
        removed.append(1 - value / before if before > 0 else 0.0)
    return np.array(removed)


def fill_wells(
    criterion: PlateCriterion,
    must: Sequence[int],
    allowed: NDArray[np.bool_],
    n_wells: int,
    each: float,
) -> list[int]:
    """Return candidates, each the best one given ``each`` cells of those before."""
    chosen = list(must)
    while len(chosen) < n_wells:
        working = criterion.work_on(np.unique(np.array(chosen, dtype=np.int64)))
        cells = np.where(np.isin(working.columns, chosen), each, 0.0)
        left = allowed.copy()
        left[chosen] = False
        chosen.append(_best(working.look(cells), np.flatnonzero(left), each))
    return chosen


def _best(look: Look, candidates: Index, cells: float) -> int:
    """Return the candidate whose cells take most, valued exactly as far as bounds demand."""
    bounds = look.lower_bounds(cells)[candidates]
    order = np.argsort(bounds, kind="stable")
    best, least = -1, np.inf
    for start in range(0, len(order), _EXACT):
        if bounds[order[start]] > least:
            break
        few = np.sort(candidates[order[start : start + _EXACT]])
        found = look.changes(few, cells)
        k = int(found.argmin())
        if found[k] < least:
            best, least = int(few[k]), float(found[k])
    return best


class _Split(NamedTuple):
    """Wells, their cells, and what they leave of the criterion."""

    chosen: Index
    cells: Index
    value: float

    def cells_of(self, size: int) -> Vector:
        """Return the cells of every candidate."""
        cells = np.zeros(size)
        cells[self.chosen] = self.cells
        return cells


def _split(criterion: PlateCriterion, limits: Limits, chosen: Index, least: int) -> _Split:
    """Split the cells among the chosen, in whole cells."""
    low, high = np.zeros(criterion.size), np.zeros(criterion.size)
    low[chosen], high[chosen] = least, limits.most[chosen]
    found = allocate(criterion, limits._replace(least=low, most=high), 1e-6)
    cells = _whole(found.cells[chosen], round(limits.budget), high[chosen])
    split, working = _Split(chosen, cells, np.inf), criterion.work_on(chosen)
    return split._replace(value=working.look(split.cells_of(criterion.size)[working.columns]).value)


def _exchange(
    criterion: PlateCriterion,
    limits: Limits,
    plate: _Split,
    allowed: NDArray[np.bool_],
    must: Sequence[int],
    least: int,
) -> _Split:
    """Give each well in turn to the candidate that its cells are worth most with, while it gains.

    Greedy choice reckons with as many cells in each well; here they are as they were split.
    """
    for _ in range(_PASSES):
        before = plate.value
        for place in range(len(must), len(plate.chosen)):
            others, each = np.delete(plate.chosen, place), float(plate.cells[place])
            cells = plate.cells_of(criterion.size)
            cells[plate.chosen[place]] = 0.0
            left = allowed.copy()
            left[others] = False
            working = criterion.work_on(others)
            best = _best(working.look(cells[working.columns]), np.flatnonzero(left), each)
            if best != plate.chosen[place]:
                chosen = plate.chosen.copy()
                chosen[place] = best
                other = _split(criterion, limits, chosen, least)
                plate = other if other.value < plate.value * (1 - 1e-9) else plate
        if plate.value == before:
            break
    return plate


def _whole(cells: Vector, total: int, most: Vector) -> Index:
    """Return whole numbers of the same total, the largest rests rounded up."""
    down = np.floor(cells + 1e-9)
    rest = np.where(down < most, cells - down, -np.inf)
    down[np.argsort(-rest, kind="stable")[: total - int(down.sum())]] += 1
    return down.astype(np.int64)


def _check_chosen(
    chosen: list[int], must: list[int], allowed: NDArray[np.bool_], n_wells: int
) -> None:
    sound = len(set(chosen)) == n_wells == len(chosen) and set(must) <= set(chosen)
    if not sound or not all(0 <= j < len(allowed) and allowed[j] for j in chosen):
        message = (
            f"chosen must be {n_wells} candidates, those of must among them and those of never "
            f"not, but is {chosen}."
        )
        raise ValueError(message)


def _check(
    allowed: NDArray[np.bool_],
    must: list[int],
    n_wells: int,
    n_cells: int,
    least: int,
    most: int | None,
) -> None:
    require_count(least, "least")
    if not allowed[must].all():
        message = f"Candidates {[j for j in must if not allowed[j]]} both must and must never be."
        raise ValueError(message)
    if len(must) > n_wells or not n_wells:
        message = f"{len(must)} candidates must be on a plate of {n_wells}: allow more wells."
        raise ValueError(message)
    if least * n_wells > n_cells:
        message = f"{n_cells} cells do not suffice for {n_wells} wells of {least}: give more cells."
        raise ValueError(message)
    if most is not None and require_count(most, "most", least=least) * n_wells < n_cells:
        message = f"{n_wells} wells of at most {most} cells hold fewer than {n_cells}: raise most."
        raise ValueError(message)
