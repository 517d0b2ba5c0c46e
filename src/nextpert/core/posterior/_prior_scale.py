"""The scale of the prior over weights, learned by maximising the evidence.

The prior variance of node i's weight on parent k is ``sigma_i^2 / (lambda_i r_k)``, with ``r_k``
one or the noise variance of the parent. One eigendecomposition of the parents' gram (fixed columns
projected out, columns divided by ``sqrt(r_k)``) gives a node's evidence for every lambda.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg.lapack import dsyevd
from scipy.optimize import minimize_scalar

from nextpert.core._compile import lean

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from nextpert.core.posterior._parts import Layout, Prior, Statistics

    Vector = NDArray[np.float64]

HYPER_SD = 3.0  # of log lambda about 0: weak, a factor of 20 either way is one standard deviation
NODE_SD = 1.0  # of a node's log lambda about the common one
_BOUNDS = (-14.0, 18.0)  # of log lambda


def _spectra(
    layout: Layout, statistics: Statistics, tau: float, relative: Vector
) -> tuple[Vector, Vector, Vector]:
    """Return eigenvalues of each node's parent gram, X'y in that basis, and y'y.

    Two of shape ``(vptr[-1],)``, as ``relative``, and one of ``(n_nodes,)``. Fixed columns, of
    precision ``tau`` over the noise, are projected out. Nodes of as many columns go together.
    """
    vptr, k = layout.vptr, layout.fixed
    widths = np.diff(vptr)
    values, scores, rest = np.zeros(vptr[-1]), np.zeros(vptr[-1]), statistics.yty.copy()
    for d in np.unique(widths[widths > k]):
        nodes = np.flatnonzero(widths == d)
        columns = vptr[nodes, None] + np.arange(d)
        gram = statistics.xtx[layout.mptr[nodes, None] + np.arange(d * d)].reshape(-1, d, d)
        cross = statistics.xty[columns]
        for c in range(k):  # sweep out one column after the other
            pivot = (statistics.cells[nodes] if c == 0 else gram[:, c, c]) + tau
            rest[nodes] -= cross[:, c] ** 2 / pivot
            share = gram[:, c] / pivot[:, None]
            cross = cross - share * cross[:, c, None]
            gram = gram - share[:, :, None] * gram[:, c, None]
        by = 1.0 / np.sqrt(relative[columns[:, k:]])
        gram = gram[:, k:, k:] * by[:, None] * by[:, :, None]
        basis = np.empty_like(gram)
        for i, node in enumerate(nodes):
            found, basis[i], _ = dsyevd(gram[i], lower=1)
            values[vptr[node] + k : vptr[node + 1]] = np.maximum(found, 0.0)
        scores[columns[:, k:]] = (basis * (cross[:, k:] * by)[:, :, None]).sum(axis=1)
    return values, scores, rest


@lean
def _node_evidence(i, vptr, k, values, scores, rest, log_lambda, shape, rate, half, known):
    """Log evidence of node i as a function of log lambda, up to a constant."""
    start = vptr[i] + k
    lam = np.exp(log_lambda)
    logdet, quad = 0.0, rest[i]
    for a in range(start, vptr[i + 1]):
        logdet += np.log1p(values[a] / lam)
        quad -= scores[a] * scores[a] / (values[a] + lam)
    quad = max(quad, 0.0)
    if known[i] > 0.0:
        return -0.5 * logdet - 0.5 * quad / known[i]
    return -0.5 * logdet - (shape[i] + half[i]) * np.log(rate[i] + 0.5 * quad)


@lean
def _total_evidence(nodes, vptr, k, values, scores, rest, t, shape, rate, half, known):
    total = 0.0
    for i in nodes:
        total += _node_evidence(i, vptr, k, values, scores, rest, t, shape, rate, half, known)
    return total


def learn_precision(
    layout: Layout, statistics: Statistics, prior: Prior, relative: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return lambda of each node, shape ``(n_nodes,)``: shared, or drawn towards a shared value.

    ``relative``, shape ``(vptr[-1],)``, is the precision of each design column over lambda.

    Maximises the log evidence of DAG-BLR plus a weak log-normal hyperprior on lambda.
    """
    p, vptr = layout.n_nodes, layout.vptr
    values, scores, rest = _spectra(layout, statistics, prior.intercept_precision, relative)
    known = np.zeros(p) if prior.noise_var is None else prior.noise_var
    shape, rate = np.full(p, prior.shape), prior.rates(layout, statistics)
    head = (vptr, layout.fixed, values, scores, rest)
    tail = (shape, rate, statistics.cells / 2, known)

    nodes = np.flatnonzero(np.diff(vptr) > layout.fixed)
    common = _argmax(lambda t: _total_evidence(nodes, *head, t, *tail) - 0.5 * (t / HYPER_SD) ** 2)
    result = np.full(p, common)
    if not prior.pooled:
        for i in nodes.tolist():

            def objective(t: float, i: int = i) -> float:
                return _node_evidence(i, *head, t, *tail) - 0.5 * ((t - common) / NODE_SD) ** 2

            result[i] = _argmax(objective)
    return np.exp(result)


def _argmax(objective: Callable[[float], float]) -> float:
    # The evidence may have more than one mode: a grid finds the best, Brent refines it.
    grid = np.linspace(*_BOUNDS, 33)
    best = int(np.argmax([objective(t) for t in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(
        lambda t: -objective(t), bounds=(low, high), method="bounded", options={"xatol": 1e-4}
    )
    return float(found.x)
