"""The searches behind ``tl.learn_dag``, on moments and indices; genes only in messages."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from nextpert._adata import list_names
from nextpert.core import boss, boss_with_network, causaldag_gsp, gsp, minimal_imap
from nextpert.tl._learn_dag.exogenous import swept
from nextpert.tl._learn_dag.network import stored_belief

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from nextpert.core import Dag, Moments, PriorKnowledge


# Of more genes, a start of its own takes two thirds of a resample's time and seldom ends higher.
_MOST_GENES = 300


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search, as in ``tl.learn_dag``.

    A network is believed as much as the cells bear it out, or by ``log_odds`` that are known.
    """

    method: str
    alpha: float
    penalty: float
    n_runs: int
    prior: PriorKnowledge | None
    network: NDArray[np.float64] | None = None
    log_odds: NDArray[np.float64] | None = None
    order: NDArray[np.int64] | None = None

    def after(self, found: Found) -> SearchOptions:
        """Return those of searches that start where one ended, and learn no belief anew.

        BOSS starts from the order it found, and of few genes once from one of its own.
        """
        n_runs = int(len(found.order) <= _MOST_GENES) if self.method == "boss" else self.n_runs
        return replace(
            self, network=None, log_odds=found.log_odds, order=found.order, n_runs=n_runs
        )

    def used(self) -> dict[str, Any]:
        """Return those that the method uses."""
        used = {"method": self.method, "n_runs": int(self.n_runs)}
        if self.method == "boss":
            return used | {"penalty": float(self.penalty)}
        return used | {"alpha": float(self.alpha)}


class Workers(NamedTuple):
    """How a search is run, which does not change what it finds."""

    n_jobs: int
    show_progress: bool
    checkpoint: str | os.PathLike[str] | None = None


@dataclass(frozen=True)
class Found:
    """A graph, a topological order of it, arcs from exogenous nodes, what else is stored.

    Where a network was known before, also the log-odds that it gave.
    """

    dag: Dag
    order: NDArray[np.int64]
    exogenous_arcs: NDArray[np.bool_]
    stored: dict[str, Any]
    log_odds: NDArray[np.float64] | None = None


def default_runs(method: str, n_genes: int) -> int:
    """Return the number of restarts: one of BOSS may be caught far from the best graph."""
    if method != "boss":
        return 100
    return 10 if n_genes <= 100 else 3


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
    hidden = not workers.show_progress or options.method == "causaldag"
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
    """Return the best graph of the first ``n_genes`` nodes; BOSS takes the others as exogenous.

    The tests of GSP hold them fixed.
    """
    if options.method == "boss":
        common: dict[str, Any] = {
            "n_exogenous": cells.n_nodes - n_genes, "penalty": options.penalty,
            "n_starts": options.n_runs, "prior": options.prior, "rng": rng, "n_jobs": n_jobs,
            "progress": progress, "orders": options.order,
        }  # fmt: skip
        log_odds, known = options.log_odds, {}
        if options.network is None:
            best = boss(cells, log_odds=log_odds, **common)
        else:
            best, belief = boss_with_network(cells, options.network, **common)
            log_odds, known = belief.log_odds, {"prior_network": stored_belief(belief)}
        stored = {"score": best.score, "run_scores": best.scores, **known}
        return Found(best.dag, best.order, best.exogenous_arcs, stored, log_odds)
    none = np.zeros((cells.n_nodes - n_genes, n_genes), np.bool_)
    cells = swept(cells, n_genes)
    shared: dict[str, Any] = {"prior": options.prior, "rng": rng}
    shared |= {"alpha": options.alpha, "n_runs": options.n_runs}
    if options.method == "causaldag":
        dag = causaldag_gsp(cells, **shared)
        return Found(dag, dag.order, none, {})
    order = _sparse_order(cells, options.prior, n_jobs)
    found = gsp(cells, orders=order, n_jobs=n_jobs, progress=progress, **shared)
    return Found(found.dag, found.order, none, {"run_n_edges": found.n_edges})


def _sparse_order(cells: Moments, prior: PriorKnowledge | None, n_jobs: int) -> NDArray[np.int64]:
    """Return the order that a score search ends at: the sparsest start there is for GSP.

    In 20 models of 36 genes with 109 arcs and 5,039 cells, GSP ended with 116.5 arcs on its own
    and 109.6 with it, 12.2 and 0.6 edges from the class of the truth.
    """
    n_starts = default_runs("boss", cells.n_nodes)
    return boss(cells, n_starts=n_starts, prior=prior, rng=0, n_jobs=n_jobs).order


def warn_if_not_sparsest(
    cells: Moments, dag: Dag, prior: PriorKnowledge | None, alpha: float
) -> None:
    """Warn where GSP missed: where the order of a score search has a sparser minimal I-map.

    A sparser I-map at the same level proves that GSP's graph is not the sparsest; that none is
    found proves nothing.
    """
    order = _sparse_order(cells, prior, 1)
    sparser = minimal_imap(cells, order, alpha=alpha, prior=prior).n_edges
    if sparser < dag.n_edges:
        message = (
            f"GSP stopped at {dag.n_edges} arcs, but there is an order of the genes with "
            f"{sparser} at the same alpha: some arcs are likely to be false. Use "
            f'method="gsp", which starts from that order, or method="boss".'
        )
        warnings.warn(message, UserWarning, stacklevel=3)


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
