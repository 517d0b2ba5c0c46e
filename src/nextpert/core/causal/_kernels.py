"""Compiled loops over blocks of different sizes, one per node, without arrays of n_nodes^3 numbers.

Node i has the design columns ``(1, f, x_P)``: the 1 only with an intercept; ``f`` are the fixed
columns, such as batches, which are the same for all nodes and follow the nodes in a row of cells
(or are 0 if the row ends before them). The node's vectors are at ``vptr[i]:vptr[i + 1]`` of a flat
array, and its square matrices, row by row, at ``mptr[i]:mptr[i + 1]``.
"""

from __future__ import annotations

import numpy as np

from nextpert.core._compile import entry, fast, inner, lean


@inner
def longest_row(vptr):
    """Return the number of columns of the longest design row.

    This is a plain loop because numba takes three seconds to compile ``np.max(np.diff(vptr))``.
    """
    longest = 0
    for i in range(len(vptr) - 1):
        longest = max(longest, vptr[i + 1] - vptr[i])
    return longest


@fast
def dot(one, two):
    """Return the inner product of ``one`` and the start of ``two``, summed in any order."""
    total = 0.0
    for i in range(len(one)):
        total += one[i] * two[i]
    return total


@fast
def dot_at(one, two, places):
    """Return the inner product of ``one`` and ``two[places]``, summed in any order."""
    total = 0.0
    for i in range(len(places)):
        total += one[i] * two[places[i]]
    return total


@inner
def _invert_spd(matrix, low, rows, inverse, d):
    """Invert a symmetric positive definite matrix; return log|matrix|, or NaN on failure.

    The inverse is computed from the Cholesky factor. All matrices are (d, d), in the first rows and
    columns of larger arrays; ``low`` and ``rows`` are workspace.
    """
    logdet = 0.0
    # Row by row, matrix = L L'; log|matrix| is the sum of the logs of the squared diagonal.
    for i in range(d):
        for j in range(i + 1):
            s = matrix[i, j]
            for k in range(j):
                s -= low[i, k] * low[j, k]
            if i == j:
                if not s > 0.0:
                    return np.nan
                low[i, i] = np.sqrt(s)
                logdet += np.log(s)
            else:
                low[i, j] = s / low[j, j]
    # Columns of L^-1, as rows of `rows`, so that the products below access contiguous memory.
    for j in range(d):
        rows[j, j] = 1.0 / low[j, j]
        for i in range(j + 1, d):
            s = 0.0
            for k in range(j, i):
                s -= low[i, k] * rows[j, k]
            rows[j, i] = s / low[i, i]
    for i in range(d):  # the inverse is L^-1' L^-1
        for j in range(i + 1):
            s = 0.0
            for k in range(i, d):
                s += rows[i, k] * rows[j, k]
            inverse[i, j] = s
            inverse[j, i] = s
    return logdet


@lean
def posterior_blocks(layout, precision, sums, blocks, work):
    """Fill M', m' (equation 2), y'y - m''X'y (equation 3) and log|M'| - log|M| of each node.

    These are the ``blocks``, in this order; ``sums`` are X'X, X'y and y'y. ``work``, (4, d, d), is
    workspace for four square matrices of the longest design row.
    """
    _, _, vptr, mptr = layout
    xtx, xty, yty = sums
    cov, mean, residual, logdet = blocks
    for i in range(len(vptr) - 1):
        v, m = vptr[i], mptr[i]
        d = vptr[i + 1] - v
        block, inverse = work[0], work[1]
        prior = 0.0
        for a in range(d):
            for b in range(d):
                block[a, b] = xtx[m + a * d + b]
            block[a, a] += precision[v + a]
            prior += np.log(precision[v + a])
        # M' = (X'X + Lambda)^-1 and m' = M' X'y, for a prior of mean zero.
        logdet[i] = prior - _invert_spd(block, work[2], work[3], inverse, d)
        # y'y - m'' M'^-1 m' of equation 3 is y'y - m'' X'y; rounding may leave it below 0.
        fitted = 0.0
        for a in range(d):
            s = 0.0
            for b in range(d):
                cov[m + a * d + b] = inverse[a, b]
                s += inverse[a, b] * xty[v + b]
            mean[v + a] = s
            fitted += s * xty[v + a]
        residual[i] = max(yty[i] - fitted, 0.0)


