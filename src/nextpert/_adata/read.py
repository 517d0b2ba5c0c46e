"""Cells, read in bounded blocks of the panel's columns, and their sums in one pass."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from nextpert._adata.panel import closest
from nextpert._adata.progress import progress
from nextpert._adata.sources import (
    LazyBlocks,
    arrays_of,
    dense,
    is_lazy,
    open_source,
)
from nextpert._adata.table import (
    SE,
    as_screen,
    correlation_of,
    is_table,
    require_cells,
    rows_of,
    table_moments,
)
from nextpert.core._checks import MAX_VALUE, list_names, named
from nextpert.core._codec import table_type
from nextpert.core.screen.moments import (
    PairwiseSum,
    damaged,
    not_finite,
    require_numbers,
    too_large,
)
from nextpert.core.screen.parts import Part, belongs, empty_part, merge, screen_part
from nextpert.core.screen.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    Index = NDArray[np.int64]

# Values in a block of the panel; the maximum if blocks grow with the number of environments; and
# cells per environment in these blocks.
_BLOCK_ENTRIES = 2**22
_MOST_ENTRIES = 2**24
_CELLS_A_GROUP = 64
# Sparse values of wide panels stay sparse below this share of non-zeros.
_SPARSE_SHARE = 0.05
_WIDE_PANEL = 512  # up to this many genes, values are dense
# With more than 1,000 genes, products of genes, whose cost per cell grows with the square of their
# number, come from a sample of cells: 20,000 cells estimate a correlation with a standard error of
# at most 0.007.
_ALL_PRODUCTS = 1000
_SAMPLED = 20_000
# A sample consists of a few runs of cells, because single rows would touch every chunk of a file.
_RUNS, _CELLS_A_RUN = 4, 250


class Coding(NamedTuple):
    """One division of the cells into environments, of which the sums are taken.

    ``codes`` is the environment of every cell, -1 for cells that are not summed; ``extra`` holds
    further values of each cell, which become nodes after the genes, and ``weights`` how often each
    cell counts (``None`` for once). ``fold`` is the fold of every environment, or, if folds
    overlap, 1 for every fold that it belongs to; ``columns`` maps names to whole numbers, one per
    environment.
    """

    codes: Index
    fold: Index
    extra: NDArray[np.float64]
    weights: Index | None = None
    columns: Mapping[str, Index] = {}


def read_screens(
    adata: ad.AnnData,
    columns: ArrayLike,
    codings: Sequence[Coding],
    *,
    layer: str | None = None,
) -> list[Screen]:
    """Return the screen of every coding, all read in one pass.

    Sums are taken in blocks whose size depends only on the panel and the number of environments,
    and added as a tree in the order of the cells. The result is therefore bitwise identical for any
    chunks of a file or Dask array, and for any number of workers. Dask arrays run on the current
    ``dask.distributed`` client, if there is one. Products of more than 1,000 genes come from 20,000
    cells drawn at random (seeded), scaled to the squares of all cells. A matrix may be dense, CSR,
    CSC, backed (h5ad, zarr), a Dask array as from :func:`anndata.experimental.read_lazy`, or a
    view. Cells with -1 in all ``codings`` are not read.
    """
    genes = np.asarray(columns, dtype=np.int64)
    if is_table(adata):
        return _read_table(adata, genes, codings)
    labelled = np.any([coding.codes >= 0 for coding in codings], axis=0)
    n_groups = max((len(coding.fold) for coding in codings), default=0)
    matrix, panel, back, n_rows, blocks = _locate(
        adata, np.flatnonzero(labelled), genes, layer, n_groups
    )
    folds = [coding.fold for coding in codings]
    tasks: list[tuple[Index, tuple[Any, ...]]] = []
    for rows, block_cells in blocks:
        coded = [
            (
                c.codes[block_cells],
                c.extra[block_cells],
                None if c.weights is None else c.weights[block_cells],
            )
            for c in codings
        ]
        tasks.append((rows, (coded,)))
    total = PairwiseSum(
        [empty_part(len(panel) + coding.extra.shape[1]) for coding in codings], _add
    )
    n_coded = max((int((coding.codes >= 0).sum()) for coding in codings), default=0)
    products = len(panel) <= _ALL_PRODUCTS or n_coded <= _SAMPLED
    block: Any = partial(_sums, folds=folds, products=products)
    try:
        with progress(sum(len(rows) for rows, _ in blocks), "Cells", unit="cell") as bar:
            if is_lazy(matrix):
                for n, sums in LazyBlocks(matrix, panel, n_rows).each(tasks, block):
                    total.add(sums)
                    bar.update(n)
            else:
                source = open_source(matrix, panel)
                for rows, arguments in tasks:
                    total.add(block(source.read(rows), *arguments))
                    bar.update(len(rows))
    except ValueError as error:
        raise named(error, adata.var_names[genes], back) from error
    parts = total.total()
    if not products:
        parts = [
            _with_products(adata, panel, layer, part, coding)
            for part, coding in zip(parts, codings, strict=True)
        ]
    screens = []
    for part, coding in zip(parts, codings, strict=True):
        # Genes in the requested order, then further nodes.
        order = np.append(back, np.arange(len(panel), part.mean.shape[1]))
        if not np.array_equal(order, np.arange(part.mean.shape[1])):
            part = part._replace(
                mean=part.mean[:, order],
                squares=part.squares[:, order],
                scatter={
                    k: fold_scatter[np.ix_(order, order)]
                    for k, fold_scatter in part.scatter.items()
                },
            )
        screens.append(Screen.from_part(part, coding.columns, coding.fold))
    return screens


def _read_table(
    adata: ad.AnnData,
    genes: Index,
    codings: Sequence[Coding],
) -> list[Screen]:
    """Return the screens as :func:`read_screens` does, from effects with standard errors."""
    cells = np.arange(adata.n_obs)
    shape = adata.n_obs, len(genes)
    mean, se = (np.zeros(shape, table_type(adata.n_obs * len(genes))) for _ in range(2))
    for values, name in ((mean, None), (se, SE)):
        for block_cells, block in read_blocks(
            adata, genes, cells, layer=name, finite=name is None, of_table=True
        ):
            values[block_cells] = dense(block)
    table_rows = rows_of(adata)
    screens = []
    correlation = correlation_of(adata, genes)
    for coding in codings:
        moments, sigma2 = table_moments(table_rows, mean, se, coding.codes >= 0)
        coded = coding.codes, coding.fold, coding.columns
        screens.append(as_screen(moments, sigma2, *coded, correlation))
    return screens


def _sums(
    values: Any,
    coded: Sequence[tuple[Index, NDArray[np.float64], Index | None]],
    *,
    folds: Sequence[Index],
    products: bool,
) -> list[Part]:
    """Return the sums of a block per coding; the columns of its values ascend without repeats."""
    numbers = values.data if sp.issparse(values) else values
    if numbers.size and max(float(numbers.max()), -float(numbers.min())) > MAX_VALUE:
        # Squared distances must themselves be squared.
        require_finite(values)
        raise too_large(np.any(np.abs(dense(values)) > MAX_VALUE, axis=0))
    parts = []
    for (codes, extra, weights), fold in zip(coded, folds, strict=True):
        labelled = slice(None) if (codes >= 0).all() else np.flatnonzero(codes >= 0)
        block = values[labelled]
        if extra.shape[1]:
            block = with_columns(block, extra[labelled])
        try:
            times = None if weights is None else weights[labelled]
            parts.append(screen_part(block, codes[labelled], times, fold, products=products))
        except ValueError:
            require_finite(values)  # names all affected columns
            raise
    return parts


def _with_products(
    adata: ad.AnnData, panel: Index, layer: str | None, part: Part, coding: Coding
) -> Part:
    """Return sums with products of genes from a sample of cells, scaled to the squares of all."""
    p = part.mean.shape[1]
    overlap = part.fold.ndim == 2
    folds = range(part.fold.shape[1]) if overlap else np.unique(part.fold).tolist()
    scatter = {k: np.zeros((p, p)) for k in folds}
    # Folds that overlap have a sample each, as if a screen had no other cells.
    for fold_numbers in [[k] for k in folds] if overlap else [list(folds)]:
        in_folds = np.any([belongs(coding.fold, k) for k in fold_numbers], axis=0)
        coded = np.flatnonzero(np.append(in_folds, False)[coding.codes])
        drawn = np.random.default_rng(0).choice(coded, min(_SAMPLED, len(coded)), replace=False)
        for block_cells, values in read_blocks(adata, panel, np.sort(drawn), layer=layer):
            row = np.searchsorted(part.groups, coding.codes[block_cells])
            deviation = np.hstack([dense(values), coding.extra[block_cells]]) - part.mean[row]
            if coding.weights is not None:
                deviation *= np.sqrt(coding.weights[block_cells])[:, None]
            for k in fold_numbers:
                of_fold = deviation[belongs(part.fold, k)[row]]
                scatter[k] += of_fold.T @ of_fold
    for k, total in scatter.items():
        squares, sampled = part.squares[belongs(part.fold, k)].sum(axis=0), total.diagonal().copy()
        scale = np.sqrt(np.divide(squares, sampled, out=np.zeros(p), where=sampled > 0))
        total *= scale
        total *= scale[:, None]
        np.fill_diagonal(total, squares)
    return part._replace(scatter=scatter)


def _add(first: list[Part], second: list[Part]) -> list[Part]:
    return [merge(*pair) for pair in zip(first, second, strict=True)]


def with_columns(values: Any, extra: NDArray[np.float64]) -> Any:
    """Return a block, dense or CSR, with further columns appended."""
    if sp.issparse(values):
        return sp.csr_array(sp.hstack([values, sp.csr_array(extra)]))
    return np.hstack([values, extra])


def require_finite(values: Any) -> None:
    """Raise if a value is NaN or infinite; the error names the columns."""
    numbers = values.data if sp.issparse(values) else values
    if not np.isfinite(numbers).all():
        raise not_finite(np.any(~np.isfinite(dense(values)), axis=0))


def read_blocks(
    adata: ad.AnnData,
    columns: ArrayLike,
    cells: ArrayLike,
    *,
    layer: str | None = None,
    finite: bool = True,
    of_table: bool = False,
) -> Iterator[tuple[Index, NDArray[np.floating] | sp.csr_array]]:
    """Yield ``(cells of the block, their values)`` until all of ``cells`` are read once.

    The values have shape ``(n_block, n_columns)``, as CSR if the panel is wide and few are
    non-zero. Blocks follow the order of the matrix on disk or in memory, so a file is read from
    front to back.
    """
    if not of_table:
        require_cells(adata, "This call")
    genes = np.asarray(columns, dtype=np.int64)
    matrix, panel, back, n_rows, blocks = _locate(
        adata, np.asarray(cells, dtype=np.int64), genes, layer, 1
    )
    source = LazyBlocks(matrix, panel, n_rows) if is_lazy(matrix) else open_source(matrix, panel)
    for rows, block_cells in blocks:
        try:
            values: Any = source.read(rows)
            if finite:
                require_finite(values)
        except ValueError as error:
            raise named(error, adata.var_names[genes], back) from error
        if sp.issparse(values):
            n, p = values.shape
            if p <= _WIDE_PANEL or values.nnz >= _SPARSE_SHARE * n * p:
                values = values.toarray()
        yield block_cells, values[:, back]


def read_sample(
    adata: ad.AnnData, columns: ArrayLike, cells: ArrayLike, layer: str | None
) -> Iterator[NDArray[np.floating] | sp.csr_array]:
    """Yield the values of at most 1,000 of ``cells``, block by block; values may be non-finite.

    The sample consists of a few evenly spaced runs of cells. For a CSC matrix in a file, whose
    columns are read whole, it includes at most 1,000 genes.
    """
    sampled, genes = np.asarray(cells, dtype=np.int64), np.asarray(columns, dtype=np.int64)
    matrix = require_layer(adata, layer)[1]
    n = _RUNS * _CELLS_A_RUN
    if getattr(matrix, "format", None) == "csc" and not sp.issparse(matrix):
        genes = genes[:: -(-len(genes) // n) or 1]
    if len(sampled) > n:
        starts = np.linspace(0, len(sampled) - _CELLS_A_RUN, _RUNS).astype(np.int64)
        sampled = sampled[(starts[:, None] + np.arange(_CELLS_A_RUN)).ravel()]
    for _, values in read_blocks(adata, genes, sampled, layer=layer, finite=False):
        yield values


def seen_and_constant(
    adata: ad.AnnData,
    columns: Index,
    cells: Index,
    layer: str | None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the share of ``cells`` in which each gene is not 0, and whether it is constant."""
    n_nonzero = np.zeros(len(columns))
    lowest, highest = np.full(len(columns), np.inf), np.full(len(columns), -np.inf)
    for _, values in read_blocks(adata, columns, cells, layer=layer):
        n_nonzero += np.asarray((values != 0).sum(axis=0)).ravel()
        low, high = values.min(axis=0), values.max(axis=0)
        if sp.issparse(values):
            low, high = low.toarray().ravel(), high.toarray().ravel()
        lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
    return n_nonzero / max(len(cells), 1), lowest >= highest


