"""The scale of the prior over weights, learned by maximising the evidence.

The prior variance of node i's weight on parent k is ``sigma_i^2 / (lambda_i r_k)``, with ``r_k``
one or the noise variance of the parent. One eigendecomposition of the parents' gram (fixed columns
projected out, columns divided by ``sqrt(r_k)``) gives a node's evidence for every lambda.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar

from nextpert.core._compile import entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from nextpert.core.posterior._parts import Layout, Prior, Statistics

HYPER_SD = 3.0  # of log lambda about 0: weak, a factor of 20 either way is one standard deviation
NODE_SD = 1.0  # of a node's log lambda about the common one
_BOUNDS = (-14.0, 18.0)  # of log lambda


@entry
def _spectra(vptr, mptr, k, tau, relative, xtx, xty, yty, cells, values, scores, rest):
    """Eigenvalues of each node's parent gram, X'y in that basis, and y'y.

    The first ``k`` columns, the fixed ones, are projected out.
    """
    for i in range(len(vptr) - 1):
        v, m = vptr[i], mptr[i]
        d = vptr[i + 1] - v
        rest[i] = yty[i]
        full = xtx[m : m + d * d].reshape(d, d).copy()
        sums = xty[v : v + d].copy()
        for c in range(k):  # sweep out one column after the other
            pivot = (cells[i] if c == 0 else full[c, c]) + tau
            rest[i] -= sums[c] * sums[c] / pivot
            for a in range(c + 1, d):
                share = full[c, a] / pivot
                sums[a] -= share * sums[c]
                for b in range(c + 1, d):
                    full[a, b] -= share * full[c, b]
        if d == k:
            continue
        gram = full[k:, k:].copy()
        cross = sums[k:]
        for a in range(d - k):
            by = 1.0 / np.sqrt(relative[v + k + a])
            cross[a] *= by
            for b in range(d - k):
                gram[a, b] *= by
                gram[b, a] *= by
        w, u = np.linalg.eigh(gram)
        for a in range(d - k):
            values[v + k + a] = max(w[a], 0.0)
            s = 0.0
            for b in range(d - k):
                s += u[b, a] * cross[b]
            scores[v + k + a] = s


@entry
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


@entry
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
    values, scores = np.zeros(vptr[-1]), np.zeros(vptr[-1])
    rest = np.empty(p)
    tau = prior.intercept_precision
    _spectra(vptr, layout.mptr, layout.fixed, tau, relative, *statistics, values, scores, rest)
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
