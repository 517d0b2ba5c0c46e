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

logger = logging.getLogger(__name__)

_MOST_GENES = 300  # of more, a resample's own start takes two thirds of the time and gains seldom


def default_starts(n_nodes: int) -> int:
    """Return the number of starts: one alone may end far from the best graph.

    In 8 of 23 models of 20 to 100 genes it had 3 to 63% more edges than are true; the best of 10
    in none.
    """
    return 10 if n_nodes <= 100 else 3


@dataclass(frozen=True)
class BossResult:
    """Result of :func:`boss`.

    Parameters
    ----------
    dag
        The graph with the highest score of all starts, over the nodes other than context nodes.
    order
        A topological order of it that agrees with the prior knowledge, shape ``(n_nodes,)``.
    score
        Its score, as :func:`boss` defines it.
    scores
        Score of the order at the end of every start, shape ``(n_starts + n_orders,)``: first
        those of orders of its own.
    best_start
        The start that found ``dag``.
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
    orders: ArrayLike | None = None,
    prior: PriorKnowledge | None = None,
    rng: int | np.random.Generator | None = None,
    n_jobs: int | None = 1,
    progress: Callable[[int, int], None] | None = None,
) -> BossResult:
    """Search for the order with the highest score (BOSS), which we recommend for larger panels.

    The search is that of Andrews et al. 2023 (arXiv:2310.17679). One node after the other is moved
    to its best place in the order, until no move increases the score. The parents of a node in a
    given order are found by adding the best one repeatedly, and then dropping those without which
    the score is higher. A backward equivalence search deletes edges at the end.

    The score is the BIC. For a node with the parents P it is, up to constants, ``-n/2 log var(x |
    P) - penalty/2 log(n) |P|``.

    With fewer than ``n_nodes + 2`` cells, correlations are shrunk as if 5 cells of independent
    nodes had been added.

    Parameters
    ----------
    moments
        Moments of the (control) cells, or of nodes and what the experiment set, as of
        :func:`context_moments`.
    n_context
        Number of context nodes, the last ones, which the experiment sets. They have no parents;
        their edges into the others are chosen by the same score, and orient edges (joint causal
        inference; Mooij et al. 2020, JMLR 21:99).
    targets
        Known targets: a mapping from the number of a context node (from 0) to the nodes that it
        has edges into. The targets of other context nodes are learned; ``None``: of all.
    penalty
        Factor on the penalty of the BIC; 1 is the BIC proper, higher gives fewer edges.
    n_starts
        Number of starts: the first from the sparsest minimum-degree order, as in :func:`gsp`, the
        others from randomised ones. By default 10, or 3 above 100 nodes; 1 (or 0) with ``orders``.
    orders
        Orders of the nodes other than context nodes to start further runs from, shape
        ``(n_orders, n_nodes)`` or ``(n_nodes,)``.
    prior
        Orders, required and forbidden edges of the nodes other than context nodes. Every start then
        searches twice: from its own order, and from the result of a search without prior knowledge,
        because constraints block many ways to the best order.
    rng, n_jobs, progress
        As for :func:`gsp`.

    Raises
    ------
    ValueError
        If an argument is out of range, ``orders`` contradict the prior knowledge, or there are
        fewer than 4 cells, constant or linearly dependent nodes.

    Examples
    --------
    >>> from nextpert.core import Dag, Moments, boss, random_scm
    >>> truth = Dag.from_edges(4, [(0, 3), (1, 3), (2, 3)])
    >>> cells = random_scm(4, truth, rng=0).sample(2000, rng=1)
    >>> boss(Moments.from_array(cells), rng=2).dag.edges()
    [(0, 3), (1, 3), (2, 3)]
    """
    require_kind(moments, Moments, "moments")
    known = checked_prior(prior, moments.n_nodes - n_context)
    task = _Task.make(moments, penalty, known, n_context, targets)
    given = list(checked_orders(orders, known))
    if n_starts is None:
        n_starts = 1 if given else default_starts(known.n_nodes)
    n_starts = require_count(n_starts, "n_starts", least=0 if given else 1)
    # Starts of its own are numbers, given ones are orders: each has a seed, whatever the workers.
    starts = [*range(n_starts), *given]
    seeds = as_rng(rng).integers(0, 2**64, len(starts), dtype=np.uint64)
    workers = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
    tasks = (delayed(task.search)(seed, start) for seed, start in zip(seeds, starts, strict=True))
    scores = np.empty(len(starts))
    best, best_parents = -1, task.problem.before
    for k, (total, parents) in enumerate(workers(tasks)):
        scores[k] = total
        # More than rounding, so that the first of equals is kept on any machine.
        if best < 0 or total > scores[best] + 1e-6:
            best, best_parents = k, parents
        if progress is not None:
            progress(k + 1, len(starts))
    dag = Dag.from_matrix(best_parents.T)
    # Orders end where no single move gains; deletions over the class may gain still.
    dag = backward(task.problem, dag, task.known if targets else task.prior, n_context)
    total = _scored(task.problem, dag)[0]
    # The first p nodes are genes, the rows after them the edges of what was set.
    edges = dag.to_matrix().toarray() != 0
    p = known.n_nodes
    dag = Dag.from_matrix(edges[:p, :p])
    logger.info("BOSS: %d edges, score %.6g, start %d of %d", dag.n_edges, total, best, len(starts))
    order = known.order_of(dag)
    return BossResult(dag, order, total, scores, best, edges[p:, :p])


@register("boss", default_runs=default_starts, context=True)
def learn(
    moments: Moments, options: SearchOptions, *, rng: np.random.Generator, **more: Any
) -> Found:
    """Search as :func:`boss` does.

    Where an order is given, as that of the graph of all cells for resamples, the search starts from
    it, and for few genes from one of its own as well, unless ``n_runs`` is 0.
    """
    n_starts = options.n_runs
    # A resample differs little from all cells: their order is nearly the best.
    if options.order is not None:
        n_starts = min(n_starts, int(len(options.order) <= _MOST_GENES))
    best = boss(
        moments, n_starts=n_starts, orders=options.order, prior=options.prior, rng=rng, **more
    )
    stored = {"score": best.score, "run_scores": best.scores}
    return Found(best.dag, best.order, best.context_edges, stored)


class _Task(NamedTuple):
    """What every start searches: with and without prior knowledge, and its order of nodes.

    ``known`` is the prior knowledge with the context nodes and their targets, and so is ``prior``,
    which is None where it bars no edge between other nodes. The starting orders are of the nodes
    that move, given those that do not.
    """

    problem: Score
    free: Score
    precision: NDArray[np.float64]
    threshold: NDArray[np.float64]
    known: PriorKnowledge
    prior: PriorKnowledge | None
    n_context: int

    @classmethod
    def make(
        cls,
        moments: Moments,
        penalty: float,
        known: PriorKnowledge,
        n_context: int,
        targets: Mapping[int, Iterable[int]] | None,
    ) -> _Task:
        """Return the task; dependent, to the starting orders, is what the BIC would join."""
        p, n = known.n_nodes, moments.n
        # Context nodes come last; nothing points at them, and known targets are required edges.
        padded = known.with_context(n_context, targets)
        problem = make_score(moments, penalty, padded)
        free = problem._replace(**sets_of(PriorKnowledge(p).with_context(n_context, targets)))
        precision = np.array(np.linalg.inv(problem.matrix)[:p, :p], np.float64)
        # r^2 above which the BIC gains: -n/2 log(1 - r^2) > penalty/2 log n.
        threshold = np.full(p, -np.expm1(-penalty * np.log(n) / n))
        # Required edges alone bar no way between orders.
        bars = known.before.any() or known.forbidden.any()
        prior = padded if bars else None
        return cls(problem, free, precision, threshold, padded, prior, n_context)

    def search(
        self, seed: np.uint64, start: int | NDArray[np.int64]
    ) -> tuple[float, NDArray[np.bool_]]:
        """Climb from one order, given or of a start's number; return the score and parent sets.

        With prior knowledge every start climbs twice: see :func:`boss`.
        """
        if not isinstance(start, int):
            # Context nodes stand first in every order, given or drawn.
            p = len(start)
            order = np.append(np.arange(p, p + self.n_context), start)
            return self._climb(self.problem, order, np.array([seed], np.uint64))[:2]
        slack = int(np.random.default_rng(int(seed)).integers(N_SLACKS)) if start else 0
        ends = [self._from_start(self.problem, slack, seed)[:2]]
        if self.prior is not None:
            # Without what is known, moves are free; the member of that class that agrees is near.
            _, free, order = self._from_start(self.free, slack, seed)
            class_ = Pdag.of_class(Dag.from_matrix(free.T), self.n_context)
            known = self.known
            member = class_.to_dag(known.before, known.forbidden)
            # No member may agree: then the order is mended, node by node.
            order = known.nearest_order(order) if member is None else known.order_of(member)
            ends.append(self._climb(self.problem, order, np.array([seed], np.uint64))[:2])
            if member is not None and known.allows(member):
                ends.append(_scored(self.problem, member))
        return max(ends, key=lambda pair: pair[0])

    def _from_start(
        self, problem: Score, slack: int, seed: np.uint64
    ) -> tuple[float, NDArray[np.bool_], NDArray[np.int64]]:
        """Climb from a drawn order, context nodes first."""
        p, random = len(self.precision), np.array([seed], np.uint64)
        after = problem.after[:p, :p].copy()
        order, _ = sparse_order(self.precision, self.threshold, after, slack, random)
        return self._climb(problem, np.append(np.arange(p, p + self.n_context), order), random)

    def _climb(
        self, problem: Score, order: NDArray[np.int64], random: NDArray[np.uint64]
    ) -> tuple[float, NDArray[np.bool_], NDArray[np.int64]]:
        """Climb from an order; return score, parent sets and the order at the end."""
        p = len(order)
        state, parents = State.start(order, self.n_context), np.zeros((p, p), np.bool_)
        climb(problem, Forest.empty(p), Growth.empty(p), Scratch.empty(p), state, random, parents)
        return float(state.score.sum()), parents, state.order


def _scored(problem: Score, dag: Dag) -> tuple[float, NDArray[np.bool_]]:
    """Return the score of a graph and its sets of parents."""
    rows = rows_of(dag.to_matrix().toarray() != 0)
    return total_score(problem, rows), rows
