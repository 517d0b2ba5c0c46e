"""How the cells of a perturbation are spread over guides and replicates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

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
    >>> from nextpert.core.plan.layout import Layout
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
        """Return the least cells, one a guide at least, that bring the spread so low.

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
