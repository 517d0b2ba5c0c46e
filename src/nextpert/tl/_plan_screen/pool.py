"""What a plate is chosen from: candidates, their combinations, and constraints of the lab."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import closest, in_order, list_names
from nextpert._adata.arguments import Bound, above, at_least, check_value
from nextpert.core.design.nearest_sums import nearest_sums
from nextpert.core.fit.candidates import CandidateSet
from nextpert.tl._design_interventions.candidates import Excluded, read_candidates
from nextpert.tl._design_interventions.own_genes import without_own_genes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.fit.naming import Naming
    from nextpert.tl._design_interventions.target import Wanted

    Vector = NDArray[np.float64]

LISTED = 200  # combinations of each size that join the candidates


def with_combinations(
    pool: CandidateSet,
    fit: FittedPosterior,
    wanted: Wanted,
    max_combination: int,
    excluded: Excluded,
) -> CandidateSet:
    """Return the candidates with those combinations of them that are expected nearest.

    All pairs are considered; of larger combinations, those that a beam search reaches. Their
    expected effect is the sum of their members' effects, times the factor learned from the screen's
    combinations. Combinations that are excluded by name are left out.

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
            "Combinations need a separator of labels, and at least two single candidates with "
            "fitted shifts: leave out constraints['max_combination']."
        )
        raise ValueError(message)
    states = pool.states(fit).mean
    effects = (states[:-1] - states[-1])[single]
    point, scale = wanted.goal.quadratic(states[-1])
    told = None if fit.expectation is None else fit.expectation.interactions
    adds = 1.0 if told is None else told.strength
    root, change, moved = np.sqrt(scale), point - states[-1], adds * effects
    if wanted.target_genes is not None:  # as if own genes were as wanted
        gene = {name: i for i, name in enumerate(fit.genes)}
        root[[gene[name] for name in wanted.target_genes]] = 0.0
        for row, i in enumerate(single):
            own = [gene[name] for name in pool.interventions.targets[i]]
            moved[row, own] = change[own]
    known = {fit.naming.members(name) for name in names}
    found = list(names)
    for size in range(2, min(max_combination, len(single)) + 1):
        near = nearest_sums(moved * root, change * root, size, LISTED)
        for members in near.members:
            label = separator.join(sorted(fit.naming.members(names[single[i]])[0] for i in members))
            if fit.naming.members(label) not in known and not excluded.holds(label, (), fit):
                found.append(label)
    return read_candidates(found, None, fit)


_CELLS = Bound("that is a number of cells", lambda n: 0 < n <= 1e12)
_COST, _BUDGET = at_least(0), above(0)
COSTS = ("budget", "perturbation", "cell")


@dataclass(frozen=True)
class Constraints:
    """Constraints by position among the candidates.

    Parameters
    ----------
    allowed
        Which candidates may be chosen, shape ``(n_candidates,)``: those to include are among them,
        those in progress are not.
    include
        Candidates that have to be on the plate.
    under_way, pending
        Candidates in progress, and the cells of each.
    cost
        Cost of a well, without its cells, or of a well of every candidate.
    cell_cost
        Cost of a cell.
    budget
        Maximum cost; infinite if none was given.
    max_new
        Maximum number of perturbations without cells; ``None`` for any.
    """

    allowed: NDArray[np.bool_]
    include: Sequence[int] = ()
    under_way: Sequence[int] = ()
    pending: Sequence[float] = ()
    cost: float | Vector = 0.0
    cell_cost: float = 0.0
    budget: float = np.inf
    max_new: int | None = None


@dataclass(frozen=True)
class Pool:
    """The candidates of a plate, and what is not among them.

    Parameters
    ----------
    candidates
        Those that may be on the plate, and those in progress.
    excluded
        What ``exclude`` excludes.
    left_out
        Candidates that were asked for and are excluded by it.
    own
        The perturbation whose state is the target, unless it is a candidate.
    fit
        The fit.
    wanted
        The target, with what counts for each candidate.
    """

    candidates: CandidateSet
    excluded: Excluded
    left_out: frozenset[str]
    own: str | None
    fit: FittedPosterior
    wanted: Wanted

    def excluded_by(self, name: str) -> str:
        """Return what excludes it: ``"exclude"``, ``"target"``, ``"genes"``, ``""`` for nothing."""
        if name in self.wanted.not_ranked:
            return "genes"
        if name in self.left_out or self.excluded.holds(name, (), self.fit):
            return "exclude"
        key = self.fit.naming.key
        return "target" if self.own is not None and key(name) == key(self.own) else ""


