"""How far the means of guides, or replicates, of one thing scatter beyond sampling."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import chi2

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.cells.screen_moments import ScreenMoments

_FEWEST = 2  # degrees of freedom; with fewer nothing is learned


class _MeanSquares(NamedTuple):
    """Mean squares between the environments of a block and within them, one value a node.

    ``freedom`` are their degrees of freedom, ``size`` the cells of an environment, as they count
    between environments, and ``varies`` the nodes that vary within.
    """

    between: NDArray[np.float64]
    within: NDArray[np.float64]
    varies: NDArray[np.bool_]
    freedom: tuple[int, int]
    size: float


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
    found = _mean_squares(screen, blocks)
    if found is None:
        return 0.0
    freedom = found.freedom[0]
    ratio = found.between[found.varies] / found.within[found.varies]
    null = float(chi2.median(freedom) / freedom)
    return float(max(np.median(ratio) / null - 1.0, 0.0) / found.size)


def spread_p_value(screen: ScreenMoments, blocks: ArrayLike) -> float:
    """Return the p-value of no spread within blocks beyond sampling, over all nodes together.

    The mean over nodes of the mean square between environments over that within is, if cells are
    independent, about a scaled chi-square, whose degrees of freedom the correlations of the nodes
    within environments set (Box 1954, doi:10.1214/aoms/1177728786). Unlike the median of
    :func:`spread_within` it also sees environments that differ in few nodes.

    Parameters
    ----------
    screen, blocks
        As in :func:`spread_within`.

    Returns
    -------
    float
        NaN where fewer than 2 degrees of freedom are left, or no node varies.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> from nextpert.core.cells.spread_within import spread_p_value
    >>> rng = np.random.default_rng(0)
    >>> guide = np.arange(2000) % 20
    >>> x = rng.normal(size=(2000, 50))
    >>> spread_p_value(ScreenMoments.from_array(x, guide, 20), np.arange(20) % 5) > 0.05
    True
    >>> x += 0.3 * rng.normal(size=(20, 50))[guide]
    >>> spread_p_value(ScreenMoments.from_array(x, guide, 20), np.arange(20) % 5) < 1e-6
    True
    """
    found = _mean_squares(screen, blocks)
    if found is None or found.freedom[1] <= _FEWEST:
        return float("nan")
    freedom, rest = found.freedom
    kept = np.flatnonzero(found.varies)
    # An F ratio has a mean above 1, by the error of its denominator.
    ratio = (1.0 - 2.0 / rest) * found.between[kept] / found.within[kept]
    scatter = screen.scatter[np.ix_(kept, kept)]
    root = np.sqrt(scatter.diagonal())
    squares = float(((scatter / np.outer(root, root)) ** 2).sum())  # of correlations
    n = len(kept)
    return float(chi2.sf(freedom * n * ratio.sum() / squares, freedom * n**2 / squares))


def _mean_squares(screen: ScreenMoments, blocks: ArrayLike) -> _MeanSquares | None:
    """Return the mean squares; ``None`` where nothing can be learned from them."""
    given = np.asarray(blocks, np.int64)
    index = np.flatnonzero((given >= 0) & (screen.n > 1))
    _, block, members = np.unique(given[index], return_inverse=True, return_counts=True)
    kept = members[block] > 1
    index, block = index[kept], np.unique(block[kept], return_inverse=True)[1]
    n_blocks = int(block.max(initial=-1)) + 1
    freedom = len(index) - n_blocks
    if freedom < _FEWEST:
        return None
    n = screen.n[index].astype(np.float64)
    total = np.bincount(block, n)
    mean = np.zeros((n_blocks, screen.n_nodes))
    np.add.at(mean, block, n[:, None] * screen.mean[index])
    mean /= total[:, None]
    between = (n[:, None] * (screen.mean[index] - mean[block]) ** 2).sum(axis=0) / freedom
    rest = int((screen.n[index] - 1).sum())
    within = screen.squares[index].sum(axis=0) / rest
    varies = within > 0
    if not varies.any():
        return None
    size = (n.sum() - (np.bincount(block, n**2) / total).sum()) / freedom
    return _MeanSquares(between, within, varies, (freedom, rest), float(size))
