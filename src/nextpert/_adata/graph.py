"""Graphs in ``.varp`` over all genes, bootstrap graphs in ``.uns``, and the resamples of cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import scipy.sparse as sp

from nextpert._adata.panel import measured_genes, resolve_panel
from nextpert._adata.progress import progress
from nextpert._adata.read import read_blocks, with_columns
from nextpert._adata.stored import eager, read_stored
from nextpert._warn import warn
from nextpert.core._checks import list_names
from nextpert.core._codec import array, damaged, lists, nested, text, unpack
from nextpert.core.graph.dag import Dag
from nextpert.core.screen.moments import require_numbers, require_sound
from nextpert.core.screen.parts import empty_part, merge, screen_part
from nextpert.core.screen.screen import ScreenMoments
from nextpert.core.search._classes import poisson_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert._adata.screen import Environments


T = TypeVar("T")

# With fewer guides, the cells of a perturbation are resampled: two blocks hardly show their spread.
_LEAST_GUIDES = 3
_MOST_ENTRIES = 2**27  # entries of the sums of all resamples in one pass: 1 GB


def resample_weights(environments: Environments, seed: np.uint64) -> NDArray[np.int64]:
    """Return how often a resample draws every cell, shape ``(n_cells,)``.

    Counts are Poisson with mean 1, cell by cell (the Poisson bootstrap). If a perturbation has
    three or more guides, whole guides are drawn with replacement instead, as many as there are,
    because guides differ by more than the noise of their cells.
    """
    n_cells = len(environments.codes)
    weights = poisson_weights(np.array([seed], np.uint64), np.arange(n_cells))[0].astype(np.int64)
    weights[environments.codes < 0] = 0
    guide_key = environments.roles.guide_key
    if guide_key is None:
        return weights
    rng = np.random.default_rng(int(seed))
    guides = environments.table[guide_key].to_numpy(dtype=object)
    of_environment = np.full(len(guides), -1, np.int64)
    for name in sorted(set(environments.perturbation)):
        here = np.flatnonzero(environments.perturbation == name)
        names, block = np.unique(guides[here].astype(str), return_inverse=True)
        if len(names) >= _LEAST_GUIDES:
            times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)))
            of_environment[here] = times[block]
    whole = np.append(of_environment, -1)[environments.codes]
    return np.where(whole >= 0, whole, weights)


def resampled_screens(
    adata: ad.AnnData,
    columns: ArrayLike,
    environments: Environments,
    seeds: NDArray[np.uint64],
) -> Iterator[ScreenMoments]:
    """Yield the moments of a resample for every seed; genes, then numeric covariates.

    Each pass over the cells serves as many resamples as have sums that fit into 1 GB. The bits of a
    resample depend only on its seed.
    """
    width = len(np.asarray(columns)) + environments.covariates.shape[1]
    n_environments = len(environments.table)
    a_resample = width * (2 * n_environments + width)
    at_once = max(1, _MOST_ENTRIES // a_resample)
    cells = np.flatnonzero(environments.codes >= 0)
    with progress(len(seeds), "Resamples") as bar:
        for first in range(0, len(seeds), at_once):
            some = [resample_weights(environments, seed) for seed in seeds[first:][:at_once]]
            totals = [empty_part(width) for _ in some]
            for here, values in read_blocks(adata, columns, cells, layer=environments.roles.layer):
                block = values
                if environments.covariates.shape[1]:
                    block = with_columns(values, environments.covariates[here])
                for k, weights in enumerate(some):
                    part = screen_part(block, environments.codes[here], weights[here])
                    totals[k] = merge(totals[k], part)
            bar.update(len(some))
            for total in totals:
                yield ScreenMoments.from_part(total, n_environments)


def to_all_genes(matrix: Any, columns: NDArray[np.int64], n_vars: int) -> sp.csr_array:
    """Return a matrix over the panel as one over all genes, zero outside the panel."""
    coo = sp.coo_array(matrix)
    row, col = coo.coords
    return sp.csr_array((coo.data, (columns[row], columns[col])), shape=(n_vars, n_vars))


def read_graph(
    adata: ad.AnnData, key: str, gene_symbols: str | None = None
) -> tuple[list[str], NDArray[np.int64], Dag]:
    """Return panel, columns and graph of ``adata.varp[key]`` (row = parent).

    The panel is stored in ``adata.uns[key]["genes"]``; for a graph that a user wrote to ``.varp``
    without a stored panel, it includes every gene. Genes have the names used for the graph, or
    those in the column ``gene_symbols`` of ``adata.var``.
    """
    if key not in adata.varp:
        message = f"adata.varp has no graph {key!r}: run tl.learn_dag first."
        raise ValueError(message)
    stored = adata.uns.get(key, {})
    if hasattr(stored, "keys") and {"format", "contents", "genes"} & set(stored):
        read_stored(adata, key, "tl.learn_dag")
    genes = panel_of(stored)
    before = symbols_of(stored)
    written = f"uns[{key!r}]", "tl.learn_dag"
    names, columns = resolve_panel(adata, genes, gene_symbols=before, written=written)
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
        message = f"adata.varp[{key!r}] holds NaN or infinite values: use 0 for no edge."
        raise ValueError(message)
    block = matrix[columns][:, columns]
    if block.nnz < matrix.nnz:
        outside = np.setdiff1d(np.unique(np.concatenate(matrix.nonzero())), columns)
        shown = list_names(np.asarray(adata.var_names)[outside])
        message = f"adata.varp[{key!r}] has edges of genes outside its panel: {shown}. Run "
        message += f'tl.learn_dag(method="given"), or delete adata.uns[{key!r}].'
        raise ValueError(message)
    return names, columns, Dag.from_matrix(block, names)


def panel_of(stored: Any) -> list[str] | None:
    """Return the genes of a stored result, or ``None`` if it holds none."""
    genes: Any = eager(stored.get("genes")) if hasattr(stored, "get") else None
    # A number or a mapping in place of genes is damage, which other checks report.
    is_row = getattr(genes, "ndim", int(isinstance(genes, list))) == 1
    return [str(gene) for gene in genes] if is_row else None


def symbols_of(stored: Any) -> str:
    """Return the column of ``adata.var`` that names the genes of a stored result, or ``""``."""
    params: Any = stored.get("params") if hasattr(stored, "get") else None
    symbols = params.get("gene_symbols") if hasattr(params, "get") else None
    return "" if symbols is None else str(symbols)


@dataclass(frozen=True)
class GraphsRecord:
    """Graphs over the panel, stacked in one CSR matrix (row = parent).

    Parameters
    ----------
    n_graphs
        Number of graphs.
    indptr
        Start of each of the ``n_graphs * n_genes`` rows, and the end of the last row.
    indices
        Columns (children) of the edges.
    """

    n_graphs: int = array(dtype=np.int64)
    indptr: NDArray[np.int64] = array("n_pointers", dtype=np.int64)
    indices: NDArray[np.int64] = array("n_edges", dtype=np.int64)
    dags: list[Dag] = field(init=False)

    def __post_init__(self) -> None:
        n, p = self.n_graphs, (len(self.indptr) - 1) // self.n_graphs
        parts = np.ones(len(self.indices)), self.indices, self.indptr
        stacked = sp.csr_array(parts, shape=(n * p, p))
        # Raises if pointers or indices are out of range.
        stacked.check_format(full_check=True)
        if not stacked.has_canonical_format:
            message = "an edge is given twice, or edges are not in order"
            raise ValueError(message)
        dags = [Dag.from_matrix(stacked[k * p : (k + 1) * p]) for k in range(n)]
        object.__setattr__(self, "dags", dags)


@dataclass(frozen=True)
class HeldOutRecord:
    """Graphs that were learned without the cells of some perturbations, to predict these.

    Parameters
    ----------
    folds
        Labels whose cells are left out together, one list per graph.
    graphs
        The graphs, one per fold: each is the graph that the same call learns from a file without
        the cells of the fold.
    cells
        Digests of the cells, as every result with a fit has them.
    """

    folds: list[list[str]] = lists()
    graphs: GraphsRecord = nested(GraphsRecord)
    cells: str = text()

    def __post_init__(self) -> None:
        if len(self.folds) != self.graphs.n_graphs:
            message = f"it has {self.graphs.n_graphs} graphs for {len(self.folds)} folds"
            raise ValueError(message)


def graphs_record(edges: Sequence[sp.csr_array]) -> GraphsRecord:
    """Return the record of graphs, given as one matrix each (row = parent)."""
    stacked = sp.csr_array(sp.vstack(edges))
    stacked.sort_indices()
    pointers = (stacked.indptr.astype(np.int64), stacked.indices.astype(np.int64))
    return GraphsRecord(len(edges), *pointers)


def read_graphs(adata: ad.AnnData, key: str, genes: Sequence[str], dag: Dag) -> list[Dag]:
    """Return the bootstrap graphs in ``adata.uns[key]``, over its panel; empty if there are none.

    ``genes`` and ``dag`` are the panel and the graph of all cells, as returned by
    :func:`~nextpert._adata.graph.read_graph`. If a user has changed this graph since it was
    learned, the bootstrap graphs no longer match it: they are left out, with a warning.
    """
    result = adata.uns.get(key)
    if not hasattr(result, "keys") or "graphs" not in result:
        return []
    stored = dict(eager(result))
    graphs = _on_panel(GraphsRecord, stored["graphs"], key, "graphs", len(genes)).dags
    if _changed(stored, genes, dag):
        message = (
            f"adata.varp[{key!r}] has changed since tl.learn_dag wrote it: its {len(graphs)} "
            f"bootstrap graphs are not used. Run tl.learn_dag again."
        )
        warn(message)
        return []
    return graphs


def read_held_out_graphs(adata: ad.AnnData, key: str, n_genes: int) -> HeldOutRecord | None:
    """Return the graphs in ``adata.uns[key]`` that were learned without folds, if there are any."""
    result = eager(adata.uns.get(key))
    if not hasattr(result, "keys") or "held_out" not in result:
        return None
    return _on_panel(HeldOutRecord, result["held_out"], key, "held_out", n_genes)


def _on_panel(record: type[T], stored: Any, key: str, name: str, n_genes: int) -> T:
    """Return a record of graphs, or raise if they are not graphs of a panel of ``n_genes``."""
    where, remedy = f"adata.uns[{key!r}][{name!r}]", "run tl.learn_dag again"
    found = unpack(record, stored, where, remedy)
    graphs: Any = getattr(found, "graphs", found)
    if any(graph.n_nodes != n_genes for graph in graphs.dags):
        raise damaged(where, f"its graphs do not have {n_genes} genes each", remedy)
    return found


def _changed(stored: dict[str, Any], genes: Sequence[str], dag: Dag) -> bool:
    """Whether a user has added or removed edges; rows of the table of edges may be missing."""
    learned = zip(
        stored["edges"]["parent"].astype(str), stored["edges"]["child"].astype(str), strict=True
    )
    edges = {(genes[k], genes[i]) for k, i in dag.edges()}
    return int(stored["n_edges"]) != len(edges) or not set(learned) <= edges
