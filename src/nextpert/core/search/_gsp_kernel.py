"""The compiled parts of GSP: drawing sparse orders, and the search over covered edges.

An edge a -> b is covered when the parents of b are those of a and a itself. Turned round, the new
minimal I-map can lose edges from the shared parents P only: k -> b where b and k are independent
given P without k, and k -> a where a and k are independent given b and P without k. How many fall
depends on (a, b, P) alone, so the counts are kept in a table for all runs of a chunk.

The search from a graph goes over all graphs within ``depth`` turns of it, depth first, until a turn
drops edges. Whether one can be reached is therefore a property of the graph, and a graph from which
there was none is remembered: a later run that arrives there ends at once.

Every edge has a random word of 64 bits; a graph's hash is the exclusive or of those of its edges.
The tables are direct mapped: a newer entry takes the slot of an older one, which costs time but
changes no result. With the 10^6 graphs of a long search, the chance that any two of them collide is
below 10^-7.
"""

# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import entry, fast, inner
from nextpert.core.search._bits import flip, has, members, mix, popcount, random_below
from nextpert.core.search._family import add_family, add_row, shrink

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG_SLOTS = 16


class Elimination(NamedTuple):
    """What a sparse order is drawn from."""

    precision: NDArray[np.float64]  # (p, p)
    threshold: NDArray[np.float64]  # squared partial correlations that are significant, by given
    after: NDArray[np.uint64]  # (p, words) the nodes that must stand after each


@inner
def _take_out(work, n, chosen, pivot):
    """Copy the row of one of ``n`` nodes to ``pivot``; the last node takes its place.

    Only the lower triangle of ``work`` is kept. Returns one over the diagonal entry.
    """
    last = n - 1
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
    return scale


@fast
def _marginalise(work, n, pivot, scale, bound, inverse, degree):
    """Take one node out of the precision matrix of the ``n`` others, and test all of their pairs.

    ``degree`` gets the number of nodes that each depends on given all the others.
    """
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


@inner
def _draw_least(degree, n, slack, random):
    """Draw one of the entries within ``slack`` of the least; entries below 0 do not count."""
    least = np.int64(-1)
    for a in range(n):
        if degree[a] >= 0 and (least < 0 or degree[a] < least):
            least = degree[a]
    ties = 0
    for a in range(n):
        ties += np.int64(0 <= degree[a] <= least + slack)
    wanted = random_below(random, ties)
    chosen = -1
    while wanted >= 0:
        chosen += 1
        wanted -= np.int64(0 <= degree[chosen] <= least + slack)
    return chosen


@entry
def sparse_order(elimination, slack, random, order, parents):
    """Draw a permutation by minimum-degree elimination, last node first; return its edges.

    The degree of a node is its number of dependent nodes given all that are left; these become
    its ``parents`` (bit sets). Once a node is gone, the precision matrix of the rest follows by one
    step of elimination and is tested anew, which finds far sparser orders than filling in a graph.
    One of the nodes within ``slack`` of the least degree is taken at random. A node waits for those
    that must stand after it.
    """
    p, words = parents.shape
    work, left = np.empty((p, p)), np.empty(p, np.int64)
    pivot, inverse = np.zeros(p), np.empty(p)
    degree = np.empty(p, np.int64)
    remaining = np.zeros(words, np.uint64)
    for i in range(p):
        left[i] = i
        flip(remaining, i)
        for j in range(i + 1):
            work[i, j] = elimination.precision[i, j]
    n_edges = 0
    scale = 0.0
    for n in range(p, 0, -1):
        bound = elimination.threshold[max(n - 2, 0)]
        _marginalise(work, n, pivot, scale, bound, inverse, degree)
        for a in range(n):
            for w in range(words):
                if elimination.after[left[a], w] & remaining[w] != np.uint64(0):
                    degree[a] = -1
        chosen = _draw_least(degree, n, slack, random)
        node = left[chosen]
        n_edges += degree[chosen]
        order[n - 1] = node
        flip(remaining, node)
        left[chosen] = left[n - 1]
        scale = _take_out(work, n, chosen, pivot)
        for w in range(words):
            parents[node, w] = np.uint64(0)
        for b in range(n - 1):
            if pivot[b] * pivot[b] * scale > bound * work[b, b]:
                flip(parents[node], left[b])
    return n_edges


