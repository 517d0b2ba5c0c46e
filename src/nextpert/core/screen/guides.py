"""Pooled guides of perturbations, and the variance of guide means beyond sampling."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.optimize import brentq
from scipy.sparse.linalg import splu
from scipy.special import digamma, polygamma
from scipy.stats import chi2

from nextpert.core.screen.moments import Moments, covary

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.screen.departures import Coexpression
    from nextpert.core.screen.screen import ScreenMoments


_MIN_FREEDOM = 2  # minimum degrees of freedom to estimate the spread


class _MeanSquares(NamedTuple):
    """Mean squares between the environments of a block and within them, one value per node.

    ``freedom`` contains their degrees of freedom, ``size`` is the effective number of cells per
    environment, and ``varies`` marks the nodes that vary within environments.
    """

    between: NDArray[np.float64]
    within: NDArray[np.float64]
    varies: NDArray[np.bool_]
    freedom: tuple[int, int]
    size: float


def spread_within(screen: ScreenMoments, blocks: ArrayLike) -> float:
    """Return the variance between environments of a block beyond sampling, pooled over blocks.

    The estimate uses the median over nodes of the ratio of mean squares between and within
    environments, which is robust to a few genes that the environments do affect. ``blocks`` groups
    environments that would have the same mean without such variance; -1 leaves an environment out.
    The result is in units of the noise variance of a cell, and 0 if environments differ by no more
    than sampling or are too few.
    """
    squares_of = _mean_squares(screen, blocks)
    if squares_of is None:
        return 0.0
    freedom = squares_of.freedom[0]
    ratio = squares_of.between[squares_of.varies] / squares_of.within[squares_of.varies]
    null = float(chi2.median(freedom) / freedom)
    return float(max(np.median(ratio) / null - 1.0, 0.0) / squares_of.size)


def spread_p_value(screen: ScreenMoments, blocks: ArrayLike) -> float:
    """Return the p-value of a test for spread within blocks beyond sampling, over all nodes.

    If cells are independent, the mean over nodes of the ratio of mean squares between and within
    environments approximately has a scaled chi-square distribution, whose degrees of freedom depend
    on the correlations of the nodes within environments (Box 1954,
    doi:10.1214/aoms/1177728786). Unlike the median of :func:`spread_within`, it also detects
    environments that differ in few nodes. The result is NaN if there are too few degrees of
    freedom, or no node varies.
    """
    squares_of = _mean_squares(screen, blocks)
    if squares_of is None or squares_of.freedom[1] <= _MIN_FREEDOM:
        return float("nan")
    freedom, within_freedom = squares_of.freedom
    varying = np.flatnonzero(squares_of.varies)
    # The mean of an F ratio is above 1 because of the error of its denominator.
    ratio = (1.0 - 2.0 / within_freedom) * squares_of.between[varying] / squares_of.within[varying]
    scatter = screen.scatter[np.ix_(varying, varying)]
    root = np.sqrt(scatter.diagonal())
    squares = float(((scatter / np.outer(root, root)) ** 2).sum())  # of correlations
    n = len(varying)
    return float(chi2.sf(freedom * n * ratio.sum() / squares, freedom * n**2 / squares))


def _mean_squares(screen: ScreenMoments, blocks: ArrayLike) -> _MeanSquares | None:
    """Return the mean squares; ``None`` if they do not determine the spread."""
    block_codes = np.asarray(blocks, np.int64)
    index = np.flatnonzero((block_codes >= 0) & (screen.n > 1))
    _, block, members = np.unique(block_codes[index], return_inverse=True, return_counts=True)
    is_replicated = members[block] > 1
    index, block = index[is_replicated], np.unique(block[is_replicated], return_inverse=True)[1]
    n_blocks = int(block.max(initial=-1)) + 1
    freedom = len(index) - n_blocks
    if freedom < _MIN_FREEDOM:
        return None
    n = screen.n[index].astype(np.float64)
    # Means of blocks, and the mean squares between environments and within them.
    total = np.bincount(block, n)
    mean = np.zeros((n_blocks, screen.n_nodes))
    np.add.at(mean, block, n[:, None] * screen.mean[index])
    mean /= total[:, None]
    between = (n[:, None] * (screen.mean[index] - mean[block]) ** 2).sum(axis=0) / freedom
    within_freedom = int((screen.n[index] - 1).sum())
    within = screen.squares[index].sum(axis=0) / within_freedom
    varies = within > 0
    if not varies.any():
        return None
    # Effective cells per environment: E[between] = within (1 + size tau^2).
    size = (n.sum() - (np.bincount(block, n**2) / total).sum()) / freedom
    return _MeanSquares(between, within, varies, (freedom, within_freedom), float(size))


# Minimum and maximum prior degrees of freedom of a perturbation's variance. Estimates below 20 are
# not trusted, because variances of genes in few cells scatter more than those of normal values;
# above 1e4 they make no difference.
_FREEDOM = (20.0, 1e4)
# Variance ratio of an unknown mean of a table (equation 25): such a mean counts as almost no cells
# and does not affect any posterior, while logarithms and inverses stay finite.
UNKNOWN = 1e9


class MeanErrors(NamedTuple):
    """Errors of means in units of genes, along and off the factors of ``cells``.

    ``own`` is the variance of the own noise of every gene, ``(n_groups, n_nodes)``, and ``along``
    that of the noise along every factor, ``(n_groups, n_factors)``. ``coincidence`` is the
    probability that an effect is 0 and large departures of all guides coincide, shape of ``own``.
    """

    own: NDArray[np.float64]
    along: NDArray[np.float64]
    cells: Coexpression
    coincidence: NDArray[np.float64]

    def total(self) -> NDArray[np.float64]:
        """Return the variance of every mean, ``(n_groups, n_nodes)``."""
        return self.own + self.along @ (self.cells.factors**2).T

    def genes(self, index: NDArray[np.int64]) -> MeanErrors:
        """Return the errors of some genes, in the given order."""
        factors, psi, unit = (part[index] for part in self.cells)
        cells = self.cells._replace(factors=factors, psi=psi, unit=unit)
        coincidence = self.coincidence[:, index]
        return self._replace(own=self.own[:, index], cells=cells, coincidence=coincidence)


@dataclass(frozen=True)
class PooledGuides:
    """Moments of perturbations, with their guides (replicates, donors) pooled (equation 7).

    Parameters
    ----------
    n_cells
        Number of cells of every perturbation, shape ``(n_groups,)``.
    n
        Effective number of cells: ``sum k_e`` with ``k_e = n_e / (1 + n_e tau_g^2)``, same shape.
    mean
        Means weighted by ``k_e``, shape ``(n_groups, n_nodes)``, units of the data.
    scatter
        Scatter within guides plus the scatter between the guides of a perturbation weighted by
        ``k_e``, shape ``(n_nodes, n_nodes)``.
    variance_ratio
        Variance within guides of each perturbation over the variance within all guides, shrunk
        towards 1, shape ``(n_groups, n_nodes)``; perturbed and control cells may differ in
        variance.
    fixed
        Means of the fixed columns of a regression, such as batches, shape ``(n_groups, n_fixed)``;
        by default there are none.
    fixed_scatter
        Scatter of the fixed columns with the nodes and then with one another, shape
        ``(n_fixed, n_nodes + n_fixed)``.
    fixed_sd
        Standard errors of their least squares coefficients over the noise's standard deviation,
        shape ``(n_fixed,)``; the coefficients are uncorrelated.
    freedom
        Degrees of freedom of variances within guides, shape ``(n_groups,)``.
    prior_freedom
        Prior degrees of freedom with which variance ratios were shrunk towards 1; 0 if standard
        errors are known, as for a table.
    errors
        Errors of means along and off the factors of coexpression, if guides differ; by default
        those of ``n`` independent cells.
    """

    n_cells: NDArray[np.int64]
    n: NDArray[np.float64]
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]
    variance_ratio: NDArray[np.float64]
    fixed: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    fixed_scatter: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    fixed_sd: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    freedom: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    prior_freedom: float = _FREEDOM[0]
    errors: MeanErrors | None = None
    confounded: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    # Derived: errors of means due to the effects of fixed columns (8), estimated or confounded, in
    # standard deviations of a cell, shape (n_groups, n_columns); whether means are those of cells
    # instead of a table; and whether the covariances of genes are known.
    fixed_errors: NDArray[np.float64] = field(init=False)
    are_cells: bool = field(init=False)
    knows_correlation: bool = field(init=False)

    def __post_init__(self) -> None:
        if not self.freedom.size:
            object.__setattr__(self, "freedom", np.maximum(self.n_cells - 1.0, 0.0))
        if not self.fixed.size:
            object.__setattr__(self, "fixed", np.zeros((len(self.n), self.fixed.shape[1])))
        if not self.confounded.size:
            object.__setattr__(self, "confounded", np.zeros((len(self.n), 0)))
        vars(self).update(
            fixed_errors=np.hstack([self.fixed * self.fixed_sd, self.confounded]),
            are_cells=self.prior_freedom > 0,
            knows_correlation=self.prior_freedom > 0 or covary(self.scatter),
        )

    def rows(self, index: ArrayLike) -> PooledGuides:
        """Return some groups, in the given order; the scatter remains that of all groups."""
        selected = np.asarray(index, np.int64)
        if np.array_equal(selected, np.arange(len(self.n))):
            return self
        names = ("n_cells", "n", "mean", "variance_ratio", "fixed", "freedom", "confounded")
        by_row: dict[str, Any] = {name: getattr(self, name)[selected] for name in names}
        if self.errors is not None:
            of_each = ("own", "along", "coincidence")
            chosen = {name: getattr(self.errors, name)[selected] for name in of_each}
            by_row["errors"] = self.errors._replace(**chosen)
        return replace(self, **by_row)

    def subset(self, nodes: ArrayLike) -> PooledGuides:
        """Return some nodes, in the given order, with all fixed columns."""
        index, p = np.asarray(nodes, np.int64), self.mean.shape[1]
        scatter = self.scatter[np.ix_(index, index)]
        columns = np.append(index, np.arange(p, self.fixed_scatter.shape[1]))
        errors = self.errors
        if errors is not None:
            errors = errors.genes(index)
        return replace(
            self,
            mean=self.mean[:, index],
            variance_ratio=self.variance_ratio[:, index],
            scatter=scatter,
            fixed_scatter=self.fixed_scatter[:, columns],
            errors=errors,
        )

    def fixed_error(self) -> NDArray[np.float64]:
        """Return the part of the variance of each group's difference to controls due to batches."""
        errors = self.fixed_errors
        return ((errors - errors[:1]) ** 2).sum(axis=1)

    def to_controls(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return differences of means to the controls, and their variance over the noise variance.

        Both have the shape ``(n_groups - 1, n_nodes)``; without cells the variance is very large.
        """
        variance_ratio = 1.0 / np.maximum(self.counted, 1e-300)
        error = variance_ratio[1:] + variance_ratio[0]
        if self.fixed_errors.shape[1]:
            error = error + self.fixed_error()[1:, None]
        return self.mean[1:] - self.mean[0], error

    @property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance of cells within perturbations, shape ``(n_nodes, n_nodes)``."""
        return self.scatter / max(int(self.n_cells.sum()) - len(self.n), 1)

    @property
    def counted(self) -> NDArray[np.float64]:
        """Cells whose mean has the error of a group's mean, ``(n_groups, n_nodes)``.

        They are ``n / variance_ratio``, or one over the sum of errors along and off the factors.
        """
        if self.errors is None:
            return self.n[:, None] / self.variance_ratio
        total = self.errors.total()
        return np.divide(1.0, total, out=np.zeros_like(total), where=self.n[:, None] > 0)


def pool_guides(
    screen: ScreenMoments,
    groups: ArrayLike,
    n_groups: int,
    *,
    guide_variance: ArrayLike = 0.0,
    fixed_sd: ArrayLike = (),
) -> PooledGuides:
    """Return the moments of the perturbations of a screen, with guides pooled.

    Each guide shifts the mean of its cells by ``v ~ N(0, sigma^2 tau_g^2)``, in addition to the
    effect of the perturbation. After integration over ``v``, a guide with ``n_e`` cells counts as
    ``k_e = n_e / (1 + n_e tau_g^2)`` cells, which is at most ``1 / tau_g^2``.

    Parameters
    ----------
    screen
        Moments of the environments, one per guide.
    groups
        Perturbation of every environment, shape ``(n_environments,)``.
    n_groups
        Number of perturbations.
    guide_variance
        Guide variance ``tau_g^2`` relative to the noise variance, one number or one per
        environment; 0 if guides do not differ.
    fixed_sd
        Standard errors of the coefficients of fixed columns, which are the last nodes, from
        :meth:`~nextpert.core.ScreenMoments.fixed_columns`; infinite if their effects are
        confounded.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> from nextpert.core.screen.guides import pool_guides
    >>> x = np.random.default_rng(0).normal(size=(400, 2))
    >>> screen = ScreenMoments.from_array(x, np.arange(400) % 4, 4)
    >>> pool_guides(screen, [0, 0, 1, 1], 2, guide_variance=0.01).n.tolist()
    [100.0, 100.0]
    """
    # One row per perturbation, with the environments that are its guides.
    codes = np.asarray(groups, np.int64)
    members = sp.csr_array(
        (np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(n_groups, len(codes))
    )
    sd, freedom_by_environment = np.asarray(fixed_sd, np.float64), np.maximum(screen.n - 1.0, 0.0)
    p, freedom = screen.n_nodes - len(sd), members @ freedom_by_environment
    if screen.counted is not None:
        one = screen.pool(codes, n_groups)
        counted = np.asarray(one.counted)[:, :p]
        n, has_squares = one.n[:, None], one.squares[:, :p].any(axis=1)
        ratio = np.divide(n, counted, out=np.full(counted.shape, UNKNOWN), where=counted > 0)
        # Rows of a table are differences from the controls of their batch: none is confounded.
        estimated = np.isfinite(sd)
        nodes = np.append(np.ones(p, bool), estimated)
        return PooledGuides(
            one.n,
            one.n.astype(np.float64),
            one.mean[:, :p],
            one.scatter[:p, :p],
            np.minimum(ratio, UNKNOWN, out=ratio),
            one.mean[:, p:][:, estimated],
            one.scatter[p:][estimated][:, nodes],
            sd[estimated],
            np.where(has_squares, freedom, 0.0),
            0.0,
        )
    cells = screen.n.astype(np.float64)
    guide_variance = np.asarray(guide_variance, np.float64)
    # k_e = n_e / (1 + n_e tau_g^2), of equation 7.
    counted = cells / (1.0 + cells * guide_variance)
    n = members @ counted
    mean = members @ (counted[:, None] * screen.mean) / np.maximum(n, 1e-300)[:, None]
    departure = (screen.mean - mean[codes]) * np.sqrt(counted)[:, None]
    between = departure.T @ departure
    scatter = screen.scatter + (between + between.T) / 2
    squares = screen.squares[:, :p]
    pooled = squares.sum(axis=0) / max(freedom_by_environment.sum(), 1.0)
    # Moderated variances within groups over those within all. Their logarithms have variance
    # trigamma(d / 2) if the true variances are equal, and trigamma(d0 / 2) more if these are
    # inverse chi-square with d0 degrees of freedom (Smyth 2004, doi:10.2202/1544-6115.1027). Small
    # sample variances are thus not mistaken for small errors if true variances are similar. d0 is
    # learned without the controls, which contribute most to the pooled variance.
    square = members @ squares / np.where(pooled > 0, pooled, 1.0)
    enough = (freedom[1:, None] > 1) & (square[1:] > 0)
    prior = _FREEDOM[0]
    if enough.sum() > 1:
        d = np.broadcast_to(freedom[1:, None], enough.shape)[enough] / 2.0
        logs = np.log(square[1:][enough] / (2.0 * d)) - digamma(d) + np.log(d)
        excess = float(logs.var(ddof=1) - polygamma(1, d).mean())
        min_freedom, max_freedom = (x / 2.0 for x in _FREEDOM)
        if excess <= polygamma(1, max_freedom):
            prior = _FREEDOM[1]
        elif excess < polygamma(1, min_freedom):
            prior = 2.0 * brentq(
                lambda x: float(polygamma(1, x)) - excess, min_freedom, max_freedom
            )
    ratio = (prior + square) / (prior + freedom)[:, None]
    # Batch columns whose effects are estimated, and those whose effects are confounded.
    estimated = np.isfinite(sd)
    columns, of_columns = mean[:, p:], scatter[p:][estimated]
    nodes = np.append(np.ones(p, bool), estimated)
    pooled_guides = PooledGuides(
        np.asarray(members @ screen.n, np.int64),
        n,
        mean[:, :p],
        scatter[:p, :p],
        ratio,
        columns[:, estimated],
        of_columns[:, nodes],
        sd[estimated],
        freedom,
        prior,
    )
    if estimated.all():
        return pooled_guides
    differences = columns[:, ~estimated] - columns[:1, ~estimated]
    return replace(
        pooled_guides,
        confounded=differences * np.sqrt(_WIDE * confounded_variance(pooled_guides, differences)),
    )


# Variance of a batch effect that cannot be estimated, relative to that of a cell, and its weight in
# directions of batches. On Papalexi, it is 0.011 between replicates (bio_rep, mean over genes).
_UNKNOWN_BATCH, _PRIOR_DIRECTIONS = 0.03, 1.0
# A confounded effect has a prior that is wider than it by this factor: the shape of its covariance
# is that of a cell, in which some genes hardly vary. With 1, the rest became effects of
# perturbations: 229 of 229 significant effects were false without any (four screens); with 5 and
# 30, 0.
_WIDE = 10.0
_SHARED = 1e-6  # smallest singular value of a direction, relative to the largest


def confounded_variance(cells: PooledGuides, columns: NDArray[np.float64]) -> float:
    """Return the variance of batch effects that are confounded with effects of perturbations.

    ``columns`` are the batches of groups minus those of the controls, ``(n_groups, n_directions)``.
    A batch shifts all of its perturbations alike. Along singular vectors of the columns, the
    squared differences from the controls, minus sampling error, have an expectation of the squared
    singular value times the variance. The median over genes is robust to effects of perturbations
    on few genes. The result is relative to the variance of a cell.
    """
    has_cells = np.flatnonzero(cells.n[1:] > 0)
    design = columns[1:][has_cells]
    rotation, sizes, _ = np.linalg.svd(design, full_matrices=False)
    shared = sizes > _SHARED * max(sizes.max(initial=0.0), 1e-300)
    rotation, sizes = rotation[:, shared], sizes[shared]
    if not len(sizes) or not sizes.max() > 1e-9:
        return 0.0
    within = cells.covariance.diagonal()
    genes = within > 0
    change = (cells.mean[1 + has_cells] - cells.mean[0])[:, genes] / np.sqrt(within[genes])
    noise = rotation.T**2 @ (1.0 / cells.n[1 + has_cells]) + rotation.sum(axis=0) ** 2 / cells.n[0]
    square = np.median((rotation.T @ change) ** 2, axis=1) / chi2.median(1)
    excess = float(np.maximum(square - noise, 0.0).sum())
    prior = _UNKNOWN_BATCH * _PRIOR_DIRECTIONS * float((sizes**2).mean())
    return (excess + prior) / float((sizes**2).sum() + _PRIOR_DIRECTIONS * (sizes**2).mean())


def distinct(*codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the combinations of codes that occur, sorted, and the combination of each entry.

    Codes are -1 or above. The result is that of ``np.unique`` on rows, in a fifth of the time.
    """
    # One number per combination of codes.
    joined, n = np.zeros(len(codes[0]), np.int64), 1
    for column in codes:
        levels = int(column.max(initial=-1)) + 2
        if n * levels >= 2**62:
            levels_found, joined = np.unique(joined, return_inverse=True)
            n = len(levels_found)
        joined, n = joined * levels + column + 1, n * levels
    _, first, combination = np.unique(joined, return_index=True, return_inverse=True)
    return np.column_stack([column[first] for column in codes]), combination.ravel()


def context_moments(
    screen: ScreenMoments,
    indicators: ArrayLike,
    *,
    fixed: ArrayLike | sp.sparray | None = None,
    guide_variance: float = 0.0,
) -> Moments:
    """Return the moments of the nodes of a screen and of indicators, over all cells.

    A regression on these moments equals a regression on the cells with the indicators as additional
    columns (joint causal inference; Mooij et al. 2020, JMLR 21:99). With ``fixed``, these columns
    and an intercept are included as well (Frisch, Waugh, Lovell), so that batches are fixed
    effects.

    Parameters
    ----------
    screen
        Moments of the environments.
    indicators
        Values of the context nodes in each environment, such as 1 for the cells of a perturbation
        and 0 for others, shape ``(n_environments, n_indicators)``.
    fixed
        Columns to regress out of nodes and indicators, such as batches, shape
        ``(n_environments, n_fixed)``; use a sparse array for thousands of columns.
    guide_variance
        Variance between environments (guides) beyond sampling, relative to the noise variance of a
        node. An environment of ``n`` cells counts as ``n / (1 + n guide_variance)`` cells between
        environments, as in generalised least squares.

    Returns
    -------
    Moments
        Moments of the nodes of ``screen``, followed by the indicators. Environments are weighted by
        their effective numbers of cells. An indicator that is a linear combination of ``fixed`` has
        a scatter of zero.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments, context_moments
    >>> rng, knocked = np.random.default_rng(0), np.repeat([0, 1], 500)
    >>> x = rng.normal(size=(1000, 2)) - 3 * np.outer(knocked, [1, 0])
    >>> joint = context_moments(ScreenMoments.from_array(x, knocked, 2), [[0], [1]])
    >>> bool(np.isclose(joint.correlation()[0, 2], np.corrcoef(x[:, 0], knocked)[0, 1]))
    True
    """
    # k_e = n_e / (1 + n_e tau^2) between environments, n_e within them.
    columns = np.asarray(indicators, np.float64)
    weight = screen.n / (1.0 + screen.n * guide_variance)
    n, p = int(screen.n.sum()), screen.n_nodes
    rows = np.hstack([screen.mean, columns])
    mean = np.average(rows, axis=0, weights=weight) if n else np.zeros(rows.shape[1])
    # Generalised least squares between environments: rows times the square root of their weight.
    residuals = (rows - mean) * np.sqrt(weight)[:, None]
    total_squares = np.einsum("ij,ij->j", residuals, residuals)
    if n and sp.issparse(fixed):
        residuals = _without_sparse(residuals, sp.csr_array(fixed), np.sqrt(weight))
    elif n and fixed is not None:
        batch = np.asarray(fixed, np.float64)
        batch = (batch - np.average(batch, axis=0, weights=weight)) * np.sqrt(weight)[:, None]
        residuals = residuals - batch @ np.linalg.lstsq(batch, residuals, rcond=1e-10)[0]
    scatter = residuals.T @ residuals
    scatter[:p, :p] += screen.scatter
    explained = (
        np.flatnonzero(np.diag(scatter)[p:] <= 1e-10 * np.maximum(total_squares[p:], 1e-300)) + p
    )
    scatter[explained] = scatter[:, explained] = 0.0
    return Moments(n, mean, (scatter + scatter.T) / 2)


def _without_sparse(
    values: NDArray[np.float64], fixed: sp.csr_array, root: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return rows minus their least squares fit on an intercept and many sparse columns."""
    rows = sp.diags_array(root) @ sp.hstack([sp.csr_array(np.ones((len(root), 1))), fixed])
    columns = sp.csc_array(rows)
    columns = columns[:, abs(columns).sum(axis=0) > 0]  # others are of environments without cells
    gram = columns.T @ columns
    # Columns may be linearly dependent: a billionth more on the diagonal makes the equations
    # solvable, and leaves the square of this share unexplained. The order of elimination keeps the
    # factor sparse.
    gram = sp.csc_array(gram + sp.diags_array(1e-9 * gram.diagonal()))
    factor = splu(
        gram, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    return values - columns @ factor.solve(columns.T @ values)