def read_pool(
    candidates: Any,
    fit: FittedPosterior,
    wanted: Wanted,
    *,
    exclude: Iterable[str] | None,
    pending: Iterable[str] | None,
    max_combination: int,
    target_is_candidate: bool,
) -> Pool:
    """Return the candidates of a plate.

    Excluded candidates leave the pool here, before distances and probabilities are computed. Those
    in progress stay: they cannot be chosen, but may turn out to be the nearest.

    Raises
    ------
    ValueError
        If no candidate is left, or ``exclude`` holds an unknown name or the controls.
    """
    every = read_candidates(candidates, None, fit, wanted, target_is_candidate=target_is_candidate)
    given = every.interventions
    own = None if target_is_candidate else wanted.label
    # Excluding the perturbation that defines the target is redundant, but no error.
    candidates_and_own = [*given.names, *([] if own is None else [own])]
    excluded = Excluded.read(
        named(exclude, (), "exclude", fit.naming), fit, candidates_and_own, given.targets
    )
    under_way = set(named(pending, given.names, "pending", fit.naming))
    kept = [
        i
        for i, (name, targets) in enumerate(zip(given.names, given.targets, strict=True))
        if name in under_way or not excluded.holds(name, targets, fit)
    ]
    if not kept:
        message = "No candidate is left: all are in exclude. Give other candidates."
        raise ValueError(message)
    left_out = frozenset(given.names) - {given.names[i] for i in kept}
    pool = every.rows(kept) if left_out else every
    if max_combination > 1:
        pool = with_combinations(pool, fit, wanted, max_combination, excluded)
    pool, wanted = without_own_genes(pool, wanted, fit)
    return Pool(pool, excluded, left_out, own, fit, wanted)


def read_constraints(
    pool: Pool,
    *,
    include: Any,
    pending: Any,
    costs: Mapping[str, Any] | None,
    max_new: int | None,
    cells_each: float,
) -> Constraints:
    """Return the constraints on candidates, whose names are taken with members in any order.

    Parameters
    ----------
    pool
        The candidates.
    include, pending, costs, max_new
        As in ``tl.plan_screen``.
    cells_each
        Cells in progress of a candidate for which no number is given.

    Raises
    ------
    ValueError
        If a name is not among the candidates (close matches are suggested), one is both included
        and excluded, no candidate is left, the controls are named, or a cost is unknown,
        missing or negative.
    """
    names, naming = pool.candidates.interventions.names, pool.fit.naming
    given = dict.fromkeys(named(pending, names, "pending", naming), cells_each)
    if isinstance(pending, Mapping):
        amounts = {
            name: check_value(n, f"pending[{name!r}]", "int", _CELLS) for name, n in pending.items()
        }
        given = naming.renamed(amounts, names, "pending")
    # Cells of the perturbation that defines the target, or of one not ranked, concern no candidate.
    counted = [name for name in given if pool.excluded_by(name) not in ("target", "genes")]
    included = named(include, names, "include", naming)
    place = {name: i for i, name in enumerate(names)}
    for what, asked in (("pending", counted), ("include", included)):
        reasons = {name: pool.excluded_by(name) for name in asked if name not in place}
        for reason, message in _NO_CANDIDATE.items():
            some = [name for name in reasons if reasons[name] == reason]
            if some:
                close = closest(some, names)
                raise ValueError(message.format(names=list_names(some), what=what, close=close))
    cells = {place[name]: given[name] for name in counted}
    if both := [name for name in included if place[name] in cells]:
        message = (
            f"{list_names(both)} is both in include and in pending: take it out of one of them."
        )
        raise ValueError(message)
    if len(cells) == len(names):
        message = "No candidate is left: all are in exclude or pending. Give other candidates."
        raise ValueError(message)
    # The cost of a well, or of a well of every candidate, that of a cell, and the budget.
    given_costs = dict(costs or {})
    unknown = sorted(set(given_costs) - set(COSTS))
    if unknown:
        message = (
            f"costs has unknown keys: {list_names(unknown)}. Use some of {', '.join(COSTS)}."
            f"{closest(unknown, COSTS)}"
        )
        raise ValueError(message)
    if given_costs and "budget" not in given_costs:
        message = "costs needs a budget: give costs={'budget': ..., 'perturbation': ..., ...}."
        raise ValueError(message)
    each = given_costs.get("perturbation", 0.0)
    if isinstance(each, Mapping):
        each = naming.renamed(each, names, "costs['perturbation']")
        missing = [name for name in names if name not in each]
        if missing:
            message = (
                f"costs['perturbation'] has no cost of {list_names(missing)}: give one for each "
                f"candidate."
            )
            raise ValueError(message)
        numbers = {f"['perturbation'][{name!r}]": each[name] for name in names}
    else:
        numbers = {"['perturbation']": each}
    budget = given_costs.get("budget", np.inf)
    if given_costs:
        check_value(budget, "costs['budget']", "float", _BUDGET)
    numbers["['cell']"] = given_costs.get("cell", 0.0)
    *cost, cell = (
        float(check_value(value, f"costs{name}", "float", _COST)) for name, value in numbers.items()
    )
    under_way = sorted(cells)
    return Constraints(
        ~np.isin(np.arange(len(names)), under_way), [place[name] for name in included], under_way,
        [cells[i] for i in under_way], cost[0] if len(numbers) == 2 else np.array(cost), cell,
        float(budget), max_new,
    )  # fmt: skip


# Why a name is no candidate, and what to do about it.
_NO_CANDIDATE = {
    "exclude": "{names} is both in {what} and in exclude: take it out of one of them.",
    "target": "{what} names {names}, which is no candidate, because it defines the target state. "
    "Leave it out, or give target_is_candidate=True.",
    "genes": "{what} names {names}, which cannot be ranked by the genes that they do not target. "
    "Leave it out, or give nextpert.Target(own_genes='include').",
    "": "{what} has names that are not among the candidates: {names}.{close} Name them in "
    "candidates too.",
}


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
            f"{what} names {naming.control!r}, the controls, which are on every plate and no "
            f"candidate. Leave it out; n_controls sets their number."
        )
        raise ValueError(message)
    return list(dict.fromkeys(naming.spelled(names, known)))
