"""Regression of each node: posterior, evidence and prior scale from the prior and sums over cells.

The prior variance of node i's weight on parent k is ``sigma_i^2 / (lambda r_k)``, where ``r_k`` is
1 or the noise variance of the parent. One eigendecomposition of the parents' Gram matrix (fixed
columns projected out, columns divided by ``sqrt(r_k)``) gives the evidence for every lambda.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.linalg.lapack import dsyevd
from scipy.optimize import minimize_scalar
from scipy.special import gammaln

from nextpert.core._checks import as_numbers, require_kind, require_positive
from nextpert.core.causal import _kernels as kernels
from nextpert.core.causal._shared_factor import SharedFactor, factor_of, unfold
from nextpert.core.graph.dag import Dag

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from numpy.typing import ArrayLike, NDArray

    Vector = NDArray[np.float64]
    Pointers = NDArray[np.int64]

# Sums over the observed cells: X'X, X'y, y'y and the number of cells of each node.
SUMS = ("xtx", "xty", "yty", "cells")
# M, m, y'y - m'X'y, log|M| minus the prior's, and the prior precision of every design column.
BLOCKS = ("cov", "weights", "residual", "logdet", "precision")
INTERCEPT_PRECISION = 1e-6  # prior precision times noise variance: nearly flat for log counts
RATE_SHARE = 1e-3  # default rate of a noise variance, relative to the variance of the cells
HYPER_SD = 3.0  # SD of log lambda about 0, a weak prior: one SD is a factor of 20
_BOUNDS = (-14.0, 18.0)  # of log lambda


class Regressions:
    """Layout, prior, sums over cells and posterior of the regressions of all nodes.

    The parameters are those of :class:`~nextpert.core.DagBlr`.
    """

    def __init__(
        self,
        dag: Dag,
        *,
        noise_var: ArrayLike | None = None,
        intercept: bool = True,
        n_fixed: int = 0,
        prior_scale: float | str = "evidence",
        prior_units: str | None = None,
        prior_shape: float = 2.0,
        prior_rate: float | None = None,
    ) -> None:
        require_kind(dag, Dag, "dag")
        self.dag, self.n_nodes = dag, dag.n_nodes
        self.intercept, self.n_fixed = bool(intercept), int(n_fixed)
        self.prior_shape = require_positive(prior_shape, "prior_shape")
        learned = prior_scale == "evidence"
        units = ("evidence" if learned else "data") if prior_units is None else prior_units
        self.known_noise_var: Vector | None = None
        message = ""
        if self.n_fixed and not self.intercept:
            message = "Fixed columns need an intercept: use intercept=True, or n_fixed=0."
        elif isinstance(prior_scale, str) and not learned:
            message = f"prior_scale must be 'evidence' or a number, but is {prior_scale!r}."
        elif units not in ("data", "noise", "evidence"):
            message = f"prior_units must be 'evidence', 'data', 'noise' or None, but is {units!r}."
        elif units == "evidence" and not learned:
            message = (
                "prior_units='evidence' needs a learned scale: use prior_scale='evidence', or "
                "prior_units='data' or 'noise'."
            )
        elif prior_rate is not None and not (np.isfinite(prior_rate) and prior_rate >= 0):
            message = f"prior_rate must be a finite number, 0 or above, but is {prior_rate!r}."
        elif prior_rate == 0 and noise_var is None and (learned or units == "noise"):
            message = (
                "prior_rate=0 needs a number as prior_scale and prior_units='data': set these, or "
                "use a prior_rate above 0."
            )
        if noise_var is not None and not message:
            variance = as_numbers(noise_var, "noise_var")
            if variance.shape not in ((), (1,), (self.n_nodes,)):
                message = f"noise_var has shape {variance.shape}: give one number, or one per node "
                message += f"({self.n_nodes})."
            elif not (np.isfinite(variance).all() and (variance > 0).all()):
                message = "noise_var must be finite and above 0 for every node."
            else:
                self.known_noise_var = np.broadcast_to(variance, (self.n_nodes,)).copy()
        if message:
            raise ValueError(message)
        # The scale is a number unless it is learned.
        scale: Any = prior_scale
        self.prior_scale = scale if learned else require_positive(scale, "prior_scale")
        self.prior_units = units
        self.prior_rate = None if prior_rate is None else float(prior_rate)
        # Positions of the blocks of every node in flat arrays, for the kernels.
        fixed = self.intercept + self.n_fixed
        width = dag.in_degree + fixed
        self.vptr: Pointers = np.concatenate([[0], np.cumsum(width)])
        self.mptr: Pointers = np.concatenate([[0], np.cumsum(width**2)])
        self.place = (dag.indptr, dag.indices, self.vptr, self.mptr)
        self.longest = int(width.max(initial=0))
        column = np.arange(self.vptr[-1]) - np.repeat(self.vptr[:-1], width)
        self.diagonal = np.repeat(self.mptr[:-1], width) + column * np.repeat(width + 1, width)
        # Which design columns are parents, shape (vptr[-1],).
        self.is_weight = np.ones(self.vptr[-1], dtype=np.bool_)
        self.is_weight[self.vptr[:-1, None] + np.arange(fixed)] = False
        self.xty = np.zeros(self.vptr[-1])
        self.yty, self.cells = np.zeros(dag.n_nodes), np.zeros(dag.n_nodes)
        # X'X and M are separate, unless a factor holds those of all nodes (``update_shared``).
        self.xtx = np.zeros(self.mptr[-1])
        self._blocks: dict[str, Vector] | None = None
        self._factor: SharedFactor | None = None

    @property
    def n_cells(self) -> int:
        """Number of cells; if it differs between nodes, the largest."""
        return int(self.cells.max(initial=0))

    @property
    def blocks(self) -> dict[str, Vector]:
        """Flat arrays ``cov`` (M), ``weights`` (m), ``residual``, ``logdet`` and ``precision``."""
        if "cov" not in self.estimates:
            self._unfold()
        return self.estimates

    @property
    def estimates(self) -> dict[str, Vector]:
        """The blocks; without ``cov`` where a factor shared by all nodes holds it."""
        if self._blocks is None:
            self._blocks = self._fitted()
        return self._blocks

    @cached_property
    def xtx(self) -> Vector:
        """Products of the design columns, X'X, one square block per node, flat."""
        self._unfold()
        return cast("Vector", vars(self)["xtx"])

    def shared_factor(self) -> SharedFactor | None:
        """Return the factor that holds M of all nodes, or ``None`` if they do not share one."""
        if self._factor is None:
            self._factor = factor_of(self, self.blocks["cov"], self.estimates["precision"])
        return self._factor

    def _unfold(self) -> None:
        """Fill the separate blocks of M and X'X from the shared factor."""
        factor = cast("SharedFactor", self._factor)
        size = self.longest
        cov, xtx = np.empty(self.mptr[-1]), np.empty(self.mptr[-1])
        shared = (factor.root, factor.gram, factor.rank)
        unfold(self.place, self.dag.order, shared, np.empty((size, size)), cov, xtx)
        self._blocks = {"cov": cov, **self.estimates}
        self.xtx = xtx

    def squares(self, flat: Vector) -> Iterator[Vector]:
        """Yield the square block of every node as a view of an array laid out as ``cov``."""
        for (first, last), d in zip(pairwise(self.mptr), np.diff(self.vptr), strict=True):
            yield flat[first:last].reshape(d, d)

    def add_scatter(self, scatter: Vector, intervened: Container[int] = ()) -> None:
        """Add the scatter within environments to the sums of equation 2.

        Nodes in ``intervened`` are left out. ``scatter`` is that of the nodes, followed by fixed
        columns if the cells have any.
        """
        fixed = np.arange(self.n_nodes, len(scatter))
        dag = self.dag
        xtx = self.xtx
        self._factor = self._blocks = None  # these sums do not update a shared factor
        for i in range(self.n_nodes):
            if i in intervened:
                continue
            # Sums of (x - mean)(x - mean)': the intercept's column is constant.
            columns = np.append(fixed, dag.indices[dag.indptr[i] : dag.indptr[i + 1]])
            width = self.vptr[i + 1] - self.vptr[i]
            n = len(columns)
            square = xtx[self.mptr[i] : self.mptr[i + 1]].reshape(width, width)
            square[width - n :, width - n :] += scatter[columns[:, None], columns]
            self.xty[self.vptr[i + 1] - n : self.vptr[i + 1]] += scatter[columns, i]
            self.yty[i] += scatter[i, i]

    def add_means(self, means: Vector, shifts: Vector, counted: Vector) -> None:
        """Add the means of environments; that of j counts as ``counted[j, i]`` cells at node i."""
        sums = (self.xtx, self.xty, self.yty)
        room = np.empty(self.longest)
        self._factor = self._blocks = None
        kernels.add_means(self.place, means, shifts, counted, sums, room)

    @property
    def prior_rates(self) -> Vector:
        """Prior rate of every node's noise variance, shape ``(n_nodes,)``."""
        if self.prior_rate is None:
            return RATE_SHARE * self._cell_variance()
        return np.full(self.n_nodes, self.prior_rate)

    def _cell_variance(self) -> Vector:
        """Return the variance of every node's cells after subtraction of their shifts.

        It is always above 0: the mean square if the cells do not vary, and 1 if there are none.
        """
        cells = np.maximum(self.cells, 1)
        square = self.yty
        variance = square.copy()
        if self.intercept:
            variance -= self.xty[self.vptr[:-1]] ** 2 / cells
        # A remainder of y'y that may be rounding error is not a variance.
        variance = np.where(variance > 1e-12 * square, variance, square) / cells
        return np.where(variance > 0, variance, 1.0)

    def _fitted(self) -> dict[str, Vector]:
        """Return the blocks under the prior, whose scale and units are learned on request."""
        if not self.dag.n_edges:  # neither scale nor units matter
            return self.solve_blocks(np.full(self.vptr[-1], INTERCEPT_PRECISION))
        if self.prior_units == "data":
            return self.solve_blocks(self._column_precision(None))
        noise_var = self.known_noise_var
        if noise_var is None:
            # Unknown noise variances come from a first fit, in which the variances of the cells
            # replace them. They are 1 / E[1 / sigma^2], which is finite for any prior.
            plain = self.solve_blocks(self._column_precision(self._cell_variance()))
            rate = self.prior_rates + plain["residual"] / 2
            noise_var = rate / (self.prior_shape + self.cells / 2)
        by_noise = self.solve_blocks(self._column_precision(noise_var))
        if self.prior_units == "noise":
            return by_noise
        # One unit for all genes, the geometric mean of theirs, so that the hyperprior of the scale
        # has the same meaning for both choices, whatever the units of the data.
        middle = np.full(self.n_nodes, np.exp(np.log(noise_var).mean()))
        by_common_unit = self.solve_blocks(self._column_precision(middle))
        gain = self._evidence_of(by_noise) - self._evidence_of(by_common_unit)
        return by_noise if gain.sum() > 0 else by_common_unit

    def solve_blocks(self, precision: Vector) -> dict[str, Vector]:
        """Return the blocks for the prior precision of every design column (equations 2 and 3).

        Raises
        ------
        ValueError
            If the parents of a node are collinear to working precision, or a result overflows.
        """
        # Equation 2 with m = 0: M' = (Lambda + X'X)^-1 and m' = M' X'y, node by node.
        cov, weights = np.empty(self.mptr[-1]), np.empty(self.vptr[-1])
        residual, logdet = np.empty(self.n_nodes), np.empty(self.n_nodes)
        kernels.posterior_blocks(
            self.place,
            precision,
            (self.xtx, self.xty, self.yty),
            (cov, weights, residual, logdet),
            np.empty((4, self.longest, self.longest)),
        )
        failed = np.flatnonzero(~np.isfinite(logdet))
        values = (cov, weights, residual, logdet, precision)
        if len(failed):
            message = (
                f"The parents of nodes {failed[:10].tolist()} are collinear to working precision: "
                "drop duplicated nodes or use a smaller prior_scale."
            )
            raise ValueError(message)
        if not all(np.isfinite(value).all() for value in values):
            message = (
                "The posterior of the weights is not finite: the values of the cells differ too "
                "much in magnitude for floating point numbers. Rescale genes to comparable units."
            )
            raise ValueError(message)
        return dict(zip(BLOCKS, values, strict=True))

    def _evidence_of(self, blocks: dict[str, Vector]) -> Vector:
        """Return the log evidence of every node from its blocks, shape ``(n_nodes,)``.

        Raises
        ------
        ValueError
            If the prior of the noise variances is improper.
        """
        # log N(y | 0, sigma^2 (I + X M X')), with sigma^2 known or integrated out.
        cells = self.cells
        residual = blocks["residual"]
        constant = -0.5 * cells * np.log(2 * np.pi) + 0.5 * blocks["logdet"]
        noise_var = self.known_noise_var
        if noise_var is not None:
            return constant - 0.5 * cells * np.log(noise_var) - 0.5 * residual / noise_var
        if self.prior_rate == 0:
            message = (
                "The evidence is undefined for the improper prior_rate=0: use a value above 0."
            )
            raise ValueError(message)
        # For sigma^2 ~ IG(alpha, beta): the prior's beta^alpha / Gamma(alpha) over the posterior's.
        before_rate = self.prior_rates
        shape, rate = self.prior_shape + cells / 2, before_rate + residual / 2
        before = self.prior_shape * np.log(before_rate) - gammaln(self.prior_shape)
        after = -shape * np.log(rate) + gammaln(shape)
        return constant + before + after

    def _column_precision(self, units: Vector | None) -> Vector:
        """Return the prior precision of every design column over ``sigma_i^2``, ``(vptr[-1],)``.

        It is ``lambda`` in units of the data, and ``lambda sigma_k^2`` for parent ``k`` in units of
        the noise: the prior variance of ``B_ik`` is then ``sigma_i^2 / (lambda sigma_k^2)``.
        ``lambda``, one value for all nodes, is given or maximises the log evidence of DAG-BLR plus
        the log density of a weak log-normal hyperprior.
        """
        relative = np.ones(self.vptr[-1])
        if units is not None:
            relative[self.is_weight] = units[self.dag.indices]
        if not isinstance(self.prior_scale, str):
            scale = 1.0 / self.prior_scale
        else:
            spectra = self._spectra(relative)

            def loss(log_lambda: float) -> float:
                evidence = float(self._spectral_evidence(*spectra, np.exp(log_lambda)).sum())
                return 0.5 * (log_lambda / HYPER_SD) ** 2 - evidence

            # The evidence may have more than one mode: a grid finds the best, Brent refines it.
            grid = np.linspace(*_BOUNDS, 33)
            best = int(np.argmin([loss(t) for t in grid]))
            ends = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
            mode = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-4})
            scale = float(np.exp(mode.x))
        # Intercepts and fixed columns have their own, nearly flat prior.
        return np.where(self.is_weight, scale * relative, INTERCEPT_PRECISION)

    def _spectral_evidence(
        self, values: Vector, scores: Vector, squares: Vector, rates: Vector, scale: float
    ) -> Vector:
        """Return the log evidence of every node at lambda, up to a constant, ``(n_nodes,)``.

        All but ``scale`` are the results of :meth:`_spectra`.
        """
        p = self.n_nodes
        nodes = np.repeat(np.arange(self.n_nodes), np.diff(self.vptr))
        # With eigenvalues v of the Gram matrix and X'y = s in its basis: sum log(1 + v / lambda),
        # and y'y - sum s^2 / (v + lambda), the sum of squares that is not explained.
        logdet = np.bincount(nodes, np.log1p(values / scale), p)
        explained = np.bincount(nodes, scores**2 / (values + scale), p)
        square = np.maximum(squares - explained, 0.0)
        if self.known_noise_var is not None:
            return -0.5 * (logdet + square / self.known_noise_var)
        shape = self.prior_shape + self.cells / 2
        return -0.5 * logdet - shape * np.log(rates + 0.5 * square)

    def _spectra(self, relative: Vector) -> tuple[Vector, Vector, Vector, Vector]:
        """Return eigenvalues of each node's parent Gram matrix, X'y in that basis, and y'y.

        The first two have the shape ``(vptr[-1],)`` of ``relative``, the third ``(n_nodes,)``, and
        so do the prior rates of the noise variances, which are last.
        Fixed columns are projected out. Nodes with the same number of columns are processed
        together.
        """
        vptr = self.vptr
        k = self.intercept + self.n_fixed
        widths = np.diff(vptr)
        values, scores = np.zeros(vptr[-1]), np.zeros(vptr[-1])
        squares = self.yty.copy()
        for d in np.unique(widths[widths > k]):
            nodes = np.flatnonzero(widths == d)
            columns = vptr[nodes, None] + np.arange(d)
            gram = self.xtx[self.mptr[nodes, None] + np.arange(d * d)].reshape(-1, d, d)
            cross = self.xty[columns]
            # Sweep out the fixed columns in turn.
            for c in range(k):
                # With unknown shifts only controls inform the intercept: X'X has their number.
                pivot = gram[:, c, c] + INTERCEPT_PRECISION
                squares[nodes] -= cross[:, c] ** 2 / pivot
                # Schur complement: the Gram matrix of all columns given this one.
                slope = gram[:, c] / pivot[:, None]
                cross = cross - slope * cross[:, c, None]
                gram = gram - slope[:, :, None] * gram[:, c, None]
            # For columns divided by sqrt(r_k) the prior precision is lambda I.
            by = 1.0 / np.sqrt(relative[columns[:, k:]])
            gram = gram[:, k:, k:] * by[:, None] * by[:, :, None]
            basis = np.empty_like(gram)
            for i, node in enumerate(nodes):
                eigenvalues, basis[i], _ = dsyevd(gram[i], lower=1)
                values[vptr[node] + k : vptr[node + 1]] = np.maximum(eigenvalues, 0.0)
            scores[columns[:, k:]] = (basis * (cross[:, k:] * by)[:, :, None]).sum(axis=1)
        return values, scores, squares, self.prior_rates
