"""The candidates of a plate: those asked for, without what is excluded, and their combinations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nextpert.tl._design_interventions.candidates import Candidates, read_candidates
from nextpert.tl._design_interventions.excluded import Excluded, own_perturbation
from nextpert.tl._plan_screen.combined import with_combinations
from nextpert.tl._plan_screen.constraints import named

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nextpert._adata import FittedPosterior
    from nextpert.tl._design_interventions.target import Wanted


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

    candidates: Candidates
    excluded: Excluded
    left_out: frozenset[str]
    own: str | None
    fit: FittedPosterior

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
