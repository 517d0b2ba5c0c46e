"""The graph of a Markov equivalence class whose arcs have the highest log-odds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextpert.core.graph._equivalence import Pdag
from nextpert.core.graph.dag import Dag

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nextpert.core.search.prior_knowledge import PriorKnowledge

    Arcs = set[tuple[int, int]]

_LEAST_GAIN = 1e-6


def best_member(
    dag: Dag,
    log_odds: NDArray[np.float64],
    prior: PriorKnowledge | None = None,
    n_exogenous: int = 0,
) -> Dag:
    """Return the best found of the graphs that cells cannot tell from one another.

    Single moves of a node cannot turn a chain round where the first step gains nothing, so each
    part of the class that is undirected is directed anew, from each node as a root that may
    matter, and then improved by turning single arcs: exact for trees. ``log_odds`` has a row a
    child. A graph at odds with the prior knowledge is passed over.
    """
    graph = Pdag.of_class(dag, n_exogenous)
    for part in _parts(graph):
        pairs = {(x, y) for y in part for x in graph.neighbours[y]}
        roots = sorted({x for x, y in pairs if log_odds[x, y] != log_odds[y, x]})
        now = {arc for arc in dag.edges() if arc in pairs}
        found = [_turn_arcs(_directed(graph, root, log_odds), log_odds) for root in roots]
        for arcs in sorted(found, key=lambda arcs: -_worth(arcs, log_odds)):
            if _worth(arcs, log_odds) <= _worth(now, log_odds) + _LEAST_GAIN:
                break
            other = Dag.from_edges(dag.n_nodes, sorted((set(dag.edges()) - now) | arcs))
            if prior is None or prior.allows(other):
                dag = other
                break
    return dag


def _worth(arcs: Arcs, log_odds: NDArray[np.float64]) -> float:
    return float(sum(log_odds[y, x] for x, y in sorted(arcs)))


def _parts(graph: Pdag) -> list[list[int]]:
    """Return the nodes of each part that is joined by undirected arcs."""
    seen: set[int] = set()
    parts = []
    for start in range(graph.n_nodes):
        if start in seen or not graph.neighbours[start]:
            continue
        seen.add(start)
        part = [start]
        for node in part:
            fresh = sorted(graph.neighbours[node] - seen)
            seen.update(fresh)
            part += fresh
        parts.append(sorted(part))
    return parts


def _directed(graph: Pdag, root: int, log_odds: NDArray[np.float64]) -> Arcs:
    """Direct a part from a root on, without colliders, by maximum cardinality search.

    The next node is one with the most neighbours behind it; of these, the one whose arcs from them
    are worth the most, over the same arcs turned round.
    """
    arcs: Arcs = set()
    above: dict[int, set[int]] = {root: set()}
    done: set[int] = set()
    while above:
        node = max(
            sorted(above),
            key=lambda v: (len(above[v]), sum(log_odds[v, u] - log_odds[u, v] for u in above[v])),
        )
        behind = above.pop(node)
        arcs |= {(u, node) for u in behind}
        done.add(node)
        for beside in graph.neighbours[node] - done:
            above.setdefault(beside, set()).add(node)
    return arcs


def _turn_arcs(arcs: Arcs, log_odds: NDArray[np.float64]) -> Arcs:
    """Turn arcs round while that gains, the best first: those whose ends have the same parents."""
    parents: dict[int, set[int]] = {node: set() for arc in arcs for node in arc}
    for x, y in arcs:
        parents[y].add(x)
    while True:
        gains = [
            (log_odds[x, y] - log_odds[y, x], x, y)
            for y, above in parents.items()
            for x in above
            if above == parents[x] | {x}
        ]
        gain, x, y = max(gains)
        if gain <= _LEAST_GAIN:
            return {(k, node) for node, above in parents.items() for k in above}
        parents[y].discard(x)
        parents[x].add(y)
