"""The searches behind ``tl.learn_dag``, on moments and indices; genes only in messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from nextpert._adata import list_names, panel_index
from nextpert.core import CycleError, structure
from nextpert.core.structure import PriorKnowledge
from nextpert.tl._given_graph import pairs_of_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from nextpert.core import Dag, Moments

Arcs = list[tuple[int, int]]


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search, as in ``tl.learn_dag``."""

    alpha: float
    depth: int
    n_runs: int
    n_jobs: int
    show_progress: bool
    backend: str
    rng: int | np.random.Generator | None


def read_prior(
    genes: Sequence[str],
    before: Iterable[tuple[str, str]] | None,
    tiers: Mapping[str, float] | Sequence[Iterable[str]] | None,
    required: Iterable[tuple[str, str]] | None,
    forbidden: Iterable[tuple[str, str]] | None,
) -> PriorKnowledge | None:
    """Return the prior knowledge as :class:`nextpert.core.structure.PriorKnowledge`, or ``None``.

    Raises
    ------
    CycleError
        If the orders run in a circle; its genes are named.
    ValueError
        If a gene is outside the panel or in two tiers, or an arc is required and forbidden.
    """
    if all(part is None for part in (before, tiers, required, forbidden)):
        return None
    arcs = {
        name: _arcs(pairs, genes, name)
        for name, pairs in (("before", before), ("required", required), ("forbidden", forbidden))
    }
    both = sorted(set(arcs["required"]) & set(arcs["forbidden"]))
    if both:
        shown = list_names(f"{genes[k]} -> {genes[i]}" for k, i in both)
        message = f"Arcs both required and forbidden: {shown}. Drop one of the two."
        raise ValueError(message)
    try:
        return PriorKnowledge(len(genes), tiers=_tiers(tiers, genes), **arcs)
    except CycleError as error:
        raise error.named(genes) from None


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


def search(
    cells: Moments,
    genes: Sequence[str],
    prior: PriorKnowledge | None,
    options: SearchOptions,
) -> tuple[Dag, NDArray[np.int64], NDArray[np.int64] | None]:
    """Return the sparsest graph found, a topological order of it, and the arcs of every run.

    Raises
    ------
    ValueError
        If genes are copies of each other, or linearly dependent; they are named.
    """
    shared: dict[str, Any] = {
        "alpha": options.alpha,
        "depth": options.depth,
        "n_runs": options.n_runs,
        "prior": prior,
        "rng": options.rng,
    }
    try:
        if options.backend == "causaldag":
            dag = structure.causaldag_gsp(cells, **shared)
            return dag, dag.order, None
        with tqdm(total=options.n_runs, desc="GSP", disable=not options.show_progress) as bar:
            found = structure.gsp(
                cells,
                n_jobs=options.n_jobs,
                progress=lambda done, _: bar.update(done - bar.n),
                **shared,
            )
    except ValueError as error:
        raise _named(error, genes) from error
    return found.dag, found.order, found.n_edges


def _named(error: ValueError, genes: Sequence[str]) -> ValueError:
    columns = getattr(error, "columns", None)
    if columns is None:
        return error
    message = (
        f"Genes {list_names(genes[int(i)] for i in columns)} are copies of each other or linearly "
        f"dependent among the control cells, so that partial correlations are undefined: leave "
        f"one of them out of the panel."
    )
    return ValueError(message)
