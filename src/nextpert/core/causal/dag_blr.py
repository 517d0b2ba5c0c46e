"""DAG-BLR: Bayesian linear regression of every node on its parents in a graph."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import scipy.sparse as sp

from nextpert.core._checks import (
    as_nodes,
    as_numbers,
    as_rng,
    as_vector,
    require_count,
    require_kind,
)
from nextpert.core._codec import damaged, pack, unpack
from nextpert.core.causal import _kernels as kernels
from nextpert.core.causal._blocks import BLOCKS, INTERCEPT_PRECISION, SUMS, Regressions
from nextpert.core.causal._lookahead import reach_by_draws
from nextpert.core.causal._shared_factor import update_shared
from nextpert.core.causal.stored import StoredPosterior
from nextpert.core.screen.moments import Moments, too_large

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.causal._shared_factor import SharedFactor

    Vector = NDArray[np.float64]

OPTIONS = ("intercept", "prior_scale", "prior_units", "prior_shape", "prior_rate")
# Limit of a sum of squares: sums, products and differences of many of them stay finite.
_MAX_SQUARES = 1e290


def require_squares(n: ArrayLike, means: Vector, scatter: Vector, shifts: Vector) -> None:
    """Raise an error that lists the nodes whose squares would overflow.

    ``n`` is the number of cells of one environment, or a column with those of several.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # 0 cells times infinity
        # An upper bound of n |x - a|^2, whatever the signs.
        squares = np.abs(means)
        squares += np.abs(shifts)
        squares **= 2
        squares = np.multiply(np.asarray(n, np.float64), squares)
        largest = np.atleast_2d(squares).sum(axis=0)
    bad = ~(np.maximum(largest, np.diag(scatter)) < _MAX_SQUARES)
    if bad.any():
        raise too_large(bad)


