"""Plates: candidates chosen well by well, and their cells split, by CIV or by probability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from nextpert.core._checks import as_vector, require_count, require_positive
from nextpert.core.design.distances import probability_nearest
from nextpert.core.design.uncertain_civ import CivAfter, UncertainCiv

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.design.goal import Goal
    from nextpert.core.model.dag_blr import DagBlr
    from nextpert.core.model.shift_posterior import ShiftPosterior

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]
    Array = NDArray[np.float64]


_TINY = 1e-300  # keeps 0 / 0 from a division; below every variance


def allocate_cells(civ: PlateCiv, chosen: Sequence[int], n_cells: int, *, least: int = 1) -> Index:
    """Split the cells of a plate among the candidates chosen such that CIV is least.

    Parameters
    ----------
    civ
        The acquisition.
    chosen
        Indices of candidates.
    n_cells
        Cells in all.
    least
        Least cells of a candidate.

    Returns
    -------
    ndarray
        Whole numbers of cells, shape ``(n_chosen,)``.

    Raises
    ------
    ValueError
        If the cells do not suffice.

    Examples
    --------
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.design.plate import allocate_cells
    >>> from nextpert.core.design.plate import PlateCiv
    >>> from nextpert.core.model.shift_posterior import ShiftPosterior
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> known = ShiftPosterior.exact([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    >>> civ = PlateCiv(blr, known, [1.0, 0.0], gap_cells=20)
    >>> allocate_cells(civ, [0, 2], 20, least=5).tolist()
    [15, 5]
    """
    k = len(chosen)
    if require_count(least, "least") * k > require_count(n_cells, "n_cells"):
        message = f"{n_cells} cells do not suffice for {k} wells of {least}: give more cells."
        raise ValueError(message)
    cells = best_split(civ, chosen, n_cells, least)
    # Whole numbers of the same total: the largest rests are rounded up.
    whole = np.floor(cells + 1e-9)
    whole[np.argsort(whole - cells, kind="stable")[: n_cells - int(whole.sum())]] += 1
    return whole.astype(np.int64)


def best_split(civ: PlateCiv, chosen: Sequence[int], n_cells: float, least: float) -> Vector:
    """Return the cells, fractions allowed and at least ``least``, that make CIV least, (n_chosen,).

    CIV is convex in the cells, so sequential quadratic programming finds its one least value.
    """
    place, k, low = np.asarray(chosen, np.int64), len(chosen), least / n_cells

    def after(shares: Vector) -> CivAfter:
        cells = np.zeros(civ.size)
        cells[place] = n_cells * np.maximum(shares, 0.0)
        return civ.after(cells, n_cells)

    even = np.full(k, 1 / k)
    scale = after(even).value if k > 1 and k * low < 1 else 0.0
    if not scale > 0:  # nothing to learn, or to choose
        return n_cells * even
    found = minimize(
        lambda x: after(x).value / scale, even,
        jac=lambda x: after(x).slopes(place) * n_cells / scale,
        bounds=[(low, 1.0)] * k, method="SLSQP",
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-12, "maxiter": 200},
    ).x  # fmt: skip
    spare = np.maximum(found - low, 0.0)  # of the total, which rounding must not change
    found = low + spare * (1 - k * low) / max(spare.sum(), _TINY)
    return n_cells * (found if after(found).value < scale else even)


class PlateCiv(UncertainCiv):
    """CIV, above its floor of noise alone, as a function of the cells of every candidate.

    The acquisition of :class:`~nextpert.core.design.uncertain_civ.UncertainCiv`, noise-aware,
    after any cells of any candidates. Over several graphs it is the mean of theirs by their
    weights; what lies between graphs is not convex in the cells and is left out.

    Parameters
    ----------
    posterior, shifts, target, weights
        As in :class:`~nextpert.core.design.uncertain_civ.UncertainCiv`.
    gap_cells
        Cells of the mean whose gap counts, those of a well.
    pending
        Cells under way, shape ``(n_candidates,)``, counted as if measured.

    Raises
    ------
    ValueError
        If posteriors, shifts and target do not fit together, or a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.design.plate import PlateCiv
    >>> from nextpert.core.model.shift_posterior import ShiftPosterior
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> known = ShiftPosterior.exact([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    >>> civ = PlateCiv(blr, known, [1.0, 0.0], gap_cells=20)
    >>> civ.removed_by_wells([0, 2], [15, 5]).round(3).tolist()
    [0.99, 0.991]
    """

    def __init__(
        self,
        posterior: DagBlr | Sequence[DagBlr],
        shifts: ShiftPosterior | Sequence[ShiftPosterior],
        target: ArrayLike | Goal,
        *,
        gap_cells: float,
        weights: ArrayLike | None = None,
        pending: ArrayLike | None = None,
    ) -> None:
        require_positive(gap_cells, "gap_cells")
        super().__init__(
            posterior, shifts, target, n_cells=gap_cells, noise_aware=True, weights=weights, rng=0
        )
        self.pending = np.zeros(self.size)
        if pending is not None:
            self.pending = as_vector(pending, self.size, "pending")
            if self.pending.min() < 0:
                message = "Cells under way (pending) must be 0 or more."
                raise ValueError(message)

    def after(self, cells: ArrayLike, total: float | None = None) -> CivAfter:
        """Return the acquisition after ``cells`` of every candidate, and those under way.

        The scatter of ``total`` cells is counted, by default of as many as there are.
        """
        given = as_vector(cells, self.size, "cells")
        n_cells = given.sum() if total is None else total
        return super().after(given + self.pending, float(n_cells + self.pending.sum()))

    def gain(self, chosen: Sequence[int], each: float) -> Callable[[Index], Vector]:
        """Return what ``each`` cells of any candidate take off the acquisition, given the chosen.

        A function of the indices of candidates, as :func:`greedy_plate` asks for it.
        """
        cells = np.zeros(self.size)
        cells[list(chosen)] = each
        found = self.after(cells, each * (len(chosen) + 1))
        return lambda candidates: -found.changes(candidates, each)

    def removed_by_wells(self, chosen: Sequence[int], cells: ArrayLike) -> Vector:
        """Return the share of the acquisition that the first well removes, the first two and so on.

        What cells under way remove is counted too.
        """
        on_plate, removed = np.zeros(self.size), []
        for j, n in zip(chosen, as_vector(cells, len(chosen), "cells"), strict=True):
            on_plate[j] += n
            removed.append(self.after(on_plate).variance_reduction)
        return np.array(removed)


# Candidates asked at a time; as many are all asked for every well. Fewer would save little: of 500
# candidates and 200 genes most of the time goes to steps from gene to gene.
_AT_A_TIME = 500


def greedy_plate(
    gain: Callable[[list[int]], Callable[[Index], Vector]],
    size: int,
    *,
    allowed: NDArray[np.bool_],
    include: Sequence[int] = (),
    cost: Vector | None = None,
    budget: float = np.inf,
    per_cost: bool = True,
    new: NDArray[np.bool_] | None = None,
    max_new: int | None = None,
) -> list[int]:
    """Choose the candidates of a plate greedily, within what a lab can pay for and make.

    Up to 500 candidates are all asked for every well. Of more, those that gained most when last
    asked are asked first, 500 at a time, and the others only while their gains may exceed the best
    found for this well (lazy greedy choice, Minoux 1978, doi:10.1007/BFb0006528). Gains shrink as
    wells are filled; those not asked are taken to have shrunk as far as the one of the first 500
    that shrank least.

    Parameters
    ----------
    gain
        From the candidates chosen before to a function of the indices of candidates: what each of
        them would gain besides. Of equal gains the first candidate is taken.
    size
        Most wells.
    allowed
        Candidates to choose from, shape ``(n_candidates,)``.
    include
        Candidates that are chosen first, in this order.
    cost
        Cost of a well of every candidate, cells included, shape ``(n_candidates,)``.
    budget
        Most to be spent.
    per_cost
        Whether gains are compared per cost; else costs count for the budget alone.
    new, max_new
        Candidates that have to be made first, shape ``(n_candidates,)``, and most of them on the
        plate.

    Returns
    -------
    list of int
        Candidates in the order chosen; fewer than ``size`` where no more fit.

    Raises
    ------
    ValueError
        If the candidates that must be chosen are more than the wells or, those that are new, more
        than ``max_new``, or cost more than the budget.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.plate import greedy_plate
    >>> gain = lambda chosen: lambda some: np.array([0.1, 0.3, 0.2])[some] / (1 + len(chosen))
    >>> greedy_plate(gain, 2, allowed=np.ones(3, dtype=bool))
    [1, 2]
    >>> greedy_plate(gain, 2, allowed=np.ones(3, dtype=bool), cost=np.array([1, 9, 2]), budget=3)
    [0, 2]
    """
    price = np.zeros(len(allowed)) if cost is None else np.asarray(cost, dtype=np.float64)
    fresh = np.zeros(len(allowed), dtype=np.bool_) if new is None else new
    size, chosen = require_count(size, "size"), list(include)
    spent = float(price[chosen].sum())
    room = np.inf if max_new is None else max_new - fresh[chosen].sum()
    message = ""
    if len(chosen) > size:
        message = f"{len(chosen)} candidates must be on a plate of {size}: allow more wells."
    elif spent > budget:
        message = f"The candidates that must be on the plate cost {spent:g} of {budget:g}."
    elif room < 0:
        message = f"More candidates that must be on the plate are new than max_new={max_new}."
    if message:
        raise ValueError(message)
    left = allowed.copy()
    left[chosen] = False
    unit = np.where(price > 0, price, 1.0) if per_cost else np.ones(len(price))
    last = np.full(len(allowed), np.inf)  # gains per unit when last asked
    while len(chosen) < size:
        usable = np.flatnonzero(left & (price <= budget - spent) & (~fresh if room < 1 else True))
        if not len(usable):
            break
        ask, now = gain(chosen), np.full(len(allowed), -np.inf)
        order = usable[np.argsort(-last[usable], kind="stable")]
        for start in range(0, len(order), _AT_A_TIME):
            some = np.sort(order[start : start + _AT_A_TIME])
            if last[order[start]] < now.max():
                break
            now[some] = ask(some) / unit[some]
            if start == 0 and len(chosen) > len(include):
                shrunk = now[some] / np.maximum(last[some], _TINY)
                last[usable] *= min(max(float(shrunk.max()), 0.0), 1.0)
            last[some] = now[some]
        best = int(now.argmax())
        chosen.append(best)
        left[best] = False
        spent += float(price[best])
        room -= fresh[best]
    return chosen


def probable_plate(draws: Array, size: int) -> NDArray[np.int64]:
    """Return the candidates that together most probably hold the nearest one.

    Of different candidates at most one is the nearest, so the probability that a plate holds it
    is the sum of theirs, and the plate that makes it largest takes the most probable ones.
    Draws must be joint: what is unknown of all candidates alike then tells none of them apart.

    Parameters
    ----------
    draws
        Squared distances under joint draws, shape ``(n_draws, n_candidates)``.
    size
        Number of candidates; where there are fewer, all.

    Returns
    -------
    ndarray
        Indices, the most probable first. Of equally probable ones (most are the nearest in no
        draw) the one with the least mean distance comes first.

    Raises
    ------
    ValueError
        If ``size`` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.plate import probable_plate
    >>> probable_plate(np.array([[1.0, 2.0, 3.0, 9.0], [4.0, 5.0, 3.0, 9.0]]), 3).tolist()
    [0, 2, 1]
    """
    wanted = require_count(size, "size")
    return np.lexsort((draws.mean(axis=0), -probability_nearest(draws)))[:wanted]


def best_plate(expected: Array, draws: Array, size: int) -> NDArray[np.int64]:
    """Return candidates for finding the nearest one: half by expectation, half by probability.

    Half of the wells (rounded up) take the candidates of least expected distance, the others
    those of the rest that are the most probably nearest (:func:`probable_plate`). Under draws a
    candidate whose state is hardly known is the nearest now and then by chance alone, and many
    such together crowd out those that a measured own gene or first cells point to.

    Parameters
    ----------
    expected
        Squared distances of the expected states, shape ``(n_candidates,)``.
    draws
        Squared distances under joint draws, shape ``(n_draws, n_candidates)``.
    size
        Number of candidates; where there are fewer, all.

    Returns
    -------
    ndarray
        Indices, those by expectation first.

    Raises
    ------
    ValueError
        If ``size`` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.plate import best_plate
    >>> draws = np.array([[2.0, 3.0, 1.0, 9.0], [2.0, 3.0, 1.0, 9.0], [2.0, 3.0, 9.0, 9.0]])
    >>> best_plate(draws.mean(axis=0), draws, 2).tolist()
    [0, 2]
    """
    return best_order(expected, draws, size)[0][:size]


def best_order(expected: Array, draws: Array, size: int) -> tuple[NDArray[np.int64], Array]:
    """Return all candidates in the order in which a plate takes them, and what ordered them.

    Parameters
    ----------
    expected, draws, size
        As in :func:`best_plate`.

    Returns
    -------
    ndarray, ndarray
        Indices, of which the first ``size`` are :func:`best_plate`; and for every candidate the
        probability of being the nearest of those not chosen by expectation, NaN for those that
        are.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.plate import best_order
    >>> draws = np.array([[2.0, 3.0, 1.0, 9.0], [2.0, 3.0, 1.0, 9.0], [2.0, 3.0, 9.0, 9.0]])
    >>> order, probability = best_order(draws.mean(axis=0), draws, 2)
    >>> order.tolist(), probability.round(2).tolist()
    ([0, 2, 1, 3], [nan, 0.33, 0.67, 0.0])
    """
    wanted = require_count(size, "size")
    first = np.argsort(expected, kind="stable")[: -(-wanted // 2)]
    rest = np.setdiff1d(np.arange(len(expected)), first)
    probability = np.full(len(expected), np.nan)
    if not len(rest):
        return first, probability
    probability[rest] = probability_nearest(draws[:, rest])
    return np.append(first, rest[probable_plate(draws[:, rest], len(rest))]), probability
