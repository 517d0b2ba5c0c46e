"""Scores of families, random draws, and Markov equivalence classes for searches, compiled.

A set of nodes is a row of ``p`` booleans; the sets of all nodes form a matrix with row = child.

With R the correlation of some nodes in a given sequence, R = L L' and V = L^-1, the partial
correlation of the last node j and an earlier node i given all the others is
``-V[j, i] / sqrt(sum_{k >= i} V[k, i]^2)``, because V'V is the precision matrix. Each further node
adds a row of V, so that no test needs its own matrix inverse.

The score of a node v with d parents P is ``constant[d] - weight * log var(v | P)``, where every
node has unit variance. The BIC has this form, and so do tests: dropping a parent raises the score
if its partial correlation is not significant.

Graphs of an equivalence class have the same independences, so that the cells of one environment
cannot distinguish them, and the same score.
"""

from __future__ import annotations

from functools import cache
from itertools import islice
from math import exp, factorial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import fast, inner, lean
from nextpert.core.graph.dag import Dag, Pdag
from nextpert.core.search.prior_knowledge import PriorKnowledge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_S11, _S27, _S30, _S31, _S32 = (np.uint64(s) for s in (11, 27, 30, 31, 32))
# P(weight <= k) of a Poisson weight with mean 1; the probability of larger weights is below 1e-18.
_POISSON = np.cumsum([exp(-1.0) / factorial(k) for k in range(20)])


