"""The compiled parts of GSP: drawing sparse orders, and the search over covered edges.

An edge a -> b is covered when the parents of b are those of a and a itself. Turned round, the new
minimal I-map can lose edges from the shared parents P only: k -> b where b and k are independent
given P without k, and k -> a where a and k are independent given b and P without k.

Every edge has a random word of 64 bits; a graph's hash is the exclusive or of those of its edges.
Graphs that a run has been at are kept in a direct mapped table: a newer one takes the slot of an
older one, which costs time but changes no result. With the 10^6 graphs of a long run, the chance
that any two of them collide is below 10^-7.
"""

# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import fast, inner, lean
from nextpert.core.search._classes import (
    add_family,
    add_row,
    flip,
    has,
    members,
    popcount,
    random_below,
    shrink,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SLOTS = 1 << 16  # a power of two; a newer graph of the same slot takes it
N_SLACKS = 4  # randomised orders take nodes of up to 0..3 more than the least degree


class Elimination(NamedTuple):
    """What a sparse order is drawn from."""

    precision: NDArray[np.float64]  # (p, p)
    threshold: NDArray[np.float64]  # squared partial correlations that are significant, by given
    after: NDArray[np.uint64]  # (p, words) the nodes that must stand after each


class Room(NamedTuple):
    """Arrays used to sample an order."""

    matrix: NDArray[np.float64]  # (p, p) precision of the nodes left, the lower triangle
    pivot: NDArray[np.float64]  # (p,) its row of the node that is taken out
    inverse: NDArray[np.float64]  # (p,) of its diagonal
    left: NDArray[np.int64]  # (p,) the nodes of its rows
    degree: NDArray[np.int64]  # (p,) how many others each depends on
    remaining: NDArray[np.uint64]  # (words,) the nodes left, as a set

    @classmethod
    def empty(cls, p: int, words: int) -> Room:
        """Return room for ``p`` nodes."""
        counts = np.zeros((2, p), np.int64)
        numbers, remaining = np.zeros((2, p)), np.zeros(words, np.uint64)
        return cls(np.zeros((p, p)), numbers[0], numbers[1], counts[0], counts[1], remaining)


@fast
def _marginalise(room, n, scale, bound):
    """Take the pivot out of the precision matrix of the ``n`` others, and test all of their pairs.

    A Schur complement: ``K - k k' / k_vv``. Partial correlations given all that are left are
    ``-K_ab / sqrt(K_aa K_bb)``; the degree of a node is the number of those above the bound.
    """
    work, pivot, inverse, degree = room.matrix, room.pivot, room.inverse, room.degree
    for a in range(n):
        work[a, a] -= pivot[a] * pivot[a] * scale
        inverse[a] = 1.0 / work[a, a]
        degree[a] = 0
    for a in range(n):
        row = work[a]
        step = pivot[a] * scale
        limit = bound * row[a]
        count = 0
        for b in range(a):
            row[b] -= step * pivot[b]
            dependent = np.int64(row[b] * row[b] * inverse[b] > limit)
            degree[b] += dependent
            count += dependent
        degree[a] += count


@lean
def sparse_order(elimination, slack, random, room, order, parents):
    """Draw a permutation by minimum-degree elimination, last node first; return its edges.

    The degree of a node is its number of dependent nodes given all that are left; these become
    its ``parents`` (bit sets), so that they are the minimal I-map of the order. Once a node is
    gone, the precision matrix of the rest follows by one step of elimination and is tested anew,
    which finds far sparser orders than filling in a graph. One of the nodes within ``slack`` of the
    least degree is taken at random (a slack below 0 is drawn too). A node waits for those that must
    stand after it.
    """
    p, words = parents.shape
    work, pivot, left, degree = room.matrix, room.pivot, room.left, room.degree
    if slack < 0:
        slack = random_below(random, N_SLACKS)
    for w in range(words):
        room.remaining[w] = np.uint64(0)
    for i in range(p):
        left[i], pivot[i] = i, 0.0
        flip(room.remaining, i)
        for j in range(i + 1):
            work[i, j] = elimination.precision[i, j]
    n_edges, scale = 0, 0.0
    for n in range(p, 0, -1):
        bound = elimination.threshold[n - 2 if n > 1 else 0]
        _marginalise(room, n, scale, bound)
        least, ties = np.int64(-1), np.int64(0)
        for a in range(n):
            for w in range(words):
                if elimination.after[left[a], w] & room.remaining[w] != np.uint64(0):
                    degree[a] = -1
            if degree[a] >= 0 and (least < 0 or degree[a] < least):
                least = degree[a]
        for a in range(n):
            ties += np.int64(0 <= degree[a] <= least + slack)
        wanted, chosen = random_below(random, ties), -1
        while wanted >= 0:
            chosen += 1
            wanted -= np.int64(0 <= degree[chosen] <= least + slack)
        node, last = left[chosen], n - 1
        n_edges += degree[chosen]
        order[last] = node
        flip(room.remaining, node)
        # Its row becomes the pivot, and the last node takes its place.
        scale = 1.0 / work[chosen, chosen]
        for b in range(chosen):
            pivot[b] = work[chosen, b]
            work[chosen, b] = work[last, b]
        for b in range(chosen + 1, last):
            pivot[b] = work[b, chosen]
            work[b, chosen] = work[last, b]
        if chosen < last:
            pivot[chosen] = work[last, chosen]
            work[chosen, chosen] = work[last, last]
        left[chosen] = left[last]
        for w in range(words):
            parents[node, w] = np.uint64(0)
        for b in range(last):
            if pivot[b] * pivot[b] * scale > bound * work[b, b]:
                flip(parents[node], left[b])
    return n_edges


class Space(NamedTuple):
    """The graph of a run, and where it has been."""

    threshold: NDArray[np.float64]  # as in Elimination
    parents: NDArray[np.uint64]  # (p, words)
    word: NDArray[np.uint64]  # (p, p) of every edge, row = child
    whole: NDArray[np.uint64]  # (1,) hash of the graph
    sets: NDArray[np.uint64]  # (3, words) parents that b and a lose; nodes above b
    turns: NDArray[np.int64]  # (depth + 1, p, 2) edges that may be turned, by turns that are left
    above: NDArray[np.int64]  # (p,) scratch
    visited: NDArray[np.uint64]  # hashes of graphs
    visited_left: NDArray[np.int64]  # and the turns that were left there

    @classmethod
    def of(cls, threshold: NDArray[np.float64], parents: NDArray[np.uint64], depth: int) -> Space:
        """Return the space for a run from some parents, as bit sets."""
        p, words = parents.shape
        return cls(
            threshold=threshold,
            parents=parents.copy(),
            word=np.random.default_rng(0).integers(1, 2**64, (p, p), dtype=np.uint64),
            whole=np.ones(1, np.uint64),  # 0 is an empty slot
            sets=np.zeros((3, words), np.uint64),
            turns=np.zeros((depth + 1, p, 2), np.int64),
            above=np.zeros(p, np.int64),
            visited=np.zeros(_SLOTS, np.uint64),
            visited_left=np.zeros(_SLOTS, np.int64),
        )


@inner
def _flip_edge(space, parent, child):
    """Put an edge in or take it out, and bring the hash up to date."""
    flip(space.parents[child], parent)
    space.whole[0] ^= space.word[child, parent]


@inner
def _turn(space, a, b):
    """Turn a -> b round."""
    _flip_edge(space, a, b)
    _flip_edge(space, b, a)


@inner
def _known(space, whole, left):
    """Whether a graph was visited with as many turns left; note that it is now."""
    slot = np.int64(whole & np.uint64(_SLOTS - 1))
    if space.visited[slot] == whole and space.visited_left[slot] >= left:
        return True
    space.visited[slot], space.visited_left[slot] = whole, left
    return False


@inner
def _covered(space, a, b):
    """Whether the parents of b are those of a and a itself."""
    for w in range(space.parents.shape[1]):
        own = np.uint64(w == a >> 6) << (np.uint64(a) & np.uint64(63))
        if space.parents[a, w] | own != space.parents[b, w]:
            return False
    return True


@lean
def falling(problem, scratch, space, a, b):
    """Count the edges that fall when a -> b is turned; ``sets`` get those into b, then into a."""
    sequence, factor, sums = scratch.sequence, scratch.factor, scratch.sums
    m, _ = add_family(problem.matrix, space.parents[a], b, scratch)
    count = 0
    for side in range(2):
        if side == 1:
            sequence[m + 1] = a
            add_row(problem.matrix, sequence, m + 1, factor, sums)
        r = m + side
        child = sequence[r]
        for w in range(space.sets.shape[1]):
            space.sets[side, w] = np.uint64(0)
        for i in range(m):
            dependent = factor[r, i] ** 2 > space.threshold[r - 1] * sums[i]
            if not dependent and not has(problem.required[child], sequence[i]):
                flip(space.sets[side], sequence[i])
                count += 1
    return count


@inner
def _may_turn(problem, scratch, space, a, b):
    """Whether b -> a agrees with what is known before: no path leads from a to b but a -> b."""
    if has(problem.before[b], a) or has(problem.forbidden[a], b):
        return False
    seen, stack = space.sets[2], scratch.sequence
    for w in range(seen.shape[0]):
        seen[w] = np.uint64(0)
    node, top = b, np.int64(0)
    while True:
        for w in range(seen.shape[0]):
            above = (space.parents[node, w] | problem.before[node, w]) & ~seen[w]
            if node == b and w == a >> 6:
                above &= ~(np.uint64(1) << (np.uint64(a) & np.uint64(63)))
            seen[w] |= above
            while above != np.uint64(0):
                lowest = above & (~above + np.uint64(1))
                above ^= lowest
                stack[top] = w * 64 + popcount(lowest - np.uint64(1))
                top += 1
        if top == 0 or has(seen, a):
            return not has(seen, a)
        top -= 1
        node = stack[top]


@inner
def _list_turns(problem, scratch, space, turns, random, bound):
    """List the covered edges that may be turned; return how many, and the place of the best.

    The best drops the most edges (ties at random); -1 where none drops any.
    """
    n_turns, most, ties, best = np.int64(0), np.int64(0), np.int64(0), np.int64(-1)
    above = space.above
    for b in range(space.parents.shape[0]):
        for k in range(members(space.parents[b], above)):
            a = above[k]
            if not _covered(space, a, b):
                continue
            # No other covered edge points at b: a is the last of its parents.
            if bound and not _may_turn(problem, scratch, space, a, b):
                break
            count = falling(problem, scratch, space, a, b)
            turns[n_turns, 0], turns[n_turns, 1] = a, b
            if count > 0 and count >= most:
                ties = ties + 1 if count == most else 1
                most = count
                if random_below(random, ties) == 0:
                    best = n_turns
            n_turns += 1
            break
    return n_turns, best


@inner
def _lose_edges(problem, scratch, space, left, random, bound):
    """Turn covered edges, up to ``left`` that drop none and one that does; return whether it did.

    Where none does, the graph is at the end what it was.
    """
    turns = space.turns[left]
    n_turns, best = _list_turns(problem, scratch, space, turns, random, bound)
    if best >= 0:
        a, b = turns[best, 0], turns[best, 1]
        falling(problem, scratch, space, a, b)
        for side in range(2):
            for k in range(members(space.sets[side], scratch.sequence)):
                _flip_edge(space, scratch.sequence[k], a if side == 1 else b)
        _turn(space, a, b)
        return True
    if left == 0:
        return False
    while n_turns > 0:
        chosen = random_below(random, n_turns)
        n_turns -= 1
        a, b = turns[chosen, 0], turns[chosen, 1]
        turns[chosen, 0], turns[chosen, 1] = turns[n_turns, 0], turns[n_turns, 1]
        if _known(space, space.whole[0] ^ space.word[b, a] ^ space.word[a, b], left - 1):
            continue
        _turn(space, a, b)
        if _lose_edges(problem, scratch, space, left - 1, random, bound):
            return True
        _turn(space, b, a)
    return False


@lean
def descend(problem, scratch, space, random, bound):
    """Drop parents that are not significant, and turn edges until none more falls.

    ``bound`` says whether anything is known before that turns may contradict.
    """
    for i in range(space.parents.shape[0]):
        shrink(problem, space.parents[i], i, scratch)
    left = space.turns.shape[0] - 1
    while True:  # from every sparser graph on
        _known(space, space.whole[0], left)
        if not _lose_edges(problem, scratch, space, left, random, bound):
            break
