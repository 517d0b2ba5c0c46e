"""Wells filled one by one, each with the candidate that gains most."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._checks import require_count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


class FilledPlate(NamedTuple):
    """Candidates in the order chosen, the aim that chose each, and what it gained of that."""

    chosen: list[int]
    aims: list[str]
    gains: list[float]


def fill_plate(
    aims: Mapping[str, Callable[[Sequence[int]], Vector]],
    size: int,
    *,
    allowed: NDArray[np.bool_],
    must: Sequence[int] = (),
    pending: Sequence[int] = (),
    cost: Vector | None = None,
    budget: float = np.inf,
    new: NDArray[np.bool_] | None = None,
    most_new: int | None = None,
) -> FilledPlate:
    """Choose the candidates of a plate greedily, for one aim or several.

    Every aim tells what one more candidate would gain, as a share of all that is to be gained of
    it. The next well takes the candidate with the largest gain of any aim; so the wells go where
    most remains to be gained, and no weight between aims has to be set. With costs it is the
    largest gain per cost.

    Parameters
    ----------
    aims
        By name, a function from the candidates chosen before (those under way first) to the
        gain of each candidate, shape ``(n_candidates,)``. Of equal gains the first aim, then the
        first candidate is taken.
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
    new, most_new
        Candidates that have to be made first, shape ``(n_candidates,)``, and most of them on the
        plate.

    Raises
    ------
    ValueError
        If the candidates that must be chosen are more than the wells or, those that are new, more
        than ``most_new``, or cost more than the budget.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.plan.fill_plate import fill_plate
    >>> aims = {
    ...     "learn": lambda chosen: np.array([0.1, 0.3, 0.2]) / (1 + len(chosen)),
    ...     "best": lambda chosen: np.array([0.2, 0.0, 0.1]),
    ... }
    >>> fill_plate(aims, 2, allowed=np.ones(3, dtype=bool))
    FilledPlate(chosen=[1, 0], aims=['learn', 'best'], gains=[0.3, 0.2])
    """
    price = np.zeros(len(allowed)) if cost is None else np.asarray(cost, dtype=np.float64)
    size = require_count(size, "size")
    spent = float(price[list(must)].sum())
    if len(must) > size:
        message = f"{len(must)} candidates must be on a plate of {size}: allow more wells."
        raise ValueError(message)
    if spent > budget:
        message = f"The candidates that must be on the plate cost {spent:g} of {budget:g}."
        raise ValueError(message)
    fresh = np.zeros(len(allowed), dtype=np.bool_) if new is None else new
    room = np.inf if most_new is None else most_new - fresh[list(must)].sum()
    if room < 0:
        message = f"More candidates that must be on the plate are new than most_new={most_new}."
        raise ValueError(message)
    plate = FilledPlate(list(must), ["must"] * len(must), [np.nan] * len(must))
    left = allowed.copy()
    left[list(must)] = False
    while len(plate.chosen) < size:
        usable = left & (price <= budget - spent) & (~fresh if room < 1 else True)
        if not usable.any():
            break
        before = [*pending, *plate.chosen]
        gains = np.array([gain(before) for gain in aims.values()])
        rates = np.where(usable, gains / np.where(price > 0, price, 1.0), -np.inf)
        aim, best = np.unravel_index(int(rates.argmax()), rates.shape)
        plate.chosen.append(int(best))
        plate.aims.append(list(aims)[aim])
        plate.gains.append(float(gains[aim, best]))
        left[best] = False
        spent += float(price[best])
        room -= fresh[best]
    return plate
