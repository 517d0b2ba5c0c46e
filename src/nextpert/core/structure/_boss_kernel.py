"""The compiled best-order search: scores by grow-shrink trees, moves of one node at a time.

Grow-shrink. The parents of a node in a given prefix of the order are found by adding, again and
again, the node of the prefix that raises the score most, and then dropping those without which the
score is higher. Every state of growing is a vertex of the node's tree: its branches are all nodes
that raise the score there, best first. A prefix follows the first branch it has, so that a branch
passed over is known not to be in the prefix, and deeper vertices leave it out.

What a move changes. For every node the search keeps the set it grew to and the set of branches it
passed over. Putting v into the prefix of w changes the parents of w only if v was passed over,
taking it out only if it was grown: all other scores stand without a look at the tree.

Scores are ``constant[d] - half * log|C_P| - weight[d] * log var(v | P)`` for d parents P, where C is
the matrix scaled to a unit diagonal: BIC and BGe are both of that form.
"""

# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from nextpert.core.structure._bits import flip, has, members
from nextpert.core.structure._imap import add_family

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAST_VARIANCE = 1e-9


class Score(NamedTuple):
    """A decomposable score, see the head of this file."""

    matrix: NDArray[np.float64]  # (p, p), unit diagonal
    constant: NDArray[np.float64]  # (p,) by number of parents
    weight: NDArray[np.float64]  # (p,) by number of parents
    half: float


class Forest(NamedTuple):
    """All trees: vertices (arrays of one length) and branches (of another)."""

    node: NDArray[np.int32]  # the node added here; for a root, its owner
    up: NDArray[np.int32]  # the vertex above, -1 for a root
    rank: NDArray[np.int32]  # place among the branches of the vertex above
    depth: NDArray[np.int32]
    first: NDArray[np.int64]  # where its branches begin, -1 before they are known
    count: NDArray[np.int32]
    score: NDArray[np.float64]  # after shrinking, nan before it is known
    branch: NDArray[np.int32]  # node of every branch
    vertex: NDArray[np.int32]  # vertex of every branch, -1 before it is made
    used: NDArray[np.int64]  # numbers of vertices and of branches

    @classmethod
    def empty(cls, n_vertices: int, n_branches: int) -> Forest:
        """Return a forest without trees."""
        integers = [np.zeros(n_vertices, np.int32) for _ in range(4)]
        return cls(
            *integers,
            np.full(n_vertices, -1, np.int64),
            np.zeros(n_vertices, np.int32),
            np.full(n_vertices, np.nan),
            np.zeros(n_branches, np.int32),
            np.full(n_branches, -1, np.int32),
            np.zeros(2, np.int64),
        )


class State(NamedTuple):
    """The order, and for every node its score and the sets grown and passed over."""

    order: NDArray[np.int64]
    place: NDArray[np.int64]
    score: NDArray[np.float64]
    grown: NDArray[np.uint64]
    passed: NDArray[np.uint64]
    prefix: NDArray[np.uint64]  # (words,) scratch
    trial: NDArray[np.uint64]  # (2, words) scratch: sets grown and passed over
    own: NDArray[np.uint64]  # (2, words) the same for the node that moves
    gain: NDArray[np.float64]  # (p,) scratch
    roots: NDArray[np.int64]

    @classmethod
    def start(cls, order: NDArray[np.int64], words: int) -> State:
        """Return the state before any score is known."""
        p = len(order)
        sets = [np.zeros(shape, np.uint64) for shape in ((p, words), (p, words), (words,))]
        pairs = [np.zeros((2, words), np.uint64) for _ in range(2)]
        place = np.argsort(order)
        return cls(
            order.copy(), place, np.zeros(p), *sets, *pairs, np.zeros(p), np.zeros(p, np.int64)
        )


class Growth(NamedTuple):
    """Scratch: residuals of all nodes given the nodes on the path to the last vertex."""

    path: NDArray[np.int64]  # (p,) vertices from below the root on
    last: NDArray[np.int64]  # (p + 1,) the path whose residuals are at hand, then its length
    rows: NDArray[np.float64]  # (depth, p) rows of the Cholesky factor
    variance: NDArray[np.float64]  # (depth, p) of every node, given the path so far
    covariance: NDArray[np.float64]  # (depth, p) of every node with the owner
    key: NDArray[np.float64]  # (p,)
    found: NDArray[np.int64]  # (p,)
    barred: NDArray[np.bool_]  # (p,)

    @classmethod
    def empty(cls, p: int) -> Growth:
        """Return scratch for ``p`` nodes."""
        floats = [np.zeros((p + 1, p)) for _ in range(3)]
        last = np.full(p + 2, -1, np.int64)
        return cls(
            np.zeros(p + 1, np.int64), last, *floats, np.zeros(p), np.zeros(p, np.int64),
            np.zeros(p, bool),
        )


@njit(cache=True, nogil=True)
def local_score(score, row, child, scratch):
    """Return the score of a node with the parents in ``row``."""
    m, residual = add_family(score.matrix, row, child, scratch)
    log_volume = 0.0
    for k in range(m):
        log_volume -= 2.0 * np.log(scratch.factor[k, k])
    return score.constant[m] - score.half * log_volume - score.weight[m] * np.log(residual)


