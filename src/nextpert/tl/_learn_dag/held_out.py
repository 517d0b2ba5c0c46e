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
from nextpert.core import ScreenMoments
from nextpert.core.search.registry import SearchOptions
from nextpert.tl._learn_dag.exogenous import Exogenous, Joint
from nextpert.tl._learn_dag.prior import read_knowledge
from nextpert.tl._learn_dag.search import named, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles
    from nextpert._adata.screen import Environments
    from nextpert.core import Dag


def has_seen_perturbed(stored: Any) -> bool:
    """Whether what is stored of a graph says that perturbed cells were searched."""
    params: Any = stored.get("params") if hasattr(stored, "get") else None
    return hasattr(params, "get") and params.get("environments") == "all"


def held_out_dags(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    genes: Sequence[str],
    stored: Mapping[str, Any],
    roles: Roles,
    folds: Sequence[Sequence[str]],
    *,
    rng: np.random.Generator,
    n_jobs: int,
) -> list[Dag]:
    """Return a graph for every fold of perturbations, learned without any cell of them.

    Columns, restarts, penalty and prior knowledge are those of the stored graph; only how much a
    network is believed (two numbers) is taken from it. Searches start anew, for the order of the
    stored graph has seen all cells.

    Parameters
    ----------
    adata, columns, genes
        The cells and the panel.
    stored
        ``uns["dag"]`` of a graph for which :func:`has_seen_perturbed`.
    roles
        Those of the call; their labels must be those that the graph was learned with.
    folds
        Labels of perturbations.
    rng
        Source of one stream a fold, whichever worker takes it.
    n_jobs
        Number of threads.

    Raises
    ------
    ValueError
        If the labels are of another column than the graph's, or genes are linearly dependent
        without a fold; they are named.
    """
    params = stored["params"]
    own = fitted_roles(adata, params)
    for what in ("perturbation_key", "control"):
        was, now = getattr(own, what), getattr(roles, what)
        if was != now:
            message = (
                f"The graph was learned from perturbed cells with {what}={was!r}, but this call "
                f"has {now!r}: give the same, so that perturbations can be left out of the graph."
            )
            raise ValueError(message)
    prior, log_odds = read_knowledge(stored.get("prior"), len(genes))
    options = SearchOptions(
        str(params["method"]), 0.0, float(params["penalty"]), int(params["n_runs"]), prior,
        log_odds=log_odds,
    )  # fmt: skip
    held = [name for fold in folds for name in fold]
    own = replace(own, separator=roles.separator)
    environments = read_environments(adata, own, named=held)
    parts = without_folds(adata, columns, environments, folds)
    tasks = (
        delayed(_search)(Joint.of(screen, len(genes), _exogenous(rest, genes)), genes, options, s)
        for (rest, screen), s in zip(parts, rng.spawn(len(folds)), strict=True)
    )
    pool = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
    # A bar where there is a terminal to see it.
    bar = {"leave": False, "delay": 5, "disable": None}
    return list(tqdm(pool(tasks), "Held-out graphs", len(folds), **bar))


def without_folds(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    environments: Environments,
    folds: Sequence[Sequence[str]],
) -> Iterator[tuple[Environments, ScreenMoments]]:
    """Yield, for every fold, the environments of all other labels and their moments.

    Every cell is read once; one scatter is held for each fold and one for what is in none.
    """
    held = {name for fold in folds for name in fold}
    rest = sorted(set(environments.perturbation) - held)
    labels = environments.perturbation
    n_columns = len(columns) + environments.covariates.shape[1]
    n = np.zeros(len(labels), np.int64)
    mean, squares = np.zeros((2, len(labels), n_columns))
    scatters = []
    for names in (rest, *folds):
        part = screen_moments(adata, columns, environments.only(names))
        here = np.isin(labels, np.array(list(names), dtype=object))
        n[here], mean[here], squares[here] = part.n, part.mean, part.squares
        scatters.append(part.scatter)
    for k, fold in enumerate(folds, start=1):
        kept = [name for name in sorted(set(labels)) if name not in set(fold)]
        here = np.isin(labels, np.array(kept, dtype=object))
        scatter = sum(scatters[:k] + scatters[k + 1 :], start=np.zeros_like(scatters[0]))
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
