"""Compiled grow-shrink trees: the best parents of a node in a prefix of the order, remembered.

Grow-shrink. The parents of a node in a given prefix of the order are found by adding, again and
again, the node of the prefix that raises the score most, and then dropping those without which the
score is higher. Every state of growing is a vertex of the node's tree: its branches are all nodes
that raise the score there, best first. A prefix follows the first branch it has, so that a branch
passed over is known not to be in the prefix, and deeper vertices leave it out. Trees that outgrow
their room are emptied, and grown again as needed.
"""

# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import fast, inner
from nextpert.core.search._classes import members, shrink

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAST_VARIANCE = 1e-9
_BRANCHES, _MOST_BRANCHES = 1 << 16, 1 << 26  # room for each node and for all, 540 MB


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
    roots: NDArray[np.int64]  # (p,) the vertex at which each tree begins

    @classmethod
    def empty(cls, p: int, n_required: int = 0) -> Forest:
        """Return a forest without trees (zeros: memory is taken only as they grow).

        What a search of one node needs is always there: p vertices with p branches each.
        """
        n_branches = max(min(p * _BRANCHES, _MOST_BRANCHES), p * p) + n_required
        n_vertices = n_branches // 16 + 3 * p + n_required
        return cls(
            node=np.zeros(n_vertices, np.int32),
            up=np.zeros(n_vertices, np.int32),
            rank=np.zeros(n_vertices, np.int32),
            depth=np.zeros(n_vertices, np.int32),
            first=np.zeros(n_vertices, np.int64),
            count=np.zeros(n_vertices, np.int32),
            score=np.zeros(n_vertices),
            branch=np.zeros(n_branches, np.int32),
            vertex=np.zeros(n_branches, np.int32),
            used=np.zeros(2, np.int64),
            roots=np.zeros(p, np.int64),
        )


class Growth(NamedTuple):
    """Scratch: residuals of all nodes given the nodes on the path to the last vertex."""

    path: NDArray[np.int64]  # (p,) vertices from below the root on
    last: NDArray[np.int64]  # (p + 2,) the path whose residuals are at hand, owner, length
    rows: NDArray[np.float64]  # (depth, p) rows of the Cholesky factor
    variance: NDArray[np.float64]  # (depth, p) of every node, given the path so far
    covariance: NDArray[np.float64]  # (depth, p) of every node with the owner
    share: NDArray[np.float64]  # (p,)
    key: NDArray[np.float64]  # (p,)
    found: NDArray[np.int64]  # (p,)
    barred: NDArray[np.uint8]  # (p,) 1 where a node is no branch

    @classmethod
    def empty(cls, p: int) -> Growth:
        """Return scratch for ``p`` nodes."""
        return cls(
            path=np.zeros(p + 1, np.int64),
            last=np.full(p + 2, -1, np.int64),
            rows=np.zeros((p + 1, p)),
            variance=np.zeros((p + 1, p)),
            covariance=np.zeros((p + 1, p)),
            share=np.zeros(p),
            key=np.zeros(p),
            found=np.zeros(p, np.int64),
            barred=np.zeros(p, np.uint8),
        )


@inner
def new_vertex(forest, node, up, rank):
    """Add a vertex to the forest and return it."""
    made = forest.used[0]
    forest.used[0] = made + 1
    forest.node[made] = node
    forest.up[made] = up
    forest.rank[made] = rank
    forest.depth[made] = 0 if up < 0 else forest.depth[up] + 1
    forest.first[made] = -1
    forest.score[made] = np.nan
    return made


@inner
def _climb(forest, vertex, path):
    """Write the vertices from below the root down to ``vertex``; return how many, and the owner."""
    depth = forest.depth[vertex]
    for k in range(depth - 1, -1, -1):
        path[k] = vertex
        vertex = np.int64(forest.up[vertex])
    return depth, np.int64(forest.node[vertex])


@fast
def _condition(matrix, growth, k, node, owner):
    """Take the node out of the residuals at depth ``k``, which gives those at ``k + 1``."""
    p = matrix.shape[0]
    row = growth.rows[k]
    for u in range(p):
        row[u] = matrix[node, u]
    for earlier in range(k):
        above = growth.rows[earlier]
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


@inner
def _residuals(problem, forest, growth, vertex):
    """Bring the residuals up to those at ``vertex``; return its depth and owner."""
    depth, owner = _climb(forest, vertex, growth.path)
    p = problem.matrix.shape[0]
    known = growth.last[p + 1]
    common = 0
    if known >= 0 and growth.last[p] == owner:
        while common < min(known, depth) and growth.last[common] == growth.path[common]:
            common += 1
    else:
        for u in range(p):
            growth.variance[0, u] = 1.0
            growth.covariance[0, u] = problem.matrix[owner, u]
    for k in range(common, depth):
        _condition(problem.matrix, growth, k, forest.node[growth.path[k]], owner)
        growth.last[k] = growth.path[k]
    growth.last[p] = owner
    growth.last[p + 1] = depth
    return depth, owner


