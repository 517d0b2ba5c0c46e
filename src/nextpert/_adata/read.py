"""Cells as bounded blocks of the panel's columns, and moments of all environments in one pass."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import scipy.sparse as sp
from tqdm import tqdm

from nextpert._adata._grouped import (
    add_parts,
    block_rows,
    grouped_moments,
    part_of_small,
    require_finite,
)
from nextpert._adata._lazy import LazyBlocks, is_lazy, lazy_rows
from nextpert._adata._sources import arrays_of, open_source
from nextpert._adata.panel import closest, list_names
from nextpert.core.cells._pairwise_sum import PairwiseSum
from nextpert.core.cells._sound import require_numbers, require_shape
from nextpert.core.cells.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert._adata._grouped import Parts

    Index = NDArray[np.int64]

T = TypeVar("T")

# Sparse values of wide panels stay sparse up to this share.
_SPARSE_SHARE = 0.05
_WIDE_PANEL = 512
# Fewer values than this are read before a bar could be seen.
_LONG_READ = 2**26
# A sample is a few runs of cells, as single rows would touch every chunk of a file.
_RUNS, _CELLS_A_RUN = 4, 250


def environment_moments(
    adata: ad.AnnData,
    columns: ArrayLike,
    groups: ArrayLike,
    n_groups: int,
    *,
    layer: str | None = None,
    show_progress: bool = False,
) -> list[Moments]:
    """Return the moments of every environment, read in one pass over the cells.

    Sums are taken in blocks that only the panel and the number of environments fix, and added as a
    tree in the order of the cells, so the result is the same to the bit for any chunks of a file or
    Dask array, and for any number of workers. Dask arrays run on the current ``dask.distributed``
    client, if there is one.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression; dense, CSR, CSC, backed (h5ad, zarr), Dask
        arrays as from :func:`anndata.experimental.read_lazy`, or a view.
    columns
        Columns of the panel, shape ``(n_genes,)``.
    groups
        Environment of every cell, shape ``(n_cells,)``; cells with ``-1`` are not read.
    n_groups
        Number of environments.
    layer
        Layer to read; ``None`` stands for ``adata.X``.
    show_progress
        Whether to show a progress bar where the matrix is large.

    Raises
    ------
    ValueError
        If a cell that is read holds NaN or infinite values; the genes are named.
    """
    codes = np.asarray(groups, dtype=np.int64)
    nothing: Parts = {}
    parts, back = fold_cells(
        adata, columns, codes, n_groups, grouped_moments, add_parts, nothing,
        layer=layer, show_progress=show_progress,
    )  # fmt: skip
    none = Moments.zeros(int(back.max(initial=-1)) + 1)
    moments = [parts.get(group, none) for group in range(n_groups)]
    return [m if np.array_equal(back, np.arange(m.n_nodes)) else m.subset(back) for m in moments]


def fold_cells(
    adata: ad.AnnData,
    columns: ArrayLike,
    codes: Index,
    n_groups: int,
    part: Callable[..., T],
    add: Callable[[T, T], T],
    empty: T,
    *,
    of_cells: tuple[NDArray[Any] | None, ...] = (),
    layer: str | None = None,
    show_progress: bool = False,
) -> tuple[T, Index]:
    """Return the sum of ``part(values, codes, *of_cells)`` over blocks, and the order of columns.

    Parameters
    ----------
    adata, columns, n_groups, layer, show_progress
        As in :func:`environment_moments`.
    codes
        Environment of every cell, shape ``(n_cells,)``; cells with ``-1`` are not read.
    part
        Sums up a block: its values, ascending columns given once, the codes of its cells, and
        what else is said of them.
    add
        Adds two sums, the earlier first.
    empty
        The sum of no cells.
    of_cells
        What else ``part`` gets of the cells of a block, arrays of one row a cell or ``None``.

    Returns
    -------
    tuple
        The sum, added as a tree whose shape the number of blocks fixes, and ``back``: the columns
        asked for are numbers ``back`` of those that ``part`` saw.
    """
    genes = np.asarray(columns, dtype=np.int64)
    matrix, rows, panel, back, cells = _locate(adata, np.flatnonzero(codes >= 0), genes, layer)
    n_rows = block_rows(len(panel), n_groups)
    tasks = []
    for b, s in _split(rows, n_rows):
        chosen = cells[s]
        more = [None if values is None else values[chosen] for values in of_cells]
        tasks.append((b, rows[s] - b * n_rows, (codes[chosen], *more)))
    total = PairwiseSum(empty, add)
    hidden = not show_progress or len(rows) * matrix.shape[1] < _LONG_READ
    try:
        with tqdm(total=len(rows), desc="Cells", unit="cell", disable=hidden) as bar:
            checked = partial(part_of_small, part)
            if is_lazy(matrix):
                LazyBlocks(matrix, panel, n_rows).fold(tasks, checked, add, total, bar.update)
            else:
                source = open_source(matrix, panel)
                for b, here, said in tasks:
                    total.add(checked(_take(source, here + b * n_rows), *said))
                    bar.update(len(here))
    except ValueError as error:
        raise named(error, adata.var_names[genes], back) from error
    return total.total(), back


def read_blocks(
    adata: ad.AnnData,
    columns: ArrayLike,
    cells: ArrayLike,
    *,
    layer: str | None = None,
    finite: bool = True,
) -> Iterator[tuple[Index, NDArray[np.floating] | sp.csr_array]]:
    """Yield ``(cells of the block, their values)`` until all of ``cells`` are read once.

    The values have shape ``(n_block, n_columns)``; those of wide panels with few values are CSR.
    Blocks follow the order of the matrix on disk or in memory, so a file is read from front to
    back.

    Raises
    ------
    ValueError
        If a value is NaN or infinite, unless ``finite=False`` lets them pass; the genes are named.
    """
    genes = np.asarray(columns, dtype=np.int64)
    wanted = np.asarray(cells, dtype=np.int64)
    matrix, rows, panel, back, chosen = _locate(adata, wanted, genes, layer)
    n_rows = block_rows(len(panel), 1)
    lazy = LazyBlocks(matrix, panel, n_rows) if is_lazy(matrix) else None
    source = None if lazy else open_source(matrix, panel)
    for b, s in _split(rows, n_rows):
        try:
            values = lazy.read(b, rows[s] - b * n_rows) if lazy else _take(source, rows[s])
            if finite:
                require_finite(values)
        except ValueError as error:
            raise named(error, adata.var_names[genes], back) from error
        yield chosen[s], _tidy(values)[:, back]


def sample_blocks(
    adata: ad.AnnData, columns: ArrayLike, cells: ArrayLike, *, layer: str | None
) -> Iterator[NDArray[np.floating] | sp.csr_array]:
    """Yield the values of 1,000 of ``cells`` at most, block by block; they may not be finite.

    They are a few runs of cells, spread evenly. Of a CSC matrix in a file it is one run at its
    beginning, and 1,000 genes at most, since every column is read by itself from front to back.
    """
    every, genes = np.asarray(cells, dtype=np.int64), np.asarray(columns, dtype=np.int64)
    require_layer(adata, layer)
    matrix, n = _matrix(adata, layer), _RUNS * _CELLS_A_RUN
    in_columns = getattr(matrix, "format", None) == "csc" and not sp.issparse(matrix)
    if in_columns:
        every = every[:n]
        genes = genes[:: -(-len(genes) // n) or 1]
    elif len(every) > n:
        starts = np.linspace(0, len(every) - _CELLS_A_RUN, _RUNS).astype(np.int64)
        every = every[(starts[:, None] + np.arange(_CELLS_A_RUN)).ravel()]
    if is_lazy(matrix):
        _, rows, panel, _, _ = _locate(adata, every, genes, layer)
        for part in np.array_split(rows, _RUNS):
            yield lazy_rows(matrix, part, panel)
        return
    for _, values in read_blocks(adata, genes, every, layer=layer, finite=False):
        yield values


def seen_and_constant(
    adata: ad.AnnData,
    columns: Index,
    cells: Index,
    layer: str | None,
    depth: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return in which share of ``cells`` each gene is not 0, and whether it is constant in them.

    With ``depth``, the total counts of every cell, values are shares of these.
    """
    seen = np.zeros(len(columns))
    lowest, highest = np.full(len(columns), np.inf), np.full(len(columns), -np.inf)
    for block, values in read_blocks(adata, columns, cells, layer=layer):
        seen += np.asarray((values != 0).sum(axis=0)).ravel()
        if depth is not None:
            values = _divided(values, depth[block])
        low, high = values.min(axis=0), values.max(axis=0)
        if sp.issparse(values):
            low, high = low.toarray().ravel(), high.toarray().ravel()
        lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
    return seen / max(len(cells), 1), lowest >= highest


