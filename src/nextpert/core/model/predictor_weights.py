"""Weights of predictors, learned by leaving perturbations out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from nextpert.core.model.predictors.graph import Graph

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert.core.model.predictors.base import Prediction
    from nextpert.core.model.shift_prior import ShiftPrior

    Array = NDArray[np.float64]

_BLOCKS = 100  # more perturbations than these are left out in so many blocks
_ROUNDS = 5  # of fitting weights and the variance that no predictor explains in turn


@dataclass(frozen=True)
class PredictorWeights:
    """Weights of predictors.

    Parameters
    ----------
    names
        Names of the predictors.
    weights
        Weight of every predictor, at least 0, learned from all measured perturbations, shape
        ``(n_predictors,)``, for predictions of unseen perturbations.
    left_out
        Weights learned without a perturbation, shape ``(n_perturbations, n_predictors)``, for
        predictions of that perturbation; ``weights`` for perturbations that were not measured.
    calibration
        Slope, 0 to 1, by which the weights were shrunk towards 0.
    error
        Squared error of the left-out predictions relative to that of "no effect", the sampling
        error of the observed effects subtracted from both; NaN without a detectable effect.
    alone
        The same for every predictor alone, with the weight 1, shape
        ``(n_predictors,)``.
    residual_variance
        Mean squared effect that the predictors do not explain, sampling error subtracted, in units
        of a gene's variance.
    """

    names: tuple[str, ...]
    weights: Array
    left_out: Array
    calibration: float
    error: float
    alone: Array
    residual_variance: float

    def expected(self, predictions: Sequence[Prediction]) -> Array:
        """Return the expected effects, ``(n_perturbations, n_genes)``, units of the predictions.

        ``predictions`` are those that the weights were learned from. The effects of each
        perturbation are expected with the weights learned without it.
        """
        parts = [self.left_out[:, [k]] * e.effects for k, e in enumerate(predictions)]
        return np.sum(parts, axis=0)


def learn_predictor_weights(
    observed: Array,
    variance: Array,
    predictions: Sequence[Prediction],
    scored: NDArray[np.bool_],
    *,
    sd: Array,
) -> PredictorWeights:
    """Learn the weights of predictors of effects (equation 11).

    The weights are those of a non-negative least squares regression of the observed effects on the
    predictions, genes in units of their standard deviation. They are shrunk towards 0 by the slope
    of the observed effects on the predictions of left-out perturbations (van Houwelingen and le
    Cessie 1990, doi:10.1002/sim.4780091109). The prediction of a left-out perturbation uses the
    weights learned from the others. Predictors that fail on left-out perturbations are therefore
    shrunk to 0, without a tuning parameter. The total squared error is minimised, so strong
    perturbations have most influence. Fixed predictors (:attr:`Prediction.fixed`) have a weight of
    1.

    The weight of an effect is ``1 / (t^2 + variance)`` with the residual variance ``t^2`` of the
    predictors, so that perturbations with few cells have little influence. If a predictor shares
    sampling error with the observed effects (:attr:`Prediction.shared`), the shared error is
    subtracted, so that the risk of the true effects is minimised.

    Weights learned without a perturbation still use its cells if a predictor of other perturbations
    does (the mean of perturbations); this effect is of second order. More than 100 perturbations
    are left out in 100 blocks.

    Parameters
    ----------
    observed
        Observed effects, shape ``(n_perturbations, n_genes)``, units of the data.
    variance
        Their sampling variance, same shape; not read where ``scored`` is False.
    predictions
        Prediction of each predictor.
    scored
        Whether an effect is learned from, same shape: False for target genes and for perturbations
        without cells.
    sd
        Standard deviation of every gene between cells, shape ``(n_genes,)``.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.model.predictors.base import Prediction
    >>> from nextpert.core.model.predictor_weights import learn_predictor_weights
    >>> rng = np.random.default_rng(0)
    >>> truth, wrong = rng.normal(size=(2, 20, 50))
    >>> predictions = [Prediction("right", truth / 2), Prediction("wrong", wrong)]
    >>> seen = truth + 0.1 * rng.normal(size=truth.shape)
    >>> noise = np.full(truth.shape, 0.1**2)
    >>> learned = learn_predictor_weights(seen, noise, predictions, noise > 0, sd=np.ones(50))
    >>> learned.weights.round(1).tolist()
    [2.0, 0.0]
    """
    used = scored
    free = np.array([not e.fixed for e in predictions], bool)
    y, x, shared, noise = _standardised(observed, variance, predictions, used, sd)
    blocks = _blocks(used)
    n_blocks = int(blocks.max(initial=-1)) + 1
    weights, left = np.where(free, 0.0, 1.0), used.astype(np.float64)
    fixed = x[~free].sum(axis=0)
    beyond, tiny = 0.0, np.finfo(np.float64).tiny
    for _ in range(_ROUNDS):
        fit = np.einsum("k,kjg->jg", weights, x)
        off = 2 * np.einsum("k,kjg->jg", weights, shared)
        beyond = max(_mean((y - fit) ** 2 - noise + off, left**2), 0.0)
        left = np.where(used, 1 / np.maximum(beyond + noise, tiny), 0.0)
        left /= max(left.max(initial=0.0), tiny)
        gram, cross = _sums(x[free], y - fixed, shared[free], left, blocks, n_blocks)
        weights[free], slope = _calibrated(gram, cross)
    rows = np.tile(weights, (len(used), 1))
    for b in range(n_blocks):
        kept = np.arange(n_blocks) != b
        rows[np.ix_(blocks == b, free)] = _calibrated(gram[kept], cross[kept])[0]
    guess, off = np.einsum("jk,kjg->jg", rows, x), np.einsum("jk,kjg->jg", rows, shared)
    guesses = [(0.0, 0.0), (guess, off), *zip(x, shared, strict=True)]
    nothing, *totals = [float((((y - e) ** 2 - noise + 2 * s) * left).sum()) for e, s in guesses]
    alone = np.array(totals) / (nothing if nothing > 0 else np.nan)
    return PredictorWeights(
        tuple(e.name for e in predictions), weights, rows, slope, float(alone[0]), alone[1:],
        beyond,
    )  # fmt: skip


def _standardised(
    observed: Array,
    variance: Array,
    predictions: Sequence[Prediction],
    used: NDArray[np.bool_],
    sd: Array,
) -> tuple[Array, Array, Array, Array]:
    """Return effects, predictions, what they share and variances, in units of sd; 0 if not used."""
    by = np.where(sd > 0, sd, 1.0)

    def units(table: Array, power: int = 1) -> Array:
        return np.where(used, table, 0.0) / by**power

    for each in predictions:
        if each.effects.shape != used.shape or not np.isfinite(each.effects[used]).all():
            message = f"The effects of {each.name!r} must be finite and of shape {used.shape}."
            raise ValueError(message)
    shared = [np.zeros(used.shape) if e.shared is None else units(e.shared, 2) for e in predictions]
    return (
        units(observed), np.array([units(e.effects) for e in predictions]), np.array(shared),
        units(variance, 2),
    )  # fmt: skip


def _blocks(used: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the block in which a perturbation is left out; -1 for those without cells."""
    measured = np.any(used, axis=1)
    blocks = np.full(len(measured), -1)
    blocks[measured] = np.arange(measured.sum()) % _BLOCKS
    return blocks


