"""Effects scored on cells that they were not learned from: halves, guides, batches, perturbations.

All tables have one row per perturbation to judge, with NaN if it cannot be judged. Their columns
are the squared error of each estimate, summed over genes; ``COVERAGE``, the fraction of genes whose
90% interval covers the mean; and the numbers of large effects that are covered, and in all
(``COVERED``, ``LARGE``). Large effects are chosen by the cells from which they are learned: 3
standard errors or more there. A calibrated posterior covers 90% of effects chosen by these cells.
If effects were chosen by the cells on which they are scored, some would be large by chance, and few
of their intervals would cover the means, even for a calibrated model.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pandas as pd
from scipy.stats import norm

from nextpert._adata.progress import progress
from nextpert._adata.undeclared_guides import FEWEST_CELLS
from nextpert.core._tasks import run_tasks
from nextpert.core.fit.candidates import shared_with_controls
from nextpert.core.fit.naming import places
from nextpert.core.model import scores
from nextpert.core.model.effects import Effects
from nextpert.core.model.interactions import CombinationPrediction
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictor_weights import learn_predictor_weights
from nextpert.core.model.predictors.base import names_of
from nextpert.core.screen.guides import distinct
from nextpert.study.effects import panel_effects, read_requested
from nextpert.study.pool import can_be_candidate

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from nextpert.core.fit.cells import FitCells
    from nextpert.core.fit.fitted import Expectation, FittedPosterior, PredictorRecord
    from nextpert.core.fit.learn import Model, Spec, Weighted
    from nextpert.core.model.predictors.base import Prediction
    from nextpert.study.effects import Requested
    from nextpert.study.held_out import Halves, Refit

    Array = NDArray[np.float64]


MIN_LARGE_Z = 3.0  # standard errors from which an effect is called large
MIN_CELLS_SCORED = 20  # minimum cells of a guide or batch to score on
_FOLDS = 4  # of guides
_MAX_BATCHES = 5  # largest batches, each left out once: every one costs a fit
SHRUNKEN, MEANS, NOTHING = "shrunken", "raw_means", "no_effect"
COVERAGE, COVERED, LARGE = "coverage", "covered", "large"
GUIDES, BATCHES = "guides", "batches"
# Predictions by all predictors, and by some, with the weights learned without the others.
WHOLE, WITHOUT_GRAPH = "all predictors", "all but the graph"
MEAN_ALONE, GRAPH_ALONE = "mean perturbation alone", "graph alone"
R = "r_all"  # correlation of effects predicted by all predictors with observed effects


class Side(NamedTuple):
    """One half of the cells, to learn from or to score on; tables ``(n_perturbations, n_genes)``.

    Variances are those of observed effects around the effects of the perturbations: sampling error,
    and the variance that the fit expects between guides that are not in the other half.
    """

    cells: FitCells  # as the fit takes them
    means: Perturbations  # means and their sampling error
    variance: Array
    variance_unseen: Array  # around predictions without cells, so with the variance of all guides
    large: NDArray[np.bool_]  # which effects are 3 standard errors or more


def read_sides(refit: Refit, halves: Halves, fit_cells: FitCells) -> list[Side]:
    """Return both halves of the cells; ``fit_cells`` has the variance between guides of the fit.

    The estimates are judged as effects of perturbations, whatever the guide. The mean of half of
    the guides differs from this effect by the deviations of these guides, which an interval for the
    effect does not include. If a perturbation or the controls are split by guide, the variance
    between the scored guides is therefore added to the sampling error: with shares ``w`` of cells
    in each guide, ``tau^2 sum w^2`` times the noise variance. This is the variance that the fit
    itself assumes. If guides are not declared it is 0: the fit then claims that other guides have
    the same means up to sampling, so differences between guides count as its errors. Adding the
    actual variance would hide half of these errors.

    The two halves of a perturbation with one guide share the deviation of that guide. It is then
    taken as 0, also in the half that is learned from, so only sampling is judged.
    """
    spread = fit_cells.guide_variance if halves.declared else 0.0
    sides = []
    for part in halves.parts:
        cells = halves.pool(
            part, by_guide=halves.declared, spread=fit_cells.spread, equal_guides=~halves.by_guides
        )
        means, share = measured(refit.spec, cells), spread * halves.guide_shares(part)
        by_guides = halves.by_guides[halves.scored]
        variance, unseen = (
            means.variance + (of[1:] + of[0])[:, None] * means.within
            for of in (np.where(by_guides, share, 0.0), share)
        )
        large = np.abs(means.observed) >= MIN_LARGE_Z * np.sqrt(variance)
        sides.append(Side(cells, means, variance, unseen, large))
    return sides


def measured(spec: Spec, cells: FitCells) -> Perturbations:
    """Return the means of some cells and their sampling error, by perturbation."""
    targets = places(spec.plan.targets, spec.genes)
    return Perturbations(cells.screen, 0, np.arange(1, len(targets) + 1), targets)


def judge_halves(refit: Refit, sides: list[Side]) -> pd.DataFrame:
    """Judge effects learned from one half of every perturbation's cells on the other half.

    Both halves are used in turn.
    """
    parts = []
    used = (sides[0].means.n > 1) & (sides[1].means.n > 1)
    for training, other in (sides, sides[::-1]):
        effects = refit.effects(training.cells)
        estimates = {SHRUNKEN: effects.mean, MEANS: training.means.observed}
        observed, variance = other.means.observed, other.variance
        parts.append(_score(effects, estimates, observed, variance, used, large=training.large))
    return _mean_of(parts).set_axis(refit.spec.plan.names)


def judge_left_out(refit: Refit, halves: Halves, spread: float) -> dict[str, pd.DataFrame]:
    """Judge effects learned without some guides, or a batch, on these, if they have enough cells.

    First, one guide of each perturbation and half of the control guides are left out, and the
    variance between guides, ``spread``, is added to intervals. Then each of the largest batches is
    left out.
    """
    parts: dict[str, list[pd.DataFrame]] = {GUIDES: [], BATCHES: []}
    n, control = halves.all_cells.n, halves.group == 0
    pairs, pair_of = distinct(halves.group, halves.guide)
    size = np.bincount(pair_of, n, len(pairs))
    enough = [
        np.flatnonzero((pairs[:, 0] == g) & (size >= MIN_CELLS_SCORED))
        for g in range(halves.n_groups)
    ]
    by_perturbation = [guides for guides in enough[1:] if len(guides) > 1]
    n_folds = min(_FOLDS, max(map(len, by_perturbation), default=0))
    for fold in range(n_folds if halves.declared and len(enough[0]) > 1 else 0):
        of_control = enough[0][fold % 2 :: 2]
        left_out_guides = [
            of_control,
            *(guides[[fold % len(guides)]] for guides in by_perturbation),
        ]
        share = size[of_control] / size[of_control].sum()
        extra = spread * (1.0 + float((share**2).sum()))
        left_out = np.isin(pair_of, np.concatenate(left_out_guides))
        parts[GUIDES].append(_left_out(refit, halves, left_out, spread=spread, extra=extra))
    for batch in np.argsort(-np.bincount(halves.batch, n), kind="stable")[:_MAX_BATCHES]:
        left_out = halves.batch == batch
        if min(n[control & left_out].sum(), n[control & ~left_out].sum()) >= MIN_CELLS_SCORED:
            part = _left_out(refit, halves, left_out)
            parts[BATCHES] += [part] * bool(part[COVERAGE].notna().any())
    return {name: _mean_of(tables) for name, tables in parts.items() if tables}


def not_judged(halves: Halves, judged: Collection[str]) -> dict[str, str]:
    """Return why declared guides or batches are not among the parts that were ``judged``."""
    why, control = {}, halves.group == 0
    if halves.declared and GUIDES not in judged:
        of_control = np.bincount(halves.guide[control], halves.all_cells.n[control])
        who = "each perturbation" if (of_control >= MIN_CELLS_SCORED).sum() > 1 else "the controls"
        why[GUIDES] = f"fewer than two guides of {who} have {MIN_CELLS_SCORED} cells"
    if (halves.batch_name != "").any() and BATCHES not in judged:
        why[BATCHES] = "all cells are in one batch"
        if len(set(halves.batch)) > 1:
            why[BATCHES] = (
                f"no batch can be left out: it must contain {MIN_CELLS_SCORED} cells of the "
                f"controls and of a perturbation, and the other batches {MIN_CELLS_SCORED} of the "
                f"controls and 2 of the perturbation"
            )
    return why


def confounded(fit: FittedPosterior, cells: FitCells) -> list[str]:
    """Return the perturbations whose effects cannot be separated from those of their batches."""
    columns = np.abs(cells.pooled.confounded[1:]).max(axis=1, initial=0.0)
    return [name for name, size in zip(fit.names, columns, strict=True) if size > 0]


def judge_guides(halves: Halves, fit: FittedPosterior, spread: float) -> pd.DataFrame:
    """Compare each guide's change of its target gene with that of the perturbation's other guides.

    There is one row per guide with five cells or more, of a perturbation with one target gene in
    the panel, if the other guides change this gene significantly. With the changes ``a`` of the
    guide and ``b`` of the others, the test is whether ``a`` is less than half of ``b``; it includes
    the variance between guides, ``spread``. Both levels of significance are corrected for the
    number of guides.
    """
    clean, _ = halves.all_cells.without_batches(halves.fixed, halves.condition)
    pairs, pair_of = distinct(halves.group, halves.guide)
    screen = clean.pool(pair_of, len(pairs))
    name = pd.Series(halves.guide_name).groupby(pair_of).first().to_numpy()
    control = np.flatnonzero((pairs[:, 0] == 0) & (screen.n > 0))
    n = np.maximum(screen.n.astype(np.float64), 1e-9)
    noise = screen.squares.sum(axis=0) / np.maximum(n - 1.0, 0.0).sum().clip(1.0)

    def of_mean(guides: NDArray[np.int64], within: NDArray[np.int64], gene: int) -> Array:
        """Return the mean of some guides and its variance, with the cells of guides ``within``."""
        share = n[guides] / n[guides].sum()
        cells = screen.squares[within, gene].sum() / max((n[within] - 1.0).sum(), 1.0)
        variance = share**2 @ (cells / n[guides] + spread * noise[gene])
        return np.array([share @ screen.mean[guides, gene], max(variance, 1e-300)])

    rows: list[tuple[Any, ...]] = []
    for j, targets in enumerate(places(fit.targets, fit.genes), start=1):
        members = np.flatnonzero((pairs[:, 0] == j) & (screen.n > 0))
        if len(targets) != 1 or len(members) < 2 or n[members].sum() <= len(members):
            continue
        gene = targets[0]
        start, of_start = of_mean(control, control, gene)
        for e in members[screen.n[members] >= FEWEST_CELLS]:
            a, of_guide = of_mean(np.array([e]), members, gene)
            b, of_others = of_mean(members[members != e], members, gene)
            a, b = a - start, b - start
            z_others = abs(b) / np.sqrt(of_others + of_start)
            # In b / 2 - a, half of the controls' error remains.
            z = np.sign(b) * (b / 2.0 - a) / np.sqrt(of_guide + (of_others + of_start) / 4.0)
            rows.append((fit.names[j - 1], name[e], screen.n[e], a, b, norm.sf(z), z_others))
    names = ["perturbation", "guide", "n_cells", "change", "change_of_others", "p_value", "z"]
    table = pd.DataFrame(rows, columns=names)
    level = scores.SIGNIFICANCE / max(len(table), 1)
    table = table[2.0 * norm.sf(table.pop("z").astype(np.float64)) < level]
    weak = table["p_value"] * len(table) < scores.SIGNIFICANCE
    return table.assign(weak=weak).reset_index(drop=True)


def _left_out(
    refit: Refit,
    halves: Halves,
    is_left_out: NDArray[np.bool_],
    *,
    spread: float | None = None,
    extra: float = 0.0,
) -> pd.DataFrame:
    """Score effects learned without some environments on these.

    ``extra`` is the variance between guides that intervals include, relative to that of noise.
    """
    # In all groups the guides differ.
    moments, none = halves.all_cells, np.zeros(halves.n_groups, bool)
    cells = halves.pool(
        moments, ~is_left_out, by_guide=spread is not None, spread=spread, equal_guides=none
    )
    training, other = (
        measured(refit.spec, cells),
        measured(refit.spec, halves.pool(moments, is_left_out)),
    )
    used = (training.n > 1) & (other.n >= MIN_CELLS_SCORED)
    effects = refit.effects(cells)
    observed, error = cells.pooled.to_controls()
    large = np.abs(observed) >= MIN_LARGE_Z * np.sqrt(training.within * error)
    estimates = {SHRUNKEN: effects.mean, MEANS: observed}
    between = extra * other.within
    return _score(
        effects, estimates, other.observed, other.variance, used, large=large, between=between
    )


def _score(
    effects: Effects,
    estimates: dict[str, Array],
    observed: Array,
    variance: Array,
    used: NDArray[np.bool_],
    *,
    large: NDArray[np.bool_],
    between: Array | float = 0.0,
) -> pd.DataFrame:
    """Return the scores of effects and other estimates on means of other cells.

    All tables are ``(n_perturbations, n_genes)``. Intervals are those of ``effects``; "no effect"
    is added to ``estimates`` (by name). ``variance``, that of the ``observed`` means, is subtracted
    from errors; it is infinite for missing values of a table, which are not scored. ``between`` is
    further variance that intervals include.
    """
    is_scored = np.isfinite(variance) & used[:, None]
    noise = np.where(is_scored, variance, 0.0)
    compared = estimates | {NOTHING: np.zeros_like(observed)}
    table = pd.DataFrame(
        {
            # Squared error on these means minus their variance: unbiased, so it can be below 0.
            name: (np.where(is_scored, estimate - observed, 0.0) ** 2 - noise).sum(axis=1)
            for name, estimate in compared.items()
        }
    )
    inside, large = scores.holds(effects, observed, noise + between) & is_scored, large & is_scored
    table[COVERAGE] = _coverage(inside, is_scored)
    table[~used] = np.nan
    return table.assign(**{COVERED: (inside & large).sum(axis=1), LARGE: large.sum(axis=1)})


def _coverage(inside: NDArray[np.bool_], scored: NDArray[np.bool_]) -> Array:
    """Return the share of the scored genes that are inside, by row; NaN if none is scored."""
    n_scored = scored.sum(axis=1)
    return np.where(n_scored > 0, inside.sum(axis=1) / np.maximum(n_scored, 1), np.nan)


def _mean_of(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the mean over splits of the scores of each perturbation; counts are added."""
    grouped = pd.concat(parts).groupby(level=0)
    return grouped.mean().assign(**{name: grouped[name].sum() for name in (COVERED, LARGE)})


