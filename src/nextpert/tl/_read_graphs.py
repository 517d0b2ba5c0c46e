"""Reading of graphs: those that a user gives, and those stored with a learned graph."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._adata import fingerprint, list_names, measured_genes, resolve_panel, same_cells
from nextpert._adata.graph import read_held_out_graphs
from nextpert._adata.roles import fitted_roles
from nextpert._adata.screen import read_environments
from nextpert._adata.stored import eager
from nextpert.core._checks import as_rng
from nextpert.core.graph.dag import CycleError, Dag
from nextpert.core.search.registry import SearchOptions
from nextpert.study.prior import edges_by_index, pairs_of_names, read_knowledge, read_stored_targets
from nextpert.study.searches import HeldOut

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles


def read_held_out(
    adata: ad.AnnData,
    dag_key: str,
    roles: Roles,
    genes: Sequence[str],
    columns: NDArray[np.int64],
    names: Sequence[str],
    cells: str,
) -> HeldOut | None:
    """Return what searches without some of the perturbations ``names`` need.

    ``None`` if the graph in ``adata.uns[dag_key]`` was learned without perturbed cells, or with
    another column of labels or another control than ``roles``: no search is then repeated. Columns,
    options and prior knowledge are those of the stored graph. Graphs that are stored with it are
    known if cells, roles and labels are as they were; ``cells`` is the fingerprint of the cells
    with ``roles``.
    """
    stored = eager(adata.uns.get(dag_key))
    params: Any = stored.get("params") if hasattr(stored, "get") else None
    if not hasattr(params, "get") or params.get("environments") != "all":
        return None
    roles_of_fit = fitted_roles(adata, params)
    if (roles_of_fit.perturbation_key, roles_of_fit.control) != (
        roles.perturbation_key,
        roles.control,
    ):
        return None
    prior = read_knowledge(stored.get("prior"), len(genes))
    options = SearchOptions(str(params["method"]), int(params["n_runs"]), prior)
    separated = replace(roles_of_fit, separator=roles.separator)
    environments = read_environments(adata, separated, named=names)
    graphs: dict[frozenset[str], Dag] = {}
    record = read_held_out_graphs(adata, dag_key, len(genes))
    if record is not None:
        labels = {name for fold in record.folds for name in fold}
        is_same_screen = separated == roles_of_fit and labels == set(environments.perturbations())
        if (roles_of_fit.columns, roles_of_fit.layer) != (roles.columns, roles.layer):
            cells = fingerprint(adata, roles_of_fit, columns)
        if is_same_screen and same_cells(cells, record.cells):
            graphs = dict(zip(map(frozenset, record.folds), record.graphs.dags, strict=True))
    text = str(params.get("rng", ""))
    rng = as_rng(int(text) if text.isdigit() else 0)  # 0 if the seed was not a number
    return HeldOut(environments, options, read_stored_targets(stored), rng, graphs)


def given_graph(
    adata: ad.AnnData, dag: Any, genes: Iterable[str] | None
) -> tuple[list[str], NDArray[np.int64], Dag]:
    """Return panel, columns and graph from edges ``(parent, child)``, a matrix or a Dag.

    Without ``genes``, the panel contains the genes of the edges (in the order of
    ``adata.var_names``), or every gene if ``dag`` is a matrix, a Dag or has no edges.
    """
    is_numbers = isinstance(dag, np.ndarray) and dag.ndim == 2 and dag.dtype.kind in "bifuc"
    if isinstance(dag, Dag) or sp.issparse(dag) or is_numbers:
        panel, columns = resolve_panel(adata, genes)
        matrix = dag.to_matrix() if isinstance(dag, Dag) else dag
        if matrix.shape != (len(panel), len(panel)):
            message = (
                f"The graph has shape {matrix.shape}, but the panel has {len(panel)} genes: "
                f"name the genes of the graph's rows in genes."
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
        message = f"dag has edges more than once: {list_names(twice)}. Give each edge once."
        raise ValueError(message)
    try:
        return panel, columns, Dag.from_edges(len(panel), edges_by_index(edges, panel, "dag"))
    except CycleError as error:
        raise error.named(panel) from None
