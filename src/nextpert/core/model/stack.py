"""How much weight each predictor gets, learned by leaving perturbations out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.model.predictors.base import Prediction

    Array = NDArray[np.float64]

_BLOCKS = 100  # more perturbations than these are left out in so many blocks
_ROUNDS = 5  # of fitting weights and the variance that no predictor explains in turn


@dataclass(frozen=True)
class Stack:
    """Weights of predictors.

    Parameters
    ----------
    names
        Names of the predictors.
    weights
        Weight of every predictor, at least 0, learned from all measured perturbations, shape
        ``(n_predictors,)``: what an unseen perturbation is to be expected by.
    left_out
        Weights learned without a perturbation, shape ``(n_perturbations, n_predictors)``: what the
        perturbation itself is to be expected by. The weights of all where it was not measured.
    calibration
        Slope, 0 to 1, by which the weights were drawn towards 0.
    error
        Squared error of the left-out expectations over that of "no effect", the sampling error
        of the observed effects taken out of both; NaN where no effect can be seen.
    alone
        The same of every predictor by itself, taken as it is (weight 1), shape
        ``(n_predictors,)``.
    residual_variance
        Mean squared effect that the predictors leave, sampling error taken out, in units of a
        gene's variance.
    sums
        The squared errors of every perturbation, weighted as the weights' own: of "no effect", of
        the left-out expectations and of every predictor, shape ``(2 + n_predictors,
        n_perturbations)``; ``error`` and ``alone`` are ratios of their totals.
    """

    names: tuple[str, ...]
    weights: Array
    left_out: Array
    calibration: float
    error: float
    alone: Array
    residual_variance: float
    sums: Array

    def expected(self, predictions: Sequence[Prediction]) -> Array:
        """Return the expected effects, ``(n_perturbations, n_genes)``, units of the predictions.

        The predictors are those of the stack, for the perturbations it was learned from; each
        perturbation is expected by the weights learned without it.
        """
        return _weighted(predictions, self.left_out)


def learn_stack(
    observed: ArrayLike,
    variance: ArrayLike,
    predictions: Sequence[Prediction],
    scored: ArrayLike,
    *,
    sd: ArrayLike,
) -> Stack:
    """Learn how much weight each predictor of effects gets (equation 11).

    Non-negative least squares of the observed effects on those expected, genes in units of their
    standard deviation, is drawn towards 0 by the slope of the observed effects on what it
    expects of perturbations that were left out (van Houwelingen and le Cessie 1990,
    doi:10.1002/sim.4780091109). A perturbation enters that slope by what the others' weights
    expect of it, so that predictors which fail on those left out are drawn to nothing, and there is
    no strength to choose. What is made small is the total squared error: strong perturbations say
    most. Predictors that are settled (:attr:`Prediction.settled`) have the weight 1.

    An effect counts by ``1 / (t^2 + variance)``, ``t^2`` what the predictors leave beyond sampling,
    so that noise of perturbations with few cells has little say. Where a predictor shares sampling
    error with the observed effects (:attr:`Prediction.shared`) that is taken out, so the risk that
    is made small is that of the true effects.

    Weights learned without a perturbation still rest on predictors that have seen it where these
    speak of others (the mean of perturbations does): that is of second order. More than 100
    perturbations are left out in 100 blocks.

    Parameters
    ----------
    observed
        Observed effects, shape ``(n_perturbations, n_genes)``, units of the data.
    variance
        Their sampling variance, same shape; not read where ``scored`` is False.
    predictions
        What each predictor expects of them.
    scored
        Whether an effect is learned from, same shape: False for target genes and for perturbations
        without cells.
    sd
        Standard deviation of every gene between cells, shape ``(n_genes,)``.

    Raises
    ------
    ValueError
        If shapes differ, there is no prediction, or a scored number is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.model.predictors.base import Prediction
    >>> from nextpert.core.model.stack import learn_stack
    >>> rng = np.random.default_rng(0)
    >>> truth, wrong = rng.normal(size=(2, 20, 50))
    >>> predictions = [Prediction("right", truth / 2), Prediction("wrong", wrong)]
    >>> seen = truth + 0.1 * rng.normal(size=truth.shape)
    >>> noise = np.full(truth.shape, 0.1**2)
    >>> stack = learn_stack(seen, noise, predictions, noise > 0, sd=np.ones(50))
    >>> stack.weights.round(1).tolist()
    [2.0, 0.0]
    """
    used = np.asarray(scored, bool)
    free = np.array([not e.settled for e in predictions], bool)
    y, x, shared, noise = _standardised(observed, variance, predictions, used, sd)
    blocks = _blocks(used)
    n_blocks = int(blocks.max(initial=-1)) + 1
    weights, left = np.where(free, 0.0, 1.0), used.astype(np.float64)
    settled = x[~free].sum(axis=0)
    beyond, tiny = 0.0, np.finfo(np.float64).tiny
    for _ in range(_ROUNDS):
        fit = np.einsum("k,kjg->jg", weights, x)
        off = 2 * np.einsum("k,kjg->jg", weights, shared)
        beyond = max(_mean((y - fit) ** 2 - noise + off, left**2), 0.0)
        left = np.where(used, 1 / np.maximum(beyond + noise, tiny), 0.0)
        left /= max(left.max(initial=0.0), tiny)
        gram, cross = _sums(x[free], y - settled, shared[free], left, blocks, n_blocks)
        weights[free], slope = _calibrated(gram, cross)
    rows = np.tile(weights, (len(used), 1))
    for b in range(n_blocks):
        kept = np.arange(n_blocks) != b
        rows[np.ix_(blocks == b, free)] = _calibrated(gram[kept], cross[kept])[0]
    guess, off = np.einsum("jk,kjg->jg", rows, x), np.einsum("jk,kjg->jg", rows, shared)
    guesses = [(0.0, 0.0), (guess, off), *zip(x, shared, strict=True)]
    sums = np.array([(((y - e) ** 2 - noise + 2 * s) * left).sum(axis=1) for e, s in guesses])
    nothing, *totals = sums.sum(axis=1)
    alone = np.array(totals) / (nothing if nothing > 0 else np.nan)
    return Stack(
        tuple(e.name for e in predictions), weights, rows, slope, float(alone[0]), alone[1:],
        beyond, sums,
    )  # fmt: skip


def _standardised(
    observed: ArrayLike,
    variance: ArrayLike,
    predictions: Sequence[Prediction],
    used: NDArray[np.bool_],
    sd: ArrayLike,
) -> tuple[Array, Array, Array, Array]:
    """Return effects, predictions, what they share and variances, in units of sd; 0 if not used."""
    if not predictions:
        message = "predictions is empty: give one or more."
        raise ValueError(message)
    scale = np.asarray(sd, np.float64)
    effects = [np.asarray(e.effects, np.float64) for e in predictions]
    none = np.zeros(used.shape)
    shared = [none if e.shared is None else np.asarray(e.shared, np.float64) for e in predictions]
    tables = {"observed": np.asarray(observed, np.float64)}
    tables["variance"] = np.asarray(variance, np.float64)
    tables |= {f"the effects of {e.name!r}": v for e, v in zip(predictions, effects, strict=True)}
    tables |= {f"what {e.name!r} shares": v for e, v in zip(predictions, shared, strict=True)}
    for name, table in tables.items():
        if table.shape != used.shape:
            message = f"{name} has shape {table.shape}, but scored has {used.shape}."
            raise ValueError(message)
        if not np.isfinite(table[used]).all():
            message = f"{name} must be finite wherever scored is True."
            raise ValueError(message)
    if scale.shape != used.shape[1:] or not (scale[used.any(axis=0)] > 0).all():
        message = f"sd must be above 0 for each of {used.shape[1]} genes that is scored."
        raise ValueError(message)
    by = np.where(scale > 0, scale, 1.0)

    def units(table: Array, power: int) -> Array:
        return np.where(used, table, 0.0) / by**power

    return (
        units(tables["observed"], 1),
        np.array([units(e, 1) for e in effects]),
        np.array([units(s, 2) for s in shared]),
        units(tables["variance"], 2),
    )


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


def _weighted(predictions: Sequence[Prediction], rows: Array) -> Array:
    return np.sum([rows[:, [k]] * e.effects for k, e in enumerate(predictions)], axis=0)
