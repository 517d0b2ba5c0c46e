"""The sums of a screen, block by block, as a tree whose shape the number of blocks fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from tqdm import tqdm

from nextpert._adata._grouped import block_rows
from nextpert._adata._lazy import LazyBlocks, is_lazy
from nextpert._adata._sources import open_source
from nextpert._adata.read import LONG_READ, locate, named, split, take
from nextpert.core.cells._pairwise_sum import PairwiseSum
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
    genes = np.asarray(columns, np.int64)
    matrix, rows, panel, back, cells = locate(adata, np.flatnonzero(codes >= 0), genes, layer)
    n_rows = block_rows(len(panel), n_groups)
    blocks = [
        (block, rows[here], (codes[cells[here]], extra[cells[here]],
                             None if weights is None else weights[cells[here]]))
        for block, here in split(rows, n_rows)
    ]  # fmt: skip
    total = PairwiseSum(empty_part(len(panel) + extra.shape[1]), merge)
    hidden = not show_progress or len(rows) * matrix.shape[1] < LONG_READ
    try:
        with tqdm(total=len(rows), desc="Cells", unit="cell", disable=hidden) as bar:
            if is_lazy(matrix):
                lazy = LazyBlocks(matrix, panel, n_rows)
                tasks = [(b, here - b * n_rows, of_cells) for b, here, of_cells in blocks]
                lazy.fold(tasks, _part, merge, total, bar.update)
            else:
                source = open_source(matrix, panel)
                for _, here, of_cells in blocks:
                    total.add(_part(take(source, here), *of_cells))
                    bar.update(len(here))
    except ValueError as error:
        raise named(error, adata.var_names[genes], back) from error
    return _in_order(total.total(), back, extra.shape[1])


def _part(
    values: Any,
    codes: NDArray[np.int64],
    extra: NDArray[np.float64],
    weights: NDArray[np.int64] | None,
) -> Part:
    if extra.shape[1]:
        values = (
            sp.csr_array(sp.hstack([values, sp.csr_array(extra)]))
            if sp.issparse(values)
            else np.hstack([values, extra])
        )
    return screen_part(values, codes, weights)


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
