"""Variances between cells, guides and replicates of a screen, and the precision they imply."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import nct, norm
from scipy.stats import t as student

from nextpert.core.design.plate import dunnett_controls
from nextpert.core.screen.guides import PooledGuides, pool_guides, spread_within

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.screen.screen import ScreenMoments

    Array = NDArray[np.float64]

_MOST = 2.0**50  # cells; a power that these do not reach counts as unreachable
_FEW = 100.0  # degrees of freedom below which the noncentral t distribution is exact
_CONFIDENCE = 0.95  # one minus the level of a two-sided test
_CERTAIN = 30.0  # effect in standard errors from which the power is 1
_TINY = float(np.finfo(float).tiny)
# Numbers of perturbations of the screens that are compared.
_NUMBERS = tuple(x * 10**k for k in range(5) for x in (1, 2, 3, 5, 7))


@dataclass(frozen=True)
class Layout:
    r"""Guides and replicates of a perturbation, with its cells spread evenly over both.

    The mean of ``n`` cells in ``g`` guides and ``r`` replicates has the variance

    .. math:: \sigma^2 (1/n + \tau_g^2 / g + \tau_r^2 / r),

    which more cells cannot lower below ``floor``. The effect of a replicate on all of its cells,
    controls included, is not part of it, because it cancels in differences from controls of the
    same replicate.

    Parameters
    ----------
    n_guides, n_replicates
        Number of guides of the perturbation, and number of replicates (batches) that contain its
        cells.
    guide_variance, replicate_variance
        ``tau_g^2`` and ``tau_r^2``: variances of the effect of a perturbation between guides and
        between replicates, each relative to the variance between cells.

    Examples
    --------
    >>> from nextpert.core.design.power import Layout
    >>> layout = Layout(2, guide_variance=0.02)
    >>> layout.spread([50, 100]).round(3).tolist()
    [0.03, 0.02]
    """

    n_guides: int = 1
    n_replicates: int = 1
    guide_variance: float = 0.0
    replicate_variance: float = 0.0

    @property
    def floor(self) -> float:
        """Variance of a mean of infinitely many cells, divided by that of a cell."""
        return self.guide_variance / self.n_guides + self.replicate_variance / self.n_replicates

    def spread(self, n_cells: ArrayLike) -> Array:
        """Return the variance of a mean of ``n_cells`` cells, divided by that of a cell."""
        return 1 / np.asarray(n_cells, np.float64) + self.floor


@dataclass(frozen=True)
class ScreenNoise:
    """The noise of a screen, by group: the controls are group 0, followed by perturbations.

    ``pooled`` holds groups with pooled guides; ``covariance`` is that between cells within guides,
    over all groups. The variances between guides (of a perturbation, and of the controls) and
    between replicates are relative to that of a cell. ``n_guides`` and ``n_replicates`` are per
    group.
    """

    pooled: PooledGuides
    covariance: Array
    guide_variance: float
    control_guide_variance: float
    replicate_variance: float
    n_guides: NDArray[np.int64]
    n_replicates: NDArray[np.int64]

    def variance(self, group: int) -> Array:
        """Return the variance of a cell of a group, shape ``(n_nodes,)``."""
        return self.covariance.diagonal() * self.pooled.variance_ratio[group]

    @property
    def perturbed_variance(self) -> Array:
        """Variance of a perturbed cell, averaged over perturbations by effective cells.

        Without perturbations, it is the variance of a control cell.
        """
        if len(self.pooled.n) == 1:
            return self.variance(0)
        weight = self.pooled.n[1:, None]
        mean = (weight * self.pooled.variance_ratio[1:]).sum(axis=0) / max(weight.sum(), 1e-300)
        return self.covariance.diagonal() * mean

    def layout(self, group: int) -> Layout:
        """Return the guides and replicates of a group in the screen."""
        return Layout(
            max(int(self.n_guides[group]), 1),
            max(int(self.n_replicates[group]), 1),
            self.guide_variance if group else self.control_guide_variance,
            self.replicate_variance,
        )

    @property
    def batch_error(self) -> float:
        """Variance that batches add to the median perturbation's difference from controls.

        It is divided by the variance of a cell, and assumes that new cells are distributed over
        batches as in the screen.
        """
        errors = self.pooled.fixed_error()[1:]
        return float(np.median(errors)) if len(errors) else 0.0

    def precision(self, layout: Layout, n_control: float) -> EffectPrecision:
        """Return the precision of effects with ``n_control`` controls in the screen's guides."""
        spread = self.layout(0).spread(n_control) + self.batch_error
        return EffectPrecision(
            self.perturbed_variance, self.variance(0) * spread, n_control, layout
        )


