"""Markov equivalence classes: the class of a graph, and a graph of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.graph.dag import Dag

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Pdag:
    """A partially directed graph.

    ``edges``, (p, p), row = parent, has an edge without a direction both ways.
    """

    def __init__(self, edges: NDArray[np.bool_]) -> None:
        self.edges = edges

    @classmethod
    def of_class(cls, dag: Dag, n_context: int = 0) -> Pdag:
        """Return the class of a graph: an edge is directed where the whole class agrees on it.

        Chickering 1995, arXiv:1302.4938, labels the edges child by child along the order. The last
        ``n_context`` nodes were set by experiment: their edges are directed in all the class, as
        if each had a cause that nothing else has.
        """
        place = {int(node): m for m, node in enumerate(dag.order)}
        above = [set(dag.parents(i).tolist()) for i in range(dag.n_nodes)]
        compelled: list[set[int]] = [set() for _ in above]
        for x in range(dag.n_nodes - n_context, dag.n_nodes):
            compelled[x] = {-1}
        edges = dag.to_matrix().toarray() != 0
        for y in dag.order.tolist():
            reversible: set[int] = set()
            for x in sorted(above[y], key=lambda k: -place[k]):
                if x in compelled[y] or x in reversible:
                    continue
                if not compelled[x] <= above[y]:
                    compelled[y], reversible = set(above[y]), set()
                    break
                compelled[y] |= compelled[x]
                reversible -= compelled[x]
                if above[y] - above[x] - {x}:
                    compelled[y] |= above[y] - reversible
                else:
                    reversible |= above[y] - compelled[y]
            edges[y, list(reversible)] = True
        return cls(edges)

    def parents(self, node: int) -> set[int]:
        """Return the nodes with an edge that points at ``node``."""
        return set(np.flatnonzero(self.edges[:, node] & ~self.edges[node]).tolist())

    def neighbours(self, node: int) -> set[int]:
        """Return the nodes with an undirected edge to ``node``."""
        return set(np.flatnonzero(self.edges[:, node] & self.edges[node]).tolist())

    def adjacent(self, node: int) -> set[int]:
        """Return all nodes joined to ``node``."""
        return set(np.flatnonzero(self.edges[:, node] | self.edges[node]).tolist())

    def to_dag(
        self, before: NDArray[np.bool_] | None = None, forbidden: NDArray[np.bool_] | None = None
    ) -> Dag | None:
        """Return a graph with the same skeleton, directions and colliders (Dor & Tarsi 1992).

        Node by node is taken out that can stand last among those left. With ``before``
        (``before[a, b]`` where ``a`` stands before ``b``) it must also have none left that stands
        after it, with ``forbidden`` no edge into it that is barred: as before,
        whichever of these nodes goes first, what is left has a graph if the whole had one.
        Returns None where there is none.
        """
        rest, edges = self.edges.copy(), np.zeros_like(self.edges)
        after = np.zeros_like(rest) if before is None else before
        barred = np.zeros_like(rest) if forbidden is None else forbidden
        waiting = np.ones(len(rest), np.bool_)
        queue = list(range(len(rest)))
        while queue:
            node = queue.pop()
            into = rest[:, node].copy()
            stays = (rest[node] & ~into).any() or (after[node] & waiting).any()
            if not waiting[node] or stays or (barred[:, node] & into).any():
                continue
            # All edges at the node point at it without a new collider: others of it are joined.
            beside = np.flatnonzero(into & rest[node])
            if ((into & ~(rest[beside] | rest[:, beside].T)).sum(axis=1) > 1).any():
                continue
            edges[into, node] = True
            waiting[node] = rest[node] = rest[:, node] = False
            queue += [*np.flatnonzero(after[:, node]).tolist(), *np.flatnonzero(into).tolist()]
        return None if waiting.any() else Dag.from_matrix(edges)
