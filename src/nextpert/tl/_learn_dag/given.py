"""Graphs that the user gives: arcs by name, matrices, tables."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert._adata import (
    list_names,
    measured_genes,
    named_dag,
    panel_index,
    real_values,
    resolve_panel,
)
from nextpert.core.cells._sound import require_numbers, require_sound
from nextpert.core.graph.dag import CycleError, Dag

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray


def given_graph(
    adata: ad.AnnData, dag: Any, genes: Sequence[str] | None, gene_symbols: str | None = None
) -> tuple[list[str], NDArray[np.int64], Dag]:
    """Return panel, columns and graph from arcs ``(parent, child)``, a matrix, a table or a Dag.

    Without ``genes`` the panel is that of the table, of the arcs (in the order of
    ``adata.var_names``), or every gene, as for a graph without arcs.
    """
    if isinstance(dag, pd.DataFrame):
        if list(dag.index) != list(dag.columns):
            message = "A graph as a table needs the same genes, in one order, as rows and columns."
            raise ValueError(message)
        names, _ = resolve_panel(adata, dag.index, gene_symbols=gene_symbols)
        wanted, columns = resolve_panel(
            adata, names if genes is None else genes, gene_symbols=gene_symbols
        )
        left = sorted(set(names) - set(wanted))
        if left or set(wanted) - set(names):
            differ = left or sorted(set(wanted) - set(names))
            message = f"genes and the table of the graph differ in {list_names(differ)}."
            raise ValueError(message)
        matrix = real_values(dag, "The graph")
        place = panel_index(wanted, names, "genes")
        return wanted, columns, named_dag(_finite(matrix[np.ix_(place, place)]), wanted)
    if isinstance(dag, Dag) or sp.issparse(dag) or (isinstance(dag, np.ndarray) and _square(dag)):
        wanted, columns = resolve_panel(adata, genes, gene_symbols=gene_symbols)
        matrix = dag.to_matrix() if isinstance(dag, Dag) else dag
        require_numbers(matrix, "The graph")
        require_sound(matrix, "The graph")
        if sp.issparse(matrix):
            matrix = sp.csr_array(matrix, copy=True)
            matrix.sum_duplicates()
        if matrix.shape != (len(wanted), len(wanted)):
            message = (
                f"The graph has shape {matrix.shape}, but the panel has {len(wanted)} genes: "
                f"name the genes of its rows with genes."
            )
            raise ValueError(message)
        return wanted, columns, named_dag(_finite(matrix), wanted)
    return _from_arcs(adata, dag, genes, gene_symbols)


def _from_arcs(
    adata: ad.AnnData, dag: Any, genes: Sequence[str] | None, gene_symbols: str | None = None
) -> tuple[list[str], NDArray[np.int64], Dag]:
    arcs = pairs_of_names(dag, "dag")
    ends = {gene for arc in arcs for gene in arc}
    if genes is None and ends:
        resolve_panel(adata, sorted(ends), gene_symbols=gene_symbols)  # names the absent ones
        genes = [name for name in measured_genes(adata, gene_symbols) if name in ends]
    wanted, columns = resolve_panel(adata, genes, gene_symbols=gene_symbols)
    flat = panel_index([gene for arc in arcs for gene in arc], wanted, "dag")
    twice = [arc for arc, count in Counter(arcs).items() if count > 1]
    if twice:
        message = f"Arcs given more than once: {list_names(' -> '.join(arc) for arc in twice)}."
        raise ValueError(message)
    try:
        edges = zip(flat[::2], flat[1::2], strict=True)
        return wanted, columns, Dag.from_edges(len(wanted), edges)
    except CycleError as error:
        raise error.named(wanted) from None


def pairs_of_names(pairs: Any, what: str) -> list[tuple[str, str]]:
    """Return a list of pairs of gene names, or raise if ``pairs`` is something else."""
    rows = [] if pairs is None else list(pairs)
    if any(isinstance(row, str) or len(row) != 2 for row in rows):
        message = f"{what} must be a list of pairs of gene names, such as [('MYC', 'STK3')]."
        raise ValueError(message)
    return [(str(first), str(second)) for first, second in rows]


def _square(matrix: NDArray[Any]) -> bool:
    return matrix.ndim == 2 and matrix.dtype.kind in "bifuc"


def _finite(matrix: Any) -> Any:
    values = matrix.data if sp.issparse(matrix) else np.asarray(matrix)
    if not np.isfinite(values).all():
        message = "The graph holds NaN or infinite values: use zeros where there is no arc."
        raise ValueError(message)
    return matrix
