"""Markov equivalence classes: the class of a graph, and a graph of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.graph.dag import Dag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Pdag:
    """A partially directed graph: for every node its parents and its undirected neighbours."""

    def __init__(self, parents: Sequence[set[int]], neighbours: Sequence[set[int]]) -> None:
        self.n_nodes = len(parents)
        self.parents = [set(above) for above in parents]
        self.neighbours = [set(beside) for beside in neighbours]
        self.children: list[set[int]] = [set() for _ in parents]
        for child, above in enumerate(parents):
            for parent in above:
                self.children[parent].add(child)

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
        neighbours: list[set[int]] = [set() for _ in above]
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
            for x in reversible:
                neighbours[x].add(y)
                neighbours[y].add(x)
        return cls([known - {-1} for known in compelled], neighbours)

    def adjacent(self, node: int) -> set[int]:
        """Return all nodes joined to ``node``."""
        return self.parents[node] | self.children[node] | self.neighbours[node]

    def drop(self, x: int, y: int) -> None:
        """Take away what joins ``x`` and ``y``."""
        self.parents[y].discard(x)
        self.children[x].discard(y)
        self.neighbours[x].discard(y)
        self.neighbours[y].discard(x)

    def direct(self, x: int, y: int) -> None:
        """Direct the undirected ``x - y`` as ``x -> y``."""
        self.neighbours[x].discard(y)
        self.neighbours[y].discard(x)
        self.parents[y].add(x)
        self.children[x].add(y)

    def copy(self) -> Pdag:
        """Return a graph of its own."""
        return Pdag(self.parents, self.neighbours)

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
        rest = self.copy()
        parents: list[set[int]] = [set() for _ in range(self.n_nodes)]
        waiting = set(range(self.n_nodes))
        after = [set(np.flatnonzero(row).tolist()) for row in before] if before is not None else []
        queue = list(range(self.n_nodes))
        while queue:
            node = queue.pop()
            if node not in waiting or not rest.can_be_last(node):
                continue
            joined = rest.adjacent(node)
            if before is not None and after[node] & waiting:
                continue
            if forbidden is not None and forbidden[sorted(joined), node].any():
                continue
            waiting.discard(node)
            parents[node] = joined
            for other in joined:
                rest.drop(other, node)
            if before is not None:
                queue.extend(np.flatnonzero(before[:, node]).tolist())
            queue.extend(sorted(joined))
        return None if waiting else Dag.from_parents(parents)

    def can_be_last(self, node: int) -> bool:
        """Whether all edges at ``node`` can point at it without a new collider."""
        if self.children[node]:
            return False
        joined = self.adjacent(node)
        return all(joined - {beside} <= self.adjacent(beside) for beside in self.neighbours[node])
