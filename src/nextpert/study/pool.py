"""The pool of candidates, pairs of candidates, and constraints of the lab."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import (
    closest,
    in_order,
    list_names,
)
from nextpert._adata.arguments import Bound, above, at_least, check_value
from nextpert._warn import warn
from nextpert.core.design.plate import nearest_pairs
from nextpert.core.fit.candidates import CandidateSet, as_fitted, fitted_candidates
from nextpert.study.environments import unknown_genes
from nextpert.study.panel_target import without_own_genes
from nextpert.study.shifts import read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.fit.naming import Naming
    from nextpert.study.panel_target import PanelTarget


COSTS = ("budget", "perturbation", "cell")  # keys of constraints["costs"]
LISTED = 200  # pairs that join the candidates
_CELLS = Bound("that is a number of cells", lambda n: 0 < n <= 1e12)


@dataclass(frozen=True)
class Constraints:
    """Constraints by position among the candidates.

    ``allowed``, ``(n_candidates,)``, are candidates that can be chosen, ``include`` those that have
    to be chosen, and ``under_way`` those in progress, with ``pending`` cells each, which cannot.
    With costs, ``price`` is that of every candidate without its cells, ``(n_candidates,)``.
    """

    allowed: NDArray[np.bool_]
    include: Sequence[int] = ()
    under_way: Sequence[int] = ()
    pending: Sequence[float] = ()
    price: NDArray[np.float64] | None = None
    cell_price: float = 0.0
    budget: float = np.inf

    def rows(self, some: NDArray[np.int64]) -> Constraints:
        """Return the constraints by position among some candidates.

        They have to contain all candidates that are included or in progress.
        """
        place = {int(i): k for k, i in enumerate(some)}
        include, under_way = ([place[i] for i in part] for part in (self.include, self.under_way))
        price = None if self.price is None else self.price[some]
        return replace(
            self, allowed=self.allowed[some], include=include, under_way=under_way, price=price
        )


def priced(
    limits: Constraints, costs: Mapping[str, Any], names: Sequence[str], naming: Naming, least: int
) -> Constraints:
    """Return the constraints with the prices and the budget of ``constraints["costs"]``.

    Candidates that the budget does not pay alone, with ``least`` cells and as many controls, are
    not allowed.

    Raises
    ------
    ValueError
        If a key is unknown, the budget or the price of a candidate is missing, a number is below 0,
        or the budget pays for no candidate.
    """
    if unknown := sorted(set(costs) - set(COSTS)):
        message = f"costs has unknown keys: {list_names(unknown)}. Use {', '.join(COSTS)}."
        raise ValueError(message)
    if "budget" not in costs:
        message = "costs needs a budget: give costs={'budget': ..., 'perturbation': ..., ...}."
        raise ValueError(message)
    budget = float(check_value(costs["budget"], "costs['budget']", "float", above(0)))
    cell = float(check_value(costs.get("cell", 0.0), "costs['cell']", "float", at_least(0)))
    each = costs.get("perturbation", 0.0)
    if isinstance(each, Mapping):
        each = naming.renamed(each, names, "costs['perturbation']")
        can_be_planned = [names[i] for i in (*np.flatnonzero(limits.allowed), *limits.include)]
        if missing := [name for name in can_be_planned if name not in each]:
            message = f"costs['perturbation'] has no cost of {list_names(missing)}: give one for "
            message += "each candidate."
            raise ValueError(message)
    by_name = each if isinstance(each, Mapping) else dict.fromkeys(names, each)
    given = [by_name.get(name, 0.0) for name in names]  # 0: measured, and not to be planned
    where = "costs['perturbation']"
    price = np.array([float(check_value(one, where, "float", at_least(0))) for one in given])
    allowed = limits.allowed & (price + 2 * least * cell <= budget)
    if not allowed.any() and not limits.include:
        message = f"The budget of {budget:g} pays for no perturbation with {least} cells and as "
        message += "many controls: raise costs['budget'], or lower min_cells."
        raise ValueError(message)
    return replace(limits, allowed=allowed, price=price, cell_price=cell, budget=budget)


def read_pool(
    candidates: Any,
    fit: FittedPosterior,
    target: PanelTarget,
    *,
    include: Any = None,
    exclude: Any = None,
    pending: Any = None,
    pairs: bool = False,
    cells_each: float,
) -> tuple[CandidateSet, PanelTarget, Constraints]:
    """Return the candidates of a plate, the target for each, and the constraints on them.

    Excluded candidates leave the pool here, before distances and probabilities are computed. Those
    in progress stay, because they may be the nearest. ``cells_each`` is their number of cells if
    none is given.

    Raises
    ------
    ValueError
        If no candidate is left, a name is not among the candidates (close matches are suggested),
        or a name is in two constraints.
    """
    own = target.label
    pool = read_candidates(candidates, fit, target)
    given = pool.interventions
    unwanted = sorted(_named(exclude, (), "exclude", fit.naming))
    # Excluding the perturbation that defines the target is redundant, but not an error.
    known = {*given.names, *([] if own is None else [own])}
    members = {member for name in known for member in fit.naming.members(name)}
    known |= {*members, *(gene for some in given.targets for gene in some)}
    lost = [
        name for name in unwanted
        if name not in known and not members.issuperset(fit.naming.members(name) or (name,))
    ]  # fmt: skip
    if lost:
        message = (
            f"exclude contains names that match no candidate and no target gene of a candidate: "
            f"{list_names(lost)}.{closest(lost, sorted(known))}"
        )
        raise ValueError(message)
    is_excluded = excluder(unwanted, fit)
    if isinstance(pending, Mapping):
        amounts = {
            name: check_value(n, f"pending[{name!r}]", "int", _CELLS) for name, n in pending.items()
        }
    else:
        amounts = dict.fromkeys(_named(pending, (), "pending", fit.naming), cells_each)
    under_way = {*_named(amounts, given.names, "pending", fit.naming)}
    kept = [
        i
        for i, (name, targets) in enumerate(zip(given.names, given.targets, strict=True))
        if name in under_way or not is_excluded(name, targets)
    ]
    if not kept:
        message = "No candidate is left: all are in exclude. Give other candidates."
        raise ValueError(message)
    pool = pool.rows(kept) if len(kept) < len(given.names) else pool
    if pairs:
        pool = with_pairs(pool, fit, target, is_excluded)
    can_be_planned = {*pool.interventions.names}
    pool = with_measured(pool, fit, target, is_excluded)
    pool, target = without_own_genes(pool, target, fit, can_be_planned)
    place = {name: i for i, name in enumerate(pool.interventions.names)}
    included = _named(include, place, "include", fit.naming)
    in_progress = fit.naming.renamed(amounts, place, "pending")
    # Names in pending that define or contain the target, or are not ranked, are ignored.
    contains = excluder([] if own is None else [own], fit)
    counted = [
        name for name in in_progress
        if name in place or not (name in target.not_ranked or contains(name))
    ]  # fmt: skip
    for what, names in (("pending", counted), ("include", included)):
        unknown = [name for name in names if name not in place]
        if not_ranked := [x for x in unknown if x in target.not_ranked]:
            message = (
                f"{what} names {list_names(not_ranked)}, which cannot be ranked, because their "
                f"target genes make up more than half of the control's distance. Leave them out, "
                f"or give nextpert.Target(own_genes='include')."
            )
            raise ValueError(message)
        if unknown:
            message = (
                f"{what} has names that are not among the candidates: {list_names(unknown)}."
                f"{closest(unknown, place)} Add them to candidates, and remove them from exclude."
            )
            raise ValueError(message)
    if both := [name for name in included if name in counted]:
        message = f"include and pending both name {list_names(both)}: remove this from one of them."
        raise ValueError(message)
    if can_be_planned <= {*counted}:
        message = "No candidate is left: all are in exclude or pending. Give other candidates."
        raise ValueError(message)
    cells = dict(sorted((place[name], in_progress[name]) for name in counted))
    allowed = np.array([name in can_be_planned for name in place])
    allowed &= ~np.isin(np.arange(len(place)), list(cells))
    limits = Constraints(allowed, [place[name] for name in included], [*cells], [*cells.values()])
    return pool, target, limits


def with_pairs(
    pool: CandidateSet,
    fit: FittedPosterior,
    target: PanelTarget,
    is_excluded: Callable[..., bool],
) -> CandidateSet:
    """Return the candidates and the pairs of them that are expected nearest to the target.

    The expected effect of a pair is the sum of its members' effects, times the factor learned from
    the combinations of the screen. Pairs that are excluded by name are left out.

    Raises
    ------
    ValueError
        If no two candidates can be combined: labels have no separator, there are fewer than two
        single candidates, or shifts are given as a table.
    """
    names, members = pool.interventions.names, fit.naming.members
    separator = str(fit.params["separator"])
    single = [i for i, name in enumerate(names) if len(members(name)) == 1]
    if not separator or len(single) < 2 or pool.interventions.sources[0] == "table":
        message = (
            "Combinations need a separator in labels, and at least two single candidates with "
            "fitted shifts: leave out constraints['max_combination']."
        )
        raise ValueError(message)
    states = pool.states(fit).mean
    point, scale = target.goal.quadratic(states[-1])
    learned = None if fit.expectation is None else fit.expectation.interactions
    strength = 1.0 if learned is None else learned.strength
    root, change = np.sqrt(scale), point - states[-1]
    effects = strength * (states[:-1] - states[-1])[single]
    if target.target_genes is not None:  # target genes do not count
        gene = {name: i for i, name in enumerate(fit.genes)}
        root[[gene[name] for name in target.target_genes]] = 0.0
        for row, i in enumerate(single):
            own = [gene[name] for name in pool.interventions.targets[i]]
            effects[row, own] = change[own]
    known, pairs = {members(name) for name in names}, []
    for pair in nearest_pairs(effects * root, change * root, LISTED):
        label = separator.join(sorted(members(names[single[i]])[0] for i in pair))
        if members(label) not in known and not is_excluded(label):
            pairs.append(label)
    return read_candidates([*names, *pairs], fit)


def _named(given: Any, known: Iterable[str], what: str, naming: Naming) -> list[str]:
    """Return the given names, each once, as the candidates spell them; raise for the controls."""
    names = [] if given is None else [str(name) for name in in_order(given)]
    if naming.control in names:
        message = (
            f"{what} names {naming.control!r}, the label of the controls, which are on every plate "
            f"and are not candidates: leave it out."
        )
        raise ValueError(message)
    return list(dict.fromkeys(naming.spelled(names, known)))


def usual(counts: NDArray[np.int64]) -> int:
    """Return the median over perturbations, 1 if there are none."""
    return max(round(float(np.median(counts))), 1) if len(counts) else 1


def excluder(names: Iterable[str], fit: FittedPosterior) -> Callable[..., bool]:
    """Return a function that says whether a candidate is excluded.

    It takes the name of a candidate and the genes that it targets. A candidate is excluded by its
    own name, by that of a member or combination that it contains, or by a gene.
    """
    given = {str(name) for name in names}
    members = [set(some) for name in given if (some := fit.naming.members(name))]

    def is_excluded(name: str, targets: Iterable[str] = ()) -> bool:
        combined = set(fit.naming.members(name))
        return (
            name in given
            or not given.isdisjoint(targets)
            or any(some <= combined for some in members)
        )

    return is_excluded


def read_candidates(
    candidates: Any, fit: FittedPosterior, target: PanelTarget | None = None
) -> CandidateSet:
    """Return the candidates; those given as a table have its shifts.

    The perturbation that defines the target, and combinations that contain it, are left out unless
    ``candidates`` names them, because they would be ranked first.

    Raises
    ------
    ValueError
        If there are no candidates, or a name is unknown (close matches are suggested).
    """
    table, names = None, fit.names
    if isinstance(candidates, (pd.DataFrame, Mapping)):
        table = read_table(candidates, fit.genes, fit.spelled, fit.naming.control)
        names = table.names
    elif isinstance(candidates, str):
        names = list(dict.fromkeys(fit.spelled([*fit.names, *fit.genes])))
    elif candidates is not None:
        asked = [str(name) for name in in_order(candidates)]
        control = str(fit.params["control"])
        if control in asked:
            message = (
                f"candidates names {control!r}, the label of the controls, with which all "
                f"candidates are compared: leave it out."
            )
            raise ValueError(message)
        if twice := [name for name in asked if fit.naming.repeats(name) and name not in fit.names]:
            message = (
                f"These candidates contain a member more than once: {list_names(twice)}. Name each "
                f"member once."
            )
            raise ValueError(message)
        names = list(dict.fromkeys(fit.spelled(asked)))
    if not names:
        message = (
            'There are no candidates: give labels such as ["MYC", "MYC+STK3"], "genes" for every '
            "gene of the panel, or a table of shifts with a row per candidate."
        )
        raise ValueError(message)
    if target is not None and target.label is not None and isinstance(candidates, str | None):
        contains = excluder([target.label], fit)
        every, names = names, [name for name in names if not contains(name)]
        if not names:
            message = (
                f"No candidate is left: {list_names(every)} defines the target state, or contains "
                f"the perturbation that does. Name it in candidates to keep it, or give others."
            )
            raise ValueError(message)
    if table is not None:
        return CandidateSet.exact(table)
    targets, guessed = _targets(names, fit)
    if guessed:
        warn(
            f"Nothing is known about {list_names(guessed)}: they have no cells, no features and no "
            f"target on the panel. The mean perturbation is predicted for each of them."
        )
    return fitted_candidates(as_fitted(names, targets, fit), fit)


def with_measured(
    pool: CandidateSet,
    fit: FittedPosterior,
    target: PanelTarget,
    is_excluded: Callable[..., bool] | None = None,
) -> CandidateSet:
    """Return the candidates, and after them the measured perturbations that are not among them.

    An advice is about all candidates that can still be the best, whichever of them are asked for.
    Perturbations that are excluded, or that contain the one that defines the target, are left out.
    Candidates with exact shifts stay as they are.
    """
    if pool.is_exact:
        return pool
    names = pool.interventions.names
    known = {fit.naming.key(name) for name in names}
    contains = excluder([] if target.label is None else [target.label], fit)
    more = [
        name for name, targets, is_seen in zip(fit.names, fit.targets, fit.is_measured, strict=True)
        if is_seen and fit.naming.key(name) not in known and not contains(name)
        and not (is_excluded and is_excluded(name, targets))
    ]  # fmt: skip
    return read_candidates([*names, *more], fit) if more else pool


def read_all(
    candidates: Any, fit: FittedPosterior, target: PanelTarget
) -> tuple[CandidateSet, CandidateSet, PanelTarget, NDArray[np.bool_]]:
    """Return the candidates that are asked for; these and all measured ones; and the target.

    The target is that for all of the latter, and the last value says which of them are asked for.
    """
    pool = read_candidates(candidates, fit, target)
    asked = {*pool.interventions.names}
    whole, bound = without_own_genes(with_measured(pool, fit, target), target, fit, asked)
    is_asked = np.array([name in asked for name in whole.interventions.names])
    return whole.rows(np.flatnonzero(is_asked)), whole, bound, is_asked


def can_be_candidate(name: str, fit: FittedPosterior) -> bool:
    """Whether a label can be a candidate, by its cells, its genes or its members."""
    try:
        _targets(fit.spelled([name]), fit)
    except ValueError:
        return False
    return True


def _targets(names: Sequence[str], fit: FittedPosterior) -> tuple[list[list[str]], list[str]]:
    """Return the genes of the panel that each label targets, and the unknown labels.

    A label is unknown if it has no cells, no features, no target on the panel and no members that
    the fit knows. If most perturbations target no gene of the panel, unknown labels are accepted;
    otherwise they raise an error, because they are probably misspelled.

    Raises
    ------
    ValueError
        If an unknown label is not accepted.
    """
    own = dict(zip(fit.names, fit.targets, strict=True))
    seen, genes = {member for some in fit.members for member in some}, set(fit.genes)
    naming, every, guessed = fit.naming, [], []
    for name in names:
        if name in own:
            every.append(own[name])
            continue
        inside, outside = naming.targets(name)
        members = naming.members(name)
        rest = {each for each in set(members) - genes - seen if not fit.is_described(each)}
        known = (
            fit.is_described(name) or (len(members) > 1 and not rest) or members in fit.in_company
        )
        if not known and (outside or not inside):
            if not fit.takes_any_label:
                raise ValueError(unknown_genes(name, outside or [name], fit.genes))
            guessed.append(name)
        every.append(inside)
    return every, guessed
