"""The graphs of resamples that ``tl.learn_dag`` left in ``.uns``."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._adata.eager import eager
from nextpert.core import Dag
from nextpert.core._codec import array, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray


@dataclass(frozen=True)
class GraphsRecord:
    """Graphs one below the other in one CSR matrix over the panel, row = parent."""

    n_graphs: int = array(whole=True, least=1)
    indptr: NDArray[np.int64] = array("n_pointers", whole=True)
    indices: NDArray[np.int64] = array("n_arcs", whole=True, least=0)


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
    where, remedy = f"adata.uns[{key!r}]['graphs']", "run tl.learn_dag again"
    split = partial(_split, p=len(genes))
    graphs = unpack(split, stored["graphs"], where, remedy, record=GraphsRecord)
    if _changed(stored, genes, dag):
        message = (
            f"The graph in adata.varp[{key!r}] has changed since tl.learn_dag wrote it: the "
            f"{len(graphs)} graphs of resamples in adata.uns[{key!r}] are not used."
        )
        warnings.warn(message, UserWarning, stacklevel=3)
        return []
    return graphs


def _split(
    n_graphs: int, indptr: NDArray[np.int64], indices: NDArray[np.int64], *, p: int
) -> list[Dag]:
    """Return the graphs of a :class:`GraphsRecord` over a panel of ``p`` genes.

    ``indptr`` has the shape ``(n_graphs * p + 1,)``, ``indices`` one entry an arc.
    """
    if len(indptr) != n_graphs * p + 1:
        message = f"{n_graphs} graphs of {p} genes do not have {len(indptr)} pointers"
        raise ValueError(message)
    if indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
        message = "its pointers do not count its arcs"
        raise ValueError(message)
    if (indices >= p).any():
        message = "it has arcs outside the panel"
        raise ValueError(message)
    graphs = []
    for k in range(n_graphs):
        rows = indptr[k * p : (k + 1) * p + 1]
        parents = np.repeat(np.arange(p), np.diff(rows))
        children = indices[rows[0] : rows[-1]]
        matrix = sp.coo_array((np.ones(len(parents)), (parents, children)), shape=(p, p))
        graphs.append(Dag.from_matrix(matrix.tocsr()))
        if graphs[-1].n_edges != len(children):
            message = f"graph {k} has an arc twice"
            raise ValueError(message)
    return graphs


def _changed(stored: dict[str, Any], genes: Sequence[str], dag: Dag) -> bool:
    """Whether arcs were put in or taken out by hand; rows of the table of arcs may be gone."""
    learned = zip(
        stored["arcs"]["parent"].astype(str), stored["arcs"]["child"].astype(str), strict=True
    )
    arcs = {(genes[k], genes[i]) for k, i in dag.edges()}
    return int(stored["n_edges"]) != len(arcs) or not set(learned) <= arcs
