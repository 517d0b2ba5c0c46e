"""Wrong graphs: a graph with some arcs missing, added or turned round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng, require_count
from nextpert.core.graph.dag import Dag

if TYPE_CHECKING:
    Arc = tuple[int, int]


def perturb_dag(
    dag: Dag,
    *,
    n_missing: int = 0,
    n_extra: int = 0,
    n_reversed: int = 0,
    rng: int | np.random.Generator | None = None,
) -> Dag:
    """Return a graph at a given structural Hamming distance: a misspecified model's graph.

    The three kinds of change touch different pairs of nodes, so that the distance (see
    :func:`shd`) is their sum; the result has no cycle. For the misspecified graphs of Zhang et al.
    2023 (doi:10.1038/s42256-023-00719-0).

    Parameters
    ----------
    dag
        The graph.
    n_missing
        Number of arcs to take away.
    n_extra
        Number of arcs to add, between nodes that have none.
    n_reversed
        Number of arcs to turn round.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        For more changes than there are arcs, or pairs without one.

    Examples
    --------
    >>> from nextpert.core import perturb_dag, random_dag, shd
    >>> dag = random_dag(10, rng=0)
    >>> shd(dag, perturb_dag(dag, n_missing=2, n_extra=3, n_reversed=1, rng=0))
    6
    """
    generator, p = as_rng(rng), dag.n_nodes
    missing = require_count(n_missing, "n_missing", least=0)
    extra = require_count(n_extra, "n_extra", least=0)
    turned = require_count(n_reversed, "n_reversed", least=0)
    free = p * (p - 1) // 2 - dag.n_edges
    if missing + turned > dag.n_edges:
        message = f"Of {dag.n_edges} arcs, {missing} cannot be missing and {turned} reversed."
        raise ValueError(message)
    if extra > free:
        message = f"n_extra is {extra}, but only {free} pairs of nodes have no arc."
        raise ValueError(message)
    arcs = [dag.edges()[i] for i in generator.permutation(dag.n_edges)]
    linked = {frozenset(arc) for arc in arcs}
    fixed, children = arcs[missing:], _children(p, arcs[missing:])
    for _ in range(turned):
        # The shortest arc of a topological order can be turned, so that one is always found.
        place = next(i for i, arc in enumerate(fixed) if not _path(children, *arc, direct=False))
        parent, child = fixed.pop(place)
        children[parent].remove(child)
        children[child].add(parent)
    rows, cols = np.tril_indices(p, -1)
    for i in generator.permutation(len(rows)):
        if extra == 0:
            break
        pair = (int(rows[i]), int(cols[i]))
        if frozenset(pair) in linked:
            continue
        parent, child = pair if generator.random() < 0.5 else pair[::-1]
        if _path(children, child, parent):
            parent, child = child, parent
        children[parent].add(child)
        extra -= 1
    return Dag.from_edges(p, [(k, i) for k in range(p) for i in children[k]])


def _children(p: int, arcs: list[Arc]) -> list[set[int]]:
    children: list[set[int]] = [set() for _ in range(p)]
    for parent, child in arcs:
        children[parent].add(child)
    return children


def _path(children: list[set[int]], start: int, end: int, *, direct: bool = True) -> bool:
    """Whether a directed path leads from ``start`` to ``end``; its arc itself counts if direct."""
    waiting = [k for k in children[start] if direct or k != end]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node == end:
            return True
        fresh = children[node] - seen
        seen |= fresh
        waiting += fresh
    return False
