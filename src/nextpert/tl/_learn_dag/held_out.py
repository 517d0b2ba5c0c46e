"""Graphs that have not seen some perturbations: the search of ``tl.learn_dag`` without them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from tqdm import tqdm

from nextpert._adata import SEPARATOR
from nextpert._adata.roles import fitted_roles
from nextpert._adata.screen import read_environments
from nextpert._adata.stored import eager
from nextpert.core.search.registry import SearchOptions
from nextpert.tl._learn_dag.exogenous import Exogenous, Joint, search
from nextpert.tl._learn_dag.prior import read_knowledge

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import anndata as ad

    from nextpert._adata.roles import Roles
    from nextpert._adata.screen import Environments
    from nextpert.core import Dag, ScreenMoments
    from nextpert.core.cells.screen import Screen


def has_seen_perturbed(stored: Any) -> bool:
    """Whether what is stored of a graph says that perturbed cells were searched."""
    params: Any = stored.get("params") if hasattr(stored, "get") else None
    return hasattr(params, "get") and params.get("environments") == "all"


def fold_streams(n: int) -> list[np.random.Generator]:
    """Return the streams of the searches that a fit makes without each of ``n`` folds."""
    return np.random.default_rng(0).spawn(n)


class HeldOut(NamedTuple):
    """What searches without some perturbations take: environments of all cells, and options."""

    environments: Environments
    options: SearchOptions


def read_held_out(
    adata: ad.AnnData, dag_key: str, roles: Roles, n_genes: int, names: Sequence[str]
) -> HeldOut | None:
    """Return what searches without some of the perturbations ``names`` take.

    ``None`` where the graph in ``adata.uns[dag_key]`` has seen no perturbed cell, or other labels
    than those of the call's ``roles``: then it is itself a graph without any. Columns, restarts,
    penalty and prior knowledge are those of the stored graph; only how much a network is believed
    (two numbers) is taken from it. Searches start anew, for the order of the stored graph has seen
    all cells.
    """
    stored = eager(adata.uns.get(dag_key))
    if not has_seen_perturbed(stored):
        return None
    params = stored["params"]
    own = fitted_roles(adata, params)
    if (own.perturbation_key, own.control) != (roles.perturbation_key, roles.control):
        return None
    prior, log_odds = read_knowledge(stored.get("prior"), n_genes)
    options = SearchOptions(
        str(params["method"]), 0.0, float(params["penalty"]), int(params["n_runs"]), prior,
        log_odds=log_odds,
    )  # fmt: skip
    own = replace(own, separator=roles.separator)
    return HeldOut(read_environments(adata, own, named=names), options)


def graphs_without(
    dag: Dag,
    held_out: HeldOut | None,
    searches: tuple[Environments, Screen] | None,
    genes: Sequence[str],
    sets: Sequence[Sequence[str]],
    streams: Sequence[np.random.Generator],
    *,
    n_jobs: int = 1,
) -> Sequence[Dag]:
    """Return a graph for every set of perturbations, learned without any cell of them.

    Parameters
    ----------
    dag
        The graph of all cells, which is returned where nothing is held out of it.
    held_out
        As of :func:`read_held_out`.
    searches
        Its environments and their sums, each set a union of folds.
    genes
        The panel.
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
    if held_out is None or searches is None:
        return [dag] * len(sets)
    parts = without_sets(*searches, sets)
    tasks = (
        delayed(_search)(
            Joint.of(some, len(genes), _exogenous(rest, genes)), genes, held_out.options, s
        )
        for (rest, some), s in zip(parts, streams, strict=True)
    )
    pool = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
    # A bar where there is a terminal to see it.
    bar = {"leave": False, "delay": 5, "disable": None}
    return list(tqdm(pool(tasks), "Held-out graphs", len(sets), **bar))


def without_sets(
    environments: Environments, screen: Screen, sets: Sequence[Collection[str]]
) -> Iterator[tuple[Environments, ScreenMoments]]:
    """Yield, for every set of labels, the environments of all other labels and their moments."""
    labels = set(environments.perturbation)
    for some in sets:
        kept = environments.groups(list(some)) < 0
        others = sorted(labels - set(environments.perturbation[~kept]))
        yield environments.only(others), screen.some(kept).moments()


def _exogenous(environments: Environments, genes: Sequence[str]) -> Exogenous:
    return Exogenous.of(environments, genes, separator=SEPARATOR)


def _search(
    joint: Joint, genes: Sequence[str], options: SearchOptions, rng: np.random.Generator
) -> Dag:
    return search(joint, genes, options, rng, "among the cells without some perturbations").dag
