"""What a lab can and cannot put on a plate: names, costs and cells, as the core takes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import closest, in_order, list_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from nextpert._adata import Naming
    from nextpert._adata.shifts import Interventions

    Vector = NDArray[np.float64]

COSTS = ("budget", "perturbation", "cell")


@dataclass(frozen=True)
class Constraints:
    """Constraints by position among the candidates.

    Parameters
    ----------
    allowed
        Which candidates may be chosen, shape ``(n_candidates,)``; those that must be are among
        them, those under way are not.
    must
        Candidates that have to be on the plate.
    pending
        Cells under way of every candidate, shape ``(n_candidates,)``.
    cost
        Cost of a well of every candidate, without its cells, shape ``(n_candidates,)``.
    cell_cost
        Cost of a cell.
    budget
        Most to be spent; infinite where nothing was said.
    """

    allowed: NDArray[np.bool_]
    must: list[int]
    pending: Vector
    cost: Vector
    cell_cost: float
    budget: float

    @property
    def under_way(self) -> list[int]:
        """Candidates with cells under way."""
        return np.flatnonzero(self.pending).tolist()


def read_constraints(
    given: Interventions,
    *,
    must: Any,
    never: Any,
    pending: Any,
    costs: Mapping[str, Any] | None,
    cells_each: float,
    naming: Naming,
) -> Constraints:
    """Return the constraints on candidates, whose names are taken with members in any order.

    Raises
    ------
    ValueError
        If a name is not among the candidates (close matches are given), one must and must not be
        on the plate, nothing is left to choose from, the controls are named, or a cost is unknown,
        missing or negative.
    """
    names = given.names
    wanted = _known(must, names, "must", naming)
    cells = _pending(pending, names, cells_each, naming)
    allowed = cells == 0
    forbidden = _forbidden(never, given, naming)
    allowed &= ~forbidden
    for word, mask in (("never", forbidden), ("pending", cells > 0)):
        both = [names[i] for i in wanted if mask[i]]
        if both:
            message = f"{list_names(both)}: both in must and in {word}. Take it out of one of them."
            raise ValueError(message)
    if not allowed.any():
        message = "No candidate is left: all are in never or pending. Give other candidates."
        raise ValueError(message)
    cost, cell_cost, budget = _costs(costs, names, naming)
    return Constraints(allowed, wanted, cells, cost, cell_cost, budget)


def _known(given: Any, candidates: list[str], what: str, naming: Naming) -> list[int]:
    names = _named(given, candidates, what, naming)
    place = {name: i for i, name in enumerate(candidates)}
    unknown = [name for name in names if name not in place]
    if unknown:
        message = (
            f"{what} holds names that are not among the candidates: {list_names(unknown)}."
            f"{closest(unknown, candidates)} Name them in candidates too."
        )
        raise ValueError(message)
    return [place[name] for name in names]


def _named(given: Any, known: Iterable[str], what: str, naming: Naming) -> list[str]:
    """Return the names given, each once, as the candidates are spelled."""
    names = [] if given is None else [str(name) for name in in_order(given)]
    _require_no_control(names, what, naming.control)
    return list(dict.fromkeys(naming.spelled(names, known)))


def _require_no_control(names: Collection[str], what: str, control: str) -> None:
    if control in names:
        message = (
            f"{what} holds {control!r}, the controls: these are no candidate, and on every plate. "
            f"Leave it out; n_controls says how many."
        )
        raise ValueError(message)


def _forbidden(never: Any, given: Interventions, naming: Naming) -> NDArray[np.bool_]:
    """Return the candidates that bear a forbidden name, or target a forbidden gene."""
    known = {*given.names, *(gene for genes in given.targets for gene in genes)}
    asked = _named(never, (), "never", naming)
    # A gene that is targeted is one by its own name, whatever a candidate of it alone is called.
    names = {*naming.spelled(asked, given.names), *(name for name in asked if name in known)}
    unknown = sorted(names - known)
    if unknown:
        message = (
            f"never holds names that are neither a candidate nor a target gene of one: "
            f"{list_names(unknown)}.{closest(unknown, sorted(known))}"
        )
        raise ValueError(message)
    return np.array(
        [
            name in names or not names.isdisjoint(genes)
            for name, genes in zip(given.names, given.targets, strict=True)
        ],
        dtype=np.bool_,
    )


def _pending(pending: Any, names: list[str], cells_each: float, naming: Naming) -> Vector:
    cells = np.zeros(len(names))
    if isinstance(pending, Mapping):
        naming.require_distinct(map(str, pending), "pending")
        for index, name in zip(_known(pending, names, "pending", naming), pending, strict=True):
            cells[index] = _amount(pending[name], f"pending[{name!r}]", positive=True)
    else:
        cells[_known(pending, names, "pending", naming)] = cells_each
    return cells


def _costs(
    costs: Mapping[str, Any] | None, names: Sequence[str], naming: Naming
) -> tuple[Vector, float, float]:
    told = dict(costs or {})
    unknown = sorted(set(told) - set(COSTS))
    if unknown:
        message = (
            f"costs holds {list_names(unknown)}: it takes {', '.join(COSTS)}."
            f"{closest(unknown, COSTS)}"
        )
        raise ValueError(message)
    if told and "budget" not in told:
        message = "costs needs a budget: give costs={'budget': ..., 'perturbation': ..., ...}."
        raise ValueError(message)
    each = told.get("perturbation", 0.0)
    if isinstance(each, Mapping):
        each = naming.renamed(each, names, "costs['perturbation']")
        missing = [name for name in names if name not in each]
        if missing:
            message = f"costs['perturbation'] lacks the candidates {list_names(missing)}."
            raise ValueError(message)
        cost = np.array([_amount(each[name], f"costs['perturbation'][{name!r}]") for name in names])
    else:
        cost = np.full(len(names), _amount(each, "costs['perturbation']"))
    cell = _amount(told.get("cell", 0.0), "costs['cell']")
    budget = _amount(told["budget"], "costs['budget']", positive=True) if told else np.inf
    return cost, cell, budget


def _amount(value: Any, what: str, *, positive: bool = False) -> float:
    sound = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not sound or value < 0 or (positive and value == 0):
        least = "above" if positive else "of at least"
        message = f"{what} must be a number {least} 0, but is {value!r}."
        raise ValueError(message)
    return float(value)
