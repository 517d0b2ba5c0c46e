"""The interface of predictors, which predict perturbations without using their cells.

Every predictor returns 0 for target genes, whose change is predicted from the efficacy.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from nextpert.core._codec import array, table_type, texts
from nextpert.core._registry import Registry
from nextpert.core.model.perturbations import ENOUGH_EFFECTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from nextpert.core.causal.dag_blr import DagBlr
    from nextpert.core.model.interactions import CombinationPrediction
    from nextpert.core.model.perturbations import Perturbations

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

_SINGLY = 100  # up to this many perturbations, each is left out separately
_BLOCKS = 20  # blocks in which more perturbations are left out; each block takes one pass
_BLOCKS_OF_LARGE_SCREENS = 5  # blocks for screens with more effects than learning requires


@dataclass(frozen=True)
class Prediction:
    """Effects predicted by one predictor.

    Parameters
    ----------
    name
        Name of the predictor, such as ``"graph"``.
    effects
        Predicted effect of every perturbation on every gene, without its own cells, shape
        ``(n_perturbations, n_genes)``, units of the data; 0 for target genes, and if the predictor
        makes no prediction.
    shared
        Covariance of the predictions with the sampling error of the observed effects, same shape:
        all effects share the controls, and the error of a measured change of a target gene is
        correlated with those of coexpressed genes. Unless this covariance is subtracted, a
        predictor receives weight for predicting noise. ``None`` for no covariance.
    fixed
        Whether the predictions have weight 1 and replace those of all other predictors.
    most
        Maximum weight of the predictor, 0 to 1.

    Raises
    ------
    ValueError
        If an effect is NaN or infinite.
    """

    name: str
    effects: Array
    shared: Array | None = None
    fixed: bool = False
    most: float = 1.0

    def __post_init__(self) -> None:
        if not np.isfinite(self.effects).all():
            message = (
                f"The predictor {self.name!r} returned NaN or infinite effects: let it return 0 "
                f"where it makes no prediction."
            )
            raise ValueError(message)

    def silenced(self, rows: Index) -> Prediction:
        """Return 0 for some perturbations, which a fixed predictor predicts; fixed ones unchanged.

        ``rows`` are positions of perturbations.
        """
        if self.fixed:
            return self
        included = np.ones((len(self.effects), 1))
        included[rows] = 0.0
        shared = None if self.shared is None else included * self.shared
        return replace(self, effects=included * self.effects, shared=shared)


@dataclass(frozen=True)
class SideInformation:
    """Information about perturbations besides the cells of a screen.

    Parameters
    ----------
    perturbations
        Labels with side information, from this screen and elsewhere.
    rows
        Features of each label, as vectors with a norm of 0 (no features) to 1. The similarity of
        two perturbations is the product of their rows.
    effects
        Shrunk effects in another screen, in units of the data; unknown effects have its mean.
    observed
        The same effects before shrinkage.
    precision
        Their precisions (one over the squared standard error), 0 if unknown.
    """

    perturbations: list[str] = texts("n_features")
    rows: Array = array("n_features", "rank", dtype=np.float32)
    effects: Array | None = array("n_features", "n_nodes", optional=True)
    observed: Array | None = array("n_features", "n_nodes", optional=True)
    precision: Array | None = array("n_features", "n_nodes", optional=True)

    @cached_property
    def place(self) -> dict[str, int]:
        """Row of every label."""
        return {name: i for i, name in enumerate(self.perturbations)}

    def of(self, labels: Sequence[str]) -> Array:
        """Return the features of labels, 0 for labels without features, ``(n_labels, rank)``."""
        # Row -1 is for unknown labels.
        padded = np.vstack([self.rows, np.zeros((1, self.rows.shape[1]))])
        return padded[[self.place.get(label, -1) for label in labels]]

    def measured(self, labels: Sequence[str]) -> tuple[Array, Array] | None:
        """Return effects of labels as measured in the other screen, and their precisions.

        Both have the shape ``(n_labels, n_genes)``, 0 if unknown; ``None`` if no effect is known.
        """
        if self.observed is None or self.precision is None:
            return None
        rows = [self.place.get(label, -1) for label in labels]
        none = np.zeros((1, self.observed.shape[1]))
        effects, precision = (
            np.vstack([values, none])[rows] for values in (self.observed, self.precision)
        )
        return (effects, precision) if precision.any() else None


@dataclass(frozen=True)
class Sources:
    """Sources of predictors besides the cells of a screen.

    Parameters
    ----------
    weights
        ``B`` of the graph, row = child, shape ``(n_genes, n_genes)``.
    held_out_weights
        Pairs of some perturbations and a matrix ``B`` that was learned without their cells.
    features
        Side information about perturbations; ``None`` if not given.
    together
        Effects of combinations predicted from members; ``None`` without combinations.
    """

    weights: Array | None = None
    held_out_weights: Sequence[tuple[Index, Array]] = ()
    features: SideInformation | None = None
    together: CombinationPrediction | None = None

    @property
    def other_screen(self) -> SideInformation | None:
        """Side information with effects in another screen; ``None`` if it has no effects."""
        information = self.features
        return None if information is None or information.effects is None else information


class Predictor(ABC):
    """Predicts perturbations from a screen without their cells."""

    name: ClassVar[str]
    order: ClassVar[int] = 100  # position in tables, in ascending order
    by_change: ClassVar[bool] = True  # whether the change of target genes is used
    # Sources that are its arguments; it is created if at least one is given, or if it needs none.
    draws_on: ClassVar[tuple[str, ...]] = ()
    # Whether it is an average of measured effects, the same for every candidate: a baseline, which
    # shares the sampling error of the controls' mean.
    is_average: ClassVar[bool] = False
    # Whether the prior mean of perturbations with cells includes it (with the weights learned
    # without them); its predictions must not depend on the screen.
    predicts_measured: ClassVar[bool] = False

    @abstractmethod
    def predict(self, screen: Perturbations, candidates: Perturbations) -> Prediction:
        """Return the effects of candidates.

        Parameters
        ----------
        screen
            The perturbations from which it learns.
        candidates
            The perturbations to predict, and the change of their target genes.
        """

    @classmethod
    def over_graphs(
        cls,
        posteriors: Sequence[DagBlr],
        screen: Perturbations,
        candidates: Perturbations,
        features: SideInformation | None = None,
    ) -> Array:
        """Return the effects of candidates, averaged over graphs; for those that draw on weights.

        ``candidates`` have the change of their target genes; shape ``(n_perturbations, n_genes)``.
        """
        effects = np.zeros((len(candidates.targets), candidates.moments.n_nodes))
        for blr in posteriors:
            sources = Sources(blr.mean().toarray(), features=features)
            of_graph = cls(*(getattr(sources, name) for name in cls.draws_on))
            effects += of_graph.predict(screen, candidates).effects / len(posteriors)
        return effects

    def held_out(self, screen: Perturbations) -> Prediction:
        """Return predictions for a screen's perturbations, each without its own cells.

        Each perturbation is left out separately, or in blocks if there are more than 100. They are
        predicted like candidates, so that the scores apply to predictions of candidates.
        """
        n = len(screen.targets)
        size = n * screen.moments.n_nodes
        effects, shared = np.zeros((2, n, screen.moments.n_nodes), table_type(size))
        n_blocks = _BLOCKS if size <= ENOUGH_EFFECTS else _BLOCKS_OF_LARGE_SCREENS
        # Predicted without their own cells, like candidates.
        for block in np.array_split(np.arange(n), max(n if n <= _SINGLY else n_blocks, 1)):
            block_of = self.predict(screen.without(block), screen.some(block))
            effects[block] = block_of.effects
            if block_of.shared is not None:
                shared[block] = block_of.shared
        return Prediction(self.name, effects, shared)


_PREDICTORS: Registry[type[Predictor]] = Registry("nextpert.core.model.predictors", "a predictor")
Kind = TypeVar("Kind", bound="type[Predictor]")


def predictor(name: str) -> Callable[[Kind], Kind]:
    """Register a class of predictor under a name.

    Raises
    ------
    ValueError
        If another class already has the name.

    Examples
    --------
    >>> from nextpert.core.model.predictors.base import Predictor, predictor, predictors
    >>> [kind.name for kind in predictors()][:3]
    ['graph', 'coexpression', 'mean perturbation']
    """
    return _PREDICTORS.named(name)


def predictors() -> list[type[Predictor]]:
    """Return all classes of predictors, in the order of tables."""
    return sorted(_PREDICTORS.every().values(), key=lambda kind: kind.order)


def names_of(has: Callable[[type[Predictor]], bool]) -> list[str]:
    """Return the names of the predictors with a property, in the order of tables.

    Examples
    --------
    >>> from nextpert.core.model.predictors.base import names_of
    >>> names_of(lambda kind: "weights" in kind.draws_on), names_of(lambda kind: kind.is_average)
    (['graph'], ['mean perturbation'])
    """
    return [kind.name for kind in predictors() if has(kind)]


def build_predictors(sources: Sources) -> list[Predictor]:
    """Return the predictors for which the required sources are given."""
    built = []
    # A predictor without sources is always built, others if at least one source is given.
    for kind in predictors():
        arguments = [getattr(sources, name) for name in kind.draws_on]
        if not arguments or any(argument is not None for argument in arguments):
            built.append(kind(*arguments))
    return built


def by_slopes(name: str, candidates: Perturbations, slopes: Sequence[Array]) -> Prediction:
    """Return slopes times changes of target genes, summed over the targets of a perturbation.

    ``slopes`` has one array per perturbation, of shape ``(n_genes, n_targets)``: the effects of a
    unit change of each target on every gene.
    """
    change, n = candidates.observed, candidates.n
    # Whether a change was measured.
    error = np.broadcast_to(n[:, None] > 0, change.shape)
    if candidates.change is not None:
        known_change = np.asarray(candidates.change, np.float64)
        error = error & np.isnan(known_change)
        change = np.where(np.isnan(known_change), change, known_change)
    effects, shared = np.zeros((2, *change.shape))
    # Covariance of the sampling errors of two genes in a mean: Sigma_ik divided by cells.
    within = candidates.moments.scatter / candidates.freedom
    of_control = 1 / candidates.moments.n[candidates.control]
    batches = (candidates.batch_errors**2).sum(axis=1)
    for j, (genes, slope) in enumerate(zip(candidates.targets, slopes, strict=True)):
        k = list(genes)
        effects[j] = slope @ change[j, k]
        # Cov(slope change_k, y_i) = slope Sigma_ik (1 / n_j + 1 / n_0 + batches).
        error_variance = np.where(error[j, k], 1 / max(int(n[j]), 1) + of_control + batches[j], 0.0)
        shared[j] = np.einsum("ik,ik->i", slope, error_variance * within[:, k])
    is_target = candidates.own()
    effects[is_target] = shared[is_target] = 0.0
    return Prediction(name, effects, shared)