def _divided(values: Any, by: NDArray[np.float64]) -> Any:
    """Return rows divided by a number each."""
    if not sp.issparse(values):
        return values / by[:, None]
    data = values.data / np.repeat(by, np.diff(values.indptr))
    return sp.csr_array((data, values.indices, values.indptr), shape=values.shape)


def require_layer(adata: ad.AnnData, layer: str | None) -> None:
    """Raise if the layer, or ``adata.X`` where ``layer`` is ``None``, is absent or no numbers."""
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
    source, matrix = _parent(adata), _matrix(adata, layer)
    name = slot(layer)
    if getattr(matrix, "group", None) is not None and hasattr(matrix, "format"):
        arrays_of(matrix)  # its parts are there
    require_numbers(matrix, name)
    require_shape(matrix, (source.n_obs, source.n_vars), name)


def slot(layer: str | None) -> str:
    """Return how users write a layer; ``None`` stands for ``adata.X``."""
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def _matrix(adata: ad.AnnData, layer: str | None) -> Any:
    """Return a matrix with all cells and genes of the parent of a view."""
    source = _parent(adata)
    return source.X if layer is None else source.layers[layer]


def _parent(adata: ad.AnnData) -> ad.AnnData:
    # Through the parent a view is read block by block; adata.X of a view copies all of it.
    return adata._adata_ref if adata.is_view and adata._adata_ref is not None else adata


