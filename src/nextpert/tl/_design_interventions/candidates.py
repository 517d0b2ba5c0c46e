"""The candidates of a design, what is expected of each, and what is no candidate."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import closest, in_order, list_names
from nextpert._adata import effects as _shifts
from nextpert._adata.effects import Interventions
from nextpert._adata.environments import unknown_genes
from nextpert._adata.members import numbered, pooled
from nextpert._adata.panel import places
from nextpert._warn import warn
from nextpert.core.causal.weights import downstream
from nextpert.core.design.candidates import Candidates
from nextpert.core.design.distances import states_of
from nextpert.core.design.joint_draws import NOT_JOINED, Joined, States
from nextpert.core.design.remaining_variance import CellNoise
from nextpert.core.model.interactions import learn_interactions
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictors.mean_perturbation import MeanPerturbation
from nextpert.core.model.unseen_scale import WithoutCells

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior
    from nextpert.core.design.goal import Goal
    from nextpert.core.model.interactions import Interactions
    from nextpert.tl._design_interventions.target import Wanted

    Array = NDArray[np.float64]
    Vector = NDArray[np.float64]

logger = logging.getLogger(__name__)


def expected_members(members: list[str], fit: FittedPosterior) -> CandidateSet:
    """Return members without cells of their own as candidates."""
    inside = [[name] if name in fit.genes else [] for name in members]
    return _expected(as_fitted(members, inside, fit), fit)


def shared_with_controls(names: Sequence[str], fit: FittedPosterior) -> tuple[list[int], Array]:
    """Return the combinations without cells, and how far the controls' mean is in what they do.

    Effects of members are differences from the controls' mean, as far as cells are believed of
    them; of a member without cells only the mean perturbation is such a difference.

    Returns
    -------
    rows
        Places among ``names`` of combinations without cells.
    shared
        Share of the sampling error of the controls' mean in the effect expected of each, shape
        ``(len(rows), n_genes)``.
    """
    rows, members = _without_cells(names, fit, company=True)
    row = _alone_in(_measured(fit))
    believed = fit.data_weight()
    strength, expected = 1.0, np.zeros(len(fit.genes))
    if fit.expectation is not None:
        expected += fit.expectation.weights.get(MeanPerturbation.name, 0.0)
        if fit.expectation.interactions is not None:
            strength = fit.expectation.interactions.strength
    shared = np.zeros((len(rows), len(fit.genes)))
    for each, some in zip(shared, members, strict=True):
        each += np.sum([believed[row[m]] if m in row else expected for m in some], axis=0)
        each *= strength if len(some) > 1 else 1.0
    return rows, shared


def information_on_interactions(
    names: Sequence[str], fit: FittedPosterior, n_cells: int
) -> dict[str, float]:
    """Return what cells of each combination without cells would tell of interactions, in nats.

    That is of what is not known of how far effects add up and of what its members do in company,
    against its own rest and the cells' noise, summed over genes. ``n_cells`` are those of a
    combination.
    """
    rows, members = _without_cells(names, fit)
    if not rows or fit.is_exact:
        return {}
    known, numbers, within = _interactions(members, fit)
    _, variance = known.predict(numbers)
    rest = (known.rest_sd * known.scale) ** 2
    alone = np.array([known.variance[list(some)].sum(axis=0) for some in numbers])
    shared = np.maximum(variance - rest - known.strength**2 * alone, 0.0)
    told = 0.5 * np.log1p(shared / (rest + within / n_cells)).sum(axis=1)
    return {names[i]: float(nats) for i, nats in zip(rows, told, strict=True)}


def _measured(fit: FittedPosterior) -> list[tuple[str, ...]]:
    """Return the members of every perturbation of the fit."""
    return [fit.naming.members(name) for name in fit.names]


def _alone_in(measured: Sequence[tuple[str, ...]]) -> dict[str, int]:
    """Return the row of every member that was perturbed alone."""
    return {some[0]: j for j, some in enumerate(measured) if len(some) == 1}


def _told_in_company(fit: FittedPosterior) -> set[tuple[str, ...]]:
    """Return the members that measured combinations tell of, each as the members of a label."""
    if fit.expectation is None or fit.expectation.interactions is None:
        return set()
    return {(member,) for some in _measured(fit) if len(some) > 1 for member in some}


def _without_cells(
    names: Sequence[str], fit: FittedPosterior, *, company: bool = False
) -> tuple[list[int], list[tuple[str, ...]]]:
    """Return the places of combinations without cells, and their members.

    With ``company`` of members, too, that have cells in combinations alone.
    """
    new = ~np.append(fit.seen, False)[fit.rows_of(names)]
    every = [fit.naming.members(name) for name in names]
    told = _told_in_company(fit) if company else set()
    rows = [
        i for i, some in enumerate(every)
        if new[i] and (len(some) > 1 or some in told)
    ]  # fmt: skip
    return rows, [every[i] for i in rows]


def _interactions(
    wanted: Sequence[tuple[str, ...]], fit: FittedPosterior
) -> tuple[Interactions, list[tuple[int, ...]], Array]:
    """Return the interactions of the fit, and the members of the combinations wanted in it.

    And the variance of cells of one perturbation, ``(n_genes,)``.
    """
    measured, expectation = _measured(fit), fit.expectation
    told = None if expectation is None else expectation.interactions
    within, scale = fit.posterior.noise_var, None
    if expectation is not None:
        cell = Perturbations(expectation.screen, 0, [], []).within
        within = np.maximum(cell, np.finfo(np.float64).tiny)
    joint = [
        j for j, some in enumerate(measured) if len(some) > 1 and told is not None and fit.seen[j]
    ]  # fmt: skip
    labels, numbers = numbered([*(measured[j] for j in joint), *wanted])
    single = _alone_in(measured)
    alone, variance = np.full((2, len(labels), len(fit.genes)), np.nan)
    cells = [k for k, label in enumerate(labels) if label in single]
    company = _told_in_company(fit)
    without = [
        k for k, label in enumerate(labels)
        if label not in single
        and (label in fit.genes or _is_described(label, fit)
             or (_takes_any_label(fit) and (label,) not in company))
    ]  # fmt: skip
    if cells:
        rows = np.array([single[labels[k]] for k in cells])
        alone[cells], variance[cells] = _alone(fit, rows)
        # That of all singles: what a pair does is not to depend on the other candidates.
        mean, spread = _alone(fit, np.array(sorted(single.values())))
        squares = mean**2 + spread
        scale = np.sqrt((squares.sum(axis=0) + squares.mean()) / (len(squares) + 1))
    else:
        scale = np.sqrt(within)
    if without:
        unseen = expected_members([labels[k] for k in without], fit)
        alone[without], variance[without] = _alone(fit, unseen.place, unseen.without_cells)
    combined, effects, noise = numbers[: len(joint)], *np.zeros((2, len(joint), len(fit.genes)))
    if expectation is not None and joint:
        found = Perturbations(expectation.screen, 0, 1 + np.array(joint), [()] * len(joint))
        combined, effects, noise, _ = pooled(combined, found.observed, found.variance)
    learned = None
    if told is not None:
        scale = told.scale
        learned = told.member_sd, told.rest_sd, told.strengths, told.chances
    known = learn_interactions(
        alone, variance, combined, effects, noise, scale=scale, learned=learned
    )
    return known, numbers[len(joint) :], within


@dataclass(frozen=True)
class Excluded:
    """What a lab cannot do: labels and genes, as the fit reads labels.

    Parameters
    ----------
    names
        Labels of perturbations, or genes.
    members
        The members of each.
    """

    names: frozenset[str]
    members: tuple[frozenset[str], ...]

    @classmethod
    def read(cls, names: Iterable[str], fit: FittedPosterior) -> Excluded:
        """Return what is excluded by its names."""
        given = frozenset(names)
        members = (frozenset(fit.naming.members(name)) for name in sorted(given))
        return cls(given, tuple(some for some in members if some))

    def holds(self, name: str, targets: Iterable[str], fit: FittedPosterior) -> bool:
        """Whether a candidate is excluded: by name, by what it combines, or by a target gene."""
        combined = set(fit.naming.members(name))
        return (
            name in self.names
            or not self.names.isdisjoint(targets)
            or any(some <= combined for some in self.members)
        )

    def require_known(
        self, candidates: Sequence[str], targets: Sequence[list[str]], fit: FittedPosterior
    ) -> None:
        """Raise unless each name is of a candidate, of its members or of a target gene.

        Raises
        ------
        ValueError
            If one is not (close matches are suggested).
        """
        genes = {gene for some in targets for gene in some}
        members = {member for name in candidates for member in fit.naming.members(name)}
        known = {*candidates, *genes, *members}
        unknown = sorted(
            name
            for name in self.names - known
            if not members.issuperset(fit.naming.members(name) or (name,))
        )
        if unknown:
            message = (
                f"exclude has names that are neither a candidate nor a target gene of one: "
                f"{list_names(unknown)}.{closest(unknown, sorted(known))}"
            )
            raise ValueError(message)


def own_perturbation(names: Iterable[str], label: str | None, fit: FittedPosterior) -> list[str]:
    """Return those of some names that are the perturbation of a label; none without a label."""
    if label is None:
        return []
    own = fit.naming.key(label)
    return [name for name in names if fit.naming.key(name) == own]


def without_own(
    label: str | None, names: list[str], fit: FittedPosterior, *, note: bool
) -> list[str]:
    """Return the names of the candidates except the perturbation that defines the target.

    Parameters
    ----------
    label
        The target, where it is a perturbation; ``None`` excludes nothing.
    names, fit
        The candidates, and the fit.
    note
        Whether to log what was excluded.

    Raises
    ------
    ValueError
        If none is left.
    """
    own = own_perturbation(names, label, fit)
    kept = [name for name in names if name not in own]
    if not kept:
        message = (
            f"No candidate is left: {list_names(own)}, the only candidate, defines the target "
            f"state. Give other candidates, or target_is_candidate=True to keep it."
        )
        raise ValueError(message)
    if own and note:
        logger.info(
            "%s is excluded from the candidates, because it defines the target state; "
            "target_is_candidate=True keeps it.", list_names(own),
        )  # fmt: skip
    return kept


@dataclass(frozen=True)
class CandidateSet:
    """Interventions to choose from, with what is expected of each.

    Parameters
    ----------
    interventions
        Their names, targets and expected shifts.
    place
        Row of each in the fit, -1 of those without cells, shape ``(n_candidates,)``.
    without_cells
        What is expected of those without cells, in their order; ``None`` if shifts are exact, which
        act on the graph.
    """

    interventions: Interventions
    place: NDArray[np.int64]
    without_cells: WithoutCells | None = None

    @classmethod
    def exact(cls, interventions: Interventions) -> CandidateSet:
        """Return candidates whose shifts are exact."""
        return cls(interventions, np.full(len(interventions.names), -1))

    @property
    def is_exact(self) -> bool:
        """Whether shifts are exact, and act on the graph."""
        return self.without_cells is None

    @property
    def size(self) -> int:
        """Number of candidates."""
        return len(self.place)

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Which have cells that tell of their effects, shape ``(n_candidates,)``."""
        return self.place >= 0

    def rows(self, index: Sequence[int] | NDArray[np.int64]) -> CandidateSet:
        """Return some of the candidates, in the order given."""
        some, told = np.asarray(index, np.int64), self.without_cells
        number = (np.cumsum(~self.measured) - 1)[some]
        return CandidateSet(
            self.interventions.rows(some.tolist()), self.place[some],
            None if told is None else told.rows(number[~self.measured[some]]),
        )  # fmt: skip

    def states(self, fit: FittedPosterior, targets: Joined = NOT_JOINED) -> States:
        """Return the joint posterior of their states, with ``targets`` of :class:`Wanted`.

        That of the hierarchical model; on the graph if shifts are exact.
        """
        if self.is_exact:
            return states_of(fit.posteriors, self.interventions.shifts)
        return fit.states(self.place, self.without_cells, targets)


