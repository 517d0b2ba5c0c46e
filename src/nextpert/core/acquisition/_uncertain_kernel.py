"""What cells of one candidate teach about the gap of another, shifts uncertain, compiled.

For node i, candidate l and ``q = (1, mu*_P)`` the gap's term has the variance
``e_i (1/n + r_il)`` with ``r = y'My + t``, ``y = q - w z``: ``z = (1, mean of its cells)``, ``w``
the share of a departure that is believed, ``t`` the spare variance of its shift. Cells of j at
``x = (1, mean expected)`` observe the weights along ``v = x - w z``, and its shift, so that
``r_il`` falls by ``c^2 / d2`` with ``c = y_l'M v_j + [l = j] t_j`` and
``d2 = 1/n + v_j'M v_j + t_j``.

Where an effect f of a candidate is expected whatever the weights, target, mean and state are less
f. Candidates without cells and such effects have the same ``y = q``. So sums run over groups of
equal ``y``: one of all these (group 0), and each of the others by itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextpert.core._compile import entry, inner

Array = NDArray[np.float64]
Whole = NDArray[np.int64]


class Gaps(NamedTuple):
    """All arrays of one posterior; flat blocks as in the posterior's kernels, others (p, m)."""

    inv_n: float
    indptr: Whole
    indices: Whole
    vptr: Whole
    mptr: Whole
    cov: Array  # M of each node, flat
    target: Array  # mu*, (p, m), or (p, 1) where it is the same for all
    mean: Array  # of the cells, the posterior's fixed columns after the nodes
    state: Array  # expected
    share: Array  # w
    again: Array  # share believed of hypothetical cells at the state, of what w leaves
    spare: Array  # t
    square: Array  # squared expected term of the gap
    weight: Array  # of each candidate in the average, (m,)
    group: Whole  # of each candidate, (m,); -1 where it is left out of the average
    e: Array  # (p,)
    kappa: Array  # (p,)


@inner
def _direction(gaps: Any, i: int, base: Array, rows: Array) -> None:
    """Fill ``rows`` (d, m) with ``(1, base) - w z``; ``base`` is (p, m) or (p, 1).

    After hypothetical cells ``w z`` is ``(1 - again) w z + again x``.
    """
    first = gaps.indptr[i]
    degree = gaps.indptr[i + 1] - first
    k = gaps.vptr[i + 1] - gaps.vptr[i] - degree
    step, p = 1 if base.shape[1] > 1 else 0, len(gaps.indptr) - 1
    for j in range(rows.shape[1]):
        again = gaps.again[i, j]
        share = (1.0 - again) * gaps.share[i, j]
        if k:
            rows[0, j] = 1.0 - share - again
        for a in range(1, k):  # fixed columns, which come after the nodes of the cells' means
            rows[a, j] = -share * gaps.mean[p + a - 1, j] if len(gaps.mean) > p else 0.0
        for a in range(degree):
            node = gaps.indices[first + a]
            rows[k + a, j] = base[node, step * j] - share * gaps.mean[node, j]
            rows[k + a, j] -= again * gaps.state[node, j]


@inner
def _multiply(gaps: Any, i: int, rows: Array, product: Array, square: Array) -> None:
    """Fill ``product = M rows`` (d, m) and ``square = rows' M rows`` (m,)."""
    d, m = rows.shape
    start = gaps.mptr[i]
    for j in range(m):
        square[j] = 0.0
    for a in range(d):
        for j in range(m):
            product[a, j] = 0.0
        for b in range(d):
            entry = gaps.cov[start + a * d + b]
            for j in range(m):
                product[a, j] += entry * rows[b, j]
        for j in range(m):
            square[j] += rows[a, j] * product[a, j]


@entry
def weights_part(gaps: Any, out: Array) -> None:
    """Fill ``y'My`` of every node and candidate, (p, m)."""
    p, m = out.shape
    for i in range(p):
        d = gaps.vptr[i + 1] - gaps.vptr[i]
        rows, product = np.empty((d, m)), np.empty((d, m))
        _direction(gaps, i, gaps.target, rows)
        _multiply(gaps, i, rows, product, out[i])


