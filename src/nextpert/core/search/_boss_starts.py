"""The starts of a best-order search: an order to climb from, and on from where that ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core.graph._equivalence import Pdag
from nextpert.core.graph.dag import Dag
from nextpert.core.search._backward import agreeing_dag
from nextpert.core.search._best_member import best_member
from nextpert.core.search._bits import unpack_rows
from nextpert.core.search._boss_kernel import State, climb, move_blocks
from nextpert.core.search._grow_shrink import Forest, Growth
from nextpert.core.search._imap import Problem, Scratch, sparse_order
from nextpert.core.search._local_score import ScoreProblem, local_score
from nextpert.core.search._scores import make_score_problem
from nextpert.core.search._statistics import packed
from nextpert.core.search.prior_knowledge import PriorKnowledge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.cells.moments import Moments

_N_SLACKS = 4  # starts after the first take nodes of up to 0..3 more than the least degree
_VERTICES, _BRANCHES = 1 << 18, 1 << 22  # room in the trees at first; doubled when they are full
_MOST_BRANCHES = 1 << 26  # 540 MB; trees that outgrow it are emptied and grown again as needed


class Task(NamedTuple):
    """What every start searches: with and without prior knowledge, and its order of nodes.

    The starting orders are of the nodes that move, given those that do not.
    """

    problem: ScoreProblem
    free: ScoreProblem
    fewest: Problem
    n_exogenous: int

    @classmethod
    def make(
        cls,
        moments: Moments,
        score: str,
        penalty: float,
        known: PriorKnowledge,
        n_exogenous: int,
        log_odds: NDArray[np.float64] | None,
    ) -> Task:
        """Return the task; dependent, to the starting orders, is what the BIC would join."""
        p, n = known.n_nodes, moments.n
        padded = known.with_exogenous(n_exogenous) if n_exogenous else known
        problem = make_score_problem(moments, score, penalty, padded, log_odds)
        nothing = PriorKnowledge(p).with_exogenous(n_exogenous)
        free = problem._replace(**packed(nothing))
        precision = np.asarray(np.linalg.inv(problem.matrix), np.float64)[:p, :p]
        left = np.linalg.inv(precision) if n_exogenous else problem.matrix
        scale = np.sqrt(np.diag(left))
        fewest = Problem(
            corr=np.asarray(left / np.outer(scale, scale)),
            precision=precision * np.outer(scale, scale),
            threshold=np.full(p, -np.expm1(-penalty * np.log(n) / n)),
            **packed(known),
            ordered=bool(known.before.any()),
        )
        return cls(problem, free, fewest, n_exogenous)

    def order(self, slack: int, random: NDArray[np.uint64], bound: bool) -> NDArray[np.int64]:
        """Return an order to start from, which agrees with the prior knowledge if ``bound``."""
        p = len(self.fewest.corr)
        fewest = self.fewest
        if not bound:
            fewest = fewest._replace(**packed(PriorKnowledge(p)), ordered=False)
        found = np.empty(p, np.int64)
        sparse_order(fewest, slack, random, np.empty((p, p)), np.empty(p, np.int64), found)
        return np.concatenate([np.arange(p, p + self.n_exogenous), found])


def start(
    task: Task, prior: PriorKnowledge | None, seed: np.uint64, randomised: bool
) -> tuple[float, NDArray[np.uint64]]:
    """Climb from one order; return the score and the parent sets."""
    slack = int(np.random.default_rng(int(seed)).integers(_N_SLACKS)) if randomised else 0
    random = np.array([seed], np.uint64)
    n_exogenous = task.n_exogenous
    order = task.order(slack, random, True)
    total, parents, _ = _climb(task.problem, order, random, n_exogenous, prior is not None)
    if prior is None:
        return _turned(task, None, total, parents)
    random = np.array([seed], np.uint64)
    order = task.order(slack, random, False)
    _, free, order = _climb(task.free, order, random, n_exogenous, False)
    full = prior.with_exogenous(n_exogenous)
    class_ = Pdag.of_class(to_dag(free), n_exogenous)
    member = agreeing_dag(class_, full.before, full.forbidden)
    order = full.nearest_order(order) if member is None else full.order_of(member)
    random = np.array([seed], np.uint64)
    found = [(total, parents), _climb(task.problem, order, random, n_exogenous, True)[:2]]
    if member is not None and full.allows(member):
        found.append((total_score(task.problem, member), _rows_of(task.problem, member)))
    return _turned(task, full, *max(found, key=lambda pair: pair[0]))


def go_on(
    task: Task, prior: PriorKnowledge | None, seed: np.uint64, given: NDArray[np.int64]
) -> tuple[float, NDArray[np.uint64]]:
    """Climb from an order that is given; return the score and the parent sets."""
    n_exogenous, random = task.n_exogenous, np.array([seed], np.uint64)
    order = np.concatenate([np.arange(len(given), len(given) + n_exogenous), given])
    total, parents, _ = _climb(task.problem, order, random, n_exogenous, prior is not None)
    full = None if prior is None else prior.with_exogenous(n_exogenous)
    return _turned(task, full, total, parents)


def _turned(
    task: Task, prior: PriorKnowledge | None, total: float, parents: NDArray[np.uint64]
) -> tuple[float, NDArray[np.uint64]]:
    """Climb on from the graph of the same class with the highest log-odds, while that gains."""
    problem, n_exogenous = task.problem, task.n_exogenous
    known = prior or PriorKnowledge(len(problem.matrix) - n_exogenous).with_exogenous(n_exogenous)
    while problem.log_odds.size:
        dag = to_dag(parents)
        member = best_member(dag, problem.log_odds, prior, n_exogenous)
        if member is dag:
            break
        random = np.array([0], np.uint64)
        order = known.order_of(member)
        higher = _climb(problem, order, random, n_exogenous, prior is not None)[:2]
        here = (total_score(problem, member), _rows_of(problem, member))
        best = max(here, higher, key=lambda pair: pair[0])
        if best[0] <= total + 1e-6:
            break
        total, parents = best
    return total, parents


def _climb(
    problem: ScoreProblem,
    order: NDArray[np.int64],
    random: NDArray[np.uint64],
    n_exogenous: int,
    bound: bool,
) -> tuple[float, NDArray[np.uint64], NDArray[np.int64]]:
    """Climb from an order; return score, parent sets and the order at the end."""
    p, words = problem.before.shape
    state, growth = State.start(order, words, n_exogenous), Growth.empty(p)
    scratch = Scratch.empty(p)
    forest = Forest.empty(max(_VERTICES, 4 * p), _BRANCHES)
    parents = np.zeros((p, words), np.uint64)
    emptied_at = None
    while True:
        full = not climb(problem, forest, growth, scratch, state, random, parents)
        if not full:
            gained = move_blocks(problem, forest, growth, scratch, state) if bound else 0
            if gained == 0:
                return float(state.score.sum()), parents, state.order
            full = gained < 0
        if not full:
            continue
        here = (int(state.progress[2]), int(state.progress[0]))
        if len(forest.branch) < _MOST_BRANCHES or emptied_at == here:
            forest = forest.enlarged()
        else:
            forest.used[:] = 0
            emptied_at = here


def to_dag(parents: NDArray[np.uint64]) -> Dag:
    return Dag.from_matrix(unpack_rows(parents, len(parents)).T)


def _rows_of(problem: ScoreProblem, dag: Dag) -> NDArray[np.uint64]:
    """Return the parent sets of a graph."""
    rows = np.zeros_like(problem.before)
    for parent, child in dag.edges():
        rows[child, parent >> 6] |= np.uint64(1 << (parent & 63))
    return rows


def total_score(problem: ScoreProblem, dag: Dag) -> float:
    """Return the score of a graph."""
    rows, scratch = _rows_of(problem, dag), Scratch.empty(dag.n_nodes)
    return float(sum(local_score(problem, row, i, scratch) for i, row in enumerate(rows)))
