"""Unbiased distances of means to a target, and differences of two distances, with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from nextpert.core._checks import MAX_VALUE, as_vector
from nextpert.core.screen.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Matrix = NDArray[np.float64]
    Vector = NDArray[np.float64]
    # Cells of the target state, its mean, or several of these.
    MeanTarget: TypeAlias = Moments | ArrayLike | tuple[Moments | Vector, ...]

_MAX_SQUARE = MAX_VALUE**2  # maximum squared distance


@dataclass(frozen=True)
class MeanDistance:
    """A squared distance between means, in squared units of the data times the weights.

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
    by_node
        Contribution of every node to ``estimate``, ``(n_nodes,)``.
    """

    estimate: float
    sd: float
    low: float
    high: float
    plug_in: float
    noise: float
    by_node: Vector


class _Sides(NamedTuple):
    """Cells and target states, times the root of the weights, on nodes with a weight.

    ``differences`` is the mean of the cells less that of each state, ``(n_states, n_nodes)``;
    ``sampled`` holds the states that are means of cells, and ``rows`` their rows in
    ``differences``; ``counted`` are the nodes with a weight.
    """

    cells: list[Moments]
    differences: list[Matrix]
    sampled: list[Moments]
    rows: list[int]
    counted: NDArray[np.int64]


def mean_distance(
    cells: Moments,
    target: MeanTarget,
    *,
    confidence: float = 0.95,
    errors: ArrayLike | None = None,
    weights: ArrayLike | None = None,
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
        Moments of at least 2 other cells, or a mean known without error, shape ``(n_nodes,)``; or a
        tuple of several such states, to which the mean squared distance is estimated.
    confidence
        Coverage of the interval, above 0 and below 1.
    errors
        Errors of the means of cells and target states due to estimated batch effects, over a cell's
        standard deviation, shape ``(1 + n_states, n_columns)`` (``fixed_errors`` of
        ``PooledGuides``). Their squared distance times the covariance of a cell is added to ``V``.
        By default there are none.
    weights
        Weights of the squared differences of nodes, shape ``(n_nodes,)``; 1 by default.

    Raises
    ------
    ValueError
        If cells or target have fewer than 2 cells, their numbers of nodes differ, or values are too
        large to be squared twice.
    """
    by_node = np.zeros(cells.n_nodes)
    (cells,), (differences,), sampled, rows, counted = _sides([cells], target, weights)
    share = 1.0 / len(differences)
    # V = S / n of the cells and of the mean of the states.
    covariances = [covariance_of_mean(cells)]
    covariances += [share**2 * covariance_of_mean(state) for state in sampled]
    n = [cells.n, *(state.n for state in sampled)]
    # Equation 36: |d|^2 minus the variance of both means.
    with np.errstate(over="ignore"):
        square = (differences**2).mean(axis=0)
        plug_in = float(square.sum())
        noise = np.diag(covariances[0]) + sum(np.diag(v) for v in covariances[1:]) / share
    if not max(plug_in, float(noise.sum())) < _MAX_SQUARE:
        message = "The values of the cells are too large for squared distances: rescale the values."
        raise ValueError(message)
    d = differences.mean(axis=0)
    along = float(d @ covariances[0] @ d)
    along += sum(
        float(differences[k] @ v @ differences[k])
        for k, v in zip(rows, covariances[1:], strict=True)
    )
    if errors is not None and (off := _errors_apart(errors)).any():
        # Batches add the squared distance of their errors times the covariance of a cell.
        within = covariance_within([cells, *sampled])
        covariances.append(float((off.mean(axis=0) ** 2).sum()) * within)
        n.append(sum(n))
        noise = noise + share * float((off**2).sum()) * np.diag(within)
        slopes = share * off.T @ differences
        along += float(np.einsum("ki,ij,kj->", slopes, within, slopes))
    total = float(noise.sum())
    # tr V^2 of a sum: the square of each side, plus twice the products of sides.
    traces = [squared_trace(v, count) for v, count in zip(covariances, n, strict=True)]
    traces += [2 * float(np.sum(one * two)) for one, two in combinations(covariances, 2)]
    spread = 2 * sum(traces)
    along = along / plug_in if plug_in > 0 else 0.0
    estimate = plug_in - total
    sd = float(np.sqrt(4 * along * max(estimate, 0.0) + spread))
    low, high = _score_interval(estimate, along, spread, confidence)
    by_node[counted] = square - noise
    return MeanDistance(estimate, sd, low, high, plug_in, total, by_node)


