"""The candidates of a design: their shifts, combinations without cells, and what is excluded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import closest, in_order, list_names
from nextpert._adata import effects as _shifts
from nextpert._adata.effects import Interventions
from nextpert._adata.environments import unknown_genes
from nextpert._adata.members import effects_alone, numbered, pooled
from nextpert._warn import warn
from nextpert.core.model.averaged import Averaged
from nextpert.core.model.interactions import Together, learn_interactions
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictors.mean_perturbation import MeanPerturbation
from nextpert.core.model.shift_prior import UNSEEN_WEIGHTS, ShiftPrior

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior
    from nextpert.core.model.interactions import Interactions
    from nextpert.tl._design_interventions.target import Wanted

    Array = NDArray[np.float64]
    Vector = NDArray[np.float64]


def members_by_label(label: str, fit: FittedPosterior) -> tuple[str, ...]:
    """Return the members that a label names, as the fit reads labels."""
    return fit.naming.members(label)


def members_seen(fit: FittedPosterior) -> set[str]:
    """Return all members that some perturbation of the fit holds, alone or in a combination."""
    labels = fit.environments["perturbation"].astype(str)
    return {member for label in labels for member in members_by_label(label, fit)}


def told_in_company(fit: FittedPosterior) -> set[tuple[str, ...]]:
    """Return the members that measured combinations tell of, each as the members of a label."""
    if fit.expectation is None or fit.expectation.interactions is None:
        return set()
    labels = fit.environments["perturbation"].astype(str)
    several = (some for x in labels if len(some := members_by_label(x, fit)) > 1)
    return {(member,) for some in several for member in some}


def with_combinations(
    prior: Averaged,
    names: Sequence[str],
    fit: FittedPosterior,
    expect: Callable[[list[str]], Averaged],
) -> Averaged:
    """Return the prior with combinations that have no cells as their members do together.

    And with single members that have cells in combinations only, by what these say of them.

    Parameters
    ----------
    prior
        Prior of the perturbations.
    names
        Their labels.
    fit
        The fit.
    expect
        Returns the prior of members without cells of their own.
    """
    rows, members = _without_cells(names, fit, company=True)
    if not rows:
        return prior
    within = _within(fit)
    known, numbers = _interactions(members, fit, within, expect)
    mean, variance = known.predict(numbers)
    together = Together(np.array(rows), mean, variance, np.zeros_like(mean))
    return Averaged(
        tuple(
            replace(m, prior=together.told(m.prior, m.posteriors[0].noise_var / within))
            for m in prior.models
        )
    )


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
    used = [members_by_label(str(name), fit) for name in fit.environments["perturbation"]]
    row = {some[0]: j for j, some in enumerate(used) if len(some) == 1}
    known = fit.averaged.known()
    believed = np.sum([each.weight * each.share for each in known], axis=0)
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
    names: Sequence[str],
    fit: FittedPosterior,
    expect: Callable[[list[str]], Averaged],
    n_cells: int,
) -> dict[str, float]:
    """Return what cells of each combination without cells would tell of interactions, in nats.

    That is of what is not known of how far effects add up and of what its members do in company,
    against its own rest and the cells' noise, summed over genes.

    Parameters
    ----------
    names, fit, expect
        As in :func:`with_combinations`.
    n_cells
        Cells of a combination.
    """
    rows, members = _without_cells(names, fit)
    if not rows:
        return {}
    within = _within(fit)
    known, numbers = _interactions(members, fit, within, expect)
    _, variance = known.predict(numbers)
    rest = (known.rest_sd * known.scale) ** 2
    alone = np.array([known.variance[list(some)].sum(axis=0) for some in numbers])
    shared = np.maximum(variance - rest - known.strength**2 * alone, 0.0)
    told = 0.5 * np.log1p(shared / (rest + within / n_cells)).sum(axis=1)
    return {names[i]: float(nats) for i, nats in zip(rows, told, strict=True)}


def _without_cells(
    names: Sequence[str], fit: FittedPosterior, *, company: bool = False
) -> tuple[list[int], list[tuple[str, ...]]]:
    """Return the places of combinations without cells, and their members.

    With ``company`` of members, too, that have cells in combinations alone.
    """
    used = {str(name) for name in fit.environments["perturbation"]}
    every = [members_by_label(name, fit) for name in names]
    told = told_in_company(fit) if company else set()
    rows = [
        i for i, some in enumerate(every)
        if names[i] not in used and (len(some) > 1 or some in told)
    ]  # fmt: skip
    return rows, [every[i] for i in rows]


def _within(fit: FittedPosterior) -> Array:
    """Return the variance of cells of one perturbation, ``(n_genes,)``."""
    if fit.expectation is None:
        return fit.posterior.noise_var
    variance = Perturbations(fit.expectation.screen, 0, [], []).covariance().diagonal()
    return np.maximum(variance, np.finfo(np.float64).tiny)


def _labels(
    wanted: Sequence[tuple[str, ...]], used: Sequence[str], fit: FittedPosterior
) -> tuple[list[str], list[int], list[tuple[int, ...]]]:
    """Return all members, and rows of the fit and members of its measured combinations."""
    measured = [members_by_label(name, fit) for name in used]
    rows = [j for j, some in enumerate(measured) if len(some) > 1]
    if fit.expectation is None or fit.expectation.interactions is None:
        rows = []
    labels, numbers = numbered([*(measured[j] for j in rows), *wanted])
    return labels, rows, numbers[: len(rows)]


def _interactions(
    wanted: Sequence[tuple[str, ...]],
    fit: FittedPosterior,
    within: Array,
    expect: Callable[[list[str]], Averaged],
) -> tuple[Interactions, list[list[int]]]:
    """Return the interactions of the fit, and the members of the combinations wanted in it."""
    used = [str(name) for name in fit.environments["perturbation"]]
    labels, rows, combined = _labels(wanted, used, fit)
    single = {
        some[0]: j for j, name in enumerate(used) if len(some := members_by_label(name, fit)) == 1
    }
    other = {} if fit.expectation is None else fit.expectation.other
    alone, variance = np.full((2, len(labels), len(fit.genes)), np.nan)
    cells = [k for k, label in enumerate(labels) if label in single]
    without = [
        k for k, label in enumerate(labels)
        if label not in single and (label in fit.genes or label in other)
    ]  # fmt: skip
    if cells:
        seen = fit.averaged.rows([single[labels[k]] for k in cells])
        alone[cells], variance[cells] = effects_alone(seen.posteriors, seen.known(), within)
    if without:
        unseen = expect([labels[k] for k in without])
        alone[without], variance[without] = effects_alone(unseen.posteriors, unseen.known(), within)
    effects, noise = np.zeros((2, len(rows), len(fit.genes)))
    told = None if fit.expectation is None else fit.expectation.interactions
    if fit.expectation is not None and rows:
        found = Perturbations(fit.expectation.screen, 0, 1 + np.array(rows), [()] * len(rows))
        combined, effects, noise, _ = pooled(combined, found.observed, found.variance)
    scale: Array | None = None if cells else np.sqrt(within)
    learned = None
    if told is not None:
        scale = told.scale
        learned = told.member_sd, told.rest_sd, told.strengths, told.chances
    known = learn_interactions(
        alone, variance, combined, effects, noise, scale=scale, learned=learned
    )
    place = {label: k for k, label in enumerate(labels)}
    return known, [[place[member] for member in some] for some in wanted]


logger = logging.getLogger(__name__)


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
        members = (frozenset(members_by_label(name, fit)) for name in sorted(given))
        return cls(given, tuple(some for some in members if some))

    def holds(self, name: str, targets: Iterable[str], fit: FittedPosterior) -> bool:
        """Whether a candidate is excluded: by name, by what it combines, or by a target gene."""
        combined = set(members_by_label(name, fit))
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
            If one is not (close matches are given).
        """
        genes = {gene for some in targets for gene in some}
        members = {member for name in candidates for member in members_by_label(name, fit)}
        known = {*candidates, *genes, *members}
        unknown = sorted(
            name
            for name in self.names - known
            if not members.issuperset(members_by_label(name, fit) or (name,))
        )
        if unknown:
            message = (
                f"never holds names that are neither a candidate nor a target gene of one: "
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
    """Return the names of candidates but those of the target's own perturbation.

    Parameters
    ----------
    label
        The target, where it is a perturbation; ``None`` excludes nothing.
    names, fit
        The candidates, and the fit.
    note
        Whether to tell in the log what was excluded.

    Raises
    ------
    ValueError
        If none is left.
    """
    own = own_perturbation(names, label, fit)
    kept = [name for name in names if name not in own]
    if not kept:
        message = (
            f"No candidate is left: the target is the state of {list_names(own)}, the only "
            f"candidate. Give other candidates, or target_is_candidate=True to keep it."
        )
        raise ValueError(message)
    if own and note:
        logger.info(
            "%s is not among the candidates, because the target is its own state; "
            "target_is_candidate=True keeps it.", list_names(own),
        )  # fmt: skip
    return kept


@dataclass(frozen=True)
class CandidateSet:
    """Interventions to choose from, and what is expected and known of the shift of each."""

    interventions: Interventions
    prior: ShiftPrior | Averaged

    @property
    def on_graph(self) -> ShiftPrior:
        """The prior of the shifts on the graph."""
        return self.prior if isinstance(self.prior, ShiftPrior) else self.prior.main

    @classmethod
    def exact(cls, interventions: Interventions) -> CandidateSet:
        """Return candidates whose shifts are taken as they are."""
        return cls(interventions, ShiftPrior.exact(interventions.shifts))

    def rows(self, index: Sequence[int]) -> CandidateSet:
        """Return some of the candidates, in the order given."""
        return CandidateSet(self.interventions.rows(index), self.prior.rows(index))


def read_candidates(
    candidates: Any,
    shift: Any,
    fit: FittedPosterior,
    target: Wanted | None = None,
    *,
    target_is_candidate: bool = False,
) -> CandidateSet:
    """Return the candidates with the shift of each.

    A target that is the state of a perturbation's own cells excludes that perturbation, as it would
    be the answer to every such question; ``target_is_candidate`` keeps it.

    Raises
    ------
    ValueError
        If there are none, or one names a gene outside the panel (close matches are given).
    """
    own = None if target_is_candidate or target is None else target.label
    if isinstance(candidates, (pd.DataFrame, Mapping)):
        table = _require_some(_shifts.read_table(candidates, fit.genes, fit.spelled))
        kept = without_own(own, table.names, fit, note=True)
        return CandidateSet.exact(table.rows([table.names.index(name) for name in kept]))
    named = candidates is not None and not isinstance(candidates, str)
    names = without_own(own, _names(candidates, fit), fit, note=named)
    seen, company = members_seen(fit), told_in_company(fit)
    targets = [_targets(name, fit, seen, company) for name in names]
    if shift is None:
        return fitted_candidates(as_fitted(names, targets, fit), fit)
    if isinstance(shift, str):
        return CandidateSet.exact(_modelled(names, targets, shift, fit))
    table = _shifts.read_table(shift, fit.genes, partial(fit.naming.spelled, known=names))
    missing = [name for name in names if name not in table.names]
    if missing:
        message = f"The table of shifts has no row for the candidates {list_names(missing)}."
        raise ValueError(message)
    rows = [table.names.index(name) for name in names]
    chosen = [table.targets[row] for row in rows]
    given = Interventions(names, chosen, table.shifts[rows], ["table"] * len(names))
    return CandidateSet.exact(given)


def fitted_candidates(found: Interventions, fit: FittedPosterior) -> CandidateSet:
    """Return candidates, with cells or without, by what the fit knows and expects of them."""
    if fit.params["shift_sd"] != "learned":
        return CandidateSet.exact(found)
    return CandidateSet(found, _learned(found, fit))


def can_be_candidate(name: str, fit: FittedPosterior) -> bool:
    """Whether a label can be among the candidates, by its own cells, its genes or its members."""
    (name,) = fit.spelled([name])
    try:
        _targets(name, fit, members_seen(fit), told_in_company(fit))
    except ValueError:
        return False
    return True


def _learned(found: Interventions, fit: FittedPosterior) -> Averaged:
    """Return the prior of candidates; combinations without cells do what members do together."""
    return with_combinations(
        _expected(found, fit), found.names, fit, partial(expected_members, fit=fit)
    )


def expected_members(members: list[str], fit: FittedPosterior) -> Averaged:
    """Return the prior of members without cells of their own."""
    inside = [[name] if name in fit.genes else [] for name in members]
    return _expected(as_fitted(members, inside, fit), fit)


def _expected(found: Interventions, fit: FittedPosterior) -> Averaged:
    """Return the prior of candidates: as fitted where cells were seen, by experts elsewhere."""
    row = {str(name): i for i, name in enumerate(fit.environments["perturbation"])}
    new = [i for i, name in enumerate(found.names) if name not in row]
    names = [found.names[i] for i in new]
    place = {gene: i for i, gene in enumerate(fit.genes)}
    own = found.shifts[new]
    variance = np.full(own.shape, np.nan)
    if fit.efficacy is not None:
        # Shifts without cells are full times the mean efficacy: its spread is in proportion.
        mean, sd = fit.efficacy.mean, fit.efficacy.sd
        spread = sd / max(abs(mean), 1e-12) * np.abs(own)
        variance = np.where(spread > 0, spread**2, np.nan)
    targets = [[place[gene] for gene in found.targets[i]] for i in new]
    if fit.expectation is None:
        weights = fit.prior.weights.mean(axis=0) if row else UNSEEN_WEIGHTS
        nothing = np.zeros_like(own)
        unseen = ShiftPrior(
            np.zeros(len(new)), nothing, nothing + 1, own, nothing, variance,
            np.tile(weights, (len(new), 1)),
        )  # fmt: skip
    else:
        unseen = fit.expectation.prior(names, targets, own, variance)
    both = fit.averaged.joined(unseen)
    after = {name: len(row) + k for k, name in enumerate(names)}
    return both.rows([row[name] if name in row else after[name] for name in found.names])


def _names(candidates: Any, fit: FittedPosterior) -> list[str]:
    used = [str(name) for name in fit.environments["perturbation"]]
    if candidates is None:
        names = used
    elif isinstance(candidates, str):
        names = list(dict.fromkeys(fit.spelled([*used, *fit.genes])))
    else:
        asked = [str(name) for name in in_order(candidates)]
        control = str(fit.params["control"])
        if control in asked:
            message = (
                f"candidates holds {control!r}, the controls: doing nothing is what all are "
                f"compared with, and no candidate. Leave it out."
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


def _require_some(table: Interventions) -> Interventions:
    if not table.names:
        message = "There are no candidates: the table of shifts is empty. Give it a row for each."
        raise ValueError(message)
    return table


def _targets(
    name: str, fit: FittedPosterior, seen: set[str], company: set[tuple[str, ...]]
) -> list[str]:
    used = fit.environments["perturbation"].astype(str).to_numpy() == name
    if used.any():
        return fit.targets[int(np.argmax(used))]
    inside, outside = fit.naming.targets(name)
    members = members_by_label(name, fit)
    known_elsewhere = fit.expectation is not None and name in fit.expectation.other
    told = len(members) > 1 and set(members) - set(fit.genes) <= seen
    if known_elsewhere or told or members in company:
        return inside
    if outside or not inside:
        message = unknown_genes(name, outside or [name], fit.genes)
        raise ValueError(message)
    return inside


def as_fitted(names: list[str], targets: list[list[str]], fit: FittedPosterior) -> Interventions:
    """Return shifts as the fit has them, of candidates without cells in full times its efficacy.

    ``targets`` are the genes of the panel that each targets; none where none is measured.
    """
    row = {str(name): i for i, name in enumerate(fit.environments["perturbation"])}
    kind = str(fit.params["shift"])
    unseen = [i for i, name in enumerate(names) if name not in row]
    shifts, sources = np.zeros((len(names), len(fit.genes))), [""] * len(names)
    for i, name in enumerate(names):
        if name in row:
            shifts[i] = fit.shifts[row[name]]
            sources[i] = str(fit.environments["shift_source"].iloc[row[name]])
    if unseen:
        # A table says nothing of labels it has no row for.
        if kind == "table":
            message = (
                f"No shift is known for the candidates {list_names(names[i] for i in unseen)}: "
                f"they are modelled as knockouts (minus the control mean of every target)."
            )
            warn(message)
        new = _modelled(
            [names[i] for i in unseen], [targets[i] for i in unseen],
            "knockout" if kind == "table" else kind, fit,
        )  # fmt: skip
        efficacy = 1.0 if fit.efficacy is None else fit.efficacy.mean
        shifts[unseen] = efficacy * new.shifts
        for i, source in zip(unseen, new.sources, strict=True):
            sources[i] = source
    return Interventions(names, targets, shifts, sources)


def _modelled(
    names: list[str], targets: list[list[str]], kind: str, fit: FittedPosterior
) -> Interventions:
    full = [_shifts.in_full(genes, fit.genes, kind, fit.control_mean) for genes in targets]
    return Interventions(names, targets, np.array(full), [kind] * len(names))
