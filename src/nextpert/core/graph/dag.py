"""Directed acyclic graphs, their distances and equivalence classes, and misspecified graphs."""

from __future__ import annotations

import graphlib
import heapq
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert.core._checks import as_rng, is_pair, require_count
from nextpert.core.screen.moments import require_numbers, require_sound

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    Edge = tuple[int, int]


class CycleError(ValueError):
    """Error about a cycle in a graph or an order; ``cycle`` lists its nodes."""

    def __init__(self, cycle: Sequence[int], names: Sequence[str] | None = None) -> None:
        self.cycle = list(cycle)
        self._names = names
        shown = [str(names[i]) if names is not None else str(i) for i in self.cycle]
        path = " -> ".join([*shown, shown[0]])
        super().__init__(f"The graph has a cycle, {path}: remove one of its edges.")

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is pickled with its message alone, which would lose the cycle.
        return type(self), (self.cycle, self._names)

    def named(self, names: Sequence[str]) -> CycleError:
        """Return the same error with the names of the nodes."""
        return CycleError(self.cycle, names)


class Dag:
    """A directed acyclic graph, with the parents of all nodes in one array (CSR by child).

    Parameters
    ----------
    indptr
        Offsets, shape ``(n_nodes + 1,)``: the parents of node ``i`` are
        ``indices[indptr[i]:indptr[i + 1]]``.
    indices
        Parents of all nodes, node by node, shape ``(n_edges,)``; sorted here within each node.

    Attributes
    ----------
    n_nodes, n_edges : int
        Number of nodes and of edges.
    in_degree : numpy.ndarray
        Number of parents of each node, shape ``(n_nodes,)``.
    order : numpy.ndarray
        Nodes in a topological order, shape ``(n_nodes,)``.

    Raises
    ------
    CycleError
        If the graph has a cycle, such as a self-loop; the message lists its nodes.
    ValueError
        If an index lies outside ``0..n_nodes - 1``, or an edge is given twice.

    Examples
    --------
    >>> from nextpert.core import Dag
    >>> dag = Dag.from_edges(3, [(0, 1), (0, 2), (1, 2)])
    >>> dag.parents(2).tolist(), dag.order.tolist(), dag.n_edges
    ([0, 1], [0, 1, 2], 3)
    """

    def __init__(self, indptr: ArrayLike, indices: ArrayLike) -> None:
        arrays = []
        for name, value in (("indptr", indptr), ("indices", indices)):
            array = np.array(value)
            if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
                description = f"an array of type {array.dtype} and shape {array.shape}"
                message = f"{name} must be a vector of whole numbers, but is {description}."
                raise ValueError(message)
            arrays.append(array.astype(np.int64))
        self.indptr, self.indices = arrays
        self.n_nodes, self.n_edges = len(self.indptr) - 1, len(self.indices)
        self.in_degree: NDArray[np.int64] = np.diff(self.indptr)
        rising = self.n_nodes >= 0 and (self.in_degree >= 0).all()
        if not rising or self.indptr[0] != 0 or self.indptr[-1] != self.n_edges:
            message = (
                f"indptr must start at 0, never decrease, and end at the number of edges, "
                f"{self.n_edges}."
            )
            raise ValueError(message)
        if self.n_edges and (self.indices.min() < 0 or self.indices.max() >= self.n_nodes):
            message = (
                f"All indices must be nodes in 0..{self.n_nodes - 1}, but they range from "
                f"{self.indices.min()} to {self.indices.max()}."
            )
            raise ValueError(message)
        # Sort by child, then by parent: equal graphs have equal arrays.
        children = np.repeat(np.arange(self.n_nodes), self.in_degree)
        self.indices = self.indices[np.lexsort((self.indices, children))]
        twice = np.flatnonzero((np.diff(children) == 0) & (np.diff(self.indices) == 0))
        if len(twice):
            message = (
                f"The edge {self.indices[twice[0]]} -> {children[twice[0]]} is given twice: "
                f"remove the duplicate."
            )
            raise ValueError(message)
        # Kahn's algorithm, smallest index first, so that the order depends on the graph only.
        parents = np.split(self.indices, self.indptr[1:-1])
        sorter = TopologicalSorter({i: parents[i].tolist() for i in range(self.n_nodes)})
        try:
            sorter.prepare()
        except graphlib.CycleError as error:
            raise CycleError(error.args[1][:-1]) from None
        ready = list(sorter.get_ready())
        order = []
        heapq.heapify(ready)
        while ready:
            order.append(heapq.heappop(ready))
            sorter.done(order[-1])
            for node in sorter.get_ready():
                heapq.heappush(ready, node)
        self.order: NDArray[np.int64] = np.array(order, dtype=np.int64)
        for array in (self.indptr, self.indices, self.order, self.in_degree):
            array.flags.writeable = False

    @classmethod
    def from_parents(cls, parents: Sequence[Iterable[int]]) -> Dag:
        """Return the graph with one list of parents per node."""
        lists = [np.array(sorted(p), dtype=np.int64) for p in parents]
        indptr = np.concatenate([[0], np.cumsum([len(p) for p in lists])])
        return cls(indptr, np.concatenate([np.empty(0, np.int64), *lists]))

    @classmethod
    def from_edges(cls, n_nodes: int, edges: Iterable[tuple[int, int]]) -> Dag:
        """Return the graph with the edges ``(parent, child)``."""
        p = require_count(n_nodes, "n_nodes", minimum=0)
        listed = list(edges)
        wrong = [edge for edge in listed if not is_pair(edge)]
        pairs = np.array([] if wrong else listed)
        if wrong or (listed and pairs.dtype.kind not in "iu"):
            message = (
                f"Edges must be pairs (parent, child) of nodes, but one is {(wrong or listed)[0]}."
            )
            raise ValueError(message)
        pairs = pairs.astype(np.int64).reshape(-1, 2)
        outside = pairs[((pairs < 0) | (pairs >= p)).any(axis=1)]
        if len(outside):
            edge = tuple(outside[0].tolist())
            message = f"Edges must be pairs of nodes in 0..{p - 1}, but one is {edge}."
            raise ValueError(message)
        parents, children = pairs[np.argsort(pairs[:, 1], kind="stable")].T
        starts = np.concatenate([[0], np.cumsum(np.bincount(children, minlength=p))])
        return cls(starts, parents)

    @classmethod
    def from_matrix(
        cls, matrix: ArrayLike | sp.sparray | sp.spmatrix, names: Sequence[str] | None = None
    ) -> Dag:
        """Return the graph of an adjacency matrix (row = parent, column = child), dense or sparse.

        If ``names`` are given, the error about a cycle uses them.
        """
        stored: Any = matrix if sp.issparse(matrix) else np.asanyarray(matrix)
        require_numbers(stored, "The adjacency matrix")
        require_sound(stored, "The adjacency matrix")
        # Row = parent: the parents of a child are the non-zero rows of its column.
        coo = sp.coo_array(stored, copy=True)
        if coo.ndim != 2 or coo.shape[0] != coo.shape[1]:
            message = f"An adjacency matrix must be square, but its shape is {coo.shape}."
            raise ValueError(message)
        coo.sum_duplicates()
        if not np.isfinite(coo.data).all():
            message = "The adjacency matrix has NaN or infinite values: use 0 for no edge."
            raise ValueError(message)
        parents, children = (coordinates[coo.data != 0] for coordinates in coo.coords)
        starts = np.append(0, np.cumsum(np.bincount(children, minlength=coo.shape[0])))
        try:
            return cls(starts, parents[np.argsort(children, kind="stable")])
        except CycleError as error:
            if names is None:
                raise
            raise error.named(names) from None

    def parents(self, node: int) -> NDArray[np.int64]:
        """Return the parents of ``node`` in ascending order."""
        if not 0 <= node < self.n_nodes:
            message = f"The graph has no node {node}: its nodes are 0..{self.n_nodes - 1}."
            raise ValueError(message)
        return self.indices[self.indptr[node] : self.indptr[node + 1]]

    def edges(self) -> list[tuple[int, int]]:
        """Return all edges ``(parent, child)``, sorted by child."""
        children = np.repeat(np.arange(self.n_nodes), self.in_degree)
        return [(int(k), int(i)) for k, i in zip(self.indices, children, strict=True)]

    def to_matrix(self) -> sp.csr_array:
        """Return the adjacency matrix, row = parent, column = child, with ones for edges."""
        data = np.ones(self.n_edges)
        shape = (self.n_nodes, self.n_nodes)
        return sp.csr_array(sp.csc_array((data, self.indices, self.indptr), shape=shape))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Dag)
            and np.array_equal(self.indptr, other.indptr)
            and np.array_equal(self.indices, other.indices)
        )

    __hash__ = None  # type: ignore[assignment]


