"""A bound on what any plate of whole wells can reach: the best mixture of plates."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core.plan._spend_kernel import spend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from nextpert.core.plan._plate_criterion import PlateCriterion, WorkingSet

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]

_HALVINGS = 24  # of the price, on a scale of logarithms
_ROUNDS = 4  # of candidates that join those among which the price is sought


class Wells(NamedTuple):
    """What a plate may hold: so many wells and cells, from ``least`` to ``most`` (m,) in each.

    Candidates of ``must`` are on it; those of ``most`` 0 are not.
    """

    size: int
    n_cells: float
    least: float
    most: Vector
    must: Sequence[int] = ()


def bound_plates(
    criterion: PlateCriterion,
    wells: Wells,
    cells: Vector,
    tolerance: float = 1e-3,
    max_steps: int = 8,
) -> float:
    """Return a value below which no plate of whole wells leaves the criterion.

    What cells tell saturates: ``n`` cells of a candidate tell ``k = n/(1 + n t)`` of a node. The
    criterion is convex in k too, so at any k, its slopes bound it from below on every plate; the
    plate best by these slopes is found by a price on cells: at each price the ``size`` candidates
    that gain most. Frank-Wolfe steps towards it find the mixture of plates (means of their k) of
    which the criterion is least. A continuous plate spreads a few cells each over all candidates;
    mixed plates do not, for each of them pays for its wells.

    Parameters
    ----------
    criterion
        The criterion.
    wells
        What a plate may hold.
    cells
        Of every candidate on a good plate, ``(n_candidates,)``: where the search starts.
    tolerance
        The gap between mixture and bound to stop at, as a share of the criterion.
    max_steps
        Most steps. The bound holds wherever they end.
    """
    spare = np.vstack([part.spare for part in criterion.parts])
    under_way = _tell(criterion.pending, spare)
    told = _tell(cells + criterion.pending, spare)
    rows, bound = np.ascontiguousarray(spare.T), -np.inf
    for step in range(max_steps + 1):
        working = criterion.work_on(np.flatnonzero(told.any(axis=0)))
        look = working.look_told(told[:, working.columns])
        falls = -look.all_node_slopes()
        gain, best = _best_plates(falls, rows, criterion.pending, wells)
        ahead = float(np.vdot(falls, told - under_way))  # what the mixture itself takes
        bound = max(bound, look.value + ahead - gain)
        if look.value - bound <= tolerance * look.value or step == max_steps:
            return bound
        mixed = under_way.copy()
        for share, some, n in best:
            there = _tell(n + criterion.pending[some], spare[:, some])
            mixed[:, some] += share * (there - under_way[:, some])
        told += _share(criterion, told, mixed) * (mixed - told)
    return bound


def _tell(cells: Vector, spare: Vector) -> Vector:
    """Return what cells (c,) tell, k of every node, (P, c)."""
    told: Vector = cells / (1 + cells * spare)
    return told


def _share(criterion: PlateCriterion, told: Vector, mixed: Vector) -> float:
    """Return how far to go from one mixture to another, by halvings of the slope's sign."""
    working = criterion.work_on(np.flatnonzero((told + mixed).any(axis=0)))
    start, change = told[:, working.columns], (mixed - told)[:, working.columns]
    if _slope(working, mixed[:, working.columns], change) <= 0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(7):
        middle = (low + high) / 2
        below = _slope(working, start + middle * change, change) < 0
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


def _slope(working: WorkingSet, told: Vector, change: Vector) -> float:
    return float(np.vdot(working.look_told(told).node_slopes(), change))


def _best_plates(
    falls: Vector, spare: Vector, pending: Vector, wells: Wells
) -> tuple[float, list[tuple[float, Index, Vector]]]:
    """Return the most that slopes promise a plate, and the mixture of plates that has it.

    Any price bounds it: gains less price, of the wells that gain most, and the price of all cells.
    The price is sought among few candidates, and tried on all.
    """
    falls = np.ascontiguousarray(falls.T)
    allowed = np.flatnonzero(wells.most > 0)
    room = np.minimum(wells.most, wells.n_cells - (wells.size - 1) * wells.least)
    must = np.isin(allowed, np.asarray(wells.must, np.int64))

    def at(price: float, place: Index, most: Vector = room) -> tuple[float, Index, Vector]:
        cells, gains = np.empty(len(place)), np.empty(len(place))
        some = allowed[place]
        spend(falls, spare, pending, some, price, wells.least, most, cells, gains)
        top = np.argsort(-np.where(must[place], np.inf, gains), kind="stable")[: 2 * wells.size]
        first = top[: wells.size]
        return float(gains[first].sum() + price * wells.n_cells), place[top], cells[top]

    every = np.arange(len(allowed))
    _, few, _ = at(0.0, every, np.minimum(room, wells.n_cells / wells.size))
    gain = np.inf
    for _ in range(_ROUNDS):
        price, found = _cheapest(partial(at, place=few), falls, wells)
        value, top, _ = at(price, every)
        gain = min(gain, value)
        if np.isin(top[: wells.size], few).all():
            break
        few = np.union1d(few, top)
    return gain, [(share, allowed[top], n) for share, top, n in found]


def _cheapest(
    at: Callable[[float], tuple[float, Index, Vector]], falls: Vector, wells: Wells
) -> tuple[float, list[tuple[float, Index, Vector]]]:
    """Return the price at which all cells are spent, and the plates on both sides of it, mixed."""
    high = float(falls.sum(axis=1).max(initial=0.0))
    low = 1e-9 * high
    if at(low)[2][: wells.size].sum() <= wells.n_cells:
        low = high = 0.0  # wells are full
    for _ in range(_HALVINGS if high > 0 else 0):
        middle = float(np.sqrt(low * high))
        too_many = at(middle)[2][: wells.size].sum() > wells.n_cells
        low, high = (middle, high) if too_many else (low, middle)
    plates = []
    for price in (low, high):
        value, top, cells = at(price)
        plates.append((value, top[: wells.size], cells[: wells.size]))
    much, little = (float(cells.sum()) for _, _, cells in plates)
    share = (wells.n_cells - little) / (much - little) if much > little else 0.0
    share = min(max(share, 0.0), 1.0)
    mixed = [(part, top, n) for part, (_, top, n) in zip((share, 1 - share), plates, strict=True)]
    return (low if plates[0][0] < plates[1][0] else high), mixed
