"""Graphs in ``.varp``: full matrices over all genes, of which a panel's block is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._adata.eager import eager
from nextpert._adata.panel import list_names, measured_genes, resolve_panel
from nextpert._adata.stored import read_stored
from nextpert.core.cells._sound import require_numbers, require_sound
from nextpert.core.graph.dag import CycleError, Dag

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray


def to_all_genes(matrix: Any, columns: NDArray[np.int64], n_vars: int) -> sp.csr_array:
    """Return a matrix over the panel as one over all genes, zero outside the panel."""
    coo = sp.coo_array(matrix)
    row, col = coo.coords
    return sp.csr_array((coo.data, (columns[row], columns[col])), shape=(n_vars, n_vars))


def read_graph(
    adata: ad.AnnData, key: str, gene_symbols: str | None = None
) -> tuple[list[str], NDArray[np.int64], Dag]:
    """Return panel, columns and graph of ``adata.varp[key]`` (row = parent).

    The panel is the one stored in ``adata.uns[key]["genes"]``; where a graph was put into
    ``.varp`` by hand and nothing is stored, it is every gene. Genes are named as they were for
    the graph, or by the column ``gene_symbols`` of ``adata.var``.

    Raises
    ------
    ValueError
        If there is no graph, if genes of its panel are gone from ``adata``, or if arcs lie
        outside its panel.
    CycleError
        If the graph has a cycle; its genes are named.
    """
    if key not in adata.varp:
        message = (
            f"adata.varp has no graph {key!r}: run tl.learn_dag first, or put your own graph "
            f"there (row = parent, column = child)."
        )
        raise ValueError(message)
    stored = adata.uns.get(key, {})
    if hasattr(stored, "keys") and {"format", "contents", "genes"} & set(stored):
        read_stored(adata, key, "tl.learn_dag")
    genes, before = panel_of(stored), symbols_of(stored)
    if genes is not None:
        require_same_panel(adata, genes, f"uns[{key!r}]", "tl.learn_dag", before)
    names, columns = resolve_panel(adata, genes, gene_symbols=before)
    if gene_symbols not in (None, before):
        every = measured_genes(adata, gene_symbols)
        names, columns = resolve_panel(
            adata, [every[j] for j in columns], gene_symbols=gene_symbols
        )
    stored_graph = eager(adata.varp[key])
    require_numbers(stored_graph, f"adata.varp[{key!r}]")
    require_sound(stored_graph, f"adata.varp[{key!r}]")
    matrix = sp.csr_array(stored_graph, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    if not np.isfinite(matrix.data).all():
        message = f"adata.varp[{key!r}] holds NaN or infinite values: use zeros where no arc is."
        raise ValueError(message)
    block = matrix[columns][:, columns]
    if block.nnz < matrix.nnz:
        outside = np.setdiff1d(np.unique(np.concatenate(matrix.nonzero())), columns)
        message = (
            f"adata.varp[{key!r}] has arcs at genes outside its panel in adata.uns[{key!r}]: "
            f"{list_names(np.asarray(adata.var_names)[outside])}. Run tl.learn_dag again with "
            f'method="given", or delete adata.uns[{key!r}] to use every gene.'
        )
        raise ValueError(message)
    return names, columns, named_dag(block, names)


def named_dag(matrix: Any, names: list[str]) -> Dag:
    """Return the graph of a matrix (row = parent); a cycle is reported by its genes."""
    try:
        return Dag.from_matrix(matrix)
    except CycleError as error:
        raise error.named(names) from None


def panel_of(stored: Any) -> list[str] | None:
    """Return the genes of a stored result, or ``None`` where it holds none."""
    genes: Any = eager(stored.get("genes")) if hasattr(stored, "get") else None
    # A number or a mapping in their place is damage, which others report.
    is_row = getattr(genes, "ndim", int(isinstance(genes, list))) == 1
    return [str(gene) for gene in genes] if is_row else None


def symbols_of(stored: Any) -> str | None:
    """Return the column of ``adata.var`` that names the genes of a stored result, if one does."""
    params: Any = stored.get("params") if hasattr(stored, "get") else None
    symbols = params.get("gene_symbols") if hasattr(params, "get") else None
    return None if symbols is None else str(symbols)


def require_same_panel(
    adata: ad.AnnData, genes: list[str], where: str, function: str, gene_symbols: str | None = None
) -> None:
    """Raise if genes of a stored result are no longer among those of ``adata``."""
    measured = set(measured_genes(adata, gene_symbols))
    gone = [gene for gene in genes if gene not in measured]
    if gone:
        message = (
            f"adata.{where} belongs to another gene panel; genes not in adata: "
            f"{list_names(gone)}. Run {function} again on the genes at hand."
        )
        raise ValueError(message)
