"""Scores of effects: tests of means, errors on held-out cells, coverage, and the empirical null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import ndtri
from scipy.stats import chi2, false_discovery_control, norm

from nextpert.core._blas import one_thread
from nextpert.core.screen.guides import UNKNOWN

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.model.effects import Effects
    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]

_MIN_ROWS_OF_TABLE = 4  # minimum perturbations of a table to estimate the correlation of errors
_CHI2_MEDIAN = float(chi2.median(1))


class SquaredSize(NamedTuple):
    """Squared sizes of effects, each of shape ``(n_perturbations,)``.

    Parameters
    ----------
    estimate
        Unbiased estimate, in squared units of the data.
    p_value
        P-value of the hypothesis of no effect.
    q_value
        P-value adjusted for the number of perturbations (Benjamini and Hochberg 1995).
    """

    estimate: Array
    p_value: Array
    q_value: Array


@one_thread()
def squared_size(
    effects: ArrayLike, counted: ArrayLike, covariance: ArrayLike, *, overlap: float = 0.0
) -> SquaredSize:
    r"""Return the squared size of differences of means, minus their noise, and its p-value.

    With ``V`` the covariance of a difference ``d``, :math:`|d|^2 - \operatorname{tr} V` is
    unbiased. Without an effect, :math:`|d|^2` is a weighted sum of chi-square variables, which is
    approximated by a shifted and scaled chi-square variable with the same mean, variance and
    skewness (Pearson's approximation, Imhof 1961, doi:10.1093/biomet/48.3-4.419); if only mean and
    variance were matched, a p-value of 0.001 would be three to five times too small. ``counted`` is
    the number of cells whose mean would have the variance of a difference, given the variance in
    ``covariance``; it is 0 for unmeasured genes, which are left out. A row of zeros is not tested
    (NaN). ``overlap`` is a lower bound of :math:`\operatorname{tr} V^2 / (\operatorname{tr} V)^2`.
    """
    d, n = np.atleast_2d(np.asarray(effects, np.float64)), np.asarray(counted, np.float64)
    sigma = np.asarray(covariance, np.float64)
    is_measured = n > 0
    has_genes = is_measured.any(axis=1)
    # V of each difference, and traces of sigma over the genes that were measured.
    variance = np.diag(sigma) / np.where(is_measured, n, 1.0)
    sigma_trace = np.full(len(n), float(np.trace(sigma)))
    squares = np.full(len(n), float((sigma**2).sum()))
    part = np.flatnonzero(has_genes & ~is_measured.all(axis=1))
    if len(part):
        of_part = is_measured[part].astype(np.float64)
        d, variance = np.where(is_measured, d, 0.0), np.where(is_measured, variance, 0.0)
        sigma_trace[part] = of_part @ np.diag(sigma)
        squares[part] = ((of_part @ sigma**2) * of_part).sum(axis=1)
    trace = variance.sum(axis=1)
    # tr V^2 from tr V, because sigma is common to all differences.
    square = (trace / np.maximum(sigma_trace, np.finfo(np.float64).tiny)) ** 2 * squares
    square = np.maximum(square, overlap * trace**2)
    plug_in = (d**2).sum(axis=1)
    # tr(V^2)^3 / tr(V^3)^2 degrees of freedom, relative to tr(V)^2 / tr(V^2): 1 if all are equal.
    unit = sigma / max(float(np.trace(sigma)), 1e-300)
    diagonal = np.diag(unit)
    independent = np.count_nonzero(unit) == np.count_nonzero(diagonal)
    cubes = float((diagonal**3).sum() if independent else ((unit @ unit) * unit).sum())
    share = float((unit**2).sum()) ** 4 / max(cubes, 1e-150) ** 2
    degrees = np.maximum(trace**2 / np.maximum(square, 1e-300) * share, 1.0)
    # |d|^2 is standardised, and compared with a chi-square of the same skewness (Pearson).
    departure = (plug_in - trace) / np.sqrt(np.maximum(2 * square, 1e-300))
    p = np.where(has_genes, chi2.sf(departure * np.sqrt(2 * degrees) + degrees, degrees), np.nan)
    q = np.full(len(p), np.nan)
    if has_genes.any():
        q[has_genes] = false_discovery_control(p[has_genes])
    return SquaredSize(np.where(has_genes, plug_in - trace, np.nan), p, q)


def pooled_sizes(pooled: PooledGuides, *, factor: float = 1.0) -> tuple[SquaredSize, SquaredSize]:
    r"""Return squared sizes of differences from the controls, and from the mean of the others.

    A table does not state the correlation of errors between genes: the expected squared cosine of
    two perturbations without effects, :math:`\operatorname{tr} V^2 / (\operatorname{tr} V)^2`, is
    then estimated from the median over pairs. ``factor`` multiplies standard errors
    (:attr:`NullWidth.factor`).
    """
    counted = np.where(pooled.variance_ratio < UNKNOWN, pooled.counted, 0.0)
    mean, n = pooled.mean[1:], counted[1:]
    # The mean of the others: the weighted mean of all, without the perturbation itself.
    total_weight, weighted = n.sum(axis=0), (n * mean).sum(axis=0)
    other_weight = np.where((n > 0).sum(axis=0) > 1, total_weight - n, 0.0)
    other_mean = (weighted - n * mean) / np.where(other_weight > 0, other_weight, 1.0)
    errors, cells = pooled.fixed_errors[1:], pooled.n[1:, None]
    of_others = (cells * errors).sum(axis=0) - cells * errors
    of_others /= np.maximum(cells.sum() - cells, 1e-300)

    sizes = []
    for from_, m, batches in (
        (pooled.mean[0], counted[0], pooled.fixed_error()[1:]),
        (other_mean, other_weight, ((errors - of_others) ** 2).sum(axis=1)),
    ):
        in_both = (n > 0) & (m > 0)
        spread = 1 / np.where(in_both, n, 1.0) + 1 / np.where(in_both, m, 1.0) + batches[:, None]
        sigma, d = factor**2 * pooled.covariance, np.where(in_both, mean - from_, 0.0)
        overlap = 0.0
        if not pooled.are_cells and len(d) >= _MIN_ROWS_OF_TABLE:
            unit = d / np.maximum(np.sqrt((d**2).sum(axis=1)), 1e-300)[:, None]
            cosines = (unit @ unit.T)[np.triu_indices(len(d), 1)]
            overlap = min(float(np.median(cosines**2)) / _CHI2_MEDIAN, 1.0)
        sizes.append(squared_size(d, np.where(in_both, 1 / spread, 0.0), sigma, overlap=overlap))
    return sizes[0], sizes[1]


def holds(
    effects: Effects, observed: ArrayLike, variance: ArrayLike, *, level: float = 0.9
) -> NDArray[np.bool_]:
    """Return whether intervals cover means of other cells, after adding their variance."""
    truth = np.asarray(observed, np.float64)
    # Half-widths of posterior and sampling add as squares: z^2 V is added.
    noise = float(ndtri((1.0 + level) / 2.0)) ** 2 * np.asarray(variance, np.float64)
    low = effects.mean - np.sqrt((effects.mean - effects.lower) ** 2 + noise)
    high = effects.mean + np.sqrt((effects.upper - effects.mean) ** 2 + noise)
    return (low <= truth) & (truth <= high)


def mean_with_error(values: ArrayLike) -> tuple[float, float]:
    """Return the mean and its standard error without NaN; each is NaN if values are too few."""
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    n = len(finite)
    mean = float(finite.mean()) if n else float("nan")
    return mean, float(finite.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def ratio_with_error(over: ArrayLike, under: ArrayLike) -> tuple[float, float]:
    """Return the ratio of two totals and its standard error, by the jackknife over their parts.

    Both are NaN if the denominator is not above 0.
    """
    a, b = np.asarray(over, np.float64), np.asarray(under, np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite], b[finite]
    n, below = len(a), float(b.sum())
    if n == 0 or not below > 0:
        return float("nan"), float("nan")
    ratio = float(a.sum() / below)
    # Jackknife: the ratio without each part.
    remaining = below - b
    if n < 2 or not (remaining > 0).all():
        return ratio, float("nan")
    without = (a.sum() - a) / remaining
    return ratio, float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))


def correlations(
    one: ArrayLike, two: ArrayLike, used: ArrayLike | None = None, shared: ArrayLike | None = None
) -> Array:
    """Return Pearson's correlation of each row; NaN if a side is constant or has under 3 genes.

    ``used`` marks the entries to include, and ``shared`` is the covariance of the sampling errors
    of two estimates with the same controls, which is subtracted from their covariance.
    """
    a, b = np.asarray(one, np.float64), np.asarray(two, np.float64)
    mask = np.ones(a.shape, bool) if used is None else np.asarray(used, bool)
    common = np.zeros(a.shape) if shared is None else np.asarray(shared, np.float64)
    out = np.full(len(a), np.nan)
    for j, row_mask in enumerate(mask):
        x, y = a[j, row_mask], b[j, row_mask]
        if len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0:
            x, y = x - x.mean(), y - y.mean()
            # Without the covariance due to common controls.
            size = np.sqrt((x @ x) * (y @ y))
            out[j] = np.clip((x @ y - common[j, row_mask].sum()) / size, -1.0, 1.0)
    return out


# Level of all tests of effects: false discovery rate, local false sign rate, family-wise error.
SIGNIFICANCE = 0.05
MIN_STANDARD_ERRORS = 2.0  # standard errors by which a width must exceed another to be called wider
MEDIAN = float(norm.ppf(0.75))  # median of |z| for standard normal z
# A standard deviation estimated from the median of |z| over n values has a relative variance of
# this number divided by n: (2 MEDIAN phi(MEDIAN))^-2 / 4 = 1.36. It is 0.5 for root mean squares.
_VARIANCE = 1.0 / (4.0 * MEDIAN * float(norm.pdf(MEDIAN))) ** 2


@dataclass(frozen=True)
class NullWidth:
    """Width of the null distribution: the standard deviation of its z-scores.

    Parameters
    ----------
    value
        1 if the standard errors are right, above 1 if they are too small; NaN if unknown.
    error
        Standard error of ``value``.
    """

    value: float = float("nan")
    error: float = float("nan")

    @property
    def factor(self) -> float:
        """Factor on standard errors: the width if it exceeds 1 by two standard errors, else 1."""
        return self.value if self.value - MIN_STANDARD_ERRORS * self.error > 1.0 else 1.0


def null_width(z: ArrayLike, covariance: ArrayLike) -> NullWidth:
    """Return the width of the null distribution from z-scores of effects that are 0.

    The width is the median of ``abs(z)``, divided by that of a standard normal variable, so that a
    few genes that a control guide changes do not affect it. Genes are correlated within cells:
    ``p`` genes count as ``p^2 / sum r^2`` (Box 1954). The standard error is that for independent
    z-scores or, with at least four rows, that of the jackknife over rows, whichever is larger.
    ``z`` has one row per group of controls treated as a perturbation; all but one are independent.
    """
    sigma = np.asarray(covariance, np.float64)
    varying = np.flatnonzero(sigma.diagonal() > 0)
    absolute = np.abs(np.asarray(z, np.float64))[:, varying]
    if not absolute.size:
        return NullWidth()
    sd = np.sqrt(sigma[varying, varying])
    # p genes count as p^2 / sum r^2 independent genes.
    squares = float(((sigma[np.ix_(varying, varying)] / np.outer(sd, sd)) ** 2).sum())
    n = len(absolute)
    counted = max(n - 1, 1) * len(varying) ** 2 / squares
    value = float(np.median(absolute)) / MEDIAN
    error = value * np.sqrt(_VARIANCE / counted)
    if n > 3:
        without = np.array([np.median(np.delete(absolute, k, axis=0)) for k in range(n)]) / MEDIAN
        error = max(error, np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    return NullWidth(value, float(error))
