"""One factor for all nodes of a complete graph: p^2 numbers where separate blocks hold p^3 / 3.

On a complete graph whose nodes have the same cells and prior, the precision of a node is a leading
block of one matrix ``K = L L'``, in the order of the graph. With ``R = L^-1``, the covariance of
the node that has n design columns is ``M = R_n' R_n``, where ``R_n`` holds the first n rows and
columns of R. Row 0 is the intercept's, if there is one; the last node has all columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core._compile import lean
from nextpert.core.causal._kernels import dot

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


@dataclass(frozen=True)
class SharedFactor:
    """The factor of the precision, and the sums over cells, of the last node in the graph's order.

    Parameters
    ----------
    root
        R, lower triangular, shape ``(size, size)``.
    gram
        X'X of the last node, its columns in the order of the graph, shape ``(size, size)``.
    rank
        Position of every parent, laid out as the edges, among the design columns in this order.
    """

    root: NDArray[np.float64]
    gram: NDArray[np.float64]
    rank: NDArray[np.int64]

    def copy(self) -> SharedFactor:
        """Return a copy that can be updated by itself."""
        return SharedFactor(self.root.copy(), self.gram.copy(), self.rank)


def factor_of(fitted: Any, cov: Vector, precision: Vector) -> SharedFactor | None:
    """Return the factor of the covariances ``cov`` of all nodes, or ``None`` if they share none.

    ``fitted`` are the regressions, which import this file. ``cov`` is laid out as their blocks,
    ``precision`` is that of the prior.
    """
    dag, k, p = fitted.dag, int(fitted.intercept), fitted.n_nodes
    order, mptr, vptr = dag.order, fitted.mptr, fitted.vptr
    # Not for incomplete graphs, those with fewer than three edges, or after hard interventions.
    if fitted.n_fixed or dag.n_edges < max(p * (p - 1) // 2, 3) or np.ptp(fitted.cells):
        return None
    last = int(order[-1])
    # The diagonals, prior plus sums of squares, show whether it holds: a mean may count as
    # different numbers of cells at different nodes.
    diagonal = precision + fitted.xtx[fitted.diagonal]
    expected = np.ones(p)
    expected[dag.parents(last)] = diagonal[vptr[last] + k : vptr[last + 1]]
    expected = expected[dag.indices]
    if (np.abs(diagonal[fitted.is_weight] - expected) > 1e-12 * expected).any():
        return None
    # M = R'R with R = L^-1 lower triangular: a Cholesky factor in reversed order.
    position = np.append(np.arange(k), k + np.searchsorted(dag.parents(last), order[:-1]))
    back, size = position[::-1], len(position)
    square, gram = (x[mptr[last] : mptr[last + 1]].reshape(size, size) for x in (cov, fitted.xtx))
    ends = np.linalg.cholesky(square[np.ix_(back, back)])
    rank = np.empty(p, np.int64)
    rank[order] = k + np.arange(p)
    root = np.ascontiguousarray(ends[::-1, ::-1].T)
    return SharedFactor(root, gram[np.ix_(position, position)], rank[dag.indices])


@lean
def update_shared(layout, order, factor, x, shift, blocks, sums, work):
    """Update the factor, m', the residual and log|M'| (equations 2, 3) in place for a cell ``x``.

    ``factor`` are root, gram and rank, ``blocks`` the weights, the residual and the log
    determinant, ``sums`` X'y and y'y; ``work``, (2, size), is workspace.
    """
    indptr, _, vptr, _ = layout
    root, gram, rank = factor
    weights, residual, logdet = blocks
    xty, yty = sums
    row, y = work[0], work[1]
    p, size = len(order), len(root)
    k = size - p + 1
    for a in range(size):
        row[a] = 1.0 if a < k else x[order[a - k]]
        y[a] = 0.0
    # s = 1 + x'M x of the node with the first n columns, and y = M x; both grow with n.
    s = 1.0
    for n in range(size + 1):
        if n:
            # M grows by u u', u the next row of R, and so x'M x by z^2 and y by z u.
            end = root[n - 1, :n]
            z, before = dot(end, row), s
            s += z * z
            # M - y y' / s of successive nodes again differ by an outer product, that of
            # u' = sqrt(s_before / s) (u - z y_before / s_before).
            scale, step = np.sqrt(before / s), z / before
            for a in range(n):
                u = end[a]
                end[a] = scale * (u - step * y[a])
                y[a] += z * u
            for a in range(size):
                gram[n - 1, a] += row[n - 1] * row[a]
        if n < k:
            continue
        # The node with n columns: m' = m + y error / s, as Sherman and Morrison.
        i = order[n - k]
        first, v, m = indptr[i], vptr[i], weights[vptr[i] : vptr[i + 1]]
        response = x[i] - shift[i]
        error = response
        for a in range(n):
            error -= row[a if a < k else rank[first + a - k]] * m[a]
        for a in range(n):
            b = a if a < k else rank[first + a - k]
            m[a] += y[b] * (error / s)
            xty[v + a] += row[b] * response
        yty[i] += response * response
        residual[i] += error * error / s
        logdet[i] -= np.log(s)


@lean
def unfold(layout, order, factor, grown, cov, xtx):
    """Fill the separate blocks of all nodes: ``M = R_n' R_n`` (equation 2) and X'X.

    ``factor`` are root, gram and rank; ``grown``, (size, size), is workspace.
    """
    indptr, _, _, mptr = layout
    root, gram, rank = factor
    size = len(root)
    k = size - len(order) + 1
    for a in range(size):
        for b in range(size):
            grown[a, b] = 0.0
    for n in range(size + 1):
        if n:
            for a in range(n):
                u = root[n - 1, a]
                for b in range(n):
                    grown[a, b] += u * root[n - 1, b]
        if n < k:
            continue
        i = order[n - k]
        first, m = indptr[i], mptr[i]
        for a in range(n):
            at = a if a < k else rank[first + a - k]
            for b in range(n):
                to = b if b < k else rank[first + b - k]
                cov[m + a * n + b] = grown[at, to]
                xtx[m + a * n + b] = gram[at, to]
