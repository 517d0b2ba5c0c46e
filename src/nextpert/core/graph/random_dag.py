"""Random graphs of the paper's families, and random graphs with given numbers of parents."""

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

    from numpy.typing import ArrayLike

    Edges = list[tuple[int, int]]
    Maker = Callable[[int, float, np.random.Generator], Edges]


def complete(p: int, degree: float, rng: np.random.Generator) -> Edges:
    """Join all pairs."""
    return [(k, i) for i in range(p) for k in range(i)]


def erdos_renyi(p: int, degree: float, rng: np.random.Generator) -> Edges:
    """Join every pair with the same probability."""
    rows, cols = np.tril_indices(p, -1)
    keep = rng.random(len(rows)) < _density(p, degree)
    return [(int(k), int(i)) for i, k in zip(rows[keep], cols[keep], strict=True)]


def barabasi_albert(p: int, degree: float, rng: np.random.Generator) -> Edges:
    """Give each new node m parents with probabilities in proportion to their degree so far."""
    m = max(round(degree / 2), 1)
    edges: Edges = []
    weight = np.ones(p)
    for i in range(1, p):
        probability = weight[:i] / weight[:i].sum()
        for k in rng.choice(i, size=min(m, i), replace=False, p=probability):
            edges.append((int(k), i))
            weight[[k, i]] += 1
    return edges


def path(p: int, degree: float, rng: np.random.Generator) -> Edges:
    """Return one directed path through all nodes."""
    return list(pairwise(range(p)))


def line(p: int, degree: float, rng: np.random.Generator) -> Edges:
    """Return a chain whose edges point either way at random."""
    nodes = rng.permutation(p).tolist()
    return _in_order(p, _oriented(list(pairwise(nodes)), rng))


def out_star(p: int, degree: float, rng: np.random.Generator) -> Edges:
    """Make the first node the parent of all others."""
    return [(0, i) for i in range(1, p)]


def in_star(p: int, degree: float, rng: np.random.Generator) -> Edges:
    """Make the last node the child of all others."""
    return [(k, p - 1) for k in range(p - 1)]


def tree(p: int, degree: float, rng: np.random.Generator) -> Edges:
    """Draw a labelled tree uniformly; its edges point either way at random."""
    return _in_order(p, _oriented(_labelled_tree(p, rng), rng))


def rooted_tree(p: int, degree: float, rng: np.random.Generator) -> Edges:
    """Draw a labelled tree uniformly; its edges point away from a random root."""
    pairs = _labelled_tree(p, rng)
    joined = coo_array((np.ones(len(pairs)), np.array(pairs, np.int64).reshape(-1, 2).T), (p, p))
    parent = breadth_first_order(joined.tocsr(), int(rng.integers(p)), directed=False)[1]
    return _in_order(p, [(int(k), i) for i, k in enumerate(parent) if k >= 0])


def chordal(p: int, degree: float, rng: np.random.Generator) -> Edges:
    """Draw parents, at least one per node; then join the parents of every node."""
    parents: list[set[int]] = [set()]
    for i in range(1, p):
        count = max(1, int(rng.binomial(i, _density(p, degree))))
        parents.append({int(k) for k in rng.choice(i, size=count, replace=False)})
    # From the last node backwards: edges added on the way are themselves joined later.
    for i in range(p - 1, 0, -1):
        for k, j in combinations(sorted(parents[i]), 2):
            parents[j].add(k)
    return [(k, i) for i in range(p) for k in parents[i]]