def as_asked(
    fit: FittedPosterior,
    pool: CandidateSet,
    goal: Goal,
    targets: Joined = NOT_JOINED,
    n_guides: int = 1,
    **options: Any,
) -> Candidates:
    """Return candidates to rank, by a fit; ``targets`` are of :class:`Wanted`."""
    model, shared = fit.hierarchical, (fit.guide_variance or 0.0) / n_guides
    return Candidates(
        fit.posteriors, pool.interventions.shifts if pool.is_exact else None, goal,
        states=pool.states(fit, targets), measured=pool.measured, main=fit.posterior,
        noise=None if model is None else CellNoise(*model.within_cells(), shared), **options,
    )  # fmt: skip


def read_candidates(
    candidates: Any,
    shift: Any,
    fit: FittedPosterior,
    target: Wanted | None = None,
    *,
    target_is_candidate: bool = False,
) -> CandidateSet:
    """Return the candidates with the shift of each.

    The perturbation that defines the target is excluded, because it would always be ranked first;
    ``target_is_candidate`` keeps it.

    Raises
    ------
    ValueError
        If there are none, or one names a gene outside the panel (close matches are suggested).
    """
    own = None if target_is_candidate or target is None else target.label
    if isinstance(candidates, (pd.DataFrame, Mapping)):
        table = _shifts.read_table(candidates, fit.genes, fit.spelled, fit.naming.control)
        if not table.names:
            message = (
                "There are no candidates: the table of shifts is empty. Give a row per candidate."
            )
            raise ValueError(message)
        names = without_own(own, table.names, fit, note=True)
    else:
        named = candidates is not None and not isinstance(candidates, str)
        names = without_own(own, _names(candidates, fit), fit, note=named)
        targets, guessed = _targets(names, fit)
        if guessed:
            warn(
                f"Of {list_names(guessed)} nothing is known: no cells, no features and no target "
                f"on the panel. The mean of the screen's perturbations is expected of each."
            )
        if shift is None:
            return fitted_candidates(as_fitted(names, targets, fit), fit)
        if isinstance(shift, str):
            return CandidateSet.exact(_modelled(names, targets, shift, fit))
        spelled = partial(fit.naming.spelled, known=names)
        table = _shifts.read_table(shift, fit.genes, spelled, fit.naming.control)
        missing = [name for name in names if name not in table.names]
        if missing:
            message = f"The table of shifts has no row for the candidates {list_names(missing)}."
            raise ValueError(message)
    return CandidateSet.exact(table.rows([table.names.index(name) for name in names]))


