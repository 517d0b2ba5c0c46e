"""How well a number of cells tells an effect, or a distance to a target."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import nct, norm
from scipy.stats import t as student

from nextpert.core.plan.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

_MOST = 2.0**50  # cells; what these do not reach is out of reach
_FEW = 100.0  # degrees of freedom up to which the noncentral t distribution is taken as it is
_CERTAIN = 30.0  # standard errors from which the power is 1


@dataclass(frozen=True)
class EffectPrecision:
    r"""Precision and power of differences of means (equation 17), perturbed cells less controls.

    The variance of a difference is :math:`s^2 k(n) + s_0^2 k_0`, with ``k`` the spread of a
    :class:`~nextpert.core.plan.layout.Layout`. The variance of a cell is taken to be estimated from
    the cells of each side, so that tests are Welch's, with Satterthwaite's degrees of freedom; how
    far guides and replicates scatter is known from the screen.

    Parameters
    ----------
    variance, control_variance
        Variance of a perturbed cell and of a control cell, for every node, shape ``(n_nodes,)``;
        squared units of the data.
    n_control
        Number of control cells, at least 2; may be infinite.
    layout, control_layout
        Guides and replicates of the perturbation and of the controls.
    batches
        What the error of batch effects adds to the variance of a difference, over that of a
        control cell (:meth:`~nextpert.core.cells.pool_guides.PooledGuides.fixed_error`).

    Examples
    --------
    >>> from nextpert.core.plan.power import EffectPrecision
    >>> plan = EffectPrecision([1.0], [1.0], n_control=64)
    >>> plan.power([64], 0.5).round(3).tolist()  # two samples of 64, effect of half a sd
    [[0.801]]
    >>> plan.cells_for_power(0.5, 0.8).tolist()
    [64.0]
    """

    variance: ArrayLike
    control_variance: ArrayLike
    n_control: float
    layout: Layout = field(default_factory=Layout)
    control_layout: Layout = field(default_factory=Layout)
    batches: float = 0.0

    def sd(self, n_cells: ArrayLike) -> Array:
        """Return the standard deviation of the differences, shape ``(len(n_cells), n_nodes)``."""
        own, other = self._parts(np.asarray(n_cells, np.float64)[..., None])
        return np.sqrt(own + other)

    def half_width(self, n_cells: ArrayLike, confidence: float = 0.95) -> Array:
        """Return half the width of confidence intervals, ``(len(n_cells), n_nodes)``."""
        return self._width(np.asarray(n_cells, np.float64)[..., None], confidence)

    def power(self, n_cells: ArrayLike, effect: ArrayLike, confidence: float = 0.95) -> Array:
        """Return the probability that a two-sided test finds an effect.

        The level of the test is ``1 - confidence``. ``effect``: of all nodes or of each, in units
        of the data. Shape ``(len(n_cells), n_nodes)``.
        """
        return self._power(np.asarray(n_cells, np.float64)[..., None], effect, confidence)

    def cells_for_width(self, width: ArrayLike, confidence: float = 0.95) -> Array:
        """Return the least cells whose intervals reach no farther, shape ``(n_nodes,)``.

        Infinite where guides, replicates or controls leave more than that.
        """
        most = np.asarray(width, np.float64)
        return self._least(lambda n: self._width(n, confidence) <= most)

    def cells_for_power(
        self, effect: ArrayLike, power: float = 0.8, confidence: float = 0.95
    ) -> Array:
        """Return the least cells that find an effect with this probability, ``(n_nodes,)``.

        Infinite where guides, replicates or controls do not allow it.
        """
        return self._least(lambda n: self._power(n, effect, confidence) >= power)

    def guides_for_power(
        self, effect: ArrayLike, power: float = 0.8, confidence: float = 0.95
    ) -> Array:
        """Return the least guides with which some number of cells finds an effect, ``(n_nodes,)``.

        By normal quantiles. Infinite where replicates or controls do not allow it.
        """
        reach = norm.ppf((1 + confidence) / 2) + norm.ppf(power)
        _, other = self._parts(np.array([1.0])[:, None])
        own = (np.asarray(effect, np.float64) / reach) ** 2 - other[0]
        variance = np.maximum(np.asarray(self.variance, np.float64), np.finfo(float).tiny)
        return self.layout.guides_for(own / variance)

    def limit(self, effect: ArrayLike, confidence: float = 0.95) -> Array:
        """Return the power that no number of cells exceeds, shape ``(n_nodes,)``."""
        return self.power([_MOST], effect, confidence)[0]

    def _parts(self, n: Array) -> tuple[Array, Array]:
        """Return both sides' shares of the variance of the differences."""
        own = np.asarray(self.variance, np.float64) * self.layout.spread(n)
        spread = self.control_layout.spread(self.n_control) + self.batches
        return own, np.broadcast_to(np.asarray(self.control_variance) * spread, own.shape)

    def _freedom(self, n: Array) -> Array:
        own, other = self._parts(n)
        of_own, of_other = np.maximum(n - 1, 1.0), max(self.n_control - 1, 1.0)
        total = np.maximum(own + other, np.finfo(float).tiny)
        return 1 / np.maximum(
            (own / total) ** 2 / of_own + (other / total) ** 2 / of_other, 1 / (2 * _MOST)
        )

    def _quantile(self, n: Array, confidence: float) -> Array:
        return np.asarray(student.ppf((1 + confidence) / 2, self._freedom(n)))

    def _width(self, n: Array, confidence: float) -> Array:
        own, other = self._parts(n)
        return self._quantile(n, confidence) * np.sqrt(own + other)

    def _power(self, n: Array, effect: ArrayLike, confidence: float) -> Array:
        own, other = self._parts(n)
        sd = np.sqrt(np.maximum(own + other, np.finfo(float).tiny))
        away = np.minimum(np.abs(np.asarray(effect, np.float64)) / sd, _CERTAIN)
        freedom, reach = np.broadcast_arrays(self._freedom(n), self._quantile(n, confidence))
        return _beyond(reach, freedom, away) + _beyond(reach, freedom, -away)

    def _least(self, enough: Callable[[Array], NDArray[np.bool_]]) -> Array:
        """Return the least cells that are enough, by halving; infinite where none are."""
        nodes = np.broadcast_shapes(np.shape(self.variance), np.shape(self.control_variance))
        # A cell a guide, and two to have a variance.
        few = np.full(nodes, max(float(self.layout.n_guides) - 1, 1.0))
        many = np.full(nodes, _MOST)
        never = ~np.broadcast_to(enough(many), nodes)
        while np.any(many - few > 1):
            middle = np.floor((few + many) / 2)
            good = np.broadcast_to(enough(np.maximum(middle, few + 1)), nodes)
            many, few = np.where(good, middle, many), np.where(good, few, middle)
        return np.where(never, np.inf, many)


