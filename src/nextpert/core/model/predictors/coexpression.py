"""Coexpression: regression of every gene on the target gene, over a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nextpert.core.model.predictors.base import Prediction, Predictor, by_slopes, predictor

if TYPE_CHECKING:
    from nextpert.core.model.perturbations import Perturbations


@predictor("coexpression")
class Coexpression(Predictor):
    """Slopes of every gene on the target gene over a screen, times the target's change.

    The regression uses the scatter within environments and that between the means of the screen's
    perturbations and controls.
    """

    order: ClassVar[int] = 2

    def predict(self, screen: Perturbations, candidates: Perturbations) -> Prediction:
        """Return the predictions of a regression on the target genes, given their change."""
        moments = screen.moments
        n = moments.n.astype(np.float64)
        departure = moments.mean - n @ moments.mean / n.sum()
        target_genes = sorted({k for genes in candidates.targets for k in genes})
        column_of = {k: i for i, k in enumerate(target_genes)}
        # Scatter of all cells about their mean: within and between environments.
        scatter = (
            moments.scatter[:, target_genes]
            + (n[:, None] * departure).T @ departure[:, target_genes]
        )
        largest = (moments.mean[:, target_genes] ** 2).max(axis=0, initial=0.0)
        slopes = []
        for genes in candidates.targets:
            index = [column_of[k] for k in genes]
            columns = scatter[:, index]
            spread = columns[list(genes), np.arange(len(genes))]
            # Slope S_ik / S_kk of gene i on target k.
            varies = spread > 1e-12 * n.sum() * largest[index]  # more than rounding error
            slopes.append(np.where(varies, columns / np.where(varies, spread, 1.0), 0.0))
        return by_slopes(self.name, candidates, slopes)