@inner
def fill_row(indptr, indices, vptr, i, x, row):
    """Fill the design row ``(1, f, x_P)`` of node i; return its length."""
    parents = indices[indptr[i] : indptr[i + 1]]
    d = vptr[i + 1] - vptr[i]
    k = d - len(parents)
    if k:
        row[0] = 1.0
    p = len(indptr) - 1
    for a in range(1, k):
        row[a] = x[p + a - 1] if len(x) > p else 0.0
    for a in range(len(parents)):
        row[k + a] = x[parents[a]]
    return d


@entry
def rank_one_update(layout, x, shift, blocks):
    """Update equations 2 and 3 in place for a single cell ``x`` (Sherman and Morrison)."""
    indptr, indices, vptr, mptr = layout
    cov, mean, residual, logdet = blocks
    widest = longest_row(vptr)
    design, y = np.empty(widest), np.empty(widest)
    for i in range(len(indptr) - 1):
        d = fill_row(indptr, indices, vptr, i, x, design)
        block = cov[mptr[i] : mptr[i + 1]].reshape(d, d)
        weights = mean[vptr[i] : vptr[i + 1]]
        for a in range(d):
            y[a] = 0.0
        for b in range(d):
            for a in range(d):
                y[a] += design[b] * block[b, a]
        # M' = M - y y' / (1 + x'y) with y = M x, and m' = m + y error / (1 + x'y).
        spread, error = 1.0, x[i] - shift[i]
        for a in range(d):
            spread += design[a] * y[a]
            error -= design[a] * weights[a]
        for a in range(d):
            weights[a] += y[a] * (error / spread)
            scaled = y[a] / spread
            for b in range(d):
                block[a, b] -= scaled * y[b]
        residual[i] += error * error / spread
        logdet[i] -= np.log(spread)


@lean
def solve_forward(indptr, indices, order, vptr, weights, x):
    """Replace ``x``, (p, m), by y of ``y = B y + x`` (equation 1), in topological order."""
    # One column per right-hand side, so that the inner loop accesses contiguous memory.
    width = x.shape[1]
    for t in range(len(order)):
        i = order[t]
        first = indptr[i]
        degree = indptr[i + 1] - first
        start = vptr[i + 1] - degree
        for a in range(degree):
            weight = weights[start + a]
            k = indices[first + a]
            for j in range(width):
                x[i, j] += weight * x[k, j]


@lean
def add_means(layout, mean, shift, count, sums, design):
    """Add the means of environments to the sums of equation 2 in place.

    Environment j counts as ``count[j, i]`` cells at node i. ``mean`` is (n_environments, p + n),
    with the n fixed columns after the nodes; ``design`` is workspace for the longest design row.
    """
    indptr, indices, vptr, mptr = layout
    xtx, xty, yty = sums
    for j in range(len(mean)):
        for i in range(len(indptr) - 1):
            k = count[j, i]
            d = fill_row(indptr, indices, vptr, i, mean[j], design)
            # x_i - a_i = (1, f, x_P)' (c, ., B_iP) + noise.
            response = mean[j, i] - shift[j, i]
            # A two-dimensional view, so that the inner loop vectorises.
            block = xtx[mptr[i] : mptr[i + 1]].reshape(d, d)
            for a in range(d):
                weighted = k * design[a]
                xty[vptr[i] + a] += weighted * response
                for b in range(d):
                    block[a, b] += weighted * design[b]
            yty[i] += k * response * response
