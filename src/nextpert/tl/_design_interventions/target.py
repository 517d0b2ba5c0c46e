"""What is wanted, read from the cells: the goal of a :class:`nextpert.Target` on the panel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata import (
    fitted_roles,
    list_names,
    panel_index,
    read_every_label,
    read_groups,
    read_labels,
)
from nextpert._adata.target import (
    Target,
    as_target,
    cell_variance,
    how_measured,
    listed,
    numbers_in_words,
)
from nextpert.core.predict.goal import Goal

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior, LabelTable
    from nextpert.core.cells.moments import Moments

    Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Wanted:
    """What is wanted: how the user called it, and the distance to it on the panel.

    Parameters
    ----------
    name
        In words.
    goal
        The distance.
    distance
        How it measures, a word.
    label
        The perturbation whose cells' mean is the target state, where it is one.
    """

    name: str
    goal: Goal
    distance: str = "squared"
    label: str | None = None

    @property
    def mean(self) -> Vector:
        """The wanted mean, or of all that reach the goal the nearest to control, ``(n_genes,)``."""
        return self.goal.quadratic(self.goal.origin).point


class _Read(NamedTuple):
    name: str
    mean: Vector
    variance: Vector | None
    label: str | None = None  # of the perturbation whose cells these are


def read_target(
    adata: ad.AnnData, target: Any, fit: FittedPosterior, perturbation_key: str
) -> Wanted:
    """Return what is wanted as a goal on the genes of the panel.

    Raises
    ------
    ValueError
        If a label or group is unknown (close matches are given), a gene is outside the panel, a
        number is not finite, parts contradict each other, or control cells reach it already.
    TypeError
        If ``target`` is none of its forms.
    """
    given = as_target(target)

    def read(states: Any) -> list[_Read]:
        return [_state(adata, state, fit, perturbation_key) for state in listed(states)]

    states, away = read(given.state), read(given.away_from)
    weights = _weights(given, fit)
    scale = np.ones(len(fit.genes))
    if given.distance == "noise":
        scale = 1 / _noise(adata, fit, weights)
    low, high = _bounds(given, fit, weights)
    goal = Goal(
        fit.control_mean,
        states=[state.mean for state in states] or None,
        shares=None if given.shares is None else list(given.shares),
        variances=[state.variance for state in states],
        signature=_signature(given, fit, weights, scale),
        low=low,
        high=high,
        away_from=[state.mean for state in away] or None,
        margins=None if given.margin is None else [given.margin] * len(away),
        weights=weights,
        scale=scale,
        penalty=given.penalty,
        direction_only=given.distance == "cosine",
    )
    name = _in_words(given, states, away)
    _require_something(goal, name, away)
    label = states[0].label if len(states) == 1 else None
    return Wanted(name, goal, given.distance, label)


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


def _state(adata: ad.AnnData, state: Any, fit: FittedPosterior, perturbation_key: str) -> _Read:
    if isinstance(state, (Mapping, pd.Series)):
        return _as_given(state, fit)
    key, value = (perturbation_key, state) if isinstance(state, str) else map(str, state)
    is_label = key in (perturbation_key, str(fit.params["perturbation_key"]))
    labels = _labels(adata, fit, key, is_label=is_label)
    (value,) = labels.spelled([value])
    name = value if isinstance(state, str) else f"{key}={value}"
    moments, batches = _moments(adata, fit, labels, value)
    variance = None
    if moments.n > 1:
        variance = moments.scatter.diagonal() / (moments.n - 1) * (1 / moments.n + batches)
    return _Read(name, moments.mean, variance, value if is_label else None)


def _labels(adata: ad.AnnData, fit: FittedPosterior, key: str, *, is_label: bool) -> LabelTable:
    """Return the groups of a column, perturbations or others."""
    argument = "target or perturbation_key"
    if not is_label:
        return read_labels(adata, key, argument=argument)
    roles = replace(fitted_roles(adata, fit.params), perturbation_key=key)
    return read_every_label(adata, roles, argument=argument)


def _moments(
    adata: ad.AnnData, fit: FittedPosterior, labels: LabelTable, value: str
) -> tuple[Moments, float]:
    """Return the moments of the cells, and what batches add to the variance of their mean."""
    labels.require([value], "Target")
    roles, codes = fitted_roles(adata, fit.params), labels.groups([value])
    (moments,), batches = read_groups(adata, fit.columns, codes, 1, roles)
    return moments, 0.0 if batches is None else float((batches.errors(codes, 1) ** 2).sum())


def _as_given(state: Mapping[str, float] | pd.Series, fit: FittedPosterior) -> _Read:
    genes = [str(gene) for gene, _ in state.items()]
    if not genes or len(set(genes)) < len(genes):
        message = "target must name at least one gene, and every gene once."
        raise ValueError(message)
    place = panel_index(genes, fit.genes, "target")
    values = np.array([float(value) for _, value in state.items()])
    bad = [gene for gene, value in zip(genes, values, strict=True) if not np.isfinite(value)]
    if bad:
        message = f"target holds NaN or infinite means for {list_names(bad)}: give numbers."
        raise ValueError(message)
    mean = fit.control_mean.copy()
    mean[place] = values
    return _Read(numbers_in_words(state, "="), mean, None)


def _weights(given: Target, fit: FittedPosterior) -> Vector:
    if given.weights is None:
        return np.ones(len(fit.genes))
    if isinstance(given.weights, (Mapping, pd.Series)):
        return _by_gene(given.weights, fit, "weights", 0.0)
    return _by_gene(dict.fromkeys(given.weights, 1.0), fit, "weights", 0.0)


def _noise(adata: ad.AnnData, fit: FittedPosterior, weights: Vector) -> Vector:
    """Return the variance of control cells, gene by gene."""
    key, control = str(fit.params["perturbation_key"]), str(fit.params["control"])
    moments, _ = _moments(adata, fit, _labels(adata, fit, key, is_label=True), control)
    return cell_variance(moments, fit.genes, weights)


def _signature(
    given: Target, fit: FittedPosterior, weights: Vector, scale: Vector
) -> Vector | None:
    if given.signature is None:
        return None
    change = _by_gene(given.signature, fit, "signature", 0.0)
    _require_weighed(change != 0, weights, fit, "signature")
    return change / np.sqrt(scale)


def _bounds(given: Target, fit: FittedPosterior, weights: Vector) -> tuple[Vector, Vector]:
    low = _by_gene(given.at_least, fit, "at_least", -np.inf)
    high = _by_gene(given.at_most, fit, "at_most", np.inf)
    for name, bound in (("at_least", low), ("at_most", high)):
        _require_weighed(np.isfinite(bound), weights, fit, name)
    crossed = [fit.genes[i] for i in np.flatnonzero(low > high)]
    if crossed:
        message = f"at_least is above at_most for {list_names(crossed)}: no state is between."
        raise ValueError(message)
    return low, high


def _by_gene(given: Any, fit: FittedPosterior, name: str, default: float) -> Vector:
    found = np.full(len(fit.genes), default)
    if given is not None:
        pairs = [(str(gene), float(value)) for gene, value in given.items()]
        found[panel_index([gene for gene, _ in pairs], fit.genes, f"{name} of target")] = [
            v for _, v in pairs
        ]
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
