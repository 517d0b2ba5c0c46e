"""The candidates of a design: reading and excluding them, and untested combinations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata import in_order, list_names
from nextpert._warn import warn
from nextpert.core.fit.candidates import CandidateSet, as_asked, as_fitted, fitted_candidates
from nextpert.core.fit.naming import places
from nextpert.study.environments import unknown_genes
from nextpert.study.shifts import read_table
from nextpert.tl._design_interventions.target import without_own_genes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from nextpert.core.design.candidates import Candidates
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.tl._design_interventions.target import PanelTarget


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
        name for name, targets, is_seen in zip(fit.names, fit.targets, fit.seen, strict=True)
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


MORE_LIKELY = 0.5  # a combination is admitted if it is nearer with a probability above this


class Admission(NamedTuple):
    """Which candidates are admitted to a plan that looks for the nearest, and why.

    ``columns``, with the control last, are the probabilities that an untested combination is nearer
    than all its members, and than the best measured candidate. All candidates are ``admitted``
    except untested combinations for which one of the two is 0.5 or less. ``adds_up`` says that
    untested combinations are admitted although no measured combination shows interactions.
    """

    admitted: NDArray[np.bool_]
    columns: Mapping[str, NDArray[Any]]
    adds_up: bool

    def rows(self, some: NDArray[np.int64]) -> Admission:
        """Return the admission of some candidates, and of the control."""
        columns = {name: column[[*some, -1]] for name, column in self.columns.items()}
        return self._replace(admitted=self.admitted[some], columns=columns)


def admit(
    asked: Candidates, pool: CandidateSet, fit: FittedPosterior, target: PanelTarget
) -> Admission:
    """Admit candidates; the probabilities of being the nearest in ``asked`` then count only these.

    Combinations are compared with their members and the best measured candidate in the same draws.
    If some members are not candidates, new draws contain them.
    """
    names, key, members = pool.interventions.names, fit.naming.key, fit.naming.members
    new = {
        i: members(name) for i, name in enumerate(names)
        if len(members(name)) > 1 and not pool.is_exact and not pool.measured[i]
    }  # fmt: skip
    admitted = np.ones(len(names), bool)
    over_members, over_best = np.full((2, len(names) + 1), np.nan)
    columns = {
        "probability_nearer_than_members": over_members,
        "probability_nearer_than_measured": over_best,
    }
    if not new:
        return Admission(admitted, columns, False)
    place = {key(name): i for i, name in enumerate(names)}
    more = dict.fromkeys(
        each for some in new.values() for each in some
        if key(each) not in place and can_be_candidate(each, fit)
    )  # fmt: skip
    draws, measured, every = asked.distances.draws, pool.measured, [*names, *more]
    if more:
        both, goal = read_candidates(every, fit), target.goal
        if target.every is not None and target.control is not None:
            *each, common = places([*both.interventions.targets, target.left_out[-1]], fit.genes)
            goal = target.every.leave_out(common, each, target.control)
        options: dict[str, Any] = {"n_samples": asked.n_samples, "rng": 0}
        draws = as_asked(fit, both, goal, target.targets, **options).distances.draws
        measured = both.measured
        place |= {key(name): len(names) + i for i, name in enumerate(more)}
    known = [  # without the target's own perturbation, if it is a member but not a candidate
        int(j) for j in np.flatnonzero(measured)
        if j < len(names) or target.label is None or key(every[j]) != key(target.label)
    ]  # fmt: skip
    best = min(known, key=lambda j: float(draws[:, j].mean()), default=None)
    for i, some in new.items():
        own = [place[key(each)] for each in some if key(each) in place]
        if own:
            over_members[i] = (draws[:, [i]] < draws[:, own]).all(axis=1).mean()
        if best is not None:
            over_best[i] = (draws[:, i] < draws[:, best]).mean()
        admitted[i] = not (over_members[i] <= MORE_LIKELY or over_best[i] <= MORE_LIKELY)
    if not admitted.all():
        asked.admit(admitted)
    joint = any(len(members(fit.names[j])) > 1 for j in np.flatnonzero(fit.seen))
    return Admission(admitted, columns, bool(admitted[[*new]].any()) and not joint)


def not_admitted_in_words(n: int) -> str:
    """Return why some untested combinations are not candidates of a plan."""
    return (
        f"{n:,} untested combinations are not candidates: the probability that they are nearer "
        f"than their members, or than the best measured perturbation, is at most {MORE_LIKELY:g}."
    )
