"""Prior knowledge of a graph, from names of genes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import list_names, panel_index
from nextpert._adata.arguments import check_value
from nextpert._adata.panel import closest
from nextpert.core import CycleError, PriorKnowledge
from nextpert.tl._learn_dag.given import pairs_of_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

Arcs = list[tuple[int, int]]
ARCS_OF = ("before", "required", "forbidden")
KINDS = ("before", "tiers", "required", "forbidden")


def read_prior(
    genes: Sequence[str], prior: Mapping[str, Any] | None, first: Sequence[str] = ()
) -> PriorKnowledge | None:
    """Return the prior knowledge, or ``None`` where there is none.

    Parameters
    ----------
    genes
        The panel.
    prior
        As ``prior`` of :func:`nextpert.tl.learn_dag`.
    first
        Genes of a tier before all others.

    Raises
    ------
    CycleError
        If the orders run in a circle; its genes are named.
    ValueError
        If a kind is unknown, a gene is outside the panel or in two tiers, or an arc is required
        and forbidden.
    """
    said = _checked(prior)
    if not said and not first:
        return None
    arcs = {name: _arcs(said.get(name), genes, name) for name in ("before", "required")}
    arcs["forbidden"] = _arcs(said.get("forbidden"), genes, "forbidden")
    both = sorted(set(arcs["required"]) & set(arcs["forbidden"]))
    if both:
        shown = list_names(f"{genes[k]} -> {genes[i]}" for k, i in both)
        message = f"Arcs both required and forbidden: {shown}. Drop one of the two."
        raise ValueError(message)
    early = panel_index(first, genes, "targets_first")
    late = sorted(set(range(len(genes))) - set(early))
    arcs["before"] += [(a, b) for a in early for b in late]
    try:
        return PriorKnowledge(len(genes), tiers=_tiers(said.get("tiers"), genes), **arcs)
    except CycleError as error:
        raise error.named(genes) from None


def stored_knowledge(
    prior: PriorKnowledge | None, log_odds: NDArray[np.float64] | None
) -> dict[str, NDArray[Any]]:
    """Return what was known before as rows of the panel, for searches on other cells of it."""
    kept: dict[str, NDArray[Any]] = {}
    if prior is not None:
        kept = {kind: np.argwhere(getattr(prior, kind)) for kind in ARCS_OF}
    if log_odds is not None:
        kept["log_odds_arcs"] = np.argwhere(log_odds)
        kept["log_odds"] = log_odds[log_odds != 0]
    return kept


def read_knowledge(
    stored: Any, n_genes: int
) -> tuple[PriorKnowledge | None, NDArray[np.float64] | None]:
    """Return prior knowledge and log-odds from what :func:`stored_knowledge` gave."""
    if not stored:
        return None, None
    arcs = {kind: np.asarray(stored[kind]).tolist() for kind in ARCS_OF if kind in stored}
    log_odds = None
    if "log_odds" in stored:
        log_odds = np.zeros((n_genes, n_genes))
        rows = np.asarray(stored["log_odds_arcs"], np.int64).reshape(-1, 2)
        log_odds[rows[:, 0], rows[:, 1]] = stored["log_odds"]
    return PriorKnowledge(n_genes, **arcs) if arcs else None, log_odds


def _checked(prior: Any) -> dict[str, Any]:
    if prior is None:
        return {}
    unknown = [str(name) for name in prior if name not in KINDS]
    if unknown:
        message = (
            f"prior holds {list_names(unknown)}, but can hold {', '.join(KINDS)}."
            f"{closest(unknown, KINDS)}"
        )
        raise ValueError(message)
    said = {name: value for name, value in prior.items() if value is not None}
    for name, value in said.items():
        kind = "Mapping[str, float] | Iterable[Any]" if name == "tiers" else "Iterable[Any]"
        check_value(value, f"prior[{name!r}]", kind)
    return said


def _arcs(pairs: Iterable[tuple[str, str]] | None, genes: Sequence[str], what: str) -> Arcs:
    rows = pairs_of_names(pairs, what)
    flat = panel_index([gene for row in rows for gene in row], genes, what)
    return list(zip(flat[::2], flat[1::2], strict=True))


def _tiers(
    tiers: Mapping[str, float] | Sequence[Iterable[str]] | None, genes: Sequence[str]
) -> list[list[int]] | None:
    if tiers is None:
        return None
    if isinstance(tiers, Mapping):
        levels = sorted(set(tiers.values()))
        named = [[gene for gene, tier in tiers.items() if tier == level] for level in levels]
    else:
        named = [list(tier) for tier in tiers]
    flat = [str(gene) for tier in named for gene in tier]
    twice = sorted({gene for gene in flat if flat.count(gene) > 1})
    if twice:
        message = f"Genes in more than one tier: {list_names(twice)}. Give every gene one tier."
        raise ValueError(message)
    return [panel_index(map(str, tier), genes, "tiers") for tier in named]
