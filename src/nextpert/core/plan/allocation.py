"""How many cells of each candidate: the best continuous plate, with a certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._checks import as_vector, require_positive
from nextpert.core.plan._exchange import exchange
from nextpert.core.plan._plate_criterion import PlateCriterion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.plan._plate_criterion import Look, WorkingSet
    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.goal import Goal

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]

_FEW = 300  # candidates in use for which curvatures pay
_NEW = 64  # candidates that join them at a time
_NEWTON = 8  # steps on them before all candidates are looked at again
_TRACE = 1e-3  # share of what is spent that is as good as none


class Allocation(NamedTuple):
    """Cells of every candidate, what they leave, and how far from the best that may be.

    ``value`` is the criterion after the cells, above its floor (of noise alone); no allocation
    has one below ``value - gap``. ``removed`` is the share of the criterion now that the cells
    are expected to remove.
    """

    cells: Vector
    value: float
    gap: float
    removed: float
    n_steps: int

    @property
    def within(self) -> float:
        """The gap as a share of the value: the plate is within it of the best possible one."""
        return self.gap / self.value if self.value > 0 else 0.0


class Limits(NamedTuple):
    """Bounds and costs of cells, and what is to be spent."""

    cost: Vector
    least: Vector
    most: Vector
    budget: float

    def cheapest(self, slopes: Vector) -> Vector:
        """Return the cells within the bounds whose linearised criterion is least."""
        cells = self.least.copy()
        spare = self.budget - float(self.cost @ cells)
        for j in np.argsort(slopes / self.cost, kind="stable"):
            if spare <= 0:
                break
            more = min(self.most[j] - cells[j], spare / self.cost[j])
            cells[j] += more
            spare -= more * self.cost[j]
        return cells

    def scaled(self, cells: Vector) -> Vector:
        """Return ``cells`` times a factor, within the bounds, such that all is spent."""
        low, high = -50.0, 50.0  # log of the factor
        cells = np.minimum(cells / max(float(self.cost @ cells), 1e-300) * self.budget, 1e300)
        for _ in range(80):
            middle = (low + high) / 2
            spent = self.cost @ np.clip(np.exp(middle) * cells, self.least, self.most)
            low, high = (middle, high) if spent < self.budget else (low, middle)
        found = np.clip(np.exp(high) * cells, self.least, self.most)
        # What those in use cannot take goes to others.
        rest = self._replace(least=found)
        return rest.cheapest(-cells) if self.cost @ found < self.budget else found


def allocate_cells(
    posterior: DagBlr | Sequence[DagBlr],
    shifts: ShiftPosterior | Sequence[ShiftPosterior],
    target: ArrayLike | Goal,
    n_cells: float,
    *,
    costs: ArrayLike | None = None,
    least: ArrayLike = 0.0,
    most: ArrayLike | None = None,
    pending: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    gap_cells: float | None = None,
    tolerance: float = 1e-4,
    max_steps: int = 200,
) -> Allocation:
    """Split the cells of a plate among candidates such that CIV is least.

    The criterion (that of :class:`UncertainCiv`, noise-aware) is convex in the cells of every
    candidate, fractions allowed. So it has one least value, and its slopes tell how far off an
    allocation may be: no allocation is better by more than what moving all cells along the slopes
    promises (the Frank-Wolfe gap). Where many candidates are in use, cells are scaled by a power
    of their slopes again and again (the multiplicative algorithm of optimal designs); where few,
    Newton steps over them, and those of steepest slope beside, find the last digits, their
    quadratic problems solved by pairwise Frank-Wolfe steps.

    Parameters
    ----------
    posterior
        The posterior over the weights, or one on each of several graphs. Over graphs the criterion
        is the mean of theirs; what lies between graphs is not convex in the cells, and left out.
    shifts
        The candidates; for several graphs the same for all, or one for each.
    target
        The wanted mean, shape ``(n_nodes,)``, units of the data.
    n_cells
        Cells in all.
    costs
        Cost of a cell of every candidate, shape ``(n_candidates,)``, in units of which
        ``n_cells`` are to be spent; all 1 by default. Noise is reckoned as after ``n_cells``.
    least, most
        Bounds of the cells of every candidate, numbers or shape ``(n_candidates,)``.
    pending
        Cells under way, shape ``(n_candidates,)``, beside ``n_cells``.
    weights
        What every candidate counts for in the average, as for :class:`UncertainCiv`.
    gap_cells
        Cells of the mean whose optimality gap counts; ``n_cells`` by default.
    tolerance
        The gap to stop at, as a share of the value.
    max_steps
        Most looks at all candidates. The certificate holds wherever they end.

    Raises
    ------
    ValueError
        If the bounds leave no allocation, a cost is not positive, or posteriors, shifts and
        target do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.plan.allocation import allocate_cells
    >>> from nextpert.core.posterior.shift_posterior import ShiftPosterior
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> known = ShiftPosterior.exact([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    >>> plate = allocate_cells(blr, known, [1.0, 0.0], 10)
    >>> plate.cells.round(6).tolist(), plate.within < 1e-4
    ([10.0, 0.0, 0.0], True)
    """
    criterion = PlateCriterion(
        posterior, shifts, target, n_cells,
        gap_cells=gap_cells, weights=weights, pending=pending,
    )  # fmt: skip
    limits = read_limits(criterion.size, criterion.n_cells, costs, least, most)
    return allocate(criterion, limits, tolerance, max_steps)


def allocate(
    criterion: PlateCriterion, limits: Limits, tolerance: float = 1e-4, max_steps: int = 200
) -> Allocation:
    """Return the best allocation (see :func:`allocate_cells`)."""
    cells, power, bound, last = limits.scaled(1 / limits.cost), 0.6, -np.inf, np.inf
    before = criterion.before()
    step, traces = 0, criterion.size > _FEW
    used = cells > 0
    working = criterion.work_on(np.flatnonzero(used))
    while True:
        if not np.array_equal(cells > 0, used):
            used = cells > 0
            working = criterion.work_on(np.flatnonzero(used))
        look = working.look(cells[working.columns])
        slopes = look.all_slopes()
        gap = float(slopes @ (cells - limits.cheapest(slopes)))
        bound = max(bound, look.value - gap)  # the criterion is convex: each of them holds
        main = _main_part(cells * limits.cost) if traces else cells > 0
        few = main.sum() <= _FEW
        enough = look.value - bound <= tolerance * look.value and not (few and traces)
        if enough or step >= max_steps:
            removed = 1 - look.value / before if before > 0 else 0.0
            return Allocation(cells, look.value, max(look.value - bound, 0.0), removed, step)
        if few:
            if traces:  # of candidates that should have none
                cells, traces = limits.scaled(np.where(main, cells, 0.0)), False
            cells = _newton(criterion, limits, cells, slopes, gap)
        else:
            # Where slopes are much alike a larger power gets there sooner.
            power = 1.5 * power if look.value < last else max(power / 4, 0.5)
            last = look.value
            cells = limits.scaled(cells * np.maximum(-slopes / limits.cost, 0.0) ** power)
        step += 1


def _main_part(spent: Vector) -> NDArray[np.bool_]:
    """Return the fewest candidates on which all but a trace is spent."""
    order = np.argsort(-spent, kind="stable")
    kept = np.cumsum(spent[order]) < (1 - _TRACE) * spent.sum()
    main = np.zeros(len(spent), dtype=np.bool_)
    main[order[: int(kept.sum()) + 1]] = True
    return main


def _newton(
    criterion: PlateCriterion, limits: Limits, cells: Vector, slopes: Vector, gap: float
) -> Vector:
    """Return cells of which those in use, or that should be, are such that their gap is small."""
    rates = np.where(cells < limits.most, slopes / limits.cost, np.inf)
    steepest = np.argsort(rates, kind="stable")[:_NEW]
    place = np.union1d(np.flatnonzero(cells > 0), steepest)
    working = criterion.work_on(place)
    free = np.searchsorted(working.columns, place)
    few = Limits(limits.cost[place], limits.least[place], limits.most[place], limits.budget)
    few = few._replace(budget=float(few.cost @ cells[place]))
    current = cells[working.columns]
    look = working.look(current)
    for _ in range(_NEWTON):
        slopes = look.slopes()[free]
        now = current[free]
        enough = gap / 1000
        if slopes @ (now - few.cheapest(slopes)) <= enough:
            break
        change = np.zeros_like(current)
        change[free] = exchange(
            slopes, look.curvature(free), few.cost, few.least - now, few.most - now,
            enough / few.budget / 1000, 200 * len(free) + 2000,
        )  # fmt: skip
        share, look = _search_line(working, look, current, change)
        if share == 0:  # no further digits to be had
            break
        current = np.maximum(current + share * change, limits.least[working.columns])
    out = cells.copy()
    out[working.columns] = current
    return out


def _search_line(
    working: WorkingSet, look: Look, cells: Vector, change: Vector
) -> tuple[float, Look]:
    """Return the share of a change that is best, by secants between bounds, and what it gives."""
    low, at_low = 0.0, float(look.slopes() @ change)
    if at_low >= 0:
        return 0.0, look
    high = 1.0
    start = at_low
    found = working.look(np.maximum(cells + change, 0.0))
    at_high = float(found.slopes() @ change)
    if at_high <= 0.1 * abs(start):
        return 1.0, found
    share = 1.0
    for _ in range(30):
        share = low - at_low * (high - low) / (at_high - at_low)
        share = min(max(share, low + 0.05 * (high - low)), high - 0.05 * (high - low))
        found = working.look(np.maximum(cells + share * change, 0.0))
        slope = float(found.slopes() @ change)
        if abs(slope) <= 0.1 * abs(start):
            break
        if slope < 0:
            low, at_low = share, slope
        else:
            high, at_high = share, slope
    return share, found


def read_limits(
    size: int,
    budget: float,
    costs: ArrayLike | None,
    least: ArrayLike,
    most: ArrayLike | None,
) -> Limits:
    """Return costs and bounds of every candidate, checked."""
    require_positive(budget, "n_cells")
    cost = as_vector(np.ones(size) if costs is None else costs, size, "costs")
    low = as_vector(np.broadcast_to(np.asarray(least, np.float64), size), size, "least")
    high = np.full(size, np.inf)
    if most is not None:
        high = as_vector(np.broadcast_to(np.asarray(most, np.float64), size), size, "most")
    if cost.min() <= 0:
        message = "Cells of every candidate must cost more than 0 (costs)."
        raise ValueError(message)
    if low.min() < 0 or (low > high).any():
        message = "Bounds of cells must be 0 or more, and least no more than most."
        raise ValueError(message)
    # A candidate cannot have more cells than all together: a finite bound spares special cases.
    high = np.minimum(high, np.maximum(budget / cost, low))
    if cost @ low > budget * (1 + 1e-12):
        message = (
            f"The least cells of all candidates cost {cost @ low:g} of {budget:g}: ask for less."
        )
        raise ValueError(message)
    if cost @ high < budget * (1 - 1e-12):
        message = f"The most cells of all candidates cost {cost @ high:g}, less than {budget:g}."
        raise ValueError(message)
    return Limits(cost, low, high, budget)
