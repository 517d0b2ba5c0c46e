"""What the predictors of a fit expect of perturbations without cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.causal.weights import downstream
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictors.base import Sources, build_predictors
from nextpert.core.model.predictors.graph import Graph
from nextpert.core.model.predictors.members import Members
from nextpert.core.model.unseen_scale import WithoutCells

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert.core.causal.dag_blr import DagBlr
    from nextpert.core.model.interactions import Additivity, Together
    from nextpert.core.model.predictors.base import Prediction, SideInformation

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Expectation:
    """Weights of predictors, and the screen that they predict from.

    Parameters
    ----------
    weights
        Weight of every predictor, by name.
    seen
        The perturbations of the fit, with the moments of their cells and the controls'.
    features
        Side information about perturbations; ``None`` where none was given.
    interactions
        What was learned of interactions; ``None`` where there were no combinations.
    scales
        What the variances of departures from what is expected are multiplied by, those of what is
        shared and of own parts, of perturbations without side information and of those with it,
        shape ``(2, 2)``; ``None`` for 1.
    """

    weights: Mapping[str, float]
    seen: Perturbations
    features: SideInformation | None
    interactions: Additivity | None
    scales: Array | None = None

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
            As in :meth:`without_cells`.
        weights
            Weights of the graph, ``(n_genes, n_genes)``; by default the graph is not asked.
        together
            What members do together, where there are combinations among the perturbations.
        """
        asked = Perturbations(
            self.seen.moments, 0, np.full(len(names), -1), targets, own, names=names
        )
        sources = Sources(weights, features=self.features, together=together)
        out, names_asked = [], {*self.weights, Members.name}
        for each in build_predictors(sources):
            if each.name in names_asked and (weights is not None or each.name != Graph.name):
                out.append(each.predict(self.seen, asked))
        return out

    def without_cells(
        self,
        names: Sequence[str],
        targets: Sequence[Sequence[int]],
        own: Array,
        own_variance: Array,
        posteriors: Sequence[DagBlr],
    ) -> WithoutCells:
        """Return what weighted predictors expect of perturbations without cells.

        Parameters
        ----------
        names, targets
            Their labels, and the genes of the panel that they target.
        own, own_variance
            Expected change of own genes and its variance, 0 and nan elsewhere, shape
            ``(n_perturbations, n_genes)``.
        posteriors
            Those of the graphs, which count alike.
        """
        effect = own.copy()
        asked = Perturbations(
            self.seen.moments, 0, np.full(len(names), -1), targets, own, names=names
        )
        for each in build_predictors(Sources(features=self.features)):
            weight = self.weights.get(each.name, 0.0)
            if weight and each.name != Graph.name:
                effect += weight * each.predict(self.seen, asked).effects
        if self.weights.get(Graph.name, 0.0):
            effect += self.weights[Graph.name] * downstream(posteriors, own)
        known = () if self.features is None else self.features.place
        described = np.array([name in known for name in names], np.int64)
        scales = np.ones((2, 2)) if self.scales is None else self.scales
        return WithoutCells(effect, own_variance, scales[described])
