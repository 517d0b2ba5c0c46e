"""Weights of predictors, learned by leaving perturbations out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from nextpert.core._blas import in_blocks, one_thread
from nextpert.core.model.effect_draws import VARIANCE
from nextpert.core.model.perturbations import ENOUGH_EFFECTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.model.predictors.base import Prediction

    Array = NDArray[np.float64]
    from numpy.typing import NDArray

    from nextpert.core.model.effect_draws import EffectDraws
    from nextpert.core.model.hierarchical import Hierarchical

    Mask = NDArray[np.bool_]

_BLOCKS = 100  # more perturbations than this are left out in 100 blocks
_LEARNED = 4_000_000  # effects that determine a weight to within 0.002 on large screens
_ROUNDS = 5  # rounds of weighting effects by a variance, and estimating this variance from them


@dataclass(frozen=True)
class PredictorWeights:
    """Weights of predictors.

    Parameters
    ----------
    names
        Names of the predictors.
    weights
        Weight of every predictor, 0 to 1, for perturbations without cells, ``(n_predictors,)``.
    left_out
        Weights learned without a perturbation, for its prediction, shape
        ``(n_perturbations, n_predictors)``; equal to ``weights`` for unmeasured perturbations.
    probability
        Posterior probability that the predictors are useful on this screen, 0 to 1.
    calibration
        Slope, 0 to 1, of the observed effects on the predictions of left-out perturbations. The
        weights are multiplied by this slope and by ``probability``.
    error, alone
        Squared error of the predictions of left-out perturbations, by all predictors together and
        by each predictor with weight 1, divided by that of "no effect". Sampling error is
        subtracted; NaN without a detectable effect.
    residual_variance
        Mean squared effect that the predictors do not explain, minus sampling error, in units of a
        gene's variance.
    """

    names: tuple[str, ...]
    weights: Array
    left_out: Array
    probability: float
    calibration: float
    error: float
    alone: Array
    residual_variance: float

    def expected(self, predictions: Sequence[Prediction]) -> Array:
        """Return the expected effects, ``(n_perturbations, n_genes)``, units of the predictions.

        ``predictions`` are those from which the weights were learned. The effects of each
        perturbation are predicted with the weights learned without it.
        """
        total = np.zeros_like(predictions[0].effects)
        for rows in in_blocks(*total.shape):
            for k, prediction in enumerate(predictions):
                total[rows] += self.left_out[rows, k][:, None] * prediction.effects[rows]
        return total


def learn_predictor_weights(
    observed: Array,
    variance: Array,
    predictions: Sequence[Prediction],
    scored: NDArray[np.bool_],
    *,
    sd: Array,
) -> PredictorWeights:
    """Learn the weights of predictors of effects (equation 11).

    Genes are in units of their standard deviation. Either predictors are useful on a screen, and
    the weights have the prior ``N(0, 1)`` between 0 and 1, or they are not, and the weights are 0;
    both cases are equally probable a priori. The weights are the posterior mode if predictors are
    useful, times the posterior probability that they are (Laplace), and times the slope, 0 to 1, of
    the observed effects on the predictions of left-out perturbations (van Houwelingen and le Cessie
    1990, doi:10.1002/sim.4780091109). Fixed predictors have a weight of 1, and some predictors a
    lower maximum weight (:attr:`Prediction.most`).

    The genes of a perturbation change together: they count as ``m = J^2 / sum cos^2`` independent
    genes, where the sum is over all pairs of the ``J`` perturbations and ``cos`` is the cosine of
    their effects. The weight of an effect is ``1 / (t^2 + variance)``, with ``t^2`` the variance of
    the true effects. The covariance of predictions with the sampling error
    (:attr:`Prediction.shared`) is subtracted, so that the risk of the true effects is minimised.
    More than 100 perturbations are left out in 100 blocks.

    Parameters
    ----------
    observed, variance
        Observed effects and their sampling variance, shape ``(n_perturbations, n_genes)``.
    predictions
        Prediction of each predictor.
    scored
        Whether weights are learned from an effect, same shape; false for target genes and for
        perturbations without cells.
    sd
        Standard deviation of every gene between cells, shape ``(n_genes,)``.
    """
    n, p = scored.shape
    n_some = max(_LEARNED // max(n, 1), 1)
    if n * p > ENOUGH_EFFECTS and n_some < p:
        # For screens with more than 10 million effects, genes are drawn with a fixed seed until
        # there are 4 million effects: more effects would hardly change the weights.
        drawn_genes = np.sort(np.random.default_rng(0).choice(p, n_some, replace=False))
        fewer = [
            replace(
                e,
                effects=e.effects[:, drawn_genes],
                shared=None if e.shared is None else e.shared[:, drawn_genes],
            )
            for e in predictions
        ]
        return learn_predictor_weights(
            observed[:, drawn_genes],
            variance[:, drawn_genes],
            fewer,
            scored[:, drawn_genes],
            sd=sd[drawn_genes],
        )
    used, by = scored, np.where(sd > 0, sd, 1.0)
    fixed = np.array([e.fixed for e in predictions], bool)
    max_weight = np.array([e.most for e in predictions])
    free = ~fixed & (max_weight > 0)
    # Effects, predictions, shared errors and variances, in units of sd; 0 if not used.
    y, noise = np.where(used, observed, 0.0) / by, np.where(used, variance, 0.0) / by**2
    x = np.array([np.where(used, e.effects, 0.0) / by for e in predictions])
    shared = np.zeros(x.shape)
    for k, prediction in enumerate(predictions):
        if prediction.shared is not None:
            shared[k] = np.where(used, prediction.shared, 0.0) / by**2
    # The block in which a perturbation is left out; -1 for those without cells.
    measured = np.any(used, axis=1)
    blocks = np.full(len(measured), -1)
    blocks[measured] = np.arange(measured.sum()) % _BLOCKS
    n_blocks = int(blocks.max(initial=-1)) + 1
    # If a fixed predictor predicts a perturbation, the others are not used or learned there.
    evidence = used & ~x[fixed].any(axis=(0, 2))[:, None]
    effect_weight, _ = _weighed(np.where(evidence, y, 0.0), noise, evidence)
    # Normal equations by block, so that each can be left out by subtraction.
    sums = _sums(x[free], y, shared[free], effect_weight, blocks, n_blocks)
    # Fixed predictors have weight 1.
    weights = fixed.astype(np.float64)
    block_weights, probability, slope = sums.learned(max_weight[free])
    weights[free] = block_weights[0]
    # The weights of a left-out perturbation are those of the other blocks.
    rows = np.tile(weights, (len(used), 1))
    rows[np.ix_(measured, free)] = block_weights[1:][blocks[measured]]
    # Errors are weighted with the variance that the predictors do not explain.
    off = 2 * np.einsum("k,kjg->jg", weights, shared)
    effect_weight, beyond = _weighed(
        y - np.einsum("k,kjg->jg", weights, x), noise - off, used, noise
    )
    # E|y - e|^2 of the true effects: |y - e|^2 - noise + 2 shared, divided by that for e = 0.
    guess, off = np.einsum("jk,kjg->jg", rows, x), np.einsum("jk,kjg->jg", rows, shared)
    guesses = [(0.0, 0.0), (guess, off), *zip(x, shared, strict=True)]
    nothing, *totals = [
        float((((y - e) ** 2 - noise + 2 * s) * effect_weight).sum()) for e, s in guesses
    ]
    alone = np.array(totals) / (nothing if nothing > 0 else np.nan)
    return PredictorWeights(
        tuple(e.name for e in predictions),
        weights,
        rows,
        probability,
        slope,
        float(alone[0]),
        alone[1:],
        beyond,
    )


def _weighed(
    effects: Array, expected: Array, used: NDArray[np.bool_], noise: Array | None = None
) -> tuple[Array, float]:
    """Return weights ``1 / (t^2 + noise)`` of effects, scaled to a maximum of 1, and ``t^2``.

    ``expected`` is the squared effect expected from sampling alone; it is also the variance
    ``noise`` if this is not given. All arrays have the shape ``(n_perturbations, n_genes)``.
    """
    variance = expected if noise is None else noise
    weight, beyond = used.astype(np.float64), 0.0
    tiny = np.finfo(np.float64).tiny
    for _ in range(_ROUNDS):
        # t^2 = sum w^2 (y^2 - expected) / sum w^2 with the weights so far.
        total = (weight**2).sum()
        mean = float((weight**2 * (effects**2 - expected)).sum() / total) if total > 0 else 0.0
        beyond = max(mean, 0.0)
        weight = np.where(used, 1 / np.maximum(beyond + variance, tiny), 0.0)
        weight /= max(weight.max(initial=0.0), tiny)
    return weight, beyond


@dataclass(frozen=True)
class _Sums:
    """Sums over every block of perturbations that determine the posterior of weights.

    Parameters
    ----------
    gram, cross
        Normal equations, ``(n_blocks, k, k)`` and ``(n_blocks, k)``.
    size
        Weighted squared effects, ``(n_blocks,)``.
    n
        Number of perturbations with effects in use, ``(n_blocks,)``.
    squared_cosines
        Squared cosines of the effects of two perturbations, summed over pairs whose first member is
        in the block, and over pairs within the block, ``(2, n_blocks)``.
    """

    gram: Array
    cross: Array
    size: Array
    n: NDArray[np.int64]
    squared_cosines: Array

    def learned(self, max_weight: Array) -> tuple[Array, float, float]:
        """Return the weights from all blocks and from all but each, ``(n_blocks + 1, k)``.

        Also the probability and the slope of all. ``max_weight`` has the shape ``(k,)``.
        """
        (n_blocks, k), tiny = self.cross.shape, np.finfo(np.float64).tiny
        included = np.concatenate([np.ones((1, n_blocks)), 1.0 - np.eye(n_blocks)])
        n, size = included @ self.n, included @ self.size
        # A single perturbation is not informative about others.
        is_informative = (n >= 2) & (size > 0)
        if k == 0 or not is_informative.any():
            return np.zeros((len(included), k)), 0.0, 0.0
        # m = J^2 / sum cos^2 over the remaining pairs.
        one, squared_pairs = self.squared_cosines @ (1.0 - included).T
        m = n**2 / np.maximum(self.squared_cosines[0].sum() - 2 * one + squared_pairs, tiny)
        # Weighted variance of one of the n * m independent effects.
        per = np.where(is_informative, size, 1.0) / np.where(is_informative, n * m, 1.0)
        gram = self.gram * (included / per[:, None])[:, :, None, None]
        cross = self.cross * (included / per[:, None])[:, :, None]
        # The mode with all of them, and without each.
        nothing = np.zeros((len(included), 1, k, k))
        precision = np.eye(k) + gram.sum(axis=1)[:, None] - np.concatenate([nothing, gram], axis=1)
        right = cross.sum(axis=1)[:, None] - np.concatenate([nothing[..., 0], cross], axis=1)
        modes = _mode(precision.reshape(-1, k, k), right.reshape(-1, k), max_weight).reshape(
            right.shape
        )
        mode, without = modes[:, 0], modes[:, 1:]
        # Slope of left-out effects on left-out predictions.
        along = np.einsum("sbk,sbk->s", without, cross)
        square = np.einsum("sbk,sbk->s", without, (gram @ without[..., None])[..., 0])
        slope = np.divide(along, square, out=np.zeros_like(along), where=square > 0).clip(0.0, 1.0)
        # Laplace: log odds that predictors are useful, |I + G|^-1/2 exp(w'r - w'(I + G)w / 2).
        first = precision[:, 0]
        evidence = ((right[:, 0] - 0.5 * np.einsum("skl,sl->sk", first, mode)) * mode).sum(axis=1)
        probability = expit(evidence - 0.5 * np.linalg.slogdet(first)[1])
        slope, probability = (
            np.where(is_informative, values, 0.0) for values in (slope, probability)
        )
        return (probability * slope)[:, None] * mode, float(probability[0]), float(slope[0])


def _mode(precision: Array, right: Array, max_weight: Array) -> Array:
    """Return the ``w`` from 0 to ``max_weight`` that minimises ``w'Pw - 2 w'r``, for each ``P, r``.

    The solution is exact: each weight is 0, the maximum or free, and the best of all combinations
    is taken, which is feasible for few predictors. Shapes ``(n, k, k)``, ``(n, k)``, ``(k,)``.
    """
    best, lowest = np.zeros_like(right), np.zeros(len(right))
    for states in product(*((0.0, largest, np.nan) for largest in max_weight)):
        w = np.tile(states, (len(right), 1))
        free = np.isnan(states)
        if free.any():
            remainder = right - precision[:, :, ~free] @ np.array(states)[~free]
            inner = precision[:, free][:, :, free]
            w[:, free] = np.linalg.solve(inner, remainder[:, free, None])[..., 0]
        value = np.einsum("nk,nkl,nl->n", w, precision, w) - 2 * np.einsum("nk,nk->n", w, right)
        better = (value < lowest) & (w >= 0).all(axis=1) & (w <= max_weight).all(axis=1)
        best[better], lowest[better] = w[better], value[better]
    return best


def _sums(
    x: Array, y: Array, shared: Array, weight: Array, blocks: NDArray[np.int64], n_blocks: int
) -> _Sums:
    """Return the sums over every block; ``blocks`` is the block of every perturbation, or -1."""
    # G_kl = sum w x_k x_l; the cross terms lack the shared error, sum w shared_k.
    weighted = x * weight
    gram = np.einsum("kjg,ljg->jkl", weighted, x)
    cross = np.einsum("kjg,jg->jk", weighted, y) - np.einsum("kjg,jg->jk", shared, weight)
    effects = y * np.sqrt(weight)
    size = (effects**2).sum(axis=1)
    # Squared cosines of pairs without a matrix of pairs: u'(U'U)u.
    unit = effects / np.sqrt(np.maximum(size, np.finfo(np.float64).tiny))[:, None]
    squared_cosines = ((unit @ (unit.T @ unit)) * unit).sum(axis=1)
    rows = [np.flatnonzero(blocks == b) for b in range(n_blocks)]
    within = [((unit[r] @ unit[r].T) ** 2).sum() for r in rows]
    k = len(x)
    return _Sums(
        np.array([gram[r].sum(axis=0) for r in rows]).reshape(len(rows), k, k),
        np.array([cross[r].sum(axis=0) for r in rows]).reshape(len(rows), k),
        np.array([size[r].sum() for r in rows]),
        np.array([weight[r].any(axis=1).sum() for r in rows], np.int64),
        np.array([[squared_cosines[r].sum() for r in rows], within]).reshape(2, -1),
    )


_RANGE = -8.0, 3.0  # range of factors, as exponents of 2
_FREE = 3  # from this many perturbations, or fewer, nothing is learned
_EFFECTS = 50_000  # maximum number of effects compared with draws
_MIN_PERTURBATIONS = 20  # minimum number of perturbations compared, for any number of genes
_SIZE = 1_600_000  # number of effects for which 50 draws are kept; 50 draws are compared
_LOG2 = np.log(2.0)


class WithoutCells(NamedTuple):
    """Expected effects of perturbations without cells, for ``Hierarchical.predict``.

    Parameters
    ----------
    effect
        Expected effects, shape ``(n_perturbations, n_genes)``, units of the data.
    own_variance
        Variance of own parts if it is known, as for target genes from the efficacy; otherwise NaN;
        same shape, squared units of the data.
    scale
        Factors on the variances of departures, for shared and own parts (equation 21), shape
        ``(n_perturbations, 2)``.
    """

    effect: Array
    own_variance: Array
    scale: Array


class LeftOut(NamedTuple):
    """Departures of observed effects from predictions made without the cells of a perturbation.

    Parameters
    ----------
    described, alone
        Departures with and without side information, shape ``(n_perturbations, n_genes)``, units of
        the data.
    variance
        Sampling variance of the observed effects, same shape.
    scored
        Whether an effect is used for learning, same shape.
    has_features
        Whether there is side information about a perturbation, shape ``(n_perturbations,)``.
    """

    described: Array
    alone: Array
    variance: Array
    scored: Mask
    has_features: Mask

    @classmethod
    def rows(cls, scored: Mask) -> NDArray[np.int64]:
        """Return a sufficient number of perturbations for learning, evenly spread over all."""
        scored_rows = np.flatnonzero(scored.any(axis=1))
        max_rows = max(_EFFECTS // scored.shape[1], _MIN_PERTURBATIONS)
        return scored_rows[:: -(-len(scored_rows) // max_rows)] if len(scored_rows) else scored_rows


@one_thread()
def learn_scales(model: Hierarchical, left_out: LeftOut) -> Array:
    """Return factors on the variances of departures, without and with side information.

    The columns are for shared parts, which predictors may explain, and own parts, which they
    explain less: ``2^x``, shape ``(2, 2)``. With the prior ``x ~ N(0, I)``, they are the posterior
    mode given departures of left-out perturbations, whose density comes from draws of ``predict``
    with an expectation of 0. The genes of a perturbation depart together: they count as the number
    of independent genes that explains the variance of slopes of the log density between
    perturbations. With side information, the prior is centred at the ``x`` without it.
    """
    # Without side information first: its mode is the prior of those with it.
    thinned, known_rows = model.thinned(_SIZE), left_out.has_features
    parts = [(left_out.alone, np.ones_like(known_rows))]
    if not np.array_equal(left_out.described[known_rows], left_out.alone[known_rows]):
        parts.append((left_out.described, known_rows))
    modes, prior = [], np.zeros(2)
    # The prior with side information is centred at the mode without it.
    for departure, rows in parts:
        x, used = prior, left_out.scored[rows]
        if len(used) > _FREE:
            slopes = _Slopes.of(thinned, departure[rows], left_out.variance[rows], used)
            for _ in range(2):  # weighted at the prior mode, and then at the new mode
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
        Whether a departure is used for learning, same shape.
    drawn
        Draws of departures.
    centre
        Means of departures given a draw of all other parameters, in units of genes,
        ``(n, n_genes, n_draws)``.
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
        """Return mean log densities per perturbation, their slopes, and the number of genes.

        The shapes are ``(n,)`` and ``(n, 2)``. The last number is that of independent genes as
        which the genes of a perturbation count, from the variances of slopes and of their means.
        """
        # Mean over draws of N(y; sqrt(shared) centre, own T + noise), and slopes in log2 of both.
        # x = (log2 of the factor on shared parts, log2 of the factor on own parts).
        shared, own_factor = 2.0**x
        total, slope = (
            np.full(self.y.shape, np.finfo(np.float64).tiny),
            np.zeros((2, *self.y.shape)),
        )
        for k in range(self.drawn.n_draws):
            centre = np.sqrt(shared) * self.centre[:, :, k]
            part = own_factor * VARIANCE[self.drawn.place[:, :, k]]
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
        # The number of independent genes follows from the variance of the mean slope.
        within = ((slope**2).sum(axis=2) / count - mean.mean(axis=1, keepdims=True) ** 2).sum() / n
        between = max(mean.var(axis=1, ddof=1).sum(), np.finfo(np.float64).tiny)
        counted = min(within / between, count.mean()) * (n - _FREE) / n
        return density, mean.T, float(counted)
