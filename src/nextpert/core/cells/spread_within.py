"""How far the means of guides, or replicates, of one thing scatter beyond sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from nextpert.core.cells.screen_moments import ScreenMoments

_FEWEST = 2  # degrees of freedom; with fewer nothing is learned


def spread_within(screen: ScreenMoments, blocks: ArrayLike) -> float:
    """Return how far environments of one block scatter beyond sampling, pooled over blocks.

    By the median over nodes of the mean square between environments over that within, which a
    few genes that the environments do change do not move.

    Parameters
    ----------
    screen
        Moments of the environments.
    blocks
        Block of every environment, whose means would be the same but for what is sought, shape
        ``(n_environments,)``; -1 for those to leave out.

    Returns
    -------
    float
        In units of the noise variance of a cell; 0 where they differ by no more than sampling, or
        where fewer than 2 degrees of freedom are left.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> from nextpert.core.cells.spread_within import spread_within
    >>> rng = np.random.default_rng(0)
    >>> guide = np.arange(4000) % 20
    >>> x = rng.normal(size=(4000, 50)) + 0.2 * rng.normal(size=(20, 50))[guide]
    >>> x += (guide % 5)[:, None]  # five perturbations of four guides each
    >>> 0.02 < spread_within(ScreenMoments.from_array(x, guide, 20), np.arange(20) % 5) < 0.06
    True
    """
    given = np.asarray(blocks, np.int64)
    index = np.flatnonzero((given >= 0) & (screen.n > 1))
    _, block, members = np.unique(given[index], return_inverse=True, return_counts=True)
    kept = members[block] > 1
    index, block = index[kept], np.unique(block[kept], return_inverse=True)[1]
    n_blocks = int(block.max(initial=-1)) + 1
    freedom = len(index) - n_blocks
    if freedom < _FEWEST:
        return 0.0
    n = screen.n[index].astype(np.float64)
    total = np.bincount(block, n)
    mean = np.zeros((n_blocks, screen.n_nodes))
    np.add.at(mean, block, n[:, None] * screen.mean[index])
    mean /= total[:, None]
    between = (n[:, None] * (screen.mean[index] - mean[block]) ** 2).sum(axis=0) / freedom
    within = screen.squares[index].sum(axis=0) / (n - 1).sum()
    varies = within > 0
    if not varies.any():
        return 0.0
    ratio = between[varies] / within[varies]
    null = float(chi2.median(freedom) / freedom)
    size = (n.sum() - (np.bincount(block, n**2) / total).sum()) / freedom
    return float(max(np.median(ratio) / null - 1.0, 0.0) / size)
