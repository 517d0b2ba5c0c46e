"""The pool of candidates, pairs of candidates, and constraints of the lab."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
class Pool:
    """What may be done next: the candidates, the target for each, and the constraints on them.

    ``candidates`` are the interventions with their rows in the fit and their prior, and ``target``
    has the genes that count for each. All other fields are by position among the candidates:
    ``allowed``, ``(n_candidates,)``, can be chosen, those in ``include`` have to be chosen, and
    those in ``pending`` (position -> cells in progress) cannot. With costs, ``price`` is that of
    every candidate without its cells, ``(n_candidates,)``.
    """

    candidates: CandidateSet
    target: PanelTarget
    allowed: NDArray[np.bool_]
    include: Sequence[int] = ()
    pending: Mapping[int, float] = field(default_factory=dict)
    price: NDArray[np.float64] | None = None
    cell_price: float = 0.0
    budget: float = np.inf

    @property
    def is_needed(self) -> NDArray[np.bool_]:
        """Which candidates are included or in progress, shape ``(n_candidates,)``."""
        return np.isin(np.arange(len(self.allowed)), [*self.include, *self.pending])

    def rows(self, index: NDArray[np.int64]) -> Pool:
        """Return some of the candidates, which have to contain all that are needed."""
        position_of = {int(i): k for k, i in enumerate(index)}
        return replace(
            self,
            candidates=self.candidates.rows(index),
            target=self.target.rows(index),
            allowed=self.allowed[index],
            include=[position_of[i] for i in self.include],
            pending={position_of[i]: n_cells for i, n_cells in self.pending.items()},
            price=None if self.price is None else self.price[index],
        )


def priced(pool: Pool, costs: Mapping[str, Any], naming: Naming, min_cells: int) -> Pool:
    """Return the pool with the prices and the budget of ``constraints["costs"]``.

    Candidates that the budget does not pay alone, with ``min_cells`` cells and as many controls,
    are not allowed.

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
    names, by_perturbation = pool.candidates.names, costs.get("perturbation", 0.0)
    if isinstance(by_perturbation, Mapping):
        by_perturbation = naming.renamed(by_perturbation, names, "costs['perturbation']")
        can_be_planned = [names[i] for i in (*np.flatnonzero(pool.allowed), *pool.include)]
        if missing := [name for name in can_be_planned if name not in by_perturbation]:
            message = f"costs['perturbation'] has no cost of {list_names(missing)}: give one for "
            message += "each candidate."
            raise ValueError(message)
    by_name = (
        by_perturbation
        if isinstance(by_perturbation, Mapping)
        else dict.fromkeys(names, by_perturbation)
    )
    prices = [by_name.get(name, 0.0) for name in names]  # 0: measured, and not to be planned
    where = "costs['perturbation']"
    price = np.array([float(check_value(one, where, "float", at_least(0))) for one in prices])
    allowed = pool.allowed & (price + 2 * min_cells * cell <= budget)
    if not allowed.any() and not pool.include:
        message = (
            f"The budget of {budget:g} pays for no perturbation with {min_cells} cells and as "
        )
        message += "many controls: raise costs['budget'], or lower min_cells."
        raise ValueError(message)
    return replace(pool, allowed=allowed, price=price, cell_price=cell, budget=budget)


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
) -> Pool:
    """Return the candidates of a plan, the target for each, and the constraints on them.

    Excluded candidates leave the pool here, before distances and probabilities are computed. Those
    in progress stay, because they may be the nearest. ``cells_each`` is their number of cells if
    none is given.

    Raises
    ------
    ValueError
        If no candidate is left, a name is not among the candidates (close matches are suggested),
        or a name is in two constraints.
    """
    target_label = target.label
    pool = read_candidates(candidates, fit, target)
    interventions = pool.interventions
    unwanted = sorted(_named(exclude, (), "exclude", fit.naming))
    # Excluding the perturbation that defines the target is redundant, but not an error.
    mentionable = {*interventions.names, *([] if target_label is None else [target_label])}
    members = {member for name in mentionable for member in fit.naming.members(name)}
    mentionable |= {*members, *(gene for genes in interventions.targets for gene in genes)}
    lost = [
        name
        for name in unwanted
        if name not in mentionable and not members.issuperset(fit.naming.members(name) or (name,))
    ]
    if lost:
        message = (
            f"exclude contains names that match no candidate and no target gene of a candidate: "
            f"{list_names(lost)}.{closest(lost, sorted(mentionable))}"
        )
        raise ValueError(message)
    is_excluded = excluder(unwanted, fit)
    if isinstance(pending, Mapping):
        amounts = {
            name: check_value(n, f"pending[{name!r}]", "int", _CELLS) for name, n in pending.items()
        }
    else:
        amounts = dict.fromkeys(_named(pending, (), "pending", fit.naming), cells_each)
    pending_names = {*_named(amounts, interventions.names, "pending", fit.naming)}
    not_excluded = [
        i
        for i, (name, targets) in enumerate(
            zip(interventions.names, interventions.targets, strict=True)
        )
        if name in pending_names or not is_excluded(name, targets)
    ]
    if not not_excluded:
        message = "No candidate is left: all are in exclude. Give other candidates."
        raise ValueError(message)
    pool = pool.rows(not_excluded) if len(not_excluded) < len(interventions.names) else pool
    if pairs:
        pool = with_pairs(pool, fit, target, is_excluded)
    can_be_planned = {*pool.names}
    pool = with_measured(pool, fit, target, is_excluded)
    pool, target = without_own_genes(pool, target, fit, can_be_planned)
    position_of = {name: i for i, name in enumerate(pool.names)}
    included = _named(include, position_of, "include", fit.naming)
    in_progress = fit.naming.renamed(amounts, position_of, "pending")
    # Names in pending that define or contain the target, or are not ranked, are ignored.
    contains = excluder([] if target_label is None else [target_label], fit)
    counted = [
        name
        for name in in_progress
        if name in position_of or not (name in target.not_ranked or contains(name))
    ]
    for argument, names in (("pending", counted), ("include", included)):
        unknown = [name for name in names if name not in position_of]
        if not_ranked := [x for x in unknown if x in target.not_ranked]:
            message = (
                f"{argument} names {list_names(not_ranked)}, which cannot be ranked, because their "
                f"target genes make up more than half of the control's distance. Leave them out, "
                f"or give nextpert.Target(own_genes='include')."
            )
            raise ValueError(message)
        if unknown:
            message = (
                f"{argument} has names that are not among the candidates: {list_names(unknown)}."
                f"{closest(unknown, position_of)} Add them to candidates, and remove them from "
                f"exclude."
            )
            raise ValueError(message)
    if conflicting := [name for name in included if name in counted]:
        message = f"include and pending both name {list_names(conflicting)}: remove this from "
        message += "one of them."
        raise ValueError(message)
    if can_be_planned <= {*counted}:
        message = "No candidate is left: all are in exclude or pending. Give other candidates."
        raise ValueError(message)
    cells = dict(sorted((position_of[name], in_progress[name]) for name in counted))
    allowed = np.array([name in can_be_planned for name in position_of])
    allowed &= ~np.isin(np.arange(len(position_of)), list(cells))
    return Pool(pool, target, allowed, [position_of[name] for name in included], cells)


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
    names, members = pool.names, fit.naming.members
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
            columns = [gene[name] for name in pool.interventions.targets[i]]
            effects[row, columns] = change[columns]
    present, pairs = {members(name) for name in names}, []
    for pair in nearest_pairs(effects * root, change * root, LISTED):
        label = separator.join(sorted(members(names[single[i]])[0] for i in pair))
        if members(label) not in present and not is_excluded(label):
            pairs.append(label)
    return read_candidates([*names, *pairs], fit)