def _sums(
    x: Array, y: Array, shared: Array, left: Array, blocks: NDArray[np.int64], n_blocks: int
) -> tuple[Array, Array]:
    """Return the normal equations of every block: ``(n_blocks, k, k)`` and ``(n_blocks, k)``."""
    weighted = x * left
    each = np.einsum("kjg,ljg->jkl", weighted, x)
    cross = np.einsum("kjg,jg->jk", weighted, y) - np.einsum("kjg,jg->jk", shared, left)
    k = len(x)
    grams, crosses = np.zeros((n_blocks, k, k)), np.zeros((n_blocks, k))
    np.add.at(grams, blocks[blocks >= 0], each[blocks >= 0])
    np.add.at(crosses, blocks[blocks >= 0], cross[blocks >= 0])
    return grams, crosses


def _calibrated(gram: Array, cross: Array) -> tuple[Array, float]:
    """Return weights and the slope they were multiplied by, from blocks' normal equations."""
    whole, right = gram.sum(axis=0), cross.sum(axis=0)
    without = [_solve(whole - g, right - c) for g, c in zip(gram, cross, strict=True)]
    rows = np.array(without).reshape(len(gram), -1) if len(gram) else np.zeros((0, len(right)))
    along = float(np.einsum("bk,bk->", rows, cross))
    size = float(np.einsum("bk,bkl,bl->", rows, gram, rows))
    slope = min(max(along / size, 0.0), 1.0) if size > 0 else 0.0
    return slope * _solve(whole, right), slope


def _solve(gram: Array, cross: Array) -> Array:
    """Return the weights of at least 0 that make ``w'Gw - 2 w'c`` least."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > 1e-10 * max(values[-1], 0.0)
    if not kept.any():
        return np.zeros(len(cross))
    root = np.sqrt(values[kept])
    basis = vectors[:, kept].T
    return np.asarray(nnls(basis * root[:, None], (basis @ cross) / root)[0])


def _mean(table: Array, weight: Array) -> float:
    total = weight.sum()
    return float((weight * table).sum() / total) if total > 0 else 0.0


def with_expectation(
    prior: ShiftPrior, own: Array, predictions: Sequence[Prediction], weights: Mapping[str, Array]
) -> ShiftPrior:
    """Return the prior with the effects that weighted predictors expect.

    The graph's part is given as a shift of the target genes, so that what is not known of the
    graph's weights is not known of it either; that of the others as an effect.

    Parameters
    ----------
    prior
        The prior to change.
    own
        Expected change of target genes, 0 elsewhere, shape ``(n_perturbations, n_nodes)``, units
        of the data.
    predictions
        What predictors expect of these perturbations; the graph's own is not read.
    weights
        Weight of each predictor, by name, for each perturbation, shape ``(n_perturbations,)``.
    """
    effect = np.zeros_like(own)
    for each in predictions:
        if each.name != Graph.name and weights[each.name].any():
            effect += weights[each.name][:, None] * each.effects
    shift = weights.get(Graph.name, np.zeros(len(own)))[:, None] * own
    return replace(prior, shift=shift, effect=effect + own - shift)
