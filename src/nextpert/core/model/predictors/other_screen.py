"""Another screen: effects that perturbations of the same labels have there."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nextpert.core.model.predictors.base import Prediction, Predictor, predictor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from nextpert.core.model.perturbations import Perturbations
    from nextpert.core.model.predictors.base import Sources


@predictor("other screen")
class OtherScreen(Predictor):
    """Effects in another screen, found by the labels of perturbations.

    Parameters
    ----------
    effects
        Effects on every gene, by label, each of shape ``(n_genes,)``, units of the data.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> from nextpert.core.model.perturbations import Perturbations
    >>> from nextpert.core.model.predictors.other_screen import OtherScreen
    >>> x = np.random.default_rng(0).normal(size=(60, 2))
    >>> screen = ScreenMoments.from_array(x, np.zeros(60, int), 1)
    >>> asked = Perturbations(screen, 0, [-1, -1], [[0], []], names=["MYC", "JUN"])
    >>> OtherScreen({"MYC": np.ones(2)}).predict(asked, asked).effects.tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """

    order: ClassVar[int] = 4

    def __init__(self, effects: Mapping[str, NDArray[np.float64]]) -> None:
        self.effects = effects

    @classmethod
    def build(cls, sources: Sources) -> OtherScreen | None:
        """Return the predictor, or ``None`` where no other screen is given."""
        return cls(sources.other_screen) if sources.other_screen else None

    def predict(self, screen: Perturbations, candidates: Perturbations) -> Prediction:
        """Return what is known of the candidates' labels; nothing (0) of others.

        Raises
        ------
        ValueError
            If effects have another shape, or are infinite.
        """
        del screen
        own = candidates.own()
        found = np.zeros(own.shape)
        for row, name in zip(found, candidates.names, strict=True):
            known = np.asarray(self.effects.get(name, row), np.float64)
            if known.shape != row.shape or np.isinf(known).any():
                message = (
                    f"The effects of {name!r} in another screen must be finite or NaN and of shape "
                    f"{row.shape}, but their shape is {known.shape}."
                )
                raise ValueError(message)
            row[:] = np.where(np.isnan(known), 0.0, known)
        return Prediction(self.name, np.where(own, 0.0, found))

    def held_out(self, screen: Perturbations) -> Prediction:
        """Return the same: it has seen no cell of this screen."""
        return self.predict(screen, screen)
