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

_FEWEST_ALIKE = 4  # perturbations of a table that tell how errors of genes are correlated
_CHI2_MEDIAN = float(chi2.median(1))


class SquaredSize(NamedTuple):
    """Squared sizes of effects, each of shape ``(n_perturbations,)``.

    Parameters
    ----------
    estimate
        Unbiased, in squared units of the data.
    p_value
        That of no effect.
    q_value
        The same, adjusted for the number of perturbations (Benjamini and Hochberg 1995).
    """

    estimate: Array
    p_value: Array
    q_value: Array


@one_thread()
def squared_size(
    effects: ArrayLike, counted: ArrayLike, covariance: ArrayLike, *, overlap: float = 0.0
) -> SquaredSize:
    r"""Return the squared size of differences of means, less their noise, and its p-value.

    With ``V`` the covariance of a difference ``d``, :math:`|d|^2 - \operatorname{tr} V` is
    unbiased. Without an effect :math:`|d|^2` is a weighted sum of chi-squares, taken for a shifted
    and scaled one of the same mean, variance and skewness (Pearson's approximation, Imhof 1961,
    doi:10.1093/biomet/48.3-4.419); by mean and variance alone a p-value of 0.001 would be three to
    five times too small. ``counted`` are the cells whose mean would have the variance of a
    difference at the variance in ``covariance``, 0 where nothing was measured; of such rows the
    other genes are summed, and a row of zeros is not judged (nan). ``overlap`` is a lower bound of
    :math:`\operatorname{tr} V^2 / (\operatorname{tr} V)^2`.
    """
    d, n = np.atleast_2d(np.asarray(effects, np.float64)), np.asarray(counted, np.float64)
    sigma = np.asarray(covariance, np.float64)
    kept = n > 0
    known = kept.any(axis=1)
    # V of each difference, and traces of sigma over the genes that were measured.
    variance = np.diag(sigma) / np.where(kept, n, 1.0)
    whole = np.full(len(n), float(np.trace(sigma)))
    squares = np.full(len(n), float((sigma**2).sum()))
    part = np.flatnonzero(known & ~kept.all(axis=1))
    if len(part):
        of_part = kept[part].astype(np.float64)
        d, variance = np.where(kept, d, 0.0), np.where(kept, variance, 0.0)
        whole[part] = of_part @ np.diag(sigma)
        squares[part] = ((of_part @ sigma**2) * of_part).sum(axis=1)
    trace = variance.sum(axis=1)
    # tr V^2 from tr V, as sigma is common.
    square = (trace / np.maximum(whole, np.finfo(np.float64).tiny)) ** 2 * squares
    square = np.maximum(square, overlap * trace**2)
    plug_in = (d**2).sum(axis=1)
    # tr(V^2)^3 / tr(V^3)^2 degrees of freedom, as a share of tr(V)^2 / tr(V^2): 1 if all are alike.
    unit = sigma / max(float(np.trace(sigma)), 1e-300)
    diagonal = np.diag(unit)
    independent = np.count_nonzero(unit) == np.count_nonzero(diagonal)
    cubes = float((diagonal**3).sum() if independent else ((unit @ unit) * unit).sum())
    share = float((unit**2).sum()) ** 4 / max(cubes, 1e-150) ** 2
    degrees = np.maximum(trace**2 / np.maximum(square, 1e-300) * share, 1.0)
    # |d|^2 standardised, then as a chi-square of the same skewness (Pearson).
    departure = (plug_in - trace) / np.sqrt(np.maximum(2 * square, 1e-300))
    p = np.where(known, chi2.sf(departure * np.sqrt(2 * degrees) + degrees, degrees), np.nan)
    q = np.full(len(p), np.nan)
    if known.any():
        q[known] = false_discovery_control(p[known])
    return SquaredSize(np.where(known, plug_in - trace, np.nan), p, q)


def pooled_sizes(pooled: PooledGuides, *, factor: float = 1.0) -> tuple[SquaredSize, SquaredSize]:
    r"""Return how far perturbations lie from the controls, and from the mean of the others.

    A table does not tell how errors of genes are correlated: the squared cosine of two
    perturbations without effects, :math:`\operatorname{tr} V^2 / (\operatorname{tr} V)^2`, is then
    the median over pairs. ``factor`` multiplies standard errors (:attr:`NullWidth.factor`).
    """
    counted = np.where(pooled.variance_ratio < UNKNOWN, pooled.counted, 0.0)
    mean, n = pooled.mean[1:], counted[1:]
    # The mean of the others: the weighted mean of all, less the own part.
    whole, weighted = n.sum(axis=0), (n * mean).sum(axis=0)
    rest = np.where((n > 0).sum(axis=0) > 1, whole - n, 0.0)
    others = (weighted - n * mean) / np.where(rest > 0, rest, 1.0)
    errors, cells = pooled.fixed_errors[1:], pooled.n[1:, None]
    of_others = (cells * errors).sum(axis=0) - cells * errors
    of_others /= np.maximum(cells.sum() - cells, 1e-300)

    sizes = []
    for from_, m, batches in (
        (pooled.mean[0], counted[0], pooled.fixed_error()[1:]),
        (others, rest, ((errors - of_others) ** 2).sum(axis=1)),
    ):
        both = (n > 0) & (m > 0)
        spread = 1 / np.where(both, n, 1.0) + 1 / np.where(both, m, 1.0) + batches[:, None]
        sigma, d = factor**2 * pooled.covariance, np.where(both, mean - from_, 0.0)
        overlap = 0.0
        if not pooled.are_cells and len(d) >= _FEWEST_ALIKE:
            unit = d / np.maximum(np.sqrt((d**2).sum(axis=1)), 1e-300)[:, None]
            cosines = (unit @ unit.T)[np.triu_indices(len(d), 1)]
            overlap = min(float(np.median(cosines**2)) / _CHI2_MEDIAN, 1.0)
        sizes.append(squared_size(d, np.where(both, 1 / spread, 0.0), sigma, overlap=overlap))
    return sizes[0], sizes[1]


