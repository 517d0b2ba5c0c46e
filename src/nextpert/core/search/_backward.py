"""Backward equivalence search: the second half of greedy equivalence search."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.graph._equivalence import Pdag
from nextpert.core.search._grow_shrink import local_score
from nextpert.core.search._imap import Scratch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nextpert.core.graph.dag import Dag
    from nextpert.core.search._grow_shrink import ScoreProblem

_MOST_SETS = 256  # looked at an arc; more only where an arc has nine common neighbours or more
_LEAST_GAIN = 1e-6


def backward(problem: ScoreProblem, dag: Dag) -> Dag:
    """Delete arcs while the score of the equivalence class rises, the best first.

    Chickering 2002 (JMLR 3), theorem 17: x and y (x -> y or x - y) are separated, and the
    neighbours of y that are adjacent to x, but for a clique T of them, become children of both.
    The score rises by ``s(y, T + parents(y) - x) - s(y, T + parents(y) + x)``.
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

    while True:
        graph = Pdag.of_class(dag)
        best: tuple[float, int, int, set[int]] | None = None
        for y in range(dag.n_nodes):
            for x in sorted(graph.parents[y] | graph.neighbours[y]):
                common = graph.neighbours[y] & graph.adjacent(x)
                for kept in islice(_cliques(graph, sorted(common)), _MOST_SETS):
                    base = frozenset(kept | graph.parents[y]) - {x}
                    gain = score(y, base) - score(y, base | {x})
                    if gain > (best[0] if best else _LEAST_GAIN):
                        best = (gain, x, y, common - kept)
        if best is None:
            return dag
        _, x, y, freed = best
        graph.drop(x, y)
        for node in freed:
            graph.direct(y, node)
            if node in graph.neighbours[x]:
                graph.direct(x, node)
        dag = graph.to_dag()


def _cliques(graph: Pdag, nodes: list[int]) -> Iterator[set[int]]:
    """Yield all sets of nodes that are joined to one another, the empty set last."""
    for m, node in enumerate(nodes):
        joined = graph.adjacent(node)
        for rest in _cliques(graph, [other for other in nodes[m + 1 :] if other in joined]):
            yield rest | {node}
    yield set()
