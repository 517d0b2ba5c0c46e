"""The combinations that come nearest to a target state, without listing them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._checks import as_vector, require_count, require_finite

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

_CHUNK = 4_000_000  # pairs looked at in one go


class NearestSums(NamedTuple):
    """Combinations, nearest first.

    Parameters
    ----------
    members
        Indices of the members, in order, shape ``(n, size)``.
    distance
        Squared distance of their sum to the wanted effect, shape ``(n,)``.
    """

    members: Index
    distance: Array


def nearest_sums(
    effects: ArrayLike, wanted: ArrayLike, size: int, n_best: int, *, width: int = 500
) -> NearestSums:
    """Return the combinations of some size whose summed effects are nearest to those wanted.

    Pairs are all looked at, in blocks of one matrix product. Of three and more a beam search: the
    ``width`` best combinations of one member fewer are each joined by every further member.

    Parameters
    ----------
    effects
        What every member adds to a combination, shape ``(n_members, n_dims)``.
    wanted
        Change that is wanted, shape ``(n_dims,)``, same units.
    size
        Members of a combination, at least 1.
    n_best
        Number of combinations to return; where there are fewer, all.
    width
        Combinations kept at each step of the beam search, at least ``n_best`` of them.

    Raises
    ------
    ValueError
        If shapes differ or a number is not finite or too small.

    Examples
    --------
    >>> from nextpert.core.design.nearest_sums import nearest_sums
    >>> found = nearest_sums([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]], [2.0, 1.0], 2, 2)
    >>> found.members.tolist(), found.distance.tolist()
    ([[1, 2], [0, 1]], [0.0, 1.0])
    """
    each = np.asarray(effects, dtype=np.float64)
    if each.ndim != 2 or not len(each):
        message = f"effects must be (n_members, n_dims), but their shape is {each.shape}."
        raise ValueError(message)
    require_finite(each, "effects")
    goal = as_vector(wanted, each.shape[1], "wanted")
    size, n_best = require_count(size, "size"), require_count(n_best, "n_best")
    width = max(require_count(width, "width"), n_best)
    own = (each**2).sum(axis=1) - 2 * each @ goal  # |sum|^2 - 2 sum'goal, member by member
    kept, score = np.arange(len(each), dtype=np.int64)[:, None], own
    for step in range(2, size + 1):
        keep = n_best if step == size else width
        few = np.argsort(score, kind="stable")[: width if step > 2 else len(score)]
        kept, score = _joined(each, own, kept[few], score[few], keep)
    order = np.lexsort((*kept.T[::-1], score))[:n_best]
    distance = np.maximum(score[order] + goal @ goal, 0.0)
    return NearestSums(kept[order], distance)


def _joined(each: Array, own: Array, sets: Index, score: Array, keep: int) -> tuple[Index, Array]:
    """Return the best of all sets joined by one more member, each set once."""
    sums = each[sets].sum(axis=1)
    found_sets: Index = np.empty((0, sets.shape[1] + 1), dtype=np.int64)
    found: Array = np.empty(0)
    rows = max(1, _CHUNK // len(each))
    for start in range(0, len(sets), rows):
        part = slice(start, start + rows)
        value = score[part, None] + own + 2 * sums[part] @ each.T
        for member in sets[part].T:
            value[np.arange(len(member)), member] = np.inf
        if sets.shape[1] == 1:  # each pair once
            value[np.arange(len(each)) < sets[part]] = np.inf
        # The same set of three comes up to three times, so thrice as many are kept for now.
        most = min(keep * (1 if sets.shape[1] == 1 else sets.shape[1] + 1), value.size)
        best = np.argpartition(value, most - 1, axis=None)[:most]
        best = best[np.isfinite(value.ravel()[best])]
        row, member = np.unravel_index(best, value.shape)
        new = np.sort(np.column_stack([sets[part][row], member]), axis=1)
        found_sets = np.vstack([found_sets, new])
        found = np.append(found, value.ravel()[best])
        found_sets, first = np.unique(found_sets, axis=0, return_index=True)
        found = found[first]
        order = np.argsort(found, kind="stable")[:keep]
        found_sets, found = found_sets[order], found[order]
    return found_sets, found
