"""The compiled parts of GSP: drawing sparse orders, and the search over covered edges.

An edge a -> b is covered when the parents of b are those of a and a itself. Turned round, the new
minimal I-map can lose edges from the shared parents P only: k -> b where b and k are independent
given P without k, and k -> a where a and k are independent given b and P without k.

Hashes of 64 bits of the graphs that a run has been at are kept in a direct mapped table: a newer
one takes the slot of an older one, which costs time but changes no result. With the 10^6 graphs of
a long run, the chance that any two of them collide is below 10^-7.
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
    mix,
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


@fast
def _dependent(row, diagonal, n, limit):
    """Count the nodes but one whose partial correlation with that of the row is significant."""
    count = np.int64(-1)
    for b in range(n):
        count += np.int64(row[b] * row[b] > limit * diagonal[b])
    return count


@fast
def _marginalise(work, last):
    """Take the last node out of the precision matrix K: a Schur complement, ``K - k k' / k_vv``."""
    pivot = work[last]
    for a in range(last):
        row, step = work[a], pivot[a] / pivot[last]
        for b in range(last):
            row[b] -= step * pivot[b]


@lean
def _eliminate(elimination, slack, random, work, counts, order, parents):
    """Draw an order as :func:`sparse_order`, whose results it fills in; return its edges.

    ``work``, (p + 1, p), holds the precision matrix of the nodes left, in the sequence in which
    they stand in ``order``, and has room for its diagonal.
    """
    p, words = parents.shape
    diagonal, degree, waits = work[p], counts[0], counts[1]
    if slack < 0:
        slack = random_below(random, N_SLACKS)
    for i in range(p):
        for w in range(words):
            waits[i] += popcount(elimination.after[i, w])
    n_edges = np.int64(0)
    for last in range(p - 1, -1, -1):
        bound, least, ties = elimination.threshold[max(last - 1, 0)], p, np.int64(0)
        for a in range(last + 1):
            diagonal[a] = work[a, a]
        for a in range(last + 1):
            degree[a] = p
            if waits[order[a]] == 0:
                # Partial correlations given all that are left are -K_ab / sqrt(K_aa K_bb).
                degree[a] = _dependent(work[a], diagonal, last + 1, bound * diagonal[a])
            least = min(least, degree[a])
        most = min(least + slack, p - 1)
        for a in range(last + 1):
            ties += np.int64(degree[a] <= most)
        wanted, chosen = random_below(random, ties), -1
        while wanted >= 0:
            chosen += 1
            wanted -= np.int64(degree[chosen] <= most)
        n_edges += degree[chosen]
        node = order[chosen]
        order[chosen], order[last] = order[last], node
        for b in range(last + 1):
            work[chosen, b], work[last, b] = work[last, b], work[chosen, b]
        for b in range(last + 1):
            work[b, chosen], work[b, last] = work[b, last], work[b, chosen]
        for b in range(last):
            if work[last, b] ** 2 > bound * work[last, last] * work[b, b]:
                flip(parents[node], order[b])
            waits[order[b]] -= np.int64(has(elimination.after[order[b]], node))
        _marginalise(work, last)
    return n_edges


def sparse_order(
    elimination: Elimination, slack: int, random: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.uint64], int]:
    """Draw a permutation by minimum-degree elimination, last node first; return it and its edges.

    The degree of a node is its number of dependent nodes given all that are left; these become
    its parents (bit sets), so that they are the minimal I-map of the order. Once a node is
    gone, the precision matrix of the rest follows by one step of elimination and is tested anew,
    which finds far sparser orders than filling in a graph. One of the nodes within ``slack`` of the
    least degree is taken at random (a slack below 0 is drawn too). A node waits for those that must
    stand after it. Returned last is the number of edges.
    """
    p = len(elimination.precision)
    work, counts = np.vstack([elimination.precision, np.zeros(p)]), np.zeros((2, p), np.int64)
    order, parents = np.arange(p), np.zeros_like(elimination.after)
    count = _eliminate(elimination, slack, random, work, counts, order, parents)
    return order, parents, count


class Space(NamedTuple):
    """The graph of a run, and where it has been."""

    threshold: NDArray[np.float64]  # as in Elimination
    parents: NDArray[np.uint64]  # (p, words)
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
            sets=np.zeros((3, words), np.uint64),
            turns=np.zeros((depth + 1, p, 2), np.int64),
            above=np.zeros(p, np.int64),
            visited=np.zeros(_SLOTS, np.uint64),
            visited_left=np.zeros(_SLOTS, np.int64),
        )


@inner
def _turn(space, a, b):
    """Turn a -> b round."""
    flip(space.parents[b], a)
    flip(space.parents[a], b)


@inner
def _known(space, left):
    """Whether the graph was visited with as many turns left; note that it is now."""
    whole = np.uint64(1)  # 0 is an empty slot
    for i in range(space.parents.shape[0]):
        for w in range(space.parents.shape[1]):
            whole = mix(whole + space.parents[i, w])
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
def _may_turn(problem, space, a, b):
    """Whether b -> a agrees with what is known before: no path leads from a to b but a -> b."""
    if has(problem.before[b], a) or has(problem.forbidden[a], b):
        return False
    seen, grown = space.sets[2], True
    for w in range(seen.shape[0]):
        seen[w] = space.parents[b, w] | problem.before[b, w]
    flip(seen, a)
    while grown and not has(seen, a):
        grown = False
        for node in range(space.parents.shape[0]):
            for w in range(seen.shape[0] if has(seen, node) else 0):
                above = space.parents[node, w] | problem.before[node, w]
                grown |= above & ~seen[w] != np.uint64(0)
                seen[w] |= above
    return not has(seen, a)


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
            if bound and not _may_turn(problem, space, a, b):
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
                flip(space.parents[a if side == 1 else b], scratch.sequence[k])
        _turn(space, a, b)
        return True
    if left == 0:
        return False
    while n_turns > 0:
        chosen = random_below(random, n_turns)
        n_turns -= 1
        a, b = turns[chosen, 0], turns[chosen, 1]
        turns[chosen, 0], turns[chosen, 1] = turns[n_turns, 0], turns[n_turns, 1]
        _turn(space, a, b)
        if not _known(space, left - 1) and _lose_edges(
            problem, scratch, space, left - 1, random, bound
        ):
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
        _known(space, left)
        if not _lose_edges(problem, scratch, space, left, random, bound):
            break
