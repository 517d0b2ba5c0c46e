"""Perturbations of a screen, measured or only planned: observed effects and target genes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._blas import in_blocks
from nextpert.core._codec import array
from nextpert.core.model.within_cells import filled
from nextpert.core.screen.screen import ScreenMoments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

_POOLED_CELLS = 10  # weight, in cells, of the pooled variance in that of a perturbation
# Number of effects that suffices to learn a parameter common to all genes, such as the weight of a
# predictor.
ENOUGH_EFFECTS = 10_000_000


@dataclass(frozen=True)
class CellMeans:
    """Means of the cells of perturbations, with pooled guides.

    Parameters
    ----------
    n
        Effective numbers of cells, 0 for perturbations without cells, shape
        ``(n_perturbations,)``.
    mean
        Means of the cells, shape ``(n_perturbations, n_nodes)``, units of the data.
    ratio
        Variance of the cells divided by that of all cells, same shape.
    """

    n: Array = array("n_perturbations")
    mean: Array = array("n_perturbations", "n_nodes", is_table=True)
    ratio: Array = array("n_perturbations", "n_nodes", is_table=True)


@dataclass(frozen=True)
class Perturbations:
    """Perturbations of a screen, measured or only planned, and their target genes.

    Parameters
    ----------
    moments
        One environment per perturbation and one for the controls, without batch effects
        (:meth:`nextpert.core.ScreenMoments.without_fixed`, then ``pool``).
    control
        Environment of the controls.
    members
        Environment of every perturbation, -1 if it has no cells, shape ``(n_perturbations,)``.
    targets
        Measured target genes of every perturbation; none for enhancers, drugs and genes outside the
        panel.
    change
        Change of the target genes from which predictors start, shape
        ``(n_perturbations, n_genes)``; values of other genes are ignored. NaN, or ``None`` for all,
        stands for the observed change. For perturbations without cells, give the change expected
        from the efficacy.
    batches
        Errors of batch effects in the means, in units of a gene's standard deviation, shape
        ``(n_environments, n_columns)``
        (:attr:`~nextpert.core.screen.guides.PooledGuides.fixed_errors`); ``None`` (default):
        no errors.
    names
        Labels of the perturbations; may be empty if no predictor needs them.

    Raises
    ------
    ValueError
        If lengths differ, an environment or a gene does not exist, or there are no controls.
    """

    moments: ScreenMoments
    control: int
    members: ArrayLike
    targets: Sequence[Sequence[int]]
    change: ArrayLike | None = None
    batches: ArrayLike | None = None
    names: Sequence[str] = ()

    # Derived from the fields above.
    rows: NDArray[np.int64] = field(init=False)  # environments, -1 for none
    n: NDArray[np.int64] = field(init=False)  # cells of every perturbation
    sd: Array = field(init=False)  # of every gene among the controls, (n_genes,)
    control_variance: Array = field(init=False)  # of the controls' mean, common to all effects
    batch_errors: Array = field(init=False)  # in ``observed``, (n_perturbations, n_columns)
    freedom: int = field(init=False)  # degrees of freedom within environments
    within: Array = field(init=False)  # variance of every gene within them, (n_genes,)

    def __post_init__(self) -> None:
        moments, rows = self.moments, np.asarray(self.members, np.int64)
        n_control = int(moments.n[self.control])
        squares = np.asarray(moments.squares[self.control], np.float64)
        sd = np.sqrt(squares / (n_control - 1 if n_control > 1 else np.nan))
        freedom = max(int(moments.n.sum() - np.count_nonzero(moments.n)), 1)
        errors = np.zeros((len(rows), 0))
        if self.batches is not None:
            batches = np.asarray(self.batches, np.float64)
            # Errors of batches in a difference to the controls.
            errors = np.where(rows[:, None] >= 0, batches[rows] - batches[self.control], 0.0)
        vars(self).update(
            rows=rows,
            n=np.where(rows >= 0, moments.n[rows], 0),
            sd=sd,
            control_variance=sd**2 / n_control,
            batch_errors=errors,
            freedom=freedom,
            within=moments.scatter.diagonal() / freedom,
        )

    @property
    def unit(self) -> Array:
        """Standard deviation of every gene within environments; the median if it does not vary."""
        return np.asarray(np.sqrt(filled(self.within)))

    @property
    def observed(self) -> Array:
        """Means minus the controls' mean, ``(n_perturbations, n_genes)``; 0 without cells."""
        # Index -1, for no cells, selects an arbitrary row, which is set to 0.
        effects = self.moments.mean[self.rows]
        effects -= self.moments.mean[self.control]
        effects[self.n == 0] = 0.0
        return effects

    @property
    def variance(self) -> Array:
        """Sampling variance of :attr:`observed`, including the controls; infinite without cells."""
        variance, errors = self.own_variance(), (self.batch_errors**2).sum(axis=1)[:, None]
        of_control, squared = self.control_variance, self.sd**2
        for rows in in_blocks(*variance.shape):
            variance[rows] = variance[rows] + of_control + squared * errors[rows]
        return variance

    def some(self, index: ArrayLike) -> Perturbations:
        """Return some of the perturbations, in the given order."""
        selected = np.asarray(index, np.int64)
        targets = [self.targets[j] for j in selected.tolist()]
        change = None if self.change is None else np.asarray(self.change, np.float64)[selected]
        names = [self.names[j] for j in selected.tolist()] if self.names else ()
        return replace(
            self, members=self.rows[selected], targets=targets, change=change, names=names
        )

    def without(self, index: ArrayLike) -> Perturbations:
        """Return the other perturbations of the screen, with moments without these cells.

        The pooled scatter, which is not known by environment, is reduced in proportion to the
        cells.
        """
        left_out = np.zeros(len(self.rows), bool)
        left_out[np.asarray(index, np.int64)] = True
        # Remove environments of perturbations left out, and renumber the others.
        removed = np.unique(self.rows[left_out & (self.rows >= 0)])
        remaining = np.setdiff1d(np.arange(self.moments.n_environments), removed)
        new_index = np.full(self.moments.n_environments + 1, -1)
        new_index[remaining] = np.arange(len(remaining))
        remaining_perturbations = self.some(np.flatnonzero(~left_out))
        batches = None if self.batches is None else np.asarray(self.batches, np.float64)[remaining]
        return replace(
            remaining_perturbations,
            moments=self.moments.some(remaining),
            control=int(new_index[self.control]),
            members=new_index[remaining_perturbations.rows],
            batches=batches,
        )

    def own_variance(self) -> Array:
        """Return the sampling variance of the perturbations' own means.

        It is estimated from the scatter of their own cells, shrunk towards the pooled variance with
        the weight of ten cells.
        """
        moments, pooled, cells = self.moments, self.within, self.n[:, None]
        variance = np.empty((len(self.rows), len(pooled)), moments.mean.dtype)
        for rows in in_blocks(*variance.shape):
            n = cells[rows]
            if moments.counted is None:
                # (squares + 10 pooled variances) / (n - 1 + 10), over n.
                freedom = np.maximum(n - 1, 0) + _POOLED_CELLS
                spread = moments.squares[self.rows[rows]] + _POOLED_CELLS * pooled
                with_cells = spread / freedom / np.maximum(n, 1)
            else:
                counted = moments.counted[self.rows[rows]]
                with_cells = np.full(counted.shape, np.inf)
                np.divide(pooled, counted, out=with_cells, where=counted > 0)
            variance[rows] = np.where(n > 0, with_cells, np.inf)
        return variance

    def own(self) -> NDArray[np.bool_]:
        """Whether a perturbation targets a gene, ``(n_perturbations, n_genes)``."""
        mask = np.zeros((len(self.targets), self.moments.n_nodes), bool)
        for row, genes in zip(mask, self.targets, strict=True):
            row[list(genes)] = True
        return mask

    def scored(self) -> NDArray[np.bool_]:
        """Whether weights are learned from an effect: it is measured, on a varying non-target."""
        # Target genes determine the efficacy; constant genes have no scale.
        is_scored = self.n[:, None] > 0
        if self.moments.counted is not None:
            is_scored = is_scored & (self.moments.counted[self.rows] > 0)
        return is_scored & ~self.own() & (self.sd > 0)
