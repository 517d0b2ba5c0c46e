"""Members of combinations by their labels, and what is known of members alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from numpy.typing import NDArray

    from nextpert.core import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior

    Array = NDArray[np.float64]


def members_of(
    label: str, genes: Container[str], *, separator: str, control: str
) -> tuple[str, ...]:
    """Return the members that a label names, sorted: one for single perturbations.

    ``"B+A"`` is ``"A+B"``; a label that is itself a gene is never split, and the label of the
    controls is no member.

    Examples
    --------
    >>> from nextpert._adata.members import members_of
    >>> members_of("MYC + FOS", set(), separator="+", control="control")
    ('FOS', 'MYC')
    """
    parts = [label] if label in genes or not separator else label.split(separator)
    return tuple(sorted({part.strip() for part in parts} - {control, ""}))


def numbered(
    labels: Iterable[tuple[str, ...]], first: Sequence[str] = ()
) -> tuple[list[str], list[tuple[int, ...]]]:
    """Return all members, ``first`` ones first, and the members of every label by number."""
    some = list(labels)
    names = list(dict.fromkeys([*first, *(name for members in some for name in members)]))
    place = {name: k for k, name in enumerate(names)}
    return names, [tuple(place[name] for name in members) for members in some]


def pooled(
    combinations: Sequence[tuple[int, ...]], effects: Array, variance: Array
) -> tuple[list[tuple[int, ...]], Array, Array, NDArray[np.int64]]:
    """Return combinations once each, effects of labels of the same members pooled.

    Effects and their variances have the shape ``(n_combinations, n_genes)``; they are weighted by
    precision. The last is the place of each label among what is returned.
    """
    unique = list(dict.fromkeys(combinations))
    number = {some: k for k, some in enumerate(unique)}
    place = np.array([number[some] for some in combinations], np.int64)
    if len(unique) == len(combinations):
        return unique, effects, variance, place
    weight = 1.0 / np.maximum(variance, 1e-300)
    total, mean = np.zeros((2, len(unique), effects.shape[1]))
    np.add.at(total, place, weight)
    np.add.at(mean, place, weight * effects)
    return unique, mean / total, 1.0 / total, place


def effects_alone(
    posteriors: Sequence[DagBlr], known: Sequence[ShiftPosterior], within: Array
) -> tuple[Array, Array]:
    """Return mean and variance of the effects of perturbations, models averaged over.

    Both of shape ``(n_perturbations, n_genes)``. The variance is that of shifts as one of effects,
    ``within`` the variance of cells, shape ``(n_genes,)``.
    """
    mean, variance = np.zeros((2, *known[0].mean.shape))
    for blr, shifts in zip(posteriors, known, strict=True):
        does = shifts.states(blr) - blr.predict_mean(np.zeros(blr.n_nodes))
        mean += shifts.weight * does
        variance += shifts.weight * shifts.spare * within
    return mean, variance
