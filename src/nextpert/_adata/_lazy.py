"""Cells in Dask arrays: blocks as tasks, on threads or on whatever cluster is at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import scipy.sparse as sp

from nextpert.core.cells._pairwise_sum import tree
from nextpert.core.cells._sound import damaged, require_numbers, require_sound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from nextpert._adata._grouped import Values
    from nextpert.core.cells._pairwise_sum import PairwiseSum

T = TypeVar("T")

# Blocks of one graph of tasks: a power of two, so that the whole is one tree all the same. It
# bounds what a scheduler holds, and lets progress show.
_LEAVES = 1024


def is_lazy(matrix: Any) -> bool:
    """Whether the matrix is a Dask array."""
    return hasattr(matrix, "dask") and hasattr(matrix, "rechunk")


def computed(task: Any) -> Any:
    """Return the result of a task; a file whose parts do not fit is said to be damaged."""
    try:
        return task.compute()
    except (IndexError, KeyError, TypeError) as error:
        what = f"parts that cannot be read together ({error})"
        raise damaged(what, "The matrix read lazily") from error


class LazyBlocks:
    """The panel's columns of a Dask array in blocks of ``n_rows`` rows, whatever its chunks."""

    def __init__(self, matrix: Any, columns: NDArray[np.int64], n_rows: int) -> None:
        self._is_sparse = sp.issparse(matrix._meta)
        panel = _as_dense(_checked(matrix)[:, columns])
        self._blocks = panel.rechunk({0: n_rows, 1: -1}).to_delayed()[:, 0]

    def read(self, block: int, rows: NDArray[np.int64]) -> Values:
        """Return some rows of a block."""
        return _rows(computed(self._blocks[block]), rows, self._is_sparse)

    def fold(
        self,
        tasks: Sequence[tuple[int, NDArray[np.int64], tuple[Any, ...]]],
        part: Callable[..., T],
        add: Callable[[T, T], T],
        total: PairwiseSum[T],
        on_progress: Callable[[int], object],
    ) -> None:
        """Add to ``total`` the ``part(values, *more)`` of every ``(block, rows, more)``.

        Many blocks make one graph of tasks, a tree that ends where ``total`` goes on, so that the
        sum is that of one worker, and workers wait for each other only between such graphs.
        """
        from dask import delayed

        of_rows, joined = delayed(_part, pure=False), delayed(add, pure=False)
        for first in range(0, len(tasks), _LEAVES):
            some = tasks[first : first + _LEAVES]
            leaves = [
                of_rows(part, self._blocks[block], rows, self._is_sparse, *more)
                for block, rows, more in some
            ]
            total.add(computed(tree(leaves, joined)))
            on_progress(sum(len(rows) for _, rows, _ in some))


def lazy_rows(
    matrix: Any, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return a few rows, for which no chunk is read but their own."""
    values: NDArray[np.float64] = computed(_as_dense(_checked(matrix)[rows][:, columns]))
    return values


def _checked(matrix: Any) -> Any:
    # Before columns are taken, by a kernel that a damaged chunk would crash.
    return matrix.map_blocks(_sound, dtype=matrix.dtype, meta=matrix._meta)


def _as_dense(matrix: Any) -> Any:
    return matrix.map_blocks(_dense, dtype=np.float64, meta=np.empty((0, 0)))


def _part(part: Any, block: NDArray[np.float64], rows: Any, is_sparse: bool, *more: Any) -> Any:
    return part(_rows(block, rows, is_sparse), *more)


def _rows(block: NDArray[np.float64], rows: NDArray[np.int64], is_sparse: bool) -> Values:
    # Back to sparse values, so that sums are the same to the bit as from sparse cells in memory.
    return sp.csr_array(block[rows]) if is_sparse else block[rows]


def _sound(chunk: Any) -> Any:
    require_numbers(chunk)
    require_sound(chunk)
    return chunk


def _dense(chunk: Any) -> NDArray[np.float64]:
    dense = chunk.toarray() if sp.issparse(chunk) else np.asarray(chunk)
    return dense.astype(np.float64, copy=False)
