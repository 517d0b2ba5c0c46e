"""Cells as bounded blocks of the panel's columns, and moments of all environments in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._adata.panel import closest, list_names
from nextpert.core.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

# Entries of the full matrix in one block. Sparse blocks hold far fewer values than that.
_DENSE_ENTRIES = 2**22
_SPARSE_ENTRIES = 2**24
# Sparse products pay for wide panels with fewer non-zero entries than this.
_DENSE_SHARE = 0.05
_WIDE_PANEL = 512


def environment_moments(
    adata: ad.AnnData,
    columns: ArrayLike,
    groups: ArrayLike,
    n_groups: int,
    *,
    layer: str | None = None,
) -> list[Moments]:
    """Return the moments of every environment, read in one pass over the cells.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression; dense, CSR, CSC, backed or lazy, or a view.
    columns
        Columns of the panel, shape ``(n_genes,)``.
    groups
        Environment of every cell, shape ``(n_cells,)``; cells with ``-1`` are not read.
    n_groups
        Number of environments.
    layer
        Layer to read; ``None`` stands for ``adata.X``.

    Raises
    ------
    ValueError
        If a cell that is read holds NaN or infinite values; the genes are named.
    """
    codes = np.asarray(groups, dtype=np.int64)
    panel = np.asarray(columns, dtype=np.int64)
    moments = [Moments.zeros(len(panel)) for _ in range(n_groups)]
    for cells, block in read_blocks(adata, panel, np.flatnonzero(codes >= 0), layer=layer):
        here = codes[cells]
        by_group = np.argsort(here, kind="stable")
        together = block[by_group]
        bounds = np.searchsorted(here[by_group], np.arange(n_groups + 1))
        for group in np.unique(here):
            part = Moments.from_array(together[bounds[group] : bounds[group + 1]])
            moments[group] = moments[group] + part
    return moments


def read_blocks(
    adata: ad.AnnData, columns: ArrayLike, cells: ArrayLike, *, layer: str | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.floating] | sp.csr_array]]:
    """Yield ``(cells of the block, their values)`` until all of ``cells`` are read once.

    The values have shape ``(n_block, n_columns)``. Blocks follow the order of the matrix on
    disk or in memory, so a backed file is read from front to back; CSC matrices give up the
    panel's columns first.

    Raises
    ------
    ValueError
        If a value is NaN or infinite; the genes are named.
    """
    panel = np.asarray(columns, dtype=np.int64)
    chosen = np.asarray(cells, dtype=np.int64)
    names = np.asarray(adata.var_names, dtype=object)[panel]
    matrix, rows, source_columns = _locate(adata, chosen, panel, layer)
    by_row = np.argsort(rows, kind="stable")
    rows, chosen = rows[by_row], chosen[by_row]
    is_sparse = sp.issparse(matrix) or getattr(matrix, "format", "") in ("csr", "csc")
    if getattr(matrix, "format", "") == "csc":
        matrix = sp.csr_array(matrix[:, source_columns])
        source_columns = np.arange(len(panel))
    step = max(1, (_SPARSE_ENTRIES if is_sparse else _DENSE_ENTRIES) // max(matrix.shape[1], 1))
    start = 0
    while start < len(rows):
        first = int(rows[start])
        stop = int(np.searchsorted(rows, first + step))
        block = _load(matrix, first, int(rows[stop - 1]) + 1)
        local = rows[start:stop] - first
        values = _tidy(_take(block, local, source_columns))
        _require_finite(values, names)
        yield chosen[start:stop], values
        start = stop


def require_layer(adata: ad.AnnData, layer: str | None) -> None:
    """Raise if the layer, or ``adata.X`` where ``layer`` is ``None``, is absent."""
    if layer is None:
        if _parent(adata).X is None:
            message = "adata.X is empty: put log-normalised expression there, or name a layer."
            raise ValueError(message)
    elif layer not in adata.layers:
        # anndata 0.13 lists X as the layer None.
        names = [str(name) for name in adata.layers if name is not None]
        message = (
            f"adata.layers has no layer {layer!r}.{closest([layer], names)} "
            f"It holds {list_names(names) or 'none'}."
        )
        raise ValueError(message)


def _parent(adata: ad.AnnData) -> ad.AnnData:
    # Through the parent a view is read block by block; adata.X of a view copies all of it.
    return adata._adata_ref if adata.is_view and adata._adata_ref is not None else adata


def _locate(
    adata: ad.AnnData, cells: NDArray[np.int64], columns: NDArray[np.int64], layer: str | None
) -> tuple[Any, NDArray[np.int64], NDArray[np.int64]]:
    require_layer(adata, layer)
    source = _parent(adata)
    matrix = source.X if layer is None else source.layers[layer]
    if source is not adata:
        cells = np.arange(source.n_obs)[adata._oidx][cells]
        columns = np.arange(source.n_vars)[adata._vidx][columns]
    return matrix, cells, columns


def _load(matrix: Any, start: int, stop: int) -> Any:
    block = matrix[start:stop]
    return block.compute() if hasattr(block, "compute") else block


def _take(block: Any, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Any:
    if sp.issparse(block):
        block = sp.csr_array(block)
        whole = len(rows) == block.shape[0] and np.array_equal(rows, np.arange(len(rows)))
        return block[:, columns] if whole else block[rows][:, columns]
    return np.asarray(block)[np.ix_(rows, columns)]


def _tidy(values: Any) -> NDArray[np.floating] | sp.csr_array:
    if not sp.issparse(values):
        return values
    n, p = values.shape
    sparse = p > _WIDE_PANEL and values.nnz < _DENSE_SHARE * n * p
    return values if sparse else values.toarray()


def _require_finite(values: Any, names: NDArray[np.object_]) -> None:
    numbers = values.data if sp.issparse(values) else values
    if not np.issubdtype(numbers.dtype, np.floating) or np.isfinite(numbers).all():
        return
    dense = values.toarray() if sp.issparse(values) else values
    bad = names[~np.isfinite(dense).all(axis=0)]
    message = (
        f"Genes with NaN or infinite values: {list_names(bad)}. "
        f"Remove these genes or cells, or fill the values, before the call."
    )
    raise ValueError(message)
