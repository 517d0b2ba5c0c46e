"""Every perturbation predicted from all others: changes, scores, and ranks in the prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata
from tqdm import tqdm

from nextpert.core.posterior.add_screen import add_screen
from nextpert.core.predict.leave_one_out import leave_one_out
from nextpert.core.predict.predictive_means import predictive_means

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from nextpert._adata.shifts import Interventions
    from nextpert.core import DagBlr, Moments, ScreenMoments
    from nextpert.tl._diagnose.folds import Folds

    Array = NDArray[np.float64]

# A change of this many standard errors is more than noise, also among some hundred genes.
CLEAR = 3.0
# Correlations over fewer genes, or perturbations, say nothing.
_FEWEST = 3


@dataclass(frozen=True)
class HeldOut:
    """What was seen and predicted of every perturbation, shapes ``(n_perturbations, n_genes)``.

    Parameters
    ----------
    is_target
        Whether the perturbation targets the gene.
    observed
        Change of the mean, perturbed minus control, log-normalised expression.
    error
        Its standard error.
    effect
        Predicted effect ``(I - B)^-1 a``, in the same units, cells of the perturbation held out.
    predicted
        Predicted mean ``(I - B)^-1 (c + a)`` minus the control mean.
    mean_change
        Mean change over the other perturbations that do not target the gene.
    empty
        ``predicted`` of a graph without arcs, fitted to the same cells with the same shifts.
    coexpression
        Change by the regression of every gene on the targets over the control cells.
    rank
        Share of the draws of the posterior predictive that lie below the observed mean.
    """

    is_target: NDArray[np.bool_]
    observed: Array
    error: Array
    effect: Array
    predicted: Array
    mean_change: Array
    empty: Array
    coexpression: Array
    rank: Array


def predict_held_out(
    starts: list[list[DagBlr]],
    folds: Folds,
    empty: DagBlr,
    control: Moments,
    used: Interventions,
    genes: list[str],
    *,
    n_samples: int,
    rng: np.random.Generator,
) -> HeldOut:
    """Predict every perturbation from the controls and all other perturbations.

    ``starts`` are posteriors after the control cells, for every one of ``folds`` on the graphs for
    its perturbations; ``empty`` is that of a graph without arcs. Predictions are means over
    graphs, and graphs share the draws.
    """
    perturbed = folds.whole
    place = {gene: i for i, gene in enumerate(genes)}
    is_target = np.zeros((perturbed.n_environments, len(genes)), dtype=bool)
    for row, targets in zip(is_target, used.targets, strict=True):
        row[[place[gene] for gene in targets]] = True
    means = perturbed.mean
    observed = means - control.mean
    effect, predicted, rank = np.empty((3, *observed.shape))
    posteriors = _posteriors(starts, folds, used.shifts)
    bar = tqdm(posteriors, "Held-out perturbations", len(means), leave=False, delay=5)
    for k, many in bar:
        shift = used.shifts[k]
        effect[k] = np.mean([blr.solve(shift[:, None])[:, 0] for blr in many], axis=0)
        predicted[k] = np.mean([blr.predict_mean(shift) for blr in many], axis=0) - control.mean
        below = np.full(len(genes), 0.5)
        for blr, share in zip(many, _shares(n_samples, len(many)), strict=True):
            if share:
                draws = predictive_means(blr, shift, int(perturbed.n[k]), n_samples=share, rng=rng)
                below += (draws < means[k]).sum(axis=0)
        rank[k] = below / (n_samples + 1)
    without_arcs = [
        blr.predict_mean(shift) - control.mean
        for blr, shift in zip(
            leave_one_out(empty, perturbed, used.shifts), used.shifts, strict=True
        )
    ]
    return HeldOut(
        is_target, observed, _standard_errors(control, perturbed), effect, predicted,
        _mean_of_others(observed, is_target), np.array(without_arcs),
        coexpression(control, is_target, used.shifts), rank,
    )  # fmt: skip


def _posteriors(
    starts: list[list[DagBlr]], folds: Folds, shifts: Array
) -> Iterator[tuple[int, tuple[DagBlr, ...]]]:
    """Yield every perturbation of every fold, with the posteriors after all others."""
    for k, (many, fold) in enumerate(zip(starts, folds.members, strict=True)):
        perturbed = folds.unseen(k)
        others = np.setdiff1d(np.arange(perturbed.n_environments), fold)
        posteriors = (add_screen(start, perturbed, shifts, others) for start in many)
        left_out = (leave_one_out(blr, perturbed, shifts, fold) for blr in posteriors)
        yield from zip(fold, zip(*left_out, strict=True), strict=True)


def _shares(n_samples: int, n_graphs: int) -> list[int]:
    """Return how many of the draws each graph has."""
    return [
        (n_samples * (k + 1)) // n_graphs - (n_samples * k) // n_graphs for k in range(n_graphs)
    ]


def _standard_errors(control: Moments, perturbed: ScreenMoments) -> Array:
    """Return the standard error of every change; that of a single cell uses the controls."""
    n = perturbed.n[:, None]
    own = np.where(n > 1, perturbed.variance, control.variance)
    return np.sqrt(own / n + control.variance / control.n)


def _mean_of_others(observed: Array, is_target: NDArray[np.bool_]) -> Array:
    """Return the mean change over the other rows in which the gene is no target; else 0."""
    counted = np.where(is_target, 0.0, observed)
    total = counted.sum(axis=0) - counted
    n = (~is_target).sum(axis=0) - ~is_target
    return np.divide(total, n, out=np.zeros_like(total), where=n > 0)


def coexpression(control: Moments, is_target: NDArray[np.bool_], shifts: Array) -> Array:
    """Return the change that coexpression says: every gene regressed on the targets in controls.

    The slopes, of all targets of a perturbation together, times the shifts of the targets.
    """
    change = np.zeros_like(shifts)
    for row, targets, shift in zip(change, is_target, shifts, strict=True):
        own = np.flatnonzero(targets)
        if len(own):
            slopes = np.linalg.lstsq(control.scatter[np.ix_(own, own)], control.scatter[own])[0]
            row[:] = shift[own] @ slopes
    return change


def own_strength(held_out: HeldOut) -> tuple[NDArray[np.int64], Array, Array]:
    """Return of each perturbation its weakest target, that one's change, and its z-score.

    -1 and NaN for a perturbation without any target.
    """
    z = held_out.observed / held_out.error
    weakest = np.where(held_out.is_target, np.abs(z), np.inf).argmin(axis=1)
    rows, has = np.arange(len(z)), held_out.is_target.any(axis=1)
    change = np.where(has, held_out.observed[rows, weakest], np.nan)
    return np.where(has, weakest, -1), change, np.where(has, z[rows, weakest], np.nan)


def correlation(one: Array, two: Array) -> float:
    """Return Pearson's correlation; NaN where one side is constant or values are few."""
    if len(one) < _FEWEST or np.ptp(one) == 0 or np.ptp(two) == 0:
        return float("nan")
    return float(np.corrcoef(one, two)[0, 1])


