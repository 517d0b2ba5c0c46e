"""What is no candidate: the target's own perturbation, and what a lab cannot do."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nextpert._adata import closest, list_names
from nextpert.tl._design_interventions.combined import members_by_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nextpert._adata import FittedPosterior

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
