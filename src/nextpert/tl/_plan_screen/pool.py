"""What a plate is chosen from: candidates, their combinations, and what a lab can make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import closest, in_order, list_names
from nextpert._adata.arguments import Bound, above, at_least, check_value
from nextpert.core.design.distances import expected_states
from nextpert.core.design.nearest_sums import nearest_sums
from nextpert.core.model.shift_posterior import pair_shifts
from nextpert.tl._design_interventions.candidates import (
    CandidateSet,
    Excluded,
    information_on_interactions,
    own_perturbation,
    read_candidates,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior, Naming
    from nextpert.tl._design_interventions.target import Wanted

    Vector = NDArray[np.float64]

LISTED = 200  # combinations of each size that join the candidates


def with_combinations(
    pool: CandidateSet, fit: FittedPosterior, wanted: Wanted, most_combined: int, excluded: Excluded
) -> CandidateSet:
    """Return the candidates with those combinations of them that are expected nearest.

    All pairs are looked at, of three and more those that a beam search reaches, by the expected
    effects of their members added up as far as the screen's combinations say they do. Those that
    are excluded by name are left out.

    Raises
    ------
    ValueError
        If no two candidates can be combined: labels have no separator, or shifts come as a table.
    """
    names = pool.interventions.names
    separator = str(fit.params["separator"])
    single = [i for i, name in enumerate(names) if len(fit.naming.members(name)) == 1]
    if not separator or len(single) < 2 or pool.interventions.sources[0] == "table":
        message = (
            "Combinations need a separator of labels, and at least two single candidates whose "
            "shifts are as fitted: leave out constraints['most_combined']."
        )
        raise ValueError(message)
    states = expected_states(pair_shifts(fit.posteriors, fit.known(pool.prior)))
    effects = (states[:-1] - states[-1])[single]
    point, scale = wanted.goal.quadratic(states[-1])
    told = None if fit.expectation is None else fit.expectation.interactions
    adds = 1.0 if told is None else told.strength
    root = np.sqrt(scale)
    known = {fit.naming.members(name) for name in names}
    found = list(names)
    for size in range(2, min(most_combined, len(single)) + 1):
        near = nearest_sums(adds * effects * root, (point - states[-1]) * root, size, LISTED)
        for members in near.members:
            label = separator.join(sorted(fit.naming.members(names[single[i]])[0] for i in members))
            if fit.naming.members(label) not in known and not excluded.holds(label, (), fit):
                found.append(label)
    return read_candidates(found, None, fit)


def teaches_interactions(pool: CandidateSet, fit: FittedPosterior, n_cells: int) -> str:
    """Return the combination that would teach most of interactions; empty where there is none."""
    if fit.params["shift_sd"] != "learned" or pool.interventions.sources[0] == "table":
        return ""
    told = information_on_interactions(pool.interventions.names, fit, n_cells)
    return max(told, key=lambda name: told[name]) if told else ""


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


@dataclass(frozen=True)
class Pool:
    """The candidates of a plate, and what is not among them.

    Parameters
    ----------
    candidates
        Those that may be on the plate, and those under way.
    excluded
        What ``never`` excludes.
    left_out
        Candidates that were asked for and are excluded by it.
    own
        The perturbation whose state is the target, unless it is a candidate.
    fit
        The fit.
    """

    candidates: CandidateSet
    excluded: Excluded
    left_out: frozenset[str]
    own: str | None
    fit: FittedPosterior

    @property
    def names(self) -> list[str]:
        """Names of the candidates."""
        return self.candidates.interventions.names

    def excluded_by(self, name: str) -> str:
        """Return what excludes a name: ``"never"``, ``"target"``, or ``""`` for nothing."""
        if name in self.left_out or self.excluded.holds(name, (), self.fit):
            return "never"
        return "target" if own_perturbation([name], self.own, self.fit) else ""


def read_pool(
    candidates: Any,
    fit: FittedPosterior,
    wanted: Wanted,
    *,
    never: Iterable[str] | None,
    pending: Iterable[str] | None,
    most_combined: int,
    target_is_candidate: bool,
) -> Pool:
    """Return the candidates of a plate.

    What is excluded leaves the pool here, before distances and probabilities are computed. What is
    under way stays: it cannot be chosen, but may turn out to be the nearest.

    Raises
    ------
    ValueError
        If no candidate is left, or ``never`` holds an unknown name or the controls.
    """
    every = read_candidates(candidates, None, fit, wanted, target_is_candidate=target_is_candidate)
    given = every.interventions
    own = None if target_is_candidate else wanted.label
    excluded = Excluded.read(named(never, (), "never", fit.naming), fit)
    # To exclude the target's own perturbation once more is no mistake.
    excluded.require_known([*given.names, *([] if own is None else [own])], given.targets, fit)
    under_way = set(named(pending, given.names, "pending", fit.naming))
    kept = [
        i
        for i, (name, targets) in enumerate(zip(given.names, given.targets, strict=True))
        if name in under_way or not excluded.holds(name, targets, fit)
    ]
    if not kept:
        message = "No candidate is left: all are in never. Give other candidates."
        raise ValueError(message)
    left_out = frozenset(given.names) - {given.names[i] for i in kept}
    pool = every.rows(kept) if left_out else every
    if most_combined > 1:
        pool = with_combinations(pool, fit, wanted, most_combined, excluded)
    return Pool(pool, excluded, left_out, own, fit)


def read_constraints(
    pool: Pool, *, must: Any, pending: Any, costs: Mapping[str, Any] | None, cells_each: float
) -> Constraints:
    """Return the constraints on candidates, whose names are taken with members in any order.

    Parameters
    ----------
    pool
        The candidates.
    must, pending, costs
        As in ``tl.plan_screen``.
    cells_each
        Cells under way of a candidate of which none are given.

    Raises
    ------
    ValueError
        If a name is not among the candidates (close matches are given), one must and must not be
        on the plate, nothing is left to choose from, the controls are named, or a cost is unknown,
        missing or negative.
    """
    names, naming = pool.names, pool.fit.naming
    given = dict.fromkeys(named(pending, names, "pending", naming), cells_each)
    if isinstance(pending, Mapping):
        naming.require_distinct(map(str, pending), "pending")
        amounts = {
            name: check_value(n, f"pending[{name!r}]", "float", _CELLS)
            for name, n in pending.items()
        }
        given = naming.renamed(amounts, names, "pending")
    # Cells of the target's own perturbation concern no candidate.
    counted = [name for name in given if pool.excluded_by(name) != "target"]
    cells = np.zeros(len(names))
    cells[_places(counted, pool, "pending")] = [given[name] for name in counted]
    wanted = _places(named(must, names, "must", naming), pool, "must")
    both = [names[i] for i in wanted if cells[i] > 0]
    if both:
        message = f"{list_names(both)}: both in must and in pending. Take it out of one of them."
        raise ValueError(message)
    if cells.all():
        message = "No candidate is left: all are in never or pending. Give other candidates."
        raise ValueError(message)
    return Constraints(cells == 0, wanted, cells, *_costs(costs, names, naming))


def _places(given: list[str], pool: Pool, what: str) -> list[int]:
    """Return the places of names among the candidates, or raise an error that says what is wrong.

    ``what`` is the argument that holds them.
    """
    place = {name: i for i, name in enumerate(pool.names)}
    unknown = [name for name in given if name not in place]
    why = {name: pool.excluded_by(name) for name in unknown}
    excluded = [name for name in unknown if why[name] == "never"]
    own = [name for name in unknown if why[name] == "target"]
    message = ""
    if excluded:
        message = (
            f"{list_names(excluded)}: both in {what} and in never. Take it out of one of them."
        )
    elif own:
        message = (
            f"{what} holds {list_names(own)}, which is no candidate, because the target is its own "
            f"state. Leave it out, or give target_is_candidate=True."
        )
    elif unknown:
        message = (
            f"{what} holds names that are not among the candidates: {list_names(unknown)}."
            f"{closest(unknown, pool.names)} Name them in candidates too."
        )
    if message:
        raise ValueError(message)
    return [place[name] for name in given]


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
        cost = [_cost(each[name], f"costs['perturbation'][{name!r}]") for name in names]
    else:
        cost = [_cost(each, "costs['perturbation']")] * len(names)
    cell = _cost(told.get("cell", 0.0), "costs['cell']")
    budget = _cost(told["budget"], "costs['budget']", above(0)) if told else np.inf
    return np.array(cost), cell, budget


def _cost(value: Any, what: str, bound: Bound = _NOT_NEGATIVE) -> float:
    return float(check_value(value, what, "float", bound))
