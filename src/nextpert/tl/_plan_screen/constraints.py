"""What a lab can and cannot put on a plate: names, costs and cells, as the core takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import closest, in_order, list_names
from nextpert._adata.arguments import Bound, above, at_least, check_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from nextpert._adata import Naming

    Vector = NDArray[np.float64]

_NOT_NEGATIVE = at_least(0)
_CELLS = Bound("that is a number of cells", lambda n: 0 < n <= 1e12)
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
    names: list[str],
    excluded_by: Callable[[str], str],
    *,
    must: Any,
    pending: Any,
    costs: Mapping[str, Any] | None,
    cells_each: float,
    naming: Naming,
) -> Constraints:
    """Return the constraints on candidates, whose names are taken with members in any order.

    ``excluded_by`` says what excludes a name that is no candidate: ``"never"``, ``"target"``, or
    ``""`` for nothing.

    Raises
    ------
    ValueError
        If a name is not among the candidates (close matches are given), one must and must not be
        on the plate, nothing is left to choose from, the controls are named, or a cost is unknown,
        missing or negative.
    """
    cells = _pending(pending, names, excluded_by, cells_each, naming)
    wanted = _known(must, names, excluded_by, "must", naming)
    both = [names[i] for i in wanted if cells[i] > 0]
    if both:
        message = f"{list_names(both)}: both in must and in pending. Take it out of one of them."
        raise ValueError(message)
    allowed = cells == 0
    if not allowed.any():
        message = "No candidate is left: all are in never or pending. Give other candidates."
        raise ValueError(message)
    cost, cell_cost, budget = _costs(costs, names, naming)
    return Constraints(allowed, wanted, cells, cost, cell_cost, budget)


def _known(
    given: Any, candidates: list[str], excluded_by: Callable[[str], str], what: str, naming: Naming
) -> list[int]:
    names = named(given, candidates, what, naming)
    place = {name: i for i, name in enumerate(candidates)}
    unknown = [name for name in names if name not in place]
    excluded = [name for name in unknown if excluded_by(name) == "never"]
    if excluded:
        message = (
            f"{list_names(excluded)}: both in {what} and in never. Take it out of one of them."
        )
        raise ValueError(message)
    own = [name for name in unknown if excluded_by(name) == "target"]
    if own:
        message = (
            f"{what} holds {list_names(own)}, which is no candidate, because the target is its own "
            f"state. Leave it out, or give target_is_candidate=True."
        )
        raise ValueError(message)
    if unknown:
        message = (
            f"{what} holds names that are not among the candidates: {list_names(unknown)}."
            f"{closest(unknown, candidates)} Name them in candidates too."
        )
        raise ValueError(message)
    return [place[name] for name in names]


def named(given: Any, known: Iterable[str], what: str, naming: Naming) -> list[str]:
    """Return the names given, each once, as the candidates are spelled.

    Raises
    ------
    ValueError
        If the controls are among them.
    """
    names = [] if given is None else [str(name) for name in in_order(given)]
    if naming.control in names:
        message = (
            f"{what} holds {naming.control!r}, the controls: these are no candidate, and on every "
            f"plate. Leave it out; n_controls says how many."
        )
        raise ValueError(message)
    return list(dict.fromkeys(naming.spelled(names, known)))


def _pending(
    pending: Any,
    names: list[str],
    excluded_by: Callable[[str], str],
    cells_each: float,
    naming: Naming,
) -> Vector:
    """Return the cells under way; those of the target's own perturbation concern no candidate."""
    cells = np.zeros(len(names))
    given = dict.fromkeys(named(pending, names, "pending", naming), cells_each)
    if isinstance(pending, Mapping):
        naming.require_distinct(map(str, pending), "pending")
        amounts = {
            name: check_value(n, f"pending[{name!r}]", "float", _CELLS)
            for name, n in pending.items()
        }
        given = naming.renamed(amounts, names, "pending")
    counted = [name for name in given if excluded_by(name) != "target"]
    for i, name in zip(
        _known(counted, names, excluded_by, "pending", naming), counted, strict=True
    ):
        cells[i] = given[name]
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
        cost = np.array(
            [_cost(each[name], f"costs['perturbation'][{name!r}]") for name in names], np.float64
        )
    else:
        cost = np.full(len(names), _cost(each, "costs['perturbation']"), np.float64)
    cell = _cost(told.get("cell", 0.0), "costs['cell']")
    budget = _cost(told["budget"], "costs['budget']", above(0)) if told else np.inf
    return cost, cell, budget


def _cost(value: Any, what: str, bound: Bound = _NOT_NEGATIVE) -> float:
    return float(check_value(value, what, "float", bound))
