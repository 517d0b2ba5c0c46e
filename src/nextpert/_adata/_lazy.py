"""Cells in Dask arrays: blocks as tasks, on threads or on whatever cluster is at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._adata._grouped import add_parts, grouped_moments
from nextpert.core.cells._sound import damaged, require_numbers, require_sound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from nextpert._adata._grouped import Parts, Values
    from nextpert.core import Moments

# Blocks asked for at a time: bounds what a scheduler holds, and lets progress show.
_BLOCKS_AT_ONCE = 64


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
        # Before columns are taken, by a kernel that a damaged chunk would crash.
        checked = matrix.map_blocks(_sound, dtype=matrix.dtype, meta=matrix._meta)
        panel = checked[:, columns]
        panel = panel.map_blocks(_dense, dtype=np.float64, meta=np.empty((0, 0)))
        self._blocks = panel.rechunk({0: n_rows, 1: -1}).to_delayed()[:, 0]

    def read(self, block: int, rows: NDArray[np.int64]) -> Values:
        """Return some rows of a block."""
        return _rows(computed(self._blocks[block]), rows, self._is_sparse)

    def delayed_rows(self, block: int, rows: NDArray[np.int64]) -> Any:
        """Return the task that reads some rows of a block."""
        from dask import delayed

        return delayed(_rows, pure=False)(self._blocks[block], rows, self._is_sparse)

    def moments(
        self,
        moments: list[Moments],
        wanted: Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]],
        on_progress: Callable[[int], object],
    ) -> list[Moments]:
        """Return ``moments`` with those of ``(block, rows, groups)`` added in the order given."""
        from dask import delayed

        part, add = delayed(_part, pure=False), delayed(add_parts, pure=False)
        tasks = list(wanted)
        for first in range(0, len(tasks), _BLOCKS_AT_ONCE):
            some = tasks[first : first + _BLOCKS_AT_ONCE]
            # A chain, not a tree: the order of the sums is that of one worker.
            chain = delayed(moments, traverse=False)
            for block, rows, groups in some:
                chain = add(chain, part(self._blocks[block], rows, groups, self._is_sparse))
            moments = computed(chain)
            on_progress(sum(len(rows) for _, rows, _ in some))
        return moments


def _part(
    block: NDArray[np.float64],
    rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    is_sparse: bool,
) -> Parts:
    return grouped_moments(_rows(block, rows, is_sparse), groups)


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