class DagBlr(Regressions):
    """DAG-BLR: a normal-inverse-gamma posterior over the weights of every node.

    The model of node ``i`` with parents ``P`` is ``x_i = c_i + B_iP x_P + a_i + noise`` with shift
    ``a_i``, noise variance ``sigma_i^2 ~ IG(prior_shape, prior_rate)`` and weights
    ``B_iP | sigma_i^2 ~ N(0, sigma_i^2 M_i)`` with a diagonal ``M_i`` (Zhang et al. 2023,
    Definition 2 and Lemma 1). Only moments of the cells are needed; updating with all cells at once
    or in batches gives the same posterior.

    Parameters
    ----------
    dag
        The graph.
    noise_var
        Known noise variances, shape ``(n_nodes,)`` or one number, in squared units of the data;
        ``None`` (default) infers them.
    intercept
        Whether every node has an intercept ``c_i`` (prior precision 1e-6). Use ``False`` only if
        all intercepts are known to be 0.
    n_fixed
        Number of further columns in every regression, such as batch indicators (prior precision
        1e-6). They need an intercept, and are 0 for cells given to :meth:`update`.
    prior_scale
        Scale ``1 / lambda`` of ``M_i``: a number (the paper: 1, that is, ``M = I``), or
        ``"evidence"`` (default), which maximises the evidence at each update.
    prior_units
        Units of ``lambda``. ``"data"``: the weights of node ``i`` have prior variance
        ``sigma_i^2 / lambda``, as in the paper. ``"noise"``: the weight on parent ``k`` has prior
        variance ``sigma_i^2 / (lambda sigma_k^2)``, the only choice independent of the units of the
        genes; a first fit estimates unknown ``sigma_k^2``. ``"evidence"``: the choice with the
        higher evidence at each update. ``None`` (default): ``"evidence"`` if the scale is learned,
        else ``"data"``.
    prior_shape, prior_rate
        Prior of the noise variances; the paper uses 2 and 0 for cells. The default rate, ``None``,
        is a thousandth of the variance of the node's cells.

    Raises
    ------
    ValueError
        If a scale, shape parameter or variance is not positive, or an array has the wrong shape.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, Moments
    >>> rng = np.random.default_rng(0)
    >>> x0 = rng.normal(size=5000)
    >>> x = np.column_stack([x0, 0.8 * x0 + rng.normal(size=5000)])
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)])).update(Moments.from_array(x))
    >>> round(float(blr.mean()[1, 0]), 1), blr.n_cells
    (0.8, 5000)
    """

    # -- data -----------------------------------------------------------------------------------

    def update(
        self,
        moments: Moments,
        shift: ArrayLike | None = None,
        *,
        do: Iterable[int] = (),
        inplace: bool = False,
    ) -> DagBlr:
        """Return the posterior given the cells of one more environment.

        Parameters
        ----------
        moments
            Moments of the cells, in this graph's node order.
        shift
            Shift of every node in those cells, shape ``(n_nodes,)``, in the units of the data;
            ``None`` for control cells.
        do
            Nodes held at a value in those cells (hard interventions). Their parents have no effect
            there, so that the cells do not inform these nodes' regressions, only their children's.
        inplace
            Whether to modify this posterior instead of a copy, which is faster in long loops.
            Acquisitions built on it before become invalid.

        Raises
        ------
        ValueError
            If the number of nodes differs, a value is not finite, or a node of ``do`` is not in
            the graph; the posterior is unchanged.
        """
        require_kind(moments, Moments, "moments")
        p = self.n_nodes
        if moments.n_nodes != p:
            message = (
                f"The cells have {moments.n_nodes} nodes, but the graph has {p}: give the moments "
                f"of the graph's nodes."
            )
            raise ValueError(message)
        offset = as_vector(np.zeros(p) if shift is None else shift, p, "shift")
        require_squares(moments.n, moments.mean, moments.scatter, offset)
        intervened = as_nodes(do, p, "do")
        # Scatter and mean are added separately; a held node gets neither.
        count = np.full(p, float(moments.n))
        count[intervened] = 0.0
        # The intercept's prior variance is large: a rank-one update by a first cell loses digits.
        complete = not self.intercept or (self.cells > 0).all()
        has_known_units = self.prior_units == "data" or self.known_noise_var is not None
        fixed = self._blocks is not None and self.prior_scale != "evidence" and has_known_units
        rank_one = bool(moments.n == 1 and fixed and complete and not intervened)
        factor = self.shared_factor() if rank_one else None
        new = self if inplace else self._copied(with_blocks=rank_one, factor=factor)
        if factor is not None:
            new._add_cell(moments.mean, offset)
        else:
            # A single cell has no scatter.
            if moments.n > 1:
                new.add_scatter(moments.scatter, intervened)
            blocks = new._blocks
            new.add_means(moments.mean[None], offset[None], count[None])
            if rank_one and blocks is not None:
                changing = tuple(blocks[name] for name in ("cov", "weights", "residual", "logdet"))
                kernels.rank_one_update(self.place, moments.mean, offset, changing)
                new._blocks = blocks
        new.cells += count
        return new

    def _add_cell(self, x: Vector, shift: Vector) -> None:
        """Update the shared factor and what follows from it; drop the blocks that it holds."""
        factor = cast("SharedFactor", self._factor)
        estimates = self.estimates
        estimates.pop("cov", None)
        vars(self).pop("xtx", None)
        update_shared(
            self.place,
            self.dag.order,
            (factor.root, factor.gram, factor.rank),
            x,
            shift,
            (estimates["weights"], estimates["residual"], estimates["logdet"]),
            (self.xty, self.yty),
            np.empty((2, len(factor.root))),
        )

    def _copied(self, *, with_blocks: bool, factor: SharedFactor | None = None) -> DagBlr:
        """Return a copy; with a shared factor, without the blocks that it holds."""
        new = copy.copy(self)
        sums = SUMS if factor is None else SUMS[1:]
        vars(new).pop("xtx", None)
        vars(new).update({name: getattr(self, name).copy() for name in sums})
        new._factor = None if factor is None else factor.copy()
        new._blocks = None
        if with_blocks:
            blocks = self.blocks if factor is None else self.estimates
            names = [name for name in blocks if factor is None or name != "cov"]
            new._blocks = {name: blocks[name].copy() for name in names}
        return new

    @property
    def options(self) -> dict[str, Any]:
        """Options with which the posterior was created, without ``n_fixed``."""
        options = {name: getattr(self, name) for name in OPTIONS}
        return {"noise_var": self.known_noise_var} | options

    # -- posterior ------------------------------------------------------------------------------

    def mean(self) -> sp.csr_array:
        """Return the posterior mean of B, sparse ``(n_nodes, n_nodes)``, row = child."""
        data = self.estimates["weights"][self.is_weight]
        # Blocks contain the parents node by node: the rows of B in CSR.
        shape = (self.n_nodes, self.n_nodes)
        return sp.csr_array((data, self.dag.indices.copy(), self.dag.indptr.copy()), shape=shape)

    @property
    def intercept_mean(self) -> Vector:
        """Posterior mean of the intercepts, shape ``(n_nodes,)``, units of the data."""
        if not self.intercept:
            return np.zeros(self.n_nodes)
        return self.estimates["weights"][self.vptr[:-1]]

    @property
    def shape(self) -> Vector:
        """Posterior shape alpha of the noise variances, shape ``(n_nodes,)``."""
        return self.prior_shape + self.cells / 2

    @property
    def rate(self) -> Vector:
        """Posterior rate beta of the noise variances, shape ``(n_nodes,)``."""
        return self.prior_rates + self.estimates["residual"] / 2

    @property
    def noise_var(self) -> Vector:
        """Posterior mean of the noise variances (or the known ones), shape ``(n_nodes,)``."""
        if self.known_noise_var is not None:
            return self.known_noise_var
        if (self.shape <= 1).any():
            message = (
                "The noise variances have no posterior mean yet (shape <= 1): update with control "
                "cells."
            )
            raise ValueError(message)
        return self.rate / (self.shape - 1)

    def spread(self, extra_cells: float = 0.0, *, expected: bool = False) -> tuple[Vector, Vector]:
        """Return ``e`` and ``kappa`` of every node, which enter the variance of the gap.

        ``e = beta/(alpha - 1)`` and ``kappa = beta^2 (2 alpha - 1)/((alpha - 1)^2 (alpha - 2))``
        with ``alpha`` increased by ``extra_cells / 2``; for known variances, ``sigma^2`` and
        ``2 sigma^4``. The paper keeps ``beta`` constant; ``expected`` adds its expected growth,
        ``extra_cells / 2`` times the current noise variance.

        Raises
        ------
        ValueError
            If ``alpha <= 2``, where the variance is infinite.
        """
        if self.known_noise_var is not None:
            return self.known_noise_var, 2 * self.known_noise_var**2
        # Moments of an inverse gamma: e = E sigma^2 and kappa = 2 E sigma^4 + Var sigma^2.
        alpha = self.shape + extra_cells / 2
        beta = self.rate
        if expected:
            beta = beta + extra_cells / 2 * self.noise_var
        if (alpha <= 2).any():
            message = (
                "The variance of the optimality gap is infinite while the noise variances have "
                "shape <= 2: update with control cells first, or raise prior_shape above 2."
            )
            raise ValueError(message)
        kappa = beta**2 * (2 * alpha - 1) / ((alpha - 1) ** 2 * (alpha - 2))
        return beta / (alpha - 1), kappa

    def log_evidence(self) -> float:
        """Return the log evidence (log marginal likelihood) of all observed cells."""
        return float(self._evidence_of(self.estimates).sum())

    def sample(
        self, n_samples: int, rng: int | np.random.Generator | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Draw weights and noise variances from the posterior.

        Returns
        -------
        weights
            Coefficients node by node (intercept, fixed columns, parents; node ``i`` has
            ``vptr[i]:vptr[i + 1]``), shape ``(n_samples, vptr[-1])``.
        noise_var
            Noise variances, shape ``(n_samples, n_nodes)``.
        """
        count = require_count(n_samples, "n_samples")
        generator = as_rng(rng)
        if self.known_noise_var is None:  # inverse gamma
            # beta / Gamma(alpha) is inverse gamma.
            drawn = generator.standard_gamma(self.shape, size=(count, self.n_nodes))
            noise_var = self.rate / drawn
        else:
            noise_var = np.tile(self.known_noise_var, (count, 1))
        draws = generator.standard_normal((count, int(self.vptr[-1])))
        sd = np.sqrt(noise_var)
        for i, block in enumerate(self.squares(self.blocks["cov"])):
            columns = slice(self.vptr[i], self.vptr[i + 1])
            # B_iP | sigma_i^2 ~ N(m, sigma_i^2 M).
            if len(block):
                scaled = (draws[:, columns] @ np.linalg.cholesky(block).T) * sd[:, i, None]
                draws[:, columns] = self.estimates["weights"][columns] + scaled
        return draws, noise_var

    def without_fixed(self) -> DagBlr:
        """Return the posterior of intercepts and weights, with the fixed columns at 0.

        Their coefficients are integrated out, so that the uncertainty about them is included.
        """
        if not self.n_fixed:
            return self
        new = DagBlr(self.dag, **self.options)
        new.cells = self.cells
        is_free = np.ones(self.vptr[-1], bool)
        is_free[self.vptr[:-1, None] + 1 + np.arange(self.n_fixed)] = False
        in_squares = np.zeros(self.mptr[-1], bool)
        squares = zip(
            self.squares(in_squares), self.squares(self.xtx), new.squares(new.xtx), strict=True
        )
        for i, (in_square, gram, new_gram) in enumerate(squares):
            entries = slice(self.vptr[i], self.vptr[i + 1])
            rows, sums = is_free[entries], self.xty[entries]
            in_square[:] = np.outer(rows, rows)
            # What the fixed columns explain, by least squares (Frisch, Waugh, Lovell).
            pivot = gram[np.ix_(~rows, ~rows)] + INTERCEPT_PRECISION * np.eye(self.n_fixed)
            cross = np.column_stack([gram[np.ix_(~rows, rows)], sums[~rows]])
            solved = np.linalg.solve(pivot, cross)
            schur = gram[np.ix_(rows, rows)] - gram[np.ix_(rows, ~rows)] @ solved[:, :-1]
            new_gram[:] = (schur + schur.T) / 2
            explained = gram[np.ix_(rows, ~rows)] @ solved[:, -1]
            new.xty[new.vptr[i] : new.vptr[i + 1]] = sums[rows] - explained
            new.yty[i] = self.yty[i] - sums[~rows] @ solved[:, -1]
        flat = {"cov": in_squares, "weights": is_free, "precision": is_free}
        new._blocks = {
            name: block[flat.get(name, ...)].copy() for name, block in self.blocks.items()
        }
        return new

    # -- use ------------------------------------------------------------------------------------

    def predict_mean(
        self, shifts: ArrayLike, do: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Return the mean ``(I - B)^-1 (c + a)`` of each shift, with the posterior mean of B and c.

        ``shifts``, ``do`` and the result have the shape ``(n_nodes,)`` or ``(n_shifts, n_nodes)``.
        Where ``do`` is true, the node is held at its entry of ``shifts`` (a hard intervention).
        """
        matrix = np.atleast_2d(as_numbers(shifts, "shifts", copy=False))
        if matrix.ndim != 2 or matrix.shape[1] != self.n_nodes:
            message = (
                f"shifts must have the shape ({self.n_nodes},) or (n_shifts, {self.n_nodes}), but "
                f"have {np.shape(shifts)}."
            )
            raise ValueError(message)
        if do is None:
            reached = self.solve(np.ascontiguousarray((matrix + self.intercept_mean).T)).T
        else:
            # B and c with the rows of the held nodes set to 0, shift by shift.
            intervened = np.broadcast_to(np.atleast_2d(do), matrix.shape).T
            x = np.ascontiguousarray(matrix.T + ~intervened * self.intercept_mean[:, None])
            cut = (
                np.repeat(~intervened, np.diff(self.vptr), axis=0)
                * self.estimates["weights"][:, None]
            )
            reach_by_draws(self.place, self.dag.order, cut, x)
            reached = x.T
        return reached[0] if np.ndim(shifts) == 1 else reached

    def solve(self, rhs: ArrayLike) -> NDArray[np.float64]:
        """Return ``(I - B)^-1 rhs`` for ``rhs`` of shape ``(n_nodes, m)``, by substitution."""
        rhs = np.array(rhs, dtype=np.float64, order="C")
        if rhs.ndim != 2 or len(rhs) != self.n_nodes:
            message = f"rhs must have the shape ({self.n_nodes}, m), but has {rhs.shape}."
            raise ValueError(message)
        weights, dag = self.estimates["weights"], self.dag
        kernels.solve_forward(dag.indptr, dag.indices, dag.order, self.vptr, weights, rhs)
        return rhs

    def ideal_shift(self, target_mean: ArrayLike) -> Vector:
        """Return ``b = (I - B) mu* - c``, the estimated shift that reaches ``target_mean``."""
        target = as_vector(target_mean, self.n_nodes, "target_mean")
        # From mu* = B mu* + c + a, with the posterior mean of B.
        return target - self.mean() @ target - self.intercept_mean

    # -- storage --------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return the posterior as a flat dict of arrays, numbers and strings, for storage."""
        if "cov" not in self.estimates:
            self._unfold()
        fields = vars(self) | self.estimates
        fields |= {"indptr": self.dag.indptr, "indices": self.dag.indices}
        fields["noise_known"] = self.known_noise_var is not None
        fields["prior_rate"] = "cells" if self.prior_rate is None else self.prior_rate
        return copy.deepcopy(pack(SimpleNamespace(**fields), StoredPosterior))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> DagBlr:
        """Rebuild exactly the posterior that :meth:`DagBlr.to_dict` stored.

        Raises
        ------
        ValueError
            If ``stored`` is damaged, truncated or of another version of nextpert.
        """
        where, remedy = "The stored posterior", "fit it again (tl.fit_dag_blr)"
        fields = unpack(StoredPosterior, stored, where, remedy)
        try:
            options = {name: getattr(fields, name) for name in (*OPTIONS, "n_fixed")}
            if fields.prior_rate == "cells":
                options["prior_rate"] = None
            blr = cls(fields.dag, noise_var=fields.known_noise_var, **options)
        except ValueError as error:  # incompatible options
            raise damaged(where, str(error), remedy) from None
        vars(blr).update({name: getattr(fields, name).copy() for name in SUMS})
        blr._blocks = {name: getattr(fields, name).copy() for name in BLOCKS}
        return blr
