"""The mean perturbation: the average effect of a screen's perturbations."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nextpert.core.model.predictors.base import Prediction, Predictor, predictor

if TYPE_CHECKING:
    from nextpert.core.model.perturbations import Perturbations


@predictor("mean perturbation")
class MeanPerturbation(Predictor):
    """The mean effect of a screen's perturbations, the same for every candidate.

    It is a random-effects mean with weights ``1 / (t^2 + v)``, where ``v`` is the sampling variance
    of a perturbation's mean and ``t^2`` the variance of effects about their mean beyond sampling
    (one number for the screen, in units of a gene's variance): perturbations with few cells have
    lower weights. The target genes of each perturbation are left out.
    """

    order: ClassVar[int] = 3
    by_change: ClassVar[bool] = False
    is_average: ClassVar[bool] = True

    def predict(self, screen: Perturbations, candidates: Perturbations) -> Prediction:
        """Return the mean effect, the same for all candidates except on their target genes."""
        sd = np.where(screen.sd > 0, screen.sd, 1.0)
        used = screen.scored()
        effects = np.where(used, screen.observed / sd, 0)
        noise = np.where(used, screen.own_variance() / sd**2, 0)
        count = used.sum(axis=0)
        centre = effects.sum(axis=0) / np.maximum(count, 1)
        # t^2: the variance of effects about their mean, minus sampling variance, over all genes.
        spread = np.where(used, (effects - centre) ** 2, 0.0).sum()
        freedom = np.where(count > 1, count - 1, 0).sum()
        share = np.where(count > 1, (count - 1) / np.maximum(count, 1), 0.0)
        between = max((spread - (noise.sum(axis=0) * share).sum()) / max(freedom, 1), 0.0)
        weight = np.where(used, 1 / np.maximum(between + noise, 1e-12), 0.0)
        total = np.maximum(weight.sum(axis=0), 1e-300)
        mean = (weight * effects).sum(axis=0) * (sd / total)
        # The mean contains errors of controls and batches, as does every effect.
        errors = screen.batch_errors.T @ weight
        shared = candidates.control_variance + candidates.sd**2 * (
            candidates.batch_errors @ (errors / total)
        )
        says = (count > 0) & ~candidates.own()
        return Prediction(self.name, np.where(says, mean, 0.0), np.where(says, shared, 0.0))