def sign_accuracy(effect: Array, observed: Array, error: Array) -> tuple[float, int]:
    """Return the share of clear changes whose sign was predicted, and how many are clear.

    A predicted effect of exactly nothing counts as half, as a coin would.
    """
    clear = np.abs(observed) >= CLEAR * error
    if not clear.any():
        return float("nan"), 0
    right = np.sign(effect[clear]) * np.sign(observed[clear])
    return float((0.5 + 0.5 * right).mean()), int(clear.sum())


def distance_ranks(predicted: Array, observed: Array) -> Array:
    """Return, with each perturbation's mean as the target, how well the others are ranked.

    Spearman's correlation, over the others, of their predicted and their true squared distance
    to it: what a design towards it goes by.
    """
    found = np.empty(len(observed))
    for k, target in enumerate(observed):
        others = np.arange(len(observed)) != k
        seen, guessed = (
            ((means[others] - target) ** 2).sum(axis=1) for means in (observed, predicted)
        )
        found[k] = correlation(rankdata(guessed), rankdata(seen))
    return found


def gain(baseline: Array, predicted: Array, observed: Array) -> tuple[float, float]:
    """Return by how much less the mean squared error is than the baseline's, with its error.

    The standard error is over genes, of the paired difference.
    """
    difference = (baseline - observed) ** 2 - (predicted - observed) ** 2
    n = len(difference)
    error = float(difference.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return float(difference.mean()) if n else float("nan"), error