def rows_of(matrix: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a matrix of edges, row = parent, as sets, row = child, for compiled code."""
    return np.array(matrix.T, np.bool_, order="C")


@inner
def members(row, out):
    """Write the members of a set to ``out`` in ascending order; return their number."""
    count = np.int64(0)
    for node in range(row.shape[0]):
        if row[node]:
            out[count] = node
            count += 1
    return count


@inner
def mix(x):
    """Scramble 64 bits (the finaliser of splitmix64)."""
    x = (x ^ (x >> _S30)) * _MIX1
    x = (x ^ (x >> _S27)) * _MIX2
    return x ^ (x >> _S31)


@inner
def random_below(state, n):
    """Draw from ``0..n - 1`` (splitmix64); ``state`` is an array of one word."""
    state[0] += _GOLDEN
    return np.int64(((mix(state[0]) >> _S32) * np.uint64(n)) >> _S32)


def poisson_weights(seeds: NDArray[np.uint64], cells: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return how often each resample contains each cell, shape ``(n_seeds, n_cells)``.

    The weights are Poisson with mean 1. That of cell ``k`` comes from number ``k`` of the
    splitmix64 stream of the resample's seed, and so does not depend on the order or the blocks in
    which cells are read.
    """
    steps = (cells.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    uniform = (mix.py_func(seeds[:, None] + steps) >> _S11) * 2.0**-53
    return np.searchsorted(_POISSON, uniform, side="right").astype(np.uint8)


# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)


class Score(NamedTuple):
    """A decomposable score (see the docstring of this module) and prior knowledge as sets.

    ``required[i]`` and ``forbidden[i]`` are parents of ``i``; ``before[i]`` and ``after[i]`` are
    the nodes that must precede and follow ``i``.
    """

    matrix: NDArray[np.float64]  # (p, p), unit diagonal
    constant: NDArray[np.float64]  # (p + 1,) by number of parents
    weight: float
    required: NDArray[np.bool_]
    forbidden: NDArray[np.bool_]
    before: NDArray[np.bool_]
    after: NDArray[np.bool_]


class Scratch(NamedTuple):
    """Workspace: the factor V, the column sums of its squares, and its sequence of nodes."""

    factor: NDArray[np.float64]
    sums: NDArray[np.float64]
    sequence: NDArray[np.int64]

    @classmethod
    def empty(cls, p: int) -> Scratch:
        """Return the workspace for sequences of up to ``p`` nodes."""
        return cls(np.zeros((p, p)), np.zeros(p), np.zeros(p, np.int64))


@fast
def add_row(corr, sequence, m, factor, sums):
    """Add row ``m`` of V for node ``sequence[m]``; return its variance given earlier nodes."""
    node = sequence[m]
    new = factor[m]
    for i in range(m):
        new[i] = 0.0
    explained = 0.0
    # New row: (e_m - sum_k (v_k' r) v_k) divided by the root of the node's remaining variance.
    for k in range(m):
        row = factor[k]
        score = 0.0
        for i in range(k + 1):
            score += row[i] * corr[node, sequence[i]]
        explained += score * score
        for i in range(k + 1):
            new[i] += score * row[i]
    residual = 1.0 - explained
    scale = 1.0 / np.sqrt(residual)
    for i in range(m):
        new[i] *= -scale
        sums[i] += new[i] * new[i]
    new[m] = scale
    sums[m] = scale * scale
    return residual


@inner
def add_family(corr, row, child, scratch):
    """Build V for the parents in ``row``, then ``child``; return their number and its variance."""
    m = members(row, scratch.sequence)
    scratch.sequence[m] = child
    residual = 1.0
    for k in range(m + 1):
        residual = add_row(corr, scratch.sequence, k, scratch.factor, scratch.sums)
    return m, residual


@lean
def local_score(problem, row, child, scratch):
    """Return the score of a node with the parents in ``row``."""
    m, residual = add_family(problem.matrix, row, child, scratch)
    return problem.constant[m] - problem.weight * np.log(residual)


@inner
def shrink(problem, row, child, scratch):
    """Drop parents while this raises the score, the best first; return the score."""
    current = local_score(problem, row, child, scratch)
    while True:
        m = members(row, scratch.sequence)
        if m == 0:
            return current
        factor, sums, sequence = scratch.factor, scratch.sums, scratch.sequence
        # constant[d - 1] - constant[d] + weight log(1 - r^2): the gain of dropping a parent.
        best, position = 0.0, np.int64(-1)
        for i in range(m):
            # The squared partial correlation of child and parent given the other parents.
            squared = factor[m, i] * factor[m, i] / sums[i]
            gain = problem.constant[m - 1] - problem.constant[m]
            gain += problem.weight * np.log1p(-squared)
            if gain > best and not problem.required[child, sequence[i]]:
                best, position = gain, i
        if position < 0:
            return current
        row[sequence[position]] = False
        current = local_score(problem, row, child, scratch)


def total_score(problem: Score, parents: NDArray[np.bool_]) -> float:
    """Return the score of a graph from its parent sets, (p, p)."""
    scratch = Scratch.empty(len(parents))
    return float(sum(local_score(problem, row, i, scratch) for i, row in enumerate(parents)))


_MAX_SETS = 256  # maximum per edge; only edges with nine or more common neighbours have more
_MIN_GAIN = 1e-6  # more than rounding
CELLS, INTERVENTIONS, PRIOR, OPEN = "cells", "interventions", "prior knowledge", "open"


def backward(
    problem: Score,
    dag: Dag,
    prior: PriorKnowledge | None = None,
    n_context: int = 0,
) -> Dag:
    """Delete edges while this raises the score of the equivalence class, the best first.

    By theorem 17 of Chickering 2002 (JMLR 3), the edge x -> y or x - y is deleted, and the
    neighbours of y that are adjacent to x, except a clique T of them, become children of both.
    The score rises by ``s(y, T + parents(y) - x) - s(y, T + parents(y) + x)``. With prior
    knowledge, an edge is deleted only if a member of the new class agrees with it. Edges that the
    last ``n_context`` nodes orient keep their directions.
    """
    scratch, row = Scratch.empty(dag.n_nodes), np.zeros(dag.n_nodes, np.bool_)

    @cache
    def score(node: int, parents: frozenset[int]) -> float:
        row[:] = False
        row[list(parents)] = True
        return float(local_score(problem, row, node, scratch))

    while True:
        graph = Pdag.of_class(dag, n_context)
        deletions: list[tuple[float, int, int, set[int]]] = []
        for y in range(dag.n_nodes):
            parents, beside = graph.parents(y), graph.neighbours(y)
            # Any clique of the neighbours of y that are adjacent to x can be kept (theorem 17).
            for x in sorted(parents | beside):
                common = beside & graph.adjacent(x)
                for clique in islice(_cliques(graph, sorted(common)), _MAX_SETS):
                    base = frozenset(clique | parents) - {x}
                    gain = score(y, base) - score(y, base | {x})
                    if gain > _MIN_GAIN:
                        deletions.append((gain, x, y, common - clique))
        deletions.sort(key=lambda deletion: -deletion[0])
        # The best deletion that the prior knowledge allows.
        thinned = (_without(graph, x, y, freed, prior) for _, x, y, freed in deletions)
        best = next((thinner for thinner in thinned if thinner is not None), None)
        if best is None:
            return dag
        dag = best


def _without(
    graph: Pdag, x: int, y: int, freed: set[int], prior: PriorKnowledge | None
) -> Dag | None:
    """Return a graph of the class after a deletion; None if all contradict the prior knowledge."""
    # A required edge is kept, whatever its direction in the graph.
    if prior is not None and (prior.required[x, y] or prior.required[y, x]):
        return None
    thinner = Pdag(graph.edges.copy())
    thinner.edges[x, y] = thinner.edges[y, x] = False
    for node in freed:
        # y -> node, and x -> node if x - node.
        thinner.edges[node, y] = False
        thinner.edges[node, x] &= not thinner.edges[x, node]
    return thinner.to_dag() if prior is None else thinner.to_dag(prior.before, prior.forbidden)


def _cliques(graph: Pdag, nodes: list[int]) -> Iterator[set[int]]:
    """Yield all cliques among some nodes, the empty set last."""
    for m, node in enumerate(nodes):
        joined = graph.adjacent(node)
        for clique in _cliques(graph, [other for other in nodes[m + 1 :] if other in joined]):
            yield clique | {node}
    yield set()


def oriented_by(
    dag: Dag,
    context_edges: NDArray[np.bool_] | None = None,
    prior: PriorKnowledge | None = None,
) -> list[tuple[int, int, str]]:
    """Return every edge ``(parent, child)`` with the source of its orientation.

    ``"cells"``: all graphs of its Markov equivalence class agree on the direction, so that the
    cells of one environment determine it. ``"interventions"``: all members with the same edges from
    context nodes (``context_edges``, shape ``(n_context, n_nodes)``) agree. ``"prior knowledge"``:
    all members that agree with the prior knowledge agree. ``"open"``: a graph with the same score
    has the opposite edge.
    """
    p = dag.n_nodes
    # alone: the class without context nodes; graph: the class with them.
    graph = alone = Pdag.of_class(dag)
    n_context = 0 if context_edges is None else len(context_edges)
    knowledge = PriorKnowledge(p) if prior is None else prior
    if context_edges is not None and n_context:
        joint = np.zeros((p + n_context, p + n_context), np.bool_)
        joint[:p, :p] = dag.to_matrix().toarray() != 0
        joint[p:, :p] = context_edges
        graph = Pdag.of_class(Dag.from_matrix(joint), n_context)
        knowledge = knowledge.with_context(n_context)
    out = []
    for x, y in dag.edges():
        if not alone.edges[y, x]:
            how = CELLS
        elif not graph.edges[y, x]:
            how = INTERVENTIONS
        else:  # open if prior knowledge allows a member in which y precedes x
            turned = knowledge.before.copy()
            turned[y, x] = True
            can_turn = prior is None or graph.to_dag(turned, knowledge.forbidden) is not None
            how = OPEN if can_turn else PRIOR
        out.append((x, y, how))
    return out
