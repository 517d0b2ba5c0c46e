"""Best-order score search: a graph from the cells of one environment."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed

from nextpert.core._checks import as_rng, require_count, require_kind
from nextpert.core.graph.dag import Dag, Pdag
from nextpert.core.screen.moments import Moments
from nextpert.core.search._boss_kernel import Forest, Growth, State, climb
from nextpert.core.search._classes import Score, Scratch, backward, rows_of, total_score
from nextpert.core.search._gsp_kernel import N_SLACKS, sparse_order
from nextpert.core.search.minimal_imap import checked_orders, checked_prior, make_score, sets_of
from nextpert.core.search.prior_knowledge import PriorKnowledge
from nextpert.core.search.registry import Found, register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.search.registry import SearchOptions

    Trees = tuple[Forest, Growth, Scratch]  # the trees of a problem, and their workspace

logger = logging.getLogger(__name__)

_MAX_GENES_OF_OWN_START = (
    300  # above, a resample's own start takes two thirds of the time and rarely helps
)

# The default number of restarts from perturbed orders, and the most nodes with it. In three models
# with 30 genes of degree 12, ten starts ended 31 below the score of the true graph on average, and
# 20 restarts of the best of them at that score, in 1.8 times the time.
_N_RESTARTS, _MAX_RESTARTED = 20, 50
_MIN_RESTARTED = 4  # nodes; with fewer, every order is near every other
_RESTARTED = 1  # number of the stream of restarts


def default_starts(n_nodes: int) -> int:
    """Return the default number of starts, as a single one may end far from the best graph.

    In 8 of 23 models with 20 to 100 genes, a single start gave 3 to 63% more edges than the true
    graph has; the best of 10 starts did so in none.
    """
    return 10 if n_nodes <= 100 else 3


@dataclass(frozen=True)
class BossResult:
    """Result of :func:`boss`.

    Parameters
    ----------
    dag
        The graph with the highest score of all starts, without the context nodes.
    order
        A topological order of ``dag`` that agrees with the prior knowledge, shape ``(n_nodes,)``.
    score
        Score of the graph, context nodes included, as :func:`boss` defines it.
    scores
        Score at the end of every start, before the final deletion of edges, shape
        ``(n_starts + n_orders,)``; starts from given orders come last.
    best_start
        The start that found ``dag``, or from which restarts found it.
    context_edges
        Edges from context nodes into nodes, shape ``(n_context, n_nodes)``.
    """

    dag: Dag
    order: NDArray[np.int64]
    score: float
    scores: NDArray[np.float64]
    best_start: int
    context_edges: NDArray[np.bool]


def boss(
    moments: Moments,
    *,
    n_context: int = 0,
    targets: Mapping[int, Iterable[int]] | None = None,
    penalty: float = 2.0,
    n_starts: int | None = None,
    n_restarts: int | None = None,
    orders: ArrayLike | None = None,
    prior: PriorKnowledge | None = None,
    rng: int | np.random.Generator | None = None,
    n_jobs: int | None = 1,
    progress: Callable[[int, int], None] | None = None,
) -> BossResult:
    """Search for the order with the highest score (BOSS), recommended for larger panels.

    The search is that of Andrews et al. 2023 (arXiv:2310.17679). Each node in turn is moved to its
    best position in the order, until no move increases the score. The parents of a node in a given
    order are found by repeatedly adding the best one, and then dropping those without which the
    score is higher. The best order of all starts is then perturbed, by exchanging a few pairs of
    nodes, and the search is repeated from there; the better order is kept (iterated local search,
    as in FLOP; Wienöbst et al. 2025, arXiv:2510.04970). At the end, a backward equivalence search
    deletes edges.

    The score is the BIC: for a node with parents P it is, up to constants, ``-n/2 log var(x | P) -
    penalty/2 log(n) |P|``. With fewer than ``n_nodes + 2`` cells, correlations are shrunk as if 5
    cells with independent nodes had been added.

    Parameters
    ----------
    moments
        Moments of the (control) cells, or of nodes and context nodes (:func:`context_moments`).
    n_context
        Number of context nodes, which the experiment sets and which come last. They have no
        parents; their edges into other nodes are chosen by the same score, and help to orient edges
        (joint causal inference; Mooij et al. 2020, JMLR 21:99).
    targets
        Known targets: a mapping from the number of a context node (from 0) to the nodes that it
        has edges into. Targets of other context nodes are learned; ``None`` (default) learns all.
    penalty
        Factor of the BIC penalty; 1 is the original BIC, higher values give fewer edges.
    n_starts
        Number of starts: the first from a minimum-degree order, as in :func:`gsp`, the others from
        randomised ones. The default is 10, or 3 above 100 nodes; with ``orders``, it is 1, and 0 is
        allowed.
    n_restarts
        Number of restarts from perturbed orders, one after the other. The default is 20, or 0 above
        50 nodes or with ``orders``. The score is never lower than without restarts.
    orders
        Orders of the nodes without context nodes, from which further starts begin, shape
        ``(n_orders, n_nodes)`` or ``(n_nodes,)``.
    prior
        Orders, required and forbidden edges of the nodes without context nodes. Each of the
        ``n_starts`` starts then searches twice: from its own order, and from the result of a search
        without prior knowledge, because constraints block many paths to the best order.
    rng, n_jobs, progress
        As for :func:`gsp`.

    Raises
    ------
    ValueError
        If an argument is out of range, ``orders`` contradicts the prior knowledge, there are fewer
        than 4 cells, or nodes are constant or linearly dependent.

    Examples
    --------
    >>> from nextpert.core import Dag, Moments, boss, random_scm
    >>> truth = Dag.from_edges(4, [(0, 3), (1, 3), (2, 3)])
    >>> cells = random_scm(4, truth, rng=0).sample(2000, rng=1)
    >>> boss(Moments.from_array(cells), rng=2).dag.edges()
    [(0, 3), (1, 3), (2, 3)]
    """
    require_kind(moments, Moments, "moments")
    knowledge = checked_prior(prior, moments.n_nodes - n_context)
    task = _Task.make(moments, penalty, knowledge, n_context, targets)
    start_orders = list(checked_orders(orders, knowledge))
    if n_starts is None:
        n_starts = 1 if start_orders else default_starts(knowledge.n_nodes)
    n_starts = require_count(n_starts, "n_starts", minimum=0 if start_orders else 1)
    if n_restarts is None:
        is_small = knowledge.n_nodes <= _MAX_RESTARTED
        n_restarts = _N_RESTARTS if is_small and not start_orders else 0
    n_restarts = require_count(n_restarts, "n_restarts", minimum=0)
    # Drawn starts are numbers and given ones are orders; each has a seed, however many workers.
    starts = [*range(n_starts), *start_orders]
    seeds = as_rng(rng).integers(0, 2**64, len(starts), dtype=np.uint64)
    workers = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
    tasks = (delayed(task.search)(seed, start) for seed, start in zip(seeds, starts, strict=True))
    scores = np.empty(len(starts))
    best = -1
    best_parents = task.problem.before
    for k, (total, parents) in enumerate(workers(tasks)):
        scores[k] = total
        # By more than rounding, so that the first of equals is kept on any machine.
        if best < 0 or total > scores[best] + 1e-6:
            best, best_parents = k, parents
        if progress is not None:
            progress(k + 1, len(starts))
    # Restarts have a stream of their own, so that later draws from ``rng`` do not depend on them.
    best_parents = task.restart(best_parents, float(scores[best]), n_restarts, seeds[0])
    dag = Dag.from_matrix(best_parents.T)
    # Orders end where no single move gains; deletions in the equivalence class may still gain.
    dag = backward(task.problem, dag, task.knowledge if targets else task.prior, n_context)
    # The first p nodes are genes; the rows after them are the edges of context nodes.
    edges = dag.to_matrix().toarray() != 0
    total = total_score(task.problem, rows_of(edges))
    p = knowledge.n_nodes
    dag = Dag.from_matrix(edges[:p, :p])
    logger.info("BOSS: %d edges, score %.6g, start %d of %d", dag.n_edges, total, best, len(starts))
    order = knowledge.order_of(dag)
    return BossResult(dag, order, total, scores, best, edges[p:, :p])


@register("boss", default_runs=default_starts, context=True)
def learn(
    moments: Moments, options: SearchOptions, *, rng: np.random.Generator, **arguments: Any
) -> Found:
    """Search as :func:`boss` does.

    If an order is given, such as that of the graph of all cells for resamples, the search starts
    from it and, for at most 300 genes, from one drawn order.
    """
    n_starts = options.n_runs
    # A resample differs little from all cells, so that their order is nearly the best.
    if options.order is not None:
        n_starts = min(n_starts, int(len(options.order) <= _MAX_GENES_OF_OWN_START))
    best = boss(
        moments, n_starts=n_starts, orders=options.order, prior=options.prior, rng=rng, **arguments
    )
    stored = {"score": best.score, "run_scores": best.scores}
    return Found(best.dag, best.order, best.context_edges, stored)


class _Task(NamedTuple):
    """The inputs of every start: scores with and without prior knowledge, and inputs of its order.

    ``knowledge`` is the prior knowledge with the context nodes and their targets; ``prior`` is the
    same, or None if nothing is known about the other nodes. Starting orders are drawn for the nodes
    that move, given the context nodes. ``idle`` holds trees that no thread is using, of ``problem``
    and of ``free``.
    """

    problem: Score
    free: Score
    precision: NDArray[np.float64]
    threshold: NDArray[np.float64]
    knowledge: PriorKnowledge
    prior: PriorKnowledge | None
    n_context: int
    idle: tuple[list[Trees], list[Trees]]

    @classmethod
    def make(
        cls,
        moments: Moments,
        penalty: float,
        knowledge: PriorKnowledge,
        n_context: int,
        targets: Mapping[int, Iterable[int]] | None,
    ) -> _Task:
        """Return the task; starting orders treat nodes as dependent if an edge raises the BIC."""
        p = knowledge.n_nodes
        n = moments.n
        # Context nodes come last; they have no parents, and known targets are required edges.
        padded = knowledge.with_context(n_context, targets)
        problem = make_score(moments, penalty, padded)
        free = problem._replace(**sets_of(PriorKnowledge(p).with_context(n_context, targets)))
        precision = np.array(np.linalg.inv(problem.matrix)[:p, :p], np.float64)
        # r^2 above which the BIC gains: -n/2 log(1 - r^2) > penalty/2 log n.
        threshold = np.full(p, -np.expm1(-penalty * np.log(n) / n))
        # Required edges from context nodes alone do not restrict the moves.
        bars = knowledge.before.any() or knowledge.forbidden.any()
        prior = padded if bars else None
        return cls(problem, free, precision, threshold, padded, prior, n_context, ([], []))

    def search(
        self, seed: np.uint64, start: int | NDArray[np.int64]
    ) -> tuple[float, NDArray[np.bool_]]:
        """Climb from an order, given or drawn for a start; return the score and parent sets.

        With prior knowledge, drawn starts climb twice (see :func:`boss`).
        """
        if not isinstance(start, int):
            # Context nodes come first in every order, given or drawn.
            p = len(start)
            order = np.append(np.arange(p, p + self.n_context), start)
            return self._climb(self.problem, order, np.array([seed], np.uint64))[:2]
        slack = int(np.random.default_rng(int(seed)).integers(N_SLACKS)) if start else 0
        ends = [self._from_start(self.problem, slack, seed)[:2]]
        if self.prior is not None:
            # Without prior knowledge moves are free; a member of that class that agrees is close.
            _, free, order = self._from_start(self.free, slack, seed)
            class_ = Pdag.of_class(Dag.from_matrix(free.T), self.n_context)
            knowledge = self.knowledge
            member = class_.to_dag(knowledge.before, knowledge.forbidden)
            # If no member agrees, the order is repaired node by node.
            order = knowledge.nearest_order(order) if member is None else knowledge.order_of(member)
            ends.append(self._climb(self.problem, order, np.array([seed], np.uint64))[:2])
            if member is not None and knowledge.allows(member):
                rows = rows_of(member.to_matrix().toarray() != 0)
                ends.append((total_score(self.problem, rows), rows))
        return max(ends, key=lambda pair: pair[0])

    def _from_start(
        self, problem: Score, slack: int, seed: np.uint64
    ) -> tuple[float, NDArray[np.bool_], NDArray[np.int64]]:
        """Climb from a drawn order with the context nodes first."""
        p = len(self.precision)
        random = np.array([seed], np.uint64)
        after = problem.after[:p, :p].copy()
        order, _ = sparse_order(self.precision, self.threshold, after, slack, random)
        return self._climb(problem, np.append(np.arange(p, p + self.n_context), order), random)

    def _climb(
        self, problem: Score, order: NDArray[np.int64], random: NDArray[np.uint64]
    ) -> tuple[float, NDArray[np.bool_], NDArray[np.int64]]:
        """Climb from an order; return the score, the parent sets and the final order."""
        p = len(order)
        state = State.start(order, self.n_context)
        parents = np.zeros((p, p), np.bool_)
        # Trees do not depend on the order, so a start continues those of an earlier one.
        idle = self.idle[problem is self.free]
        trees = idle.pop() if idle else (Forest.empty(p), Growth.empty(p), Scratch.empty(p))
        climb(problem, *trees, state, random, parents)
        idle.append(trees)
        return float(state.score.sum()), parents, state.order

    def restart(
        self, parents: NDArray[np.bool_], total: float, n_restarts: int, seed: np.uint64
    ) -> NDArray[np.bool_]:
        """Climb from perturbed orders of the best graph so far; return the best parent sets.

        Of ``p`` nodes, log p pairs are exchanged.
        """
        size, p = len(parents), len(self.precision)
        if n_restarts == 0 or p < _MIN_RESTARTED:
            return parents
        # The word keeps this stream apart from those of the starts.
        rng = np.random.default_rng([int(seed), _RESTARTED])
        order, context = self.knowledge.order_of(Dag.from_matrix(parents.T)), np.arange(p, size)
        for _ in range(n_restarts):
            genes = order[order < p]
            for _ in range(round(np.log(p))):
                pair = rng.choice(p, 2, replace=False)
                genes[pair] = genes[pair[::-1]]
            start = np.append(context, genes)
            if self.prior is not None:
                start = self.knowledge.nearest_order(start)
            random = rng.integers(0, 2**64, 1, dtype=np.uint64)
            new_total, new_parents, new_order = self._climb(self.problem, start, random)
            if new_total > total + 1e-6:  # more than rounding
                total, parents, order = new_total, new_parents, new_order
        return parents
