"""The compiled best-order search: one node after the other goes to its best place in the order.

What a move changes. For every node the search keeps the set it grew to and the set of branches it
passed over. Putting v into the prefix of w changes the parents of w only if v was passed over,
taking it out only if it was grown: all other scores stand without a look at the tree.
"""

# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import lean, spliced
from nextpert.core.search._classes import random_below, shrink
from nextpert.core.search._grow_shrink import trace

if TYPE_CHECKING:
    from numpy.typing import NDArray


class State(NamedTuple):
    """The order, and for every node its score and the sets grown and passed over."""

    order: NDArray[np.int64]
    place: NDArray[np.int64]
    score: NDArray[np.float64]
    grown: NDArray[np.bool_]
    passed: NDArray[np.bool_]
    prefix: NDArray[np.bool_]  # (p,) scratch
    trial: NDArray[np.bool_]  # (3, p) scratch: sets grown, passed over and shrunk to
    own: NDArray[np.bool_]  # (3, p) the same for the node that moves
    gain: NDArray[np.float64]  # (p,) scratch
    queue: NDArray[np.int64]  # (n_moving,) the nodes in the order in which a sweep moves them

    @classmethod
    def start(cls, order: NDArray[np.int64], n_context: int = 0) -> State:
        """Return the state before any score is known; the first ones of the order stay there."""
        p = len(order)
        return cls(
            order=order.copy(),
            place=np.argsort(order),
            score=np.zeros(p),
            grown=np.zeros((p, p), np.bool_),
            passed=np.zeros((p, p), np.bool_),
            prefix=np.zeros(p, np.bool_),
            trial=np.zeros((3, p), np.bool_),
            own=np.zeros((3, p), np.bool_),
            gain=np.zeros(p),
            queue=np.arange(p - n_context),
        )


@spliced
def _settle(problem, forest, growth, scratch, state, node):
    """Bring score and sets of a node up to date with ``prefix``."""
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
    """Fill ``gain[j]``, by how much the score rises if v stands at place j."""
    a = state.place[v]
    prefix, gain = state.prefix, state.gain
    prefix[:] = False
    for m in range(low):  # v stands at low or later, so that it is not among these
        prefix[state.order[m]] = True
    own = trace(problem, forest, growth, scratch, v, prefix, state.own)
    shift = 0.0  # of all others together, as v moves on from place low
    gain[low] = own
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
        if state.own[1, node]:
            own = trace(problem, forest, growth, scratch, v, prefix, state.own)
        gain[j + 1] = own + shift
    here = gain[a]
    for j in range(low, high + 1):
        gain[j] -= here


@spliced
def _move(problem, forest, growth, scratch, state, v, target):
    """Put v at place ``target`` and score anew what it touches."""
    a = state.place[v]
    step = 1 if target > a else -1
    for m in range(a, target, step):
        state.order[m] = state.order[m + step]
        state.place[state.order[m]] = m
    state.order[target] = v
    state.place[v] = target
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
    """Return the first and the last place at which v agrees with the orders known before."""
    low, high = np.int64(0), state.order.shape[0] - 1
    for m in range(state.order.shape[0]):
        node = state.order[m]
        if before[v, node]:
            low = m + 1
        elif after[v, node]:
            return low, m - 1
    return low, high


@spliced
def _improve(problem, forest, growth, scratch, state, random):
    """Move one node after the other to its best place until none gains."""
    queue, has_moved = state.queue, True
    while has_moved:
        for k in range(queue.shape[0] - 1, 0, -1):  # a new sweep, in a new order of nodes
            other = random_below(random, k + 1)
            queue[k], queue[other] = queue[other], queue[k]
        has_moved = False
        for v in queue:
            low, high = _limits(problem.before, problem.after, state, v)
            _weigh(problem, forest, growth, scratch, state, v, low, high)
            best, gain = state.place[v], 1e-6 + 1e-11 * problem.weight  # more than rounding
            for j in range(low, high + 1):
                if state.gain[j] > gain:
                    best, gain = j, state.gain[j]
            if best != state.place[v]:
                has_moved = True
                _move(problem, forest, growth, scratch, state, v, best)


@lean
def climb(problem, forest, growth, scratch, state, random, parents):
    """Search from the order in ``state`` until no move gains; write the sets of parents."""
    _settle_all(problem, forest, growth, scratch, state)
    _improve(problem, forest, growth, scratch, state, random)
    for i in range(parents.shape[0]):
        for k in range(parents.shape[1]):
            parents[i, k] = state.grown[i, k] or problem.required[i, k]
        shrink(problem, parents[i], i, scratch)
