"""What is stored of a fit, from what it learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata.environments import environment_table
from nextpert.core.fit.fitted import FittedPosterior, PredictorRecord
from nextpert.core.model.perturbations import CellMeans
from nextpert.core.model.scores import pooled_sizes

if TYPE_CHECKING:
    import pandas as pd

    from nextpert.core.fit.learn import Model


def record_of(
    model: Model,
    params: dict[str, Any],
    *,
    left_out: pd.DataFrame,
    cells: dict[str, str] | None = None,
) -> FittedPosterior:
    """Return what is stored of a model, and read by :func:`nextpert._adata.posterior_from`.

    ``params``, labels ``left_out`` and the fingerprint of the ``cells`` are stored with it.
    """
    spec, used, pooled = model.spec, model.expected.used, model.cells.pooled
    predictors = features = means = None
    if model.weighted is not None:
        learned, features = model.weighted.weights, spec.features
        predictors = PredictorRecord(
            list(learned.names), learned.weights, np.nan_to_num(learned.alone, nan=1.0),
            float(np.nan_to_num(learned.error, nan=1.0)), learned.residual_variance,
            model.weighted.interactions, model.scales,
        )  # fmt: skip
    if not spec.exact:
        means = CellMeans(pooled.n[1:], pooled.mean[1:], pooled.variance_ratio[1:])
    from_controls, from_others = pooled_sizes(pooled)
    return FittedPosterior(
        genes=spec.genes,
        posterior=model.posterior,
        control_mean=model.cells.control.mean,
        n_control_cells=model.cells.control.n,
        environments=environment_table(used, spec.genes, pooled.n_cells[1:].tolist()).assign(
            q_value=from_controls.q_value, q_value_from_others=from_others.q_value
        ),
        targets=used.targets,
        shifts=used.shifts,
        left_out=left_out,
        log_evidence=model.posterior.log_evidence(),
        params=params,
        cells=cells,
        means=means,
        guide_variance=None if spec.exact else model.cells.guide_variance,
        hierarchical=model.effects,
        efficacy=model.expected.efficacy,
        predictors=predictors,
        screen=None if predictors is None else model.cells.screen,
        features=features,
        ensemble=model.resampled or None,
    )