def fitted_candidates(found: Interventions, fit: FittedPosterior) -> CandidateSet:
    """Return candidates, with cells or without, with the prior that the fit has for them.

    Combinations without cells are predicted from their members, and perturbations that have cells
    only in combinations are predicted from these.
    """
    if fit.is_exact:
        return CandidateSet.exact(found)
    pool = _expected(found, fit)
    rows, members = _without_cells(found.names, fit, company=True)
    told = pool.without_cells
    if not rows or told is None:
        return pool
    known, numbers, _ = _interactions(members, fit)
    number = (np.cumsum(~pool.measured) - 1)[rows]
    told.effect[number], told.own_variance[number] = known.predict(numbers)
    return pool


def can_be_candidate(name: str, fit: FittedPosterior) -> bool:
    """Whether a label can be a candidate, by its cells, its genes or its members."""
    try:
        _targets(fit.spelled([name]), fit)
    except ValueError:
        return False
    return True


def _alone(
    fit: FittedPosterior, place: NDArray[np.int64], told: WithoutCells | None = None
) -> tuple[Array, Array]:
    """Return mean and variance of effects, ``(n_perturbations, n_genes)``."""
    drawn = fit.effects(place, told)
    return drawn.posterior_mean(), drawn.sd() ** 2


def _expected(found: Interventions, fit: FittedPosterior) -> CandidateSet:
    """Return candidates: as fitted if they have cells, else as the predictors expect them."""
    place = fit.rows_of(found.names)
    place = np.where(np.append(fit.seen, False)[place], place, -1)
    new = np.flatnonzero(place < 0)
    own = found.shifts[new]
    variance = np.full(own.shape, np.nan)
    if fit.efficacy is not None:
        # Shifts without cells are full times the mean efficacy: its spread is in proportion.
        mean, sd = fit.efficacy.mean, fit.efficacy.sd
        spread = sd / max(abs(mean), 1e-12) * np.abs(own)
        variance = np.where(spread > 0, spread**2, np.nan)
    if fit.expectation is None:  # too few perturbations to learn from: the graph alone speaks
        told = WithoutCells(own + downstream(fit.posteriors, own), variance, np.ones((len(new), 2)))
    else:
        targets = places([found.targets[i] for i in new], fit.genes)
        told = fit.expectation.without_cells(
            [found.names[i] for i in new], targets, own, variance, fit.posteriors
        )
    return CandidateSet(found, place, told)


