"""The power to detect effects by local false sign rate, or at a false discovery rate.

Both rules depend on how many effects are not zero and how large they are, which a fit learns
(equation 17). The local false sign rate of an effect is a function of the mean of the cells, and
this mean is normal, so that no chain is run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp, nctdtr, ndtr, stdtr, stdtrit

from nextpert.core.model.effect_draws import VARIANCE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.design.effect_sizes import EffectSizes

    Array = NDArray[np.float64]

LFSR, FDR = "lfsr", "fdr"
LEVEL = 0.05  # the local false sign rate, or the false discovery rate, of a detected effect
_SIZES = VARIANCE[:-1]
_GENES = 300  # genes that determine the scale of a simulated perturbation; more change it little
_COPIES = 12  # simulated perturbations of each class
_Z = np.arange(0.0, 12.05, 0.05)  # means of the cells, in standard errors
_UNREACHABLE = 40.0  # a threshold, in standard errors, that no effect reaches
# Variances of means at which thresholds are computed, in units of the variance of a cell: from one
# cell to 30,000.
_LEVELS = np.geomspace(3e-5, 2.0, 23)
# Thresholds are interpolated between this number of values of a gene's noise relative to the
# median, which exceed the range of the screen by a margin (of the logarithm) for other reads.
_N_RATIOS = 13
_RATIO_MARGIN = 2.0
_N_TESTS = 2000  # tests in a simulated screen
_N_REPEATS = 16  # simulated screens
_N_LEVELS = 4  # means of their thresholds
_MAX_EXACT_FREEDOM = 100.0  # degrees of freedom below which the noncentral t distribution is exact
_MAX_STANDARDISED = 30.0  # effect in standard errors from which the power is 1
_TINY = 1e-300


@dataclass(frozen=True)
class Noise:
    """Variance of the difference of a perturbation from the controls, by gene.

    All are in units of the variance of the gene between cells, shape ``(n_genes,)``.

    Parameters
    ----------
    of_model
        For the model of a fit, which knows the coexpression of genes and learns the means of the
        controls from all cells.
    of_means
        Of a difference of means.
    freedom
        Degrees of freedom of Welch's test of this difference.
    n_perturbations
        Number of perturbations of the screen.
    """

    of_model: Array
    of_means: Array
    freedom: Array
    n_perturbations: int

    def of_genes(self, index: ArrayLike) -> Noise:
        """Return the noise of some genes."""
        genes = np.asarray(index, np.int64)
        return Noise(
            self.of_model[genes], self.of_means[genes], self.freedom[genes], self.n_perturbations
        )


class ByFalseSigns:
    """Power by the rule that an effect has a local false sign rate below :data:`LEVEL`.

    Parameters
    ----------
    sizes
        Distribution of the effects.
    pattern
        Noise of the genes relative to one another (``Noise.of_model`` of any plan).
    rng
        Seed of the simulated perturbations.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.detection import ByFalseSigns, Noise
    >>> from nextpert.core.design.effect_sizes import EffectSizes
    >>> rule = ByFalseSigns(EffectSizes.of_share(0.05, 0.5), np.ones(50))
    >>> noise = Noise(np.full(50, 0.02), np.full(50, 0.02), np.full(50, 100.0), 20)
    >>> float(rule.power(noise, 0.5)[0].round(1))
    0.3
    """

    def __init__(self, sizes: EffectSizes, pattern: Array, rng: int = 0) -> None:
        self.sizes = sizes
        generator = np.random.default_rng(rng)
        relative = pattern / np.median(pattern)
        genes = relative[generator.permutation(len(relative))[:_GENES]]
        low, high = np.log(relative.min()), np.log(relative.max())
        # Reads add noise to rare genes.
        self._ratios = np.linspace(low - _RATIO_MARGIN, high + _RATIO_MARGIN, _N_RATIOS)
        shape = (len(sizes.classes), _COPIES, len(genes))
        uniform, normal = generator.random(shape), generator.standard_normal(shape)
        self._limits = np.stack(
            [self._thresholds(level, genes, uniform, normal) for level in _LEVELS], axis=-2
        )
        # Shares of all effects that are detected, (n_levels, n_ratios): x ~ N(0, noise + T) exceeds
        # its threshold.
        variance = _LEVELS[:, None] * np.exp(self._ratios)
        self._detected = np.zeros(variance.shape)
        for c, of_class in enumerate(sizes.classes):
            for e in np.flatnonzero(sizes.mixtures[c] > 1e-6):
                z = self._limits[c] * np.sqrt(variance / (variance + _SIZES[e]))
                self._detected += of_class * sizes.mixtures[c, e] * 2 * ndtr(-z).mean(axis=0)

    def _thresholds(self, level: float, genes: Array, uniform: Array, normal: Array) -> Array:
        """Return the means from which simulated perturbations have a rate below LEVEL.

        They are in standard errors, shape ``(n_classes, n_copies, n_ratios)``.
        """
        mixtures = self.sizes.mixtures
        noise = level * genes
        # Means of perturbations of every class, and the probability of the classes given these.
        entry = np.array(
            [np.searchsorted(np.cumsum(m), u) for m, u in zip(mixtures, uniform, strict=True)]
        )
        variance = _SIZES[np.minimum(entry, len(_SIZES) - 1)] + noise
        x = np.sqrt(variance) * normal
        total = noise[:, None] + _SIZES
        density = np.exp(-0.5 * x[..., None] ** 2 / total) / np.sqrt(total)
        logs = np.log(np.maximum(density @ mixtures.T, _TINY)).sum(axis=2)
        logs += np.log(np.maximum(self.sizes.classes, _TINY))
        posterior = np.exp(logs - logsumexp(logs, axis=2)[..., None])
        weights = posterior @ mixtures
        return np.stack([first_below(weights, level * np.exp(r)) for r in self._ratios], axis=-1)

    def _interpolated(self, table: Array, noise: Array) -> Array:
        """Return values of ``(..., n_levels, n_ratios)`` for the noise of genes, by logarithms."""
        middle = np.median(noise)
        k, part = _between(np.log(_LEVELS), np.log(middle))
        by_ratio = table[..., k, :] * (1 - part) + table[..., k + 1, :] * part
        r, part = _between(self._ratios, np.log(noise / middle))
        return np.asarray(by_ratio[..., r] * (1 - part) + by_ratio[..., r + 1] * part)

    def power(self, noise: Noise, effect: ArrayLike) -> Array:
        """Return the probability that effects are detected, ``(n_genes,)``.

        ``effect`` is in units of the SD of each gene between cells, ``(n_genes,)``.
        """
        variance = noise.of_model
        size = np.abs(np.broadcast_to(np.asarray(effect, np.float64), variance.shape))
        # Perturbations that have an effect of this size: of classes with large effects.
        chance = self.sizes.class_of(size)
        limits = self._interpolated(self._limits, variance)
        z = size / np.sqrt(variance)
        detected = (ndtr(z - limits) + ndtr(-z - limits)).mean(axis=1)
        return np.asarray((chance * detected).sum(axis=0))

    def detected(self, noise: Noise) -> float:
        """Return the share of all effects that is detected."""
        return float(self._interpolated(self._detected, noise.of_model).mean())


def first_below(weights: Array, noise: float) -> Array:
    """Return the means, in standard errors, from which the local false sign rate is below LEVEL.

    ``weights`` are those of prior variances, ``(..., n_sizes)``. As in the summary of a fit, a
    component whose mean is below the standard error counts half for either sign.
    """
    shrink = _SIZES / (_SIZES + noise)
    z = _Z[:, None]
    # N(x; 0, noise + T), relative to that at 0, and twice the probability of the other sign.
    density = np.exp(-0.5 * z**2 * (1.0 - shrink)) * np.sqrt(1.0 - shrink)
    wrong = np.where(z * shrink < 1.0, 1.0, 2.0 * ndtr(-z * np.sqrt(shrink)))
    rate = weights @ (density * wrong).T / np.maximum(weights @ density.T, _TINY)
    is_below = rate < LEVEL
    return np.where(is_below.any(axis=-1), _Z[np.argmax(is_below, axis=-1)], _UNREACHABLE)


class ByDiscoveryRate:
    """Power by Welch's tests of all effects of a screen at a false discovery rate of :data:`LEVEL`.

    The procedure is that of Benjamini and Hochberg. Its threshold depends on the p-values of the
    whole screen, which are simulated.

    Parameters
    ----------
    sizes
        Distribution of the effects.
    rng
        Seed of the simulated screens.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.detection import ByDiscoveryRate, Noise
    >>> from nextpert.core.design.effect_sizes import EffectSizes
    >>> rule = ByDiscoveryRate(EffectSizes.of_share(0.05, 0.5))
    >>> noise = Noise(np.full(50, 0.02), np.full(50, 0.02), np.full(50, 100.0), 20)
    >>> float(rule.power(noise, 0.5)[0].round(1))
    0.5
    """

    def __init__(self, sizes: EffectSizes, rng: int = 0) -> None:
        self.sizes, self.rng = sizes, rng
        self._last: tuple[Noise, Array] | None = None
        self._drawn: dict[tuple[int, int], Array] = {}

    def levels(self, noise: Noise) -> Array:
        """Return the p-values at which one more effect is detected in simulated screens."""
        if self._last is not None and self._last[0] is noise:
            return self._last[1]
        generator = np.random.default_rng(self.rng)
        genes = np.arange(len(noise.of_means))
        if len(genes) > _N_TESTS:
            genes = np.sort(generator.choice(genes, _N_TESTS, replace=False))
        n = int(np.clip(_N_TESTS // len(genes), 1, max(noise.n_perturbations, 1)))
        sizes = self.sizes
        variance, freedom = noise.of_means[genes], noise.freedom[genes]
        thresholds = np.zeros(_N_REPEATS)
        shape = (n, len(genes))
        if shape not in self._drawn:
            repeats = [
                sizes.draw(*shape, np.random.default_rng([self.rng, k])) for k in range(_N_REPEATS)
            ]
            self._drawn[shape] = np.array(repeats)
        for k, effects in enumerate(self._drawn[shape]):
            squares = variance * generator.chisquare(freedom, shape) / freedom
            x = effects + np.sqrt(variance) * generator.standard_normal(shape)
            p = 2.0 * stdtr(freedom, -np.abs(x) / np.sqrt(squares)).ravel()
            # An effect is detected if its p-value is at most LEVEL R / m, where R counts the
            # discoveries if it were 0.
            p[0] = 0.0
            p.sort()
            rank = np.arange(1, len(p) + 1)
            thresholds[k] = LEVEL * rank[p <= LEVEL * rank / len(p)].max() / len(p)
        # A few means of sorted thresholds stand for all.
        levels = np.sort(thresholds).reshape(_N_LEVELS, -1).mean(axis=1)
        self._last = (noise, levels)
        return levels

    def power(self, noise: Noise, effect: ArrayLike) -> Array:
        """Return the probability that effects are detected, as :meth:`ByFalseSigns.power`."""
        size = np.abs(np.broadcast_to(np.asarray(effect, np.float64), noise.of_means.shape))
        z = np.minimum(size / np.sqrt(noise.of_means), _MAX_STANDARDISED)
        power = np.zeros(len(z))
        for level in self.levels(noise):
            reach = -stdtrit(noise.freedom, level / 2)
            power += _beyond(reach, noise.freedom, z) + _beyond(reach, noise.freedom, -z)
        return power / _N_LEVELS

    def detected(self, noise: Noise) -> float:
        """Return the share of all effects that is detected, beyond what is by chance."""
        mixture = self.sizes.classes @ self.sizes.mixtures
        total = 0.0
        entries = np.flatnonzero(mixture > 1e-5)
        spread = np.sqrt(1.0 + _SIZES[entries] / noise.of_means[:, None])
        for level in self.levels(noise):
            reach = stdtrit(noise.freedom, level / 2)[:, None] / spread
            beyond = stdtr(noise.freedom[:, None], reach)
            total += float((2 * beyond @ mixture[entries]).mean()) - level
        return max(total / _N_LEVELS, 0.0)


RULES = (LFSR, FDR)


def _between(grid: Array, value: ArrayLike) -> tuple[NDArray[np.int64], Array]:
    """Return the entries of a grid below values, and their position towards the next entry."""
    entry = np.clip(np.searchsorted(grid, value, side="right") - 1, 0, len(grid) - 2)
    part = (np.asarray(value) - grid[entry]) / (grid[entry + 1] - grid[entry])
    return entry, np.clip(part, 0.0, 1.0)


def _beyond(reach: Array, freedom: Array, size: Array) -> Array:
    """Return the probability that a noncentral t variable lies above ``reach``."""
    # The usual normal approximation; its error is below 1e-4 for the values that use it.
    lower = reach * (1 - 1 / (4 * freedom)) - size
    probability = np.asarray(ndtr(-lower / np.sqrt(1 + reach**2 / (2 * freedom))))
    is_exact = (freedom < _MAX_EXACT_FREEDOM) & (np.abs(size) < _MAX_STANDARDISED)
    if is_exact.any():
        exact = nctdtr(freedom[is_exact], -size[is_exact], -reach[is_exact])
        probability[is_exact] = np.where(np.isfinite(exact), exact, probability[is_exact])
    return probability
