"""Look-ahead: the uncertainty that would remain after ``n`` hypothetical cells under a shift.

For a shift ``a`` the hypothetical cells are n copies of ``x' = (I - B)^-1 (c + a)``. Node i's
``w_i = q' M q`` becomes ``w_i - d1^2 / d2`` with ``d1 = (M q)' x'_P``, ``d2 = 1/n + x'_P' M x'_P``.
Acquisitions are functions of these ``w_i``; their gradients follow from one adjoint substitution.
Sums over ``s_i = 1/n + w_i`` are returned without their value at w = 0, which does not depend on
the shift and can be ten thousand times the rest: a search needs the rest with all its digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import entry, inner, lean
from nextpert.core.causal._kernels import dot, dot_at, longest_row

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Problem(NamedTuple):
    """All arrays of one acquisition, with the layout of blocks that ``_kernels`` describes."""

    inv_n: float
    intercept: int
    indptr: NDArray[np.int64]
    indices: NDArray[np.int64]
    order: NDArray[np.int64]
    vptr: NDArray[np.int64]
    mptr: NDArray[np.int64]
    weights: NDArray[np.float64]  # (vptr[-1],)
    cov: NDArray[np.float64]
    offset: NDArray[np.float64]  # c, (p,)
    u: NDArray[np.float64]  # M q of each node, flat
    w0: NDArray[np.float64]  # q' M q, (p,)
    quad: NDArray[np.float64]  # a of the sum, (p,)
    lin: NDArray[np.float64]  # b of the sum, (p,)
    root: NDArray[np.float64]  # L^-1 shared by all nodes of a complete graph, else of shape (0, 0)
    root_q: NDArray[np.float64]  # its product with q = (1, mu*), in the order of the graph


@inner
def reach(layout, order, weights, offset, shift, x):
    """Fill the mean ``x`` (p,) that a shift (p,) reaches, by substitution in equation 1.

    ``weights`` (vptr[-1],) and ``offset`` (p,), the intercepts, are the posterior's mean or a draw.
    """
    indptr, indices, vptr, _ = layout
    for t in range(len(order)):
        i = order[t]
        first, last = indptr[i], indptr[i + 1]
        # x_i = c_i + a_i + B_iP x_P, parents before their children.
        x[i] = shift[i] + offset[i]
        x[i] += dot_at(weights[vptr[i + 1] - (last - first) :], x, indices[first:last])


@inner
def adjoint(layout, order, weights, slopes):
    """Turn a gradient (p,) in the mean that a shift reaches into one in the shift, in place.

    The result is ``A' slopes`` with ``A = (I - B)^-1``, by substitution in reversed order.
    """
    indptr, indices, vptr, _ = layout
    for t in range(len(order) - 1, -1, -1):
        i = order[t]
        first = indptr[i]
        degree = indptr[i + 1] - first
        # Children before their parents: A = (I - B)^-1, so the gradient g solves g = B' g + slopes.
        start, slope = vptr[i + 1] - degree, slopes[i]
        for a in range(degree):
            slopes[indices[first + a]] += weights[start + a] * slope


@inner
def look_ahead(layout, terms, i, x, row, y):
    """Fill the design row of node i and y = M row; return d1, d2: equation 6 is ``d1^2 / d2``.

    ``terms`` are the number of intercepts, 1/n, M and M q of each node, flat.
    """
    indptr, indices, vptr, mptr = layout
    k, inv_n, cov, u = terms
    first, v, m = indptr[i], vptr[i], mptr[i]
    d = vptr[i + 1] - v
    if k:
        row[0] = 1.0
    for a in range(d - k):
        row[k + a] = x[indices[first + a]]
    # A two-dimensional view: the inner index is a plain counter, so that the loop vectorises.
    block = cov[m : m + d * d].reshape(d, d)
    for a in range(d):
        y[a] = 0.0
    # M is symmetric: add its rows, which are contiguous in memory.
    for b in range(d):
        s = row[b]
        for a in range(d):
            y[a] += s * block[b, a]
    # Equation 6: d1 = q'M x' (u = M q), and d2 = 1/n + x'' M x'.
    d1, d2 = 0.0, inv_n
    for a in range(d):
        d1 += u[v + a] * row[a]
        d2 += row[a] * y[a]
    return d1, d2


@inner
def add_slope(layout, k, i, scale, ratio, y, u, gx):
    """Add ``scale`` times half the gradient of ``-d1^2 / d2`` of node i to ``gx`` at its parents.

    The gradient in the row is ``-2 d1 u / d2 + 2 (d1 / d2)^2 y``, with ``ratio = d1 / d2`` and
    ``y = M row``; ``y`` and ``u`` (d,) have k entries for the intercept, then those of the parents.
    """
    indptr, indices, _, _ = layout
    first = indptr[i]
    for a in range(k, k + indptr[i + 1] - first):
        gx[indices[first + a - k]] += scale * (ratio * (ratio * y[a] - u[a]))


@entry
def evaluate(problem, shift, grad):
    """Return the acquisition at ``shift`` (p,), minus its floor; fill its gradient ``grad``."""
    # Arrays are taken out of the tuple once: each access updates a reference count.
    layout = (problem.indptr, problem.indices, problem.vptr, problem.mptr)
    order, weights, x = problem.order, problem.weights, np.empty(len(shift))
    reach(layout, order, weights, problem.offset, shift, x)
    grad[:] = 0.0
    value = _shared(problem, x, grad) if len(problem.root) else _summed(problem, layout, x, grad)
    adjoint(layout, order, weights, grad)
    return value


@inner
def _summed(problem, layout, x, gx):
    """Return the sum of ``a s^2 + b s`` over nodes at the mean ``x``; add its gradient to ``gx``.

    Its value at w = 0 is subtracted: ``s^2 - 1/n^2 = w (w + 2/n)`` with ``s = 1/n + w``.
    """
    k, inv_n, vptr, u = problem.intercept, problem.inv_n, problem.vptr, problem.u
    w0, quad, lin, terms = problem.w0, problem.quad, problem.lin, (k, inv_n, problem.cov, u)
    width = longest_row(vptr)
    row, y = np.empty(width), np.empty(width)
    value = 0.0
    for i in range(len(x)):
        if vptr[i] < vptr[i + 1]:
            d1, d2 = look_ahead(layout, terms, i, x, row, y)
            ratio = d1 / d2
            w = w0[i] - d1 * ratio
            # a (w^2 + 2 w / n) + b w, and then its derivative in w.
            slope = quad[i] * (w + 2.0 * inv_n) + lin[i]
            value += slope * w
            scale = 2.0 * (slope + quad[i] * w)
            add_slope(layout, k, i, scale, ratio, y, u[vptr[i] :], gx)
    return value


@inner
def _shared(problem, x, gx):
    """Return the sum at the mean ``x`` (p,) on a complete graph; add its gradient to ``gx``.

    If the precisions of all nodes are the leading blocks of one matrix ``K = L L'``, and
    ``z = L^-1 (1, x)`` in the order of the graph, then the cumulative sums of ``z_q z`` and ``z^2``
    are ``d1`` and ``d2 - 1/n`` of successive nodes: p^2 numbers are read instead of p^3.
    """
    root, zq, order, inv_n = problem.root, problem.root_q, problem.order, problem.inv_n
    k, p, size = problem.intercept, len(x), len(problem.root)
    row, z = np.ones(size), np.zeros(size)
    for t in range(size - k):
        row[k + t] = x[order[t]]
    for m in range(size):
        z[m] = dot(root[m, : m + 1], row)
    # Each node in the order uses one entry more than the node before it, so sums accumulate.
    value, d1, d2 = 0.0, 0.0, inv_n
    # Derivatives in d1 and d2, to be summed over later nodes.
    along, square = np.zeros(size + 1), np.zeros(size + 1)
    for t in range(p):
        # Number of entries that the t-th node uses.
        n = k + t
        if n:  # equation 6, as in _summed
            d1 += zq[n - 1] * z[n - 1]
            d2 += z[n - 1] * z[n - 1]
            i, ratio = order[t], d1 / d2
            w = problem.w0[i] - d1 * ratio
            slope = problem.quad[i] * (w + 2.0 * inv_n) + problem.lin[i]
            value += slope * w
            slope += problem.quad[i] * w
            along[n], square[n] = slope * ratio, slope * ratio * ratio
    # The derivative in z_m is 2 (z_m sum ratio^2 - z_q,m sum ratio) over the nodes that use z_m.
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


@entry
def project_target(layout, k, cov, target, u, w0):
    """Fill ``u = M q`` (zeros on entry) and ``w0 = q' M q`` of each node, with q = (1, mu*_P)."""
    vptr = layout[2]
    row, y = np.empty(longest_row(vptr)), np.empty(longest_row(vptr))
    for i in range(len(w0)):
        _, w0[i] = look_ahead(layout, (k, 0.0, cov, u), i, target, row, y)
        for a in range(vptr[i + 1] - vptr[i]):
            u[vptr[i] + a] = y[a]


