"""Backward equivalence search: the second half of greedy equivalence search."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.graph._equivalence import Pdag
from nextpert.core.search._best_member import best_member
from nextpert.core.search._imap import Scratch
from nextpert.core.search._local_score import local_score

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from nextpert.core.graph.dag import Dag
    from nextpert.core.search._local_score import ScoreProblem
    from nextpert.core.search.prior_knowledge import PriorKnowledge

_MOST_SETS = 256  # looked at an arc; more only where an arc has nine common neighbours or more
_LEAST_GAIN = 1e-6


def backward(
    problem: ScoreProblem,
    dag: Dag,
    prior: PriorKnowledge | None = None,
    n_exogenous: int = 0,
) -> Dag:
    """Delete arcs while the score of the equivalence class rises, the best first.

    Chickering 2002 (JMLR 3), theorem 17: x and y (x -> y or x - y) are separated, and the
    neighbours of y that are adjacent to x, but for a clique T of them, become children of both.
    The score rises by ``s(y, T + parents(y) - x) - s(y, T + parents(y) + x)``. With prior
    knowledge, an arc is deleted only where a member of the new class agrees with it. Directions
    that the last ``n_exogenous`` nodes settle stay as they are. Where arcs have log-odds, graphs of
    a class differ in score: an arc is deleted only if the best one found of the new class gains.
    """
    known: dict[tuple[int, frozenset[int]], float] = {}
    scratch = Scratch.empty(dag.n_nodes)
    row = np.zeros(problem.before.shape[1], np.uint64)

    def score(node: int, parents: frozenset[int]) -> float:
        key = (node, parents)
        if key not in known:
            row[:] = 0
            for parent in parents:
                row[parent >> 6] |= np.uint64(1 << (parent & 63))
            known[key] = local_score(problem, row, node, scratch)
        return known[key]

    def total(graph: Dag) -> float:
        return sum(score(i, frozenset(graph.parents(i).tolist())) for i in range(graph.n_nodes))

    while True:
        graph = Pdag.of_class(dag, n_exogenous)
        found: list[tuple[float, int, int, set[int]]] = []
        for y in range(dag.n_nodes):
            for x in sorted(graph.parents[y] | graph.neighbours[y]):
                common = graph.neighbours[y] & graph.adjacent(x)
                for kept in islice(_cliques(graph, sorted(common)), _MOST_SETS):
                    base = frozenset(kept | graph.parents[y]) - {x}
                    gain = score(y, base) - score(y, base | {x})
                    if gain > _LEAST_GAIN:
                        found.append((gain, x, y, common - kept))
        found.sort(key=lambda deletion: -deletion[0])
        thinned = (_without(graph, x, y, freed, prior) for _, x, y, freed in found)
        if problem.log_odds.size:
            turned = (
                thinner and best_member(thinner, problem.log_odds, prior, n_exogenous)
                for thinner in thinned
            )
            least = total(dag) + _LEAST_GAIN
            thinned = (t if t is not None and total(t) > least else None for t in turned)
        best = next((thinner for thinner in thinned if thinner is not None), None)
        if best is None:
            return dag
        dag = best


def _without(
    graph: Pdag, x: int, y: int, freed: set[int], prior: PriorKnowledge | None
) -> Dag | None:
    """Return a graph of the class after a deletion, None where all contradict what is known."""
    if prior is not None and (prior.required[x, y] or prior.required[y, x]):
        return None
    thinner = graph.copy()
    thinner.drop(x, y)
    for node in freed:
        thinner.direct(y, node)
        if node in thinner.neighbours[x]:
            thinner.direct(x, node)
    if prior is None:
        return thinner.to_dag()
    return agreeing_dag(thinner, prior.before, prior.forbidden)


def agreeing_dag(
    graph: Pdag, before: NDArray[np.bool_], forbidden: NDArray[np.bool_]
) -> Dag | None:
    """Return a graph of a class that agrees with orders and forbidden arcs, None without one."""
    try:
        return graph.to_dag(before, forbidden)
    except ValueError:
        return None


def _cliques(graph: Pdag, nodes: list[int]) -> Iterator[set[int]]:
    """Yield all sets of nodes that are joined to one another, the empty set last."""
    for m, node in enumerate(nodes):
        joined = graph.adjacent(node)
        for rest in _cliques(graph, [other for other in nodes[m + 1 :] if other in joined]):
            yield rest | {node}
    yield set()