def holds(
    effects: Effects, observed: ArrayLike, variance: ArrayLike, *, level: float = 0.9
) -> NDArray[np.bool_]:
    """Return whether intervals of ``level`` hold means of other cells, their variance added."""
    truth = np.asarray(observed, np.float64)
    # Half-widths of posterior and of sampling add as squares.
    # z^2 V is added to the squared half-widths.
    noise = float(ndtri((1.0 + level) / 2.0)) ** 2 * np.asarray(variance, np.float64)
    low = effects.mean - np.sqrt((effects.mean - effects.lower) ** 2 + noise)
    high = effects.mean + np.sqrt((effects.upper - effects.mean) ** 2 + noise)
    return (low <= truth) & (truth <= high)


def mean_with_error(values: ArrayLike) -> tuple[float, float]:
    """Return the mean and its standard error; nan for those of too few values (nan left out)."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    n = len(known)
    mean = float(known.mean()) if n else float("nan")
    return mean, float(known.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def ratio_with_error(over: ArrayLike, under: ArrayLike) -> tuple[float, float]:
    """Return the ratio of two totals and its standard error, by the jackknife over the parts.

    nan where the total below is not above 0.
    """
    a, b = np.asarray(over, np.float64), np.asarray(under, np.float64)
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    n, below = len(a), float(b.sum())
    if n == 0 or not below > 0:
        return float("nan"), float("nan")
    ratio = float(a.sum() / below)
    # Jackknife: the ratio without each part.
    rest = below - b
    if n < 2 or not (rest > 0).all():
        return ratio, float("nan")
    without = (a.sum() - a) / rest
    return ratio, float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))


def correlations(
    one: ArrayLike, two: ArrayLike, used: ArrayLike | None = None, shared: ArrayLike | None = None
) -> Array:
    """Return Pearson's correlation of every row; nan where a side is constant or genes are few.

    ``used`` says which entries take part, and ``shared`` is the covariance of the sampling errors
    of two estimates that have the controls in common: it is taken out of their covariance.
    """
    a, b = np.asarray(one, np.float64), np.asarray(two, np.float64)
    mask = np.ones(a.shape, bool) if used is None else np.asarray(used, bool)
    common = np.zeros(a.shape) if shared is None else np.asarray(shared, np.float64)
    out = np.full(len(a), np.nan)
    for j, which in enumerate(mask):
        x, y = a[j, which], b[j, which]
        if len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0:
            x, y = x - x.mean(), y - y.mean()
            # Less the covariance that the common controls make.
            size = np.sqrt((x @ x) * (y @ y))
            out[j] = np.clip((x @ y - common[j, which].sum()) / size, -1.0, 1.0)
    return out


SURE = 2.0  # standard errors by which a width lies above another to be called wider
MEDIAN = float(norm.ppf(0.75))  # of |z|, if z is standard normal
# Variance of a standard deviation from the median of |z| over n values, relative to its square, is
# this over n: (2 MEDIAN phi(MEDIAN))^-2 / 4, 1.36. It is 0.5 for the root mean square.
_VARIANCE = 1.0 / (4.0 * MEDIAN * float(norm.pdf(MEDIAN))) ** 2


@dataclass(frozen=True)
class NullWidth:
    """Width of the null: the standard deviation of its z-scores, from their centre.

    Parameters
    ----------
    value
        1 if the standard errors are right, above 1 if they are too small; NaN if not known.
    error
        Its standard error.
    """

    value: float = float("nan")
    error: float = float("nan")

    @property
    def factor(self) -> float:
        """Factor of standard errors: the width, if it is above 1 by two standard errors, else 1."""
        return self.value if self.value - SURE * self.error > 1.0 else 1.0


def null_width(z: ArrayLike, covariance: ArrayLike) -> NullWidth:
    """Return the width of the null from z-scores of effects that are 0.

    The median of ``abs(z)`` over that of a standard normal, so that a few genes that a control
    guide does change do not widen the null of all others. Genes are correlated within cells: ``p``
    of them count as ``p^2 / sum r^2`` (Box 1954). The standard error is that of independent
    z-scores or, with four rows or more, of the jackknife over rows, whichever is larger. ``z`` has
    a row per group of controls that takes the place of a perturbation; one fewer is independent.
    """
    sigma = np.asarray(covariance, np.float64)
    kept = np.flatnonzero(sigma.diagonal() > 0)
    absolute = np.abs(np.asarray(z, np.float64))[:, kept]
    if not absolute.size:
        return NullWidth()
    sd = np.sqrt(sigma[kept, kept])
    # p genes count as p^2 / sum r^2 independent ones.
    squares = float(((sigma[np.ix_(kept, kept)] / np.outer(sd, sd)) ** 2).sum())
    n = len(absolute)
    counted = max(n - 1, 1) * len(kept) ** 2 / squares
    value = float(np.median(absolute)) / MEDIAN
    error = value * np.sqrt(_VARIANCE / counted)
    if n > 3:
        without = np.array([np.median(np.delete(absolute, k, axis=0)) for k in range(n)]) / MEDIAN
        error = max(error, np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    return NullWidth(value, float(error))
