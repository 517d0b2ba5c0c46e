"""Graphs that the user gives, and prior knowledge of a graph: orders and edges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert._adata import (
    in_order,
    list_names,
    measured_genes,
    panel_index,
    resolve_panel,
    strings,
)
from nextpert._adata.arguments import check_value, one_of, options
from nextpert._adata.panel import closest
from nextpert.core import PriorKnowledge
from nextpert.core.graph.dag import CycleError, Dag
from nextpert.tl._learn_dag.context import ContextNodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.screen import Environments


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


@options(perturbation_targets=one_of("learned", "known"))
@dataclass(frozen=True)
class Prior:
    """``prior`` of the search options: each is documented there."""

    before: Iterable[Any] | None = None
    tiers: Mapping[str, float] | Iterable[Any] | None = None
    required: Iterable[Any] | None = None
    forbidden: Iterable[Any] | None = None
    perturbation_targets: str | Mapping[str, Any] = "learned"


def read_prior(genes: Sequence[str], prior: Prior) -> PriorKnowledge | None:
    """Return the prior knowledge of a panel, or ``None`` if there is none.

    Raises
    ------
    CycleError
        If the orders contain a cycle; its genes are named.
    ValueError
        If a gene is outside the panel or in two tiers, or an edge is required and forbidden.
    """
    if all(getattr(prior, name) is None for name in (*EDGES_OF, "tiers")):
        return None
    edges = {name: _edges(getattr(prior, name), genes, name) for name in EDGES_OF}
    tiers: Any = prior.tiers
    # The numbers of tiers by gene.
    if isinstance(tiers, Mapping):
        levels = sorted(set(tiers.values()))
        tiers = [[gene for gene, tier in tiers.items() if tier == level] for level in levels]
    if tiers is not None:
        tiers = [panel_index(map(str, tier), genes, "tiers") for tier in tiers]
        # Every gene of a tier comes before all genes of later tiers.
        for earlier, later in combinations(tiers, 2):
            edges["before"] += product(earlier, later)
    return PriorKnowledge(len(genes), names=genes, **edges)


def stored_knowledge(prior: PriorKnowledge | None) -> dict[str, dict[str, NDArray[Any]]]:
    """Return prior knowledge as rows of the panel, for later searches on other cells."""
    if prior is None:
        return {}
    return {"prior": {kind: np.argwhere(getattr(prior, kind)) for kind in EDGES_OF}}


def read_knowledge(stored: Any, n_genes: int) -> PriorKnowledge | None:
    """Return prior knowledge from the ``"prior"`` that :func:`stored_knowledge` returned."""
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


def read_targets(
    targets: str | Mapping[str, Any], environments: Environments, genes: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return the target genes of perturbations and conditions, where they are known.

    ``targets`` is ``perturbation_targets`` of the prior of :func:`nextpert.tl.learn_dag`. Raise if
    a name is not a perturbation, or is a combination whose members have their own nodes.
    """
    naming = environments.naming_on(genes)
    every = [naming.targets(label) for label in environments.perturbations()]
    if isinstance(targets, str):
        measured = sorted({gene for inside, _ in every for gene in inside})
        return {gene: (gene,) for gene in measured if targets == "known"}
    nodes = ContextNodes.of(environments, genes).names[len(environments.covariate_names) :]
    nodes += sorted({part for inside, outside in every for part in [*inside, *outside]})
    known = nodes + environments.perturbations()
    out: dict[str, tuple[str, ...]] = {}
    for name, acts in naming.renamed(targets, known, "perturbation_targets").items():
        if name not in known:
            message = (
                f"perturbation_targets names {name}, which is not a perturbation of the cells that "
                f"are read: leave it out.{closest([name], known)}"
            )
            raise ValueError(message)
        if name not in nodes:
            message = (
                f"perturbation_targets names the combination {name}, which acts through its "
                f"members: give the targets of {list_names(naming.members(name))} instead."
            )
            raise ValueError(message)
        what = f"perturbation_targets[{name!r}]"
        some = [acts] if isinstance(acts, str) else acts
        check_value(some, what, "Iterable[str]")
        out[name] = tuple(str(gene) for gene in in_order(some))
        panel_index(out[name], genes, what)
    return out


def stored_targets(targets: Mapping[str, Sequence[str]]) -> dict[str, pd.DataFrame]:
    """Return known targets as a table, one row per gene; the gene is empty if there is none."""
    rows = [(name, gene) for name, some in targets.items() for gene in some or ("",)]
    columns = ("perturbation", "gene")
    table = {c: strings(row[k] for row in rows) for k, c in enumerate(columns)}
    return {"perturbation_targets": pd.DataFrame(table)} if rows else {}


def read_stored_targets(stored: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return known targets from what :func:`stored_targets` returned; empty if it is absent."""
    table = stored.get("perturbation_targets")
    if table is None:
        return {}
    by_name = pd.DataFrame(table).astype(str).groupby("perturbation", sort=False)["gene"]
    return {str(name): tuple(gene for gene in genes if gene) for name, genes in by_name}
