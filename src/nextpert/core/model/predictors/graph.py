"""The graph: effects of a change of target genes on downstream genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nextpert.core._codec import table_type
from nextpert.core.causal.weights import downstream
from nextpert.core.model.predictors.base import Prediction, Predictor, by_slopes, predictor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.causal.dag_blr import DagBlr
    from nextpert.core.model.perturbations import Perturbations
    from nextpert.core.model.predictors.base import SideInformation

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]


@predictor("graph")
@dataclass(frozen=True, eq=False)
class Graph(Predictor):
    """Total effects of the target genes, ``(I - B)^-1``, times their changes.

    ``weights`` is ``B``, row = child; ``held_out_weights``, for :meth:`held_out`, holds pairs of
    some perturbations and a ``B`` that was learned without their cells.
    """

    order: ClassVar[int] = 1
    draws_on: ClassVar[tuple[str, ...]] = ("weights", "held_out_weights")
    predicts_measured: ClassVar[bool] = True

    weights: Array | None
    held_out_weights: Sequence[tuple[Index, Array]] = ()

    def predict(self, screen: Perturbations, candidates: Perturbations) -> Prediction:
        """Return the downstream effects of the change of the target genes."""
        del screen
        p = candidates.moments.n_nodes
        genes = sorted({k for targets in candidates.targets for k in targets})
        weights = np.asarray(self.weights, np.float64)
        effects: Array = np.eye(p)[:, genes]
        if weights.any():
            # (I - B)^-1 e_k divided by its k-th entry, because the change of k itself is given.
            effects = np.asarray(np.linalg.solve(np.eye(p) - weights, effects), np.float64)
        total = dict(zip(genes, (effects / effects[genes, np.arange(len(genes))]).T, strict=True))
        slopes = [np.array([total[k] for k in t]).reshape(-1, p).T for t in candidates.targets]
        return by_slopes(self.name, candidates, slopes)

    @classmethod
    def over_graphs(
        cls,
        posteriors: Sequence[DagBlr],
        screen: Perturbations,
        candidates: Perturbations,
        features: SideInformation | None = None,
    ) -> Array:
        """Return downstream effects, by one substitution per graph."""
        del screen, features
        return downstream(posteriors, np.asarray(candidates.change, np.float64))

    def held_out(self, screen: Perturbations) -> Prediction:
        """Return downstream effects on graphs learned without the perturbations."""
        shape = len(screen.targets), screen.moments.n_nodes
        effects, shared = np.zeros((2, *shape), table_type(shape[0] * shape[1]))
        for rows, weights in self.held_out_weights:
            block = screen.some(rows)
            follows = Graph(weights).predict(block, block)
            # Pages of zeros that are never written take no memory.
            if follows.effects.any():
                effects[rows], shared[rows] = follows.effects, follows.shared
        return Prediction(self.name, effects, shared)
