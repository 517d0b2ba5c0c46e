"""The blocks of a posterior, from statistics and prior: precision, noise, evidence, prior scale.

The prior variance of node i's weight on parent k is ``sigma_i^2 / (lambda_i r_k)``, with ``r_k``
one or the noise variance of the parent. One eigendecomposition of the parents' gram (fixed columns
projected out, columns divided by ``sqrt(r_k)``) gives a node's evidence for every lambda.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg.lapack import dsyevd
from scipy.optimize import minimize_scalar
from scipy.special import gammaln

from nextpert.core._compile import lean
from nextpert.core.causal import _kernels as kernels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Pointers = NDArray[np.int64]

# M, m, y'y - m'X'y, log|M| over the prior's, and the prior precision of every design column.
BLOCKS = ("cov", "weights", "residual", "logdet", "precision")
RATE_SHARE = 1e-3  # the default rate of a noise variance, over the variance of the cells


class Layout(NamedTuple):
    """Where the ragged blocks of every node lie in the flat arrays (see ``_kernels``)."""

    indices: Pointers  # parents, one node after the other
    vptr: Pointers
    mptr: Pointers
    fixed: int  # columns before the parents, with a flat prior: the intercept, and batches
    is_weight: NDArray[np.bool_]  # which design columns are parents, (vptr[-1],)
    longest: int  # columns of the longest design row


class Statistics(NamedTuple):
    """Sums over the cells seen: ``X'X``, ``X'y``, ``y'y`` and the number of cells of each node."""

    xtx: Vector
    xty: Vector
    yty: Vector
    cells: Vector


class Prior(NamedTuple):
    """What was believed before any cell; the options of ``DagBlr`` by the same names."""

    scale: float | str
    units: str
    pooled: bool
    shape: float
    rate: float | None  # a share of the cells' variance where None
    noise_var: Vector | None  # known ones
    intercept_precision: float

    def rates(self, layout: Layout, statistics: Statistics) -> Vector:
        """Return the rate of every node's noise variance, shape ``(n_nodes,)``."""
        if self.rate is None:
            return RATE_SHARE * cell_variance(layout, statistics)
        return np.full(len(statistics.yty), self.rate)


def cell_variance(layout: Layout, statistics: Statistics) -> Vector:
    """Return the variance of every node's cells less their shifts: a number in its units.

    Above 0 throughout: the mean square where the cells do not vary, 1 where there are none.
    """
    cells, square = np.maximum(statistics.cells, 1), statistics.yty
    variance = square.copy()
    if layout.fixed:
        variance -= statistics.xty[layout.vptr[:-1]] ** 2 / cells
    variance = np.where(variance > 1e-12 * square, variance, square) / cells
    return np.where(variance > 0, variance, 1.0)


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


def gap_terms(alpha: Vector, beta: Vector) -> tuple[Vector, Vector]:
    """Return ``e`` and ``kappa`` of equation 4 for noise variances ``IG(alpha, beta)``.

    Raises
    ------
    ValueError
        If ``alpha <= 2``: the variance of the gap is infinite.
    """
    if (alpha <= 2).any():
        message = (
            "The variance of the optimality gap is infinite while the noise variances have "
            "shape <= 2: update with control cells first, or raise prior_shape above 2."
        )
        raise ValueError(message)
    kappa = beta**2 * (2 * alpha - 1) / ((alpha - 1) ** 2 * (alpha - 2))
    return beta / (alpha - 1), kappa


def log_evidence(
    layout: Layout, statistics: Statistics, prior: Prior, blocks: Mapping[str, Vector]
) -> Vector:
    """Return the log evidence of every node, shape ``(n_nodes,)``.

    Raises
    ------
    ValueError
        If the prior of the noise variances is improper.
    """
    cells, residual = statistics.cells, blocks["residual"]
    constant = -0.5 * cells * np.log(2 * np.pi) + 0.5 * blocks["logdet"]
    if prior.noise_var is not None:
        return constant - 0.5 * cells * np.log(prior.noise_var) - 0.5 * residual / prior.noise_var
    if prior.rate == 0:
        message = "prior_rate=0 is improper: the evidence is undefined."
        raise ValueError(message)
    before_rate = prior.rates(layout, statistics)
    shape, rate = prior.shape + cells / 2, before_rate + residual / 2
    before = prior.shape * np.log(before_rate) - gammaln(prior.shape)
    after = -shape * np.log(rate) + gammaln(shape)
    return constant + before + after


