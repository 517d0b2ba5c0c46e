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
from nextpert.core.model.perturbations import ENOUGH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.model.predictors.base import Prediction

    Array = NDArray[np.float64]
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.model.effect_draws import EffectDraws
    from nextpert.core.model.hierarchical import Hierarchical

    Mask = NDArray[np.bool_]

_BLOCKS = 100  # more perturbations than these are left out in so many blocks
_LEARNED = 4_000_000  # effects of large screens that tell a weight to a thousandth or two
_ROUNDS = 5  # of weighting effects by a variance and estimating that variance from them


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
        Weights learned without a perturbation, for predictions of it, shape
        ``(n_perturbations, n_predictors)``; ``weights`` where it was not measured.
    probability
        Posterior probability that the predictors are of use on this screen, 0 to 1.
    calibration
        Slope, 0 to 1, of the observed effects on the predictions of left-out perturbations. The
        weights are multiplied by both.
    error, alone
        Squared error of the left-out predictions of all and of each predictor alone, with the
        weight 1, over that of "no effect", sampling error subtracted; NaN without a detectable
        effect.
    residual_variance
        Mean squared effect that the predictors do not explain, sampling error subtracted, in units
        of a gene's variance.
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

        ``predictions`` are those that the weights were learned from. The effects of each
        perturbation are expected with the weights learned without it.
        """
        total = np.zeros_like(predictions[0].effects)
        for rows in in_blocks(*total.shape):
            for k, each in enumerate(predictions):
                total[rows] += self.left_out[rows, k][:, None] * each.effects[rows]
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

    Genes are in units of their standard deviation. Either predictors are of use on a screen, and
    the weights have the prior ``N(0, 1)`` between 0 and 1, or they are of no use, and the weights
    are 0; both are equally probable before. The weights are the mode of the posterior where they
    are of use, times the posterior probability that they are (Laplace), and times the slope, 0 to
    1, of the observed effects on the predictions of left-out perturbations (van Houwelingen and le
    Cessie 1990, doi:10.1002/sim.4780091109). Fixed predictors have a weight of 1, and some a
    smaller largest weight (:attr:`Prediction.most`).

    The genes of a perturbation change together: they count as ``m = J^2 / sum cos^2`` independent
    ones, the sum over all pairs of the ``J`` perturbations and ``cos`` the cosine of their effects.
    The weight of an effect is ``1 / (t^2 + variance)``, ``t^2`` the variance of the true effects.
    What a predictor shares with the sampling error (:attr:`Prediction.shared`) is subtracted, so
    that the risk of the true effects is minimised. More than 100 perturbations are left out in 100
    blocks.

    Parameters
    ----------
    observed, variance
        Observed effects and their sampling variance, shape ``(n_perturbations, n_genes)``.
    predictions
        Prediction of each predictor.
    scored
        Whether an effect is learned from, same shape: not target genes, nor what has no cells.
    sd
        Standard deviation of every gene between cells, shape ``(n_genes,)``.
    """
    n, p = scored.shape
    n_some = max(_LEARNED // max(n, 1), 1)
    if n * p > ENOUGH and n_some < p:
        # Of screens of more than 10 million effects as many genes, drawn with a fixed seed, as make
        # 4 million: what is learned from them does not depend on how many more there are.
        some = np.sort(np.random.default_rng(0).choice(p, n_some, replace=False))
        fewer = [
            replace(
                e,
                effects=e.effects[:, some],
                shared=None if e.shared is None else e.shared[:, some],
            )
            for e in predictions
        ]
        return learn_predictor_weights(
            observed[:, some], variance[:, some], fewer, scored[:, some], sd=sd[some]
        )
    used, by = scored, np.where(sd > 0, sd, 1.0)
    fixed = np.array([e.fixed for e in predictions], bool)
    most = np.array([e.most for e in predictions])
    free = ~fixed & (most > 0)
    # Effects, predictions, what they share and variances, in units of sd; 0 if not used.
    y, noise = np.where(used, observed, 0.0) / by, np.where(used, variance, 0.0) / by**2
    x = np.array([np.where(used, e.effects, 0.0) / by for e in predictions])
    shared = np.zeros(x.shape)
    for k, each in enumerate(predictions):
        if each.shared is not None:
            shared[k] = np.where(used, each.shared, 0.0) / by**2
    # The block in which a perturbation is left out; -1 for those without cells.
    measured = np.any(used, axis=1)
    blocks = np.full(len(measured), -1)
    blocks[measured] = np.arange(measured.sum()) % _BLOCKS
    n_blocks = int(blocks.max(initial=-1)) + 1
    # Where a fixed predictor speaks the others are silent: nothing is learned of them there.
    evidence = used & ~x[fixed].any(axis=(0, 2))[:, None]
    left, _ = _weighed(np.where(evidence, y, 0.0), noise, evidence)
    # Normal equations by block, so that each can be left out by subtraction.
    sums = _sums(x[free], y, shared[free], left, blocks, n_blocks)
    # Fixed ones count in full, whatever the others.
    weights = fixed.astype(np.float64)
    weights[free], probability, slope = sums.learned(np.ones(n_blocks, bool), most[free])
    # The weights of a left-out perturbation are those of the other blocks.
    rows = np.tile(weights, (len(used), 1))
    for b in range(n_blocks):
        rows[np.ix_(blocks == b, free)] = sums.learned(np.arange(n_blocks) != b, most[free])[0]
    # Errors are weighted by what the predictors do not explain.
    off = 2 * np.einsum("k,kjg->jg", weights, shared)
    left, beyond = _weighed(y - np.einsum("k,kjg->jg", weights, x), noise - off, used, noise)
    # E|y - e|^2 of the true effects: |y - e|^2 - noise + 2 shared, over that of e = 0.
    guess, off = np.einsum("jk,kjg->jg", rows, x), np.einsum("jk,kjg->jg", rows, shared)
    guesses = [(0.0, 0.0), (guess, off), *zip(x, shared, strict=True)]
    nothing, *totals = [float((((y - e) ** 2 - noise + 2 * s) * left).sum()) for e, s in guesses]
    alone = np.array(totals) / (nothing if nothing > 0 else np.nan)
    return PredictorWeights(
        tuple(e.name for e in predictions), weights, rows, probability, slope, float(alone[0]),
        alone[1:], beyond,
    )  # fmt: skip


def _weighed(
    effects: Array, expected: Array, used: NDArray[np.bool_], noise: Array | None = None
) -> tuple[Array, float]:
    """Return weights ``1 / (t^2 + noise)`` of effects, the largest 1, and their variance ``t^2``.

    ``expected`` is the squared effect that sampling alone leads one to expect, by default the
    variance ``noise``. All have the shape ``(n_perturbations, n_genes)``.
    """
    variance = expected if noise is None else noise
    left, beyond, tiny = used.astype(np.float64), 0.0, np.finfo(np.float64).tiny
    for _ in range(_ROUNDS):
        # t^2 = sum w^2 (y^2 - expected) / sum w^2 with the weights so far.
        total = (left**2).sum()
        mean = float((left**2 * (effects**2 - expected)).sum() / total) if total > 0 else 0.0
        beyond = max(mean, 0.0)
        left = np.where(used, 1 / np.maximum(beyond + variance, tiny), 0.0)
        left /= max(left.max(initial=0.0), tiny)
    return left, beyond


@dataclass(frozen=True)
class _Sums:
    """What the posterior of weights needs of every block of perturbations.

    Parameters
    ----------
    gram, cross
        Normal equations, ``(n_blocks, k, k)`` and ``(n_blocks, k)``.
    size
        Weighted squared effects, ``(n_blocks,)``.
    n
        Perturbations that something is learned from, ``(n_blocks,)``.
    alike
        Squared cosines of the effects of two perturbations, summed over pairs of which one is in
        the block, and of which both are, ``(2, n_blocks)``.
    """

    gram: Array
    cross: Array
    size: Array
    n: NDArray[np.int64]
    alike: Array

    def learned(self, kept: NDArray[np.bool_], most: Array) -> tuple[Array, float, float]:
        """Return weights learned from some blocks, all or all but one, probability and slope.

        ``most`` are the largest weights, shape ``(k,)``.
        """
        k, n = self.cross.shape[1], int(self.n[kept].sum())
        size = float(self.size[kept].sum())
        # One perturbation tells nothing of others.
        if n < 2 or k == 0 or size <= 0:
            return np.zeros(k), 0.0, 0.0
        one, both = self.alike[:, ~kept].sum(axis=1)
        # m = J^2 / sum cos^2 over the pairs that are left.
        m = n**2 / max(float(self.alike[0].sum()) - 2 * one + both, np.finfo(np.float64).tiny)
        # Weighted variance of one of the n * m independent effects.
        per = size / (n * m)
        gram, cross = self.gram[kept] / per, self.cross[kept] / per
        # The mode with all of them, and without each.
        precision = np.eye(k) + gram.sum(axis=0) - np.concatenate([np.zeros((1, k, k)), gram])
        right = cross.sum(axis=0) - np.concatenate([np.zeros((1, k)), cross])
        mode, *without = _mode(precision, right, most)
        # Slope of left-out effects on left-out predictions.
        along = float(np.einsum("bk,bk->", without, cross))
        square = float(np.einsum("bk,bkl,bl->", without, gram, without))
        slope = min(max(along / square, 0.0), 1.0) if square > 0 else 0.0
        # Laplace: log odds of predictors of use, |I + G|^-1/2 exp(w'r - w'(I + G)w / 2).
        evidence = right[0] @ mode - 0.5 * mode @ precision[0] @ mode
        probability = float(expit(evidence - 0.5 * np.linalg.slogdet(precision[0])[1]))
        return probability * slope * mode, probability, slope


def _mode(precision: Array, right: Array, most: Array) -> Array:
    """Return the ``w``, 0 to ``most``, of least ``w'Pw - 2 w'r``, for each of some ``P`` and ``r``.

    Exactly: each weight is 0, the most or free, and the best of all combinations is taken.
    Predictors are few. Shapes ``(n, k, k)``, ``(n, k)`` and ``(k,)``.
    """
    best, least = np.zeros_like(right), np.zeros(len(right))
    for states in product(*((0.0, largest, np.nan) for largest in most)):
        w = np.tile(states, (len(right), 1))
        free = np.isnan(states)
        if free.any():
            rest = right - precision[:, :, ~free] @ np.array(states)[~free]
            inner = precision[:, free][:, :, free]
            w[:, free] = np.linalg.solve(inner, rest[:, free, None])[..., 0]
        value = np.einsum("nk,nkl,nl->n", w, precision, w) - 2 * np.einsum("nk,nk->n", w, right)
        better = (value < least) & (w >= 0).all(axis=1) & (w <= most).all(axis=1)
        best[better], least[better] = w[better], value[better]
    return best


def _sums(
    x: Array, y: Array, shared: Array, left: Array, blocks: NDArray[np.int64], n_blocks: int
) -> _Sums:
    """Return the sums over every block; ``blocks`` are those of the perturbations, -1 for none."""
    # G_kl = sum w x_k x_l, less for the cross terms the shared error w shared_k.
    weighted = x * left
    each = np.einsum("kjg,ljg->jkl", weighted, x)
    cross = np.einsum("kjg,jg->jk", weighted, y) - np.einsum("kjg,jg->jk", shared, left)
    effects = y * np.sqrt(left)
    size = (effects**2).sum(axis=1)
    # Squared cosines of pairs without a matrix of pairs: u'(U'U)u.
    unit = effects / np.sqrt(np.maximum(size, np.finfo(np.float64).tiny))[:, None]
    alike = ((unit @ (unit.T @ unit)) * unit).sum(axis=1)
    rows = [np.flatnonzero(blocks == b) for b in range(n_blocks)]
    within = [((unit[r] @ unit[r].T) ** 2).sum() for r in rows]
    k = len(x)
    return _Sums(
        np.array([each[r].sum(axis=0) for r in rows]).reshape(len(rows), k, k),
        np.array([cross[r].sum(axis=0) for r in rows]).reshape(len(rows), k),
        np.array([size[r].sum() for r in rows]),
        np.array([left[r].any(axis=1).sum() for r in rows], np.int64),
        np.array([[alike[r].sum() for r in rows], within]).reshape(2, -1),
    )  # fmt: skip


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
