"""What is wanted, read from the cells: the goal of a :class:`nextpert.Target` on the panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata import (
    checksum_of_cells,
    fitted_roles,
    list_names,
    panel_index,
    read_every_label,
    read_groupings,
    read_labels,
    warn_of_changed_cells,
)
from nextpert._adata.target import (
    NAMED,
    Target,
    as_target,
    cell_variance,
    how_measured,
    listed,
    numbers_in_words,
)
from nextpert.core.design.goal import Goal
from nextpert.core.design.joint_draws import NOT_JOINED, Joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import Roles
    from nextpert._adata.batches import Batches
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.screen.moments import Moments

    Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Wanted:
    """What is wanted: how the user called it, and the distance to it on the panel.

    Parameters
    ----------
    name
        In words.
    goal
        The distance. A target state that is a perturbation of the fit is its posterior mean.
    cells
        The same distance to the means of the target's cells, with their sampling error.
    distance
        How it measures, a word.
    label
        The perturbation whose cells' mean is the target state, where it is one.
    targets
        What has a part in the candidates' draws: target states that are perturbations of the
        hierarchical model, and the numbers of a single one that was given by them.
    target_genes
        Genes that these perturbations target, which count for nobody; ``None`` where all count.
    left_out
        Genes left out for each candidate and, last, the control, once they are known.
    not_ranked
        Candidates that are not ranked because of that, and why.
    every
        The distance on all genes, where some are left out.
    """

    name: str
    goal: Goal
    cells: Goal
    distance: str = "squared"
    label: str | None = None
    targets: Joined = NOT_JOINED
    target_genes: tuple[str, ...] | None = None
    left_out: Sequence[Sequence[str]] = ()
    not_ranked: Mapping[str, str] = field(default_factory=dict)
    every: Goal | None = None

    @property
    def mean(self) -> Vector:
        """The target mean, or of all that reach the goal the nearest to control, ``(n_genes,)``."""
        goal = self.goal if self.every is None else self.every
        return goal.quadratic(goal.origin).point

    def rows(self, some: NDArray[np.int64]) -> Wanted:
        """Return what is wanted of some candidates, in the order given, and of the control."""
        if not self.left_out:
            return self
        index = [*some.tolist(), -1]
        return replace(
            self, goal=self.goal.rows(index), cells=self.cells.rows(index),
            left_out=[self.left_out[i] for i in index],
        )  # fmt: skip

    @property
    def genes_in_words(self) -> str:
        """Which genes are left out; empty where none is."""
        if not any(self.left_out):
            return ""
        first = self.left_out[-1]
        names = [list_names(first)] if first else []
        if any(len(some) > len(first) for some in self.left_out):
            names.append("the target genes of each candidate")
        return f"without {' and '.join(names)}"


class _Read(NamedTuple):
    name: str
    mean: Vector
    variance: Vector | None
    label: str | None = None  # of the perturbation whose cells these are
    n_cells: int = 0  # 0: given by its numbers


class Group(NamedTuple):
    """Cells whose mean is a state: 0 for these, -1 for others; its name, and its perturbation."""

    codes: NDArray[np.int64]
    name: str
    label: str | None = None


def read_group(adata: ad.AnnData, state: Any, roles: Roles, *columns: str) -> Group:
    """Return the cells of a label, or of a pair (column, value), or raise if there are none.

    ``columns`` are those that hold perturbations; bare labels are of the first.
    """
    key, value = (columns[0], state) if isinstance(state, str) else map(str, state)
    is_label, argument = key in columns, "target or perturbation_key"
    labels = (
        read_every_label(adata, replace(roles, perturbation_key=key), argument=argument)
        if is_label
        else read_labels(adata, key, argument=argument)
    )
    (value,) = labels.spelled([value])
    labels.require([value], "Target")
    name = value if isinstance(state, str) else f"{key}={value}"
    return Group(labels.groups([value]), name, value if is_label else None)


def weights_of(given: Target, genes: Sequence[str]) -> Vector:
    """Return what every gene counts for in a target, shape ``(n_genes,)``."""
    if given.weights is None:
        return np.ones(len(genes))
    is_list = not isinstance(given.weights, (Mapping, pd.Series))
    each = dict.fromkeys(given.weights, 1.0) if is_list else given.weights
    return _by_gene(each, genes, "weights", 0.0)


def read_target(
    adata: ad.AnnData,
    target: Any,
    fit: FittedPosterior,
    perturbation_key: str,
    *,
    key: str | None = None,
) -> Wanted:
    """Return what is wanted as a goal on the genes of the panel; cells are read in one pass.

    With ``key`` they are compared on the way with those of the fit, which is in ``uns[key]``.

    Raises
    ------
    ValueError
        If a label or group is unknown (close matches are suggested), a gene is outside the panel, a
        vector is not over the panel, a number is not finite, a group that is not in the fit has one
        cell, parts contradict each other, or control cells reach it already.
    TypeError
        If ``target`` is none of its forms.
    """
    given = as_target(target, fit.genes)
    asked = [*listed(given.state), *listed(given.away_from)]
    own_key, roles = str(fit.params["perturbation_key"]), fitted_roles(adata, fit.params)
    groups = [
        None  # given by its numbers
        if isinstance(state, (Mapping, pd.Series))
        else read_group(adata, state, roles, perturbation_key, own_key)
        for state in asked
    ]
    if given.distance == "noise":
        groups.append(read_group(adata, str(fit.params["control"]), roles, own_key))
    codes = [(group.codes, 1) for group in groups if group is not None]
    moments: list[list[Moments]] = []
    batches, checksum = None, None if key is None else checksum_of_cells(adata, fit)
    if codes or checksum is not None:
        moments, batches, number = read_groupings(
            adata, fit.columns, codes, roles, checksum=checksum
        )
        if key is not None:
            warn_of_changed_cells(adata, fit, key, number)
    cells = (one for (one,) in moments)
    read = [
        _as_given(state, fit) if group is None else _state(group, next(cells), batches)
        for state, group in zip(asked, groups, strict=False)
    ]
    for state in read:
        if state.n_cells == 1 and state.label not in fit.names:
            message = (
                f"The target {state.name!r} has 1 cell, so the sampling error of its mean is not "
                f"known: name a group of more cells, or give a mapping of genes to means, which "
                f"are taken as exact."
            )
            raise ValueError(message)
    states, away = read[: len(listed(given.state))], read[len(listed(given.state)) :]
    weights = weights_of(given, fit.genes)
    scale = np.ones(len(fit.genes))
    if given.distance == "noise":
        scale = 1 / cell_variance(next(cells), fit.genes, weights)
    low = _by_gene(given.at_least, fit.genes, "at_least", -np.inf)
    high = _by_gene(given.at_most, fit.genes, "at_most", np.inf)
    crossed = [fit.genes[i] for i in np.flatnonzero(low > high)]
    signature = None
    if given.signature is not None:
        signature = _by_gene(given.signature, fit.genes, "signature", 0.0)
        _require_weighed(signature != 0, weights, fit, "signature")
        signature = signature / np.sqrt(scale)
    for name, bound in (("at_least", low), ("at_most", high)):
        _require_weighed(np.isfinite(bound), weights, fit, name)
    if crossed:
        message = f"at_least is above at_most for {list_names(crossed)}: no state is between."
        raise ValueError(message)
    make = partial(
        Goal,
        fit.control_mean,
        shares=None if given.shares is None else list(given.shares),
        signature=signature,
        low=low,
        high=high,
        away_from=[state.mean for state in away] or None,
        margins=None if given.margin is None else [given.margin] * len(away),
        weights=weights,
        scale=scale,
        penalty=given.penalty,
        direction_only=given.distance == "cosine",
    )
    means, variances = [each.mean for each in states], [each.variance for each in states]
    of_cells = make(states=means or None, variances=variances)
    name = _in_words(given, states, away)
    _require_something(of_cells, name, away)
    targets = NOT_JOINED
    if fit.hierarchical is not None:  # what of the target has a part in its draws
        found = fit.rows_of(state.label or "" for state in states)
        is_own = perturbation_key == own_key
        rows = (int(row) if is_own and row >= 0 and fit.seen[row] else -1 for row in found)
        by_numbers = len(states) == 1 and not states[0].n_cells
        numbers = given_by_numbers(states[0].mean, fit) if by_numbers else None
        targets = Joined(tuple(rows), numbers)
    for k, row in enumerate(targets.rows):
        if row >= 0:  # its error is that of the draws
            means[k], variances[k] = fit.expected_state(row), None
    goal = of_cells
    if max(targets.rows, default=-1) >= 0:
        goal = make(states=means, variances=variances)
    label = states[0].label if len(states) == 1 else None
    genes = None
    plain = goal.is_states or (goal.direction_only and given.state is not None)
    if given.own_genes == "exclude" and plain and min(targets.rows, default=-1) >= 0:
        genes = tuple(dict.fromkeys(gene for row in targets.rows for gene in fit.targets[row]))
    return Wanted(name, goal, of_cells, given.distance, label, targets, genes)


def given_by_numbers(mean: Vector, fit: FittedPosterior) -> Vector:
    """Return the numbers of a target state, NaN of genes that are at the mean of control cells.

    These are as if they were not named: their numbers say nothing that the controls do not.
    """
    same = np.isclose(mean, fit.control_mean, rtol=1e-6, atol=1e-9)
    return np.where(same, np.nan, mean)


def _require_something(goal: Goal, name: str, away: list[_Read]) -> None:
    message = ""
    same = [np.array_equal(state, goal.origin) for state in goal.states]
    if any(same) and (len(same) == 1 or goal.direction_only):
        message = f"The target {name!r} is the control state itself: nothing to reach."
    elif goal.distance(goal.origin[None])[0] == 0:
        message = f"The target {name!r} is reached by the control cells already: nothing to do."
    elif len(goal.margins) and not goal.margins.all():
        message = (
            f"away_from {away[int(goal.margins.argmin())].name!r} asks for no distance, as control "
            f"cells have none of it: give a margin above 0."
        )
    if message:
        raise ValueError(message)


def _state(group: Group, cells: Moments, batches: Batches | None) -> _Read:
    variance = None
    if cells.n > 1:
        error = 0.0 if batches is None else float((batches.errors(group.codes, 1) ** 2).sum())
        variance = cells.scatter.diagonal() / (cells.n - 1) * (1 / cells.n + error)
    return _Read(group.name, cells.mean, variance, group.label, int(cells.n))


def _as_given(state: Mapping[str, float] | pd.Series, fit: FittedPosterior) -> _Read:
    genes = [str(gene) for gene, _ in state.items()]
    if not genes or len(set(genes)) < len(genes):
        message = "target must name at least one gene, and every gene once."
        raise ValueError(message)
    place = panel_index(genes, fit.genes, "target")
    mean = fit.control_mean.copy()
    mean[place] = [float(value) for _, value in state.items()]
    # Few are named: those that change most, by which targets differ.
    apart = np.abs(mean - fit.control_mean)[place] if len(genes) > NAMED else np.zeros(len(genes))
    named = {genes[i]: float(mean[place[i]]) for i in np.argsort(-apart, kind="stable")}
    return _Read(numbers_in_words(named, "="), mean, None)


def _by_gene(given: Any, genes: Sequence[str], name: str, default: float) -> Vector:
    """Return numbers by gene, ``(n_genes,)``; ``name`` is the part of the target that has them."""
    found = np.full(len(genes), default)
    if given is not None:
        place = panel_index([str(gene) for gene, _ in given.items()], genes, f"{name} of target")
        found[place] = [float(value) for _, value in given.items()]
    return found


def _require_weighed(
    used: NDArray[np.bool_], weights: Vector, fit: FittedPosterior, name: str
) -> None:
    lost = [fit.genes[i] for i in np.flatnonzero(used & (weights == 0))]
    if lost:
        message = (
            f"{name} names {list_names(lost)}, which count for nothing by weights: add them to "
            f"weights, or leave them out."
        )
        raise ValueError(message)


def _in_words(given: Target, states: list[_Read], away: list[_Read]) -> str:
    parts = []
    if states:
        names = [state.name for state in states]
        if given.shares is not None:
            names = [f"{s:g} x {name}" for s, name in zip(given.shares, names, strict=True)]
        parts.append(list_names(names, limit=5) if len(names) > 1 else names[0])
    if given.signature is not None:
        parts.append(f"change of {numbers_in_words(given.signature, ' ', sign='+')}")
    for name, sign in (("at_least", " >= "), ("at_most", " <= ")):
        bound = getattr(given, name)
        if bound is not None:
            parts.append(numbers_in_words(bound, sign))
    if away:
        by = "" if given.margin is None else f" by {given.margin:g}"
        parts.append(f"away from {list_names((state.name for state in away), limit=5)}{by}")
    return "; ".join([*parts, *how_measured(given)])
