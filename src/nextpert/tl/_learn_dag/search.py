"""The search behind ``tl.learn_dag``, on moments and indices; genes only in messages."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from nextpert._adata import list_names
from nextpert.core.search.registry import Found, searches
from nextpert.tl._learn_dag.exogenous import swept

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from nextpert.core import Moments
    from nextpert.core.search.registry import SearchOptions


class Workers(NamedTuple):
    """How a search is run, which does not change what it finds."""

    n_jobs: int
    show_progress: bool
    checkpoint: str | os.PathLike[str] | None = None


def search(
    cells: Moments,
    genes: Sequence[str],
    names: Sequence[str],
    options: SearchOptions,
    rng: np.random.Generator,
    workers: Workers,
) -> Found:
    """Return the best graph found of genes and what the experiment set (``names``), after them.

    Raises
    ------
    ValueError
        If genes are copies of each other, or linearly dependent; they are named.
    """
    hidden = not workers.show_progress or not searches()[options.method].threads
    try:
        with tqdm(total=options.n_runs, desc=options.method.upper(), disable=hidden) as bar:

            def show(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            return run(cells, len(genes), options, rng, workers.n_jobs, show)
    except ValueError as error:
        raise named(error, genes, names, "among the cells") from error


def run(
    cells: Moments,
    n_genes: int,
    options: SearchOptions,
    rng: np.random.Generator,
    n_jobs: int = 1,
    progress: Callable[[int, int], Any] | None = None,
) -> Found:
    """Return the best graph of the first ``n_genes`` nodes; the others are exogenous.

    A search that does not take these gets the moments at fixed values of them.
    """
    search = searches()[options.method]
    n_exogenous = cells.n_nodes - n_genes
    shared: dict[str, Any] = {"rng": rng, "n_jobs": n_jobs, "progress": progress}
    if search.exogenous:
        return search.learn(cells, options, n_exogenous=n_exogenous, **shared)
    found = search.learn(swept(cells, n_genes), options, n_exogenous=0, **shared)
    return replace(found, exogenous_arcs=np.zeros((n_exogenous, n_genes), np.bool_))


def named(
    error: ValueError, genes: Sequence[str], exogenous: Sequence[str], where: str
) -> ValueError:
    """Return an error about columns as one about genes and what the experiment set, after them."""
    columns = getattr(error, "columns", None)
    if columns is None:
        return error
    p = len(genes)
    kinds = {
        "Genes": [genes[int(i)] for i in columns if i < p],
        "Columns of the experiment": [exogenous[int(i) - p] for i in columns if i >= p],
    }
    which = ", ".join(f"{kind} {list_names(names)}" for kind, names in kinds.items() if names)
    message = (
        f"{which} are copies of each other or linearly dependent {where}, so that partial "
        f"correlations are undefined: leave one of them out of the panel, or give more cells."
    )
    return ValueError(message)