def fill_blocks(layout: Layout, statistics: Statistics, prior: Prior) -> dict[str, Vector]:
    """Return the blocks under the prior, whose scale and units are learned where they are to be."""
    noise_var = prior.noise_var
    if not len(layout.indices):  # no edges, so neither scale nor units matter
        intercepts = np.full(layout.vptr[-1], prior.intercept_precision)
        return solve_blocks(layout, statistics, intercepts)
    if prior.units == "data":
        return solve_blocks(layout, statistics, _column_precision(layout, statistics, prior, None))
    if noise_var is None:
        # Noise variances are not known before the fit: those of a first one, where variances of
        # the cells stand for them. Taken is 1 / E[1 / sigma^2], which is finite for any prior.
        variance = cell_variance(layout, statistics)
        precision = _column_precision(layout, statistics, prior, variance)
        plain = solve_blocks(layout, statistics, precision)
        rate = prior.rates(layout, statistics) + plain["residual"] / 2
        noise_var = rate / (prior.shape + statistics.cells / 2)
    by_noise = solve_blocks(
        layout, statistics, _column_precision(layout, statistics, prior, noise_var)
    )
    if prior.units == "noise":
        return by_noise
    # One unit for all genes, in the middle of theirs, so that the scale's hyperprior means the
    # same for both, in whatever units the data come.
    middle = np.full(len(statistics.yty), np.exp(np.log(noise_var).mean()))
    alike = solve_blocks(layout, statistics, _column_precision(layout, statistics, prior, middle))
    gain = log_evidence(layout, statistics, prior, by_noise)
    gain -= log_evidence(layout, statistics, prior, alike)
    return by_noise if gain.sum() > 0 else alike


def _column_precision(
    layout: Layout, statistics: Statistics, prior: Prior, units: Vector | None
) -> Vector:
    """Return the prior precision of every design column over ``sigma_i^2``, shape ``(width,)``.

    ``lambda_i`` in units of the data, ``lambda_i sigma_k^2`` for parent ``k`` in units of the
    noise: the prior variance of ``B_ik`` is then ``sigma_i^2 / (lambda_i sigma_k^2)``.
    ``lambda_i`` is given, or maximises the log evidence of DAG-BLR plus a weak log-normal
    hyperprior: one value of all nodes, from which that of each may depart if not pooled.
    """
    p, vptr = len(statistics.yty), layout.vptr
    relative = np.ones(vptr[-1])
    if units is not None:
        relative[layout.is_weight] = units[layout.indices]
    if prior.scale == "evidence":
        values, scores, rest = _spectra(layout, statistics, prior.intercept_precision, relative)
        known = np.zeros(p) if prior.noise_var is None else prior.noise_var
        shape, rate = np.full(p, prior.shape), prior.rates(layout, statistics)
        head = (vptr, layout.fixed, values, scores, rest)
        tail = (shape, rate, statistics.cells / 2, known)
        nodes = np.flatnonzero(np.diff(vptr) > layout.fixed)
        log_scale, grid = np.zeros(p), np.linspace(*_BOUNDS, 33)
        centre, sd = 0.0, HYPER_SD
        # All nodes about 0 first, then each by itself about the common value.
        for some in [nodes, *([] if prior.pooled else nodes[:, None])]:

            def loss(t: float, some: Pointers = some, at: float = centre, sd: float = sd) -> float:
                return 0.5 * ((t - at) / sd) ** 2 - float(_total_evidence(some, *head, t, *tail))

            # The evidence may have more than one mode: a grid finds the best, Brent refines it.
            best = int(np.argmin(list(map(loss, grid))))
            ends = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
            found = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-4})
            if some is nodes:
                log_scale[:] = centre = float(found.x)
                sd = NODE_SD
            else:
                log_scale[some] = float(found.x)
        scale = np.exp(log_scale)
    else:
        scale = np.full(p, 1.0 / float(prior.scale))
    precision = np.repeat(scale, np.diff(vptr)) * relative
    precision[~layout.is_weight] = prior.intercept_precision
    return precision


def solve_blocks(layout: Layout, statistics: Statistics, precision: Vector) -> dict[str, Vector]:
    """Return the blocks for the prior precision of every design column (equations 2 and 3).

    Raises
    ------
    ValueError
        If the parents of a node are collinear to working precision, or a result overflows.
    """
    vptr, mptr = layout.vptr, layout.mptr
    cov, weights = np.empty(mptr[-1]), np.empty(vptr[-1])
    residual, logdet = np.empty(len(statistics.yty)), np.empty(len(statistics.yty))
    sums = (statistics.xtx, statistics.xty, statistics.yty)
    work = np.empty((4, layout.longest, layout.longest))
    kernels.posterior_blocks(vptr, mptr, precision, *sums, cov, weights, residual, logdet, work)
    failed = np.flatnonzero(~np.isfinite(logdet))
    if len(failed):
        message = (
            f"The parents of nodes {failed[:10].tolist()} are collinear to working precision: "
            "drop duplicated nodes or use a smaller prior_scale."
        )
        raise ValueError(message)
    values = (cov, weights, residual, logdet, precision)
    if not all(np.isfinite(value).all() for value in values):
        message = (
            "The posterior of the weights is not finite: the cells' values differ too much in "
            "size for floating point numbers. Give the genes in comparable units."
        )
        raise ValueError(message)
    return dict(zip(BLOCKS, values, strict=True))
