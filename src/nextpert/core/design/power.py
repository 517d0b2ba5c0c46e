"""Variances between cells, guides and replicates of a screen, and the precision they imply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.design.detection import Noise
from nextpert.core.design.effect_sizes import SIZES, EffectSizes
from nextpert.core.screen.guides import PooledGuides, pool_guides, spread_within

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.screen.departures import Coexpression
    from nextpert.core.screen.screen import ScreenMoments

    Array = NDArray[np.float64]

_TINY = float(np.finfo(float).tiny)
_MIN_SHARE_OF_OTHERS = 0.1  # minimum share of the information on a factor that other genes have


@dataclass(frozen=True)
class Layout:
    r"""Guides and replicates of a perturbation, with its cells spread evenly over both.

    The mean of ``n`` cells in ``g`` guides and ``r`` replicates has the variance

    .. math:: \sigma^2 (1/n + \tau_g^2 / g + \tau_r^2 / r),

    which more cells cannot lower below ``floor``, ``tau_g^2 / g + tau_r^2 / r``. The effect of a
    replicate on all of its cells, controls included, is not part of it, because it cancels in
    differences from controls of the same replicate.

    Parameters
    ----------
    n_guides, n_replicates
        Number of guides of the perturbation, and number of replicates (batches) that contain its
        cells.
    guide_variance, replicate_variance
        ``tau_g^2`` and ``tau_r^2``: variances of the effect of a perturbation between guides and
        between replicates, each relative to the variance between cells.

    Examples
    --------
    >>> from nextpert.core.design.power import Layout
    >>> Layout(2, guide_variance=0.02).floor
    0.01
    """

    n_guides: int = 1
    n_replicates: int = 1
    guide_variance: float = 0.0
    replicate_variance: float = 0.0

    @property
    def floor(self) -> float:
        """Variance of a mean of infinitely many cells, divided by that of a cell."""
        return self.guide_variance / self.n_guides + self.replicate_variance / self.n_replicates


@dataclass(frozen=True)
class ScreenNoise:
    """The noise of a screen, by group: the controls are group 0, followed by perturbations.

    ``pooled`` holds groups with pooled guides; ``covariance`` is that between cells within guides,
    over all groups. The variances between guides (of a perturbation, and of the controls) and
    between replicates are relative to that of a cell. ``n_guides`` and ``n_replicates`` are per
    group.
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
        """Variance of a perturbed cell, averaged over perturbations by effective cells.

        Without perturbations, it is the variance of a control cell.
        """
        if len(self.pooled.n) == 1:
            return self.variance(0)
        weight = self.pooled.n[1:, None]
        mean = (weight * self.pooled.variance_ratio[1:]).sum(axis=0) / max(weight.sum(), 1e-300)
        return self.covariance.diagonal() * mean

    def layout(self, group: int) -> Layout:
        """Return the guides and replicates of a group in the screen."""
        return Layout(
            max(int(self.n_guides[group]), 1),
            max(int(self.n_replicates[group]), 1),
            self.guide_variance if group else self.control_guide_variance,
            self.replicate_variance,
        )

    def planned(
        self,
        n_cells: float,
        layout: Layout,
        *,
        n_control: float,
        n_perturbations: int,
        cells: Coexpression,
        sizes: EffectSizes,
        per_cell: ArrayLike = 1.0,
    ) -> Noise:
        r"""Return the variance of the difference of a perturbation from the controls, by gene.

        That of a difference of means is :math:`v + v_0` (equation 35), with ``v`` of the cells of
        the perturbation and ``v_0`` of the controls. The model learns the means of the controls
        from perturbed cells too, so that ``v_0`` becomes smaller; and it estimates the part of the
        cells' noise that lies along factors of coexpression, which then counts only as far as the
        other genes do not determine it, or effects may lie along the factor (equation 41).

        Parameters
        ----------
        n_cells
            Cells per perturbation.
        layout
            Guides and replicates.
        n_control, n_perturbations
            Control cells and perturbations of the screen.
        cells
            Coexpression of the genes.
        sizes
            Effects of the perturbations.
        per_cell
            Noise of one cell relative to this screen, for other reads, ``(n_genes,)``.
        """
        ratio = self.variance(0) / np.maximum(self.perturbed_variance, _TINY)
        cell_error = np.asarray(per_cell) / n_cells + layout.floor
        of_controls = ratio * (np.asarray(per_cell) / n_control + self.layout(0).floor)
        # Batches of the median perturbation: new cells are divided among them as in the screen.
        of_batches = self.pooled.fixed_error()[1:]
        error = ratio * (float(np.median(of_batches)) if len(of_batches) else 0.0)
        means = cell_error + of_controls + error
        freedom = 1 / np.maximum(
            (cell_error / means) ** 2 / max(n_cells - 1, 1.0)
            + ((of_controls + error) / means) ** 2 / max(n_control - 1, 1.0),
            _TINY,
        )
        # 1 / (k + T) of the perturbations, averaged over their effects, informs the control.
        total = float(np.median(cell_error)) + SIZES
        informed = n_perturbations * float(sizes.classes @ sizes.mixtures @ (1 / total))
        kappa = cell_error + 1 / (1 / of_controls + informed) + error
        # gamma' C gamma without the gene itself, C = (Gamma' Psi^-1 Gamma / kappa + I / kappa)^-1.
        gamma, psi = cells.factors, cells.psi
        middle = float(np.median(kappa))
        precision = gamma.T @ (gamma / psi[:, None]) + np.eye(gamma.shape[1])
        leverage = ((gamma @ np.linalg.inv(precision)) * gamma).sum(axis=1)
        unknown = leverage / np.maximum(1 - leverage / psi, _MIN_SHARE_OF_OTHERS)
        # The part of noise along a factor that may be an effect: s kappa / (s + kappa).
        along = sizes.along
        mixed = (along / (along + middle)).mean() if along.size else 0.0
        model = kappa * (psi + unknown + mixed * (gamma**2).sum(axis=1))
        shape = psi.shape
        return Noise(
            np.broadcast_to(model, shape),
            np.broadcast_to(means, shape),
            np.broadcast_to(freedom, shape),
            n_perturbations,
        )


