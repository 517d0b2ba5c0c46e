"""Compiled parts of the permutation searches: partial correlations by growing a factor.

With R the correlation of some nodes in a given sequence, R = L L' and V = L^-1, the partial
correlation of the last node j and an earlier node i given all the others is
``-V[j, i] / sqrt(sum_{k >= i} V[k, i]^2)``, because V'V is the precision matrix. A row of V is
added for each further node, so a whole permutation costs p^3 / 3 multiplications, and no test
needs an inverse of its own. Squared values are compared with squared thresholds (one a number of
conditioning nodes), which spares the square root and the logarithm of Fisher's z.
"""

# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import entry, fast, inner
from nextpert.core.search._bits import (
    flip,
    has,
    members,
    random_below,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Problem(NamedTuple):
    """What is known: correlations, squared thresholds, prior knowledge as bit sets.

    ``required[i]`` and ``forbidden[i]`` are parents of ``i``; ``before[i]`` and ``after[i]`` are
    the nodes that must stand before and after ``i``.
    """

    corr: NDArray[np.float64]
    precision: NDArray[np.float64]
    threshold: NDArray[np.float64]
    required: NDArray[np.uint64]
    forbidden: NDArray[np.uint64]
    before: NDArray[np.uint64]
    after: NDArray[np.uint64]
    ordered: bool


class Scratch(NamedTuple):
    """Arrays to work in: the factor V, the column sums of its squares, its sequence of nodes."""

    factor: NDArray[np.float64]
    sums: NDArray[np.float64]
    sequence: NDArray[np.int64]

    @classmethod
    def empty(cls, p: int) -> Scratch:
        """Return scratch for sequences of up to ``p`` nodes."""
        return cls(np.zeros((p, p)), np.zeros(p), np.zeros(p, np.int64))


@fast
def add_row(corr, sequence, m, factor, sums):
    """Add row ``m`` of V for node ``sequence[m]``; return its variance given those before it."""
    node = sequence[m]
    new = factor[m]
    for i in range(m):
        new[i] = 0.0
    explained = 0.0
    for k in range(m):
        row = factor[k]
        score = 0.0
        for i in range(k + 1):
            score += row[i] * corr[node, sequence[i]]
        explained += score * score
        for i in range(k + 1):
            new[i] += score * row[i]
    residual = 1.0 - explained
    scale = 1.0 / np.sqrt(residual)
    for i in range(m):
        new[i] *= -scale
        sums[i] += new[i] * new[i]
    new[m] = scale
    sums[m] = scale * scale
    return residual


@inner
def add_family(corr, row, child, scratch):
    """Build V for the parents in ``row`` and then ``child``; return their number, its variance."""
    m = members(row, scratch.sequence)
    scratch.sequence[m] = child
    residual = 1.0
    for k in range(m + 1):
        residual = add_row(corr, scratch.sequence, k, scratch.factor, scratch.sums)
    return m, residual


@entry
def imap_of_order(problem, order, scratch, parents):
    """Write the minimal I-map of a permutation to ``parents`` (bit sets); return its arcs.

    Those are counted too that are forbidden this way round only.
    """
    n_arcs = 0
    for m in range(order.shape[0]):
        child = order[m]
        for w in range(parents.shape[1]):
            parents[child, w] = np.uint64(0)
        add_row(problem.corr, order, m, scratch.factor, scratch.sums)
        for i in range(m):
            parent = order[i]
            dependent = scratch.factor[m, i] ** 2 > problem.threshold[m - 1] * scratch.sums[i]
            if has(problem.forbidden[child], parent):
                # Left out, but counted where the other direction is free: the order is no I-map.
                n_arcs += np.int64(dependent and not has(problem.forbidden[parent], child))
                dependent = False
            if dependent or has(problem.required[child], parent):
                flip(parents[child], parent)
                n_arcs += 1
    return n_arcs


@entry
def prune(problem, scratch, parents):
    """Drop, weakest first, the parents independent of a child given its others; count them."""
    dropped = 0
    for child in range(parents.shape[0]):
        while True:
            m, _ = add_family(problem.corr, parents[child], child, scratch)
            weakest, place = 1.0, np.int64(-1)
            for i in range(m):
                bound = problem.threshold[m - 1] * scratch.sums[i]
                strength = scratch.factor[m, i] ** 2 / bound
                if strength <= weakest and not has(problem.required[child], scratch.sequence[i]):
                    weakest, place = strength, i
            if place < 0:
                break
            flip(parents[child], scratch.sequence[place])
            dropped += 1
    return dropped


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
def sparse_order(problem, slack, random, work, left, order):
    """Draw a permutation by minimum-degree elimination, last node first; return its arcs.

    The degree of a node is its number of dependent nodes given all that are left; these become
    its parents. Once a node is gone, the precision matrix of the rest follows by one step of
    elimination and is tested anew, which finds far sparser orders than filling in a graph. One of
    the nodes within ``slack`` of the least degree is taken at random. A node waits for those that
    must stand after it.
    """
    p, words = problem.after.shape
    pivot, inverse = np.zeros(p), np.empty(p)
    degree = np.empty(p, np.int64)
    remaining = np.zeros(words, np.uint64)
    for i in range(p):
        left[i] = i
        flip(remaining, i)
        for j in range(i + 1):
            work[i, j] = problem.precision[i, j]
    n_arcs = 0
    scale = 0.0
    for n in range(p, 0, -1):
        _marginalise(work, n, pivot, scale, problem.threshold[max(n - 2, 0)], inverse, degree)
        if problem.ordered:
            for a in range(n):
                for w in range(words):
                    if problem.after[left[a], w] & remaining[w] != np.uint64(0):
                        degree[a] = -1
        chosen = _draw_least(degree, n, slack, random)
        n_arcs += degree[chosen]
        order[n - 1] = left[chosen]
        flip(remaining, left[chosen])
        left[chosen] = left[n - 1]
        scale = _take_out(work, n, chosen, pivot)
    return n_arcs
