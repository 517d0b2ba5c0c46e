"""The model of a screen: all quantities that a fit learns from cells and graphs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert.core._checks import named
from nextpert.core.causal.weights import centred_on, fit_weights
from nextpert.core.fit.interventions import own_shift, shift_environments
from nextpert.core.fit.naming import numbered, places
from nextpert.core.model.conditions import as_condition, fit_each, of_table
from nextpert.core.model.effects import Efficacy, screen_efficacy, speaks_of_knockouts
from nextpert.core.model.hierarchical import Hierarchical, controls_alone, fit_hierarchical
from nextpert.core.model.interactions import Additivity, CombinationPrediction, learn_interactions
from nextpert.core.model.perturbations import ENOUGH_EFFECTS, Perturbations
from nextpert.core.model.predictor_weights import (
    LeftOut,
    PredictorWeights,
    learn_predictor_weights,
    learn_scales,
)
from nextpert.core.model.predictors.base import (
    Prediction,
    Predictor,
    Sources,
    build_predictors,
    names_of,
    predictors,
)
from nextpert.core.model.sampler import Chain, Prior, threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert.core.causal.dag_blr import DagBlr
    from nextpert.core.fit.cells import FitCells
    from nextpert.core.fit.interventions import Interventions, Plan
    from nextpert.core.fit.naming import Naming
    from nextpert.core.graph.dag import Dag
    from nextpert.core.model.predictors.base import SideInformation

    Array = NDArray[np.float64]
    Progress = Callable[[int, int], object]  # called with steps done, and all steps
    # Perturbations of a fold, and graph weights learned without their cells.
    FoldWeights = tuple[NDArray[np.int64], Array]

# Minimum weight of another screen as a predictor with which its effects are also used for
# perturbations that have cells. With permuted labels the weight is near 0; if half of the
# perturbations have similar effects, it is 0.45.
_MIN_WEIGHT_OF_SCREEN = 0.25


@dataclass(frozen=True)
class Spec:
    """The part of a screen that is modelled, and the information that precedes its cells.

    ``posterior`` returns the distribution on a graph before any cells, ``naming`` gives the members
    of labels, ``features`` is side information, and ``exact`` states whether shifts are assumed
    exact, as in the paper. If ``centred``, all regressions pass through the mean of the controls.
    """

    genes: list[str]
    plan: Plan
    posterior: Callable[[Dag], DagBlr]
    naming: Naming
    features: SideInformation | None = None
    exact: bool = False
    centred: bool = False

    def rows(self, index: Sequence[int]) -> Spec:
        """Return the specification for some of the perturbations, in the given order."""
        plan = self.plan
        names, targets = [plan.names[j] for j in index], [plan.targets[j] for j in index]
        return replace(self, plan=replace(plan, names=names, targets=targets))


@dataclass(frozen=True)
class Graphs:
    """The graphs of a model: that of all cells, and those of resamples, if any.

    ``without`` returns, for every fold of labels, a graph learned without the cells of the fold.
    """

    dag: Dag
    resampled: Sequence[Dag]
    without: Callable[[Sequence[Sequence[str]]], Sequence[Dag]]

    @classmethod
    def single(cls, dag: Dag) -> Graphs:
        """Return one known graph, which does not depend on cells."""
        return cls(dag, [], lambda folds: [dag] * len(folds))


@dataclass(frozen=True)
class Expected:
    """Expected shifts of perturbations, and their variance for target genes.

    ``own_variance`` is the variance of the shift of target genes, in squared units of the data, NaN
    if unknown, ``(n_perturbations, n_genes)``; ``efficacy`` is ``None`` for exact shifts or a
    table.
    """

    used: Interventions
    own_variance: Array
    efficacy: Efficacy | None


def expect_shifts(spec: Spec, cells: FitCells) -> Expected:
    """Return expected shifts, from the efficacy observed at the screen's target genes (10).

    Exact shifts, and those of a table, are unchanged.
    """
    plan = spec.plan
    control = cells.control
    used = shift_environments(plan, spec.genes, control)
    own_variance = np.broadcast_to(np.nan, used.shifts.shape)  # takes no memory
    if spec.exact or not isinstance(plan.shift, str):
        return Expected(used, own_variance, None)
    pairs = [
        (j, i) for j, positions in enumerate(places(plan.targets, spec.genes)) for i in positions
    ]
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    size = np.abs(own_shift(plan.shift, control.mean))[columns]
    direction = 1
    says = np.ones(len(columns), bool)
    if plan.shift == "knockout":
        says = speaks_of_knockouts(control.mean, np.sqrt(control.variance))[columns]
        direction = -1
    efficacy = screen_efficacy(cells.pooled, rows, columns, size, says, direction=direction)
    # The shift of gene i by its perturbation is rho_j times its full size, rho_j ~ N(mean, sd^2).
    used = replace(used, shifts=np.zeros(used.shifts.shape))
    if len(rows):
        used.shifts[rows, columns] = direction * efficacy.mean * size
        own_variance = np.full(used.shifts.shape, np.nan)
        own_variance[rows[says], columns[says]] = (efficacy.sd * size[says]) ** 2
    return Expected(used, own_variance, efficacy)


# Maximum number of single perturbations that are fitted, unless more are members.
_MAX_SINGLES = 300


def expect_combinations(
    members: Sequence[tuple[str, ...]],
    cells: FitCells,
    expected: Expected,
    perturbations: Perturbations,
) -> tuple[Additivity, CombinationPrediction]:
    """Return the additivity of effects, and the predicted effect of each combination (12).

    Each combination is predicted from its members and the other combinations; labels with the same
    members count as one. Effects of members alone are estimated first, from their own cells and
    with the prior of all single perturbations (equation 13), or from combinations if a member has
    no cells of its own. ``members`` holds the members of every label.
    """
    # First row of every set of members.
    first = {combination: j for j, combination in reversed(list(enumerate(members)))}
    rows = np.array([j for j, combination in enumerate(members) if len(combination) > 1], np.int64)
    labels, combined = numbered(members[j] for j in rows.tolist())
    has, unit = perturbations.n[rows] > 0, perturbations.unit
    alone, spread, common = np.full((3, len(labels), len(unit)), np.nan)
    # Other single perturbations are fitted with the members: from few effects, the prior is not
    # learned, and strong effects are shrunk too much.
    at = {label: k for k, label in enumerate(labels)}
    row = {
        combination[0]: j
        for combination, j in first.items()
        if len(combination) == 1 and cells.pooled.n[1 + j] > 0
    }
    needed, other_labels = sorted(row.keys() & at.keys()), sorted(row.keys() - at.keys())
    if needed:
        single = np.array(
            [row[x] for x in [*needed, *other_labels][: max(len(needed), _MAX_SINGLES)]]
        )
        pooled_cells = cells.pooled.rows(np.append(0, 1 + single))
        prior = Prior(expected.used.shifts[single], own_variance=expected.own_variance[single])
        effects = fit_hierarchical(pooled_cells, prior, rng=0).effects
        positions, needed_rows = [at[label] for label in needed], slice(len(needed))
        alone[positions], spread[positions] = (
            effects.posterior_mean(needed_rows),
            effects.sd()[needed_rows] ** 2,
        )
        # The share of an effect that follows the cells' mean, and thus the controls' error.
        counted = pooled_cells.counted[1:][needed_rows]
        common[positions] = np.minimum(counted * spread[positions] / effects.unit**2, 1.0)
    measured = [combined[k] for k in np.flatnonzero(has)]
    observed, noise = perturbations.observed[rows[has]], perturbations.variance[rows[has]]
    interactions = learn_interactions(alone, spread, measured, observed, noise, unit=unit)
    means = np.zeros((2, len(rows), len(unit)))
    # Each measured combination is predicted without its own cells.
    means[:, has] = interactions.left_out()
    means[:, ~has] = interactions.predict([combined[k] for k in np.flatnonzero(~has)])
    learned = interactions.learned
    shared = learned.strength * np.array([np.nansum(common[list(c)], axis=0) for c in combined])
    residual_variance = (learned.rest_sd * learned.scale) ** 2
    return learned, CombinationPrediction(rows, means[0], means[1], shared, residual_variance)


MIN_PERTURBATIONS = 3  # perturbations needed to learn weights
_FOLDS = 5  # folds of perturbations, each left out of one graph


@dataclass(frozen=True)
class Weighted:
    """Predictors with their weights, and departures of observed effects from predictions.

    ``interactions`` is the additivity of effects, and ``together`` the predictions of combinations
    from their members. All are learned from the perturbations ``measured``; ``predictors()``
    returns each predictor's predictions for ``measured`` without their cells, and ``left_out``
    holds the departures of observed effects from predictions made as for candidates.
    """

    weights: PredictorWeights
    interactions: Additivity | None
    measured: Perturbations
    predictors: Callable[[], list[Prediction]]
    together: CombinationPrediction | None = None
    left_out: LeftOut | None = None


def folds_of(names: Sequence[str]) -> list[list[str]]:
    """Return folds of labels; the cells of a fold are left out of the same graph."""
    if len(names) < MIN_PERTURBATIONS:
        return []
    return [list(names[k::_FOLDS]) for k in range(min(_FOLDS, len(names)))]


def weights_without(spec: Spec, cells: FitCells, graphs: Graphs) -> list[FoldWeights]:
    """Return folds of perturbations, and for each the weights of a graph learned without it.

    The weights are learned from the scatter within all perturbations, which contains no effects.
    """
    none = np.zeros((len(spec.genes), len(spec.genes)))
    names = spec.plan.names
    row = {name: j for j, name in enumerate(names)}
    folds = folds_of(names)
    # Several folds often have the same graph.
    learned: dict[int, Array] = {}
    out = []
    for fold, dag in zip(folds, graphs.without(folds), strict=True):
        if dag.n_edges and id(dag) not in learned:
            learned[id(dag)] = fit_weights(spec.posterior(dag), cells.pooled).mean().toarray()
        out.append((np.array([row[name] for name in fold], np.int64), learned.get(id(dag), none)))
    return out


def weigh_predictors(
    spec: Spec, cells: FitCells, expected: Expected, by_graph: Sequence[FoldWeights]
) -> Weighted | None:
    """Return the weights of all predictors (11); ``None`` if there are too few perturbations.

    With fewer than three perturbations no weights can be learned, and the graph is the only
    predictor. ``by_graph`` comes from :func:`weights_without`.
    """
    names = expected.used.names
    if len(names) < MIN_PERTURBATIONS:
        return None
    targets = places(expected.used.targets, spec.genes)
    environments = np.arange(1, len(targets) + 1)
    measured = Perturbations(
        cells.screen, 0, environments, targets, batches=cells.pooled.fixed_errors, names=names
    )
    additivity = together = None
    members = [spec.naming.members(name) for name in names]
    if any(len(combination) > 1 for combination in members):
        additivity, together = expect_combinations(members, cells, expected, measured)
    built = build_predictors(
        Sources(held_out_weights=by_graph, features=spec.features, together=together)
    )
    once: dict[Predictor, Prediction] = {}

    def held_out(change: Array | None) -> list[Prediction]:
        """Return predictions, given the change of target genes (``None``: as observed)."""
        for predictor in built:
            if predictor not in once or (predictor.by_change and any(targets)):
                once[predictor] = predictor.held_out(replace(measured, change=change))
        out = [once[predictor] for predictor in built]
        return out if together is None else [one.silenced(together.rows) for one in out]

    weights = learn_predictor_weights(
        measured.observed, measured.variance, held_out(None), measured.scored(), sd=measured.sd
    )
    # Without cells, the change of the target gene is also unknown: its expectation is used.
    target_changes = expected.used.shifts
    predictions = held_out(target_changes)
    # Departures from predictions; those of combinations have a separate model.
    left_out = None
    scored = measured.scored()
    if together is not None:
        scored[together.rows] = False
    rows = LeftOut.rows(scored)
    free = any(w for w, e in zip(weights.weights, predictions, strict=True) if not e.fixed)
    if free and len(rows):
        described = alone = weights.expected(predictions)
        feature_rows: Mapping[str, int] = {}
        if spec.features is not None:
            feature_rows = spec.features.place
            unnamed = replace(measured, names=[""] * len(names))  # without side information
            alone = weights.expected(
                [
                    predictor.predict(unnamed, unnamed)
                    if {"features", "other_screen"} & set(predictor.draws_on)
                    else prediction
                    for predictor, prediction in zip(built, predictions, strict=True)
                ]
            )
        observed = measured.observed[rows] - target_changes[rows]
        left_out = LeftOut(
            observed - described[rows],
            observed - alone[rows],
            measured.variance[rows],
            scored[rows],
            np.array([names[j] in feature_rows for j in rows]),
        )
    # Large predictions are not kept, because the draws of effects need the memory.
    if len(names) * len(spec.genes) > ENOUGH_EFFECTS:
        once.clear()
    return Weighted(weights, additivity, measured, partial(held_out, None), together, left_out)


def learn_effects(
    spec: Spec,
    cells: FitCells,
    expected: Expected,
    weighted: Weighted | None,
    posteriors: Sequence[DagBlr],
    progress: Progress | None = None,
    n_jobs: int | None = None,
) -> Hierarchical:
    """Return the hierarchical model of the perturbations with cells (equations 13 to 19).

    The prior mean is the change of target genes, plus its downstream effects on the graph (or the
    bootstrap graphs, ``posteriors``), weighted by how well the graph predicts the other
    perturbations; for combinations it is the part of the members' prediction that is certain. Other
    predictors would add noise: with them, the error at 25 cells per perturbation rose from 0.170 to
    0.189 times that of the cells' means on Papalexi, and from 0.237 to 0.265 times on TAP-seq. Each
    of several conditions has a separate fit that uses the others (24). Effects in another screen
    are used in the same way, if they predict left-out perturbations and this screen has no
    conditions.
    """
    names = spec.plan.names
    # The order, and thus the draws, must not depend on the spelling of labels.
    measured = np.array(
        sorted(np.flatnonzero(cells.pooled.n[1:] > 0), key=lambda j: spec.naming.key(names[j]))
    )
    if not len(measured):
        return controls_alone(cells.pooled)
    # E_j of (13): its own change, and downstream effects on the graph or effects of its members.
    effect = expected.used.shifts
    own_variance = expected.own_variance
    prior_mean_variance = None
    if weighted is not None:
        if any(blr.dag.n_edges for blr in posteriors):
            learned = weighted.weights
            own_change = replace(weighted.measured, change=effect)
            for kind in predictors():
                if kind.predicts_measured and kind.name in learned.names:
                    weight = learned.left_out[:, [learned.names.index(kind.name)]]
                    of_graphs = kind.over_graphs(posteriors, weighted.measured, own_change)
                    effect = effect + weight * of_graphs
        together = weighted.together
        if together is not None:
            effect, own_variance = effect.copy(), own_variance.copy()
            effect[together.rows], own_variance[together.rows] = together.clear(), np.nan
            prior_mean_variance = np.zeros(effect.shape)
            prior_mean_variance[together.rows] = together.clear_variance()
            prior_mean_variance = prior_mean_variance[measured]
    own_cells = cells.pooled
    by_condition = cells.conditions
    if not np.array_equal(measured, np.arange(len(names))):  # avoids a copy of a large screen
        effect, own_variance = effect[measured], own_variance[measured]
        own_cells = own_cells.rows(np.append(0, measured + 1))
    prior = Prior(effect, prior_mean_variance, own_variance)
    # A fixed seed, so that results do not depend on earlier calls.
    options: dict[str, Any] = {
        "rng": 0,
        "progress": progress,
        "n_jobs": n_jobs or threads(len(measured) * len(spec.genes)),
    }
    elsewhere = None
    if by_condition is None and spec.features is not None and weighted is not None:
        weights = dict(zip(weighted.weights.names, weighted.weights.weights, strict=True))
        by_effects = names_of(lambda kind: "other_screen" in kind.draws_on)
        if sum(weights.get(name, 0.0) for name in by_effects) >= _MIN_WEIGHT_OF_SCREEN:
            elsewhere = spec.features.measured([names[j] for j in measured])
    if elsewhere is not None:
        model = fit_each([own_cells, of_table(own_cells, *elsewhere)], prior, [0], **options)[0]
    elif by_condition is None:
        model = fit_hierarchical(own_cells, prior, **options)
    else:
        parts = [part.rows(np.append(0, measured + 1)) for part in by_condition.parts]
        options["chain"] = Chain.of_size((1 + len(parts)) * effect.size)  # the same for all fits
        model = fit_hierarchical(own_cells, prior, **options)
        by_name = zip(fit_each(parts, prior, **options), parts, by_condition.names, strict=True)
        control = own_cells.mean[0]
        model = replace(model, conditions=[as_condition(*one, control) for one in by_name])
    back = np.argsort(measured)
    return model if np.array_equal(back, np.arange(len(back))) else model.rows(back)


class Model(NamedTuple):
    """The quantities that a fit learned from the cells, for a specification.

    ``posterior`` is over the weights of the graph of all cells, ``resampled`` over those of the
    bootstrap graphs. For exact shifts there are neither weights of predictors (``weighted``) nor
    the hierarchical model of ``effects``; with too few perturbations there are no weights.
    ``scales`` are factors on the variances of departures of perturbations without cells, ``None``
    for 1 or if they are not needed.
    """

    spec: Spec
    cells: FitCells
    expected: Expected
    posterior: DagBlr
    resampled: list[DagBlr]
    weighted: Weighted | None
    effects: Hierarchical | None
    scales: Array | None = None

    @classmethod
    def fit(
        cls,
        spec: Spec,
        cells: FitCells,
        graphs: Graphs,
        progress: Progress | None = None,
        n_jobs: int | None = None,
        *,
        has_unseen: bool = True,
    ) -> Model:
        """Fit the model to the cells of the controls and of ``spec.plan``, in that order.

        ``n_jobs`` is the number of threads, which by default depends on the size of the screen.
        ``has_unseen`` states whether perturbations without cells will be predicted; if not,
        ``scales`` are not learned.

        Raises
        ------
        ValueError
            If genes are linearly dependent; the error names them.
        """
        if spec.exact:  # as in the paper, all perturbations have the same variances
            equal_ratio = np.ones_like(cells.pooled.variance_ratio)
            cells = replace(cells, pooled=replace(cells.pooled, variance_ratio=equal_ratio))
        # Expected shifts, from the efficacy of the screen (equation 10).
        expected = expect_shifts(spec, cells)
        exact_shifts = expected.used.shifts if spec.exact else None
        weighted = effects = scales = None
        try:
            # Weights of each graph: M and m of equations 2 and 3, with free shifts or known ones.
            posterior, *resampled = (
                fit_weights(spec.posterior(dag), cells.pooled, exact_shifts)
                for dag in (graphs.dag, *graphs.resampled)
            )
            if spec.centred:
                mean = cells.control.mean
                posterior, *resampled = (centred_on(x, mean) for x in (posterior, *resampled))
            if not spec.exact:
                # Weights of predictors, from left-out perturbations (equations 11 and 12).
                without = weights_without(spec, cells, graphs)
                weighted = weigh_predictors(spec, cells, expected, without)
                # Joint draws of the effects (equations 13 to 19, and 24 by condition).
                on = resampled or [posterior]
                effects = learn_effects(spec, cells, expected, weighted, on, progress, n_jobs)
                # Departures of perturbations without cells from predictions (equation 21).
                if has_unseen and weighted is not None and weighted.left_out is not None:
                    scales = learn_scales(effects, weighted.left_out)
        except ValueError as error:
            raise named(error, np.array(spec.genes), np.arange(len(spec.genes))) from error
        return cls(spec, cells, expected, posterior, resampled, weighted, effects, scales)
