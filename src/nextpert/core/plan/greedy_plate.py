"""Wells filled one by one, each with the candidate that gains most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import require_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]

# Candidates asked at a time; as many are all asked for every well. Fewer would save little: of 500
# candidates and 200 genes most of the time goes to steps from gene to gene.
_AT_A_TIME = 500
_TINY = 1e-300  # keeps 0 / 0 from a division; below every variance


def greedy_plate(
    gain: Callable[[list[int]], Callable[[Index], Vector]],
    size: int,
    *,
    allowed: NDArray[np.bool_],
    must: Sequence[int] = (),
    cost: Vector | None = None,
    budget: float = np.inf,
    per_cost: bool = True,
    new: NDArray[np.bool_] | None = None,
    most_new: int | None = None,
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
    must
        Candidates that are chosen first, in this order.
    cost
        Cost of a well of every candidate, cells included, shape ``(n_candidates,)``.
    budget
        Most to be spent.
    per_cost
        Whether gains are compared per cost; else costs count for the budget alone.
    new, most_new
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
        than ``most_new``, or cost more than the budget.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.plan.greedy_plate import greedy_plate
    >>> gain = lambda chosen: lambda some: np.array([0.1, 0.3, 0.2])[some] / (1 + len(chosen))
    >>> greedy_plate(gain, 2, allowed=np.ones(3, dtype=bool))
    [1, 2]
    >>> greedy_plate(gain, 2, allowed=np.ones(3, dtype=bool), cost=np.array([1, 9, 2]), budget=3)
    [0, 2]
    """
    price = np.zeros(len(allowed)) if cost is None else np.asarray(cost, dtype=np.float64)
    fresh = np.zeros(len(allowed), dtype=np.bool_) if new is None else new
    size, chosen = require_count(size, "size"), list(must)
    spent = float(price[chosen].sum())
    room = np.inf if most_new is None else most_new - fresh[chosen].sum()
    _check_must(len(chosen), size, spent, budget, room, most_new)
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
            if start == 0 and len(chosen) > len(must):
                shrunk = now[some] / np.maximum(last[some], _TINY)
                last[usable] *= min(max(float(shrunk.max()), 0.0), 1.0)
            last[some] = now[some]
        best = int(now.argmax())
        chosen.append(best)
        left[best] = False
        spent += float(price[best])
        room -= fresh[best]
    return chosen


def _check_must(
    n: int, size: int, spent: float, budget: float, room: float, most_new: int | None
) -> None:
    """Raise where ``n`` candidates that must be there leave no wells, money or ``room``."""
    if n > size:
        message = f"{n} candidates must be on a plate of {size}: allow more wells."
        raise ValueError(message)
    if spent > budget:
        message = f"The candidates that must be on the plate cost {spent:g} of {budget:g}."
        raise ValueError(message)
    if room < 0:
        message = f"More candidates that must be on the plate are new than most_new={most_new}."
        raise ValueError(message)