@entry
def observe(gaps: Any, one: Any, j: int) -> None:
    """Take in hypothetical cells of candidate j: ``cov``, ``again`` and ``spare``, in place.

    ``one`` are the same gaps with candidate j alone.
    """
    for i in range(len(gaps.vptr) - 1):
        d, start = gaps.vptr[i + 1] - gaps.vptr[i], gaps.mptr[i]
        rows, product, square = np.empty((d, 1)), np.empty((d, 1)), np.empty(1)
        _direction(one, i, one.state, rows)
        _multiply(gaps, i, rows, product, square)
        t = gaps.spare[i, j]
        d2 = gaps.inv_n + t + square[0]
        for a in range(d):
            for b in range(d):
                gaps.cov[start + a * d + b] -= product[a, 0] * product[b, 0] / d2
        told = t / (t + gaps.inv_n)
        gaps.again[i, j] += told * (1.0 - gaps.again[i, j])
        gaps.spare[i, j] = t * (1.0 - told)


@inner
def _group_sums(gaps: Any, i: int, sums: Array) -> None:
    """Fill weight, and weighted t, t^2, g and t g of every group, (5, n_groups).

    ``g`` is the slope ``2 kappa / n + 4 e E[term]^2`` of the gap's variance in ``r``.
    """
    sums[:] = 0.0
    for j in range(len(gaps.group)):
        c = gaps.group[j]
        if c < 0:
            continue
        weight, t = gaps.weight[j], gaps.spare[i, j]
        g = 2.0 * gaps.kappa[i] * gaps.inv_n + 4.0 * gaps.e[i] * gaps.square[i, j]
        sums[0, c] += weight
        sums[1, c] += weight * t
        sums[2, c] += weight * t * t
        sums[3, c] += weight * g
        sums[4, c] += weight * t * g


@entry
def look_ahead(gaps: Any, leaders: Whole, own: Array, others: Array, left: Array) -> None:
    """Fill what is left of the gaps' variances after cells of each candidate j, less its floor.

    ``leaders`` are a candidate of each group, -1 where group 0 is empty. ``others`` (2, m): sums,
    weighted, over group 0 and over all other groups, as if the cells told nothing of j's own shift.
    ``own`` (m,): what they tell of it takes from j's gap. ``left`` (n_groups + 2, m), or (0, m)
    where it is not wanted: ``sum_i e (r - t)`` of every group, then ``sum_i e r`` of j itself with
    what is told of its shift, and without.
    """
    p, m = gaps.spare.shape
    n_groups = len(leaders)
    sums, cross = np.empty((5, n_groups)), np.empty(m)
    own[:], others[:], left[:] = 0.0, 0.0, 0.0
    now, d2 = np.empty(m), np.empty(m)
    for i in range(p):
        d = gaps.vptr[i + 1] - gaps.vptr[i]
        e, kappa = gaps.e[i], gaps.kappa[i]
        rows, taught, product = np.empty((d, m)), np.empty((d, m)), np.empty((d, m))
        _direction(gaps, i, gaps.target, rows)
        _multiply(gaps, i, rows, product, now)
        _direction(gaps, i, gaps.state, taught)
        _multiply(gaps, i, taught, product, d2)
        for j in range(m):
            d2[j] += gaps.inv_n + gaps.spare[i, j]
        _group_sums(gaps, i, sums)
        for c in range(n_groups):
            leader = leaders[c]
            if leader < 0:
                continue
            _cross(rows[:, leader], product, cross)
            weight, t, t2, g, tg = sums[0, c], sums[1, c], sums[2, c], sums[3, c], sums[4, c]
            row = others[min(c, 1)]
            for j in range(m):
                v = now[leader] - cross[j] * cross[j] / d2[j]
                row[j] += kappa * (t2 + v * (2.0 * t + v * weight)) + tg + v * g
                if len(left):
                    left[c, j] += e * v
        for j in range(m):
            shared = 0.0
            for a in range(d):
                shared += rows[a, j] * product[a, j]
            t = gaps.spare[i, j]
            g = 2.0 * kappa * gaps.inv_n + 4.0 * e * gaps.square[i, j]
            told = now[j] + t - (shared + t) * (shared + t) / d2[j]
            gain = t * (2.0 * shared + t) / d2[j]
            own[j] += gain * (kappa * (2.0 * told + gain) + g)
            if len(left):
                left[n_groups, j] += e * told
                left[n_groups + 1, j] += e * (told + gain)


@inner
def _cross(row: Array, product: Array, cross: Array) -> None:
    for j in range(len(cross)):
        cross[j] = 0.0
    for a in range(len(row)):
        for j in range(len(cross)):
            cross[j] += row[a] * product[a, j]
