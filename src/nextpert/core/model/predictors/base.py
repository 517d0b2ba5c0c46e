"""What a predictor is: effects of perturbations whose own cells it has not seen.

The change of target genes is the matter of the efficacy: every predictor leaves them at 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from nextpert.core._codec import array, table_type, texts
from nextpert.core._registry import Registry
from nextpert.core.model.perturbations import ENOUGH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from nextpert.core.model.interactions import Together
    from nextpert.core.model.perturbations import Perturbations

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

_SINGLY = 100  # up to so many perturbations each is left out by itself
_BLOCKS = 20  # more of them are left out in so many blocks, each of which costs one pass
_FEW_BLOCKS = 5  # of more effects than are enough to learn from


@dataclass(frozen=True)
class Prediction:
    """Effects that one predictor expects.

    Parameters
    ----------
    name
        The predictor, such as ``"graph"``.
    effects
        Expected effect of every perturbation on every gene, its own cells left out, shape
        ``(n_perturbations, n_genes)``, units of the data; 0 for target genes, and where the
        predictor has nothing to say.
    shared
        Covariance of these numbers with the sampling error of the observed effects, same shape:
        the controls are common to all effects, and a change of a target gene that was measured
        errs together with the genes coexpressed with it. Unless it is taken off, a predictor gets
        weight for predicting noise. ``None`` for none.
    fixed
        Whether the effects are taken as they are (weight 1), where others are silent.
    most
        Largest weight that it may get, 0 to 1.
    """

    name: str
    effects: Array
    shared: Array | None = None
    fixed: bool = False
    most: float = 1.0


@dataclass(frozen=True)
class SideInformation:
    """What is known of perturbations besides the cells of a screen.

    Parameters
    ----------
    perturbations
        Labels with side information, of this screen and of any others.
    rows
        Features of each, of length 0 (none are known) to 1. The similarity of two perturbations is
        the product of their rows.
    effects
        Effects in another screen, shrunk, its mean where unknown, in units of the data.
    observed
        These effects as they were observed.
    precision
        Their precisions (one over the squared standard error), 0 where unknown.
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
        """Return the features of labels, 0 where none are known, ``(n_labels, rank)``."""
        # Row -1 is of labels that are not known.
        padded = np.vstack([self.rows, np.zeros((1, self.rows.shape[1]))])
        return padded[[self.place.get(label, -1) for label in labels]]

    def measured(self, labels: Sequence[str]) -> tuple[Array, Array] | None:
        """Return effects of labels as measured in the other screen, and their precisions.

        Each of shape ``(n_labels, n_genes)``, 0 where unknown; ``None`` if none is measured.
        """
        if self.observed is None or self.precision is None:
            return None
        which = [self.place.get(label, -1) for label in labels]
        none = np.zeros((1, self.observed.shape[1]))
        effects, precision = (
            np.vstack([each, none])[which] for each in (self.observed, self.precision)
        )
        return (effects, precision) if precision.any() else None


@dataclass(frozen=True)
class Sources:
    """What predictors draw on besides the cells of a screen.

    Parameters
    ----------
    weights
        ``B`` of the graph, row = child, shape ``(n_genes, n_genes)``.
    held_out_weights
        Perturbations, and such a matrix that was learned without their cells.
    features
        Side information about perturbations; ``None`` where none is given.
    together
        What members of combinations do together; ``None`` where there are no combinations.
    """

    weights: Array | None = None
    held_out_weights: Sequence[tuple[Index, Array]] = ()
    features: SideInformation | None = None
    together: Together | None = None

    @property
    def other_screen(self) -> SideInformation | None:
        """Side information with effects in another screen; ``None`` where there are none."""
        known = self.features
        return None if known is None or known.effects is None else known


class Predictor(ABC):
    """Predicts perturbations from a screen that lacks their cells."""

    name: ClassVar[str]
    order: ClassVar[int] = 100  # where it stands in tables, the smallest first
    by_change: ClassVar[bool] = True  # whether the change of target genes is read
    # Sources that it is created with, if they have one of them; all perturbations if it needs none.
    draws_on: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def predict(self, screen: Perturbations, candidates: Perturbations) -> Prediction:
        """Return the effects of candidates.

        Parameters
        ----------
        screen
            The perturbations that it learns from.
        candidates
            The perturbations that are asked for, and the change of their target genes.
        """

    def held_out(self, screen: Perturbations) -> Prediction:
        """Return what it predicts of a screen's perturbations, each without its own cells.

        Each is left out by itself, and more than 100 in blocks. They are asked for as any
        candidates are, so what is scored here is what is handed out.
        """
        n = len(screen.targets)
        size = n * screen.moments.n_nodes
        effects, shared = np.zeros((2, n, screen.moments.n_nodes), table_type(size))
        many = _BLOCKS if size <= ENOUGH else _FEW_BLOCKS
        # Scored without their own cells, as candidates are predicted.
        for block in np.array_split(np.arange(n), max(n if n <= _SINGLY else many, 1)):
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
        If another class has the name.

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


def build_predictors(sources: Sources) -> list[Predictor]:
    """Return the predictors that have something to say, given what they can draw on."""
    built = []
    # Those that need no source always speak, others where one of theirs is given.
    for kind in predictors():
        held = [getattr(sources, name) for name in kind.draws_on]
        if not held or any(each is not None for each in held):
            built.append(kind(*held))
    return built


def by_slopes(name: str, candidates: Perturbations, slopes: Sequence[Array]) -> Prediction:
    """Return slopes times changes of target genes, summed over the targets of a perturbation.

    ``slopes`` are the effects of a unit change of each target on every gene, by perturbation, each
    of shape ``(n_genes, n_targets)``.
    """
    change, n = candidates.observed, candidates.n
    # Whether a change was measured.
    error = np.broadcast_to(n[:, None] > 0, change.shape)
    if candidates.change is not None:
        given = np.asarray(candidates.change, np.float64)
        error = error & np.isnan(given)
        change = np.where(np.isnan(given), change, given)
    effects, shared = np.zeros((2, *change.shape))
    # Sampling errors of two genes of one mean: Sigma_ik over the cells.
    within = candidates.moments.scatter / candidates.freedom
    of_control = 1 / candidates.moments.n[candidates.control]
    batches = (candidates.batch_errors**2).sum(axis=1)
    for j, (genes, slope) in enumerate(zip(candidates.targets, slopes, strict=True)):
        k = list(genes)
        effects[j] = slope @ change[j, k]
        # Cov(slope change_k, y_i) = slope Sigma_ik (1 / n_j + 1 / n_0 + batches).
        each = np.where(error[j, k], 1 / max(int(n[j]), 1) + of_control + batches[j], 0.0)
        shared[j] = np.einsum("ik,ik->i", slope, each * within[:, k])
    own = candidates.own()
    effects[own] = shared[own] = 0.0
    return Prediction(name, effects, shared)
