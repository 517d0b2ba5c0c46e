"""The sums of a screen, block by block, as a tree whose shape the number of blocks fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._adata.read import fold_cells
from nextpert.core.cells._screen_part import empty_part, merge, screen_part

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.cells._screen_part import Part


def fold_blocks(
    adata: ad.AnnData,
    columns: ArrayLike,
    codes: NDArray[np.int64],
    n_groups: int,
    *,
    extra: NDArray[np.float64],
    weights: NDArray[np.int64] | None = None,
    layer: str | None = None,
    show_progress: bool = False,
) -> Part:
    """Return the sums over the panel and the columns of ``extra``, by environment.

    Parameters
    ----------
    adata, columns, layer, show_progress
        As in :func:`nextpert._adata.environment_moments`.
    codes
        Environment of every cell, below ``n_groups``; cells with -1 are not read.
    n_groups
        Number of environments.
    extra
        Further values of every cell, shape ``(n_cells, n_extra)``.
    weights
        How often every cell counts, shape ``(n_cells,)``; ``None`` stands for once.

    Raises
    ------
    ValueError
        If a value that is read is NaN or infinite; the genes are named.
    """
    n_columns = len(np.unique(np.asarray(columns, np.int64)))
    part, back = fold_cells(
        adata, columns, codes, n_groups, _part, merge, empty_part(n_columns + extra.shape[1]),
        of_cells=(extra, weights), layer=layer, show_progress=show_progress,
    )  # fmt: skip
    return _in_order(part, back, extra.shape[1])


def with_columns(values: Any, extra: NDArray[np.float64]) -> Any:
    """Return a block, dense or CSR, with further columns of its cells after its own."""
    if not extra.shape[1]:
        return values
    if sp.issparse(values):
        return sp.csr_array(sp.hstack([values, sp.csr_array(extra)]))
    return np.hstack([values, extra])


def _part(
    values: Any,
    codes: NDArray[np.int64],
    extra: NDArray[np.float64],
    weights: NDArray[np.int64] | None,
) -> Part:
    return screen_part(with_columns(values, extra), codes, weights)


def _in_order(part: Part, back: NDArray[np.int64], n_extra: int) -> Part:
    """Return the sums with the genes in the order they were asked for."""
    last = np.arange(n_extra) + int(back.max(initial=-1)) + 1
    order = np.concatenate([back, last])
    if np.array_equal(order, np.arange(len(part.scatter))):
        return part
    return part._replace(
        mean=part.mean[:, order],
        squares=part.squares[:, order],
        scatter=part.scatter[np.ix_(order, order)],
    )
