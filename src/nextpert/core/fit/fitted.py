"""A fit: the quantities learned from a screen, their storage, and the effects they imply."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core._blas import in_blocks
from nextpert.core._checks import list_names
from nextpert.core._codec import (
    array,
    coded,
    lists,
    nested,
    series,
    sparse,
    table,
    table_type,
    texts,
)
from nextpert.core.causal.dag_blr import DagBlr
from nextpert.core.fit.naming import Naming, places
from nextpert.core.model.effects import Efficacy
from nextpert.core.model.hierarchical import Hierarchical
from nextpert.core.model.interactions import Additivity
from nextpert.core.model.perturbations import CellMeans, Perturbations
from nextpert.core.model.predictor_weights import WithoutCells
from nextpert.core.model.predictors.base import (
    SideInformation,
    Sources,
    build_predictors,
    predictors,
)
from nextpert.core.screen.departures import GuideSpread
from nextpert.core.screen.screen import ScreenMoments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert.core.model.effect_draws import EffectDraws
    from nextpert.core.model.interactions import CombinationPrediction
    from nextpert.core.model.predictors.base import Prediction

    Array = NDArray[np.float64]


def _posterior() -> Any:
    return coded(DagBlr.to_dict, DagBlr.from_dict)


@dataclass(frozen=True)
class PredictorRecord:
    """Weights of the predictors of perturbations without cells.

    Parameters
    ----------
    predictors
        Names of the predictors.
    weights
        Weight of each predictor, at least 0, learned from left-out perturbations.
    error_alone
        Squared error of each predictor alone, relative to that of "no effect".
    error
        Squared error of all predictors together, relative to that of "no effect".
    residual_variance
        Mean squared effect that the predictors do not explain, in units of a gene's variance.
    interactions
        Additivity of the effects of combinations, and its variances.
    scales
        Factors on the variances of effects of perturbations without cells; rows: without and with
        features; columns: shared and own parts of effects.
    """

    predictors: list[str] = texts("n_predictors")
    weights: Array = array("n_predictors")
    error_alone: Array = array("n_predictors")
    error: float = array()
    residual_variance: float = array()
    interactions: Additivity | None = nested(Additivity, optional=True)
    scales: Array | None = array(2, 2, optional=True)


@dataclass(frozen=True)
class Expectation:
    """Weights of predictors by name, and the screen that they predict from.

    ``measured`` are the perturbations of the fit, with the moments of their cells and of the
    controls. ``scales`` are factors on the variances of departures from expected effects, shape
    ``(2, 2)``: rows without and with side information, columns for shared and own parts; ``None``
    for 1.
    """

    weights: Mapping[str, float]
    measured: Perturbations
    features: SideInformation | None
    interactions: Additivity | None
    scales: Array | None = None

    def predictions(
        self,
        candidates: Perturbations,
        *,
        weights: Array | None = None,
        together: CombinationPrediction | None = None,
    ) -> list[Prediction]:
        """Return each predictor's unweighted prediction for perturbations without cells.

        The ``candidates`` have the expected change of their targets. Without ``weights``, the edge
        weights ``(n_genes, n_genes)``, the graph makes no prediction; ``together`` holds the
        effects of combinations predicted from their members, if there are any.
        """
        sources = Sources(weights, features=self.features, together=together)
        out = []
        for predictor in build_predictors(sources):
            # Members predict combinations even if no weight was learned.
            has_weight = predictor.name in self.weights or "together" in predictor.draws_on
            if has_weight and (weights is not None or "weights" not in predictor.draws_on):
                out.append(predictor.predict(self.measured, candidates))
        return out

    def without_cells(
        self,
        names: Sequence[str],
        targets: Sequence[Sequence[int]],
        target_changes: Array,
        own_variance: Array,
        posteriors: Sequence[DagBlr],
    ) -> WithoutCells:
        """Return the weighted prediction for perturbations without cells.

        ``targets`` are the genes of the panel that each perturbation targets; ``target_changes``
        and ``own_variance`` are the expected change of target genes and its variance, 0 and NaN for
        other genes, shape ``(n_perturbations, n_genes)``. The ``posteriors`` on several graphs have
        equal weights.
        """
        effect = target_changes.copy()
        # Perturbations without cells have row -1.
        rows = np.full(len(names), -1)
        candidates = replace(
            self.measured, members=rows, targets=targets, change=target_changes, names=names
        )
        for prediction in self.predictions(candidates):
            effect += self.weights[prediction.name] * prediction.effects
        # Predictors that draw on the graph, averaged over the bootstrap graphs.
        for kind in predictors():
            if "weights" in kind.draws_on and self.weights.get(kind.name, 0.0):
                of_graphs = kind.over_graphs(posteriors, self.measured, candidates, self.features)
                effect += self.weights[kind.name] * of_graphs
        # Row 1 of the scales is for those with side information.
        feature_rows = () if self.features is None else self.features.place
        described = np.array([name in feature_rows for name in names], np.int64)
        scales = np.ones((2, 2)) if self.scales is None else self.scales
        return WithoutCells(effect, own_variance, scales[described])


@dataclass(frozen=True)
class FittedPosterior:
    """All of a fit, as ``tl.fit_dag_blr`` writes it to ``.uns``.

    ``columns`` are the columns of its genes in the data, shape ``(n_genes,)``; they are not stored.

    Parameters
    ----------
    genes
        The panel.
    posterior
        The posterior over the weights of the graph.
    control_mean
        Mean of the control cells, in units of the data.
    n_control_cells
        Control cells read.
    environments
        One row per perturbation used.
    targets
        Target genes of each perturbation.
    shifts
        Expected shifts, in units of the data.
    left_out
        Labels that were not used.
    log_evidence
        Logarithm of the evidence of the weights of the graph.
    params
        Options of the call.
    cells
        Digests with which later calls detect changes of the cells: ``roles`` (names, and columns
        with a role) and ``values`` (of 16 cells, and of all cells of a matrix in memory).
    digest
        Digest of the whole fit; results computed from the fit keep it as ``fit``.
    means
        Unless shifts are exact: means of the cells of each perturbation.
    guide_variance
        Unless shifts are exact: variance between guides, relative to the noise variance, averaged
        over genes, without rare large departures; 0 if guides are not declared.
    guide_spread
        If guides are declared: their variance along coexpression and in single genes.
    replicate_variance
        Unless shifts are exact: variance of effects between batches, as ``guide_variance``; 0 if
        perturbations are not in several batches.
    hierarchical
        Unless shifts are exact: draws of the hierarchical model.
    efficacy
        Unless shifts are exact: efficacy of perturbations on their target genes.
    predictors
        Unless shifts are exact: weights of the predictors of perturbations without cells.
    screen
        Unless shifts are exact: moments of the cells from which these weights were learned.
    features
        Side information, if it was given.
    ensemble
        Posterior over the weights on each bootstrap graph, if there are any.
    """

    genes: list[str] = texts("n_nodes")
    posterior: DagBlr = _posterior()
    control_mean: Array = array("n_nodes")
    n_control_cells: int = array(dtype=np.int64)
    environments: Any = table("n_perturbations")  # this and left_out: DataFrames
    targets: list[list[str]] = lists()
    shifts: Array = sparse("n_perturbations", "n_nodes")
    left_out: Any = table()
    log_evidence: float = array()
    params: dict[str, Any] = coded(dict, dict)
    cells: dict[str, str] | None = coded(dict, dict, optional=True)
    digest: str | None = coded(str, str, optional=True)
    means: CellMeans | None = nested(CellMeans, optional=True)
    guide_variance: float | None = array(optional=True)
    guide_spread: GuideSpread | None = nested(GuideSpread, optional=True)
    replicate_variance: float | None = array(optional=True)
    hierarchical: Hierarchical | None = nested(Hierarchical, optional=True)
    efficacy: Efficacy | None = nested(Efficacy, optional=True)
    predictors: PredictorRecord | None = nested(PredictorRecord, optional=True)
    screen: ScreenMoments | None = nested(ScreenMoments, optional=True)
    features: SideInformation | None = nested(SideInformation, optional=True)
    ensemble: list[DagBlr] | None = series(_posterior(), optional=True)
    columns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    # Derived from the stored fields.
    names: list[str] = field(init=False)  # of the perturbations, one per row
    n_cells: NDArray[np.int64] = field(init=False)  # (n_perturbations,)
    has_replicates: bool = field(init=False)  # false for tables with one row per perturbation
    is_exact: bool = field(init=False)  # shifts are assumed exact, as in Zhang et al. 2023
    counted: Array = field(init=False)  # effective numbers of cells, 0 for exact shifts
    is_measured: NDArray[np.bool_] = field(init=False)  # perturbations with such cells
    posteriors: list[DagBlr] = field(init=False)  # on bootstrap graphs, with equal weights
    n_graphs: int = field(init=False)
    naming: Naming = field(init=False)
    fingerprint: str = field(init=False)  # of its cells; empty if none was stored
    origin: dict[str, str] = field(init=False)  # kept in every result computed from the fit

    def __post_init__(self) -> None:
        counted = np.zeros(len(self.environments)) if self.means is None else self.means.n
        posteriors = self.ensemble or [self.posterior]
        params = self.params
        cells = " ".join(str(self.cells[name]) for name in ("roles", "values") if self.cells)
        vars(self).update(
            names=self.environments["perturbation"].astype(str).tolist(),
            n_cells=self.environments["n_cells"].to_numpy(np.int64),
            has_replicates=not params.get("lacks_replicates", False),
            is_exact=self.hierarchical is None,
            counted=counted,
            is_measured=counted > 0,
            posteriors=posteriors,
            n_graphs=len(posteriors),
            naming=Naming(frozenset(self.genes), str(params["separator"]), str(params["control"])),
            fingerprint=cells,
            origin={"cells": cells, "fit": self.digest or ""},
        )
        predictor_names = {kind.name for kind in predictors()}
        if self.predictors is not None and (
            unknown := set(self.predictors.predictors) - predictor_names
        ):
            message = f"it has weights for unknown predictors {sorted(unknown)}"
            raise ValueError(message)

    def rows_of(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Return the row of each perturbation in the fit, -1 if the fit does not include it.

        Shape ``(n_names,)``.
        """
        row = {name: j for j, name in enumerate(self.names)}
        return np.array([row.get(name, -1) for name in names], np.int64)

    @cached_property
    def expectation(self) -> Expectation | None:
        """Predictors for perturbations without cells; ``None`` if no weights were learned."""
        if self.predictors is None or self.screen is None:
            return None
        # Environment 0 holds the controls, and environment j + 1 perturbation j.
        target_genes = places(self.targets, self.genes)
        environments = np.arange(1, 1 + len(target_genes))
        measured = Perturbations(self.screen, 0, environments, target_genes, names=self.names)
        learned = self.predictors
        weights = dict(zip(learned.predictors, learned.weights.tolist(), strict=True))
        return Expectation(weights, measured, self.features, learned.interactions, learned.scales)

    @cached_property
    def members(self) -> list[tuple[str, ...]]:
        """Members of every perturbation."""
        return [self.naming.members(name) for name in self.names]

    @cached_property
    def in_company(self) -> set[tuple[str, ...]]:
        """Members of the combinations in the fit, each as a tuple of one member."""
        if self.expectation is None or self.expectation.interactions is None:
            return set()
        return {(member,) for members in self.members if len(members) > 1 for member in members}

    def is_described(self, name: str) -> bool:
        """Whether side information has a row for a label."""
        features = None if self.expectation is None else self.expectation.features
        return features is not None and name in features.place

    @cached_property
    def takes_any_label(self) -> bool:
        """Whether unknown labels are predicted by the mean perturbation: most have no targets."""
        return self.expectation is not None and 2 * sum(map(bool, self.targets)) < len(self.targets)

    def spelled(self, labels: Iterable[str]) -> list[str]:
        """Return labels in the spelling of the cells, or else of the features."""
        described = () if self.features is None else self.features.perturbations
        return self.naming.spelled(labels, [*self.names, *described])

    def effects(self, fit_rows: NDArray[np.int64], new: WithoutCells | None = None) -> EffectDraws:
        """Return joint draws of effects from the hierarchical model.

        Parameters
        ----------
        fit_rows
            Row of each perturbation in the fit, -1 if it has no cells, shape
            ``(n_perturbations,)``.
        new
            Expected effects of the perturbations without cells, in their order.
        """
        _, draws, rows = self.draws_with(len(fit_rows), fit_rows, new)
        return draws.rows(rows)

    def draws_with(
        self, size: int, fit_rows: NDArray[np.int64], new: WithoutCells | None
    ) -> tuple[Hierarchical, EffectDraws, NDArray[np.int64]]:
        """Return the model, the draws that fit in memory for ``size`` perturbations, and rows."""
        assert self.hierarchical is not None  # shifts are not exact
        model = self.hierarchical.thinned(size * len(self.genes))
        # Draws have rows only for perturbations with cells.
        rows = np.append(np.cumsum(self.is_measured) - 1, -1)[fit_rows]
        without = np.flatnonzero(fit_rows < 0)
        if new is None or not len(without):
            return model, model.effects, rows
        rows[without] = len(model.effects.expected) + np.arange(len(without))
        # Joint with the draws of perturbations that have cells.
        unseen = model.predict(new.effect, own_variance=new.own_variance, scale=new.scale, rng=0)
        return model, model.effects.joined(unseen), rows

    def data_weight(self) -> Array:
        """Return the weight of the cells in every effect, ``(n_perturbations, n_genes)``.

        The weight is the posterior variance divided by the sampling variance; for a normal prior it
        is the weight of the cells' mean.
        """
        shape = len(self.names), len(self.genes)
        weight = np.zeros(shape, table_type(shape[0] * shape[1]))
        # Exact shifts do not depend on the cells.
        if self.hierarchical is None or self.means is None:
            return weight
        effects = self.hierarchical.effects
        means = self.means
        if not self.is_measured.any():
            return weight
        weight[self.is_measured] = effects.sd()
        for rows in in_blocks(*shape):
            # posterior variance / sampling variance, at most 1.
            counted = means.n[rows, None] / means.ratio[rows]
            weight[rows] = np.minimum(counted * (weight[rows] / effects.unit) ** 2, 1.0)
        return weight

    def expected_state(self, row: int) -> Array:
        """Return the posterior mean of the state of a perturbation with cells, ``(n_genes,)``."""
        model = self.hierarchical
        assert model is not None
        number = int(np.count_nonzero(self.is_measured[:row]))
        effect = model.effects.posterior_mean(np.array([number]))[0]
        return np.asarray(model.control.mean(axis=0) + effect)

    def in_condition(self, name: str) -> FittedPosterior:
        """Return the fit with the effects, cells and controls of one condition.

        Predictions for perturbations without any cells remain those over all conditions.

        Raises
        ------
        ValueError
            If the fit has no effects by condition, or no such condition.
        """
        model = self.hierarchical
        if model is None or not model.conditions:
            message = (
                "The fit has no effects by condition: declare a column with at least two "
                "conditions, each with control and perturbed cells, by "
                "pp.setup_screen(adata, condition_key=...), and fit again."
            )
            raise ValueError(message)
        by_name = {condition.name: k for k, condition in enumerate(model.conditions)}
        if name not in by_name:
            message = f"There is no condition {name!r}: give one of {list_names(by_name)}."
            raise ValueError(message)
        assert self.means is not None
        # Cells and means of the condition replace those of all conditions.
        one = model.conditions[by_name[name]]
        measured = np.flatnonzero(self.is_measured)
        table, n, mean = self.environments.copy(), self.means.n.copy(), self.means.mean.copy()
        n_cells = self.n_cells.copy()
        # Effective cells in proportion to cells; never 0, so that the seen rows do not change.
        n[measured] *= np.maximum(one.n_cells, 1e-9) / np.maximum(n_cells[measured], 1)
        mean[measured] = self.control_mean + one.change
        n_cells[measured] = one.n_cells
        table["n_cells"] = n_cells
        return replace(
            self,
            environments=table,
            means=replace(self.means, n=n, mean=mean),
            hierarchical=model.in_condition(by_name[name]),
        )
