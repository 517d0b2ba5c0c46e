"""What a fit stores, and how a stored fit models its screen."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core import DagBlr
from nextpert.core.fit.fitted import FittedPosterior, PredictorRecord
from nextpert.core.fit.interventions import Interventions, Plan
from nextpert.core.fit.learn import Spec
from nextpert.core.model.perturbations import CellMeans
from nextpert.core.model.scores import pooled_sizes
from nextpert.study import environments

if TYPE_CHECKING:
    import pandas as pd

    from nextpert.core.fit.learn import Model

    pass


def record_of(
    model: Model,
    params: dict[str, Any],
    *,
    left_out: pd.DataFrame,
    cells: dict[str, str] | None = None,
) -> FittedPosterior:
    """Return the record of a model that is stored, for :func:`nextpert._adata.posterior_from`.

    It includes ``params``, the labels ``left_out`` and the fingerprint of the ``cells``.
    """
    spec, used, pooled = model.spec, model.expected.used, model.cells.pooled
    predictors = features = means = None
    if model.weighted is not None:
        learned, features = model.weighted.weights, spec.features
        predictors = PredictorRecord(
            list(learned.names),
            learned.weights,
            np.nan_to_num(learned.alone, nan=1.0),
            float(np.nan_to_num(learned.error, nan=1.0)),
            learned.residual_variance,
            model.weighted.interactions,
            model.scales,
        )
    if not spec.exact:
        ratio = pooled.variance_ratio[1:]
        if pooled.errors is not None:
            ratio = pooled.n[1:, None] * pooled.errors.total()[1:]
        means = CellMeans(pooled.n[1:], pooled.mean[1:], ratio)
    from_controls, from_others = pooled_sizes(pooled)
    return FittedPosterior(
        genes=spec.genes,
        posterior=model.posterior,
        control_mean=model.cells.control.mean,
        n_control_cells=model.cells.control.n,
        environments=environments.environment_table(
            used, spec.genes, pooled.n_cells[1:].tolist()
        ).assign(q_value=from_controls.q_value, q_value_from_others=from_others.q_value),
        targets=used.targets,
        shifts=used.shifts,
        left_out=left_out,
        log_evidence=model.posterior.log_evidence(),
        params=params,
        cells=cells,
        means=means,
        guide_variance=None if spec.exact else model.cells.guide_variance,
        guide_spread=model.cells.spread,
        replicate_variance=None if spec.exact else model.cells.replicate_variance,
        hierarchical=model.effects,
        efficacy=model.expected.efficacy,
        predictors=predictors,
        screen=None if predictors is None else model.cells.screen,
        features=features,
        ensemble=model.resampled or None,
    )


def spec_of(fit: FittedPosterior) -> Spec:
    """Return how a stored fit models its screen, but with learned shifts if they are exact."""
    shift: str | Interventions = str(fit.params["shift"])
    if shift == "table":
        shift = Interventions(fit.names, fit.targets, fit.shifts, ["table"] * len(fit.names))
    plan = Plan(fit.names, fit.targets, [], shift)
    features = None if fit.expectation is None else fit.expectation.features
    return Spec(fit.genes, plan, partial(DagBlr, **fit.posterior.options), fit.naming, features)