@inner
def _look_ahead_columns(layout, terms, i, x, rows, y, d1, d2):
    """Do as :func:`look_ahead` for many states, the columns of ``x`` (p, m).

    Fills the design rows and ``y = M rows``, both (d, m), and ``d1`` and ``d2``, both (m,). The
    inner loops access contiguous memory.
    """
    indptr, indices, vptr, mptr = layout
    k, inv_n, cov, u = terms
    first, v, m = indptr[i], vptr[i], x.shape[1]
    d = vptr[i + 1] - v
    block = cov[mptr[i] : mptr[i + 1]].reshape(d, d)
    for j in range(m):
        d1[j], d2[j] = 0.0, inv_n
    for a in range(d):
        for j in range(m):
            rows[a, j] = 1.0 if a < k else x[indices[first + a - k], j]
    for a in range(d):
        for j in range(m):
            y[a, j] = 0.0
        for b in range(d):
            entry = block[a, b]
            for j in range(m):
                y[a, j] += entry * rows[b, j]
        slope = u[v + a]
        for j in range(m):
            d1[j] += slope * rows[a, j]
            d2[j] += rows[a, j] * y[a, j]


@entry
def take_off(problem, x, w):
    """Subtract from ``w`` (p, m) the reduction by cells at each state of ``x`` (equation 6)."""
    layout = (problem.indptr, problem.indices, problem.vptr, problem.mptr)
    terms = (problem.intercept, problem.inv_n, problem.cov, problem.u)
    m, width = x.shape[1], longest_row(problem.vptr)
    rows, y, d1, d2 = np.empty((width, m)), np.empty((width, m)), np.empty(m), np.empty(m)
    for i in range(len(x)):
        _look_ahead_columns(layout, terms, i, x, rows, y, d1, d2)
        for j in range(m):
            w[i, j] -= d1[j] * d1[j] / d2[j]


