"""Markov equivalence classes in a search: the best member, classes with an edge less, open edges.

Graphs of a class have the same independences, so that the cells of one environment cannot tell
them apart, and scores are the same for all but for log-odds of single edges.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.graph._equivalence import Pdag
from nextpert.core.graph.dag import Dag
from nextpert.core.search._family import Scratch, local_score
from nextpert.core.search.prior_knowledge import PriorKnowledge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from nextpert.core.search._family import Score

    Arcs = set[tuple[int, int]]

_MOST_SETS = 256  # looked at an edge; more only where it has nine common neighbours or more
_LEAST_GAIN = 1e-6  # more than rounding
CELLS, INTERVENTIONS, PRIOR, OPEN = "cells", "interventions", "prior knowledge", "open"


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


def backward(
    problem: Score,
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


def settled_by(
    dag: Dag,
    exogenous_arcs: NDArray[np.bool_] | None = None,
    prior: PriorKnowledge | None = None,
) -> list[tuple[int, int, str]]:
    """Return every arc ``(parent, child)`` with what settled its direction.

    ``"cells"``: all graphs of its Markov equivalence class agree, as the independences of cells
    of one environment tell. ``"interventions"``: all those agree that have the same arcs from
    what the experiment set (``exogenous_arcs``, shape ``(n_exogenous, n_nodes)``). ``"prior
    knowledge"``: all those agree that agree with it. ``"open"``: a graph that fits equally well
    has the arc the other way.
    """
    p = dag.n_nodes
    graph = alone = Pdag.of_class(dag)
    n_exogenous = 0 if exogenous_arcs is None else len(exogenous_arcs)
    known = PriorKnowledge(p) if prior is None else prior
    if exogenous_arcs is not None and n_exogenous:
        joint = np.zeros((p + n_exogenous, p + n_exogenous), np.bool_)
        joint[:p, :p] = dag.to_matrix().toarray() != 0
        joint[p:, :p] = exogenous_arcs
        graph = Pdag.of_class(Dag.from_matrix(joint), n_exogenous)
        known = known.with_exogenous(n_exogenous)
    out = []
    for x, y in dag.edges():
        if x in alone.parents[y]:
            how = CELLS
        elif x in graph.parents[y]:
            how = INTERVENTIONS
        else:
            how = OPEN if prior is None or _can_turn(graph, x, y, known) else PRIOR
        out.append((x, y, how))
    return out


def _can_turn(graph: Pdag, x: int, y: int, prior: PriorKnowledge) -> bool:
    """Whether a member that agrees has y -> x: one that agrees when y must stand before x."""
    before = prior.before.copy()
    before[y, x] = True
    return agreeing_dag(graph, before, prior.forbidden) is not None
