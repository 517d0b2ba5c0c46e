"""Graphs that the user gives, and what is known of a graph before: orders and edges."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._adata import (
    list_names,
    measured_genes,
    panel_index,
    resolve_panel,
)
from nextpert._adata.arguments import options
from nextpert.core import PriorKnowledge
from nextpert.core.graph.dag import CycleError, Dag

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import anndata as ad
    from numpy.typing import NDArray


def given_graph(
    adata: ad.AnnData, dag: Any, genes: Iterable[str] | None
) -> tuple[list[str], NDArray[np.int64], Dag]:
    """Return panel, columns and graph from edges ``(parent, child)``, a matrix or a Dag.

    Without ``genes`` the panel is that of the edges (in the order of ``adata.var_names``), or every
    gene, as for a graph without edges.
    """
    is_numbers = isinstance(dag, np.ndarray) and dag.ndim == 2 and dag.dtype.kind in "bifuc"
    if isinstance(dag, Dag) or sp.issparse(dag) or is_numbers:
        panel, columns = resolve_panel(adata, genes)
        matrix = dag.to_matrix() if isinstance(dag, Dag) else dag
        if matrix.shape != (len(panel), len(panel)):
            message = (
                f"The graph has shape {matrix.shape}, but the panel has {len(panel)} genes: "
                f"name the genes of its rows with genes."
            )
            raise ValueError(message)
        return panel, columns, Dag.from_matrix(matrix, panel)
    edges = pairs_of_names(dag, "dag")
    ends = {gene for edge in edges for gene in edge}
    if genes is None and ends:
        resolve_panel(adata, sorted(ends))  # names the absent ones
        genes = [name for name in measured_genes(adata) if name in ends]
    panel, columns = resolve_panel(adata, genes)
    if twice := [" -> ".join(edge) for edge, count in Counter(edges).items() if count > 1]:
        message = f"Edges given more than once: {list_names(twice)}."
        raise ValueError(message)
    try:
        return panel, columns, Dag.from_edges(len(panel), _edges(edges, panel, "dag"))
    except CycleError as error:
        raise error.named(panel) from None


def pairs_of_names(pairs: Any, what: str) -> list[tuple[str, str]]:
    """Return a list of pairs of gene names, or raise if ``pairs`` is something else."""
    rows = [] if pairs is None else list(pairs)
    if any(isinstance(row, str) or len(row) != 2 for row in rows):
        message = f"{what} must be a list of pairs of gene names, such as [('MYC', 'STK3')]."
        raise ValueError(message)
    return [(str(first), str(second)) for first, second in rows]


EDGES_OF = ("before", "required", "forbidden")


@options()
@dataclass(frozen=True)
class Prior:
    """``prior`` of the search options: each is documented there."""

    before: Iterable[Any] | None = None
    required: Iterable[Any] | None = None
    forbidden: Iterable[Any] | None = None


def read_prior(genes: Sequence[str], prior: Prior) -> PriorKnowledge | None:
    """Return the prior knowledge of a panel, or ``None`` where there is none.

    Raises
    ------
    CycleError
        If the orders run in a circle; its genes are named.
    ValueError
        If a gene is outside the panel, or an edge is required and forbidden.
    """
    if prior == Prior():
        return None
    edges = {name: _edges(getattr(prior, name), genes, name) for name in EDGES_OF}
    return PriorKnowledge(len(genes), names=genes, **edges)


def stored_knowledge(prior: PriorKnowledge | None) -> dict[str, dict[str, NDArray[Any]]]:
    """Return what was known before as rows of the panel, for searches on other cells of it."""
    if prior is None:
        return {}
    return {"prior": {kind: np.argwhere(getattr(prior, kind)) for kind in EDGES_OF}}


def read_knowledge(stored: Any, n_genes: int) -> PriorKnowledge | None:
    """Return prior knowledge from the ``"prior"`` that :func:`stored_knowledge` gave."""
    if not stored:
        return None
    edges = {kind: np.asarray(stored[kind]).tolist() for kind in EDGES_OF if kind in stored}
    return PriorKnowledge(n_genes, **edges)


def _edges(
    pairs: Iterable[tuple[str, str]] | None, genes: Sequence[str], what: str
) -> list[tuple[int, int]]:
    rows = pairs_of_names(pairs, what)
    flat = panel_index([gene for row in rows for gene in row], genes, what)
    return list(zip(flat[::2], flat[1::2], strict=True))
