"""The candidates of a design as users give them, and what is no candidate."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from nextpert._adata import closest, in_order, list_names
from nextpert._adata.effects import read_table
from nextpert._adata.environments import unknown_genes
from nextpert._warn import warn
from nextpert.core.fit.candidates import CandidateSet, as_fitted, fitted_candidates
from nextpert.core.fit.interventions import in_full

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.tl._design_interventions.target import Wanted

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

    def holds(self, name: str, targets: Iterable[str], fit: FittedPosterior) -> bool:
        """Whether a candidate is excluded: by name, by what it combines, or by a target gene."""
        combined = set(fit.naming.members(name))
        return (
            name in self.names
            or not self.names.isdisjoint(targets)
            or any(some <= combined for some in self.members)
        )

    @classmethod
    def read(
        cls,
        names: Iterable[str],
        fit: FittedPosterior,
        candidates: Sequence[str] | None = None,
        targets: Sequence[list[str]] = (),
    ) -> Excluded:
        """Return what is excluded by its names.

        With ``candidates`` and their target genes, each must be one of these, or of their members.

        Raises
        ------
        ValueError
            If one is not (close matches are suggested).
        """
        given = {name: fit.naming.members(name) for name in sorted(names)}
        of_names = tuple(frozenset(some) for some in given.values() if some)
        if candidates is None:
            return cls(frozenset(given), of_names)
        genes = {gene for some in targets for gene in some}
        members = {member for name in candidates for member in fit.naming.members(name)}
        known = {*candidates, *genes, *members}
        unknown = [
            name for name in given
            if name not in known and not members.issuperset(given[name] or (name,))
        ]  # fmt: skip
        if unknown:
            message = (
                f"exclude has names that are neither a candidate nor a target gene of one: "
                f"{list_names(unknown)}.{closest(unknown, sorted(known))}"
            )
            raise ValueError(message)
        return cls(frozenset(given), of_names)


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
    table, key = None, fit.naming.key
    nothing = "the list is empty"
    remedy = 'Give labels such as ["MYC", "MYC+STK3"], or "genes" for every gene of the panel.'
    if isinstance(candidates, (pd.DataFrame, Mapping)):
        table = read_table(candidates, fit.genes, fit.spelled, fit.naming.control)
        every, nothing = table.names, "the table of shifts is empty"
        remedy = "Give a row per candidate."
    elif candidates is None:
        every, nothing = fit.names, "the fit used no perturbation"
    elif isinstance(candidates, str):
        every = list(dict.fromkeys(fit.spelled([*fit.names, *fit.genes])))
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
        every = list(dict.fromkeys(fit.spelled(asked)))
    if not every:
        message = f"There are no candidates: {nothing}. {remedy}"
        raise ValueError(message)
    label = None if target_is_candidate or target is None else target.label
    own = [] if label is None else [name for name in every if key(name) == key(label)]
    names = [name for name in every if name not in own]
    if not names:
        message = (
            f"No candidate is left: {list_names(own)}, the only candidate, defines the target "
            f"state. Give other candidates, or target_is_candidate=True to keep it."
        )
        raise ValueError(message)
    if own and candidates is not None and not isinstance(candidates, str):
        logger.info(
            "%s is excluded from the candidates, because it defines the target state; "
            "target_is_candidate=True keeps it.", list_names(own),
        )  # fmt: skip
    if table is None:
        targets, guessed = _targets(names, fit)
        if guessed:
            warn(
                f"Of {list_names(guessed)} nothing is known: no cells, no features and no target "
                f"on the panel. The mean of the screen's perturbations is expected of each."
            )
        if shift is None:
            return fitted_candidates(as_fitted(names, targets, fit), fit)
        if isinstance(shift, str):
            return CandidateSet.exact(in_full(names, targets, shift, fit.genes, fit.control_mean))
        spelled = partial(fit.naming.spelled, known=names)
        table = read_table(shift, fit.genes, spelled, fit.naming.control)
        missing = [name for name in names if name not in table.names]
        if missing:
            message = f"The table of shifts has no row for the candidates {list_names(missing)}."
            raise ValueError(message)
    return CandidateSet.exact(table.rows([table.names.index(name) for name in names]))


def can_be_candidate(name: str, fit: FittedPosterior) -> bool:
    """Whether a label can be a candidate, by its cells, its genes or its members."""
    try:
        _targets(fit.spelled([name]), fit)
    except ValueError:
        return False
    return True


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