class Space(NamedTuple):
    """The state of a search and its tables (keys and values side by side)."""

    threshold: NDArray[np.float64]  # as in Elimination
    parents: NDArray[np.uint64]  # (p, words)
    word: NDArray[np.uint64]  # (p, p) of every edge, row = child
    hashes: NDArray[np.uint64]  # (p + 1,) of the edges into each node, and of all with the run's
    fall: NDArray[np.uint64]  # (2, words) parents that b and a lose
    seen: NDArray[np.uint64]  # (words,)
    stack: NDArray[np.int64]  # (p,)
    turns: NDArray[np.int64]  # (depth + 1, p, 2) edges still to be turned at each level
    n_turns: NDArray[np.int64]  # (depth + 1,)
    path: NDArray[np.int64]  # (depth + 1, 2) the edge turned on the way to each level
    turn_keys: NDArray[np.uint64]
    turn_counts: NDArray[np.int64]
    visited: NDArray[np.uint64]
    visited_left: NDArray[np.int64]
    barren: NDArray[np.uint64]

    @classmethod
    def empty(cls, threshold: NDArray[np.float64], shape: tuple[int, ...], depth: int) -> Space:
        """Return the space for a search with parents as bit sets of this shape."""
        (p, words), slots = shape, 1 << _LOG_SLOTS
        return cls(
            threshold=threshold,
            parents=np.zeros((p, words), np.uint64),
            word=np.random.default_rng(0).integers(1, 2**64, (p, p), dtype=np.uint64),
            hashes=np.zeros(p + 1, np.uint64),
            fall=np.zeros((2, words), np.uint64),
            seen=np.zeros(words, np.uint64),
            stack=np.zeros(p, np.int64),
            turns=np.zeros((depth + 1, p, 2), np.int64),
            n_turns=np.zeros(depth + 1, np.int64),
            path=np.zeros((depth + 1, 2), np.int64),
            turn_keys=np.zeros(slots, np.uint64),
            turn_counts=np.zeros(slots, np.int64),
            visited=np.zeros(slots, np.uint64),
            visited_left=np.zeros(slots, np.int64),
            barren=np.zeros(slots >> 4, np.uint64),
        )


@inner
def _slot(keys, key):
    return np.int64(key & np.uint64(keys.shape[0] - 1))


@inner
def _flip_edge(space, parent, child):
    """Put an edge in or take it out, and bring the hashes up to date."""
    word = space.word[child, parent]
    flip(space.parents[child], parent)
    space.hashes[child] ^= word
    space.hashes[-1] ^= word


@inner
def _turn(space, a, b):
    """Turn a -> b round."""
    _flip_edge(space, a, b)
    _flip_edge(space, b, a)


@inner
def _covered(space, a, b):
    """Whether the parents of b are those of a and a itself."""
    for w in range(space.parents.shape[1]):
        difference = space.parents[a, w] ^ space.parents[b, w]
        if w == a >> 6:
            difference ^= np.uint64(1) << (np.uint64(a) & np.uint64(63))
        if difference != np.uint64(0):
            return False
    return True


