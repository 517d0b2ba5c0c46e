"""Moments of all environments of one block of cells; the same sums here and on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import scipy.sparse as sp

from nextpert.core._checks import LARGEST
from nextpert.core.cells._screen_part import DENSE_SHARE
from nextpert.core.cells.moments import Moments, not_finite, sparse_moments, too_large

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Values: TypeAlias = Any  # NDArray[np.floating] | sp.csr_array, told apart by sp.issparse
    Parts: TypeAlias = dict[int, Moments]

T = TypeVar("T")

# Values of a block of the panel, and the same where blocks grow with the number of environments.
_BLOCK_ENTRIES = 2**22
_MOST_ENTRIES = 2**24
_CELLS_A_GROUP = 64
# Entries of the scatters of all environments that are summed in one pass.
_SCATTER_ENTRIES = 2**22


def block_rows(n_columns: int, n_groups: int) -> int:
    """Return the number of rows of a block.

    It depends on nothing but the panel and the environments: not on the format, the chunks, or
    the memory and workers at hand. Sums are taken block by block, in the order of the rows, so
    the result does not depend on those either.
    """
    rows = max(_BLOCK_ENTRIES // max(n_columns, 1), _CELLS_A_GROUP * n_groups)
    return max(1, min(rows, _MOST_ENTRIES // max(n_columns, 1)))


def grouped_moments(values: Values, groups: NDArray[np.int64]) -> Parts:
    """Return the moments of the cells of every group, by group.

    Parameters
    ----------
    values
        Dense, or CSR with sorted columns given once, shape ``(n_cells, n_columns)``.
    groups
        Group of every cell, shape ``(n_cells,)``.

    Raises
    ------
    ValueError
        If a value is NaN or infinite; the error's ``columns`` are those of the whole block.
    """
    if sp.issparse(values) and values.nnz > DENSE_SHARE * values.shape[0] * values.shape[1]:
        values = values.toarray()
    try:
        return (
            _sparse_parts(values, groups) if sp.issparse(values) else _dense_parts(values, groups)
        )
    except ValueError:
        require_finite(values)
        raise


def _sparse_parts(values: sp.csr_array, groups: NDArray[np.int64]) -> Parts:
    present = np.flatnonzero(np.bincount(groups))
    at_once = max(1, _SCATTER_ENTRIES // max(values.shape[1] ** 2, 1))
    parts: Parts = {}
    for first in range(0, len(present), at_once):
        some = present[first : first + at_once]
        place = np.full(int(present[-1]) + 1, -1, dtype=np.int64)
        place[some] = np.arange(len(some))
        of_row = place[groups]
        rows = np.flatnonzero(of_row >= 0)
        found = sparse_moments(values, rows, of_row[rows], len(some))
        parts |= dict(zip(some.tolist(), found, strict=True))
    return parts


def _dense_parts(values: NDArray[np.floating], groups: NDArray[np.int64]) -> Parts:
    counts = np.bincount(groups)
    small = groups.astype(np.uint16) if len(counts) < 2**16 else groups  # sorted in linear time
    members = np.split(np.argsort(small, kind="stable"), np.cumsum(counts)[:-1])
    present = np.flatnonzero(counts).tolist()
    return {group: Moments.from_array(values[members[group]]) for group in present}


def add_parts(first: Parts, second: Parts) -> Parts:
    """Return the moments of the cells of both, by group."""
    both = first.keys() & second.keys()
    return first | second | {group: first[group] + second[group] for group in both}


def part_of_small(part: Callable[..., T], values: Values, *said: Any) -> T:
    """Return ``part(values, *said)``; raise first where a value is too large to be squared.

    Raises
    ------
    ValueError
        If one is above ``LARGEST`` (squared distances, too, have to be squared); the error's
        ``columns`` are those of the whole block.
    """
    numbers = values.data if sp.issparse(values) else values
    if numbers.size and max(float(numbers.max()), -float(numbers.min())) > LARGEST:
        require_finite(values)
        dense = values.toarray() if sp.issparse(values) else values
        raise too_large(np.asarray((np.abs(dense) > LARGEST).any(axis=0)))
    return part(values, *said)


def require_finite(values: Values) -> None:
    """Raise if a value is NaN or infinite; the columns are named."""
    numbers = values.data if sp.issparse(values) else values
    if not np.isfinite(numbers).all():
        dense = values.toarray() if sp.issparse(values) else values
        raise not_finite(~np.isfinite(dense).all(axis=0))
