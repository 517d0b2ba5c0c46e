"""Random directed acyclic graphs: the families of the simulations of Zhang et al. 2023."""

from __future__ import annotations

from collections import deque
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from nextpert.core._checks import as_rng, require_count
from nextpert.core.graph.dag import Dag

if TYPE_CHECKING:
    from collections.abc import Callable

    Edges = list[tuple[int, int]]
    Family = Callable[[int, float, np.random.Generator], Edges]


def _complete(p: int, density: float, rng: np.random.Generator) -> Edges:
    return [(k, i) for i in range(p) for k in range(i)]


def _erdos_renyi(p: int, density: float, rng: np.random.Generator) -> Edges:
    # Parents have smaller numbers than children.
    rows, columns = np.tril_indices(p, -1)
    is_edge = rng.random(len(rows)) < density
    return list(zip(columns[is_edge].tolist(), rows[is_edge].tolist(), strict=True))


def _barabasi_albert(p: int, density: float, rng: np.random.Generator) -> Edges:
    # Every new node gets m parents, drawn in proportion to their number of neighbours plus one.
    m = max(round(density * (p - 1) / 2), 1)
    edges = []
    weight = np.ones(p)
    for i in range(1, p):
        parents = rng.choice(i, min(m, i), replace=False, p=weight[:i] / weight[:i].sum())
        edges += [(int(k), i) for k in parents]
        weight[parents] += 1
        weight[i] += len(parents)
    return edges


def _line(p: int, density: float, rng: np.random.Generator) -> Edges:
    return _either_way(list(pairwise(rng.permutation(p).tolist())), rng)


def _tree(p: int, density: float, rng: np.random.Generator) -> Edges:
    return _either_way(_labelled_tree(p, rng), rng)


def _rooted_tree(p: int, density: float, rng: np.random.Generator) -> Edges:
    pairs = _labelled_tree(p, rng)
    joined = coo_array((np.ones(len(pairs)), np.array(pairs, np.int64).reshape(-1, 2).T), (p, p))
    parent = breadth_first_order(joined.tocsr(), int(rng.integers(p)), directed=False)[1]
    return [(int(k), i) for i, k in enumerate(parent) if k >= 0]


def _chordal(p: int, density: float, rng: np.random.Generator) -> Edges:
    parents: list[set[int]] = [set() for _ in range(p)]
    for i in range(1, p):
        count = max(1, int(rng.binomial(i, density)))
        parents[i] = set(rng.choice(i, count, replace=False).tolist())
    # The parents of every node are joined, from the last node on, so that new edges count as well.
    for i in range(p - 1, 0, -1):
        for k, j in combinations(sorted(parents[i]), 2):
            parents[j].add(k)
    return [(k, i) for i in range(p) for k in parents[i]]


def _clique_tree(p: int, density: float, rng: np.random.Generator) -> Edges:
    # Cliques of 3 or 4 nodes; each has three more that share 1 or 2 nodes with it.
    first = list(range(min(int(rng.integers(3, 5)), p)))
    used = len(first)
    waiting = deque([first])
    edges = set(combinations(first, 2))
    while used < p:
        clique = waiting.popleft()
        for _ in range(3):
            size = int(rng.integers(3, 5))
            new = list(range(used, min(used + size - size // 2, p)))
            if new:
                shared = rng.choice(clique, min(size // 2, len(clique)), replace=False)
                waiting.append(sorted(shared.tolist()) + new)
                edges.update(combinations(waiting[-1], 2))
                used += len(new)
    return sorted(edges)


def _either_way(pairs: Edges, rng: np.random.Generator) -> Edges:
    ways = rng.random(len(pairs)) < 0.5
    return [pair if way else pair[::-1] for pair, way in zip(pairs, ways, strict=True)]


def _labelled_tree(p: int, rng: np.random.Generator) -> Edges:
    """Return the tree of a random Pruefer sequence: every labelled tree is equally likely."""
    if p < 2:
        return []
    sequence = rng.integers(p, size=p - 2).tolist()
    degree = np.bincount(sequence, minlength=p) + 1
    edges: Edges = []
    for node in sequence:
        leaf = int(np.flatnonzero(degree == 1)[0])
        edges.append((leaf, node))
        degree[[leaf, node]] -= 1
    last = np.flatnonzero(degree == 1).tolist()
    return [*edges, (last[0], last[1])]


FAMILIES: dict[str, Family] = {
    "complete": _complete,
    "erdos_renyi": _erdos_renyi,
    "barabasi_albert": _barabasi_albert,
    "path": lambda p, density, rng: list(pairwise(range(p))),
    "line": _line,
    "in_star": lambda p, density, rng: [(k, p - 1) for k in range(p - 1)],
    "out_star": lambda p, density, rng: [(0, i) for i in range(1, p)],
    "tree": _tree,
    "rooted_tree": _rooted_tree,
    "chordal": _chordal,
    "clique_tree": _clique_tree,
}


def random_dag(
    n_nodes: int,
    family: str = "erdos_renyi",
    *,
    expected_degree: float = 4.0,
    rng: int | np.random.Generator | None = None,
) -> Dag:
    """Draw a graph whose nodes are numbered in topological order.

    The families are those of the code of Zhang et al. 2023
    (doi:10.1038/s42256-023-00719-0).

    Parameters
    ----------
    n_nodes
        Number of nodes.
    family
        One of

        - ``"complete"``: all pairs of nodes have an edge.
        - ``"erdos_renyi"``: every pair has an edge with the same probability.
        - ``"barabasi_albert"``: new nodes draw parents in proportion to their neighbours.
        - ``"path"``: a directed path; ``"line"``: a path whose edges point either way.
        - ``"in_star"``, ``"out_star"``: one child, or one parent, of all other nodes.
        - ``"tree"``: a random tree whose edges point either way; ``"rooted_tree"``: all edges
          point away from a random root.
        - ``"chordal"``: random parents, which are then joined, so that no cycle of four or more
          nodes lacks a chord.
        - ``"clique_tree"``: overlapping cliques of 3 or 4 nodes, joined like a tree.
    expected_degree
        Expected number of neighbours of a node (Erdos-Renyi, Barabasi-Albert, and chordal before
        parents are joined). The authors use ``0.2 (n_nodes - 1)``, 4 and ``0.2 (n_nodes - 1)``.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        If the family is unknown, or ``expected_degree`` is below 0.

    Examples
    --------
    >>> from nextpert.core import random_dag
    >>> random_dag(4, "path").edges()
    [(0, 1), (1, 2), (2, 3)]
    """
    p = require_count(n_nodes, "n_nodes")
    generator = as_rng(rng)
    if family not in FAMILIES:
        message = f"Unknown graph family {family!r}: choose one of {sorted(FAMILIES)}."
        raise ValueError(message)
    if not expected_degree >= 0:
        message = f"expected_degree must be 0 or above, but is {expected_degree!r}."
        raise ValueError(message)
    density = min(expected_degree / max(p - 1, 1), 1.0)
    edges = FAMILIES[family](p, density, generator)
    # Trees and lines are drawn with random labels: number the nodes by the topological order.
    rank = np.argsort(Dag.from_edges(p, edges).order).tolist()
    return Dag.from_edges(p, [(rank[k], rank[i]) for k, i in edges])
