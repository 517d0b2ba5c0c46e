"""One look ahead: what ``n`` hypothetical cells under a shift would leave uncertain.

For a shift ``a`` the hypothetical cells are n copies of ``x' = (I - B)^-1 (c + a)``. Node i's
``w_i = q' M q`` becomes ``w_i - d1^2 / d2`` with ``d1 = (M q)' x'_P``, ``d2 = 1/n + x'_P' M x'_P``.
The criteria are functions of these; their gradients follow by one adjoint substitution. Sums over
``s_i = 1/n + w_i`` are returned without the part that no shift can change (their value at w = 0),
which may exceed the rest ten-thousand-fold: a search must see the rest with all its digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import entry, inner

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUM, MAX, NORM = 0, 1, 2  # sum of a s^2 + b s; largest b w; largest b ||M'||


class Problem(NamedTuple):
    """All arrays of one acquisition; layout of the blocks as in ``posterior._kernels``."""

    kind: int
    inv_n: float
    intercept: int
    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    order: NDArray[np.int64]
    vptr: NDArray[np.int64]
    mptr: NDArray[np.int64]
    weights: NDArray[np.float64]
    cov: NDArray[np.float64]
    offset: NDArray[np.float64]  # c, (p,)
    u: NDArray[np.float64]  # M q of each node, flat
    w0: NDArray[np.float64]  # q' M q, (p,)
    quad: NDArray[np.float64]  # a of the sum, (p,)
    lin: NDArray[np.float64]  # b of the sum or the maximum, (p,)
    eigval: NDArray[np.float64]  # of M, ascending, flat (NORM only)
    eigvec: NDArray[np.float64]  # of M, columns, flat (NORM only)


@entry
def project_target(vptr, mptr, indptr, indices, intercept, cov, target, u, w0):
    """Fill ``u = M q`` and ``w0 = q' M q`` of each node, q = (1, mu*_P)."""
    for i in range(len(vptr) - 1):
        v, m = vptr[i], mptr[i]
        d = vptr[i + 1] - v
        q = np.ones(d)
        for a in range(indptr[i + 1] - indptr[i]):
            q[intercept + a] = target[indices[indptr[i] + a]]
        w = 0.0
        for a in range(d):
            s = 0.0
            for b in range(d):
                s += cov[m + a * d + b] * q[b]
            u[v + a] = s
            w += s * q[a]
        w0[i] = w


@inner
def _reach(problem, shift, x):
    """Fill the mean ``x`` reached by a shift (equation 1), substituted along the order."""
    indptr, indices, vptr = problem.indptr, problem.indices, problem.vptr
    order, weights, offset = problem.order, problem.weights, problem.offset
    for t in range(len(order)):
        i = order[t]
        start, first = vptr[i] + problem.intercept, indptr[i]
        s = shift[i] + offset[i]
        for a in range(indptr[i + 1] - first):
            s += weights[start + a] * x[indices[first + a]]
        x[i] = s


@inner
def _node(layout, k, inv_n, cov, u, i, x, row, y):
    """Fill the design row of node i and y = M row; return d1, d2: equation 16 is ``d1^2 / d2``."""
    indptr, indices, vptr, mptr = layout
    first, v, m = indptr[i], vptr[i], mptr[i]
    d = vptr[i + 1] - v
    if k:
        row[0] = 1.0
    for a in range(d - k):
        row[k + a] = x[indices[first + a]]
    # A two-dimensional view: its inner index is a plain counter, so that the loop vectorises.
    block = cov[m : m + d * d].reshape(d, d)
    for a in range(d):
        y[a] = 0.0
    for b in range(d):  # M is symmetric: add its rows, which lie along memory
        s = row[b]
        for a in range(d):
            y[a] += s * block[b, a]
    d1, d2 = 0.0, inv_n
    for a in range(d):
        d1 += u[v + a] * row[a]
        d2 += row[a] * y[a]
    return d1, d2


@entry
def top_decrease(values, z, d2):
    """How far the largest eigenvalue of ``diag(values) - z z' / d2`` lies below the last value.

    ``values`` ascend. The decrease t solves ``1 = sum z^2 / (d2 (values - values[-1] + t))`` and
    ends at the second value at the latest; bisecting t itself keeps its digits where it is small.
    """
    d = len(values)
    last = values[d - 1]
    low, high = 0.0, z[d - 1] * z[d - 1] / d2
    if d > 1:
        high = min(high, last - values[d - 2])
    for _ in range(60):
        mid = 0.5 * (low + high)
        if mid <= low or mid >= high:
            break
        f = 1.0
        for j in range(d):
            gap = values[j] - last + mid
            if gap != 0.0:
                f -= z[j] * z[j] / (d2 * gap)
        if f > 0.0:
            high = mid
        else:
            low = mid
    return 0.5 * (low + high)


