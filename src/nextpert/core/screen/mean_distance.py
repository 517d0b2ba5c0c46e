"""Unbiased distances of means to a target, and differences of two distances, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import LARGEST, as_vector
from nextpert.core.screen.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Matrix = NDArray[np.float64]

_LARGEST = LARGEST**2  # maximum squared distance


@dataclass(frozen=True)
class MeanDistance:
    """A squared distance between means, in squared units of the data.

    Parameters
    ----------
    estimate
        Unbiased estimate, which may be below 0 if the distance is close to 0.
    sd
        Standard deviation of the estimate.
    low, high
        Bounds of the confidence interval, 0 or above.
    plug_in
        Squared distance between the sample means, which is too large by ``noise`` on average.
    noise
        Sum of the variances of both means over all nodes.
    """

    estimate: float
    sd: float
    low: float
    high: float
    plug_in: float
    noise: float


def mean_distance(
    cells: Moments,
    target: Moments | ArrayLike,
    *,
    confidence: float = 0.95,
    errors: ArrayLike | None = None,
) -> MeanDistance:
    r"""Estimate the squared distance between the mean of some cells and a target mean.

    Let ``d`` be the difference of the sample means, and ``V`` the estimated covariance of ``d``
    (the covariance of the cells over their number, plus the same of the target). The estimate is

    .. math:: \hat\theta = |d|^2 - \operatorname{tr} V,

    because :math:`E|d|^2` exceeds the true :math:`\theta` by the variance of both means. Its
    variance is :math:`4 r \theta + 2 \operatorname{tr} V^2`, where ``r`` is the variance of ``d``
    along its own direction. The score interval contains all :math:`\theta \ge 0` that this normal
    approximation does not reject. It remains valid near 0, where bootstrapped squared distances
    are too large by the noise a second time.

    Parameters
    ----------
    cells
        Moments of at least 2 cells.
    target
        Moments of at least 2 other cells, or a mean known without error, shape ``(n_nodes,)``.
    confidence
        Coverage of the interval, above 0 and below 1.
    errors
        Errors of the means of cells and target due to estimated batch effects, over a cell's
        standard deviation, shape ``(2, n_columns)`` (``fixed_errors`` of ``PooledGuides``). Their
        squared distance times the covariance of a cell is added to ``V``. By default there are
        none.

    Raises
    ------
    ValueError
        If cells or target have fewer than 2 cells, their numbers of nodes differ, or values are too
        large to be squared twice.
    """
    sides = [cells, target] if isinstance(target, Moments) else [cells]
    target_mean = (
        target.mean if isinstance(target, Moments) else as_vector(target, cells.n_nodes, "target")
    )
    if len(target_mean) != cells.n_nodes:
        message = (
            f"The cells have {cells.n_nodes} nodes, but the target has {len(target_mean)}: give "
            f"the same nodes."
        )
        raise ValueError(message)
    # V = S / n of both sides; batches add their squared distance times S.
    covariances, n = [covariance_of_mean(side) for side in sides], [side.n for side in sides]
    if errors is not None and (apart := float((np.diff(errors, axis=0) ** 2).sum())):
        covariances.append(apart * covariance_within(sides))
        n.append(sum(n))
    # Equation 36: |d|^2 minus the variance of both means.
    d = cells.mean - target_mean
    variance = sum(covariances[1:], start=covariances[0])
    with np.errstate(over="ignore"):
        plug_in, noise = float(d @ d), float(np.trace(variance))
    if not max(plug_in, noise) < _LARGEST:
        message = "The values of the cells are too large for squared distances: rescale the values."
        raise ValueError(message)
    # tr V^2 of a sum: the square of each side, plus twice the products of sides.
    traces = [squared_trace(v, count) for v, count in zip(covariances, n, strict=True)]
    traces += [2 * float(np.sum(one * two)) for one, two in combinations(covariances, 2)]
    spread = 2 * sum(traces)
    along = float(d @ variance @ d) / plug_in if plug_in > 0 else 0.0
    estimate = plug_in - noise
    sd = float(np.sqrt(4 * along * max(estimate, 0.0) + spread))
    low, high = _score_interval(estimate, along, spread, confidence)
    return MeanDistance(estimate, sd, low, high, plug_in, noise)


def covariance_of_mean(cells: Moments) -> Matrix:
    """Return the estimated covariance of the cells' mean."""
    if cells.n < 2:
        message = (
            f"The variance of a mean cannot be estimated from {cells.n} cells: at least 2 are "
            f"needed."
        )
        raise ValueError(message)
    return cells.scatter / (cells.n - 1) / cells.n


def covariance_within(sides: Sequence[Moments]) -> Matrix:
    """Return the covariance of cells about the means of their sides, pooled over sides."""
    scatter = sum((side.scatter for side in sides[1:]), start=sides[0].scatter)
    return scatter / sum(side.n - 1 for side in sides)


