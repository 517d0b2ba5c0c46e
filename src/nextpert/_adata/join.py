"""Subsets of an AnnData in memory, and the cells of several rounds joined into one AnnData."""

from __future__ import annotations

import logging
from collections import Counter
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from nextpert._adata.labels import column_of
from nextpert._adata.panel import closest
from nextpert._adata.sources import is_lazy, rows_and_columns
from nextpert._adata.stored import eager
from nextpert._adata.table import CORRELATION, KEY, SE, cells_of, is_table, joined_records
from nextpert.core._checks import list_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


_ALIGNED = ("obs", "var", "obsm", "varm", "obsp", "varp")


def _parent(adata: ad.AnnData) -> ad.AnnData:
    return adata._adata_ref if adata.is_view and adata._adata_ref is not None else adata


def _matrix(adata: ad.AnnData, layer: str | None) -> Any:
    return adata.X if layer is None else adata.layers[layer]


def check_in_place(adata: ad.AnnData, *, copy: bool) -> None:
    """Raise if a file or a lazy matrix would have to be subset in place."""
    if not copy and (adata.isbacked or is_lazy(_parent(adata).X)):
        message = "adata is backed by a file or lazy: pass copy=True, or pass adata.to_memory()."
        raise ValueError(message)


def take(adata: ad.AnnData, cells: NDArray, genes: NDArray) -> ad.AnnData:
    """Return some cells and genes as a separate AnnData in memory.

    CSR matrices are read in runs of rows if the rows ascend, and other matrices at once.
    """
    source = _parent(adata)
    # A view of a backed file cannot be subset again.
    if source is not adata:
        cells = np.arange(source.n_obs)[adata._oidx][cells]
        genes = np.arange(source.n_vars)[adata._vidx][genes]
    chosen = source[cells, genes]
    ascends = len(cells) > 0 and bool((np.diff(cells) > 0).all())

    def has_runs(matrix: Any) -> bool:
        return ascends and getattr(matrix, "format", None) == "csr"

    if is_lazy(source.X) or (source.isbacked and not (has_runs(source.X) and source.raw is None)):
        # The result of to_memory on a view still has view classes; a copy has not.
        return chosen.to_memory().copy()

    def read(layer: str | None) -> Any:
        matrix = _matrix(source, layer)
        if has_runs(matrix):
            return rows_and_columns(matrix, cells, genes)
        return None if matrix is None else _matrix(chosen, layer).copy()

    return ad.AnnData(
        read(None),
        **{name: getattr(chosen, name).copy() for name in _ALIGNED},
        # anndata 0.13 lists X as the layer None.
        layers={name: read(name) for name in source.layers if name is not None},
        uns=deepcopy(dict(chosen.uns)),
        raw=chosen.raw,
    )


def replace(adata: ad.AnnData, new: ad.AnnData) -> None:
    """Replace the content of ``adata`` by ``new``, as scanpy's filters do; views become actual."""
    adata._init_as_actual(new)


logger = logging.getLogger(__name__)


def kept_cells(
    adata: ad.AnnData,
    columns: Sequence[str],
    layer: str | None,
    *,
    numbers: Sequence[str] = (),
    genes: Sequence[str] | None = None,
) -> ad.AnnData:
    """Return a copy in memory of one matrix of cells, some columns of ``obs``, and ``var``.

    Columns become text, except numeric columns in ``numbers``. ``layer`` keeps its name; ``genes``
    are in the desired order, ``None`` for all genes.
    """
    obs = pd.DataFrame(index=pd.Index([str(name) for name in adata.obs_names]))
    for name in columns:
        column = column_of(adata, name)
        if name in numbers and is_numeric_dtype(column) and not is_bool_dtype(column):
            obs[name] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        else:  # as read from a file
            obs[name] = pd.Categorical(column.astype(object).map(str, na_action="ignore"))
    place = {str(gene): i for i, gene in enumerate(adata.var_names)}
    which = slice(None) if genes is None else [place[gene] for gene in genes]
    matrix = _in_memory(_matrix(adata, layer))[:, which]
    out = ad.AnnData(
        matrix if layer is None else None,
        obs,
        eager(adata.var).iloc[which].copy(),
        layers={} if layer is None else {layer: matrix},
    )
    if is_table(adata):
        out.obs["n_cells"] = cells_of(adata)
        out.layers[SE] = _in_memory(adata.layers[SE])[:, which]
        out.uns[KEY] = dict(eager(adata.uns[KEY]))
        if CORRELATION in adata.varp:
            out.varp[CORRELATION] = _in_memory(adata.varp[CORRELATION])[which][:, which]
    return out


def joined_cells(
    before: ad.AnnData, after: ad.AnnData, layer: str | None, suffix: str
) -> ad.AnnData:
    """Return the cells of two results of :func:`kept_cells`, ``before`` and then ``after``.

    Genes are those of ``after``, all of which ``before`` has. Cells of ``after`` whose name occurs
    in ``before`` get the ``suffix``.
    """
    old, new = kept_cells(before, [], layer, genes=list(after.var_names)), after.copy()
    old.obs = before.obs
    taken = set(before.obs_names)
    new.obs_names = [f"{name}{suffix}" if name in taken else name for name in after.obs_names]
    # Columns of genes and a table's correlation come from the first round that has them.
    out = ad.concat([old, new], join="outer", merge="first")
    out.obs_names_make_unique()
    if is_table(after):
        out.uns[KEY] = joined_records(before, after)
    return out


def require_genes(adata: ad.AnnData, panel: Sequence[str], genes: Sequence[str]) -> list[str]:
    """Return those of ``genes`` that ``adata`` has, in order; all of ``panel`` must be present."""
    there = [str(gene) for gene in adata.var_names]
    twice = [gene for gene, n in Counter(there).items() if n > 1]
    if twice:
        message = f"The new cells have genes more than once: {list_names(twice)}. Drop the "
        raise ValueError(message + "duplicates.")
    has = set(there)
    absent = [gene for gene in panel if gene not in has]
    if absent:
        message = f"The new cells lack {len(absent)} genes of the panel: {list_names(absent)}."
        message += f"{closest(absent, there)} Correct the names, or add these genes."
        raise ValueError(message)
    out = [gene for gene in genes if gene in has]
    gone = [gene for gene in genes if gene not in has]
    if gone:
        logger.info("Genes absent from the new cells are left out: %s.", list_names(gone))
    return out


def _in_memory(matrix: Any) -> Any:
    """Return a copy: CSR with sorted indices, or an array."""
    held = eager(matrix)
    if not isinstance(held, np.ndarray) and not sp.issparse(held):
        held = held[:]  # reads the file
    if not sp.issparse(held):
        return np.array(held)
    out = sp.csr_matrix(held, copy=True)
    out.sort_indices()
    return out