@entry
def falling(problem, scratch, space, a, b):
    """Count the edges that fall when a -> b is turned; ``fall`` gets those into b, then into a."""
    sequence, factor, sums = scratch.sequence, scratch.factor, scratch.sums
    m, _ = add_family(problem.matrix, space.parents[a], b, scratch)
    count = 0
    for side in range(2):
        if side == 1:
            sequence[m + 1] = a
            add_row(problem.matrix, sequence, m + 1, factor, sums)
        r = m + side
        child = sequence[r]
        for w in range(space.fall.shape[1]):
            space.fall[side, w] = np.uint64(0)
        for i in range(m):
            dependent = factor[r, i] ** 2 > space.threshold[r - 1] * sums[i]
            if not dependent and not has(problem.required[child], sequence[i]):
                flip(space.fall[side], sequence[i])
                count += 1
    return count


@inner
def _may_turn(problem, space, a, b):
    """Whether b -> a agrees with what is known before: no path leads from a to b but a -> b."""
    if has(problem.before[b], a) or has(problem.forbidden[a], b):
        return False
    seen, stack = space.seen, space.stack
    for w in range(seen.shape[0]):
        seen[w] = np.uint64(0)
    flip(seen, b)
    stack[0] = b
    top = 1
    while top > 0:
        top -= 1
        node = stack[top]
        for w in range(seen.shape[0]):
            above = space.parents[node, w] | problem.before[node, w]
            if node == b and w == a >> 6:
                above &= ~(np.uint64(1) << (np.uint64(a) & np.uint64(63)))
            above &= ~seen[w]
            seen[w] |= above
            while above != np.uint64(0):
                lowest = above & (~above + np.uint64(1))
                above ^= lowest
                stack[top] = w * 64 + popcount(lowest - np.uint64(1))
                top += 1
    return not has(seen, a)


@inner
def _list_turns(problem, scratch, space, level, random, bound):
    """List the covered edges that may be turned; return the place of the best of them.

    The best drops the most edges (ties at random); -1 where none drops any.
    """
    n_turns, most, ties, best = 0, 0, 0, -1
    for b in range(space.parents.shape[0]):
        for k in range(members(space.parents[b], space.stack)):
            a = space.stack[k]
            if not _covered(space, a, b):
                continue
            # No other covered edge points at b: a is the last of its parents.
            if bound and not _may_turn(problem, space, a, b):
                break
            key = mix(space.hashes[a]) ^ space.hashes[b]
            slot = _slot(space.turn_keys, key)
            if space.turn_keys[slot] != key:
                space.turn_keys[slot] = key
                space.turn_counts[slot] = falling(problem, scratch, space, a, b)
            count = space.turn_counts[slot]
            space.turns[level, n_turns, 0] = a
            space.turns[level, n_turns, 1] = b
            if count > 0 and count >= most:
                ties = ties + 1 if count == most else 1
                most = count
                if random_below(random, ties) == 0:
                    best = n_turns
            n_turns += 1
            break
    space.n_turns[level] = n_turns
    return best


@inner
def _search(problem, scratch, space, stamp, random, bound):
    """Turn covered edges until no graph within ``depth`` turns is sparser.

    The ``stamp`` makes the hashes of every run its own, so that ``visited`` needs no clearing.
    """
    depth = space.path.shape[0] - 1
    p = space.parents.shape[0]
    space.hashes[p] = stamp
    for i in range(p):
        space.hashes[i] = np.uint64(0)
        for k in range(members(space.parents[i], space.stack)):
            space.hashes[i] ^= space.word[i, space.stack[k]]
        space.hashes[p] ^= space.hashes[i]
    level, root = np.int64(0), space.hashes[p]
    fresh = True
    while True:
        if fresh:
            fresh = False
            ground = root ^ stamp
            if level == 0 and space.barren[_slot(space.barren, ground)] == ground:
                return
            best = _list_turns(problem, scratch, space, level, random, bound)
            if best >= 0:
                a, b = space.turns[level, best, 0], space.turns[level, best, 1]
                falling(problem, scratch, space, a, b)
                for side in range(2):
                    for k in range(members(space.fall[side], space.stack)):
                        _flip_edge(space, space.stack[k], a if side == 1 else b)
                _turn(space, a, b)
                level, root, fresh = np.int64(0), space.hashes[p], True
                continue
        if level < depth and space.n_turns[level] > 0:
            chosen = random_below(random, space.n_turns[level])
            space.n_turns[level] -= 1
            last = space.n_turns[level]
            a, b = space.turns[level, chosen, 0], space.turns[level, chosen, 1]
            space.turns[level, chosen, 0] = space.turns[level, last, 0]
            space.turns[level, chosen, 1] = space.turns[level, last, 1]
            turned = space.hashes[p] ^ space.word[b, a] ^ space.word[a, b]
            slot = _slot(space.visited, turned)
            left = depth - level - 1
            known = space.visited[slot] == turned and space.visited_left[slot] >= left
            if known or turned == root:
                continue
            space.visited[slot], space.visited_left[slot] = turned, left
            level += 1
            space.path[level, 0], space.path[level, 1] = a, b
            fresh = True
        elif level > 0:  # nothing here: back up, the edge turned on the way is now b -> a
            b, a = space.path[level, 0], space.path[level, 1]
            level -= 1
        else:
            space.barren[_slot(space.barren, root ^ stamp)] = root ^ stamp
            return
        _turn(space, a, b)


