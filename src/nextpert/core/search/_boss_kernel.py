"""The compiled best-order search: each node in turn is moved to its best place in the order.

Moves. For every node the search stores the set of grown parents and the set of branches that were
passed over. Adding v to the prefix of w changes the parents of w only if v was passed over, and
removing v only if it was grown: all other scores stay the same, without access to the tree.

Grow-shrink. The parents of a node in a given prefix of the order are found by repeatedly adding the
node of the prefix that raises the score most, and then dropping those without which the score is
higher. Every state of growing is a vertex of the node's tree; its branches are all nodes that raise
the score there, best first. A search follows the first branch that is in the prefix, so that
branches passed over are not in the prefix, and deeper vertices leave them out. Trees that exceed
their memory are emptied, and grown again as needed.
"""

# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import fast, inner, lean, spliced
from nextpert.core.search._classes import members, random_below, shrink

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MIN_VARIANCE = 1e-9  # of a standardised gene given others; below, it is a copy of them
_BRANCHES = 1 << 16  # maximum per node
_MAX_BRANCHES = 1 << 26  # maximum in total, 540 MB


class Forest(NamedTuple):
    """All trees: arrays over vertices, and arrays over branches."""

    first: NDArray[np.int64]  # first branch of every vertex, -1 before it is known
    count: NDArray[np.int32]  # number of branches of every vertex
    score: NDArray[np.float64]  # score of every vertex after shrinking, NaN before it is known
    branch: NDArray[np.int32]  # node of every branch
    vertex: NDArray[np.int32]  # vertex of every branch, -1 before it exists
    used: NDArray[np.int64]  # numbers of vertices and of branches; the first p vertices are roots

    @classmethod
    def empty(cls, p: int) -> Forest:
        """Return a forest without trees (of zeros, so that memory is only used as they grow).

        It always has space for the search of one node: p vertices with p branches each.
        """
        n_branches = max(min(p * _BRANCHES, _MAX_BRANCHES), p * p)
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
    """Workspace: residuals of all nodes given the nodes on the path to the last vertex."""

    path: NDArray[np.int64]  # (p,) the parents so far: required ones, then the branches followed
    last: NDArray[np.int64]  # (p + 2,) the path of the current residuals, its owner and length
    rows: NDArray[np.float64]  # (depth, p) rows of the Cholesky factor
    variance: NDArray[np.float64]  # (depth, p) of every node, given the path so far
    covariance: NDArray[np.float64]  # (depth, p) of every node with the owner
    key: NDArray[np.float64]  # (p,)
    node: NDArray[np.int64]  # (p,)

    @classmethod
    def empty(cls, p: int) -> Growth:
        """Return the workspace for ``p`` nodes."""
        return cls(
            path=np.zeros(p + 1, np.int64),
            last=np.full(p + 2, -1, np.int64),
            rows=np.zeros((p + 1, p)),
            variance=np.zeros((p + 1, p)),
            covariance=np.zeros((p + 1, p)),
            key=np.zeros(p),
            node=np.zeros(p, np.int64),
        )


@inner
def _new_vertex(forest):
    """Add a vertex to the forest and return it."""
    vertex = forest.used[0]
    forest.used[0] = vertex + 1
    forest.first[vertex] = -1
    forest.score[vertex] = np.nan
    return vertex


@fast
def _condition(matrix, growth, k, node, owner):
    """Condition the residuals at depth ``k`` on the node, which gives those at ``k + 1``."""
    p = matrix.shape[0]
    row = growth.rows[k]
    # Row k of the Cholesky factor of the path, over all nodes: (r_u - sum_e l_ke l_ue) / l_kk.
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
    """Compute the residuals given the first ``depth`` nodes of the path."""
    p = problem.matrix.shape[0]
    # Start from the residuals of the last path, where the two paths diverge.
    last_depth = growth.last[p + 1]
    common = 0
    if last_depth >= 0 and growth.last[p] == owner:
        while common < min(last_depth, depth) and growth.last[common] == growth.path[common]:
            common += 1
    else:
        for u in range(p):
            growth.variance[0, u] = 1.0
            growth.covariance[0, u] = problem.matrix[owner, u]
    # Nodes that both paths share need no work.
    for k in range(common, depth):
        _condition(problem.matrix, growth, k, growth.path[k], owner)
        growth.last[k] = growth.path[k]
    growth.last[p] = owner
    growth.last[p + 1] = depth


