"""The mean perturbation: what a screen's perturbations do on average."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nextpert.core._blas import in_blocks
from nextpert.core.model.predictors.base import Prediction, Predictor, predictor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.model.perturbations import Perturbations

    Array = NDArray[np.float64]


@predictor("mean perturbation")
class MeanPerturbation(Predictor):
    """The mean effect of a screen's perturbations, whatever the perturbation asked for.

    They are weighted by ``1 / (t^2 + v)``, ``v`` the sampling variance of a mean and ``t^2`` the
    variance of effects about their mean beyond sampling, in units of a gene's variance, one number
    for the screen (a random-effects mean): perturbations of few cells count for less. Their own
    target genes are left out.
    """

    order: ClassVar[int] = 3
    by_change: ClassVar[bool] = False

    def predict(self, screen: Perturbations, candidates: Perturbations) -> Prediction:
        """Return the mean effect, the same for all candidates but for their target genes."""
        sd = np.where(screen.sd > 0, screen.sd, 1.0)
        n, p = len(screen.targets), len(sd)
        blocks = in_blocks(n, p)

        held: Any = None
        count, total, noisy, weights, mean = np.zeros((5, p))
        centre, spread, between = np.zeros(p), 0.0, 0.0
        errors = np.zeros((screen.batch_errors.shape[1], p))
        for step in ("centre", "spread", "mean"):
            # A pass over all blocks each: of a single one everything is kept for the next.
            for rows in blocks:
                if held is None or len(blocks) > 1:
                    some = screen if len(blocks) == 1 else screen.some(np.arange(n)[rows])
                    used = some.scored()
                    effects = np.where(used, some.observed / sd, 0)
                    noise = np.where(used, some.own_variance() / sd**2, 0)
                    held = used, effects, noise, some.batch_errors
                used, effects, noise, of_batches = held
                if step == "centre":
                    count += used.sum(axis=0)
                    total += effects.sum(axis=0)
                    noisy += noise.sum(axis=0)
                elif step == "spread":
                    spread += np.where(used, (effects - centre) ** 2, 0.0).sum()
                else:
                    weight = np.where(used, 1 / np.maximum(between + noise, 1e-12), 0.0)
                    weights += weight.sum(axis=0)
                    mean += (weight * effects).sum(axis=0)
                    errors += of_batches.T @ weight
            centre = total / np.maximum(count, 1)
            # The variance of effects about their mean, less that of sampling, over all genes.
            many = np.where(count > 1, count - 1, 0).sum()
            share = np.where(count > 1, (count - 1) / np.maximum(count, 1), 0.0)
            between = max((spread - (noisy * share).sum()) / max(many, 1), 0.0)
        weights = np.maximum(weights, 1e-300)
        mean *= sd / weights
        shared = candidates.control_variance + candidates.sd**2 * (
            candidates.batch_errors @ (errors / weights)
        )
        says = (count > 0) & ~candidates.own()
        return Prediction(self.name, np.where(says, mean, 0.0), np.where(says, shared, 0.0))
