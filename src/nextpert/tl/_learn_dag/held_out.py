"""Graphs that have not seen some perturbations: the search of ``tl.learn_dag`` without them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from nextpert._adata import SEPARATOR
from nextpert._adata.roles import fitted_roles
from nextpert._adata.screen import read_environments, screen_moments
from nextpert._adata.stored import eager
from nextpert.core import ScreenMoments
from nextpert.core.search.registry import SearchOptions
from nextpert.tl._learn_dag.exogenous import Exogenous, Joint
from nextpert.tl._learn_dag.prior import read_knowledge
from nextpert.tl._learn_dag.search import named, run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles
    from nextpert._adata.screen import Environments
    from nextpert.core import Dag


def has_seen_perturbed(stored: Any) -> bool:
    """Whether what is stored of a graph says that perturbed cells were searched."""
    params: Any = stored.get("params") if hasattr(stored, "get") else None
    return hasattr(params, "get") and params.get("environments") == "all"


def fold_streams(n: int) -> list[np.random.Generator]:
    """Return the streams of the searches that a fit makes without each of ``n`` folds."""
    return np.random.default_rng(0).spawn(n)


def graphs_without(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    genes: Sequence[str],
    dag: Dag,
    dag_key: str,
    roles: Roles,
    sets: Sequence[Sequence[str]],
    streams: Sequence[np.random.Generator],
    *,
    n_jobs: int = 1,
) -> Sequence[Dag]:
    """Return a graph for every set of perturbations, learned without any cell of them.

    It is the graph itself where that has seen no perturbed cell, or other labels. Columns,
    restarts, penalty and prior knowledge are those of the stored graph; only how much a network is
    believed (two numbers) is taken from it. Searches start anew, for the order of the stored graph
    has seen all cells.

    Parameters
    ----------
    adata, columns, genes
        The cells and the panel.
    dag, dag_key
        The graph, and its name in ``adata.uns``.
    roles
        Those of the call.
    sets
        Labels of perturbations, ``n_sets`` lists; a label may be in several.
    streams
        Source of the random numbers of each search, whichever worker takes it, of length
        ``n_sets``.
    n_jobs
        Number of threads.

    Raises
    ------
    ValueError
        If genes are linearly dependent without a set; they are named.
    """
    stored = eager(adata.uns.get(dag_key))
    if not has_seen_perturbed(stored):
        return [dag] * len(sets)
    params = stored["params"]
    own = fitted_roles(adata, params)
    if (own.perturbation_key, own.control) != (roles.perturbation_key, roles.control):
        return [dag] * len(sets)
    prior, log_odds = read_knowledge(stored.get("prior"), len(genes))
    options = SearchOptions(
        str(params["method"]), 0.0, float(params["penalty"]), int(params["n_runs"]), prior,
        log_odds=log_odds,
    )  # fmt: skip
    held = sorted({name for some in sets for name in some})
    own = replace(own, separator=roles.separator)
    environments = read_environments(adata, own, named=held)
    parts = without_sets(adata, columns, environments, sets)
    tasks = (
        delayed(_search)(Joint.of(screen, len(genes), _exogenous(rest, genes)), genes, options, s)
        for (rest, screen), s in zip(parts, streams, strict=True)
    )
    pool = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
    # A bar where there is a terminal to see it.
    bar = {"leave": False, "delay": 5, "disable": None}
    return list(tqdm(pool(tasks), "Held-out graphs", len(sets), **bar))


def without_sets(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    environments: Environments,
    sets: Sequence[Collection[str]],
) -> Iterator[tuple[Environments, ScreenMoments]]:
    """Yield, for every set of labels, the environments of all other labels and their moments.

    Every cell is read once. One scatter is held for all labels that are in the same sets: of five
    folds one each, and of pairs of folds of which the second are of what the first leave, 25.
    """
    labels = environments.perturbation
    held = [frozenset(some) for some in sets]
    alike: dict[tuple[bool, ...], list[str]] = {}
    for name in sorted(set(labels)):
        alike.setdefault(tuple(name in some for some in held), []).append(name)
    n_columns = len(columns) + environments.covariates.shape[1]
    n = np.zeros(len(labels), np.int64)
    mean, squares = np.zeros((2, len(labels), n_columns))
    scatters = []
    for names in alike.values():
        part = screen_moments(adata, columns, environments.only(names))
        here = np.isin(labels, np.array(names, dtype=object))
        n[here], mean[here], squares[here] = part.n, part.mean, part.squares
        scatters.append(part.scatter)
    for k in range(len(sets)):
        others = [row for row, member in enumerate(alike) if not member[k]]
        kept = sorted(name for member, some in alike.items() if not member[k] for name in some)
        here = np.isin(labels, np.array(kept, dtype=object))
        scatter = sum((scatters[row] for row in others), start=np.zeros_like(scatters[0]))
        yield environments.only(kept), ScreenMoments(n[here], mean[here], squares[here], scatter)


def _exogenous(environments: Environments, genes: Sequence[str]) -> Exogenous:
    return Exogenous.of(environments, genes, separator=SEPARATOR)


def _search(
    joint: Joint, genes: Sequence[str], options: SearchOptions, rng: np.random.Generator
) -> Dag:
    try:
        with parallel_config("sequential"):  # no workers of workers
            return run(joint.moments, len(genes), options, rng).dag
    except ValueError as error:
        where = "among the cells without some perturbations"
        raise named(error, genes, joint.names, where) from error
