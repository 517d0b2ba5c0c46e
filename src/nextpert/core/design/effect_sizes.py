"""How many effects of a screen are not zero and how large they are, learned or assumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp, ndtr

from nextpert.core.model.effect_draws import SCALES, TAILS, VARIANCE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

SIZES = VARIANCE[:-1]  # the variances of own parts, in units of the variance between cells
_ROUNDS = 200  # iterations of EM
_DRAWS = 25  # draws of a fit from which the weights are recovered
_QUANTILES = (np.arange(20) + 0.5) / 20  # of squared scores along factors
_MIN_FREQUENCY = 2e-3  # classes of lower frequency are left out
_TINY = 1e-300  # avoids 0 / 0 and the logarithm of 0; below every density

# Learned on Papalexi (25 perturbations), TAP-seq (14), Norman (33) and Hill (29), cells x panel, by
# `python -m benchmarks.power --tables learned`: weights of scales (from SCALES[0]; the others are
# 0) and of tails. The default is their mean, for a screen that has not been done. A table of
# numbers is not set by the formatter.
_LEARNED = (
    ((0.702, 0.021, 0.016, 0.003, 0.008, 0.032, 0.194, 0.024),
     (0.058, 0.056, 0.056, 0.231, 0.035, 0.115, 0.042, 0.145, 0.075, 0.164, 0.018, 0.003, 0.0015,
      0.0005)),
    ((0.331, 0.174, 0.2, 0.049, 0.08, 0.154, 0.009, 0.003),
     (0.172, 0.077, 0.042, 0.241, 0.045, 0.074, 0.059, 0.16, 0.096, 0.016, 0.005, 0.004, 0.002,
      0.006)),
    ((0.038, 0.01, 0.019, 0.056, 0.09, 0.046, 0.097, 0.027, 0.277, 0.092, 0.222, 0.025, 0.001),
     (0.018, 0.027, 0.374, 0.009, 0.204, 0.129, 0.08, 0.064, 0.033, 0.015, 0.016, 0.013, 0.006,
      0.009)),
    ((0.286, 0.345, 0.151, 0.127, 0.041, 0.04, 0.008, 0.0, 0.001),
     (0.042, 0.141, 0.126, 0.179, 0.106, 0.021, 0.066, 0.143, 0.039, 0.075, 0.011, 0.037, 0.011,
      0.005)),
)  # fmt: skip
# Squared scores along the factors of coexpression: means of the four screens' quantiles.
_ALONG = (1e-5, 5e-5, 1.5e-4, 4e-4, 1e-3, 2.5e-3, 6e-3, 0.015, 0.085, 3.3)
# SD of effects that are not zero: root mean square of the effects larger than 0.1 SD of a gene on
# the four screens (0.22, 0.22, 0.59 and 0.21), averaged.
USUAL_SD = 0.3


@dataclass(frozen=True)
class EffectSizes:
    r"""How many effects are not zero, and how large they are: mixtures of normals about zero.

    Parameters
    ----------
    classes
        Frequencies of classes of perturbations, shape ``(n_classes,)``.
    mixtures
        Probabilities of the variances :data:`SIZES` of an effect, in units of the variance of its
        gene between cells, ``(n_classes, n_sizes)``.
    along
        Quantiles of the squared scores of perturbations along factors of coexpression,
        ``(n_quantiles,)``; empty if no effect lies along them.

    Examples
    --------
    >>> from nextpert.core.design.effect_sizes import EffectSizes
    >>> round(EffectSizes.of_share(0.05, 0.5).share(0.2), 3)
    0.034
    """

    classes: Array
    mixtures: Array
    along: Array = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of_share(cls, share: float, sd: float) -> EffectSizes:
        """Return effects of which a ``share`` is normal with an SD; the others are zero.

        The variance of those is a mixture of the two nearest entries of the grid.
        """
        exponents = np.unique(np.log2(SIZES))
        log = np.clip(2.0 * np.log2(sd), exponents[0], exponents[-1])
        k = min(int(np.searchsorted(exponents, log, side="right")) - 1, len(exponents) - 2)
        upper = 2.0 ** (log - exponents[k]) - 1.0
        mixture = np.zeros(len(SIZES))
        mixture[0] = 1.0 - share
        for entry, weight in ((k, 1.0 - upper), (k + 1, upper)):
            mixture[int(np.searchsorted(np.log2(SIZES), exponents[entry]))] += share * weight
        return cls(np.ones(1), mixture[None])

    @classmethod
    def of_weights(cls, scales: Array, tails: Array, along: ArrayLike = ()) -> EffectSizes:
        """Return the effects of a model with weights of scales and tails: a class per scale."""
        mixtures = np.zeros((len(scales), len(SIZES)))
        for m in range(len(scales)):
            mixtures[m, m : m + len(tails)] = tails
        return cls(scales, mixtures, np.asarray(along, np.float64))

    @classmethod
    def of_draws(cls, entries: NDArray[np.int8], along: Array) -> EffectSizes:
        """Return the effects that a fit learned, from the draws of the variances of own parts.

        ``entries`` has the shape ``(n_perturbations, n_genes, n_draws)``; known variances (of
        target genes) are ignored. ``along`` are scores along factors, of any shape. The exponent of
        a variance is the scale of its perturbation plus a tail, and EM recovers the weights of
        both.
        """
        n_draws, n_sizes = entries.shape[2], len(SIZES)
        draws = np.unique(np.linspace(0, n_draws - 1, min(n_draws, _DRAWS)).astype(np.int64))
        rows = entries[:, :, draws].transpose(0, 2, 1).reshape(-1, entries.shape[1])
        counts = np.array([np.bincount(row, minlength=n_sizes + 1)[:n_sizes] for row in rows])
        scales = np.full(len(SCALES), 1.0 / len(SCALES))
        tails = np.full(len(TAILS), 1.0 / len(TAILS))
        for _ in range(_ROUNDS):
            # P(scale | counts) of every row, and the tails that remain after the scales.
            mixtures = cls.of_weights(scales, tails).mixtures
            logs = counts @ np.log(np.maximum(mixtures, _TINY)).T
            logs += np.log(np.maximum(scales, _TINY))
            chance = np.exp(logs - logsumexp(logs, axis=1)[:, None])
            scales = chance.mean(axis=0)
            by_scale = chance.T @ counts
            tails = np.sum([by_scale[m, m : m + len(TAILS)] for m in range(len(SCALES))], axis=0)
            tails = tails / max(tails.sum(), _TINY)
        squares = np.quantile(along**2, _QUANTILES) if along.size else np.zeros(0)
        return cls.of_weights(scales, tails, squares).without_rare()

    @classmethod
    def usual(cls) -> EffectSizes:
        """Return the effects of four published screens, for a screen that has not been done."""
        parts = []
        for scales, tails in _LEARNED:
            padded = np.zeros(len(SCALES))
            padded[: len(scales)] = scales
            parts.append(cls.of_weights(padded / padded.sum(), np.array(tails) / sum(tails)))
        classes = np.concatenate([part.classes for part in parts]) / len(parts)
        mixtures = np.concatenate([part.mixtures for part in parts])
        return cls(classes, mixtures, np.array(_ALONG)).without_rare()

    def without_rare(self) -> EffectSizes:
        """Return the same without rare classes."""
        is_frequent = self.classes >= min(_MIN_FREQUENCY, self.classes.max())
        classes = self.classes[is_frequent] / self.classes[is_frequent].sum()
        return EffectSizes(classes, self.mixtures[is_frequent], self.along)

    def share(self, size: float) -> float:
        """Return the share of effects larger than ``size``, in SD of a gene between cells."""
        return float(self.classes @ self.mixtures @ (2.0 * ndtr(-size / np.sqrt(SIZES))))

    def draw(self, n: int, n_genes: int, rng: np.random.Generator) -> Array:
        """Return the effects of ``n`` perturbations, ``(n, n_genes)``, in SD of genes."""
        limits = np.cumsum(self.mixtures, axis=1)
        effects = np.empty((n, n_genes))
        for row, c in enumerate(rng.choice(len(self.classes), n, p=self.classes)):
            entry = np.searchsorted(limits[c], rng.random(n_genes) * limits[c, -1])
            effects[row] = np.sqrt(SIZES[np.minimum(entry, len(SIZES) - 1)])
        return effects * rng.standard_normal(effects.shape)

    def class_of(self, sizes: Array) -> Array:
        """Return probabilities of classes given effects, ``(n_classes, n_effects)``."""
        density = np.exp(-0.5 * sizes[:, None] ** 2 / SIZES) / np.sqrt(SIZES)
        chance = self.classes[:, None] * np.maximum(self.mixtures @ density.T, _TINY)
        return np.asarray(chance / chance.sum(axis=0))
