"""What ``tl.fit_dag_blr`` stores in ``.uns``, field by field, and what is read back from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata.expectation import Expectation, InteractionsRecord
from nextpert.core import DagBlr, ScreenMoments
from nextpert.core._codec import (
    array,
    coded,
    lists,
    nested,
    series,
    sparse,
    table,
    texts,
    unpack,
)
from nextpert.core.effects.averaged import Averaged, Model
from nextpert.core.effects.perturbations import Perturbations
from nextpert.core.effects.predictors.base import predictors
from nextpert.core.effects.shift_prior import TAU2, ShiftPrior

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from nextpert.core.effects.efficacy import Efficacy
    from nextpert.core.effects.interactions import Interactions

    Array = NDArray[np.float64]

GRAPH_AND_EXPERTS, GRAPH, EXPERTS, NEITHER = "graph and experts", "graph", "experts", "neither"
N_COMPONENTS = len(TAU2)


def _posterior() -> Any:
    return coded(DagBlr.to_dict, DagBlr.from_dict)


@dataclass(frozen=True)
class EfficacyRecord:
    """What is stored of an ``Efficacy``: of perturbations that were not measured."""

    mean: float = array()
    sd: float = array(least=0)
    spread: float = array(least=0)
    n_measured: int = array(whole=True, least=0)


@dataclass(frozen=True)
class StackRecord:
    """Weights of predictors, and what they leave of perturbations without cells."""

    experts: list[str] = texts("n_experts")
    weights: Array = array("n_experts", least=0)
    error_alone: Array = array("n_experts")
    error: float = array()
    residual_variance: float = array()
    unseen: Array = array(N_COMPONENTS, least=0)
    interactions: Interactions | InteractionsRecord | None = nested(
        InteractionsRecord, optional=True
    )

    def __post_init__(self) -> None:
        unknown = set(self.experts) - {kind.name for kind in predictors()}
        if unknown:
            message = f"it has weights of {sorted(unknown)}, which are no predictors here"
            raise ValueError(message)


@dataclass(frozen=True)
class AveragingRecord:
    """The models that measured effects are averaged over; the first is on the graph.

    Parameters
    ----------
    models, weights
        Names of the models, and what each counts for, shape ``(n_models,)``.
    mixtures
        Weights of the prior variances in each, shape ``(n_models, n_perturbations,
        n_components)``.
    own
        Variances of the shifts of own genes where no expert is asked, nan elsewhere, shape
        ``(n_perturbations, n_genes)``: what members do together is an expert's word, and so is its
        variance.
    no_graph
        The posterior on the graph without arcs.
    """

    models: list[str] = texts("n_models", GRAPH_AND_EXPERTS, GRAPH, EXPERTS, NEITHER)
    weights: Array = array("n_models", least=0)
    mixtures: Array = array("n_models", "n_perturbations", N_COMPONENTS, least=0)
    own: Array = sparse("n_perturbations", "n_nodes", least=0, fill=np.nan)
    no_graph: DagBlr = _posterior()

    def averaged(self, posteriors: Sequence[DagBlr], prior: ShiftPrior, shifts: Array) -> Averaged:
        """Return the models; those of weight 0 are left out, but the first, on the graph.

        Parameters
        ----------
        posteriors
            The posteriors on the graph, or on those of resamples.
        prior
            The prior of shifts on the graph, with what experts expect.
        shifts
            Expected shifts of own genes, shape ``(n_perturbations, n_genes)``.
        """
        without = replace(prior, shift=shifts, effect=np.zeros_like(shifts), own=self.own)
        models = [Model(posteriors, prior, self.weights[0])]
        each = zip(self.models[1:], self.weights[1:], self.mixtures[1:], strict=True)
        for name, weight, mixture in each:
            if weight > 0:
                used = replace(prior if name == EXPERTS else without, weights=mixture)
                models.append(Model(posteriors if name == GRAPH else [self.no_graph], used, weight))
        return Averaged(tuple(models))


@dataclass(frozen=True)
class EffectsRecord:
    """Effects in another screen on the genes of the panel."""

    perturbations: list[str] = texts("n_other")
    effects: Array = array("n_other", "n_nodes")


@dataclass(frozen=True)
class FitRecord:
    """All of a fit; its entries in ``.uns`` are described in ``tl.fit_dag_blr``."""

    genes: list[str] = texts("n_nodes")
    posterior: DagBlr = _posterior()
    control_mean: Array = array("n_nodes")
    n_control_cells: int = array(whole=True, least=0)
    environments: pd.DataFrame = table("n_perturbations", "perturbation", "n_cells")
    targets: list[list[str]] = lists("n_perturbations")
    shifts: Array = sparse("n_perturbations", "n_nodes")
    left_out: pd.DataFrame = table()
    log_evidence: float = array()
    params: dict[str, Any] = coded(dict, dict)
    cells: dict[str, str] | None = coded(dict, dict, optional=True)
    shift_prior: ShiftPrior | None = nested(ShiftPrior, optional=True)
    guide_variance: float | None = array(least=0, optional=True)
    averaging: AveragingRecord | None = nested(AveragingRecord, optional=True)
    efficacy: Efficacy | EfficacyRecord | None = nested(EfficacyRecord, optional=True)
    stack: StackRecord | None = nested(StackRecord, optional=True)
    screen: ScreenMoments | None = nested(ScreenMoments, optional=True)
    prior_effects: EffectsRecord | None = nested(EffectsRecord, optional=True)
    ensemble: list[DagBlr] | None = series(_posterior(), optional=True)

    def __post_init__(self) -> None:
        posteriors = [self.posterior, *(self.ensemble or [])]
        if self.averaging is not None:
            posteriors.append(self.averaging.no_graph)
        if any(blr.n_nodes != len(self.genes) for blr in posteriors):
            message = "it has graphs of other genes"
            raise ValueError(message)
        fixed = self.prior.fixed.shape[1]
        if any(blr.n_fixed != fixed for blr in posteriors):
            message = "its posteriors and shifts have other fixed columns"
            raise ValueError(message)
        if self.stack is not None and (
            self.screen is None
            or len(self.screen.n) != 1 + len(self.environments)
            or self.screen.n[0] < 2
        ):
            message = "its screen is not that of its perturbations"
            raise ValueError(message)

    @property
    def prior(self) -> ShiftPrior:
        """What is expected of shifts; exactly these where they were not learned."""
        return ShiftPrior.exact(self.shifts) if self.shift_prior is None else self.shift_prior

    @property
    def averaged(self) -> Averaged:
        """The models that measured effects are averaged over."""
        posteriors = self.ensemble or [self.posterior]
        if self.averaging is None:
            return Averaged((Model(posteriors, self.prior),))
        return self.averaging.averaged(posteriors, self.prior, self.shifts)

    @property
    def other_effects(self) -> dict[str, Array]:
        """Effects in another screen, by perturbation."""
        known = self.prior_effects
        return {} if known is None else dict(zip(known.perturbations, known.effects, strict=True))

    @property
    def expectation(self) -> Expectation | None:
        """What to expect of perturbations without cells; ``None`` where nothing was learned."""
        if self.stack is None or self.screen is None:
            return None
        place = {gene: i for i, gene in enumerate(self.genes)}
        own = [[place[gene] for gene in some] for some in self.targets]
        seen = Perturbations(self.screen, 0, np.arange(1, 1 + len(own)), own)
        weights = dict(zip(self.stack.experts, self.stack.weights.tolist(), strict=True))
        told: Any = self.stack.interactions
        return Expectation(weights, seen, self.other_effects, self.stack.unseen, told)


def read_fit(stored: Mapping[str, Any], where: str) -> FitRecord:
    """Return what :func:`~nextpert.core._codec.pack` stored of a fit.

    Raises
    ------
    ValueError
        If it is damaged; ``where`` names it.
    """
    return unpack(FitRecord, stored, where, "run tl.fit_dag_blr again")
