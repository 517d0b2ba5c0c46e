"""Wells filled one by one, each with the candidate that gains most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import require_count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


def fill_plate(
    gain: Callable[[list[int]], Vector],
    size: int,
    *,
    allowed: NDArray[np.bool_],
    must: Sequence[int] = (),
    pending: Sequence[int] = (),
    cost: Vector | None = None,
    budget: float = np.inf,
    per_cost: bool = True,
    new: NDArray[np.bool_] | None = None,
    most_new: int | None = None,
) -> list[int]:
    """Choose the candidates of a plate greedily, within what a lab can pay for and make.

    Parameters
    ----------
    gain
        From the candidates chosen before, those under way first, to what one more candidate would
        gain, shape ``(n_candidates,)``. Of equal gains the first candidate is taken.
    size
        Most wells.
    allowed
        Candidates to choose from, shape ``(n_candidates,)``.
    must
        Candidates that are chosen first, in this order.
    pending
        Candidates under way, which count as chosen.
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
    >>> from nextpert.core.plan.fill_plate import fill_plate
    >>> gain = lambda chosen: np.array([0.1, 0.3, 0.2]) / (1 + len(chosen))
    >>> fill_plate(gain, 2, allowed=np.ones(3, dtype=bool))
    [1, 2]
    >>> fill_plate(gain, 2, allowed=np.ones(3, dtype=bool), cost=np.array([1, 9, 2]), budget=3)
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
    while len(chosen) < size:
        usable = left & (price <= budget - spent) & (~fresh if room < 1 else True)
        if not usable.any():
            break
        best = int(np.where(usable, gain([*pending, *chosen]) / unit, -np.inf).argmax())
        chosen.append(best)
        left[best] = False
        spent += float(price[best])
        room -= fresh[best]
    return chosen


def _check_must(
    n: int, size: int, spent: float, budget: float, room: float, most_new: int | None
) -> None:
    if n > size:
        message = f"{n} candidates must be on a plate of {size}: allow more wells."
        raise ValueError(message)
    if spent > budget:
        message = f"The candidates that must be on the plate cost {spent:g} of {budget:g}."
        raise ValueError(message)
    if room < 0:
        message = f"More candidates that must be on the plate are new than most_new={most_new}."
        raise ValueError(message)