def _named(requested: Any, spellings: Iterable[str], argument: str, naming: Naming) -> list[str]:
    """Return the given names, each once, as the candidates spell them; raise for the controls."""
    names = [] if requested is None else [str(name) for name in in_order(requested)]
    if naming.control in names:
        message = (
            f"{argument} names {naming.control!r}, the label of the controls, which are in every "
            f"round and are not candidates: leave it out."
        )
        raise ValueError(message)
    return list(dict.fromkeys(naming.spelled(names, spellings)))


def usual(counts: NDArray[np.int64]) -> int:
    """Return the median over perturbations, 1 if there are none."""
    return max(round(float(np.median(counts))), 1) if len(counts) else 1


def excluder(names: Iterable[str], fit: FittedPosterior) -> Callable[..., bool]:
    """Return a function that says whether a candidate is excluded.

    It takes the name of a candidate and the genes that it targets. A candidate is excluded by its
    own name, by that of a member or combination that it contains, or by a gene.
    """
    excluded = {str(name) for name in names}
    members = [set(parts) for name in excluded if (parts := fit.naming.members(name))]

    def is_excluded(name: str, targets: Iterable[str] = ()) -> bool:
        combined = set(fit.naming.members(name))
        return (
            name in excluded
            or not excluded.isdisjoint(targets)
            or any(parts <= combined for parts in members)
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
        requested = [str(name) for name in in_order(candidates)]
        control = str(fit.params["control"])
        if control in requested:
            message = (
                f"candidates names {control!r}, the label of the controls, with which all "
                f"candidates are compared: leave it out."
            )
            raise ValueError(message)
        if twice := [
            name for name in requested if fit.naming.repeats(name) and name not in fit.names
        ]:
            message = (
                f"These candidates contain a member more than once: {list_names(twice)}. Name each "
                f"member once."
            )
            raise ValueError(message)
        names = list(dict.fromkeys(fit.spelled(requested)))
    if not names:
        message = (
            'There are no candidates: give labels such as ["MYC", "MYC+STK3"], "genes" for every '
            "gene of the panel, or a table of shifts with a row per candidate."
        )
        raise ValueError(message)
    if target is not None and target.label is not None and isinstance(candidates, str | None):
        contains = excluder([target.label], fit)
        unfiltered, names = names, [name for name in names if not contains(name)]
        if not names:
            message = (
                f"No candidate is left: {list_names(unfiltered)} defines the target state, or "
                f"contains the perturbation that does. Name it in candidates to keep it, or give "
                f"others."
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
    names = pool.names
    present = {fit.naming.key(name) for name in names}
    contains = excluder([] if target.label is None else [target.label], fit)
    measured = [
        name
        for name, targets, is_seen in zip(fit.names, fit.targets, fit.is_measured, strict=True)
        if is_seen
        and fit.naming.key(name) not in present
        and not contains(name)
        and not (is_excluded and is_excluded(name, targets))
    ]
    return read_candidates([*names, *measured], fit) if measured else pool


def read_all(candidates: Any, fit: FittedPosterior, target: PanelTarget) -> Pool:
    """Return the candidates and all measured perturbations; only the former are ``allowed``."""
    requested = read_candidates(candidates, fit, target)
    names = {*requested.names}
    combined, target = without_own_genes(with_measured(requested, fit, target), target, fit, names)
    allowed = np.array([name in names for name in combined.names])
    return Pool(combined, target, allowed)


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
    fitted_targets = dict(zip(fit.names, fit.targets, strict=True))
    fitted_members, genes = (
        {member for members in fit.members for member in members},
        set(fit.genes),
    )
    naming, target_genes, guessed = fit.naming, [], []
    for name in names:
        if name in fitted_targets:
            target_genes.append(fitted_targets[name])
            continue
        inside, outside = naming.targets(name)
        members = naming.members(name)
        undescribed = {
            member
            for member in set(members) - genes - fitted_members
            if not fit.is_described(member)
        }
        is_described = (
            fit.is_described(name)
            or (len(members) > 1 and not undescribed)
            or members in fit.in_company
        )
        if not is_described and (outside or not inside):
            if not fit.takes_any_label:
                raise ValueError(unknown_genes(name, outside or [name], fit.genes))
            guessed.append(name)
        target_genes.append(inside)
    return target_genes, guessed