def require_layer(adata: ad.AnnData, layer: str | None) -> tuple[ad.AnnData, Any]:
    """Return the parent of a view and its layer, ``X`` if ``layer`` is ``None``.

    A view is read block by block through its parent, because ``adata.X`` of a view copies it all.
    """
    source = adata._adata_ref if adata.is_view and adata._adata_ref is not None else adata
    if layer is not None and layer not in adata.layers:
        # anndata 0.13 lists X as the layer None.
        names = [str(name) for name in adata.layers if name is not None]
        message = (
            f"adata.layers has no layer {layer!r}.{closest([layer], names)} "
            f"It holds {list_names(names) or 'none'}: pass an existing layer, or None for adata.X."
        )
        raise ValueError(message)
    matrix: Any = source.X if layer is None else source.layers[layer]
    if matrix is None:
        message = "adata.X is empty: store log-normalised expression there, or pass a layer."
        raise ValueError(message)
    if getattr(matrix, "group", None) is not None and hasattr(matrix, "format"):
        arrays_of(matrix)  # raises if a part is missing
    require_numbers(matrix, slot(layer))
    if tuple(matrix.shape) != (source.n_obs, source.n_vars):
        what = f"the shape {tuple(matrix.shape)} for {source.n_obs} cells and {source.n_vars} genes"
        raise damaged(what, slot(layer))
    return source, matrix