@dataclass(frozen=True)
class DistancePrecision:
    r"""Precision of unbiased squared distances to a target (equation 18).

    With the covariance of the means of cells :math:`k(n) \Sigma`, the variance of the estimator
    :func:`~nextpert.core.cells.mean_distance.mean_distance` is a quadratic in ``k``:

    .. math:: c_0 + c_1 k(n) + c_2 k(n)^2.

    Parameters
    ----------
    constant, linear, square
        Its coefficients, in units of the data to the fourth; numbers or arrays of one shape.
    layout
        Guides and replicates of every perturbation.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.plan.power import DistancePrecision
    >>> plan = DistancePrecision.of_distance([1.0, 0.0], np.eye(2))
    >>> plan.sd([100]).round(3).tolist(), plan.cells_for(0.2).tolist()
    ([0.201], 101.0)
    """

    constant: ArrayLike
    linear: ArrayLike
    square: ArrayLike
    layout: Layout = field(default_factory=Layout)

    @classmethod
    def of_distance(
        cls,
        departure: ArrayLike,
        covariance: ArrayLike,
        *,
        target_covariance: ArrayLike | None = None,
        error: ArrayLike | None = None,
        layout: Layout | None = None,
    ) -> DistancePrecision:
        """Return the precision of the squared distance of one perturbation to a target.

        Parameters
        ----------
        departure
            Difference of the two means, shape ``(n_nodes,)``.
        covariance
            Covariance of a cell within guides, shape ``(n_nodes, n_nodes)``.
        target_covariance
            Covariance of the target's mean; ``None``: known without error.
        error
            Covariance of the error of ``departure``, where that was measured: what it adds to
            the squares is taken off. ``None``: known without error.
        layout
            Guides and replicates.
        """
        d, cell = np.asarray(departure, np.float64), np.asarray(covariance, np.float64)
        goal = _matrix(target_covariance, len(d))
        wrong = _matrix(error, len(d))
        return cls(
            4 * quadratic_form(d, goal, wrong) + 2 * float(np.sum(goal**2)),
            4 * quadratic_form(d, cell, wrong) + 4 * float(np.sum(cell * goal)),
            2 * float(np.sum(cell**2)),
            layout or Layout(),
        )

    def sd(self, n_cells: ArrayLike) -> Array:
        """Return the standard deviation with so many cells of each."""
        return self.sd_at(self.layout.spread(n_cells))

    def half_width(self, n_cells: ArrayLike, confidence: float = 0.95) -> Array:
        """Return half the width of confidence intervals (normal) with so many cells of each."""
        return norm.ppf((1 + confidence) / 2) * self.sd(n_cells)

    def cells_for(self, sd: ArrayLike) -> Array:
        """Return the least cells of each that bring the standard deviation so low.

        Infinite where guides, replicates or the target's own error do not allow it.
        """
        return self.layout.cells_for(self.spread_for(sd))

    def guides_for(self, sd: ArrayLike) -> Array:
        """Return the least guides of each with which some number of cells does that."""
        return self.layout.guides_for(self.spread_for(sd))

    def spread_for(self, sd: ArrayLike) -> Array:
        """Return the largest spread of a mean with which the standard deviation is so low.

        Over the variance of a cell; below 0 where the target's error alone exceeds it.
        """
        rest = np.asarray(sd, np.float64) ** 2 - np.asarray(self.constant)
        b, c = np.asarray(self.linear, np.float64), np.asarray(self.square, np.float64)
        root = np.sqrt(np.maximum(b**2 + 4 * c * rest, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(rest > 0, 2 * rest / (b + root), -np.inf)

    def sd_at(self, spread: ArrayLike) -> Array:
        """Return the standard deviation where means scatter so far, over the variance of a cell."""
        k = np.asarray(spread, np.float64)
        b, c = np.asarray(self.linear, np.float64), np.asarray(self.square, np.float64)
        return np.sqrt(np.asarray(self.constant, np.float64) + b * k + c * k**2)


def _beyond(reach: Array, freedom: Array, away: Array) -> Array:
    """Return the probability that a noncentral t variable lies above ``reach``."""
    # The usual normal approximation, within 1e-4 where it is used.
    lower = reach * (1 - 1 / (4 * freedom)) - away
    found = np.asarray(norm.sf(lower / np.sqrt(1 + reach**2 / (2 * freedom))))
    few = (freedom < _FEW) & (np.abs(away) < _CERTAIN)
    if few.any():
        exact = nct.sf(reach[few], freedom[few], away[few])
        found[few] = np.where(np.isfinite(exact), exact, found[few])
    return found


def _matrix(value: ArrayLike | None, n: int) -> Array:
    return np.zeros((n, n)) if value is None else np.asarray(value, np.float64)


def quadratic_form(d: Array, matrix: Array, error: Array) -> float:
    """Return ``d' matrix d`` without what the error of ``d`` adds to it, not below 0."""
    return max(float(d @ matrix @ d - np.sum(matrix * error)), 0.0)
