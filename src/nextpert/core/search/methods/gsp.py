"""Greedy sparsest permutation: a graph from the cells of one environment."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import Parallel, delayed

from nextpert.core._checks import as_rng, require_count
from nextpert.core.graph.dag import Dag
from nextpert.core.search._classes import total_score
from nextpert.core.search._gsp_kernel import descend, sparse_order
from nextpert.core.search.methods.boss import boss, default_starts
from nextpert.core.search.minimal_imap import checked_orders, checked_prior, dependences, make_tests
from nextpert.core.search.registry import Found, register

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.screen.moments import Moments
    from nextpert.core.search._classes import Score
    from nextpert.core.search.prior_knowledge import PriorKnowledge
    from nextpert.core.search.registry import SearchOptions

logger = logging.getLogger(__name__)

DEPTH = 4  # covered edges reversed in a row without a decrease in edges, as in the paper
_N_STARTS = 8  # permutations drawn per run, which starts from the sparsest


@dataclass(frozen=True)
class GspResult:
    """Result of :func:`gsp`.

    Parameters
    ----------
    dag
        The sparsest graph of all runs; among equally sparse graphs, the one with the highest
        likelihood.
    order
        A topological order of ``dag`` that agrees with the prior knowledge, shape ``(n_nodes,)``.
    n_edges
        Number of edges at the end of every run, shape ``(n_runs + n_orders,)``. It includes
        dependences left unexplained because their edge is forbidden in one direction, so that
        leaving out such an edge does not make a graph sparser.
    best_run
        The run that found ``dag``.
    """

    dag: Dag
    order: NDArray[np.int64]
    n_edges: NDArray[np.int64]
    best_run: int


def gsp(
    moments: Moments,
    *,
    alpha: float = 1e-3,
    n_runs: int = 100,
    orders: ArrayLike | None = None,
    prior: PriorKnowledge | None = None,
    rng: int | np.random.Generator | None = None,
    n_jobs: int | None = 1,
    progress: Callable[[int, int], None] | None = None,
) -> GspResult:
    """Search for the sparsest graph by greedy sparsest permutation (GSP).

    The algorithm is that of Solus, Wang & Uhler 2021 (doi:10.1093/biomet/asaa104). A run starts
    from the minimal I-map (see :func:`minimal_imap`) of the sparsest of eight permutations, and
    reverses covered edges, up to four in a row and depth first, until the number of edges
    decreases. It continues from the sparser graph until no sparser one is reached. All tests are
    of partial correlations, with Fisher's z, two-sided at ``alpha``.

    Permutations are drawn by randomised minimum-degree elimination. Before the search, edges that
    are not significant given the other parents of the child are dropped, the weakest first. For
    cells that are not Gaussian, or many nodes, use :func:`boss`.

    With fewer than ``n_nodes + 2`` cells, correlations are shrunk as if 5 cells with independent
    nodes had been added, and all tests have ``n - 3`` degrees of freedom. Such tests find few
    edges; :func:`boss` finds more.

    Parameters
    ----------
    moments
        Moments of the (control) cells.
    alpha
        Significance level of every two-sided test.
    n_runs
        Number of runs, each with its own permutations.
    orders
        Orders of the nodes, such as that of :func:`boss`, from which further runs start, shape
        ``(n_orders, n_nodes)`` or ``(n_nodes,)``. The other runs do not change.
    prior
        Orders, required and forbidden edges.
    rng
        Seed or generator; the result does not depend on the number of workers.
    n_jobs
        Number of threads; ``None`` uses joblib's context, such as a dask cluster.
    progress
        Function called with the numbers of finished runs and of all runs.

    Raises
    ------
    ValueError
        If an argument is out of range, ``orders`` contradicts the prior knowledge, there are fewer
        than 4 cells, or nodes are constant or linearly dependent.

    Examples
    --------
    >>> from nextpert.core import Dag, Moments, gsp, random_scm
    >>> truth = Dag.from_edges(4, [(0, 3), (1, 3), (2, 3)])
    >>> cells = random_scm(4, truth, rng=0).sample(2000, rng=1)
    >>> result = gsp(Moments.from_array(cells), n_runs=10, rng=2)
    >>> result.dag.edges()
    [(0, 3), (1, 3), (2, 3)]
    """
    n_runs = require_count(n_runs, "n_runs")
    tests, threshold = make_tests(moments, alpha, prior)
    knowledge = checked_prior(prior, moments.n_nodes)
    starts: list[NDArray[np.bool_] | None] = [None] * n_runs
    for order in checked_orders(orders, knowledge):
        starts.append(dependences(tests.matrix, threshold, order))
    # Runs from given orders have their own seeds, so that they do not change the other runs.
    seeds = as_rng(rng).integers(0, 2**64, n_runs, dtype=np.uint64).tolist()
    seeds += range(len(starts) - n_runs)
    precision = np.asarray(np.linalg.inv(tests.matrix), np.float64)
    # With weight -1 and no penalty, the score is the sum of log residual variances, to break ties.
    log_residual = tests._replace(constant=np.zeros_like(tests.constant), weight=-1.0)
    n_edges = np.empty(len(starts), np.int64)
    best_run = -1
    best_fit = np.inf
    best_parents = tests.before
    workers = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
    # Bound to the function, because Dask scatters large arguments and loses them with a worker.
    task = delayed(partial(_run, tests, threshold, precision, knowledge))
    tasks = (task(seed, start) for seed, start in zip(seeds, starts, strict=True))
    for run, (parents, count) in enumerate(workers(tasks)):
        n_edges[run] = count
        # The sparsest; among equally sparse ones, that with the highest likelihood.
        if best_run < 0 or count <= n_edges[best_run]:
            fit = total_score(log_residual, parents)
            if best_run < 0 or count < n_edges[best_run] or fit < best_fit - 1e-9 * abs(best_fit):
                best_run, best_fit, best_parents = run, fit, parents
        if progress is not None:
            progress(run + 1, len(n_edges))
    dag = Dag.from_matrix(best_parents.T)
    logger.info("GSP: %d edges, best of %d runs (run %d)", dag.n_edges, len(n_edges), best_run)
    return GspResult(dag, knowledge.order_of(dag), n_edges, best_run)


def _run(
    tests: Score,
    threshold: NDArray[np.float64],
    precision: NDArray[np.float64],
    knowledge: PriorKnowledge,
    seed: int,
    start: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.bool_], int]:
    """Search from one I-map, ``start`` or that of the sparsest of eight drawn orders.

    Returns the parents, (p, p), with row = child as in ``start``, and the number of edges plus
    dependences left unexplained because their edge is forbidden in one direction only: a graph
    without these is not an I-map.
    """
    random = np.array([seed], np.uint64)
    if start is None:
        drawn = (
            sparse_order(precision, threshold, tests.after, -1, random)[1] for _ in range(_N_STARTS)
        )
        start = min(drawn, key=np.count_nonzero)
    # A dependence whose edge is forbidden in this direction may be explained by the other.
    barred = start & knowledge.forbidden.T
    unexplained = int((barred & ~knowledge.forbidden).sum())
    parents = np.ascontiguousarray(start & ~barred | knowledge.required.T)
    bound = bool(knowledge.before.any() or knowledge.forbidden.any())
    descend(tests, threshold, parents, DEPTH, random, bound)
    return parents, int(parents.sum()) + unexplained


@register("gsp", default_runs=lambda _: 100)
def learn(
    moments: Moments,
    options: SearchOptions,
    *,
    rng: np.random.Generator,
    n_jobs: int,
    **arguments: Any,
) -> Found:
    """Search as :func:`gsp` does, with one more run that starts from the order that BOSS finds.

    The graph of BOSS is sparser than those of drawn orders, so that this start is the sparsest.
    """
    n_starts = default_starts(moments.n_nodes)
    order = boss(moments, n_starts=n_starts, prior=options.prior, rng=0, n_jobs=n_jobs).order
    best = gsp(
        moments,
        n_runs=options.n_runs,
        orders=order,
        prior=options.prior,
        rng=rng,
        n_jobs=n_jobs,
        progress=arguments["progress"],
    )
    return Found(best.dag, best.order, stored={"run_n_edges": best.n_edges})
