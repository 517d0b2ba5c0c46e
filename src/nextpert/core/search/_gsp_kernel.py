"""The compiled search over covered arcs.

An arc a -> b is covered when the parents of b are those of a and a itself. Turned round, the new
minimal I-map can lose arcs from the shared parents P only: k -> b where b and k are independent
given P without k, and k -> a where a and k are independent given b and P without k. How many fall
depends on (a, b, P) alone, so the counts are kept in a table for all runs of a chunk.

The search from a graph goes over all graphs within ``depth`` turns of it, depth first, until a turn
drops arcs. Whether one can be reached is therefore a property of the graph, and a graph from which
there was none is remembered: a later run that arrives there ends at once.

All tables are direct mapped: a newer entry takes the slot of an older one, which costs time but
changes no result. Sets are compared by 64-bit hashes; with the 10^6 sets of a long search, the
chance that any two of them collide is below 10^-7.
"""

# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import entry, inner
from nextpert.core.search._bits import (
    flip,
    has,
    members,
    mix,
    popcount,
    random_below,
)
from nextpert.core.search._imap import (
    add_family,
    add_row,
    imap_of_order,
    prune,
    sparse_order,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SALT_A = np.uint64(0xD1B54A32D192ED03)
_SALT_B = np.uint64(0x8CB92BA72F3D8DD7)
_LOG_SLOTS = 16


class Space(NamedTuple):
    """The state of a search and its tables (keys and values side by side)."""

    parents: NDArray[np.uint64]  # (p, words)
    hashes: NDArray[np.uint64]  # (p,) of the parent sets
    salts: NDArray[np.uint64]  # (p,) a random word a node
    fall: NDArray[np.uint64]  # (2, words) parents that b and a lose
    seen: NDArray[np.uint64]  # (words,)
    stack: NDArray[np.int64]  # (2 p,)
    turns: NDArray[np.int64]  # (depth + 1, p, 2) arcs still to be turned at each level
    n_turns: NDArray[np.int64]  # (depth + 1,)
    path: NDArray[np.int64]  # (depth + 1, 2) the arc turned on the way to each level
    turn_keys: NDArray[np.uint64]
    turn_counts: NDArray[np.int64]
    visited: NDArray[np.uint64]
    visited_left: NDArray[np.int64]
    barren: NDArray[np.uint64]

    @classmethod
    def empty(cls, p: int, words: int, depth: int) -> Space:
        """Return the space for a search among ``p`` nodes."""
        slots = 1 << _LOG_SLOTS
        salts = np.random.default_rng(0).integers(1, 2**64, p, dtype=np.uint64)
        return cls(
            parents=np.zeros((p, words), np.uint64),
            hashes=np.zeros(p, np.uint64),
            salts=salts,
            fall=np.zeros((2, words), np.uint64),
            seen=np.zeros(words, np.uint64),
            stack=np.zeros(2 * p, np.int64),
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
def _family_hash(node, parents_hash):
    return mix(parents_hash ^ (np.uint64(node + 1) * _SALT_A))


@inner
def _covered(space, a, b):
    """Whether the parents of b are those of a and a itself."""
    if space.hashes[b] != space.hashes[a] ^ space.salts[a]:
        return False
    for w in range(space.parents.shape[1]):
        difference = space.parents[a, w] ^ space.parents[b, w]
        if w == a >> 6:
            difference ^= np.uint64(1) << (np.uint64(a) & np.uint64(63))
        if difference != np.uint64(0):
            return False
    return True


@entry
def _falling(problem, scratch, space, a, b):
    """Count the arcs that fall when a -> b is turned; ``fall`` gets those into b, then into a."""
    sequence, factor, sums = scratch.sequence, scratch.factor, scratch.sums
    m, _ = add_family(problem.corr, space.parents[a], b, scratch)
    count = 0
    for side in range(2):
        if side == 1:
            sequence[m + 1] = a
            add_row(problem.corr, sequence, m + 1, factor, sums)
        r = m + side
        child = sequence[r]
        for w in range(space.fall.shape[1]):
            space.fall[side, w] = np.uint64(0)
        for i in range(m):
            dependent = factor[r, i] ** 2 > problem.threshold[r - 1] * sums[i]
            if not dependent and not has(problem.required[child], sequence[i]):
                flip(space.fall[side], sequence[i])
                count += 1
    return count


@inner
def _reaches(problem, space, a, b):
    """Whether a directed path of arcs and prior orders leads from a to b, a -> b left out."""
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
    return has(seen, a)


@inner
def _list_turns(problem, scratch, space, level, random):
    """List the covered arcs that may be turned; return the place of the best of them.

    The best drops the most arcs (ties at random); -1 where none drops any.
    """
    above = space.stack[space.parents.shape[0] :]
    n_turns, most, ties, best = 0, 0, 0, -1
    for b in range(space.parents.shape[0]):
        for k in range(members(space.parents[b], above)):
            a = above[k]
            if not _covered(space, a, b):
                continue
            barred = has(problem.before[b], a) or has(problem.forbidden[a], b)
            if not barred and problem.ordered:
                barred = _reaches(problem, space, a, b)
            if barred:
                break
            key = mix(_family_hash(a, space.hashes[a]) + np.uint64(b + 1) * _SALT_B)
            slot = _slot(space.turn_keys, key)
            if space.turn_keys[slot] != key:
                space.turn_keys[slot] = key
                space.turn_counts[slot] = _falling(problem, scratch, space, a, b)
            count = space.turn_counts[slot]
            space.turns[level, n_turns, 0] = a
            space.turns[level, n_turns, 1] = b
            if count > 0 and count >= most:
                ties = ties + 1 if count == most else 1
                most = count
                if random_below(random, ties) == 0:
                    best = n_turns
            n_turns += 1
            break  # no other covered arc points at b: a is the last of its parents
    space.n_turns[level] = n_turns
    return best


@inner
def _rehash(space, node):
    """Bring the hash of a parent set up to date; return the change of the graph's hash."""
    old = _family_hash(node, space.hashes[node])
    total = np.uint64(0)
    for k in range(members(space.parents[node], space.stack)):
        total ^= space.salts[space.stack[k]]
    space.hashes[node] = total
    return _family_hash(node, total) - old


@inner
def _hash_turned(space, whole, a, b):
    """Return the hash of the graph in which a -> b is turned and nothing falls."""
    old = _family_hash(a, space.hashes[a]) + _family_hash(b, space.hashes[b])
    new_a = _family_hash(a, space.hashes[a] ^ space.salts[b])
    return whole - old + new_a + _family_hash(b, space.hashes[b] ^ space.salts[a])


@inner
def _turn(space, a, b):
    flip(space.parents[b], a)
    flip(space.parents[a], b)
    space.hashes[b] ^= space.salts[a]
    space.hashes[a] ^= space.salts[b]


@inner
def _drop_arcs(problem, scratch, space, a, b):
    """Turn a -> b and let fall what falls; return how many arcs did, and the change of hash."""
    count = _falling(problem, scratch, space, a, b)
    before = _family_hash(a, space.hashes[a]) + _family_hash(b, space.hashes[b])
    _turn(space, a, b)
    for w in range(space.fall.shape[1]):
        space.parents[b, w] ^= space.fall[0, w]
        space.parents[a, w] ^= space.fall[1, w]
    _rehash(space, a)
    _rehash(space, b)
    after = _family_hash(a, space.hashes[a]) + _family_hash(b, space.hashes[b])
    return count, after - before


@inner
def search(problem, scratch, space, stamp, random):
    """Turn covered arcs until no graph within ``depth`` turns is sparser; return arcs dropped."""
    depth = space.path.shape[0] - 1
    whole = stamp  # makes the hashes of every run its own, so that ``visited`` needs no clearing
    for i in range(space.parents.shape[0]):
        _rehash(space, i)
        whole += _family_hash(i, space.hashes[i])
    dropped, level, root = 0, np.int64(0), whole
    fresh = True
    while True:
        if fresh:
            ground = root - stamp
            if level == 0 and space.barren[_slot(space.barren, ground)] == ground:
                return dropped
            best = _list_turns(problem, scratch, space, level, random)
            fresh = False
            if best >= 0:
                a, b = space.turns[level, best, 0], space.turns[level, best, 1]
                count, change = _drop_arcs(problem, scratch, space, a, b)
                dropped += count
                whole += change
                level, root, fresh = np.int64(0), whole, True
                continue
        if level < depth and space.n_turns[level] > 0:
            chosen = random_below(random, space.n_turns[level])
            space.n_turns[level] -= 1
            last = space.n_turns[level]
            a, b = space.turns[level, chosen, 0], space.turns[level, chosen, 1]
            space.turns[level, chosen, 0] = space.turns[level, last, 0]
            space.turns[level, chosen, 1] = space.turns[level, last, 1]
            turned = _hash_turned(space, whole, a, b)
            slot = _slot(space.visited, turned)
            left = depth - level - 1
            known = space.visited[slot] == turned and space.visited_left[slot] >= left
            if known or turned == root:
                continue
            space.visited[slot], space.visited_left[slot] = turned, left
            level += 1
            space.path[level, 0], space.path[level, 1] = a, b
            fresh = True
        elif level > 0:  # nothing here: back up, the arc turned on the way is now b -> a
            b, a = space.path[level, 0], space.path[level, 1]
            turned = _hash_turned(space, whole, a, b)
            level -= 1
        else:
            space.barren[_slot(space.barren, root - stamp)] = root - stamp
            return dropped
        _turn(space, a, b)
        whole = turned


@entry
def log_residuals(problem, scratch, parents):
    """Return the sum over nodes of the log residual variance given the parents."""
    total = 0.0
    for i in range(parents.shape[0]):
        _, residual = add_family(problem.corr, parents[i], i, scratch)
        total += np.log(residual)
    return total


@entry
def run_seeds(problem, scratch, space, seeds, given, n_starts, n_slacks, n_arcs, best_parents):
    """Make one run a seed; fill ``n_arcs``; return the best run and its log residuals.

    A run starts from its row of ``given``, or from the sparsest of ``n_starts`` permutations where
    there is none.
    """
    p = best_parents.shape[0]
    work, left = np.empty((p, p)), np.empty(p, np.int64)
    order, start = np.empty(p, np.int64), np.empty(p, np.int64)
    random = np.empty(1, np.uint64)
    best_run, best_fit = -1, np.inf
    for r in range(seeds.shape[0]):
        random[0] = seeds[r]
        least = p * p
        if r < given.shape[0]:
            for i in range(p):
                start[i] = given[r, i]
        for _ in range(n_starts if r >= given.shape[0] else 0):
            slack = random_below(random, n_slacks)
            count = sparse_order(problem, slack, random, work, left, order)
            if count < least:
                least = count
                for i in range(p):
                    start[i] = order[i]
        count = imap_of_order(problem, start, scratch, space.parents)
        count -= prune(problem, scratch, space.parents)
        count -= search(problem, scratch, space, mix(seeds[r]), random)
        n_arcs[r] = count
        if best_run >= 0 and count > n_arcs[best_run]:
            continue
        fit = log_residuals(problem, scratch, space.parents)
        fewer = best_run < 0 or count < n_arcs[best_run]
        if fewer or fit < best_fit - 1e-9 * abs(best_fit):
            best_run, best_fit = r, fit
            for i in range(p):
                for w in range(best_parents.shape[1]):
                    best_parents[i, w] = space.parents[i, w]
    return best_run, best_fit
