"""Differences paired by target: intervals and p-values that count targets, not repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import t as student

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

LEVEL = 0.05  # of tests and, as its complement, of intervals
MIN_UNITS = 6  # 2 of the 2^6 sign flips are 3% and 2 of 2^5 are 6%, above the level
MAX_EXACT = 16  # units up to which all 2^16 = 65,536 sign flips are counted, in milliseconds
_DIGITS = 12  # decimals that are compared: equal campaigns may differ by rounding


class PairedDifference(NamedTuple):
    """The mean of differences over units, its 95% interval, and a two-sided p-value.

    The interval is infinite if there are fewer than ``MIN_UNITS`` units.
    """

    mean: float
    low: float
    high: float
    p_value: float

    def in_words(self, digits: int = 3) -> str:
        """Return the mean with its interval, which is left out if it is infinite."""
        mean = f"{self.mean:+.{digits}f}"
        if not np.isfinite(self.high - self.low):
            return mean
        return f"{mean} ({self.low:+.{digits}f} to {self.high:+.{digits}f})"


def paired_difference(differences: ArrayLike) -> PairedDifference:
    """Return the mean difference of two strategies, with an interval over the units.

    A unit is what another screen would draw anew: a target, or a perturbation. Repeats of one unit
    are averaged before.

    Up to 16 units, the test is the exact sign-flip permutation test of the mean. It assumes that
    differences are independent and symmetric about their centre, and not that they are normal:
    numbers of plates are few, equal in part, and have long tails. The interval holds the centres
    that this test does not reject. With more units, the mean is nearly normal, and both are those
    of a t test.

    Parameters
    ----------
    differences
        One per unit, ``(n_units,)``.

    Returns
    -------
    PairedDifference
        In the unit of the differences. The p-value of a single unit is 1.

    Notes
    -----
    With the signs of a set F of units flipped, the sum of ``d - c`` is at least that without flips
    if and only if the mean of ``d`` over F is at most ``c``. Thus the p-value of a centre ``c`` is
    ``2 (1 + k) / 2^n``, where k counts the non-empty sets whose mean is at most ``c`` (or at least
    ``c``, if these are fewer), and the ends of the interval are order statistics of these means.

    Examples
    --------
    >>> from nextpert.study.paired import paired_difference
    >>> paired_difference([-2, -1, -3, -1, -2, -1, 0, -4]).p_value  # of 256 flips, 4
    0.015625
    """
    values = np.round(np.asarray(differences, np.float64), _DIGITS)
    n, mean = len(values), float(values.mean())
    if n > MAX_EXACT:
        sem = float(values.std(ddof=1)) / np.sqrt(n)
        half = float(student.ppf(1 - LEVEL / 2, n - 1)) * sem
        p_value = 2 * student.sf(abs(mean) / max(sem, 1e-300), n - 1)
        return PairedDifference(mean, mean - half, mean + half, float(p_value))
    sums, sizes = np.zeros(1), np.zeros(1)
    for value in values:
        sums, sizes = np.append(sums, sums + value), np.append(sizes, sizes + 1)
    sums = np.round(sums, _DIGITS - 2)
    n_sets = len(sums)  # the empty one included
    p_value = 2 * min((sums <= 0).sum(), (sums >= 0).sum()) / n_sets
    means = np.sort(sums[1:] / sizes[1:])
    k = int(LEVEL * n_sets / 2)  # the sets outside each end
    low, high = (means[k - 1], means[-k]) if k else (-np.inf, np.inf)
    return PairedDifference(mean, float(low), float(high), float(min(p_value, 1.0)))


def differences_from(values: Array, baseline: int) -> list[PairedDifference]:
    """Return the difference of each strategy from one of them, paired by unit.

    ``values`` has the shape ``(n_units, n_strategies)``. P-values are adjusted over the strategies
    by Holm's method; that of the baseline itself is NaN.
    """
    differences = [paired_difference(gap) for gap in (values - values[:, [baseline]]).T]
    p_values = np.array([gap.p_value for gap in differences])
    p_values[baseline] = np.nan
    adjusted = holm(p_values).tolist()
    return [gap._replace(p_value=p) for gap, p in zip(differences, adjusted, strict=True)]


def holm(p_values: Array) -> Array:
    """Return p-values adjusted by Holm's step-down method, in the order given; NaN stay NaN."""
    out = np.full(len(p_values), np.nan)
    finite = np.flatnonzero(np.isfinite(p_values))
    order = finite[np.argsort(p_values[finite], kind="stable")]
    factors = len(order) - np.arange(len(order))
    out[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return out
