"""Compiled: a node and its parents. What each parent explains, and the score of them all.

With R the correlation of some nodes in a given sequence, R = L L' and V = L^-1, the partial
correlation of the last node j and an earlier node i given all the others is
``-V[j, i] / sqrt(sum_{k >= i} V[k, i]^2)``, because V'V is the precision matrix. A row of V is
added for each further node, and no test needs an inverse of its own.

Scores are ``constant[d] - half * log|C_P| - weight[d] * log var(v | P)`` for d parents P, where C
is a covariance scaled to a unit diagonal. BIC and BGe are of that form, and so are tests: dropping
a parent gains where its partial correlation is not significant. Each parent may add log-odds.
"""

# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import fast, inner, lean
from nextpert.core.search._bits import flip, has, members

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Score(NamedTuple):
    """A decomposable score (see the head of this file) and prior knowledge as bit sets.

    ``required[i]`` and ``forbidden[i]`` are parents of ``i``; ``before[i]`` and ``after[i]`` are
    the nodes that must stand before and after ``i``.
    """

    matrix: NDArray[np.float64]  # (p, p), unit diagonal
    constant: NDArray[np.float64]  # (p + 1,) by number of parents
    weight: NDArray[np.float64]  # (p + 1,) by number of parents
    half: float
    required: NDArray[np.uint64]
    forbidden: NDArray[np.uint64]
    before: NDArray[np.uint64]
    after: NDArray[np.uint64]
    log_odds: NDArray[np.float64]  # (p, p), row = child; (0, 0) where no edge has any


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


@lean
def local_score(problem, row, child, scratch):
    """Return the score of a node with the parents in ``row``."""
    m, residual = add_family(problem.matrix, row, child, scratch)
    log_volume = 0.0
    for k in range(m):
        log_volume -= 2.0 * np.log(scratch.factor[k, k])
    fit = problem.constant[m] - problem.half * log_volume - problem.weight[m] * np.log(residual)
    if problem.log_odds.shape[0] > 0:
        for k in range(m):
            fit += problem.log_odds[child, scratch.sequence[k]]
    return fit


@inner
def shrink(problem, row, child, scratch):
    """Drop parents while the score rises, the best first; return the score."""
    current = local_score(problem, row, child, scratch)
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
            gain = problem.constant[m - 1] - problem.constant[m] - problem.half * np.log(inside)
            gain -= problem.weight[m - 1] * (np.log(residual) - np.log1p(-share))
            gain += problem.weight[m] * np.log(residual)
            if problem.log_odds.shape[0] > 0:
                gain -= problem.log_odds[child, sequence[i]]
            if gain > best and not has(problem.required[child], sequence[i]):
                best, place = gain, i
        if place < 0:
            return current
        flip(row, sequence[place])
        current = local_score(problem, row, child, scratch)


def total_score(problem: Score, parents: NDArray[np.uint64]) -> float:
    """Return the score of a graph from its parents as bit sets, (p, words)."""
    scratch = Scratch.empty(len(parents))
    return float(sum(local_score(problem, row, i, scratch) for i, row in enumerate(parents)))
