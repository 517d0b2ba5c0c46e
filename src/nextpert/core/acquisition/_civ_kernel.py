"""CIV over candidates, compiled: what cells of one teach about the gap of another.

Equations 14 to 16 of the mathematics page. Shifts are uncertain; exact ones, with ``w = t = 0``,
are a special case. For node i, candidate l and ``q = (1, mu*_P)`` the gap's term has the variance
``e_i (1/n + r_il)`` with ``r = y'My + t``, ``y = q - w z``: ``z = (1, mean of its cells)``, ``w``
the share of a departure that is believed, ``t`` the spare variance of its shift. Cells of j at
``x = (1, mean expected)`` observe the weights along ``v = x - w z``, and its shift, so that
``r_il`` falls by ``c^2 / d2`` with
``c = y_l'M v_j + [l = j] t_j`` and ``d2 = 1/n + v_j'M v_j + t_j``.

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
def _fill_weights_part(gaps: Any, out: Array) -> None:
    p = len(gaps.vptr) - 1
    for i in range(p):
        d = gaps.vptr[i + 1] - gaps.vptr[i]
        rows, product = np.empty((d, out.shape[1])), np.empty((d, out.shape[1]))
        _direction(gaps, i, gaps.target, rows)
        _multiply(gaps, i, rows, product, out[i])


def weights_part(gaps: Gaps) -> Array:
    """Return ``y'My`` of every node and candidate, (p, m)."""
    out = np.empty_like(gaps.spare)
    _fill_weights_part(gaps, out)
    return out


@entry
def _take_in(gaps: Any, one: Any, inv_n: float) -> None:
    for i in range(len(gaps.vptr) - 1):
        d, start = gaps.vptr[i + 1] - gaps.vptr[i], gaps.mptr[i]
        rows, product, square = np.empty((d, 1)), np.empty((d, 1)), np.empty(1)
        _direction(one, i, one.state, rows)
        _multiply(gaps, i, rows, product, square)
        t = one.spare[i, 0]
        d2 = inv_n + t + square[0]
        for a in range(d):
            for b in range(d):
                gaps.cov[start + a * d + b] -= product[a, 0] * product[b, 0] / d2
        told = t / (t + inv_n)
        one.again[i, 0] += told * (1.0 - one.again[i, 0])
        one.spare[i, 0] = t * (1.0 - told)


def columns(gaps: Gaps, some: Whole) -> Gaps:
    """Return the gaps of some candidates alone, as they are now."""
    names = ["mean", "state", "share", "again", "spare"]
    names += ["target"] if gaps.target.shape[1] > 1 else []
    one: dict[str, Any] = {
        name: np.ascontiguousarray(getattr(gaps, name)[:, some]) for name in names
    }
    return gaps._replace(**one)


def observe(gaps: Gaps, j: int, inv_n: float) -> None:
    """Take in 1 / ``inv_n`` hypothetical cells of candidate j, in place.

    They change ``cov``, and ``again`` and ``spare`` of j.
    """
    one = columns(gaps, np.array([j]))
    _take_in(gaps, one, inv_n)
    gaps.again[:, j], gaps.spare[:, j] = one.again[:, 0], one.spare[:, 0]


@entry
def look_ahead(
    gaps: Any, lead: Any, inv_n: float, quad: Array, lin: Array, kappa: Array, slope: Array,
    e: Array, own: Array, others: Array, left: Array,
) -> None:  # fmt: skip
    """Fill how the gaps' variances change by 1 / ``inv_n`` cells of each candidate j of ``gaps``.

    ``lead`` are the gaps of a candidate of each of G groups. Of a group, ``v`` left of the
    weights' part adds ``quad v^2 + lin v``, both (p, G), to the average; of candidate j alone,
    ``r`` left adds ``kappa r^2 + slope r``, (p,) and (p, m), to its variance. ``others`` (2, m):
    changes of the sums over group 0 and over all other groups, as if the cells told nothing of j's
    own shift. ``own`` (m,): what they tell of it takes from j's variance. ``left`` (G + 2, m), or
    (0, m) where it is not wanted: ``sum_i e v`` of every group, then ``sum_i e r`` of j itself
    with what is told of its shift, and without.
    """
    p, m = gaps.spare.shape
    n_groups = quad.shape[1]
    cross, now, d2, level = np.empty(m), np.empty(m), np.empty(m), np.empty(n_groups)
    own[:], others[:], left[:] = 0.0, 0.0, 0.0
    for i in range(p):
        d = gaps.vptr[i + 1] - gaps.vptr[i]
        rows, taught, product = np.empty((d, m)), np.empty((d, m)), np.empty((d, m))
        leading, spent = np.empty((d, n_groups)), np.empty((d, n_groups))
        _direction(lead, i, lead.target, leading)
        _multiply(lead, i, leading, spent, level)
        _direction(gaps, i, gaps.target, rows)
        _multiply(gaps, i, rows, product, now)
        _direction(gaps, i, gaps.state, taught)
        _multiply(gaps, i, taught, product, d2)
        for j in range(m):
            d2[j] += inv_n + gaps.spare[i, j]
        for c in range(n_groups):
            _cross(leading[:, c], product, cross)
            row, top = others[min(c, 1)], lin[i, c] + 2.0 * quad[i, c] * level[c]
            for j in range(m):
                fall = cross[j] * cross[j] / d2[j]  # equation 16
                row[j] -= (top - quad[i, c] * fall) * fall
                if len(left):
                    left[c, j] += e[i] * (level[c] - fall)
        for j in range(m):
            shared = 0.0
            for a in range(d):
                shared += rows[a, j] * product[a, j]
            t = gaps.spare[i, j]
            told = now[j] + t - (shared + t) * (shared + t) / d2[j]
            gain = t * (2.0 * shared + t) / d2[j]
            own[j] += gain * (kappa[i] * (2.0 * told + gain) + slope[i, j])
            if len(left):
                left[n_groups, j] += e[i] * told
                left[n_groups + 1, j] += e[i] * (told + gain)


@inner
def _cross(row: Array, product: Array, cross: Array) -> None:
    for j in range(len(cross)):
        cross[j] = 0.0
    for a in range(len(row)):
        for j in range(len(cross)):
            cross[j] += row[a] * product[a, j]