def judge_unseen(
    refit: Refit, halves: Halves, cells: FitCells, sides: list[Side], n_jobs: int = 1
) -> tuple[Effects, pd.DataFrame]:
    """Predict every perturbation without its fold, as users would, and score the predictions.

    ``cells`` are those of the fit. The predictions are those of ``tl.perturbation_effects`` for the
    labels of a fold as candidates, after graph and fit were learned without its cells. Errors on
    genes other than targets are squared and summed in units of a gene's standard deviation,
    sampling error subtracted, with the weights of genes of :func:`learn_predictor_weights`.
    Predictions use none of the cells, so large effects are chosen by one half of the cells and
    scored on the other half, and vice versa.

    Returns
    -------
    effects
        As users get them, ``(n_perturbations, n_genes)``; NaN if nothing is predicted, because a
        target is outside the panel.
    table
        Errors of all predictors, of some, and of "no effect"; ``R``; and coverage.
    """
    means, names = measured(refit.spec, cells), refit.spec.plan.names
    by, used = np.where(means.sd > 0, means.sd, 1.0), means.scored()
    noise = np.where(used, means.variance, 0.0) / by**2
    # Effects have the weights that are used to learn predictor weights: smaller with few cells.
    record, tiny = cast("PredictorRecord", refit.fit.predictors), np.finfo(np.float64).tiny
    counts = np.where(used, 1 / np.maximum(noise + record.residual_variance, tiny), 0.0)
    counts /= max(counts.max(initial=0.0), tiny)
    tables = {name: np.full(counts.shape, np.nan) for name in Effects.__dataclass_fields__}
    columns = [NOTHING, WHOLE, WITHOUT_GRAPH, MEAN_ALONE, GRAPH_ALONE, R]
    table = pd.DataFrame(np.nan, index=names, columns=columns)
    tasks, n_folds = ((k,) for k in range(len(refit.folds))), len(refit.folds)
    models = run_tasks(refit.without_fold, tasks, n_jobs=n_jobs)
    for k, model in progress(n_folds, "Held-out perturbations", iterable=models):
        fit = refit.as_stored(model)
        predictable = [name for name in refit.folds[k] if can_be_candidate(name, fit)]
        if not predictable:
            continue
        with warnings.catch_warnings():  # ignored: a table has no row for labels left out
            warnings.simplefilter("ignore", UserWarning)
            chosen = read_requested(predictable, fit)
        rows = [names.index(name) for name in chosen.pool.names]
        effects = panel_effects(fit, chosen)
        for name, values in vars(effects).items():
            tables[name][rows] = values
        observed = means.observed[rows] / by
        for name, (effect, covariance) in _estimates(model, chosen, fit, effects).items():
            predicted, shared = effect / by, covariance / by**2
            departure = (observed - predicted) ** 2 - noise[rows] + 2 * shared
            table.loc[chosen.pool.names, name] = (departure * counts[rows]).sum(axis=1)
            if name == WHOLE:
                r = scores.correlations(predicted, observed, used[rows], shared)
                table.loc[chosen.pool.names, R] = r
    effects = Effects(**tables)
    used &= table[NOTHING].notna().to_numpy()[:, None]
    share = cells.guide_variance * halves.guide_shares(halves.all_cells)
    variance = means.variance + (share[1:] + share[0])[:, None] * means.within
    inside = scores.holds(effects, means.observed, np.where(used, variance, 0.0)) & used
    table[COVERAGE] = _coverage(inside, used)
    table[[COVERED, LARGE]] = 0
    in_both = used & ((sides[0].means.n > 1) & (sides[1].means.n > 1))[:, None]
    for training, other in (sides, sides[::-1]):
        spread = np.where(in_both, other.variance_unseen, 0.0)
        is_large = in_both & training.large
        table[COVERED] += (scores.holds(effects, other.means.observed, spread) & is_large).sum(
            axis=1
        )
        table[LARGE] += is_large.sum(axis=1)
    return effects, table