def shd(one: Dag, two: Dag) -> int:
    """Return the structural Hamming distance: the number of node pairs whose edges differ.

    An extra edge, a missing edge and a reversed edge each count once.

    Examples
    --------
    >>> from nextpert.core import Dag, shd
    >>> shd(Dag.from_edges(3, [(0, 1), (1, 2)]), Dag.from_edges(3, [(1, 0), (0, 2)]))
    3
    """
    if one.n_nodes != two.n_nodes:
        message = (
            f"Graphs with {one.n_nodes} and {two.n_nodes} nodes cannot be compared: give two "
            f"graphs on the same nodes."
        )
        raise ValueError(message)
    # A reversed edge contributes two differences for one pair of nodes.
    differing = set(one.edges()) ^ set(two.edges())
    return len({frozenset(edge) for edge in differing})


def perturb_dag(
    dag: Dag,
    *,
    n_missing: int = 0,
    n_extra: int = 0,
    n_reversed: int = 0,
    rng: int | np.random.Generator | None = None,
) -> Dag:
    """Return a misspecified graph at a given structural Hamming distance.

    The three kinds of change affect different pairs of nodes, so that the distance (see
    :func:`shd`) is the sum of their numbers; the result has no cycle. Zhang et al. 2023
    (doi:10.1038/s42256-023-00719-0) test such graphs.

    Parameters
    ----------
    dag
        The original graph.
    n_missing, n_extra, n_reversed
        Numbers of edges to remove, to add between pairs of nodes without an edge, and to reverse.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        If there are too few edges, or too few pairs of nodes without an edge.

    Examples
    --------
    >>> from nextpert.core import perturb_dag, random_dag, shd
    >>> dag = random_dag(10, rng=0)
    >>> shd(dag, perturb_dag(dag, n_missing=2, n_extra=3, n_reversed=1, rng=0))
    6
    """
    generator = as_rng(rng)
    p = dag.n_nodes
    missing = require_count(n_missing, "n_missing", minimum=0)
    extra = require_count(n_extra, "n_extra", minimum=0)
    turned = require_count(n_reversed, "n_reversed", minimum=0)
    # Missing, reversed and extra edges are drawn from disjoint pairs.
    free = p * (p - 1) // 2 - dag.n_edges
    if missing + turned > dag.n_edges:
        message = (
            f"n_missing + n_reversed must be at most the number of edges, {dag.n_edges}, but is "
            f"{missing + turned}."
        )
        raise ValueError(message)
    if extra > free:
        message = (
            f"n_extra must be at most {free}, the number of node pairs without an edge, but is "
            f"{extra}."
        )
        raise ValueError(message)
    edges = [dag.edges()[i] for i in generator.permutation(dag.n_edges)]
    linked = {frozenset(edge) for edge in edges}
    edges = edges[missing:]
    for n_turned in range(turned):
        # The shortest edge in a topological order can be reversed, so that one is always found.
        ways = ([*edges[:k], *edges[k + 1 :], edges[k][::-1]] for k in range(len(edges) - n_turned))
        edges = next(way for way in ways if is_acyclic(p, way))
    rows, cols = np.tril_indices(p, -1)
    for i in generator.permutation(len(rows)):
        if extra == 0:
            break
        pair = (int(rows[i]), int(cols[i]))
        if frozenset(pair) in linked:
            continue
        # At least one direction makes no cycle.
        edge = pair if generator.random() < 0.5 else pair[::-1]
        edges.append(edge if is_acyclic(p, [*edges, edge]) else edge[::-1])
        extra -= 1
    return Dag.from_edges(p, edges)


