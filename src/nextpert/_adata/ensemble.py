"""Many graphs in place of one: those of ``tl.learn_dag``, and the posteriors fitted on them."""

from __future__ import annotations

import warnings
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._adata.eager import eager
from nextpert.core import Dag, DagBlr

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray


def read_graphs(adata: ad.AnnData, key: str, genes: Sequence[str], dag: Dag) -> list[Dag]:
    """Return the graphs of resamples in ``adata.uns[key]``, over its panel; none where none are.

    ``genes`` and ``dag`` are the panel and the graph of all cells, as
    :func:`~nextpert._adata.graph.read_graph` gave them. Where that graph was changed by hand since
    it was learned, the graphs of resamples are not of its kind: they are left out, with a warning.

    Raises
    ------
    ValueError
        If they are damaged: of another shape, with arcs outside the panel, or with a cycle.
    """
    result = adata.uns.get(key)
    if not hasattr(result, "keys") or "graphs" not in result:
        return []
    stored = dict(eager(result))
    graphs = _split(stored["graphs"], len(genes), f"adata.uns[{key!r}]['graphs']")
    if _changed(stored, genes, dag):
        message = (
            f"The graph in adata.varp[{key!r}] has changed since tl.learn_dag wrote it: the "
            f"{len(graphs)} graphs of resamples in adata.uns[{key!r}] are not used."
        )
        warnings.warn(message, UserWarning, stacklevel=3)
        return []
    return graphs


def _split(stored: Any, p: int, where: str) -> list[Dag]:
    """Return the graphs that lie one below the other in a stored CSR matrix, row = parent."""
    n = int(_whole(stored, "n_graphs", 0, where))
    indptr, indices = (_whole(stored, name, 1, where) for name in ("indptr", "indices"))
    if n < 1 or len(indptr) != n * p + 1:
        raise _damaged(where, f"{n} graphs of {p} genes do not have {len(indptr)} pointers")
    if indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
        raise _damaged(where, "its pointers do not count its arcs")
    if len(indices) and not 0 <= indices.min() <= indices.max() < p:
        raise _damaged(where, "it has arcs outside the panel")
    graphs = []
    for k in range(n):
        rows = indptr[k * p : (k + 1) * p + 1]
        parents = np.repeat(np.arange(p), np.diff(rows))
        children = indices[rows[0] : rows[-1]]
        matrix = sp.coo_array((np.ones(len(parents)), (parents, children)), shape=(p, p))
        try:
            graphs.append(Dag.from_matrix(matrix.tocsr()))
        except ValueError as error:  # a cycle
            raise _damaged(where, f"graph {k}: {str(error).split(':')[0]}") from None
        if graphs[-1].n_edges != len(children):
            raise _damaged(where, f"graph {k} has an arc twice")
    return graphs


def _changed(stored: dict[str, Any], genes: Sequence[str], dag: Dag) -> bool:
    """Whether arcs were put in or taken out by hand; rows of the table of arcs may be gone."""
    learned = zip(
        stored["arcs"]["parent"].astype(str), stored["arcs"]["child"].astype(str), strict=True
    )
    arcs = {(genes[k], genes[i]) for k, i in dag.edges()}
    return int(stored["n_edges"]) != len(arcs) or not set(learned) <= arcs


def stored_ensemble(posteriors: Sequence[DagBlr]) -> dict[str, Any]:
    """Return the posteriors on the graphs of resamples, safe to save."""
    return {str(k): blr.to_dict() for k, blr in enumerate(posteriors)}


def read_ensemble(stored: Any, n_genes: int, where: str) -> list[DagBlr]:
    """Return the posteriors stored by :func:`stored_ensemble`; none where nothing is stored.

    Raises
    ------
    ValueError
        If they are damaged, or of another number of genes.
    """
    if stored is None:
        return []
    names = takewhile(lambda name: name in stored, map(str, count()))
    found = [DagBlr.from_dict(dict(stored[name])) for name in names]
    if any(blr.n_nodes != n_genes for blr in found):
        message = f"{where} is damaged (it has graphs of other genes): run tl.fit_dag_blr again."
        raise ValueError(message)
    return found


def _whole(stored: Any, name: str, ndim: int, where: str) -> NDArray[np.int64]:
    part = stored.get(name) if hasattr(stored, "get") else None
    value = np.asarray(part)
    if value.dtype.kind not in "iu" or value.ndim != ndim:
        raise _damaged(where, f"its {name} is gone or no whole numbers")
    return value.astype(np.int64)


def _damaged(where: str, what: str) -> ValueError:
    return ValueError(f"{where} is damaged ({what}): run tl.learn_dag again.")
