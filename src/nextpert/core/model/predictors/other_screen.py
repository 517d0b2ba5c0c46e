"""Another screen: effects that perturbations of the same labels have there."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nextpert.core.model.predictors.base import Prediction, Predictor, predictor

if TYPE_CHECKING:
    from nextpert.core.model.perturbations import Perturbations
    from nextpert.core.model.predictors.base import SideInformation, Sources


@predictor("other screen")
class OtherScreen(Predictor):
    """Effects in another screen, found by the labels of perturbations.

    Parameters
    ----------
    known
        Side information that has effects.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> from nextpert.core.model.perturbations import Perturbations
    >>> from nextpert.core.model.predictors.base import SideInformation
    >>> from nextpert.core.model.predictors.other_screen import OtherScreen
    >>> x = np.random.default_rng(0).normal(size=(60, 2))
    >>> screen = ScreenMoments.from_array(x, np.zeros(60, int), 1)
    >>> asked = Perturbations(screen, 0, [-1, -1], [[0], []], names=["MYC", "JUN"])
    >>> known = SideInformation(["MYC"], np.ones((1, 1)), np.ones((1, 2)))
    >>> OtherScreen(known).predict(asked, asked).effects.tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """

    order: ClassVar[int] = 4

    def __init__(self, known: SideInformation) -> None:
        self.known = known

    @classmethod
    def build(cls, sources: Sources) -> OtherScreen | None:
        """Return the predictor, or ``None`` where no other screen is given."""
        known = sources.features
        return None if known is None or known.effects is None else cls(known)

    def predict(self, screen: Perturbations, candidates: Perturbations) -> Prediction:
        """Return what is known of the candidates' labels; nothing (0) of others."""
        del screen
        effects = self.known.effects_of(candidates.names)
        return Prediction(self.name, np.where(candidates.own(), 0.0, effects))

    def held_out(self, screen: Perturbations) -> Prediction:
        """Return the same: it has seen no cell of this screen."""
        return self.predict(screen, screen)