def _names(candidates: Any, fit: FittedPosterior) -> list[str]:
    if candidates is None:
        names = fit.names
    elif isinstance(candidates, str):
        names = list(dict.fromkeys(fit.spelled([*fit.names, *fit.genes])))
    else:
        asked = [str(name) for name in in_order(candidates)]
        control = str(fit.params["control"])
        if control in asked:
            message = (
                f"candidates names {control!r}, the controls, with which all candidates are "
                f"compared. Leave it out."
            )
            raise ValueError(message)
        if twice := [name for name in asked if fit.naming.repeats(name) and name not in fit.names]:
            message = (
                f"candidates names a member more than once: {list_names(twice)}. Name it once."
            )
            raise ValueError(message)
        names = list(dict.fromkeys(fit.spelled(asked)))
    if not names:
        message = (
            "There are no candidates: "
            + ("the list is empty" if candidates is not None else "the fit used no perturbation")
            + '. Give labels such as ["MYC", "MYC+STK3"], or "genes" for every gene of the panel.'
        )
        raise ValueError(message)
    return names


def _targets(names: Sequence[str], fit: FittedPosterior) -> tuple[list[list[str]], list[str]]:
    """Return the genes of the panel that each label targets, and labels that nothing is known of.

    Where most perturbations target no gene of the panel, a label that nothing is known of is one
    more of these. Elsewhere it is refused, as it is probably misspelled.

    Raises
    ------
    ValueError
        If one has neither cells, features, a gene of the panel nor members that the fit knows of.
    """
    own = dict(zip(fit.names, fit.targets, strict=True))
    seen, company = {m for some in _measured(fit) for m in some}, _told_in_company(fit)
    genes, naming, found, guessed = set(fit.genes), fit.naming, [], []
    for name in names:
        if name in own:
            found.append(own[name])
            continue
        inside, outside = naming.targets(name)
        members = naming.members(name)
        rest = {each for each in set(members) - genes - seen if not _is_described(each, fit)}
        known = _is_described(name, fit) or (len(members) > 1 and not rest) or members in company
        if not known and (outside or not inside):
            if not _takes_any_label(fit):
                raise ValueError(unknown_genes(name, outside or [name], fit.genes))
            guessed.append(name)
        found.append(inside)
    return found, guessed