def screen_noise(
    screen: ScreenMoments,
    groups: ArrayLike,
    guides: ArrayLike,
    replicates: ArrayLike,
    n_groups: int,
    *,
    fixed_sd: ArrayLike = (),
) -> ScreenNoise:
    """Return the variances between cells, guides and replicates of a screen.

    The variance between guides is that between guides of one perturbation, which differ in
    efficacy; if no perturbation has two guides, it is that between control guides. The variance
    between replicates is that which remains after subtraction of each batch's effect on all of its
    cells.

    Parameters
    ----------
    screen
        Moments of the environments (group x guide x replicate), with batch effects subtracted;
        batch columns may follow the nodes.
    groups, guides, replicates
        Codes of every environment, whole numbers from 0. Group 0 holds the controls.
    n_groups
        Number of groups.
    fixed_sd
        Standard errors of batch columns (:func:`~nextpert.core.screen.guides.pool_guides`).

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> from nextpert.core.design.power import screen_noise
    >>> x = np.random.default_rng(0).normal(size=(400, 2))
    >>> screen = ScreenMoments.from_array(x, np.arange(400) % 4, 4)
    >>> noise = screen_noise(screen, [0, 0, 1, 1], [0, 1, 2, 3], [0, 0, 0, 0], 2)
    >>> noise.n_guides.tolist(), noise.variance(1).round().tolist()
    ([2, 2], [1.0, 1.0])
    """
    group, batch = np.asarray(groups, np.int64), np.asarray(replicates, np.int64)
    of_guide = np.column_stack([group, np.asarray(guides, np.int64)])
    pairs_of, place = np.unique(of_guide, axis=0, return_inverse=True)
    place, own = place.ravel(), pairs_of[:, 0]
    augmented, genes = screen.pool(place, len(pairs_of)), np.arange(screen.n_nodes)
    genes = genes[: len(genes) - len(np.asarray(fixed_sd))]
    screen, each = screen.subset(genes), augmented.subset(genes)
    of_control = spread_within(each, np.where(own == 0, 0, -1))
    pairs = np.bincount(own, minlength=n_groups)
    several = (own > 0) & (pairs[own] > 1)
    of_guides = spread_within(each, np.where(several, own, -1)) if several.any() else of_control
    pooled = pool_guides(augmented, own, n_groups, guide_variance=of_guides, fixed_sd=fixed_sd)
    freedom = max(int(np.maximum(each.n - 1, 0).sum()), 1)
    batches = np.unique(np.column_stack([group, batch]), axis=0)[:, 0]
    return ScreenNoise(
        pooled,
        each.scatter / freedom,
        of_guides,
        of_control,
        spread_within(screen, place),
        pairs,
        np.bincount(batches, minlength=n_groups),
    )


@dataclass(frozen=True)
class EffectPrecision:
    r"""Precision and power of differences of means (equation 35), perturbed cells minus controls.

    The variance of a difference is :math:`s^2 k(n) + v_0`, where ``s^2`` is the variance of a
    perturbed cell (``variance``), ``k(n)`` is :meth:`Layout.spread` for ``n`` cells, and ``v_0`` is
    the variance of the mean of the controls (``control_error``). Tests are two-sided Welch t-tests
    at level 0.05 with Satterthwaite's degrees of freedom, in which the variance between cells is
    estimated separately for perturbed and control cells. The variances between guides and between
    replicates are fixed at their estimates from the screen.

    Parameters
    ----------
    variance
        Variance of a perturbed cell, for every node, ``(n_nodes,)``; squared units of the data.
    control_error
        Variance of the mean of the controls, same shape.
    n_control
        Number of control cells, at least 2; may be infinite.
    layout
        Guides and replicates of the perturbation.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.power import EffectPrecision
    >>> plan = EffectPrecision(np.ones(1), np.ones(1) / 64, n_control=64)
    >>> plan.power([64], 0.5).round(3).tolist()  # two samples of 64, effect of half a sd
    [[0.801]]
    >>> plan.cells_for_power(0.5, 0.8).tolist()
    [64.0]
    """

    variance: Array
    control_error: Array
    n_control: float
    layout: Layout = field(default_factory=Layout)

    def half_width(self, n_cells: ArrayLike, confidence: float) -> Array:
        """Return half the width of confidence intervals, ``(len(n_cells), n_nodes)``."""
        sd, _, reach = self._error(np.asarray(n_cells, np.float64)[..., None], confidence)
        return reach * sd

    def power(self, n_cells: ArrayLike, effect: float) -> Array:
        """Return the probability that a test detects an effect, ``(len(n_cells), n_nodes)``."""
        return self._power(np.asarray(n_cells, np.float64)[..., None], effect)

    def cells_for_power(self, effect: float, power: float) -> Array:
        """Return the minimum cells for an effect to be detected with a power, ``(n_nodes,)``.

        The number is found by bisection; it is infinite if guides, replicates or controls do not
        allow the power.
        """
        # At least one cell per guide, and two cells for a variance.
        few = np.full(np.shape(self.variance), max(float(self.layout.n_guides) - 1, 1.0))
        many = np.full(few.shape, _MOST)
        never = self._power(many, effect) < power
        while np.any(many - few > 1):
            middle = np.floor((few + many) / 2)
            enough = self._power(np.maximum(middle, few + 1), effect) >= power
            many, few = np.where(enough, middle, many), np.where(enough, few, middle)
        return np.where(never, np.inf, many)

    def _error(self, n: Array, confidence: float) -> tuple[Array, Array, Array]:
        """Return SD of the differences, degrees of freedom, and the quantile of Welch's test."""
        own = self.variance * self.layout.spread(n)
        other = np.broadcast_to(self.control_error, own.shape)
        total = np.maximum(own + other, _TINY)
        of_own = (own / total) ** 2 / np.maximum(n - 1, 1.0)
        of_other = (other / total) ** 2 / max(self.n_control - 1, 1.0)
        freedom = 1 / np.maximum(of_own + of_other, 1 / (2 * _MOST))
        reach = np.asarray(student.ppf((1 + confidence) / 2, freedom))
        return np.sqrt(own + other), freedom, reach

    def _power(self, n: Array, effect: float) -> Array:
        sd, freedom, reach = self._error(n, _CONFIDENCE)
        size = np.minimum(abs(effect) / np.maximum(sd, np.sqrt(_TINY)), _CERTAIN)
        return _beyond(reach, freedom, size) + _beyond(reach, freedom, -size)


