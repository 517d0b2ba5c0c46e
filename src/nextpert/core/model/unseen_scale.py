"""How far perturbations without cells depart from what predictors expect of them (equation 21).

``Hierarchical.predict`` draws departures as large as the effects of the perturbations with cells.
Where predictors say much of these, the departures from what they say are smaller. By how much is
learned from the perturbations with cells, of which predictors say something without their cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import minimize

from nextpert.core._blas import one_thread
from nextpert.core.model.effect_draws import VARIANCE

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.model.effect_draws import EffectDraws
    from nextpert.core.model.hierarchical import Hierarchical

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]

_RANGE = -8.0, 3.0  # of factors, as exponents of 2
_FREE = 3  # perturbations of which, or of fewer, nothing is learned
_EFFECTS = 50_000  # that are compared with draws at most
_FEWEST = 20  # perturbations that are compared, however many genes there are
_SIZE = 1_600_000  # effects of which as many draws are kept as are compared: 50
_LOG2 = np.log(2.0)


class WithoutCells(NamedTuple):
    """What is expected of perturbations without cells, as ``Hierarchical.predict`` takes it.

    Parameters
    ----------
    effect
        Expected effects, shape ``(n_perturbations, n_genes)``, units of the data.
    own_variance
        Variance of own parts where it is known, as of target genes by the efficacy; nan elsewhere,
        same shape, squared units of the data.
    scale
        What variances of departures are multiplied by, those of what is shared and of own parts
        (equation 21), shape ``(n_perturbations, 2)``.
    """

    effect: Array
    own_variance: Array
    scale: Array

    def rows(self, index: ArrayLike) -> WithoutCells:
        """Return some perturbations, in the order given."""
        which = np.asarray(index, np.int64)
        return WithoutCells(*(each[which] for each in self))


class LeftOut(NamedTuple):
    """What observed effects depart by from what is expected of perturbations without their cells.

    Parameters
    ----------
    described, alone
        With side information, and with none, shape ``(n_perturbations, n_genes)``, units of the
        data.
    variance
        Sampling variance of the observed effects, same shape.
    scored
        Whether an effect is learned from, same shape.
    known
        Whether there is side information about a perturbation, shape ``(n_perturbations,)``.
    """

    described: Array
    alone: Array
    variance: Array
    scored: Mask
    known: Mask

    @classmethod
    def rows(cls, scored: Mask) -> NDArray[np.int64]:
        """Return the perturbations that are enough to learn from, evenly spread over all."""
        some = np.flatnonzero(scored.any(axis=1))
        most = max(_EFFECTS // scored.shape[1], _FEWEST)
        return some[:: -(-len(some) // most)] if len(some) else some


@one_thread()
def learn_scales(model: Hierarchical, left_out: LeftOut) -> Array:
    """Return what variances of departures are multiplied by, without and with side information.

    Those of what scores add, which predictors may know, and those of own parts, of which they know
    less: ``2^x``, shape ``(2, 2)``. With the prior ``x ~ N(0, I)``, they are the mode given
    departures of left-out perturbations, by the density of draws of ``predict`` where nothing is
    expected. The genes of a perturbation depart together: they count as so many independent ones as
    explain how much slopes of the log density vary between perturbations. With side information the
    prior is centred at the ``x`` without it.
    """
    # Without side information first: its mode is the prior of those with it.
    few, known = model.thinned(_SIZE), left_out.known
    parts = [(left_out.alone, np.ones_like(known))]
    if not np.array_equal(left_out.described[known], left_out.alone[known]):
        parts.append((left_out.described, known))
    modes, prior = [], np.zeros(2)
    # The prior of described ones is what the others have.
    for departure, rows in parts:
        x, used = prior, left_out.scored[rows]
        if len(used) > _FREE:
            slopes = _Slopes.of(few, departure[rows], left_out.variance[rows], used)
            for _ in range(2):  # by scores at the prior mode, and then at what follows
                per = slopes.at(x)[2]

                def loss(
                    x: Array, per: float = per, prior: Array = prior, at: _Slopes = slopes
                ) -> tuple[float, Array]:
                    density, slope, _ = at.at(x)
                    return (
                        0.5 * ((x - prior) ** 2).sum() - per * density.sum(),
                        x - prior - per * slope.sum(axis=0),
                    )

                fit = minimize(loss, x, jac=True, bounds=[_RANGE] * 2, method="L-BFGS-B")
                x = np.asarray(fit.x)
        modes.append(x)
        prior = x
    return np.exp2([modes[0], modes[-1]])


class _Slopes(NamedTuple):
    """The log density of departures, and its slopes.

    Parameters
    ----------
    y, noise
        Departures and sampling variances in units of genes, shape ``(n, n_genes)``.
    used
        Whether they are learned from, same shape.
    drawn
        Draws of departures.
    centre
        Their means given the rest of a draw, in units of genes, ``(n, n_genes, n_draws)``.
    """

    y: Array
    noise: Array
    used: Mask
    drawn: EffectDraws
    centre: Array

    @classmethod
    def of(cls, model: Hierarchical, departure: Array, variance: Array, used: Mask) -> _Slopes:
        drawn = model.predict(np.zeros(used.shape), rng=0)
        y = np.where(used, departure, 0.0) / drawn.unit
        centre = drawn.centres(np.arange(len(y))) + (drawn.expected / drawn.unit)[:, :, None]
        return cls(y, np.where(used, variance, 1.0) / drawn.unit**2, used, drawn, centre)

    def at(self, x: Array) -> tuple[Array, Array, float]:
        """Return the mean log density of the genes of every perturbation, and its slopes.

        Shapes ``(n,)`` and ``(n, 2)``. And how many independent genes the genes of a perturbation
        count as, by the variance of slopes of genes and that of their means.
        """
        # Mean over draws of N(y; sqrt(shared) centre, own T + noise), and slopes in log2 of both.
        # x = (log2 of the factor of what is shared, that of own parts).
        shared, own = 2.0**x
        total, slope = (
            np.full(self.y.shape, np.finfo(np.float64).tiny),
            np.zeros((2, *self.y.shape)),
        )
        for k in range(self.drawn.n_draws):
            centre = np.sqrt(shared) * self.centre[:, :, k]
            part = own * VARIANCE[self.drawn.place[:, :, k]]
            variance, off = part + self.noise, self.y - centre
            # N(y; sqrt(shared) centre, own T + V) of draw k, up to sqrt(2 pi).
            chance = np.exp(-0.5 * off**2 / variance) / np.sqrt(variance)
            total += chance
            slope[0] += chance * off * centre / variance
            # d/d log own, of the variance; d/d log shared, of the mean, above.
            slope[1] += chance * part * (off**2 / variance - 1.0) / variance
        slope = np.where(self.used, 0.5 * _LOG2 * slope / total, 0.0)
        count = self.used.sum(axis=1)
        density = np.where(self.used, np.log(total), 0.0).sum(axis=1) / count
        mean, n = slope.sum(axis=2) / count, len(count)
        # A perturbation's genes count as many as the variance of their mean slope says.
        within = ((slope**2).sum(axis=2) / count - mean.mean(axis=1, keepdims=True) ** 2).sum() / n
        between = max(mean.var(axis=1, ddof=1).sum(), np.finfo(np.float64).tiny)
        counted = min(within / between, count.mean()) * (n - _FREE) / n
        return density, mean.T, float(counted)