def _is_described(name: str, fit: FittedPosterior) -> bool:
    """Whether side information has a row for a label."""
    known = None if fit.expectation is None else fit.expectation.features
    return known is not None and name in known.place


def _takes_any_label(fit: FittedPosterior) -> bool:
    """Whether a label that nothing is known of is expected to do what others do on average."""
    return fit.expectation is not None and 2 * sum(map(bool, fit.targets)) < len(fit.targets)


def as_fitted(names: list[str], targets: list[list[str]], fit: FittedPosterior) -> Interventions:
    """Return shifts as the fit has them, of candidates without cells in full times its efficacy.

    ``targets`` are the genes of the panel that each targets; none where none is measured.
    """
    rows, kind = fit.rows_of(names), str(fit.params["shift"])
    unseen = [name for name, row in zip(names, rows, strict=True) if row < 0]
    if unseen and kind == "table":
        warn(
            f"The table of shifts has no row for the candidates {list_names(unseen)}: "
            f"they are modelled as knockouts (minus the control mean of every target)."
        )
    found = _modelled(names, targets, "knockout" if kind == "table" else kind, fit)
    sources = fit.environments["shift_source"].astype(str).tolist()
    for i, row in enumerate(rows.tolist()):
        shift = fit.shifts[row] if row >= 0 else found.shifts[i]
        if targets[i] or shift.any():  # pages of zeros that nobody writes take no memory
            efficacy = 1.0 if row >= 0 or fit.efficacy is None else fit.efficacy.mean
            found.shifts[i] = efficacy * shift
        found.sources[i] = sources[row] if row >= 0 else found.sources[i]
    return found


def _modelled(
    names: list[str], targets: list[list[str]], kind: str, fit: FittedPosterior
) -> Interventions:
    shifts = np.zeros((len(names), len(fit.genes)))
    for row, genes in ((row, genes) for row, genes in enumerate(targets) if genes):
        shifts[row] = _shifts.in_full(genes, fit.genes, kind, fit.control_mean)
    return Interventions(names, targets, shifts, [kind] * len(names))