def slot(layer: str | None) -> str:
    """Return the expression by which users access a layer; ``None`` stands for ``adata.X``."""
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def _locate(
    adata: ad.AnnData, cells: Index, columns: Index, layer: str | None, n_groups: int
) -> tuple[Any, Index, Index, int, list[tuple[Index, Index]]]:
    """Return a matrix, ``panel``, ``back``, the rows per block, and rows and cells of each block.

    ``panel`` holds the columns, ascending and without repeats, and ``panel[back]`` the requested
    columns in their order. Rows ascend; blocks without rows are left out.
    """
    source, matrix = require_layer(adata, layer)
    rows = cells
    if source is not adata:
        rows = np.arange(source.n_obs)[adata._oidx][cells]
        columns = np.arange(source.n_vars)[adata._vidx][columns]
    by_row = np.argsort(rows, kind="stable")
    panel, back = np.unique(columns, return_inverse=True)
    # The rows per block depend only on panel and environments, not on format, chunks, memory or
    # workers. Sums are taken by block, in the order of rows, and do not depend on these either.
    p = max(len(panel), 1)
    n_rows = max(_BLOCK_ENTRIES // p, _CELLS_A_GROUP * n_groups)
    n_rows = max(1, min(n_rows, _MOST_ENTRIES // p))
    starts = np.flatnonzero(np.diff(rows[by_row] // n_rows, prepend=-1))
    blocks = [(rows[block], cells[block]) for block in np.split(by_row, starts[1:]) if len(block)]
    return matrix, panel, back, n_rows, blocks
