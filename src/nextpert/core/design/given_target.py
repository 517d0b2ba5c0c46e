"""What a target given by its numbers says about the controls and the perturbations that make it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._blas import in_blocks
from nextpert.core._codec import table_type
from nextpert.core.model.mixture_weights import best_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.model.effect_draws import EffectDraws

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

_SIZES = 2.0 ** np.arange(-15.0, 5.0)  # variances of remainders, relative to those between cells
_MIN_GENES = 10  # genes of a target; fewer do not show the share of genes that it changes
_MIN_COEFFICIENT = -1.0  # the opposite of all effects of a perturbation
_MAX_COEFFICIENT = 1.5  # a stronger perturbation with the same effects
_STEP = 0.25  # spacing of the lattice of coefficients
# Perturbations whose moments are computed; on larger screens, those most alike.
_MAX_PERTURBATIONS = 100
_MAX_COEFFICIENTS = 16  # perturbations that may have a coefficient; a sweep takes time for each
_BURN = 30  # sweeps before the first draw of coefficients
_TINY = 1e-300  # avoids 0 / 0; below every variance


class StateMoments(NamedTuple):
    """Moments over draws of states, and of the controls' means; the genes are the last dimension.

    Parameters
    ----------
    change
        Expected states minus the controls' expected means, ``(n_perturbations, n_genes)``.
    slope, own_variance
        Slopes of states on the controls' means, and variances beyond that slope, same shape.
    control, control_variance
        Means and variances of the controls' means, ``(n_genes,)``.
    """

    change: Array
    slope: Array
    own_variance: Array
    control: Array
    control_variance: Array


class GivenTarget(NamedTuple):
    """How draws change, given the means of a target.

    Parameters
    ----------
    control
        Changes of the draws of the controls' means, ``(n_draws, n_genes)``.
    states
        In every draw, the complete states of the perturbations that make the target, by row.
    change
        Changes of the expected states of these perturbations that the controls do not explain.
    slope
        Slopes of the states of these perturbations on the controls' means, by row.
    coefficients
        Coefficients of all perturbations in every draw, ``(n_draws, n_perturbations)``.
    """

    control: Array
    states: list[dict[int, Array]]
    change: dict[int, Array]
    slope: dict[int, Array]
    coefficients: Array


def given_target(
    numbers: Array,
    effects: EffectDraws | None,
    control: Array,
    unit: Array,
    *,
    noise: Array | None = None,
    row: int = -1,
) -> GivenTarget | None:
    r"""Return the changes of draws of states, given a target's means (equation 31).

    The target is the controls' mean, plus effects of perturbations times coefficients, plus
    remainders: ``c_i + sum_j a_j (x_ji - c_i) + delta_i``, with ``delta_i ~ sum_m pi_m N(0, 2^m
    s_i^2)``. Most coefficients are 0: their number has the prior of Beta(1, n), so that all are 0
    with probability one half. Without this term, the posterior of the states would not know that
    the target was chosen because perturbations produce it: of a target equal to the state of a
    perturbation, it would state a squared distance of twice the posterior variance, and not 0.

    Coefficients, sizes of remainders and ``pi`` are drawn by Gibbs sampling, for normal states with
    the moments of the draws. Given these, draws of controls and states move by Matheron's rule.
    Perturbations that alone do not make the target more likely have no coefficient.

    Parameters
    ----------
    numbers
        Means of the target, NaN for genes that are not given, ``(n_genes,)``.
    effects
        Draws of the effects of perturbations with cells; ``None`` for controls alone.
    control
        Draws of the controls' means, ``(n_draws, n_genes)``.
    unit
        Standard deviations between cells, ``(n_genes,)``.
    noise, row
        If the target is a perturbation of the screen: the sampling variance of its means, and its
        row in ``effects``. Its cells are part of the draws already, which therefore change only
        where other perturbations make it; it then is what they and a remainder make.

    Returns
    -------
    The changes; ``None`` if fewer than 10 genes are given, or there is one draw.
    """
    n_draws, p = control.shape
    is_given = np.isfinite(numbers)
    if is_given.sum() < _MIN_GENES or n_draws < 2:
        return None
    n = 0 if effects is None else len(effects.expected)
    rows = _most_similar(numbers, effects, control, unit)
    rows = rows[rows != row]
    error = np.zeros(p) if noise is None else noise
    moments = state_moments(effects, control, rows)
    used = is_given & (moments.control_variance > 0)
    out = GivenTarget(np.zeros((n_draws, p)), [{} for _ in control], {}, {}, np.zeros((n_draws, n)))
    if not used.any():
        return out
    slope_of_row = np.ones(p)
    if row >= 0 and effects is not None:
        slope_of_row = slopes_on_control(effects, control, np.array([row]))[0]
    rng = np.random.default_rng(0)
    of_genes = StateMoments(*(x[..., used] for x in moments))
    chain = _Chain(of_genes, numbers[used], unit[used], error[used], rng)
    for _ in range(_BURN if len(chain.rows) else 0):
        chain.sweep()
    for k in range(n_draws):
        if len(chain.rows):
            chain.sweep()
        a = chain.a
        size = chain.sizes()
        variance = chain.variances[np.arange(len(size)), size]
        out.coefficients[k, rows] = a
        makers = np.flatnonzero(a)
        if row >= 0 and not len(makers):
            continue
        states = np.zeros((0, p))
        if effects is not None and len(makers):
            mean, spread = effects.given(k, rows[makers])
            states = control[k] + mean + spread * rng.standard_normal(mean.shape)
        # The difference from the target of this draw, with its own remainder.
        residual = numbers[used] - (1.0 - a.sum()) * control[k, used] - a[makers] @ states[:, used]
        remainder = np.sqrt(variance) * rng.standard_normal(len(variance))
        residual -= remainder + np.sqrt(error[used]) * rng.standard_normal(len(variance))
        slope, total = chain.slope_and_variance(a)
        residual /= total + variance
        out.control[k, used] = slope * moments.control_variance[used] * residual
        states += moments.slope[makers] * out.control[k]
        target = (
            (1.0 - a.sum()) * (control[k] + out.control[k])[used] + remainder + variance * residual
        )
        for j, state in zip(makers.tolist(), states, strict=True):
            change = a[j] * moments.own_variance[j, used] * residual
            state[used] += change
            target += a[j] * state[used]
            out.states[k][int(rows[j])] = state
            out.change.setdefault(int(rows[j]), np.zeros(p))[used] += change / n_draws
            out.slope[int(rows[j])] = moments.slope[j]
        if row >= 0 and effects is not None:
            mean, spread = effects.given(k, [row])
            expected = control[k] + mean[0] + slope_of_row * out.control[k]
            state = expected + spread[0] * rng.standard_normal(p)
            state[used] = target
            out.states[k][row] = state
            out.change.setdefault(row, np.zeros(p))[used] += (target - expected[used]) / n_draws
            out.slope[row] = slope_of_row
    return out


class _Chain:
    """A chain over coefficients and over the sizes of remainders (equation 31)."""

    def __init__(
        self,
        moments: StateMoments,
        numbers: Array,
        unit: Array,
        noise: Array,
        rng: np.random.Generator,
    ) -> None:
        self.noise = noise
        self.moments, self.rng = moments, rng
        self.variances = unit[:, None] ** 2 * _SIZES
        self.departure = numbers - moments.control
        self.a = np.zeros(len(moments.change))
        # The most likely weights of sizes without coefficients.
        even = np.full(len(_SIZES), 1.0 / len(_SIZES))
        chance = self.densities(moments.control_variance[None] + noise, self.departure[None])[0]
        self.weights = best_weights(chance + _TINY, even, even)
        gain = np.array([self.likelihood(j, self.lattice(0.0)) for j in range(len(self.a))])
        gain = (gain[:, 1:] - gain[:, :1]).max(axis=1) if len(gain) else np.zeros(0)
        rows = np.argsort(-gain, kind="stable")[:_MAX_COEFFICIENTS]
        self.rows = rows[gain[rows] > 0]

    def lattice(self, offset: float) -> Array:
        """Return 0, and coefficients at equal spacings."""
        return np.append(0.0, np.arange(_MIN_COEFFICIENT + offset, _MAX_COEFFICIENT, _STEP))

    def densities(self, variance: Array, departure: Array) -> Array:
        """Return densities of departures ``departure``, ``(n, n_genes)``, by size of the remainder.

        ``variance`` is that without remainders, same shape; the result is ``(n, n_genes, n_sizes)``
        without the factor of ``sqrt(2 pi)``.
        """
        total = variance[:, :, None] + self.variances
        return np.exp(-0.5 * departure[:, :, None] ** 2 / total) / np.sqrt(total)

    def slope_and_variance(self, a: Array) -> tuple[Array, Array]:
        """Return the target's slope on the controls' means, and its variance without remainders."""
        moments = self.moments
        slope = 1.0 - a @ (1.0 - moments.slope)
        variance = slope**2 * moments.control_variance + a**2 @ moments.own_variance
        return slope, variance + self.noise

    def likelihood(self, j: int, values: Array) -> Array:
        """Return the log likelihood of some values of the coefficient of ``j``."""
        moments = self.moments
        a = self.a.copy()
        value = values[:, None]
        a[j] = 0.0
        departure = self.departure - a @ moments.change - value * moments.change[j]
        slope = 1.0 - a @ (1.0 - moments.slope) - value * (1.0 - moments.slope[j])
        variance = slope**2 * moments.control_variance + self.noise
        variance += a**2 @ moments.own_variance + value**2 * moments.own_variance[j]
        return np.asarray(
            np.log(self.densities(variance, departure) @ self.weights + _TINY).sum(axis=1)
        )

    def sweep(self) -> None:
        """Draw the coefficients one by one, and then the weights of sizes."""
        n = len(self.a)
        rng = self.rng
        for j in rng.permutation(self.rows):
            n_others = np.count_nonzero(self.a) - int(self.a[j] != 0)
            # A lattice with a random offset, which contains the present value.
            offset = (self.a[j] - _MIN_COEFFICIENT) % _STEP if self.a[j] else _STEP * rng.random()
            values = self.lattice(offset)
            # The prior odds under Beta(1, n), given how many others have a coefficient.
            odds = (1.0 + n_others) / (2.0 * n - 1.0 - n_others)
            logs = self.likelihood(int(j), values)
            logs[1:] += np.log(odds * _STEP / (_MAX_COEFFICIENT - _MIN_COEFFICIENT))
            below = np.cumsum(np.exp(logs - logs.max()))
            self.a[j] = values[np.searchsorted(below, below[-1] * rng.random())]
        counts = np.bincount(self.sizes(), minlength=len(_SIZES))
        self.weights = rng.dirichlet(counts + 1.0 / len(_SIZES))

    def sizes(self) -> Index:
        """Draw the size of the remainder of every gene, an index in ``_SIZES``."""
        _, variance = self.slope_and_variance(self.a)
        departure = self.departure - self.a @ self.moments.change
        chance = self.densities(variance[None], departure[None])[0] * self.weights + _TINY
        below = np.cumsum(chance, axis=1)
        draw = below[:, -1:] * self.rng.random((len(below), 1))
        return np.asarray((draw > below[:, :-1]).sum(axis=1))


def _most_similar(
    numbers: Array, effects: EffectDraws | None, control: Array, unit: Array
) -> Index:
    """Return the perturbations whose expected effects are most like the target's change."""
    n = 0 if effects is None else len(effects.expected)
    if effects is None or n <= _MAX_PERTURBATIONS:
        return np.arange(n)
    change = np.where(np.isfinite(numbers), (numbers - control.mean(axis=0)) / unit, 0.0)
    along, size = np.zeros((2, n))
    for block in in_blocks(n, control.size):
        mean = effects.posterior_mean(block) / unit
        along[block] = mean @ change
        size[block] = (mean**2).sum(axis=1)
    explained = along**2 / np.maximum(size, _TINY)
    return np.sort(np.argsort(-explained, kind="stable")[:_MAX_PERTURBATIONS])


