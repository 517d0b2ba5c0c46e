"""How far cells, guides and replicates of a screen scatter: what plans of cells are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.cells.pool_guides import PooledGuides, pool_guides
from nextpert.core.cells.spread_within import spread_within
from nextpert.core.plan.layout import Layout

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.cells.screen_moments import ScreenMoments

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class ScreenNoise:
    """The noise of a screen, by group: the controls are group 0, perturbations follow.

    Parameters
    ----------
    pooled
        Groups with their guides pooled.
    covariance
        Covariance of a cell within guides, over all groups, shape ``(n_nodes, n_nodes)``.
    guide_variance
        Variance of a guide of a perturbation over that of a cell.
    control_guide_variance
        The same of the guides of the controls.
    replicate_variance
        Variance of a replicate of a perturbation over that of a cell.
    n_guides, n_replicates
        Of every group, shape ``(n_groups,)``.
    """

    pooled: PooledGuides
    covariance: Array
    guide_variance: float
    control_guide_variance: float
    replicate_variance: float
    n_guides: NDArray[np.int64]
    n_replicates: NDArray[np.int64]

    def variance(self, group: int) -> Array:
        """Return the variance of a cell of a group, shape ``(n_nodes,)``."""
        return self.covariance.diagonal() * self.pooled.variance_ratio[group]

    @property
    def perturbed_variance(self) -> Array:
        """Variance of a perturbed cell, the mean over perturbations by cells that count."""
        weight = self.pooled.n[1:, None]
        mean = (weight * self.pooled.variance_ratio[1:]).sum(axis=0) / max(weight.sum(), 1e-300)
        return self.covariance.diagonal() * mean

    def cell_covariance(self, group: int) -> Array:
        """Return the covariance of a cell of a group, shape ``(n_nodes, n_nodes)``."""
        root = np.sqrt(self.pooled.variance_ratio[group])
        return self.covariance * np.outer(root, root)

    def layout(self, group: int) -> Layout:
        """Return guides and replicates of a group as they are in the screen."""
        return Layout(
            max(int(self.n_guides[group]), 1),
            max(int(self.n_replicates[group]), 1),
            self.guide_variance if group else self.control_guide_variance,
            self.replicate_variance,
        )

    def spread(self, group: int) -> float:
        """Return the variance of the mean of a group in the screen, over that of its cells."""
        replicates = self.replicate_variance / max(int(self.n_replicates[group]), 1)
        batches = float((self.pooled.fixed_errors[group] ** 2).sum())
        return 1 / max(float(self.pooled.n[group]), 1e-300) + replicates + batches

    @property
    def batch_error(self) -> float:
        """What batches add to the variance of the median perturbation's difference to controls.

        Over that of a cell, where cells to come are spread over batches as those of the screen.
        """
        return float(np.median(self.pooled.fixed_error()[1:]))


def screen_noise(
    screen: ScreenMoments,
    groups: ArrayLike,
    guides: ArrayLike,
    replicates: ArrayLike,
    n_groups: int,
    *,
    fixed_sd: ArrayLike = (),
) -> ScreenNoise:
    """Return how far cells, guides and replicates of a screen scatter.

    Guides of perturbations scatter for themselves, as they silence more or less; where no
    perturbation has two, those of the controls stand for them. A replicate is what is left of a
    batch once what it does to all cells alike is taken off.

    Parameters
    ----------
    screen
        Moments of the environments (group x guide x replicate), batches taken off; their columns
        may come after the nodes.
    groups, guides, replicates
        Of every environment, whole numbers of 0 or more, shape ``(n_environments,)``. Group 0 are
        the controls.
    n_groups
        Number of groups.
    fixed_sd
        Standard errors of the columns of batches, as in
        :func:`~nextpert.core.cells.pool_guides.pool_guides`.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> from nextpert.core.plan.screen_noise import screen_noise
    >>> x = np.random.default_rng(0).normal(size=(400, 2))
    >>> screen = ScreenMoments.from_array(x, np.arange(400) % 4, 4)
    >>> noise = screen_noise(screen, [0, 0, 1, 1], [0, 1, 2, 3], [0, 0, 0, 0], 2)
    >>> noise.n_guides.tolist(), noise.variance(1).round().tolist()
    ([2, 2], [1.0, 1.0])
    """
    group, batch = np.asarray(groups, np.int64), np.asarray(replicates, np.int64)
    of_guide = np.column_stack([group, np.asarray(guides, np.int64)])
    found, place = np.unique(of_guide, axis=0, return_inverse=True)
    place, own = place.ravel(), found[:, 0]
    augmented, genes = screen.pool(place, len(found)), np.arange(screen.n_nodes)
    genes = genes[: len(genes) - len(np.asarray(fixed_sd))]
    screen, each = screen.subset(genes), augmented.subset(genes)
    of_control = spread_within(each, np.where(own == 0, 0, -1))
    pairs = np.bincount(own, minlength=n_groups)
    several = (own > 0) & (pairs[own] > 1)
    of_guides = spread_within(each, np.where(several, own, -1)) if several.any() else of_control
    pooled = pool_guides(augmented, own, n_groups, guide_variance=of_guides, fixed_sd=fixed_sd)
    freedom = max(int(np.maximum(each.n - 1, 0).sum()), 1)
    batches = np.unique(np.column_stack([group, batch]), axis=0)[:, 0]
    return ScreenNoise(
        pooled,
        each.scatter / freedom,
        of_guides,
        of_control,
        spread_within(screen, place),
        pairs,
        np.bincount(batches, minlength=n_groups),
    )
