"""How cells, guides and replicates of a screen scatter, and how many cells are controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.screen.guides import PooledGuides, pool_guides, spread_within

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.screen.screen import ScreenMoments

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    r"""Guides and replicates of a perturbation, its cells evenly over both.

    The mean of ``n`` cells in ``g`` guides and ``r`` replicates scatters by

    .. math:: \sigma^2 (1/n + \tau_g^2 / g + \tau_r^2 / r),

    so that cells alone never bring it below ``floor``. What a replicate does to all cells alike,
    controls included, is no part of it: it cancels in a difference to its own controls.

    Parameters
    ----------
    n_guides, n_replicates
        Guides of the perturbation, and replicates (batches) that hold its cells.
    guide_variance, replicate_variance
        ``tau_g^2`` and ``tau_r^2``: variance of a guide, and of a replicate of a perturbation, over
        that of a cell.

    Examples
    --------
    >>> from nextpert.core.design.cell_numbers import Layout
    >>> layout = Layout(2, guide_variance=0.02)
    >>> layout.spread([50, 100]).round(3).tolist(), layout.cells_for([0.02, 0.01]).tolist()
    ([0.03, 0.02], [100.0, inf])
    """

    n_guides: int = 1
    n_replicates: int = 1
    guide_variance: float = 0.0
    replicate_variance: float = 0.0

    @property
    def floor(self) -> float:
        """Variance of a mean of endlessly many cells, over that of a cell."""
        return self.guide_variance / self.n_guides + self.replicate_variance / self.n_replicates

    def spread(self, n_cells: ArrayLike) -> Array:
        """Return the variance of a mean of so many cells, over that of a cell."""
        return 1 / np.asarray(n_cells, np.float64) + self.floor

    def cells_for(self, spread: ArrayLike) -> Array:
        """Return the least cells, one per guide at least, that bring the spread so low.

        Infinite where none do.
        """
        spare = np.asarray(spread, np.float64) - self.floor
        cells = np.ceil(1 / np.where(spare > 0, spare, 1.0) * (1 - 1e-12))
        return np.where(spare > 0, np.maximum(cells, float(self.n_guides)), np.inf)

    def guides_for(self, spread: ArrayLike) -> Array:
        """Return the least guides with which some number of cells brings the spread so low.

        Infinite where the replicates by themselves exceed it.
        """
        spare = np.asarray(spread, np.float64) - self.replicate_variance / self.n_replicates
        guides = np.floor(self.guide_variance / np.where(spare > 0, spare, 1.0)) + 1
        return np.where(spare > 0, guides, np.inf)


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
        :func:`~nextpert.core.screen.guides.pool_guides`.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> from nextpert.core.design.cell_numbers import screen_noise
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


def dunnett_controls(total: float, k: int, seen: float = 0.0) -> float:
    """Return the control cells beside those seen that make ``k`` differences most precise.

    The variance of a difference between ``n`` perturbed cells and ``m`` controls is ``1/n + 1/m``
    in units of a cell's, which is least for ``m = sqrt(k) n`` (Dunnett 1955,
    doi:10.2307/2281208).

    Examples
    --------
    >>> from nextpert.core.design.cell_numbers import dunnett_controls
    >>> dunnett_controls(1200, 4)
    400.0
    """
    return float(max((total + seen) * k**0.5 / (k + k**0.5) - seen, 0.0))