def squared_trace(covariance: Matrix, n_cells: int) -> float:
    """Return ``tr V^2`` for the covariance ``V`` of a mean, from the estimate of ``V``.

    The trace of the squared estimate is too large, in particular with fewer cells than nodes; the
    correction is exact for normal cells.
    """
    # E tr S^2 = tr V^2 (1 + 1/(n-1)) + (tr V)^2 / (n-1) for normal cells.
    n, trace, squares = n_cells, float(np.trace(covariance)), float(np.sum(covariance**2))
    least = trace**2 / len(covariance)  # by Cauchy and Schwarz
    if n > 2:
        squares = (n - 1) ** 2 / ((n - 2) * (n + 1)) * (squares - trace**2 / (n - 1))
    return max(squares, least)


def _score_interval(
    estimate: float, along: float, spread: float, confidence: float
) -> tuple[float, float]:
    """Solve ``(estimate - t)^2 = z^2 (4 along t + spread)`` for ``t``."""
    # The two roots of the quadratic equation in t.
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    centre = estimate + 2 * along * z2
    under = z2 * (4 * along * (estimate + along * z2) + spread)
    half = float(np.sqrt(max(under, 0.0)))
    return max(centre - half, 0.0), max(centre + half, 0.0)


def distance_difference(
    cells: Moments,
    others: Moments,
    target: Moments | ArrayLike,
    *,
    confidence: float = 0.95,
    errors: ArrayLike | None = None,
) -> tuple[float, float, float]:
    r"""Estimate the difference of two squared distances to the same target mean.

    Let :math:`a` and :math:`b` be the differences of the two sample means to that of the target,
    and :math:`V_a`, :math:`V_b` and :math:`V_*` the estimated covariances of the three means. Then

    .. math:: |a|^2 - |b|^2 - \operatorname{tr} V_a + \operatorname{tr} V_b

    is unbiased: the variance of the target's mean cancels. Most of its contribution also cancels
    from the variance of the difference,

    .. math:: 4 (a' V_a a + b' V_b b + (a - b)' V_* (a - b)) - q, \qquad
        q = 2 \operatorname{tr} V_a^2 + 2 \operatorname{tr} V_b^2
        + 4 \operatorname{tr} V_* (V_a + V_b),

    so that the difference is more precise than the two distances. The variance is set to at least
    :math:`q`, its value if all three means are the same. The interval assumes a normal
    distribution, which is accurate for dozens of nodes; in simulations with 1 to 5 nodes and 30
    cells, the coverage of 95% intervals was 0.89 or higher.

    Arguments are as for :func:`mean_distance`; no cell may be in two of them. ``errors``, shape
    ``(3, n_columns)``, are those of cells, others and target. The difference and its bounds are in
    squared units of the data, and below 0 if ``cells`` are nearer.
    """
    of_target = np.zeros((cells.n_nodes, cells.n_nodes))
    if isinstance(target, Moments):
        target_mean, of_target = target.mean, covariance_of_mean(target)
    else:
        target_mean = as_vector(target, cells.n_nodes, "target")
    if not cells.n_nodes == others.n_nodes == len(target_mean):
        message = (
            f"The cells have {cells.n_nodes} and {others.n_nodes} nodes, and the target has "
            f"{len(target_mean)}: give the same nodes."
        )
        raise ValueError(message)
    of_cells, of_others = covariance_of_mean(cells), covariance_of_mean(others)
    a, b = cells.mean - target_mean, others.mean - target_mean
    difference = float(a @ a - np.trace(of_cells) - b @ b + np.trace(of_others))
    # 4 (a'V_a a + b'V_b b + (a - b)'V_*(a - b)) - q.
    along = a @ of_cells @ a + b @ of_others @ b + (a - b) @ of_target @ (a - b)
    # q, the variance if all three means are the same.
    least = 2 * (squared_trace(of_cells, cells.n) + squared_trace(of_others, others.n))
    least += 4 * float(np.sum(of_target * (of_cells + of_others)))
    if errors is not None and np.size(errors):
        # The error of a column affects all three means; these slopes times it enter the difference.
        of_a, of_b, of_target_mean = np.asarray(errors, np.float64)
        within = covariance_within([cells, others])
        slopes = np.outer(of_a - of_target_mean, a) - np.outer(of_b - of_target_mean, b)
        along += float(np.einsum("ki,ij,kj->", slopes, within, slopes))
        added = ((of_a - of_target_mean) ** 2).sum() - ((of_b - of_target_mean) ** 2).sum()
        difference -= float(added * np.trace(within))
    sd = float(np.sqrt(max(4 * float(along) - least, least)))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * sd
    return difference, difference - reach, difference + reach