def state_moments(effects: EffectDraws | None, control: Array, rows: Index) -> StateMoments:
    """Return the moments of some states over the stored draws, and of the controls' means."""
    start, square = control.mean(axis=0), control.var(axis=0, ddof=1)
    if effects is None:
        none = np.zeros((0, control.shape[1]))
        return StateMoments(none, none, none, start, square)
    slope, own_variance = np.zeros((2, len(rows), control.shape[1]))
    slope[:] = slopes_on_control(effects, control, rows)
    for block in in_blocks(len(rows), control.size):
        # Variance over draws of conditional means, plus that of the own parts.
        states = effects.unit[:, None] * effects.centres(rows[block]).astype(np.float64) + control.T
        own_variance[block] = states.var(axis=2, ddof=1) - slope[block] ** 2 * square
    own_variance = np.maximum(own_variance, 0.0)
    for k in range(effects.n_draws):
        own_variance += effects.given(k, rows)[1] ** 2 / effects.n_draws
    return StateMoments(effects.posterior_mean(rows), slope, own_variance, start, square)


def slopes_on_control(effects: EffectDraws, control: Array, index: Index) -> Array:
    """Return the slopes of states on the controls' means, ``(len(which), n_genes)``.

    A slope is the covariance over draws of a state and the controls' mean, divided by the variance
    of this mean.
    """
    departure = control - control.mean(axis=0)
    square = np.maximum((departure**2).sum(axis=0), _TINY)
    slopes = np.empty((len(index), control.shape[1]), table_type(len(index) * control.shape[1]))
    for block in in_blocks(len(index), control.size):
        centre = effects.centres(index[block])
        slopes[block] = 1.0 + effects.unit * np.einsum("jik,ki->ji", centre, departure) / square
    return slopes
