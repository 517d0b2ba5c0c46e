"""How well a number of cells estimates an effect or tells two distances apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import nct, norm
from scipy.stats import t as student

from nextpert.core._checks import as_rng
from nextpert.core.design.cell_numbers import Layout

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

_DRAWS, _VALUES = 5000, 5_000_000  # draws, and numbers at most in those of one mean
_SPREADS = 2.0**-50, 2.0**20  # spreads of a mean that are looked at
_STEPS = 50  # of halving the exponent's range of 70: to a relative 1e-13
_SIGNS = ((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0))


class NoiseDraws(NamedTuple):
    """Errors of two means ``x`` and ``y`` and of a target's mean ``w``, and their products.

    Each is of shape ``(n_draws, n_nodes)``, normal, with the covariance of one cell.
    """

    x: Array
    y: Array
    w: Array
    xx: Array
    yy: Array
    xw: Array
    yw: Array


def draw_noise(covariance: ArrayLike, rng: int | np.random.Generator | None = None) -> NoiseDraws:
    """Return errors of means, for any number of pairs of perturbations.

    Parameters
    ----------
    covariance
        Covariance of a cell, shape ``(n_nodes, n_nodes)``.
    rng
        Seed or generator.
    """
    cell, generator = np.asarray(covariance, np.float64), as_rng(rng)
    values, vectors = np.linalg.eigh(cell)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    n = max(min(_DRAWS, _VALUES // max(len(cell), 1)), 2)
    x, y, w = (generator.standard_normal((n, len(cell))) @ root for _ in range(3))
    return NoiseDraws(x, y, w, x * x, y * y, x * w, y * w)


@dataclass(frozen=True)
class NearerChance:
    r"""The chance that the nearer of two perturbations comes out nearer.

    Where means of cells scatter by :math:`\sqrt{k} x` (``k`` the spread of a
    :class:`~nextpert.core.design.cell_numbers.Layout`, ``x`` normal with the covariance of a
    cell), the error of the estimated difference of both squared distances
    (:func:`~nextpert.core.screen.mean_distance.distance_difference`) is a quadratic in
    :math:`\sqrt{k}`: one set of draws serves every number of cells. The difference is not normal
    where cells are few and a few programs of genes carry most of the noise: it has long tails, and
    normal quantiles would make the chance up to 4 points too low.

    Parameters
    ----------
    difference
        Of the true squared distances, the one first named less the other; squared units.
    constant, linear, square
        Coefficients of the error of that difference, each ``(n_draws,)``.
    layout
        Guides and replicates of each of the two.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.power import NearerChance, draw_noise
    >>> noise = draw_noise(np.eye(2), rng=0)
    >>> pair = NearerChance.of_draws(([1.0, 0.0], [1.0, 1.0]), noise)
    >>> bool(pair.chance(5) < 0.9 < pair.chance(50))
    True
    """

    difference: float
    constant: Array
    linear: Array
    square: Array
    layout: Layout = field(default_factory=Layout)

    @classmethod
    def of_draws(
        cls,
        departures: tuple[ArrayLike, ArrayLike],
        noise: NoiseDraws,
        *,
        scales: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike] = (1.0, 1.0, 0.0, 0.0),
        difference: float | None = None,
        variances: tuple[float, float, float] | None = None,
        layout: Layout | None = None,
    ) -> NearerChance:
        """Return the chance, by draws of the errors.

        Parameters
        ----------
        departures
            Of both means from the target's, each of shape ``(n_nodes,)``.
        noise
            Draws of errors.
        scales
            What multiplies them: for a cell of the one, for a cell of the other, and for the
            target's mean in the distance of either (weights of nodes may differ); numbers, or of
            every node. By default the target is known without error.
        difference
            Of the true squared distances; ``None`` (default): that of the departures.
        variances
            Variances of ``a'x``, ``b'y`` and of ``a'w - b'w``, where the departures ``a`` and ``b``
            were measured and what their own error adds was taken off. ``None`` (default): those
            of the draws.
        layout
            Guides and replicates.
        """
        a, b = (np.asarray(d, np.float64) for d in departures)
        r, s, t, u = (np.broadcast_to(np.asarray(scale, np.float64), a.shape) for scale in scales)
        along = [noise.x @ (r * a), noise.y @ (s * b), noise.w @ (t * a - u * b)]
        if variances is not None:
            for line, variance in zip(along, variances, strict=True):
                line *= np.sqrt(variance / max(float((line**2).mean()), np.finfo(float).tiny))
        square = noise.xx @ (r * r) - noise.yy @ (s * s)
        ours = 2 * (along[0] - noise.xw @ (r * t))
        theirs = 2 * (along[1] - noise.yw @ (s * u))
        of_target = noise.w**2 @ (t * t - u * u)  # 0 where weights are the same
        return cls(
            float(a @ a - b @ b) if difference is None else float(difference),
            # Errors of either mean are as likely with the other sign: four draws from one.
            np.tile(of_target - of_target.mean() - 2 * along[2], len(_SIGNS)),
            np.concatenate([one * ours - other * theirs for one, other in _SIGNS]),
            np.tile(square - square.mean(), len(_SIGNS)),
            layout or Layout(),
        )

    def errors(self, spread: float) -> Array:
        """Return draws of the error where means scatter so far, over the variance of a cell."""
        return self.constant + np.sqrt(spread) * self.linear + spread * self.square

    def chance(self, n_cells: ArrayLike) -> Array:
        """Return the chance with so many cells of each."""
        spread = self.layout.spread(n_cells)
        return np.array([self._chance(k) for k in spread.ravel()]).reshape(spread.shape)

    def spread_for(self, chance: float) -> float:
        """Return the largest spread of a mean, over the variance of a cell, that gives the chance.

        Below 0 where the target's error alone does not allow it.
        """
        low, high = np.log(_SPREADS)
        if self._chance(_SPREADS[0]) < chance:
            return -np.inf
        for _ in range(_STEPS):
            middle = (low + high) / 2
            enough = self._chance(np.exp(middle)) >= chance
            low, high = (middle, high) if enough else (low, middle)
        return float(np.exp(low))

    def _chance(self, spread: float) -> float:
        if not self.difference:
            return 0.5
        found = np.sign(self.difference) * (self.difference + self.errors(spread))
        return float((found > 0).mean())


_MOST = 2.0**50  # cells; what these do not reach is out of reach
_FEW = 100.0  # degrees of freedom up to which the noncentral t distribution is taken as it is
_CERTAIN = 30.0  # standard errors from which the power is 1


@dataclass(frozen=True)
class EffectPrecision:
    r"""Precision and power of differences of means (equation 35), perturbed cells less controls.

    The variance of a difference is :math:`s^2 k(n) + s_0^2 k_0`, with ``k`` the spread of a
    :class:`~nextpert.core.design.cell_numbers.Layout`. The variance of a cell is taken to be
    estimated from the cells of each side, so that tests are Welch's, with Satterthwaite's degrees
    of freedom; how far guides and replicates scatter is known from the screen.

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
        control cell (:meth:`~nextpert.core.screen.guides.PooledGuides.fixed_error`).

    Examples
    --------
    >>> from nextpert.core.design.power import EffectPrecision
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

    def half_width(self, n_cells: ArrayLike, confidence: float = 0.95) -> Array:
        """Return half the width of confidence intervals, ``(len(n_cells), n_nodes)``."""
        sd, _, reach = self._error(np.asarray(n_cells, np.float64)[..., None], confidence)
        return reach * sd

    def power(self, n_cells: ArrayLike, effect: ArrayLike, confidence: float = 0.95) -> Array:
        """Return the probability that a two-sided test finds an effect.

        The level of the test is ``1 - confidence``. ``effect``: of all nodes or of each, in units
        of the data. Shape ``(len(n_cells), n_nodes)``.
        """
        return self._power(np.asarray(n_cells, np.float64)[..., None], effect, confidence)

    def cells_for_power(
        self, effect: ArrayLike, power: float = 0.8, confidence: float = 0.95
    ) -> Array:
        """Return the least cells that find an effect with this probability, ``(n_nodes,)``.

        By halving. Infinite where guides, replicates or controls do not allow it.
        """
        nodes = np.broadcast_shapes(np.shape(self.variance), np.shape(self.control_variance))
        # A cell a guide, and two to have a variance.
        few = np.full(nodes, max(float(self.layout.n_guides) - 1, 1.0))
        many = np.full(nodes, _MOST)
        never = np.broadcast_to(self._power(many, effect, confidence) < power, nodes)
        while np.any(many - few > 1):
            middle = np.floor((few + many) / 2)
            enough = self._power(np.maximum(middle, few + 1), effect, confidence) >= power
            many, few = np.where(enough, middle, many), np.where(enough, few, middle)
        return np.where(never, np.inf, many)

    def guides_for_power(
        self, effect: ArrayLike, power: float = 0.8, confidence: float = 0.95
    ) -> Array:
        """Return the least guides with which some number of cells finds an effect, ``(n_nodes,)``.

        By normal quantiles. Infinite where replicates or controls do not allow it.
        """
        reach = norm.ppf((1 + confidence) / 2) + norm.ppf(power)
        own = (np.asarray(effect, np.float64) / reach) ** 2 - self._control_error
        variance = np.maximum(np.asarray(self.variance, np.float64), np.finfo(float).tiny)
        return self.layout.guides_for(own / variance)

    @property
    def _control_error(self) -> Array:
        """What the controls add to the variance of the differences, number or ``(n_nodes,)``."""
        spread = self.control_layout.spread(self.n_control) + self.batches
        return np.asarray(self.control_variance, np.float64) * spread

    def _error(self, n: Array, confidence: float) -> tuple[Array, Array, Array]:
        """Return sd of the differences, degrees of freedom and the quantile of Welch's test."""
        own = np.asarray(self.variance, np.float64) * self.layout.spread(n)
        other = np.broadcast_to(self._control_error, own.shape)
        total = np.maximum(own + other, np.finfo(float).tiny)
        of_own = (own / total) ** 2 / np.maximum(n - 1, 1.0)
        of_other = (other / total) ** 2 / max(self.n_control - 1, 1.0)
        freedom = 1 / np.maximum(of_own + of_other, 1 / (2 * _MOST))
        reach = np.asarray(student.ppf((1 + confidence) / 2, freedom))
        return np.sqrt(own + other), freedom, reach

    def _power(self, n: Array, effect: ArrayLike, confidence: float) -> Array:
        sd, freedom, reach = self._error(n, confidence)
        size = np.abs(np.asarray(effect, np.float64))
        away = np.minimum(size / np.maximum(sd, np.sqrt(np.finfo(float).tiny)), _CERTAIN)
        freedom, reach, away = np.broadcast_arrays(freedom, reach, away)
        return _beyond(reach, freedom, away) + _beyond(reach, freedom, -away)


@dataclass(frozen=True)
class DistancePrecision:
    r"""Precision of unbiased squared distances to a target (equation 36).

    With the covariance of the means of cells :math:`k(n) \Sigma`, the variance of the estimator
    :func:`~nextpert.core.screen.mean_distance.mean_distance` is a quadratic in ``k``:

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
    >>> from nextpert.core.design.power import DistancePrecision
    >>> plan = DistancePrecision.of_distance([1.0, 0.0], np.eye(2))
    >>> plan.sd([100]).round(3).tolist(), plan.spread_for(0.2).round(4).tolist()
    ([0.201], 0.0099)
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
