"""What a fit learned to expect of perturbations without cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._codec import array
from nextpert.core.effects.interactions import Together
from nextpert.core.effects.perturbations import Perturbations
from nextpert.core.effects.predictors.base import Prediction, Sources, build_predictors
from nextpert.core.effects.predictors.graph import Graph
from nextpert.core.effects.predictors.members import Members
from nextpert.core.effects.shift_prior import ShiftPrior
from nextpert.core.effects.stacked import with_expectation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert.core import ScreenMoments

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class InteractionsRecord:
    """What is stored of ``Interactions``: of any combination."""

    strength: float = array()
    strength_sd: float = array(least=0)
    strengths: Array = array("n_strengths")
    chances: Array = array("n_strengths", least=0)
    scale: Array = array("n_nodes", above=0)
    member_sd: float = array(above=0)
    rest_sd: float = array(above=0)
    n_combinations: int = array(whole=True, least=0)

    def __post_init__(self) -> None:
        if not np.isclose(self.chances.sum(), 1.0):
            message = "its chances do not sum to 1"
            raise ValueError(message)


@dataclass(frozen=True)
class Expectation:
    """Weights of predictors, and the screen that they predict from.

    Parameters
    ----------
    weights
        Weight of every predictor, by name.
    seen
        The perturbations of the fit, with the moments of their cells and the controls'.
    other
        Effects in another screen, by perturbation.
    unseen
        Weights of the prior variances of a perturbation without cells, shape
        ``(n_components,)``.
    interactions
        What was learned of interactions; ``None`` where there were no combinations.
    """

    weights: Mapping[str, float]
    seen: Perturbations
    other: Mapping[str, Array]
    unseen: Array
    interactions: InteractionsRecord | None

    @property
    def screen(self) -> ScreenMoments:
        """Moments of the controls and the perturbations of the fit."""
        return self.seen.moments

    def predictions(
        self,
        names: Sequence[str],
        targets: Sequence[Sequence[int]],
        own: Array,
        *,
        weights: Array | None = None,
        together: Together | None = None,
    ) -> list[Prediction]:
        """Return what each predictor expects of perturbations without cells, before weights.

        Parameters
        ----------
        names, targets, own
            As in :meth:`prior`.
        weights
            Weights of the graph, ``(n_genes, n_genes)``; by default the graph is not asked, whose
            part :meth:`prior` tells as a shift on it.
        together
            What members do together, where there are combinations among the perturbations.
        """
        asked = Perturbations(self.screen, 0, np.full(len(names), -1), targets, own, names=names)
        sources = Sources(weights, other_screen=self.other, together=together)
        return [
            each.predict(self.seen, asked)
            for each in build_predictors(sources)
            if each.name in {*self.weights, Members.name}
            if weights is not None or each.name != Graph.name
        ]

    def prior(
        self,
        names: Sequence[str],
        targets: Sequence[Sequence[int]],
        own: Array,
        own_variance: Array,
    ) -> ShiftPrior:
        """Return the prior of perturbations without cells.

        Parameters
        ----------
        names, targets
            Their labels, and the genes of the panel that they target.
        own, own_variance
            Expected change of own genes and its variance, 0 and nan elsewhere, shape
            ``(n_perturbations, n_genes)``.
        """
        nothing = np.zeros_like(own)
        rows = {name: np.full(len(names), weight) for name, weight in self.weights.items()}
        empty = ShiftPrior(
            np.zeros(len(names)), nothing, nothing + 1, nothing, nothing, own_variance,
            np.tile(self.unseen, (len(names), 1)),
        )  # fmt: skip
        return with_expectation(empty, own, self.predictions(names, targets, own), rows)
