"""The scale of the prior over weights, learned by maximising the evidence.

The prior variance of node i's weight on parent k is ``sigma_i^2 / (lambda_i r_k)``, with ``r_k``
one or the noise variance of the parent. One eigendecomposition of the parents' gram (fixed columns
projected out, columns divided by ``sqrt(r_k)``) gives a node's evidence for every lambda: with its
eigenvalues ``v`` and ``s = U'X'y``, ``|X'X + lambda I| / |lambda I| = prod (1 + v / lambda)`` and
the residual ``y'y - sum s^2 / (v + lambda)`` (mathematics: weights, shifts known).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from nextpert.core.posterior._parts import Layout, Prior, Statistics

    Vector = NDArray[np.float64]

HYPER_SD = 3.0  # of log lambda about 0: weak, a factor of 20 either way is one standard deviation
NODE_SD = 1.0  # of a node's log lambda about the common one
_GRID = np.linspace(-14.0, 18.0, 33)  # of log lambda: the evidence may have more than one mode


class Evidence(NamedTuple):
    """What the log evidence of the nodes with parents is computed from, for any log lambda."""

    nodes: NDArray[np.int64]  # those with parents, (n,)
    first: NDArray[np.int64]  # of the weights of each, (n,)
    values: Vector  # eigenvalues of the parents' grams, (n_weights,)
    scores: Vector  # squares of X'y in their basis, (n_weights,)
    rest: Vector  # y'y without what the fixed columns explain, (n,)
    shape: Vector  # of the prior of the noise variance with half of the cells, (n,)
    rate: Vector  # (n,)
    known: Vector | None  # noise variances, (n,)

    @classmethod
    def of(cls, layout: Layout, statistics: Statistics, prior: Prior, relative: Vector) -> Evidence:
        """Return it, ``relative`` the precision of each design column over lambda, (vptr[-1],).

        Nodes with as many columns are decomposed together.
        """
        vptr, k = layout.vptr, layout.fixed
        widths = np.diff(vptr)
        values, scores = np.zeros(vptr[-1]), np.zeros(vptr[-1])
        rest = statistics.yty.astype(np.float64)
        for d in np.unique(widths[widths > k]):
            nodes = np.flatnonzero(widths == d)
            columns = vptr[nodes, None] + np.arange(d)
            gram = statistics.xtx[layout.mptr[nodes, None] + np.arange(d * d)].reshape(-1, d, d)
            cross = statistics.xty[columns]
            for c in range(k):  # project out one fixed column after the other
                own = statistics.cells[nodes] if c == 0 else gram[:, c, c]
                share = gram[:, c] / (own + prior.intercept_precision)[:, None]
                rest[nodes] -= cross[:, c] ** 2 / (own + prior.intercept_precision)
                cross = cross - share * cross[:, c, None]
                gram = gram - share[:, :, None] * gram[:, c, None]
            by = 1.0 / np.sqrt(relative[columns[:, k:]])
            found, basis = np.linalg.eigh(gram[:, k:, k:] * by[:, :, None] * by[:, None])
            values[columns[:, k:]] = np.maximum(found, 0.0)
            scores[columns[:, k:]] = ((cross[:, k:] * by)[:, None] @ basis)[:, 0] ** 2
        weights, nodes = layout.is_weight, np.flatnonzero(widths > k)
        known = None if prior.noise_var is None else prior.noise_var[nodes]
        return cls(
            nodes, np.cumsum(widths[nodes] - k) - widths[nodes] + k, values[weights],
            scores[weights], rest[nodes], prior.shape + statistics.cells[nodes] / 2,
            prior.rates(layout, statistics)[nodes], known,
        )  # fmt: skip

    def only(self, i: int) -> Evidence:
        """Return that of the ``i``-th of its nodes."""
        weights = slice(*np.append(self.first, len(self.values))[i : i + 2])
        known = None if self.known is None else self.known[[i]]
        return Evidence(
            self.nodes[[i]], np.zeros(1, np.int64), self.values[weights], self.scores[weights],
            self.rest[[i]], self.shape[[i]], self.rate[[i]], known,
        )  # fmt: skip

    def at(self, log_lambda: float | Vector) -> Vector:
        """Return the log evidence of every node, up to a constant, shape ``(n,)``.

        Of several log lambdas, shape ``(m, 1)``, it is ``(m, n)``.
        """
        lam = np.exp(log_lambda)
        logdet = np.add.reduceat(np.log1p(self.values / lam), self.first, axis=-1)
        fitted = np.add.reduceat(self.scores / (self.values + lam), self.first, axis=-1)
        quad = np.maximum(self.rest - fitted, 0.0)
        if self.known is not None:
            return -0.5 * (logdet + quad / self.known)
        return -0.5 * logdet - self.shape * np.log(self.rate + 0.5 * quad)


def learn_precision(
    layout: Layout, statistics: Statistics, prior: Prior, relative: Vector
) -> Vector:
    """Return lambda of each node, shape ``(n_nodes,)``: shared, or drawn towards a shared value.

    ``relative``, shape ``(vptr[-1],)``, is the precision of each design column over lambda.

    Maximises the log evidence of DAG-BLR plus a weak log-normal hyperprior on lambda.
    """
    evidence = Evidence.of(layout, statistics, prior, relative)
    grid = evidence.at(_GRID[:, None])
    common = _argmax(
        lambda t: float(evidence.at(t).sum()) - 0.5 * (t / HYPER_SD) ** 2,
        grid.sum(axis=1) - 0.5 * (_GRID / HYPER_SD) ** 2,
    )
    result = np.full(layout.n_nodes, common)
    if not prior.pooled:
        for i, values in enumerate(grid.T):
            one = evidence.only(i)

            def objective(t: float, one: Evidence = one) -> float:
                return float(one.at(t)[0]) - 0.5 * ((t - common) / NODE_SD) ** 2

            best = _argmax(objective, values - 0.5 * ((_GRID - common) / NODE_SD) ** 2)
            result[evidence.nodes[i]] = best
    return np.exp(result)


def _argmax(objective: Callable[[float], float], on_grid: Vector) -> float:
    """Return where a function is largest: the best of the grid, refined by Brent's method."""
    best = int(np.argmax(on_grid))
    low, high = _GRID[max(best - 1, 0)], _GRID[min(best + 1, len(_GRID) - 1)]
    found = minimize_scalar(
        lambda t: -objective(t), bounds=(low, high), method="bounded", options={"xatol": 1e-4}
    )
    return float(found.x)