@inner
def _branch_out(problem, forest, growth, vertex, owner, depth, sets):
    """Find the branches of a vertex, best first, among nodes neither grown nor passed over.

    A node raises the score if it explains a larger share of the remaining variance than the penalty
    requires.
    """
    _residuals(problem, growth, owner, depth)
    variance, covariance = growth.variance[depth], growth.covariance[depth]
    residual, n = variance[owner], np.int64(0)
    # -n/2 log(1 - r^2) > s(d) - s(d + 1), r the partial correlation given the path.
    bound = -np.expm1((problem.constant[depth + 1] - problem.constant[depth]) / problem.weight)
    for u in range(problem.matrix.shape[0]):
        explained = covariance[u] * covariance[u] / (variance[u] * residual)
        # Most nodes are excluded here, before anything else is read.
        if not explained > bound:
            continue
        if u == owner or sets[0, u] or sets[1, u] or problem.required[owner, u]:
            continue
        if variance[u] < _MIN_VARIANCE or residual < _MIN_VARIANCE:
            continue
        if not problem.forbidden[owner, u]:
            j = n
            while j > 0 and growth.key[j - 1] < explained:
                growth.key[j], growth.node[j] = growth.key[j - 1], growth.node[j - 1]
                j -= 1
            growth.key[j], growth.node[j] = explained, u
            n += 1
    first = forest.used[1]
    forest.first[vertex] = first
    forest.count[vertex] = 0
    for c in range(n):
        forest.branch[first + c] = growth.node[c]
        forest.vertex[first + c] = -1
        forest.count[vertex] += 1
        # A node that must precede the owner is in every prefix, so that no search passes it over.
        if problem.before[owner, growth.node[c]]:
            break
    forest.used[1] += forest.count[vertex]


@inner
def _plant(forest, growth):
    """Empty the forest except for the roots."""
    forest.used[0] = forest.used[1] = 0
    growth.last[growth.last.shape[0] - 1] = -1
    for _ in range(growth.key.shape[0]):
        _new_vertex(forest)


@inner
def trace(problem, forest, growth, scratch, owner, prefix, sets):
    """Grow and shrink the parents of a node in a prefix; return their score.

    ``sets``, (3, p), is filled with the nodes that were grown and passed over, and the parents that
    remain after shrinking.
    """
    p = prefix.shape[0]
    # Vertex i is the root of the tree of node i.
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
    # Shrinking depends on the grown nodes only, and is done once per vertex.
    if np.isnan(forest.score[vertex]):
        for node in range(p):
            sets[2, node] = sets[0, node] or problem.required[owner, node]
        forest.score[vertex] = shrink(problem, sets[2], owner, scratch)
    return forest.score[vertex]


class State(NamedTuple):
    """The order, and for every node its score and the sets of grown and passed-over nodes."""

    order: NDArray[np.int64]
    position: NDArray[np.int64]
    score: NDArray[np.float64]
    grown: NDArray[np.bool_]
    passed: NDArray[np.bool_]
    prefix: NDArray[np.bool_]  # (p,) workspace
    trial: NDArray[np.bool_]  # (3, p) workspace: the sets that ``trace`` fills
    moved: NDArray[np.bool_]  # (3, p) the same for the node that moves
    gain: NDArray[np.float64]  # (p,) workspace
    queue: NDArray[np.int64]  # (n_moving,) the nodes in the order in which a sweep moves them

    @classmethod
    def start(cls, order: NDArray[np.int64], n_context: int = 0) -> State:
        """Return the initial state, without scores; the first ``n_context`` nodes do not move."""
        p = len(order)
        return cls(
            order=order.copy(),
            position=np.argsort(order),
            score=np.zeros(p),
            grown=np.zeros((p, p), np.bool_),
            passed=np.zeros((p, p), np.bool_),
            prefix=np.zeros(p, np.bool_),
            trial=np.zeros((3, p), np.bool_),
            moved=np.zeros((3, p), np.bool_),
            gain=np.zeros(p),
            queue=np.arange(p - n_context),
        )


@spliced
def _settle(problem, forest, growth, scratch, state, node):
    """Update the score and sets of a node for the prefix ``state.prefix``."""
    trial = state.trial
    state.score[node] = trace(problem, forest, growth, scratch, node, state.prefix, trial)
    for other in range(trial.shape[1]):
        state.grown[node, other], state.passed[node, other] = trial[0, other], trial[1, other]


