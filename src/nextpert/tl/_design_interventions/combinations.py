"""Untested combinations: which of them are candidates of a plan to find the nearest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert._adata import strings
from nextpert.core.design.admission import MORE_LIKELY, nearer_than_known
from nextpert.core.fit.candidates import as_asked
from nextpert.tl._design_interventions.candidates import (
    can_be_candidate,
    own_perturbation,
    read_candidates,
)
from nextpert.tl._design_interventions.own_genes import bind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.design.candidates import Candidates
    from nextpert.core.fit.candidates import CandidateSet
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.tl._design_interventions.target import Wanted

    Vector = NDArray[np.float64]

_NO_EFFECT = 0.05  # false discovery rate at which a member does not differ from the controls


class Admission(NamedTuple):
    """Which candidates are admitted to a plan to find the nearest, and why.

    Parameters
    ----------
    admitted
        All but the untested combinations that are not nearer than both comparisons with a
        probability above 0.5, shape ``(n_candidates,)``.
    over_members, over_measured
        Probability that an untested combination is nearer than all its members, and than the best
        measured candidate; NaN of other candidates.
    without_effect
        Members of each that do not differ from the controls.
    adds_up
        Whether some admitted are untested combinations, and no measured one tells of interactions.
    """

    admitted: NDArray[np.bool_]
    over_members: Vector
    over_measured: Vector
    without_effect: list[str]
    adds_up: bool

    def columns(self, rows: Any) -> dict[str, Any]:
        """Return columns of a table of some candidates, the control (-1) among them."""
        some = [*rows]
        return {
            "probability_nearer_than_members": np.append(self.over_members, np.nan)[some],
            "probability_nearer_than_measured": np.append(self.over_measured, np.nan)[some],
            "members_without_effect": strings([*self.without_effect, ""][i] for i in some),
        }


def admit(asked: Candidates, pool: CandidateSet, fit: FittedPosterior, wanted: Wanted) -> Admission:
    """Admit candidates, among which ``asked`` then counts the probability of being the nearest.

    Members and the best measured candidate are compared in the same draws; where members are no
    candidates, in draws of both.
    """
    names, key = pool.interventions.names, fit.naming.key
    members = [fit.naming.members(name) for name in names]
    new = [
        i for i, some in enumerate(members)
        if len(some) > 1 and not pool.is_exact and not pool.measured[i]
    ]  # fmt: skip
    nan, without = np.full(len(names), np.nan), [""] * len(names)
    if not new:
        return Admission(np.ones(len(names), bool), nan, nan, without, False)
    place = {key(name): i for i, name in enumerate(names)}
    more = dict.fromkeys(
        each for i in new for each in members[i]
        if key(each) not in place and can_be_candidate(each, fit)
    )  # fmt: skip
    draws, measured, every = asked.distances.draws, pool.measured, [*names, *more]
    if more:
        both = read_candidates(every, None, fit)
        options: dict[str, Any] = {"n_samples": asked.n_samples, "rng": 0}
        goal = wanted.goal
        if wanted.every is not None:
            again = replace(wanted, goal=wanted.every)
            goal = bind(again, fit, both.interventions.targets)[0].goal
        draws = as_asked(fit, both, goal, wanted.targets, **options).distances.draws
        measured = both.measured
        place |= {key(name): len(names) + i for i, name in enumerate(more)}
    own = own_perturbation(more, wanted.label, fit)  # no candidate, though a member
    known = [int(j) for j in np.flatnonzero(measured) if every[j] not in own]
    best = min(known, key=lambda j: float(draws[:, j].mean()), default=None)
    columns = {i: [place[key(m)] for m in members[i] if key(m) in place] for i in new}
    over_members, over_measured = (
        each[: len(names)] for each in nearer_than_known(draws, columns, best)
    )
    admitted = np.ones(len(names), bool)
    for each in (over_members, over_measured):
        admitted &= np.isnan(each) | (each > MORE_LIKELY)
    if not admitted.all():
        asked.admit(admitted)
    q_value = dict(zip(map(key, fit.names), fit.environments["q_value"], strict=True))
    for i in new:
        without[i] = ", ".join(m for m in members[i] if q_value.get(key(m), 0.0) >= _NO_EFFECT)
    joint = any(len(fit.naming.members(fit.names[j])) > 1 for j in np.flatnonzero(fit.seen))
    adds_up = bool(admitted[new].any()) and not joint
    return Admission(admitted, over_members, over_measured, without, adds_up)


def not_admitted_in_words(n: int) -> str:
    """Return why some untested combinations are no candidates of a plan.

    Examples
    --------
    >>> from nextpert.tl._design_interventions.combinations import not_admitted_in_words
    >>> not_admitted_in_words(1200)[:46]
    '1,200 untested combinations are no candidates:'
    """
    return (
        f"{n:,} untested combinations are no candidates: they are not nearer than their members "
        f"and than the best measured perturbation with probability above {MORE_LIKELY:g}."
    )
