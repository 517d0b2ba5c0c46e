"""Sums over a block of cells, by environment and fold, and how they add up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from nextpert.core._blas import one_thread
from nextpert.core.screen.moments import (
    not_finite,
    sparse_moments,
    too_large,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


# Sparse squares are summed about zero; if less than this share remains, too many digits are lost.
_LOST_DIGITS = 1e-6
# Above this share of non-zero values, dense products are faster than sparse ones.
DENSE_SHARE = 0.25
# Minimum mean number of cells per environment for sparse sums: with fewer, the cells of some
# environment are equal in some gene, digits are lost, and the block must be summed twice.
_CELLS_EACH = 8


class Part(NamedTuple):
    """Cells, means and squares of some environments, in ascending order, and scatters by fold.

    ``squares`` are sums of squared deviations from the mean of the environment. ``scatter``
    contains, for each fold, the sum over its cells of the products of such deviations. ``fold``
    is the fold of every environment, or, if folds overlap, 1 for every fold that it belongs to.
    """

    groups: NDArray[np.int64]  # (n_present,)
    fold: NDArray[np.int64]  # (n_present,) or (n_present, n_folds)
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
    *,
    products: bool = True,
) -> Part:
    """Return the sums of a block of cells.

    Parameters
    ----------
    values
        Dense array, or CSR with sorted columns without duplicates, shape ``(n_cells, n_nodes)``.
    groups
        Environment of every cell, 0 or above, shape ``(n_cells,)``.
    weights
        How often every cell counts, shape ``(n_cells,)``; ``None`` counts each once.
    fold
        Fold of every environment, shape ``(n_groups,)``, or 1 for every fold that it belongs to,
        shape ``(n_groups, n_folds)``; ``None`` for a single fold.
    products
        Whether to sum the products of genes, whose cost per cell is quadratic in the genes.

    Raises
    ------
    ValueError
        If a value is NaN, infinite or too large to be squared; the attribute ``columns`` of the
        error lists the affected columns.
    """
    if weights is not None:
        weighted = np.flatnonzero(weights)
        values, groups, weights = values[weighted], groups[weighted], weights[weighted]
    if values.shape[0] == 0:
        return empty_part(values.shape[1])
    present, row_of_cell = np.unique(groups, return_inverse=True)
    fold = np.zeros(len(present), np.int64) if fold is None else fold[present]
    count = np.ones(len(groups)) if weights is None else weights.astype(np.float64)
    # One row per environment: a product with this matrix sums over its cells.
    members = sp.csr_array(
        (count, (row_of_cell, np.arange(len(row_of_cell)))), shape=(len(present), len(row_of_cell))
    )
    n = np.asarray(members.sum(axis=1)).astype(np.int64)
    if sp.issparse(values):
        is_split = len(present) * _CELLS_EACH > values.shape[0]
        full = values.nnz > DENSE_SHARE * values.shape[0] * values.shape[1]
        if weights is None and not is_split and not full:
            part = _sparse(values, present, fold, n, members, row_of_cell, products)
            if part is not None:
                return part
        values = values.toarray()
    values = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # named below
        mean = (members @ values) / n[:, None]
        if not np.isfinite(mean).all():
            bad = np.asarray(~np.isfinite(values).all(axis=0))
            large = np.asarray(~np.isfinite(mean).all(axis=0))
            raise not_finite(bad) if bad.any() else too_large(large)
        centred = values - mean[row_of_cell]
        squares = members @ (centred * centred)
        centred *= np.sqrt(count)[:, None]
        scatter = {}
        for k, rows in _by_fold(fold, row_of_cell) if products else ():
            rows_of_fold = centred[rows]
            scatter[k] = rows_of_fold.T @ rows_of_fold
    for k, products_of_fold in scatter.items():
        if not np.isfinite(products_of_fold).all():
            raise too_large(np.asarray(~np.isfinite(products_of_fold).all(axis=0)))
        scatter[k] = (products_of_fold + products_of_fold.T) / 2
    return Part(present, fold, n, mean, squares, scatter)


def _sparse(
    values: sp.csr_array,
    present: NDArray[np.int64],
    fold: NDArray[np.int64],
    n: NDArray[np.int64],
    members: sp.csr_array,
    row_of_cell: NDArray[np.int64],
    products: bool,
) -> Part | None:
    """Sum sparse cells about zero; return None if this loses digits."""
    with np.errstate(invalid="ignore", over="ignore"):  # named by sparse_moments
        mean = (members @ values).toarray() / n[:, None]
        square = (members @ values.multiply(values)).toarray()
        squares = square - n[:, None] * mean**2
    squares[n == 1] = 0.0
    lost = (squares < _LOST_DIGITS * square) & (square > 0) & (n > 1)[:, None]
    if lost.any():
        return None
    scatter = {}
    for k, rows in _by_fold(fold, row_of_cell) if products else ():
        total = sparse_moments(values, np.arange(values.shape[0])[rows])
        in_fold = belongs(fold, k)
        # Within = total - between: sum n (mean_e - mean)(mean_e - mean)'.
        departure = mean[in_fold] - total.mean
        within = total.scatter - (departure * n[in_fold, None]).T @ departure
        if (np.diag(within) < _LOST_DIGITS * np.diag(total.gram)).any():
            return None
        scatter[k] = (within + within.T) / 2
    return Part(present, fold, n, mean, squares, scatter)


def belongs(fold: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """Return which environments belong to fold ``k``; ``fold`` is that of :class:`Part`."""
    return fold == k if fold.ndim == 1 else fold[:, k] > 0


def _by_fold(
    fold: NDArray[np.int64], row_of_cell: NDArray[np.int64]
) -> Iterator[tuple[int, slice | NDArray[np.int64]]]:
    """Yield every fold of some environments with the indices of its cells, in order."""
    if fold.ndim == 2:
        for k in range(fold.shape[1]):
            in_fold = belongs(fold, k)[row_of_cell]
            # The bits are those of a screen that has no other cells.
            if in_fold.any():
                yield k, slice(None) if in_fold.all() else np.flatnonzero(in_fold)
        return
    folds = np.unique(fold)
    of_cell = fold[row_of_cell]
    if len(folds) == 1:
        yield int(folds[0]), slice(None)
        return
    order = np.argsort(of_cell, kind="stable")
    ends = np.searchsorted(of_cell[order], folds, side="right")
    yield from zip(folds.tolist(), np.split(order, ends[:-1]), strict=True)


def merge(first: Part, second: Part) -> Part:
    """Return the sums over the cells of both parts."""
    groups = np.union1d(first.groups, second.groups)
    p = first.mean.shape[1]
    fold_shape = max(
        first.fold.shape[1:], second.fold.shape[1:]
    )  # a part without cells has no folds
    fold, n = np.zeros((len(groups), *fold_shape), np.int64), np.zeros((2, len(groups)), np.int64)
    mean, squares = np.zeros((2, len(groups), p)), np.zeros((len(groups), p))
    for k, part in enumerate((first, second)):
        rows = np.searchsorted(groups, part.groups)
        fold[rows] = part.fold.reshape(len(rows), *fold_shape)
        n[k, rows], mean[k, rows] = part.n, part.mean
        squares[rows] += part.squares
    total = np.maximum(n.sum(axis=0), 1)
    # Chan's update: n1 n2 / n times the squared difference of means.
    step = mean[1] - mean[0]
    share = n[0] * n[1] / total
    # Environments that are in one part only have no scatter between parts.
    common = np.flatnonzero(share)
    between = step[common] * share[common, None]
    squares[common] += between * step[common]
    scatter = first.scatter | second.scatter
    for k in first.scatter.keys() & second.scatter.keys():
        in_fold = belongs(fold[common], k)
        added = between[in_fold].T @ step[common[in_fold]]
        scatter[k] = first.scatter[k] + second.scatter[k] + (added + added.T) / 2
    mean = mean[0] + step * (n[1] / total)[:, None]
    return Part(groups, fold, n.sum(axis=0), mean, squares, scatter)