def is_acyclic(p: int, edges: Iterable[Edge]) -> bool:
    """Return whether edges ``(parent, child)`` on ``p`` nodes have no cycle."""
    try:
        Dag.from_edges(p, edges)
    except CycleError:
        return False
    return True


class Pdag:
    """A partially directed graph.

    ``edges``, (p, p), row = parent, contains an undirected edge in both directions.
    """

    def __init__(self, edges: NDArray[np.bool_]) -> None:
        self.edges = edges

    @classmethod
    def of_class(cls, dag: Dag, n_context: int = 0) -> Pdag:
        """Return the equivalence class of a graph: an edge is directed if all members agree on it.

        Edges are labelled child by child along the order (Chickering 1995, arXiv:1302.4938). The
        last ``n_context`` nodes were set by the experiment: their edges are directed in all
        members, as if each of these nodes had a cause that no other node has.
        """
        # Edges into y are labelled from the parent that is last in the order (Chickering 1995).
        position = {int(node): m for m, node in enumerate(dag.order)}
        above = [set(dag.parents(i).tolist()) for i in range(dag.n_nodes)]
        compelled: list[set[int]] = [set() for _ in above]
        for x in range(dag.n_nodes - n_context, dag.n_nodes):
            compelled[x] = {-1}
        edges = dag.to_matrix().toarray() != 0
        for y in dag.order.tolist():
            reversible: set[int] = set()
            for x in sorted(above[y], key=lambda k: -position[k]):
                if x in compelled[y] or x in reversible:
                    continue
                # w -> x is compelled and w is not a parent of y: all edges into y are compelled.
                if not compelled[x] <= above[y]:
                    compelled[y], reversible = set(above[y]), set()
                    break
                compelled[y] |= compelled[x]
                reversible -= compelled[x]
                # y has a parent that x does not have: a collider, or an edge that would make one.
                if above[y] - above[x] - {x}:
                    compelled[y] |= above[y] - reversible
                else:
                    reversible |= above[y] - compelled[y]
            edges[y, list(reversible)] = True
        return cls(edges)

    def parents(self, node: int) -> set[int]:
        """Return the nodes with a directed edge into ``node``."""
        return set(np.flatnonzero(self.edges[:, node] & ~self.edges[node]).tolist())

    def neighbours(self, node: int) -> set[int]:
        """Return the nodes with an undirected edge to ``node``."""
        return set(np.flatnonzero(self.edges[:, node] & self.edges[node]).tolist())

    def adjacent(self, node: int) -> set[int]:
        """Return all nodes with an edge to or from ``node``, directed or not."""
        return set(np.flatnonzero(self.edges[:, node] | self.edges[node]).tolist())

    def to_dag(
        self, before: NDArray[np.bool_] | None = None, forbidden: NDArray[np.bool_] | None = None
    ) -> Dag | None:
        """Return a graph with the same skeleton, directions and colliders (Dor & Tarsi 1992).

        Nodes that can be last in the order of the remaining nodes are removed one at a time. With
        ``before`` (``before[a, b]`` if ``a`` precedes ``b``), no remaining node may come after such
        a node; with ``forbidden``, no edge into it may be forbidden. Whichever node is removed
        first, the rest has such a graph if the whole has one. The result is None if there is none.
        """
        remaining = self.edges.copy()
        edges = np.zeros_like(self.edges)
        after = np.zeros_like(remaining) if before is None else before
        barred = np.zeros_like(remaining) if forbidden is None else forbidden
        waiting = np.ones(len(remaining), np.bool_)
        queue = list(range(len(remaining)))
        # A sink: no edge out of it, no forbidden edge into it, and no remaining node after it.
        while queue:
            node = queue.pop()
            into = remaining[:, node].copy()
            stays = (remaining[node] & ~into).any() or (after[node] & waiting).any()
            if not waiting[node] or stays or (barred[:, node] & into).any():
                continue
            # All edges can point at the node without a new collider: its undirected neighbours are
            # adjacent to all others.
            beside = np.flatnonzero(into & remaining[node])
            if ((into & ~(remaining[beside] | remaining[:, beside].T)).sum(axis=1) > 1).any():
                continue
            edges[into, node] = True
            waiting[node] = remaining[node] = remaining[:, node] = False
            queue += [*np.flatnonzero(after[:, node]).tolist(), *np.flatnonzero(into).tolist()]
        return None if waiting.any() else Dag.from_matrix(edges)
