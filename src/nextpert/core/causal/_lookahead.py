"""One look ahead: what ``n`` hypothetical cells under a shift would leave uncertain.

For a shift ``a`` the hypothetical cells are n copies of ``x' = (I - B)^-1 (c + a)``. Node i's
``w_i = q' M q`` becomes ``w_i - d1^2 / d2`` with ``d1 = (M q)' x'_P``, ``d2 = 1/n + x'_P' M x'_P``.
Acquisitions are functions of these; their gradients follow by one adjoint substitution. Sums over
``s_i = 1/n + w_i`` are returned without the part that no shift can change (their value at w = 0),
which may exceed the rest ten-thousand-fold: a search must see the rest with all its digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import entry, inner
from nextpert.core.causal._kernels import dot, dot_at, longest_row

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
    weights: NDArray[np.float64]  # (vptr[-1], 1)
    cov: NDArray[np.float64]
    offset: NDArray[np.float64]  # c, (p, 1)
    u: NDArray[np.float64]  # M q of each node, flat
    w0: NDArray[np.float64]  # q' M q, (p,)
    quad: NDArray[np.float64]  # a of the sum, (p,)
    lin: NDArray[np.float64]  # b of the sum or the maximum, (p,)
    eigval: NDArray[np.float64]  # of M, ascending, flat (NORM only)
    eigvec: NDArray[np.float64]  # of M, columns, flat (NORM only)
    root: NDArray[np.float64]  # shared by all nodes of a complete graph, else (0, 0): see _shared
    root_q: NDArray[np.float64]  # its product with q = (1, mu*), in the order of the graph


@inner
def reach(problem, shift, x):
    """Fill the means ``x`` (p, s) that a shift (p,) reaches under each of s draws of the weights.

    Equation 1, substituted along the order; ``problem`` is a :class:`Problem`, or draws.
    """
    if x.shape[1] == 1:
        weights, state = problem.weights.reshape(-1), x.reshape(-1)
        for t in range(len(problem.order)):
            i = problem.order[t]
            first, last = problem.indptr[i], problem.indptr[i + 1]
            own = weights[problem.vptr[i + 1] - (last - first) :]
            state[i] = shift[i] + problem.offset[i, 0]
            state[i] += dot_at(own, state, problem.indices[first:last])
        return
    for t in range(len(problem.order)):
        i = problem.order[t]
        first = problem.indptr[i]
        degree = problem.indptr[i + 1] - first
        start = problem.vptr[i + 1] - degree
        for j in range(x.shape[1]):
            x[i, j] = shift[i] + problem.offset[i, j]
        for a in range(degree):
            k = problem.indices[first + a]
            for j in range(x.shape[1]):
                x[i, j] += problem.weights[start + a, j] * x[k, j]


@inner
def adjoint(problem, gx, grad):
    """Fill the gradient ``grad`` (p,) by the shift from that by ``x``, ``gx`` (p, s): used up.

    ``grad = sum_s A' gx`` by one substitution against the order.
    """
    indptr, indices, vptr, weights = problem.indptr, problem.indices, problem.vptr, problem.weights
    single = gx.shape[1] == 1
    flat, slopes = weights.reshape(-1), gx.reshape(-1)  # plain counters where there is one draw
    for t in range(len(problem.order) - 1, -1, -1):
        i = problem.order[t]
        first = indptr[i]
        degree = indptr[i + 1] - first
        start = vptr[i + 1] - degree
        if single:
            grad[i] = slopes[i]
            for a in range(degree):
                slopes[indices[first + a]] += flat[start + a] * grad[i]
            continue
        grad[i] = 0.0
        for j in range(gx.shape[1]):
            grad[i] += gx[i, j]
        for a in range(degree):
            k = indices[first + a]
            for j in range(gx.shape[1]):
                gx[k, j] += weights[start + a, j] * gx[i, j]


@inner
def _node(layout, k, inv_n, cov, u, i, x, row, y):
    """Fill the design row of node i and y = M row; return d1, d2: equation 6 is ``d1^2 / d2``."""
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
    """Return the acquisition at ``shift`` (p,), less its floor; fill ``grad`` unless empty."""
    # Arrays are taken out of the tuple once: each access costs a count of references.
    layout = (problem.indptr, problem.indices, problem.vptr, problem.mptr)
    k, inv_n, kind, vptr = problem.intercept, problem.inv_n, problem.kind, problem.vptr
    cov, u, w0, quad, lin = problem.cov, problem.u, problem.w0, problem.quad, problem.lin
    eigval = problem.eigval
    p = len(shift)
    x, gx, most = np.empty(p), np.zeros(p), longest_row(vptr)
    row, y, step = np.empty(most), np.empty(most), np.empty(most)
    z, vec = np.empty(most), np.empty(most)
    reach(problem, shift, x.reshape(p, 1))
    value, best = 0.0, -1
    if len(problem.root):
        value = _shared(problem, x, gx)
        if len(grad):
            adjoint(problem, gx.reshape(p, 1), grad)
        return value
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
    adjoint(problem, gx.reshape(p, 1), grad)
    return value


@inner
def _shared(problem, x, gx):
    """Return the sum at the mean ``x`` (p,) on a complete graph; add its gradient to ``gx``.

    If one matrix K has the precisions of all nodes as its leading blocks, ``K = L L'``, and
    ``z = L^-1 (1, x)`` in the order of the graph, then the first sums of ``z_q z`` and ``z^2`` are
    ``d1`` and ``d2 - 1/n`` of one node after the other: p^2 numbers are read in place of p^3.
    """
    root, zq, order, inv_n = problem.root, problem.root_q, problem.order, problem.inv_n
    k, p, size = problem.intercept, len(x), len(problem.root)
    row, z = np.ones(size), np.zeros(size)
    for t in range(size - k):
        row[k + t] = x[order[t]]
    for m in range(size):
        z[m] = dot(root[m, : m + 1], row)
    value, d1, d2 = 0.0, 0.0, inv_n
    along, square = np.zeros(size + 1), np.zeros(size + 1)  # slopes by d1 and d2 of later nodes
    for t in range(p):
        n = k + t  # numbers that the t-th node sees
        if n:
            d1 += zq[n - 1] * z[n - 1]
            d2 += z[n - 1] * z[n - 1]
            i, ratio = order[t], d1 / d2
            w = problem.w0[i] - d1 * ratio
            slope = problem.quad[i] * (w + 2.0 * inv_n) + problem.lin[i]
            value += slope * w
            slope += problem.quad[i] * w
            along[n], square[n] = slope * ratio, slope * ratio * ratio
    row[:] = 0.0
    for m in range(size - 1, -1, -1):
        h = 2.0 * (z[m] * square[m + 1] - zq[m] * along[m + 1])
        for a in range(m + 1):
            row[a] += h * root[m, a]
        along[m] += along[m + 1]
        square[m] += square[m + 1]
    for t in range(size - k):
        gx[order[t]] += row[k + t]
    return value


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
def evaluate_each(problem, shifts, out):
    """Fill the acquisition, less its floor, at every row of ``shifts`` (m, p)."""
    for j in range(len(shifts)):
        out[j] = evaluate(problem, shifts[j], np.empty(0))


@entry
def project_target(layout, cov, target, u, w0):
    """Fill ``u = M q``, zeros before, and ``w0 = q' M q`` of each node, q = (1, mu*_P).

    ``target`` is mu*, (p, 1).
    """
    vptr = layout[2]
    d1, rows, y = np.empty(1), np.empty((longest_row(vptr), 1)), np.empty((longest_row(vptr), 1))
    for i in range(len(w0)):
        node_columns(layout, cov, u, i, target, rows, y, d1, w0[i : i + 1])
        for a in range(vptr[i + 1] - vptr[i]):
            u[vptr[i] + a] = y[a, 0]


@entry
def w_of_states(problem, x, out):
    """Fill ``w_i`` of every node (p, m) after cells at each state of ``x`` (p, m): equation 6."""
    p, m = x.shape
    d1, d2, most = np.empty(m), np.empty(m), longest_row(problem.vptr)
    rows, y = np.empty((most, m)), np.empty((most, m))
    layout = (problem.indptr, problem.indices, problem.vptr, problem.mptr)
    for i in range(p):
        node_columns(layout, problem.cov, problem.u, i, x, rows, y, d1, d2)
        for j in range(m):
            out[i, j] = problem.w0[i] - d1[j] * d1[j] / (problem.inv_n + d2[j])


@inner
def node_columns(layout, cov, u, i, x, rows, y, d1, d2):
    """Fill rows ``(1, x_P)``, ``y = M rows``, (d, m), ``d1 = u' rows`` and ``d2 = rows' M rows``.

    As :func:`_node`, at many means ``x`` (p, m), one a column so that inner loops run along memory.
    """
    indptr, indices, vptr, mptr = layout
    first, v = indptr[i], vptr[i]
    d = vptr[i + 1] - v
    k = d - (indptr[i + 1] - first)
    for a in range(d):
        for j in range(x.shape[1]):
            rows[a, j] = 1.0 if a < k else x[indices[first + a - k], j]
    multiply(cov, mptr[i], rows[:d], y, d2)
    cross(u[v : v + d], rows, d1)


@inner
def multiply(cov, start, rows, product, square):
    """Fill ``product = M rows`` (d, m) and ``square = rows' M rows`` (m,), M from ``start`` on."""
    d, m = rows.shape
    for j in range(m):
        square[j] = 0.0
    for a in range(d):
        for j in range(m):
            product[a, j] = 0.0
        for b in range(d):
            entry = cov[start + a * d + b]
            for j in range(m):
                product[a, j] += entry * rows[b, j]
        for j in range(m):
            square[j] += rows[a, j] * product[a, j]


@inner
def cross(row, product, out):
    """Fill ``out = row' product`` (m,), of a row (d,) and the first d rows of ``product``."""
    for j in range(len(out)):
        out[j] = 0.0
    for a in range(len(row)):
        for j in range(len(out)):
            out[j] += row[a] * product[a, j]
