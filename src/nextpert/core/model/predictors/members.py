"""Members of combinations: effects of combinations predicted from their members."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nextpert.core.model.predictors.base import Prediction, Predictor, predictor

if TYPE_CHECKING:
    from nextpert.core.model.interactions import CombinationPrediction
    from nextpert.core.model.perturbations import Perturbations


@predictor("members together")
class Members(Predictor):
    """Predicts combinations from their members, for which no other predictor is used."""

    order: ClassVar[int] = 6
    draws_on: ClassVar[tuple[str, ...]] = ("together",)
    by_change: ClassVar[bool] = False

    def __init__(self, together: CombinationPrediction) -> None:
        self.together = together

    def predict(self, screen: Perturbations, candidates: Perturbations) -> Prediction:
        """Return fixed predictions for combinations, and 0 for single perturbations."""
        del screen
        rows, is_target = self.together.rows, candidates.own()
        effects, shared = np.zeros((2, *is_target.shape))
        effects[rows] = self.together.mean
        # Every member's effect contains the controls' error.
        shared[rows] = self.together.shared * candidates.control_variance
        effects[is_target] = shared[is_target] = 0.0
        return Prediction(self.name, effects, shared, fixed=True)

    def held_out(self, screen: Perturbations) -> Prediction:
        """Return :meth:`predict`: each combination is already predicted without its own cells."""
        return self.predict(screen, screen)