def screen_noise(
    screen: ScreenMoments,
    groups: ArrayLike,
    guides: ArrayLike,
    replicates: ArrayLike,
    n_groups: int,
    *,
    fixed_sd: ArrayLike = (),
) -> ScreenNoise:
    """Return the variances between cells, guides and replicates of a screen.

    The variance between guides is that between guides of one perturbation, which differ in
    efficacy; if no perturbation has two guides, it is that between control guides. The variance
    between replicates is that which remains after subtraction of each batch's effect on all of its
    cells.

    Parameters
    ----------
    screen
        Moments of the environments (group x guide x replicate), with batch effects subtracted;
        batch columns may follow the nodes.
    groups, guides, replicates
        Codes of every environment, whole numbers from 0. Group 0 holds the controls.
    n_groups
        Number of groups.
    fixed_sd
        Standard errors of batch columns (:func:`~nextpert.core.screen.guides.pool_guides`).

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> from nextpert.core.design.power import screen_noise
    >>> x = np.random.default_rng(0).normal(size=(400, 2))
    >>> screen = ScreenMoments.from_array(x, np.arange(400) % 4, 4)
    >>> noise = screen_noise(screen, [0, 0, 1, 1], [0, 1, 2, 3], [0, 0, 0, 0], 2)
    >>> noise.n_guides.tolist(), noise.variance(1).round().tolist()
    ([2, 2], [1.0, 1.0])
    """
    group, batch = np.asarray(groups, np.int64), np.asarray(replicates, np.int64)
    of_guide = np.column_stack([group, np.asarray(guides, np.int64)])
    group_and_guide, guide_index = np.unique(of_guide, axis=0, return_inverse=True)
    guide_index = guide_index.ravel()
    guide_group = group_and_guide[:, 0]
    augmented = screen.pool(guide_index, len(group_and_guide))
    genes = np.arange(screen.n_nodes - len(np.asarray(fixed_sd)))
    screen = screen.subset(genes)
    by_guide = augmented.subset(genes)
    of_control = spread_within(by_guide, np.where(guide_group == 0, 0, -1))
    pairs = np.bincount(guide_group, minlength=n_groups)
    is_replicated = (guide_group > 0) & (pairs[guide_group] > 1)
    of_guides = (
        spread_within(by_guide, np.where(is_replicated, guide_group, -1))
        if is_replicated.any()
        else of_control
    )
    pooled = pool_guides(
        augmented, guide_group, n_groups, guide_variance=of_guides, fixed_sd=fixed_sd
    )
    freedom = max(int(np.maximum(by_guide.n - 1, 0).sum()), 1)
    batches = np.unique(np.column_stack([group, batch]), axis=0)[:, 0]
    return ScreenNoise(
        pooled,
        by_guide.scatter / freedom,
        of_guides,
        of_control,
        spread_within(screen, guide_index),
        pairs,
        np.bincount(batches, minlength=n_groups),
    )