def _sides(cells: Sequence[Moments], target: MeanTarget, weights: ArrayLike | None) -> _Sides:
    """Return cells and target, without nodes of weight 0."""
    n_nodes = cells[0].n_nodes
    states = target if isinstance(target, tuple) else (target,)
    samples = [*cells, *(state for state in states if isinstance(state, Moments))]
    if any(side.n_nodes != n_nodes for side in samples):
        message = (
            f"The cells and the target have {', '.join(str(side.n_nodes) for side in samples)} "
            f"nodes: give the same nodes."
        )
        raise ValueError(message)
    means = [
        state.mean if isinstance(state, Moments) else as_vector(state, n_nodes, "target")
        for state in states
    ]
    rows = [k for k, state in enumerate(states) if isinstance(state, Moments)]
    counted = np.arange(n_nodes)
    if weights is not None:
        w = as_vector(weights, n_nodes, "weights")
        counted = np.flatnonzero(w > 0)
        root = np.sqrt(w[counted])
        means = [mean[counted] * root for mean in means]
        samples = [
            Moments(
                side.n,
                side.mean[counted] * root,
                side.scatter[np.ix_(counted, counted)] * np.outer(root, root),
            )
            for side in samples
        ]
    first, sampled = samples[: len(cells)], samples[len(cells) :]
    return _Sides(first, [side.mean - np.array(means) for side in first], sampled, rows, counted)


def _errors_apart(errors: ArrayLike) -> Matrix:
    """Return the errors of the cells less those of the states, ``(n_states, n_columns)``."""
    of_cells, *of_states = np.asarray(errors, np.float64)
    return np.asarray(of_cells - np.array(of_states))


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
    n = n_cells
    trace, squares = float(np.trace(covariance)), float(np.sum(covariance**2))
    lower_bound = trace**2 / len(covariance)  # by Cauchy and Schwarz
    if n > 2:
        squares = (n - 1) ** 2 / ((n - 2) * (n + 1)) * (squares - trace**2 / (n - 1))
    return max(squares, lower_bound)


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
    target: MeanTarget,
    *,
    confidence: float = 0.95,
    errors: ArrayLike | None = None,
    weights: ArrayLike | None = None,
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
    ``(2 + n_states, n_columns)``, are those of cells, others and target states. The difference and
    its bounds are in squared units of the data, and below 0 if ``cells`` are nearer.
    """
    (cells, others), (to_a, to_b), sampled, *_ = _sides([cells, others], target, weights)
    a = to_a.mean(axis=0)
    b = to_b.mean(axis=0)
    share = 1.0 / len(to_a)
    of_cells, of_others = covariance_of_mean(cells), covariance_of_mean(others)
    of_target = sum(
        (share**2 * covariance_of_mean(state) for state in sampled),
        start=np.zeros_like(of_cells),
    )
    difference = float(a @ a - np.trace(of_cells) - b @ b + np.trace(of_others))
    # 4 (a'V_a a + b'V_b b + (a - b)'V_*(a - b)) - q.
    along = a @ of_cells @ a + b @ of_others @ b + (a - b) @ of_target @ (a - b)
    # q, the variance if all three means are the same.
    null_variance = 2 * (squared_trace(of_cells, cells.n) + squared_trace(of_others, others.n))
    null_variance += 4 * float(np.sum(of_target * (of_cells + of_others)))
    if errors is not None and np.size(errors):
        # The error of a column affects all means; these slopes times it enter the difference.
        of_a, of_b, *of_states = np.asarray(errors, np.float64)
        of_a, of_b = _errors_apart([of_a, *of_states]), _errors_apart([of_b, *of_states])
        within = covariance_within([cells, others])
        slopes = share * (of_a.T @ to_a - of_b.T @ to_b)
        along += float(np.einsum("ki,ij,kj->", slopes, within, slopes))
        added = share * ((of_a**2).sum() - (of_b**2).sum())
        difference -= float(added * np.trace(within))
    sd = float(np.sqrt(max(4 * float(along) - null_variance, null_variance)))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * sd
    return difference, difference - reach, difference + reach
