"""Differences between the levels of a column, such as batches, within blocks of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import chi2

from nextpert.core._blas import one_thread

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.screen.screen import ScreenMoments

    Array = NDArray[np.float64]

_RANK = 1e-9  # eigenvalues below this share of the largest are treated as 0
_MIN_EXPECTED_CELLS = 5  # cells of a level, for the approximation by a chi-square distribution


class LevelEffects(NamedTuple):
    """Additive effects of the levels of a column, estimated and tested within blocks.

    ``p_value`` is that of no effect on any node. ``effects``, shape ``(n_levels, n_nodes)``, are in
    standard deviations of a cell, and ``inverse``, shape ``(n_levels, n_levels)``, is their
    covariance without effects, the same for every node. ``excess`` is the part of the variance of a
    cell that the levels explain beyond chance, the mean over nodes.
    """

    p_value: float
    excess: float
    effects: Array
    inverse: Array

    def squared_shifts(self, shares: ArrayLike) -> Array:
        """Return unbiased squared effects of differences in composition, for every node.

        Each row of ``shares`` is the difference of two groups in their shares of the levels. The
        result, shape ``(n_rows, n_nodes)``, is in units of the variance of a cell, and can be
        below 0.
        """
        rows = np.asarray(shares, np.float64)
        noise = np.einsum("ij,jk,ik->i", rows, self.inverse, rows)
        return np.asarray((rows @ self.effects) ** 2 - noise[:, None])


@one_thread()
def level_effects(
    screen: ScreenMoments, blocks: ArrayLike, levels: ArrayLike, n_levels: int
) -> LevelEffects | None:
    r"""Test whether levels that are dealt at random within blocks have an effect on any node.

    With indicators :math:`z_i` of the levels of cells, centred within blocks, the scores are
    :math:`u_g = \sum_i z_i x_{ig}`. If levels had been dealt at random to the cells of a block, the
    covariance of the scores would be :math:`\sum_b s_{bg}^2 C_b`, with :math:`C_b = \sum_{i \in b}
    z_i z_i'` and the variance :math:`s_{bg}^2` of the cells of the block, whatever the distribution
    of cells and the differences between blocks (perturbations). With the mean
    :math:`\bar s_g^2` of these variances, weighted by :math:`\operatorname{tr} C_b`, the statistic
    :math:`\sum_g u_g' C^+ u_g / \bar s_g^2` is a sum of chi-square variables with weights, the
    eigenvalues of the nodes' correlation matrix. It is compared with a chi-square variable of the
    same mean, variance and skewness (Pearson's approximation, Imhof 1961,
    doi:10.1093/biomet/48.3-4.419), because coexpressed genes are not independent tests.

    Parameters
    ----------
    screen
        Moments of the environments, each with cells of one block and one level.
    blocks, levels
        Block and level of every environment, 0 or above.
    n_levels
        Number of levels.

    Returns
    -------
    LevelEffects or None
        ``None`` if no block has cells of two levels, or no node varies.
    """
    block = np.unique(np.asarray(blocks, np.int64), return_inverse=True)[1].ravel()
    level = np.asarray(levels, np.int64)
    n = screen.n.astype(np.float64)
    n_blocks = int(block.max(initial=-1)) + 1
    size = np.bincount(block, n, n_blocks)
    counts = np.zeros((n_blocks, n_levels))
    np.add.at(counts, (block, level), n)
    # C_b = diag(n_b) - n_b n_b' / N_b, its trace, and its sum over blocks.
    share = counts / np.maximum(size, 1.0)[:, None]
    trace = (counts * (1.0 - share)).sum(axis=1)
    gram = np.diag(counts.sum(axis=0)) - share.T @ counts
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    is_estimable = values > _RANK * max(values.max(initial=0.0), 1.0)
    rank = int(is_estimable.sum())
    if not rank:
        return None
    inverse = (vectors[:, is_estimable] / values[is_estimable]) @ vectors[:, is_estimable].T
    # Means and squares of all cells of a block.
    mean = np.zeros((n_blocks, screen.n_nodes))
    np.add.at(mean, block, n[:, None] * screen.mean)
    mean /= np.maximum(size, 1.0)[:, None]
    departure = screen.mean - mean[block]
    squares = np.zeros_like(mean)
    np.add.at(squares, block, screen.squares + n[:, None] * departure**2)
    weight = trace / np.maximum(size - 1.0, 1.0) / trace.sum()
    variance = weight @ squares
    varies = variance > 0
    if not varies.any():
        return None
    score = np.zeros((n_levels, screen.n_nodes))
    np.add.at(score, level, n[:, None] * departure)
    score = np.where(varies, score / np.sqrt(np.where(varies, variance, 1.0)), 0.0)[:, varies]
    effects = inverse @ score
    n_nodes = int(varies.sum())
    statistic = float((score * effects).sum())
    # Cumulants of the weighted sum: the traces of R, R^2 and R^3 of the correlation matrix R.
    scatter = screen.scatter[np.ix_(varies, varies)]
    root = np.sqrt(np.maximum(scatter.diagonal(), 1e-300))
    correlation = scatter / np.outer(root, root)
    square = correlation @ correlation
    second = rank * float((correlation**2).sum())
    third = rank * float((square * correlation).sum())
    freedom = second**3 / third**2
    standardised = (statistic - rank * n_nodes) / np.sqrt(2.0 * second)
    p_value = float(chi2.sf(freedom + standardised * np.sqrt(2.0 * freedom), freedom))
    excess = (statistic / n_nodes - rank) / max(float(size[trace > 0].sum()), 1.0)
    return LevelEffects(p_value, max(excess, 0.0), effects, inverse)


def independence_p_value(chosen: ArrayLike, others: ArrayLike) -> float:
    """Return the p-value that chosen cells are divided among levels as others of their stratum are.

    ``chosen`` and ``others`` are numbers of cells, shape ``(n_strata, n_levels)``. This is the
    generalised test of Mantel and Haenszel (Mantel 1963, doi:10.1080/01621459.1963.10500879), with
    the exact covariance of the counts if the chosen cells were drawn at random within strata.
    Levels in which fewer than five chosen cells are expected are merged. NaN if there are fewer
    than two levels.
    """
    chosen_counts = np.asarray(chosen, np.float64)
    counts = chosen_counts + np.asarray(others, np.float64)
    size, n = counts.sum(axis=1), chosen_counts.sum(axis=1)
    share = counts / np.maximum(size, 1.0)[:, None]
    expected = (n[:, None] * share).sum(axis=0)
    score = chosen_counts.sum(axis=0) - expected
    # Hypergeometric covariance: n (N - n) / (N - 1) (diag(p) - p p').
    factor = n * (size - n) / np.maximum(size - 1.0, 1.0)
    weighted = factor[:, None] * share
    covariance = np.diag(weighted.sum(axis=0)) - share.T @ weighted
    merged = np.eye(len(expected))[expected >= _MIN_EXPECTED_CELLS]
    rare = (expected < _MIN_EXPECTED_CELLS).astype(np.float64)
    if rare @ expected >= _MIN_EXPECTED_CELLS:
        merged = np.vstack([merged, rare])
    score, covariance = merged @ score, merged @ covariance @ merged.T
    values, vectors = np.linalg.eigh(covariance) if len(score) else (np.zeros(0), np.zeros((0, 0)))
    is_estimable = values > _RANK * max(values.max(initial=0.0), 1.0)
    if len(score) < 2 or not is_estimable.any():
        return float("nan")
    return float(
        chi2.sf(
            ((vectors[:, is_estimable].T @ score) ** 2 / values[is_estimable]).sum(),
            is_estimable.sum(),
        )
    )
