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

    first: NDArray[np.int64]  # where its branches begin, -1 before they are known
    count: NDArray[np.int32]
    score: NDArray[np.float64]  # after shrinking, nan before it is known
    branch: NDArray[np.int32]  # node of every branch
    vertex: NDArray[np.int32]  # vertex of every branch, -1 before it is made
    used: NDArray[np.int64]  # numbers of vertices and of branches; the first p are the roots

    @classmethod
    def empty(cls, p: int) -> Forest:
        """Return a forest without trees (zeros: memory is taken only as they grow).

        What a search of one node needs is always there: p vertices with p branches each.
        """
        n_branches = max(min(p * _BRANCHES, _MOST_BRANCHES), p * p)
        n_vertices = n_branches // 16 + 2 * p
        return cls(
            first=np.zeros(n_vertices, np.int64),
            count=np.zeros(n_vertices, np.int32),
            score=np.zeros(n_vertices),
            branch=np.zeros(n_branches, np.int32),
            vertex=np.zeros(n_branches, np.int32),
            used=np.zeros(2, np.int64),
        )


class Growth(NamedTuple):
    """Scratch: residuals of all nodes given the nodes on the path to the last vertex."""

    path: NDArray[np.int64]  # (p,) the parents so far: required ones, then the branches taken
    last: NDArray[np.int64]  # (p + 2,) the path whose residuals are at hand, owner, length
    rows: NDArray[np.float64]  # (depth, p) rows of the Cholesky factor
    variance: NDArray[np.float64]  # (depth, p) of every node, given the path so far
    covariance: NDArray[np.float64]  # (depth, p) of every node with the owner
    key: NDArray[np.float64]  # (p,)
    found: NDArray[np.int64]  # (p,)

    @classmethod
    def empty(cls, p: int) -> Growth:
        """Return scratch for ``p`` nodes."""
        return cls(
            path=np.zeros(p + 1, np.int64),
            last=np.full(p + 2, -1, np.int64),
            rows=np.zeros((p + 1, p)),
            variance=np.zeros((p + 1, p)),
            covariance=np.zeros((p + 1, p)),
            key=np.zeros(p),
            found=np.zeros(p, np.int64),
        )


@inner
def _new_vertex(forest):
    """Add a vertex to the forest and return it."""
    made = forest.used[0]
    forest.used[0] = made + 1
    forest.first[made] = -1
    forest.score[made] = np.nan
    return made


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
def _residuals(problem, growth, owner, depth):
    """Bring the residuals up to those given the first ``depth`` nodes of the path."""
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
        _condition(problem.matrix, growth, k, growth.path[k], owner)
        growth.last[k] = growth.path[k]
    growth.last[p] = owner
    growth.last[p + 1] = depth


@inner
def _branch_out(problem, forest, growth, vertex, owner, depth, sets):
    """Find the branches of a vertex, best first: nodes that were neither taken nor passed over.

    A node raises the score where its share of the variance that is left is above the penalty's.
    """
    _residuals(problem, growth, owner, depth)
    variance, covariance = growth.variance[depth], growth.covariance[depth]
    residual, n = variance[owner], np.int64(0)
    bound = -np.expm1((problem.constant[depth + 1] - problem.constant[depth]) / problem.weight)
    for u in range(problem.matrix.shape[0]):
        share = covariance[u] * covariance[u] / (variance[u] * residual)
        if not share > bound:  # most nodes
            continue
        if u == owner or sets[0, u] or sets[1, u] or problem.required[owner, u]:
            continue
        if variance[u] < _LEAST_VARIANCE or residual < _LEAST_VARIANCE:
            continue
        if not problem.forbidden[owner, u]:
            j = n
            while j > 0 and growth.key[j - 1] < share:
                growth.key[j], growth.found[j] = growth.key[j - 1], growth.found[j - 1]
                j -= 1
            growth.key[j], growth.found[j] = share, u
            n += 1
    first = forest.used[1]
    forest.first[vertex] = first
    forest.count[vertex] = 0
    for c in range(n):
        forest.branch[first + c] = growth.found[c]
        forest.vertex[first + c] = -1
        forest.count[vertex] += 1
        if problem.before[owner, growth.found[c]]:  # in every prefix: none goes on past it
            break
    forest.used[1] += forest.count[vertex]


@inner
def _plant(forest, growth):
    """Empty the forest but for the roots."""
    forest.used[0] = forest.used[1] = 0
    growth.last[growth.last.shape[0] - 1] = -1
    for _ in range(growth.key.shape[0]):
        _new_vertex(forest)


@inner
def trace(problem, forest, growth, scratch, owner, prefix, sets):
    """Grow and shrink the parents of a node in a prefix; return their score.

    ``sets``, (3, p), gets what was grown, what was passed over and what the grown ones shrink to.
    """
    p = prefix.shape[0]
    if forest.used[0] == 0:
        _plant(forest, growth)
    vertex, below = owner, owner
    while below >= 0:
        is_full = forest.used[0] == forest.score.shape[0] or forest.used[1] + p > len(forest.branch)
        if is_full:
            _plant(forest, growth)
        if is_full or below == owner:  # from the root
            vertex, depth = owner, members(problem.required[owner], growth.path)
            sets[:2] = False
        if forest.first[vertex] < 0:
            _branch_out(problem, forest, growth, vertex, owner, depth, sets)
        below, first = np.int64(-1), forest.first[vertex]
        for c in range(forest.count[vertex]):
            node = forest.branch[first + c]
            if prefix[node]:
                below = np.int64(forest.vertex[first + c])
                if below < 0:
                    below = _new_vertex(forest)
                    forest.vertex[first + c] = below
                sets[0, node], growth.path[depth] = True, node
                vertex, depth = below, depth + 1
                break
            sets[1, node] = True
    if np.isnan(forest.score[vertex]):
        for node in range(p):
            sets[2, node] = sets[0, node] or problem.required[owner, node]
        forest.score[vertex] = shrink(problem, sets[2], owner, scratch)
    return forest.score[vertex]