@inner
def _norm(problem, i, row, d2, z, vec):
    """Largest eigenvalue of M' of node i; fills z = V' M row and the eigenvector, eigenbasis.

    The vector is left zero where it is perpendicular to z, so that its gradient comes out as zero.
    """
    v, m = problem.vptr[i], problem.mptr[i]
    d = problem.vptr[i + 1] - v
    values = problem.eigval[v : v + d]
    for j in range(d):
        s = 0.0
        for a in range(d):
            s += problem.eigvec[m + a * d + j] * row[a]
        z[j] = values[j] * s
    decrease = top_decrease(values, z[:d], d2)
    total = 0.0
    for j in range(d - 1, -1, -1):
        gap = values[j] - values[d - 1] + decrease
        if gap == 0.0:  # equal eigenvalues, or a direction the cells do not touch
            for a in range(d):
                vec[a] = 0.0
            return values[d - 1] - decrease
        vec[j] = z[j] / gap
        total += vec[j] * vec[j]
    for a in range(d):
        vec[a] /= np.sqrt(total)
    return values[d - 1] - decrease


@inner
def _back(layout, k, i, scale, direction, gx):
    """Add ``scale * direction`` to the gradient ``gx`` (p,) at the parents of node i.

    ``direction`` (d,) has k entries for the intercept before those of the parents.
    """
    indptr, indices, _, _ = layout
    first = indptr[i]
    for a in range(indptr[i + 1] - first):
        gx[indices[first + a]] += scale * direction[k + a]


@entry
def evaluate(problem, shift, grad):
    """Return the criterion at ``shift`` (p,), less its floor; fill ``grad`` unless it is empty."""
    # Arrays are taken out of the tuple once: each access costs a count of references.
    layout = (problem.indptr, problem.indices, problem.vptr, problem.mptr)
    k, inv_n, kind, vptr = problem.intercept, problem.inv_n, problem.kind, problem.vptr
    cov, u, w0, quad, lin = problem.cov, problem.u, problem.w0, problem.quad, problem.lin
    eigval = problem.eigval
    p = len(shift)
    widest = _widest(vptr)
    x, gx = np.empty(p), np.zeros(p)
    row, y, step = np.empty(widest), np.empty(widest), np.empty(widest)
    z, vec = np.empty(widest), np.empty(widest)
    _reach(problem, shift, x)
    value, best = 0.0, -1
    for i in range(p):
        v = vptr[i]
        d = vptr[i + 1] - v
        if d == 0 or (kind == NORM and lin[i] * eigval[v + d - 1] <= value):
            continue
        d1, d2 = _node(layout, k, inv_n, cov, u, i, x, row, y)
        if kind == SUM:
            ratio = d1 / d2
            w = w0[i] - d1 * ratio
            slope = quad[i] * (w + 2.0 * inv_n) + lin[i]
            value += slope * w
            for a in range(d):
                step[a] = ratio * (ratio * y[a] - u[v + a])
            _back(layout, k, i, 2.0 * (slope + quad[i] * w), step, gx)
            continue
        if kind == MAX:
            candidate = lin[i] * (w0[i] - d1 * d1 / d2)
        else:
            candidate = lin[i] * _norm(problem, i, row, d2, z, vec)
        if candidate > value:
            value, best = candidate, i
    if not len(grad):
        return value
    if best >= 0:
        _max_gradient(problem, layout, best, x, row, y, z, vec, step, gx)
    _adjoint(problem, gx, grad)
    return value


@inner
def _widest(vptr):
    widest = 0
    for i in range(len(vptr) - 1):
        widest = max(widest, vptr[i + 1] - vptr[i])
    return widest