@lean
def reach_by_draws(layout, order, weights, x):
    """Replace column j of ``x`` (p, m) by the mean that it leads to under ``weights[:, j]``."""
    indptr, indices, vptr, _ = layout
    for t in range(len(order)):
        i = order[t]
        first, last = indptr[i], indptr[i + 1]
        start = vptr[i + 1] - (last - first)
        for a in range(last - first):
            k = indices[first + a]
            for j in range(x.shape[1]):
                x[i, j] += weights[start + a, j] * x[k, j]


@lean
def adjoint_by_draws(layout, order, weights, slopes):
    """Turn gradients (p, m) in these means into gradients in the shift, as :func:`adjoint` does."""
    indptr, indices, vptr, _ = layout
    for t in range(len(order) - 1, -1, -1):
        i = order[t]
        first, last = indptr[i], indptr[i + 1]
        start = vptr[i + 1] - (last - first)
        for a in range(last - first):
            k = indices[first + a]
            for j in range(slopes.shape[1]):
                slopes[k, j] += weights[start + a, j] * slopes[i, j]


@entry
def information(layout, terms, w0, x, resolved, slopes):
    """Fill ``resolved`` (p, m), the fraction of ``w0`` (p,) that cells at states ``x`` remove.

    The gradient of ``sum_i log(1 - resolved) / 2`` in ``x`` is added to ``slopes`` (p, m).
    ``terms`` are those of :func:`look_ahead`.
    """
    k, _, _, u = terms
    indptr, indices, vptr, _ = layout
    m, width = x.shape[1], longest_row(vptr)
    rows, y, d1, d2 = np.empty((width, m)), np.empty((width, m)), np.empty(m), np.empty(m)
    for i in range(len(x)):
        if w0[i] > 0.0:  # otherwise no intercept, and a target of 0 for all parents
            _look_ahead_columns(layout, terms, i, x, rows, y, d1, d2)
            for j in range(m):
                ratio = d1[j] / d2[j]
                resolved[i, j] = d1[j] * ratio / w0[i]
                # The gradient of w' in the row is 2 ratio (ratio y - u).
                d2[j] = ratio / (w0[i] - d1[j] * ratio)
                d1[j] = ratio
            first, v = indptr[i], vptr[i]
            for a in range(k, vptr[i + 1] - v):
                parent, slope = indices[first + a - k], u[v + a]
                for j in range(m):
                    slopes[parent, j] += d2[j] * (d1[j] * y[a, j] - slope)