@spliced
def _settle_all(problem, forest, growth, scratch, state):
    """Score the whole order."""
    state.prefix[:] = False
    for m in range(state.order.shape[0]):
        _settle(problem, forest, growth, scratch, state, state.order[m])
        state.prefix[state.order[m]] = True


@spliced
def _weigh(problem, forest, growth, scratch, state, v, low, high):
    """Fill ``gain[j]``, the increase of the score if v is moved to place j."""
    a = state.position[v]
    prefix, gain = state.prefix, state.gain
    prefix[:] = False
    # v is at place low or later, and so is not among these.
    for m in range(low):
        prefix[state.order[m]] = True
    node_score = trace(problem, forest, growth, scratch, v, prefix, state.moved)
    # The gain of all other nodes together as v moves on from place low.
    shift = 0.0
    gain[low] = node_score
    for j in range(low, high):
        node = state.order[j] if j < a else state.order[j + 1]
        touched = state.passed[node, v] if j < a else state.grown[node, v]
        if touched:
            prefix[v] = j < a
            change = trace(problem, forest, growth, scratch, node, prefix, state.trial)
            change -= state.score[node]
            prefix[v] = False
            shift += -change if j < a else change
        prefix[node] = True
        if state.moved[1, node]:
            node_score = trace(problem, forest, growth, scratch, v, prefix, state.moved)
        gain[j + 1] = node_score + shift
    # Relative to the current place of v.
    current_gain = gain[a]
    for j in range(low, high + 1):
        gain[j] -= current_gain


@spliced
def _move(problem, forest, growth, scratch, state, v, target):
    """Move v to place ``target`` and update the scores that change."""
    a = state.position[v]
    step = 1 if target > a else -1
    # The nodes between move one place towards the former place of v.
    for m in range(a, target, step):
        state.order[m] = state.order[m + step]
        state.position[state.order[m]] = m
    state.order[target] = v
    state.position[v] = target
    state.prefix[:] = False
    for m in range(max(a, target) + 1):
        node = state.order[m]
        if m >= min(a, target):
            touched = state.grown[node, v] if step > 0 else state.passed[node, v]
            if node == v or touched:
                _settle(problem, forest, growth, scratch, state, node)
        state.prefix[node] = True


@spliced
def _limits(before, after, state, v):
    """Return the first and last place of v that agree with the known orders."""
    low, high = np.int64(0), state.order.shape[0] - 1
    # After the last node that must precede v, and before the first that must follow it.
    for m in range(state.order.shape[0]):
        node = state.order[m]
        if before[v, node]:
            low = m + 1
        elif after[v, node]:
            return low, m - 1
    return low, high


@spliced
def _improve(problem, forest, growth, scratch, state, random):
    """Move each node in turn to its best place until no move gains."""
    queue, has_moved = state.queue, True
    while has_moved:
        # A new sweep, with the nodes in a new random order (Fisher and Yates).
        for k in range(queue.shape[0] - 1, 0, -1):
            other = random_below(random, k + 1)
            queue[k], queue[other] = queue[other], queue[k]
        # Greedy: the place with the highest sum of scores, if it gains.
        has_moved = False
        for v in queue:
            low, high = _limits(problem.before, problem.after, state, v)
            _weigh(problem, forest, growth, scratch, state, v, low, high)
            best, gain = state.position[v], 1e-6 + 1e-11 * problem.weight  # more than rounding
            for j in range(low, high + 1):
                if state.gain[j] > gain:
                    best, gain = j, state.gain[j]
            if best != state.position[v]:
                has_moved = True
                _move(problem, forest, growth, scratch, state, v, best)


@lean
def climb(problem, forest, growth, scratch, state, random, parents):
    """Search from the order in ``state`` until no move gains; fill the parent sets."""
    _settle_all(problem, forest, growth, scratch, state)
    _improve(problem, forest, growth, scratch, state, random)
    # Parents are the grown nodes without those that shrinking drops.
    for i in range(parents.shape[0]):
        for k in range(parents.shape[1]):
            parents[i, k] = state.grown[i, k] or problem.required[i, k]
        shrink(problem, parents[i], i, scratch)
