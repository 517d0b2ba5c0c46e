"""The empirical null: how wide z-scores are where nothing was done (Efron 2004)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

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
    r"""Return the width of the null from z-scores of effects that are 0.

    The median of ``abs(z)`` over that of a standard normal, so that a few genes that a control
    guide does change count as false discoveries, but do not widen the null of all others. Genes
    are correlated within cells: ``p`` of them count as ``p^2 / sum r^2`` (Box 1954). The standard
    error is that of independent z-scores, or, with four rows or more, that over rows (jackknife),
    whichever is larger.

    Parameters
    ----------
    z
        Effects over their standard errors, shape ``(n_rows, n_genes)``, one row per group of
        controls that takes the place of a perturbation. Rows are compared with one another, so
        one fewer is independent.
    covariance
        Covariance within cells, shape ``(n_genes, n_genes)``; genes without variance are left out.
    """
    sigma = np.asarray(covariance, np.float64)
    kept = np.flatnonzero(sigma.diagonal() > 0)
    away = np.abs(np.asarray(z, np.float64))[:, kept]
    if not away.size:
        return NullWidth()
    sd = np.sqrt(sigma[kept, kept])
    squares = float(((sigma[np.ix_(kept, kept)] / np.outer(sd, sd)) ** 2).sum())
    n = len(away)
    counted = max(n - 1, 1) * len(kept) ** 2 / squares
    value = float(np.median(away)) / MEDIAN
    error = value * np.sqrt(_VARIANCE / counted)
    if n > 3:
        without = np.array([np.median(np.delete(away, k, axis=0)) for k in range(n)]) / MEDIAN
        error = max(error, np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
    return NullWidth(value, float(error))