@entry
def log_residuals(problem, scratch, parents):
    """Return the sum over nodes of the log residual variance given the parents."""
    total = 0.0
    for i in range(parents.shape[0]):
        _, residual = add_family(problem.matrix, parents[i], i, scratch)
        total += np.log(residual)
    return total


@inner
def _copy(source, target):
    for i in range(target.shape[0]):
        for w in range(target.shape[1]):
            target[i, w] = source[i, w]


@entry
def run_seeds(
    problem, elimination, scratch, space, seeds, given, n_starts, n_slacks, n_edges, best_parents
):
    """Make one run a seed; fill ``n_edges``; return the best run and its log residuals.

    A run starts from its I-map among ``given`` (parents as bit sets, ``(n_given, p, words)``), or
    from the sparsest of ``n_starts`` drawn orders where there is none. Counted too are dependences
    that an edge forbidden one way only leaves unexplained: such a graph is no I-map.
    """
    p, words = best_parents.shape
    parents, order = np.zeros((p, words), np.uint64), np.empty(p, np.int64)
    random = np.empty(1, np.uint64)
    limits = np.uint64(0)
    for i in range(p):
        for w in range(words):
            limits |= problem.before[i, w] | problem.forbidden[i, w]
    bound = limits != np.uint64(0)
    best_run, best_fit = -1, np.inf
    for r in range(seeds.shape[0]):
        random[0] = seeds[r]
        least = p * p
        if r < given.shape[0]:
            _copy(given[r], space.parents)
        for _ in range(n_starts if r >= given.shape[0] else 0):
            slack = random_below(random, n_slacks)
            count = sparse_order(elimination, slack, random, order, parents)
            if count < least:
                least = count
                _copy(parents, space.parents)
        count = 0
        for i in range(p):
            for k in range(members(space.parents[i], space.stack)):
                parent = space.stack[k]
                if has(problem.forbidden[i], parent):
                    flip(space.parents[i], parent)
                    count += np.int64(not has(problem.forbidden[parent], i))
            for w in range(words):
                space.parents[i, w] |= problem.required[i, w]
            shrink(problem, space.parents[i], i, scratch)
        _search(problem, scratch, space, mix(seeds[r]), random, bound)
        for i in range(p):
            for w in range(words):
                count += popcount(space.parents[i, w])
        n_edges[r] = count
        if best_run >= 0 and count > n_edges[best_run]:
            continue
        fit = log_residuals(problem, scratch, space.parents)
        fewer = best_run < 0 or count < n_edges[best_run]
        if fewer or fit < best_fit - 1e-9 * abs(best_fit):
            best_run, best_fit = r, fit
            _copy(space.parents, best_parents)
    return best_run, best_fit