class Budget(NamedTuple):
    """Screens with the same total number of cells, by number of perturbations (equation 41).

    ``n_cells`` (per perturbation), ``n_controls`` and the ``power`` of a test (mean over genes)
    have the shape ``(n_screens,)``; ``most`` is the largest number of perturbations with enough
    power, 0 if there is none.
    """

    n_perturbations: NDArray[np.int64]
    n_cells: NDArray[np.int64]
    n_controls: NDArray[np.int64]
    power: Array
    most: int


def screens_within(
    total: int, noise: ScreenNoise, layout: Layout, *, effect: float, power: float
) -> Budget:
    """Return the power of ``total`` cells, controls included, by the number of perturbations.

    With more perturbations, each has fewer cells. The power therefore decreases, and the largest
    number of perturbations with enough power is found by bisection. Dunnett's rule determines the
    number of controls.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> from nextpert.core.design.power import Layout, screen_noise, screens_within
    >>> x = np.random.default_rng(0).normal(size=(4000, 3))
    >>> controls = ScreenMoments.from_array(x, np.zeros(4000, int), 1)
    >>> noise = screen_noise(controls, [0], [0], [0], 1)
    >>> screens_within(10_000, noise, Layout(), effect=0.5, power=0.8).most
    268
    """
    # At least one cell per guide, and two cells for a variance.
    least = max(layout.n_guides, 2)

    def split(k: int) -> tuple[int, int]:
        n_controls = round(dunnett_controls(total, k))
        return (total - n_controls) // k, n_controls

    def mean_power(k: int) -> float:
        each, n_controls = split(k)
        if each < least:
            return 0.0
        return float(noise.precision(layout, n_controls).power([each], effect).mean())

    most = bisect_left(range(1, total // least + 1), True, key=lambda k: mean_power(k) < power)
    numbers = sorted({*(k for k in _NUMBERS if split(k)[0] >= least), *([most] if most else [])})
    cells = np.array([split(k) for k in numbers], np.int64).reshape(-1, 2)
    powers = np.array([mean_power(k) for k in numbers], np.float64)
    return Budget(np.array(numbers, np.int64), cells[:, 0], cells[:, 1], powers, most)


def _beyond(reach: Array, freedom: Array, size: Array) -> Array:
    """Return the probability that a noncentral t variable lies above ``reach``."""
    # The usual normal approximation; its error is below 1e-4 for the values that use it.
    lower = reach * (1 - 1 / (4 * freedom)) - size
    probability = np.asarray(norm.sf(lower / np.sqrt(1 + reach**2 / (2 * freedom))))
    few = (freedom < _FEW) & (np.abs(size) < _CERTAIN)
    if few.any():
        exact = nct.sf(reach[few], freedom[few], size[few])
        probability[few] = np.where(np.isfinite(exact), exact, probability[few])
    return probability