def _locate(
    adata: ad.AnnData, cells: Index, columns: Index, layer: str | None
) -> tuple[Any, Index, Index, Index, Index]:
    """Return the matrix, its rows and columns ascending, and whose they are.

    Columns are given once, and ``panel[back]`` are those asked for, in their order.
    """
    require_layer(adata, layer)
    source, matrix = _parent(adata), _matrix(adata, layer)
    rows = cells
    if source is not adata:
        rows = np.arange(source.n_obs)[adata._oidx][cells]
        columns = np.arange(source.n_vars)[adata._vidx][columns]
    by_row = np.argsort(rows, kind="stable")
    panel, back = np.unique(columns, return_inverse=True)
    return matrix, rows[by_row], panel, back, cells[by_row]


def _split(rows: Index, n_rows: int) -> Iterator[tuple[int, slice]]:
    """Yield ``(block, which of the ascending rows lie in it)``; blocks without any are left out."""
    starts = np.flatnonzero(np.diff(rows // n_rows, prepend=-1))
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=False):
        yield int(rows[start]) // n_rows, slice(start, stop)


def _take(source: Any, rows: Index) -> Any:
    """Return the values of some ascending rows, which may hold a row several times."""
    first = int(rows[0])
    wanted = np.zeros(int(rows[-1]) - first + 1, dtype=bool)
    wanted[rows - first] = True
    values = source.read(first, wanted)
    if values.shape[0] == len(rows):
        return values
    return values[np.cumsum(wanted)[rows - first] - 1]


def _tidy(values: Any) -> NDArray[np.floating] | sp.csr_array:
    if not sp.issparse(values):
        return values
    n, p = values.shape
    sparse = p > _WIDE_PANEL and values.nnz < _SPARSE_SHARE * n * p
    return values if sparse else values.toarray()


def named(error: ValueError, names: Any, back: Index) -> ValueError:
    """Return an error about columns as one about genes."""
    bad = getattr(error, "columns", None)
    if bad is None:
        return error
    genes = list_names(names[np.isin(back, bad)])
    if hasattr(error, "overflow"):
        message = f"Genes with values too large to be squared: {genes}. Give them in smaller units."
        return ValueError(message)
    message = (
        f"Genes with NaN or infinite values: {genes}. "
        f"Remove these genes or cells, or fill the values, before the call."
    )
    return ValueError(message)