@inner
def _adjoint(problem, gx, grad):
    """Fill ``grad = A' gx`` by one substitution against the order; ``gx`` is used up."""
    indptr, indices, vptr = problem.indptr, problem.indices, problem.vptr
    order, weights = problem.order, problem.weights
    for t in range(len(order) - 1, -1, -1):
        i = order[t]
        grad[i] = gx[i]
        start, first = vptr[i] + problem.intercept, indptr[i]
        for a in range(indptr[i + 1] - first):
            gx[indices[first + a]] += weights[start + a] * gx[i]


@inner
def _max_gradient(problem, layout, i, x, row, y, z, vec, step, gx):
    """Add to ``gx`` (p,) the gradient of node i's term at the mean ``x`` (p,) that a shift reaches.

    ``row``, ``y``, ``z``, ``vec`` and ``step`` are room for as many numbers as the widest row has.
    """
    v, m = problem.vptr[i], problem.mptr[i]
    d = problem.vptr[i + 1] - v
    k, inv_n = problem.intercept, problem.inv_n
    d1, d2 = _node(layout, k, inv_n, problem.cov, problem.u, i, x, row, y)
    if problem.kind == MAX:
        ratio = d1 / d2
        for a in range(d):
            step[a] = ratio * (ratio * y[a] - problem.u[v + a])
    else:
        _norm(problem, i, row, d2, z, vec)
        ratio = 0.0
        for j in range(d):
            ratio += vec[j] * z[j] / d2
        for a in range(d):
            s = 0.0
            for j in range(d):
                s += problem.eigvec[m + a * d + j] * problem.eigval[v + j] * vec[j]
            step[a] = ratio * (ratio * y[a] - s)
    _back(layout, k, i, 2.0 * problem.lin[i], step, gx)


@entry
def w_of_pool(problem, shifts, out):
    """Fill ``w_i`` of every node (p, m) at every shift of ``shifts`` (p, m), by strips."""
    p, m = shifts.shape
    strip = 128
    x = np.empty((p, strip))
    d1, d2, part = np.empty(strip), np.empty(strip), np.empty(strip)
    for begin in range(0, m, strip):
        width = min(strip, m - begin)
        _reach_strip(problem, shifts, begin, width, x)
        for i in range(p):
            _node_strip(problem, i, width, x, d1, d2, part)
            for j in range(width):
                out[i, begin + j] = problem.w0[i] - d1[j] * d1[j] / d2[j]


@entry
def evaluate_each(problem, shifts, out):
    """Fill the criterion, less its floor, at every row of ``shifts`` (m, p)."""
    for j in range(len(shifts)):
        out[j] = evaluate(problem, shifts[j], np.empty(0))


@inner
def _reach_strip(problem, shifts, begin, width, x):
    """Fill ``x`` (p, width) with the means that some shifts reach (equation 1).

    These are the columns of ``shifts`` (p, m) from ``begin`` on.
    """
    for t in range(len(problem.order)):
        i = problem.order[t]
        first = problem.indptr[i]
        start = problem.vptr[i] + problem.intercept
        for j in range(width):
            x[i, j] = shifts[i, begin + j] + problem.offset[i]
        for a in range(problem.indptr[i + 1] - first):
            weight = problem.weights[start + a]
            k = problem.indices[first + a]
            for j in range(width):
                x[i, j] += weight * x[k, j]


@inner
def _node_strip(problem, i, width, x, d1, d2, part):
    """Fill ``d1`` and ``d2`` (width,) of node i at the means ``x`` (p, width), as :func:`_node`.

    ``part`` (width,) is room for a row of ``M x``.
    """
    v, m = problem.vptr[i], problem.mptr[i]
    d = problem.vptr[i + 1] - v
    k = problem.intercept
    first = problem.indptr[i] - k
    for j in range(width):
        d1[j] = 0.0
        d2[j] = problem.inv_n
    for a in range(d):
        # part = M_aa x_a + 2 sum_{b > a} M_ab x_b, so that only half of M is read
        diagonal = problem.cov[m + a * d + a]
        for j in range(width):
            part[j] = diagonal * (1.0 if a < k else x[problem.indices[first + a], j])
        for b in range(a + 1, d):
            entry = 2.0 * problem.cov[m + a * d + b]
            other = problem.indices[first + b]
            for j in range(width):
                part[j] += entry * x[other, j]
        weight = problem.u[v + a]
        if a < k:
            for j in range(width):
                d1[j] += weight
                d2[j] += part[j]
        else:
            own = problem.indices[first + a]
            for j in range(width):
                d1[j] += weight * x[own, j]
                d2[j] += part[j] * x[own, j]