@inner
def _bar(forest, growth, depth, owner, barred):
    """Mark (or unmark) the nodes that the path to a vertex has taken or passed over."""
    growth.barred[owner] = barred
    for k in range(depth):
        vertex = growth.path[k]
        growth.barred[forest.node[vertex]] = barred
        first = forest.first[forest.up[vertex]]
        for c in range(forest.rank[vertex]):
            growth.barred[forest.branch[first + c]] = barred


@inner
def _shares(variance, covariance, residual, share):
    """Fill in the share of the owner's residual variance that each node explains."""
    for u in range(share.shape[0]):  # no branches, so that it runs on vectors
        share[u] = covariance[u] * covariance[u] / (variance[u] * residual)


@inner
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


@inner
def _branch_out(problem, forest, growth, vertex):
    """Find the branches of a vertex."""
    depth, owner = _residuals(problem, forest, growth, vertex)
    variance, covariance = growth.variance[depth], growth.covariance[depth]
    residual = variance[owner]
    # A node raises the score where its share of the variance that is left is above the penalty's.
    bound = -np.expm1((problem.constant[depth + 1] - problem.constant[depth]) / problem.weight)
    _bar(forest, growth, depth, owner, np.uint8(1))
    _shares(variance, covariance, residual, growth.share)
    n = np.int64(0)
    for u in range(problem.matrix.shape[0]):
        share = growth.share[u]
        if not share > bound:  # most nodes
            continue
        if growth.barred[u] or variance[u] < _LEAST_VARIANCE or residual < _LEAST_VARIANCE:
            continue
        if not problem.forbidden[owner, u]:
            growth.key[n] = share
            growth.found[n] = u
            n += 1
    _bar(forest, growth, depth, owner, np.uint8(0))
    _sort_descending(growth.key, growth.found, n)
    for c in range(n):
        if problem.before[owner, growth.found[c]]:  # in every prefix: none goes on past it
            n = c + 1
            break
    first = forest.used[1]
    for c in range(n):
        forest.branch[first + c] = growth.found[c]
        forest.vertex[first + c] = -1
    forest.first[vertex] = first
    forest.count[vertex] = n
    forest.used[1] = first + n


@inner
def plant(required, forest, growth):
    """Empty the forest but for the roots.

    Each is a vertex for a node, with one below it for each required parent.
    """
    forest.used[0] = forest.used[1] = 0
    growth.last[growth.last.shape[0] - 1] = -1
    parents = growth.found
    for i in range(forest.roots.shape[0]):
        forest.roots[i] = new_vertex(forest, np.int64(i), np.int64(-1), np.int64(0))
        for k in range(members(required[i], parents)):
            above, branch = forest.roots[i], forest.used[1]
            forest.used[1] += 1
            forest.first[above], forest.count[above] = branch, 1
            forest.roots[i] = new_vertex(forest, parents[k], above, np.int64(0))
            forest.branch[branch], forest.vertex[branch] = parents[k], forest.roots[i]


@inner
def trace(problem, forest, growth, scratch, owner, prefix, sets):
    """Grow and shrink the parents of a node in a prefix; return their score.

    ``sets``, (3, p), gets what was grown, what was passed over and what the grown ones shrink to.
    """
    p = prefix.shape[0]
    grown, passed = sets[0], sets[1]
    if forest.used[0] == 0:
        plant(problem.required, forest, growth)
    vertex, below = forest.roots[owner], np.int64(0)
    for node in range(p):
        grown[node] = passed[node] = False
    while below >= 0:
        if forest.used[0] == forest.node.shape[0] or forest.used[1] + p > forest.branch.shape[0]:
            plant(problem.required, forest, growth)
            vertex = forest.roots[owner]
            for node in range(p):
                grown[node] = passed[node] = False
        if forest.first[vertex] < 0:
            _branch_out(problem, forest, growth, vertex)
        below, first = np.int64(-1), forest.first[vertex]
        for c in range(forest.count[vertex]):
            node = forest.branch[first + c]
            if prefix[node]:
                grown[node] = True
                below = np.int64(forest.vertex[first + c])
                if below < 0:
                    below = new_vertex(forest, np.int64(node), vertex, np.int64(c))
                    forest.vertex[first + c] = below
                vertex = below
                break
            passed[node] = True
    if np.isnan(forest.score[vertex]):
        row = sets[2]
        for node in range(p):
            row[node] = grown[node] or problem.required[owner, node]
        forest.score[vertex] = shrink(problem, row, owner, scratch)
    return forest.score[vertex]
