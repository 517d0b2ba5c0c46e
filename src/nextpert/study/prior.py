"""Prior knowledge of a graph: orders of genes, edges, and targets of perturbations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import (
    in_order,
    list_names,
    panel_index,
    strings,
)
from nextpert._adata.arguments import check_value, one_of, options
from nextpert._adata.panel import closest
from nextpert.core import PriorKnowledge
from nextpert.study.context_nodes import context_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from nextpert._adata.screen import Environments


def pairs_of_names(pairs: Any, argument: str) -> list[tuple[str, str]]:
    """Return a list of pairs of gene names, or raise if ``pairs`` is something else."""
    rows = [] if pairs is None else list(pairs)
    if any(isinstance(row, str) or len(row) != 2 for row in rows):
        message = f"{argument} must be a list of pairs of gene names, such as [('MYC', 'STK3')]."
        raise ValueError(message)
    return [(str(first), str(second)) for first, second in rows]


EDGES_OF = ("before", "required", "forbidden")


@options(perturbation_targets=one_of("learned", "known"))
@dataclass(frozen=True)
class GraphPrior:
    """``prior`` of the search options: each is documented there."""

    before: Iterable[Any] | None = None
    tiers: Mapping[str, float] | Iterable[Any] | None = None
    required: Iterable[Any] | None = None
    forbidden: Iterable[Any] | None = None
    perturbation_targets: str | Mapping[str, Any] = "learned"


def read_prior(genes: Sequence[str], prior: GraphPrior) -> PriorKnowledge | None:
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
    edges = {name: edges_by_index(getattr(prior, name), genes, name) for name in EDGES_OF}
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


def edges_by_index(
    pairs: Iterable[tuple[str, str]] | None, genes: Sequence[str], argument: str
) -> list[tuple[int, int]]:
    """Return edges as pairs of positions on the panel; ``argument`` is their name in errors."""
    rows = pairs_of_names(pairs, argument)
    flat = panel_index([gene for row in rows for gene in row], genes, argument)
    return list(zip(flat[::2], flat[1::2], strict=True))


def read_targets(
    targets: str | Mapping[str, Any], environments: Environments, genes: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """Return the target genes of perturbations and conditions, where they are known.

    ``targets`` is ``perturbation_targets`` of the prior of :func:`nextpert.tl.learn_dag`. Raise if
    a name is not a perturbation, or is a combination whose members have their own nodes.
    """
    naming = environments.naming_on(genes)
    label_targets = [naming.targets(label) for label in environments.perturbations()]
    if isinstance(targets, str):
        measured = sorted({gene for inside, _ in label_targets for gene in inside})
        return {gene: (gene,) for gene in measured if targets == "known"}
    nodes = context_nodes(environments, genes).names[len(environments.covariate_names) :]
    nodes += sorted({part for inside, outside in label_targets for part in [*inside, *outside]})
    allowed = nodes + environments.perturbations()
    out: dict[str, tuple[str, ...]] = {}
    for name, acts in naming.renamed(targets, allowed, "perturbation_targets").items():
        if name not in allowed:
            message = (
                f"perturbation_targets names {name}, which is not a perturbation of the cells that "
                f"are read: leave it out.{closest([name], allowed)}"
            )
            raise ValueError(message)
        if name not in nodes:
            message = (
                f"perturbation_targets names the combination {name}, which acts through its "
                f"members: give the targets of {list_names(naming.members(name))} instead."
            )
            raise ValueError(message)
        argument = f"perturbation_targets[{name!r}]"
        genes_acted_on = [acts] if isinstance(acts, str) else acts
        check_value(genes_acted_on, argument, "Iterable[str]")
        out[name] = tuple(str(gene) for gene in in_order(genes_acted_on))
        panel_index(out[name], genes, argument)
    return out


def stored_targets(targets: Mapping[str, Sequence[str]]) -> dict[str, pd.DataFrame]:
    """Return known targets as a table, one row per gene; the gene is empty if there is none."""
    rows = [(name, gene) for name, genes in targets.items() for gene in genes or ("",)]
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