@njit(cache=True, nogil=True)
def shrink(score, row, child, required, scratch):
    """Drop parents while the score rises, the best first; return the score."""
    current = local_score(score, row, child, scratch)
    while True:
        m = members(row, scratch.sequence)
        if m == 0:
            return current
        factor, sums, sequence = scratch.factor, scratch.sums, scratch.sequence
        residual = 1.0 / (factor[m, m] * factor[m, m])
        best, place = 0.0, np.int64(-1)
        for i in range(m):
            share = factor[m, i] * factor[m, i] / sums[i]  # squared partial correlation
            inside = sums[i] - factor[m, i] * factor[m, i]  # precision among the parents
            gain = score.constant[m - 1] - score.constant[m] - score.half * np.log(inside)
            gain -= score.weight[m - 1] * (np.log(residual) - np.log1p(-share))
            gain += score.weight[m] * np.log(residual)
            if gain > best and not has(required, sequence[i]):
                best, place = gain, i
        if place < 0:
            return current
        flip(row, sequence[place])
        current = local_score(score, row, child, scratch)


@njit(cache=True, nogil=True)
def new_vertex(forest, node, up, rank):
    """Add a vertex to the forest; return it, or -1 where there is no room."""
    made = forest.used[0]
    if made >= forest.node.shape[0]:
        return np.int64(-1)
    forest.used[0] = made + 1
    forest.node[made] = node
    forest.up[made] = up
    forest.rank[made] = rank
    forest.depth[made] = 0 if up < 0 else forest.depth[up] + 1
    forest.first[made] = -1
    forest.score[made] = np.nan
    return made


@njit(cache=True, nogil=True)
def _climb(forest, vertex, path):
    """Write the vertices from below the root down to ``vertex``; return how many, and the owner."""
    depth = forest.depth[vertex]
    for k in range(depth - 1, -1, -1):
        path[k] = vertex
        vertex = np.int64(forest.up[vertex])
    return depth, np.int64(forest.node[vertex])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _condition(matrix, growth, k, node, owner):
    """Take the node out of the residuals at depth ``k``, which gives those at ``k + 1``."""
    p = matrix.shape[0]
    row = growth.rows[k]
    for u in range(p):
        row[u] = matrix[node, u]
    for l in range(k):
        above = growth.rows[l]
        step = above[node]
        for u in range(p):
            row[u] -= step * above[u]
    scale = 1.0 / np.sqrt(row[node])
    for u in range(p):
        row[u] *= scale
    step = row[owner]
    variance, covariance = growth.variance[k], growth.covariance[k]
    new_variance, new_covariance = growth.variance[k + 1], growth.covariance[k + 1]
    for u in range(p):
        new_variance[u] = variance[u] - row[u] * row[u]
        new_covariance[u] = covariance[u] - step * row[u]


@njit(cache=True, nogil=True)
def _residuals(score, forest, growth, vertex):
    """Bring the residuals up to those at ``vertex``; return its depth and owner."""
    depth, owner = _climb(forest, vertex, growth.path)
    p = score.matrix.shape[0]
    known = growth.last[p + 1]
    common = 0
    if known >= 0 and growth.last[p] == owner:
        while common < min(known, depth) and growth.last[common] == growth.path[common]:
            common += 1
    else:
        for u in range(p):
            growth.variance[0, u] = 1.0
            growth.covariance[0, u] = score.matrix[owner, u]
    for k in range(common, depth):
        _condition(score.matrix, growth, k, forest.node[growth.path[k]], owner)
        growth.last[k] = growth.path[k]
    growth.last[p] = owner
    growth.last[p + 1] = depth
    return depth, owner


@njit(cache=True, nogil=True)
def _bar(forest, growth, depth, owner, forbidden, value):
    """Mark (or unmark) the nodes that cannot be branches of the vertex at the path's end."""
    growth.barred[owner] = value
    for k in range(members(forbidden[owner], growth.found)):
        growth.barred[growth.found[k]] = value
    for k in range(depth):
        vertex = growth.path[k]
        growth.barred[forest.node[vertex]] = value
        first = forest.first[forest.up[vertex]]
        for c in range(forest.rank[vertex]):
            growth.barred[forest.branch[first + c]] = value


@njit(cache=True, nogil=True)
def _sort_descending(key, item, n):
    gap = 1
    while gap < n:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, n):
            k, it, j = key[i], item[i], i
            while j >= gap and key[j - gap] < k:
                key[j], item[j] = key[j - gap], item[j - gap]
                j -= gap
            key[j], item[j] = k, it
        gap //= 3


@njit(cache=True, nogil=True)
def _branch_out(score, forest, growth, forbidden, vertex):
    """Find the branches of a vertex; return whether there was room for them."""
    depth, owner = _residuals(score, forest, growth, vertex)
    _bar(forest, growth, depth, owner, forbidden, 1 > 0)
    variance, covariance = growth.variance[depth], growth.covariance[depth]
    residual = variance[owner]
    fixed = score.constant[depth + 1] - score.constant[depth]
    fixed += (score.weight[depth] - score.weight[depth + 1]) * np.log(residual)
    weight = score.weight[depth + 1]
    bound = -np.expm1(fixed / weight) if score.half == 0.0 else 0.0
    n = 0
    for u in range(score.matrix.shape[0]):
        if growth.barred[u] or variance[u] < _LEAST_VARIANCE:
            continue
        share = covariance[u] * covariance[u] / (variance[u] * residual)
        if score.half == 0.0:  # the share orders the branches: no logarithm is needed
            gain = share - bound
        else:
            gain = fixed - score.half * np.log(variance[u]) - weight * np.log1p(-share)
        if gain > 0.0:
            growth.key[n] = gain
            growth.barred[u] = False
            growth.found[n] = u
            n += 1
    _bar(forest, growth, depth, owner, forbidden, 1 < 0) if n < 0 else None
    return n
