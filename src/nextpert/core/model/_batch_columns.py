"""What batches leave in means, as columns of a regression; and regressions that hold columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]

# Squared singular values, relative to the noise of perturbations, of columns that are kept: at
# least so much, and this share of the value above which a direction of n perturbations and p genes
# stands out of noise, sqrt(n / p) (Baik, Ben Arous and Peche 2005). What is below that no
# perturbations share to a degree that could be taken for a program.
_LEAST, _SHARE = 0.1, 0.5


def batch_columns(cells: PooledGuides) -> tuple[Array, Array]:
    """Return the columns of errors that batches leave in effects, and what is left beside them.

    In coordinates that are not correlated over perturbations. In units of the noise of a cell; the
    coefficients of a column have the covariance of a cell.

    Parameters
    ----------
    cells
        The controls, and then the perturbations.

    Returns
    -------
    tuple of ndarray
        Columns that perturbations share, shape ``(n_perturbations, n_columns)``; and the variance
        of what is left, which counts as noise of each, shape ``(n_perturbations,)``.
    """
    apart = cells.fixed_errors[1:] - cells.fixed_errors[:1]
    size, turn = np.linalg.svd(np.sqrt(cells.n[1:, None]) * apart, full_matrices=False)[1:]
    turned = apart @ turn.T
    kept = size**2 > max(_LEAST, _SHARE * np.sqrt(len(apart) / cells.mean.shape[1]))
    return turned[:, kept], (turned[:, ~kept] ** 2).sum(axis=1)


class Columns(NamedTuple):
    """The coefficients of columns in stacked regressions, given those of ``m`` other terms.

    Parameters
    ----------
    by
        What they fall by for a unit of each other term, shape ``(..., n_columns, m)``.
    at
        Their means where these are 0, shape ``(..., n_columns)``.
    root
        Cholesky factor of their precision, shape ``(..., n_columns, n_columns)``.
    """

    by: Array
    at: Array
    root: Array

    @classmethod
    def integrated(cls, block: Array, cross: Array, right: Array) -> tuple[Columns, Array, Array]:
        """Return them, and what integrating them out takes from the other terms.

        Parameters
        ----------
        block, cross
            Precision of the coefficients, ``(..., n_columns, n_columns)``, and what couples them to
            other terms, ``(..., n_columns, m)``.
        right
            Their right-hand side, shape ``(..., n_columns)``.

        Returns
        -------
        tuple
            The columns, and what is to be subtracted from the precision of the other terms,
            ``(..., m, m)``, and from their right-hand side, ``(..., m)``.
        """
        solved = np.linalg.solve(block, np.concatenate([cross, right[..., None]], axis=-1))
        less = np.swapaxes(cross, -1, -2) @ solved
        root: Array = np.linalg.cholesky(block).astype(np.float64, copy=False)
        return cls(solved[..., :-1], solved[..., -1], root), less[..., :-1], less[..., -1]

    def draw(self, others: Array, rng: np.random.Generator) -> Array:
        """Return a draw given the other terms, ``(..., m)``; shape ``(..., n_columns)``."""
        normal = rng.standard_normal((*self.at.shape, 1))
        chance = np.linalg.solve(np.swapaxes(self.root, -1, -2), normal)
        return np.asarray(self.at + (chance - self.by @ others[..., None])[..., 0])
