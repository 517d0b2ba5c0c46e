"""Best-order score search: a graph from the cells of one environment."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from joblib import Parallel, delayed

from nextpert.core._checks import as_rng, require_count, require_kind
from nextpert.core.cells.moments import Moments
from nextpert.core.graph.dag import Dag
from nextpert.core.search._backward import backward
from nextpert.core.search._boss_starts import Task, go_on, start, to_dag, total_score
from nextpert.core.search._scores import checked_log_odds
from nextpert.core.search._statistics import checked_orders, checked_prior
from nextpert.core.search.prior_knowledge import PriorKnowledge

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BossResult:
    """What :func:`boss` found.

    Parameters
    ----------
    dag
        The graph of the highest score of all starts, over the nodes that are not exogenous.
    order
        A topological order of it that agrees with the prior knowledge, shape ``(n_nodes,)``.
    score
        Its score, as :func:`boss` defines it.
    scores
        Score of the order at the end of every start, shape ``(n_starts + n_orders,)``: first
        those of orders of its own.
    best_start
        The start that found ``dag``.
    criterion
        ``"bic"`` or ``"bge"``.
    n_cells
        Number of cells.
    exogenous_arcs
        Which nodes an exogenous node acts on directly, shape ``(n_exogenous, n_nodes)``.
    """

    dag: Dag
    order: NDArray[np.int64]
    score: float
    scores: NDArray[np.float64]
    best_start: int
    criterion: str
    n_cells: int
    exogenous_arcs: NDArray[np.bool]


def boss(
    moments: Moments,
    *,
    n_exogenous: int = 0,
    score: str = "bic",
    penalty: float = 2.0,
    n_starts: int = 1,
    orders: ArrayLike | None = None,
    backward_search: bool = True,
    prior: PriorKnowledge | None = None,
    log_odds: ArrayLike | None = None,
    rng: int | np.random.Generator | None = None,
    n_jobs: int | None = 1,
    progress: Callable[[int, int], None] | None = None,
) -> BossResult:
    """Search for the order of the highest score (BOSS), the better choice for larger panels.

    Andrews et al. 2023 (arXiv:2310.17679). One node after the other is put at its best place in
    the order, until no move gains; the parents of a node in a given order are found by adding the
    best one again and again and then dropping those it is better without. A backward equivalence
    search deletes arcs at the end.

    The score of a node with the parents P is, up to constants, with ``BIC``
    ``-n/2 log var(x | P) - penalty/2 log(n) |P|``, or the log marginal likelihood ``BGe`` of
    standardised nodes (Geiger & Heckerman 2002, corrected by Kuipers et al. 2014,
    doi:10.1214/14-AOS1217) with ``alpha_mu = 1`` and ``alpha_w = n_nodes + 2``. To it the
    ``log_odds`` of each parent are added.

    With fewer than ``n_nodes + 2`` cells, correlations are shrunk as if 5 cells of independent
    nodes had been seen as well.

    Parameters
    ----------
    moments
        Moments of the (control) cells, or of nodes and what the experiment set, as of
        :func:`exogenous_moments`.
    n_exogenous
        Number of nodes, the last ones, that the experiment set. They have no parents; their arcs
        into the others are chosen by the same score, and settle directions (joint causal
        inference; Mooij et al. 2020, JMLR 21:99).
    score
        ``"bic"`` or ``"bge"``.
    penalty
        Factor on the penalty of the BIC; 1 is the BIC proper, higher gives fewer arcs.
    n_starts
        Number of starts: the first from the sparsest minimum-degree order, as in :func:`gsp`, the
        others from randomised ones. May be 0 where ``orders`` are given.
    orders
        Orders of the nodes that are not exogenous to start further runs from, shape
        ``(n_orders, n_nodes)`` or ``(n_nodes,)``; they must agree with the prior knowledge.
    backward_search
        Whether to end with a backward equivalence search; with prior knowledge, only over classes
        with a member that agrees with it.
    prior
        Orders, required and forbidden arcs of the nodes that are not exogenous. They bar many ways
        to the best order, so every start searches twice: from its own order, and from where the
        search without prior knowledge ends (a member of that class that agrees, if there is one).
        Nodes are also moved together with those that they may not pass.
    log_odds
        What speaks for an arc, or against it if below 0, beside the cells: natural logarithms,
        shape ``(n_nodes, n_nodes)`` over the nodes that are not exogenous, row = parent. They also
        choose among the directions that cells cannot tell apart.
    rng
        Seed or generator. Every start gets a seed drawn from it, so the result does not depend on
        the number of workers.
    n_jobs
        Number of threads; ``None`` leaves it to joblib's context.
    progress
        Called with the number of starts done and of all starts.

    Raises
    ------
    ValueError
        If ``score`` is unknown, ``penalty`` not above 0, ``n_starts`` too small, prior knowledge
        or ``log_odds`` are of another number of nodes, ``log_odds`` not finite, or there are fewer
        than 4 cells, constant nodes, copies or linearly dependent nodes (they are named).

    Examples
    --------
    >>> from nextpert.core import Moments, random_scm
    >>> from nextpert.core import boss
    >>> cells = random_scm(4, "in_star", rng=0).sample(2000, rng=1)
    >>> boss(Moments.from_array(cells), rng=2).dag.edges()
    [(0, 3), (1, 3), (2, 3)]
    """
    require_kind(moments, Moments, "moments")
    known = checked_prior(prior, moments.n_nodes - n_exogenous)
    bound = known if known.before.any() or known.forbidden.any() else None
    odds = checked_log_odds(log_odds, known.n_nodes, n_exogenous)
    task = Task.make(moments, score, penalty, known, n_exogenous, odds)
    given = checked_orders(orders, known)
    n_starts = require_count(n_starts, "n_starts", least=0 if len(given) else 1)
    n_runs = n_starts + len(given)
    seeds = as_rng(rng).integers(0, 2**64, n_runs, dtype=np.uint64)
    workers = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
    scores = np.empty(n_runs)
    best, best_parents = -1, task.problem.before
    own = (delayed(start)(task, bound, seed, k > 0) for k, seed in enumerate(seeds[:n_starts]))
    further = (
        delayed(go_on)(task, bound, s, o) for s, o in zip(seeds[n_starts:], given, strict=True)
    )
    tasks = chain(own, further)
    for k, (total, parents) in enumerate(workers(tasks)):
        scores[k] = total
        if best < 0 or total > scores[best] + 1e-6:
            best, best_parents = k, parents
        if progress is not None:
            progress(k + 1, n_runs)
    dag = to_dag(best_parents)
    if backward_search:
        full = None if bound is None else bound.with_exogenous(n_exogenous)
        dag = backward(task.problem, dag, full, n_exogenous)
    total = total_score(task.problem, dag)
    arcs = dag.to_matrix().toarray() != 0
    p = known.n_nodes
    dag = Dag.from_matrix(arcs[:p, :p])
    logger.info("BOSS: %d arcs, score %.6g, start %d of %d", dag.n_edges, total, best, n_runs)
    order = known.order_of(dag)
    return BossResult(dag, order, total, scores, best, score, moments.n, arcs[p:, :p])
