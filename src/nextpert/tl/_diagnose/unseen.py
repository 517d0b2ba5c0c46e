"""Predictions of perturbations without cells, scored on cells that no part of them has seen."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata.progress import progress
from nextpert.core.fit.candidates import shared_with_controls
from nextpert.core.fit.learn import Model
from nextpert.core.fit.naming import places
from nextpert.core.model import scores
from nextpert.core.model.effects import Effects
from nextpert.core.model.interactions import Together
from nextpert.core.model.predictor_weights import learn_predictor_weights
from nextpert.core.model.predictors.base import Prediction
from nextpert.core.model.predictors.graph import Graph
from nextpert.core.model.predictors.mean_perturbation import MeanPerturbation
from nextpert.core.model.predictors.members import Members
from nextpert.tl._design_interventions.candidates import can_be_candidate
from nextpert.tl._diagnose.judged import (
    COVERAGE,
    COVERED,
    LARGE,
    NOTHING,
    measured,
)
from nextpert.tl._perturbation_effects import panel_effects, read_wanted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from nextpert.core.fit.cells import FitCells
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.tl._diagnose.halves import Halves
    from nextpert.tl._diagnose.judged import Side
    from nextpert.tl._diagnose.model import Refit
    from nextpert.tl._perturbation_effects import Wanted

    Array = NDArray[np.float64]

WHOLE, WITHOUT_GRAPH, MEAN_ALONE = "all together", "all but the graph", "mean perturbation only"
# Columns of a predictor: its error by the weight that it gets alone, and its correlation.
ALONE, R_OF = ", alone", "r of "
_TOTALS = (NOTHING, WHOLE, WITHOUT_GRAPH, MEAN_ALONE)


class Unseen(NamedTuple):
    """Predictions of perturbations without cells, and their errors on other genes.

    NaN stands for perturbations of which nothing is predicted, as a target is outside the panel.
    The table has one row per perturbation. Errors are squared, summed over genes in units of their
    standard deviation, weighted as in :func:`learn_predictor_weights`, sampling error taken out: of
    "no effect" (``NOTHING``), of what is predicted (``WHOLE``), where the graph is no predictor,
    where the mean perturbation is the only one, and of each predictor by the weight that it gets
    alone (``ALONE``). Correlations with observed effects (``R_OF``) are NaN also where all that is
    predicted is 0. ``COVERAGE``, ``COVERED`` and ``LARGE`` are those of ``judged`` on the
    other genes; predictions have seen none of the cells, so large effects are chosen by one half of
    the cells and scored on the other, both ways.
    """

    weights: Mapping[str, float]  # of every predictor in the fit, by name
    graph_spread: float  # standard deviation of the weight of the graph without each fold
    effects: Effects  # as users get them; tables of shape (n_perturbations, n_genes)
    table: pd.DataFrame


def judge_unseen(refit: Refit, halves: Halves, cells: FitCells, sides: list[Side]) -> Unseen:
    """Predict every perturbation without its fold, as users would, and score the predictions.

    ``cells`` are those of the fit. What is scored is what ``tl.perturbation_effects`` returns of
    the labels of a fold as candidates, after graph and fit without any cell of it.
    """
    seen = measured(refit, cells)
    # Weights of the fit by name, and the variance that all predictors leave; those of learned
    # shifts where the fit took shifts as exact.
    weights: Mapping[str, float] = {Graph.name: 1.0}
    beyond, known = 0.0, refit.fit.expectation
    if known is not None and refit.fit.predictors is not None:
        weights, beyond = known.weights, refit.fit.predictors.residual_variance
    elif (whole := refit.learned(cells).weighted) is not None:
        weights = dict(zip(whole.weights.names, whole.weights.weights.tolist(), strict=True))
        beyond = whole.weights.residual_variance
    shape, place = seen.observed.shape, {name: j for j, name in enumerate(refit.names)}
    by = np.where(seen.sd > 0, seen.sd, 1.0)
    used = seen.scored()
    noise = np.where(used, seen.variance, 0.0) / by**2
    # Effects are weighted as when predictor weights are learned: less if there are few cells.
    counts = np.where(used, 1 / np.maximum(noise + beyond, np.finfo(np.float64).tiny), 0.0)
    counts /= max(counts.max(initial=0.0), np.finfo(np.float64).tiny)
    tables = {name: np.full(shape, np.nan) for name in Effects.__dataclass_fields__}
    columns = [
        *_TOTALS,
        *(f"{name}{ALONE}" for name in weights),
        *(f"{R_OF}{x}" for x in (WHOLE, *weights)),
    ]
    table = pd.DataFrame(np.nan, index=range(shape[0]), columns=columns)
    of_graph = []
    folds = progress(len(refit.folds), "Held-out perturbations", iterable=refit.folds)
    for k, fold in enumerate(folds):
        model = Model.fit(*refit.without_fold(k))
        fit = refit.as_stored(model)
        of_graph.append(_weights(model, weights).get(Graph.name, 0.0))
        asked = [name for name in fold if can_be_candidate(name, fit)]
        if not asked:
            continue
        with warnings.catch_warnings():  # that a table has no row for what was left out
            warnings.simplefilter("ignore", UserWarning)
            chosen = read_wanted(asked, fit)
        rows = [place[name] for name in chosen.names]
        effects = panel_effects(fit, chosen)
        for name, each in vars(effects).items():
            tables[name][rows] = each
        # Effects and, after them, their covariance with the sampling error of the observed ones
        # (that of the controls is in both): before weights, and by the weights that some
        # predictors get without the others.
        nothing = np.zeros((2, *effects.mean.shape))
        single = dict.fromkeys(weights, nothing) | predictors(chosen, fit, effects)
        some = {
            WHOLE: [*single], WITHOUT_GRAPH: [name for name in single if name != Graph.name],
            MEAN_ALONE: [MeanPerturbation.name], **{f"{name}{ALONE}": [name] for name in weights},
        }  # fmt: skip
        estimates = single | {NOTHING: nothing}
        for name, kept in some.items():
            by_weight = _weights(model, kept).items()
            estimates[name] = sum((w * single[each] for each, w in by_weight), start=nothing)
        estimates[WHOLE] = np.array([effects.mean, estimates[WHOLE][1]])
        observed = seen.observed[rows] / by
        for name, (effect, covariance) in estimates.items():
            predicted, shared = effect / by, covariance / by**2
            if name in table:
                departure = (observed - predicted) ** 2 - noise[rows] + 2 * shared
                table.loc[rows, name] = (departure * counts[rows]).sum(axis=1)
            if (of_name := f"{R_OF}{name}") in table:
                r = scores.correlations(predicted, observed, used[rows], shared)
                table.loc[rows, of_name] = r
    used &= table[NOTHING].notna().to_numpy()[:, None]
    effects = Effects(**tables)
    share = cells.guide_variance * halves.guide_shares(halves.whole)
    variance = seen.variance + (share[1:] + share[0])[:, None] * seen.within
    inside = scores.holds(effects, seen.observed, np.where(used, variance, 0.0)) & used
    n_used = used.sum(axis=1)
    table[COVERAGE] = np.where(n_used > 0, inside.sum(axis=1) / np.maximum(n_used, 1), np.nan)
    table[[COVERED, LARGE]] = 0
    both = used & ((sides[0].seen.n > 1) & (sides[1].seen.n > 1))[:, None]
    for mine, other in (sides, sides[::-1]):
        spread = np.where(both, other.variance_unseen, 0.0)
        which = both & mine.large
        table[COVERED] += (scores.holds(effects, other.seen.observed, spread) & which).sum(axis=1)
        table[LARGE] += which.sum(axis=1)
    return Unseen(weights, float(np.std(of_graph)), effects, table)


def _weights(model: Model, kept: Collection[str]) -> dict[str, float]:
    """Return the weights of some predictors, learned where the others are none.

    Of fewer than three perturbations nothing is learned: the graph is believed.
    """
    # Members are believed as they are, also where no combination was there to learn from.
    together = {Members.name: 1.0} if Members.name in kept else {}
    if model.weighted is None:
        return together | ({Graph.name: 1.0} if Graph.name in kept else {})
    learned, seen = model.weighted.weights, model.weighted.seen
    some = [each for each in model.weighted.predictors() if each.name in kept]
    if all(each.fixed for each in some):  # none has a weight to learn
        return together
    if len(some) < len(learned.names):
        learned = learn_predictor_weights(
            seen.observed, seen.variance, some, seen.scored(), sd=seen.sd
        )
    return together | dict(zip(learned.names, learned.weights.tolist(), strict=True))


def predictors(candidates: Wanted, fit: FittedPosterior, effects: Effects) -> dict[str, Array]:
    """Return what each predictor of a fit says of perturbations without cells, before weights.

    Effects, and their covariance with the sampling error of the controls' means, each of shape
    ``(2, n_perturbations, n_genes)``.

    The changes of target genes that they start from are those expected by the efficacy. Of
    combinations none speaks but their members, whose word is what is predicted (``effects``).
    """
    chosen, names = candidates.pool.interventions, candidates.names
    targets = places(chosen.targets, fit.genes)
    nothing = np.zeros_like(effects.mean)
    rows, shared = shared_with_controls(names, fit)
    together = Together(np.array(rows, np.int64), effects.mean[rows], effects.sd[rows] ** 2, shared)
    if fit.expectation is not None:
        every = fit.expectation.predictions(
            names, targets, chosen.shifts, weights=fit.posterior.mean().toarray(), together=together
        )
    else:  # too few perturbations to learn weights from: shifts on the graph, and members
        own = np.zeros(chosen.shifts.shape, bool)
        for row, some in zip(own, targets, strict=True):
            row[some] = True
        follows = fit.posterior.solve(np.ascontiguousarray(chosen.shifts.T)).T
        members = nothing.copy()
        members[rows] = together.mean
        every = [
            Prediction(name, np.where(own, 0.0, table))
            for name, table in ((Graph.name, follows), (Members.name, members))
        ]
    every = [Members(together).silenced(each) for each in every]
    return {p.name: np.array([p.effects, nothing if p.shared is None else p.shared]) for p in every}
