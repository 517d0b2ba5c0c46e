"""Sums of the environments that a block of cells holds, and how two such sums become one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from nextpert.core._blas import one_thread
from nextpert.core.cells.moments import not_finite, sparse_moments, too_large

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Sparse squares are summed about zero; where less than this share of them is left, digits are gone.
_LOST_DIGITS = 1e-6
# Above this share of non-zero values, dense products are faster than sparse ones.
DENSE_SHARE = 0.25
# Sparse sums need so many cells an environment: of fewer, some are alike in some gene, digits are
# lost, and the block is summed twice.
_CELLS_EACH = 8


class Part(NamedTuple):
    """Some environments, ascending: cells, means and squares of each, one scatter of every fold.

    ``squares`` are sums of squared deviations from the environment's own mean, ``scatter`` the
    sum over all cells of a fold of the products of such deviations, by fold.
    """

    groups: NDArray[np.int64]  # (n_present,)
    fold: NDArray[np.int64]  # (n_present,)
    n: NDArray[np.int64]  # (n_present,)
    mean: NDArray[np.float64]  # (n_present, p)
    squares: NDArray[np.float64]  # (n_present, p)
    scatter: dict[int, NDArray[np.float64]]  # (p, p) each


def empty_part(n_nodes: int) -> Part:
    """Return the sums of no cells."""
    none, flat = np.zeros(0, np.int64), np.zeros((0, n_nodes))
    return Part(none, none, none, flat, flat, {})


@one_thread()
def screen_part(
    values: Any,
    groups: NDArray[np.int64],
    weights: NDArray[np.int64] | None = None,
    fold: NDArray[np.int64] | None = None,
) -> Part:
    """Return the sums of a block of cells.

    Parameters
    ----------
    values
        Dense, or CSR with sorted columns given once, shape ``(n_cells, n_nodes)``.
    groups
        Environment of every cell, none below 0, shape ``(n_cells,)``.
    weights
        How often every cell counts, shape ``(n_cells,)``; ``None`` stands for once.
    fold
        Fold of every environment, shape ``(n_groups,)``; ``None`` stands for one fold of all.

    Raises
    ------
    ValueError
        If a value is NaN or infinite; the error's ``columns`` say where.
    """
    if weights is not None:
        taken = np.flatnonzero(weights)
        values, groups, weights = values[taken], groups[taken], weights[taken]
    if values.shape[0] == 0:
        return empty_part(values.shape[1])
    present, place = np.unique(groups, return_inverse=True)
    fold = np.zeros(len(present), np.int64) if fold is None else fold[present]
    count = np.ones(len(groups)) if weights is None else weights.astype(np.float64)
    members = sp.csr_array(
        (count, (place, np.arange(len(place)))), shape=(len(present), len(place))
    )
    n = np.asarray(members.sum(axis=1)).astype(np.int64)
    if sp.issparse(values):
        many = len(present) * _CELLS_EACH > values.shape[0]
        full = values.nnz > DENSE_SHARE * values.shape[0] * values.shape[1]
        if weights is None and not many and not full:
            part = _sparse(values, present, fold, n, members, place)
            if part is not None:
                return part
        values = values.toarray()
    return _dense(np.asarray(values, np.float64), present, fold, n, members, place, count)


def _dense(
    values: NDArray[np.float64],
    present: NDArray[np.int64],
    fold: NDArray[np.int64],
    n: NDArray[np.int64],
    members: sp.csr_array,
    place: NDArray[np.int64],
    count: NDArray[np.float64],
) -> Part:
    with np.errstate(invalid="ignore", over="ignore"):  # named below
        mean = (members @ values) / n[:, None]
        if not np.isfinite(mean).all():
            bad = np.asarray(~np.isfinite(values).all(axis=0))
            large = np.asarray(~np.isfinite(mean).all(axis=0))
            raise not_finite(bad) if bad.any() else too_large(large)
        centred = values - mean[place]
        squares = members @ (centred * centred)
        centred *= np.sqrt(count)[:, None]
        scatter = {}
        for k, rows in _by_fold(fold, place):
            some = centred[rows]
            scatter[k] = some.T @ some
    for k, each in scatter.items():
        if not np.isfinite(each).all():
            raise too_large(np.asarray(~np.isfinite(each).all(axis=0)))
        scatter[k] = (each + each.T) / 2
    return Part(present, fold, n, mean, squares, scatter)


def _sparse(
    values: sp.csr_array,
    present: NDArray[np.int64],
    fold: NDArray[np.int64],
    n: NDArray[np.int64],
    members: sp.csr_array,
    place: NDArray[np.int64],
) -> Part | None:
    """Sum sparse cells about zero; None where that loses digits."""
    with np.errstate(invalid="ignore", over="ignore"):  # named by sparse_moments
        mean = (members @ values).toarray() / n[:, None]
        square = (members @ values.multiply(values)).toarray()
        squares = square - n[:, None] * mean**2
    squares[n == 1] = 0.0
    lost = (squares < _LOST_DIGITS * square) & (square > 0) & (n > 1)[:, None]
    if lost.any():
        return None
    scatter = {}
    for k, rows in _by_fold(fold, place):
        every = np.arange(values.shape[0])[rows]
        whole = sparse_moments(values, every, np.zeros_like(every), 1)[0]
        own = fold == k
        away = mean[own] - whole.mean
        each = whole.scatter - (away * n[own, None]).T @ away
        if (np.diag(each) < _LOST_DIGITS * np.diag(whole.gram)).any():
            return None
        scatter[k] = (each + each.T) / 2
    return Part(present, fold, n, mean, squares, scatter)


def _by_fold(
    fold: NDArray[np.int64], place: NDArray[np.int64]
) -> Iterator[tuple[int, slice | NDArray[np.int64]]]:
    """Yield every fold of some environments and its cells, in their order."""
    folds, of_cell = np.unique(fold), fold[place]
    if len(folds) == 1:
        yield int(folds[0]), slice(None)
        return
    order = np.argsort(of_cell, kind="stable")
    ends = np.searchsorted(of_cell[order], folds, side="right")
    yield from zip(folds.tolist(), np.split(order, ends[:-1]), strict=True)


def merge(first: Part, second: Part) -> Part:
    """Return the sums of the cells of both."""
    groups = np.union1d(first.groups, second.groups)
    p = first.mean.shape[1]
    fold, n = np.zeros(len(groups), np.int64), np.zeros((2, len(groups)), np.int64)
    mean, squares = np.zeros((2, len(groups), p)), np.zeros((len(groups), p))
    for k, part in enumerate((first, second)):
        rows = np.searchsorted(groups, part.groups)
        fold[rows], n[k, rows], mean[k, rows] = part.fold, part.n, part.mean
        squares[rows] += part.squares
    total = np.maximum(n.sum(axis=0), 1)
    step = mean[1] - mean[0]
    share = n[0] * n[1] / total
    both = np.flatnonzero(share)  # an environment of one part alone adds nothing between
    between = step[both] * share[both, None]
    squares[both] += between * step[both]
    scatter = first.scatter | second.scatter
    for k in first.scatter.keys() & second.scatter.keys():
        own = fold[both] == k
        added = between[own].T @ step[both[own]]
        scatter[k] = first.scatter[k] + second.scatter[k] + (added + added.T) / 2
    mean = mean[0] + step * (n[1] / total)[:, None]
    return Part(groups, fold, n.sum(axis=0), mean, squares, scatter)