def clique_tree(p: int, degree: float, rng: np.random.Generator) -> Edges:
    """Grow cliques of 3 or 4 nodes, each with up to three more that share 1 or 2 nodes with it."""
    first = list(range(min(int(rng.integers(3, 5)), p)))
    used, waiting = len(first), deque([first])
    edges = set(combinations(first, 2))
    while used < p:
        clique = waiting.popleft()
        for _ in range(3):
            size = int(rng.integers(3, 5))
            new = list(range(used, min(used + size - size // 2, p)))
            if not new:
                break
            shared = rng.choice(clique, size=min(size // 2, len(clique)), replace=False)
            child = sorted(shared.tolist()) + new
            edges.update(combinations(child, 2))
            waiting.append(child)
            used += len(new)
    return sorted(edges)


def empty(p: int, degree: float, rng: np.random.Generator) -> Edges:
    """Return no edges."""
    return []


FAMILIES: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        complete, erdos_renyi, barabasi_albert, path, line, out_star, in_star, tree, rooted_tree,
        chordal, clique_tree, empty,
    )
}  # fmt: skip


def _density(p: int, degree: float) -> float:
    return min(degree / max(p - 1, 1), 1.0)


def _oriented(pairs: Edges, rng: np.random.Generator) -> Edges:
    ways = rng.random(len(pairs)) < 0.5
    return [pair if way else pair[::-1] for pair, way in zip(pairs, ways, strict=True)]


def _in_order(p: int, edges: Edges) -> Edges:
    # Labels are random, so that ties of the topological order are broken at random too.
    rank = np.argsort(Dag.from_edges(p, edges).order).tolist()
    return [(rank[k], rank[i]) for k, i in edges]


def _labelled_tree(p: int, rng: np.random.Generator) -> Edges:
    """Return the tree of a random Pruefer sequence: every labelled tree is as likely."""
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


def random_dag(
    n_nodes: int,
    family: str = "erdos_renyi",
    *,
    expected_degree: float = 4.0,
    rng: int | np.random.Generator | None = None,
) -> Dag:
    """Draw a graph whose nodes are numbered in topological order.

    The families are those of the simulations of Zhang et al. 2023
    (doi:10.1038/s42256-023-00719-0).

    Parameters
    ----------
    n_nodes
        Number of nodes.
    family
        One of

        - ``"complete"``: all pairs are joined.
        - ``"erdos_renyi"``: every pair is joined with the same probability.
        - ``"barabasi_albert"``: new nodes choose parents by their degree.
        - ``"path"``: one directed path; ``"line"``: a chain, its edges pointing either way.
        - ``"out_star"``, ``"in_star"``: one parent of all the others, or one child.
        - ``"tree"``: a random tree, its edges pointing either way; ``"rooted_tree"``: all pointing
          away from a random root.
        - ``"chordal"``: random parents, then the parents of every node are joined, so that no
          cycle of four or more nodes lacks a chord.
        - ``"clique_tree"``: overlapping cliques of 3 or 4 nodes, joined like a tree.
        - ``"empty"``: no edges.
    expected_degree
        Mean number of neighbours of a node (Erdos-Renyi, Barabasi-Albert; chordal before parents
        are joined). The paper's graphs: ``0.2 (n_nodes - 1)``, 4 and ``0.2 (n_nodes - 1)``.
    rng
        Seed or generator.

    Examples
    --------
    >>> from nextpert.core import random_dag
    >>> random_dag(4, "path").edges()
    [(0, 1), (1, 2), (2, 3)]
    >>> random_dag(30, "clique_tree", rng=0).in_degree.max()
    np.int64(3)
    """
    p, generator = require_count(n_nodes, "n_nodes"), as_rng(rng)
    if family not in FAMILIES:
        message = f"Unknown graph family {family!r}: choose one of {sorted(FAMILIES)}."
        raise ValueError(message)
    if not expected_degree >= 0:
        message = f"expected_degree must be 0 or above, but is {expected_degree!r}."
        raise ValueError(message)
    return Dag.from_edges(p, FAMILIES[family](p, expected_degree, generator))


def matched_random_dag(
    in_degree: ArrayLike, *, rng: int | np.random.Generator | None = None
) -> Dag:
    """Draw a random acyclic graph with given numbers of parents.

    An order is drawn uniformly among those in which every node has enough nodes before it, then
    the parents of every node uniformly among the nodes before it.

    Examples
    --------
    >>> from nextpert.core.graph.random_dag import matched_random_dag
    >>> matched_random_dag([2, 0, 1], rng=0).in_degree.tolist()
    [2, 0, 1]
    """
    degree, generator = np.asarray(in_degree, dtype=np.int64), as_rng(rng)
    p = len(degree)
    if (degree < 0).any() or (np.sort(degree) > np.arange(p)).any():
        message = f"No acyclic graph has nodes with {np.sort(degree).tolist()} parents."
        raise ValueError(message)
    # A node with d parents stands at place d or later. Placed in falling order of d, each has
    # the same number of places to choose from whatever was chosen before, so orders are uniform.
    order = np.full(p, -1, dtype=np.int64)
    for node in np.argsort(-degree, kind="stable"):
        free = degree[node] + np.flatnonzero(order[degree[node] :] < 0)
        order[free[generator.integers(len(free))]] = node
    parents: list[list[int]] = [[] for _ in range(p)]
    for place, node in enumerate(order):
        if degree[node]:
            parents[node] = generator.permutation(order[:place])[: degree[node]].tolist()
    return Dag.from_parents(parents)
