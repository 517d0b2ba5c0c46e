"""Untested combinations: which of them are candidates of a plan to find the nearest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert._adata import strings
from nextpert.core.design.admission import MORE_LIKELY, nearer_than_known
from nextpert.core.fit.candidates import as_asked
from nextpert.tl._design_interventions.candidates import can_be_candidate, read_candidates
from nextpert.tl._design_interventions.own_genes import bind

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    columns
        Of every candidate and the control, last: the probability that an untested combination is
        nearer than all its members, and than the best measured candidate, NaN of others; and the
        members that do not differ from the controls.
    adds_up
        Whether some admitted are untested combinations, and no measured one tells of interactions.
    """

    admitted: NDArray[np.bool_]
    columns: Mapping[str, NDArray[Any]]
    adds_up: bool


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
    admitted, over = np.ones(len(names), bool), np.full((2, len(names) + 1), np.nan)
    without = strings([""] * (len(names) + 1))
    columns = {
        "probability_nearer_than_members": over[0],
        "probability_nearer_than_measured": over[1],
        "members_without_effect": without,
    }
    if not new:
        return Admission(admitted, columns, False)
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
    known = [  # of the members that are no candidates, not the target's own perturbation
        int(j) for j in np.flatnonzero(measured)
        if j < len(names) or wanted.label is None or key(every[j]) != key(wanted.label)
    ]  # fmt: skip
    best = min(known, key=lambda j: float(draws[:, j].mean()), default=None)
    columns_of = {i: [place[key(m)] for m in members[i] if key(m) in place] for i in new}
    for row, each in zip(over[:, :-1], nearer_than_known(draws, columns_of, best), strict=True):
        row[:] = each[: len(names)]
        admitted &= np.isnan(row) | (row > MORE_LIKELY)
    if not admitted.all():
        asked.admit(admitted)
    q_value = dict(zip(map(key, fit.names), fit.environments["q_value"], strict=True))
    for i in new:
        without[i] = ", ".join(m for m in members[i] if q_value.get(key(m), 0.0) >= _NO_EFFECT)
    joint = any(len(fit.naming.members(fit.names[j])) > 1 for j in np.flatnonzero(fit.seen))
    adds_up = bool(admitted[new].any()) and not joint
    return Admission(admitted, columns, adds_up)


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
