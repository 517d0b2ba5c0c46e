"""Compiled: the score of a node with given parents, and dropping those it is better without.

Scores are ``constant[d] - half * log|C_P| - weight[d] * log var(v | P)`` for d parents P, where C
is a covariance scaled to a unit diagonal: BIC and BGe are both of that form. Each parent may add
log-odds of its own.
"""

# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import entry, inner
from nextpert.core.search._bits import flip, has, members
from nextpert.core.search._imap import add_family

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ScoreProblem(NamedTuple):
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
    log_odds: NDArray[np.float64]  # (p, p), row = child; (0, 0) where no arc has any


@entry
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