def _estimates(
    model: Model, chosen: Requested, fit: FittedPosterior, effects: Effects
) -> dict[str, Array]:
    """Return predictions by all and by some predictors, and their covariance with observed effects.

    The covariance is due to the sampling error of the controls, whose mean is in both. Arrays have
    the shape ``(2, n_perturbations, n_genes)``. ``effects`` are those that users get.
    """
    nothing, single = np.zeros((2, *effects.mean.shape)), predictors(chosen, fit, effects)
    # Of a model of three perturbations or more; the same for all subsets of predictors.
    learned_from = cast("Weighted", model.weighted)
    predictions = learned_from.predictors()

    def weighted(*names: str) -> Array:
        weights = _weights(learned_from, predictions, names).items()
        return np.asarray(sum((w * single[name] for name, w in weights), start=nothing))

    on_graph = names_of(lambda kind: "weights" in kind.draws_on)
    return {
        NOTHING: nothing,
        WHOLE: np.array([effects.mean, weighted(*single)[1]]),
        WITHOUT_GRAPH: weighted(*(single.keys() - {*on_graph})),
        MEAN_ALONE: weighted(*names_of(lambda kind: kind.is_average)),
        GRAPH_ALONE: weighted(*on_graph),
    }


def _weights(
    weighted: Weighted, predictions: Sequence[Prediction], included: Collection[str]
) -> dict[str, float]:
    """Return the weights of some predictors, learned from their predictions without the others."""
    # Members have weight 1, even if there was no combination from which to learn a weight.
    by_members = names_of(lambda kind: "together" in kind.draws_on)
    together = dict.fromkeys([name for name in by_members if name in included], 1.0)
    learned, means = weighted.weights, weighted.measured
    subset = [prediction for prediction in predictions if prediction.name in included]
    if all(prediction.fixed for prediction in subset):  # none has a weight to learn
        return together
    if len(subset) < len(learned.names):
        learned = learn_predictor_weights(
            means.observed, means.variance, subset, means.scored(), sd=means.sd
        )
    return together | dict(zip(learned.names, learned.weights.tolist(), strict=True))


def predictors(candidates: Requested, fit: FittedPosterior, effects: Effects) -> dict[str, Array]:
    """Return the prediction of each predictor for perturbations without cells, before weights.

    Each array, ``(2, n_perturbations, n_genes)``, contains effects, and their covariance with the
    sampling error of the controls' means. The changes of target genes are those expected from the
    efficacy. Combinations are predicted by their members alone (``effects``).
    """
    chosen, names = candidates.pool.interventions, candidates.pool.names
    rows, shared = shared_with_controls(names, fit)
    together = CombinationPrediction(
        np.array(rows, np.int64), effects.mean[rows], effects.sd[rows] ** 2, shared
    )
    expectation = cast("Expectation", fit.expectation)
    predictions = expectation.predictions(
        replace(
            expectation.measured,
            members=np.full(len(names), -1),
            targets=places(chosen.targets, fit.genes),
            change=chosen.shifts,
            names=names,
        ),
        weights=fit.posterior.mean().toarray(),
        together=together,
    )
    nothing = np.zeros_like(effects.mean)
    return {
        prediction.name: np.array(
            [prediction.effects, nothing if prediction.shared is None else prediction.shared]
        )
        for prediction in (one.silenced(together.rows) for one in predictions)
    }
