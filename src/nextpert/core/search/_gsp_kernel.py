"""The compiled parts of GSP: drawing sparse orders, and the search over covered edges.

An edge a -> b is covered if the parents of b are a and the parents of a. If it is reversed, the
minimal I-map can only lose edges from the shared parents P: k -> b if b and k are independent
given P without k, and k -> a if a and k are independent given b and P without k.

Graphs that a run reaches without losing an edge differ only in directions. Each has a hash, the
exclusive or of a word for every reversed edge. Recently visited graphs are stored in a table in
which a newer hash can replace an older one, which costs time but does not change the result. Among
the 10^6 graphs of a long run, the probability of any hash collision is below 10^-7.
"""

# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import entry, fast, inner, lean
from nextpert.core.search._classes import (
    Scratch,
    add_family,
    add_row,
    mix,
    random_below,
    shrink,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SLOTS = 1 << 16  # a power of two
N_SLACKS = 4  # randomised orders choose among nodes within 0..3 of the minimum degree


@fast
def _degree(row, diagonal, bound):
    """Count the nodes that a node depends on, itself included: ``K_ab^2 > bound K_aa K_bb``."""
    count = np.int64(0)
    for b in range(row.shape[0]):
        count += np.int64(row[b] * row[b] > bound * diagonal[b])
    return count


@fast
def _subtract(row, pivot, step):
    for b in range(row.shape[0]):
        row[b] -= step * pivot[b]


def sparse_order(precision, threshold, after, slack, random):
    """Draw a permutation by minimum-degree elimination, last node first; return its parents too.

    The degree of a node is the number of nodes that depend on it given all other remaining nodes
    (squared partial correlation above ``threshold``). These nodes become its parents, so that the
    result, with row = child, is the minimal I-map of the order. After a node is removed, one step
    of elimination gives the precision matrix of the rest, which is tested again; this finds far
    sparser orders than adding edges to a graph. The removed node is drawn from those within
    ``slack`` of the minimum degree (a negative ``slack`` is drawn as well). Nodes that must come
    ``after`` a node are removed before it.
    """
    p = len(precision)
    order, parents = np.empty(p, np.int64), np.zeros((p, p), np.bool_)
    # Arrays are created here, because compiled code that creates none compiles faster.
    work, diagonal = precision.copy(), precision.diagonal().copy()
    numbers = np.vstack([np.arange(p), np.zeros(p, np.int64), after.sum(axis=1, dtype=np.int64)])
    _eliminate(work, diagonal, numbers, threshold, after, slack, random, order, parents)
    return order, parents


@lean
def _eliminate(work, diagonal, numbers, threshold, after, slack, random, order, parents):
    """Fill an order and its parents by elimination, as in :func:`sparse_order`.

    ``numbers``, shape ``(3, p)``, has the remaining nodes, their degrees, and the number of nodes
    that each waits for.
    """
    p = len(order)
    remaining, degree, waits = numbers[0], numbers[1], numbers[2]
    if slack < 0:
        slack = random_below(random, N_SLACKS)
    for n in range(p, 0, -1):
        bound, min_degree = threshold[max(n - 2, 0)], 2 * p
        for a in range(n):
            node = remaining[a]
            degree[a] = _degree(work[node], diagonal, bound * diagonal[node])
            if waits[node] > 0:
                degree[a] = 2 * p + N_SLACKS
            min_degree = min(min_degree, degree[a])
        # One of the nodes within slack of the minimum degree, with equal probability.
        ties, chosen = np.int64(0), np.int64(-1)
        for a in range(n):
            ties += np.int64(degree[a] <= min_degree + slack)
        drawn = random_below(random, ties)
        while drawn >= 0:
            chosen += 1
            drawn -= np.int64(degree[chosen] <= min_degree + slack)
        node = remaining[chosen]
        order[n - 1] = node
        remaining[chosen] = remaining[n - 1]
        # Partial correlations given all remaining nodes are -K_ab / sqrt(K_aa K_bb).
        pivot, limit = work[node], bound * diagonal[node]
        for b in range(p):
            parents[node, b] = b != node and pivot[b] * pivot[b] > limit * diagonal[b]
            waits[b] -= np.int64(after[b, node])
        # The precision matrix of the rest is the Schur complement K - k k' / k_vv.
        diagonal[node] = np.inf
        for a in range(n - 1):
            other = remaining[a]
            _subtract(work[other], pivot, work[other, node] / pivot[node])
            diagonal[other] = work[other, other]


class Space(NamedTuple):
    """The current graph of a run, and the graphs it has visited."""

    parents: NDArray[np.bool_]  # (p, p), row = child
    threshold: NDArray[np.float64]  # significant squared partial correlation, by number of given
    lost: NDArray[np.bool_]  # (2, p) parents that b and a lose if a -> b is reversed
    turns: NDArray[np.int64]  # (depth + 1, p, 2) edges that can be reversed, by reversals left
    visited: NDArray[np.uint64]  # hashes of graphs
    visited_left: NDArray[np.int64]  # the number of reversals left at each visit


@inner
def _last_parent(parents, b):
    """Return the node a of the covered edge a -> b, or -1 if no edge into b is covered."""
    for a in range(parents.shape[0]):
        if parents[b, a]:
            is_covered = True
            for k in range(parents.shape[0]):
                if parents[a, k] != (parents[b, k] and k != a):
                    is_covered = False
                    break
            if is_covered:
                return a
    return -1


@inner
def falling(problem, scratch, space, a, b):
    """Count the edges lost if a -> b is reversed; fill ``lost`` for edges into b, then into a."""
    sequence, factor, sums = scratch.sequence, scratch.factor, scratch.sums
    # V of the shared parents P, then b, and for the second side a: tests given all others.
    m, _ = add_family(problem.matrix, space.parents[a], b, scratch)
    count = np.int64(0)
    for side in range(2):
        if side == 1:
            sequence[m + 1] = a
            add_row(problem.matrix, sequence, m + 1, factor, sums)
        r = m + side
        child = sequence[r]
        space.lost[side] = False
        for i in range(m):
            # V_ri^2 / sum_k V_ki^2 is the squared partial correlation of parent and child.
            dependent = factor[r, i] ** 2 > space.threshold[r - 1] * sums[i]
            if not dependent and not problem.required[child, sequence[i]]:
                space.lost[side, sequence[i]] = True
                count += 1
    return count


@inner
def _may_turn(problem, parents, stack, a, b):
    """Return whether b -> a agrees with prior knowledge: no other path leads from a to b."""
    if problem.before[b, a] or problem.forbidden[a, b]:
        return False
    visited = np.zeros(parents.shape[0], np.bool_)
    # Depth first from b upwards, along edges and known orders, except a -> b itself.
    stack[0], top = b, 1
    while top > 0 and not visited[a]:
        top -= 1
        node = stack[top]
        for k in range(parents.shape[0]):
            above = parents[node, k] or problem.before[node, k]
            if above and not visited[k] and not (node == b and k == a):
                visited[k] = True
                stack[top] = k
                top += 1
    return not visited[a]


@inner
def _turn(parents, a, b):
    """Reverse a -> b."""
    parents[b, a], parents[a, b] = False, True


@inner
def _lose_edges(problem, scratch, space, name, n_turns_left, random, bound):
    """Reverse up to ``n_turns_left`` covered edges until one loses an edge; return whether it does.

    ``name`` is the hash of the graph, which is restored if no reversal loses an edge.
    """
    slot, p = np.int64(name & np.uint64(_SLOTS - 1)), space.parents.shape[0]
    if space.visited[slot] == name and space.visited_left[slot] >= n_turns_left:
        return False
    space.visited[slot], space.visited_left[slot] = name, n_turns_left
    turns, n_turns, max_lost, ties, best = space.turns[n_turns_left], 0, 1, 0, -1
    for b in range(p):
        a = _last_parent(space.parents, b)
        if a < 0 or (bound and not _may_turn(problem, space.parents, scratch.sequence, a, b)):
            continue
        count = falling(problem, scratch, space, a, b)
        # The reversal that loses the most edges; ties are broken at random.
        if count >= max_lost:
            ties = ties + 1 if count == max_lost else 1
            max_lost = count
            if random_below(random, ties) == 0:
                best = n_turns
        turns[n_turns, 0], turns[n_turns, 1] = a, b
        n_turns += 1
    if best >= 0:
        a, b = turns[best, 0], turns[best, 1]
        falling(problem, scratch, space, a, b)
        for k in range(p):
            space.parents[b, k] &= not space.lost[0, k]
            space.parents[a, k] &= not space.lost[1, k]
        _turn(space.parents, a, b)
        return True
    # No reversal loses an edge: reverse one at random and search from there.
    while n_turns_left > 0 and n_turns > 0:
        chosen = random_below(random, n_turns)
        n_turns -= 1
        a, b = turns[chosen, 0], turns[chosen, 1]
        turns[chosen, 0], turns[chosen, 1] = turns[n_turns, 0], turns[n_turns, 1]
        _turn(space.parents, a, b)
        other = name ^ mix(np.uint64(a * p + b)) ^ mix(np.uint64(b * p + a))
        if _lose_edges(problem, scratch, space, other, n_turns_left - 1, random, bound):
            return True
        _turn(space.parents, b, a)
    return False


@entry
def descend(problem, threshold, parents, depth, random, bound):
    """Drop parents that are not significant, and reverse edges until no more edges are lost.

    ``bound`` says whether there is prior knowledge that reversals may contradict.
    """
    p = parents.shape[0]
    scratch = Scratch(np.zeros((p, p)), np.zeros(p), np.zeros(p, np.int64))
    space = Space(
        parents,
        threshold,
        np.zeros((2, p), np.bool_),
        np.zeros((depth + 1, p, 2), np.int64),
        np.zeros(_SLOTS, np.uint64),
        np.zeros(_SLOTS, np.int64),
    )
    # First drop parents that are not significant given the others.
    for i in range(p):
        shrink(problem, parents[i], i, scratch)
    # Smaller numbers are the words of edges.
    graph = np.uint64(p * p)
    while _lose_edges(problem, scratch, space, mix(graph), depth, random, bound):
        graph += np.uint64(1)
