"""All that graphs and fits need of a screen: every environment's mean, and one pooled scatter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert.core._checks import as_numbers
from nextpert.core._codec import array
from nextpert.core.cells._screen_part import Part, merge, screen_part
from nextpert.core.cells._sound import require_numbers
from nextpert.core.cells.moments import Moments, canonical_csr

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


_RANK = 1e-10  # singular values below this share of the largest are rounding


@dataclass(frozen=True)
class ScreenMoments:
    """Cells, means and variances of environments, and the scatter within all of them pooled.

    An environment is a group of cells that share perturbation, guide, batch and condition. The
    scatter about the environments' own means is pooled, so that 10,000 environments of 1,000
    genes take 168 MB where a matrix of each would take 80 GB.

    Parameters
    ----------
    n
        Number of cells of every environment, shape ``(n_environments,)``.
    mean
        Means, shape ``(n_environments, n_nodes)``, in the units of the data.
    squares
        Sums over an environment's cells of the squared deviation from its mean, shape
        ``(n_environments, n_nodes)``.
    scatter
        Sum over all cells of ``(x - mean)(x - mean)'``, the mean that of the cell's environment,
        shape ``(n_nodes, n_nodes)``.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> screen = ScreenMoments.from_array(x, np.arange(100) % 4, 4)
    >>> screen.n.tolist(), screen.scatter.shape
    ([25, 25, 25, 25], (3, 3))
    """

    n: NDArray[np.int64] = array("n_environments", whole=True, least=0)
    mean: NDArray[np.float64] = array("n_environments", "n_nodes")
    squares: NDArray[np.float64] = array("n_environments", "n_nodes", least=0)
    scatter: NDArray[np.float64] = array("n_nodes", "n_nodes")

    @classmethod
    def from_array(cls, x: Any, groups: ArrayLike, n_groups: int) -> ScreenMoments:
        """Return the moments of cells ``x``, shape ``(n_cells, n_nodes)``, dense or sparse.

        ``groups`` has the environment of every cell, below ``n_groups``; cells with -1 are left
        out.

        Raises
        ------
        ValueError
            If ``x`` is not a matrix of as many cells as ``groups``, or holds NaN or infinite
            values.
        """
        codes = np.asarray(groups, np.int64)
        if sp.issparse(x):
            require_numbers(x, "The matrix of cells")
        values = canonical_csr(x) if sp.issparse(x) else as_numbers(x, "The cells", copy=False)
        if values.ndim != 2 or codes.shape != values.shape[:1]:
            message = (
                f"Cells must be a matrix (n_cells, n_nodes) with one group a cell, but the shapes "
                f"are {values.shape} and {codes.shape}."
            )
            raise ValueError(message)
        if len(codes) and codes.max() >= n_groups:
            message = f"Group {codes.max()} is not below the number of groups, {n_groups}."
            raise ValueError(message)
        kept = codes >= 0
        return cls.from_part(screen_part(values[kept], codes[kept]), n_groups)

    @classmethod
    def from_part(cls, part: Part, n_groups: int) -> ScreenMoments:
        """Return the moments of ``n_groups`` environments from the sums of those with cells."""
        p = part.mean.shape[1]
        n = np.zeros(n_groups, np.int64)
        mean, squares = np.zeros((n_groups, p)), np.zeros((n_groups, p))
        n[part.groups], mean[part.groups], squares[part.groups] = part.n, part.mean, part.squares
        scatter = sum((part.scatter[k] for k in sorted(part.scatter)), start=np.zeros((p, p)))
        return cls(n, mean, squares, scatter)

    @property
    def n_environments(self) -> int:
        """Number of environments."""
        return len(self.n)

    @property
    def n_nodes(self) -> int:
        """Number of nodes (genes)."""
        return len(self.scatter)

    @property
    def variance(self) -> NDArray[np.float64]:
        """Variance within every environment, unbiased; nan below two cells."""
        freedom = np.where(self.n > 1, self.n - 1, np.nan)
        return self.squares / freedom[:, None]

    def __add__(self, other: ScreenMoments) -> ScreenMoments:
        """Add cells of the same environments."""
        if self.mean.shape != other.mean.shape:
            message = (
                f"Screens of {self.mean.shape} and {other.mean.shape} environments x nodes cannot "
                "be added."
            )
            raise ValueError(message)
        every, one = np.arange(self.n_environments), np.zeros(self.n_environments, np.int64)
        parts = (Part(every, one, s.n, s.mean, s.squares, {0: s.scatter}) for s in (self, other))
        return self.from_part(merge(*parts), self.n_environments)

    def subset(self, nodes: ArrayLike) -> ScreenMoments:
        """Return the moments of some nodes, in the order given."""
        index = np.asarray(nodes, np.int64)
        scatter = self.scatter[np.ix_(index, index)]
        return ScreenMoments(self.n, self.mean[:, index], self.squares[:, index], scatter)

    def pool(self, groups: ArrayLike, n_groups: int) -> ScreenMoments:
        """Return the moments of coarser environments: ``groups`` says which each becomes part of.

        What the means of the parts differ by becomes scatter within.
        """
        codes = np.asarray(groups, np.int64)
        if len(np.unique(codes)) == len(codes):  # another order, to the bit
            n = np.zeros(n_groups, np.int64)
            mean, squares = np.zeros((2, n_groups, self.n_nodes))
            n[codes], mean[codes], squares[codes] = self.n, self.mean, self.squares
            return ScreenMoments(n, mean, squares, self.scatter)
        members = _members(codes, n_groups)
        n = np.asarray(members @ self.n, np.int64)
        mean = members @ (self.n[:, None] * self.mean) / np.maximum(n, 1)[:, None]
        away = self.mean - mean[codes]
        weighted = away * self.n[:, None]
        squares = members @ (self.squares + weighted * away)
        between = weighted.T @ away
        return ScreenMoments(n, mean, squares, self.scatter + (between + between.T) / 2)

    def with_columns(self, columns: ArrayLike) -> ScreenMoments:
        """Return the moments with columns that are constant within environments as last nodes.

        ``columns``, shape ``(n_environments, n_columns)``, are such as indicators of batches.
        """
        added = np.asarray(columns, np.float64)
        wide = ((0, 0), (0, added.shape[1]))
        return ScreenMoments(
            self.n, np.hstack([self.mean, added]), np.pad(self.squares, wide),
            np.pad(self.scatter, (wide[1], wide[1])),
        )  # fmt: skip

    def total(self) -> Moments:
        """Return the moments of all cells, whatever their environment."""
        one = self.pool(np.zeros(self.n_environments, np.int64), 1)
        return Moments(int(one.n[0]), one.mean[0], one.scatter)

    def without_fixed(self, fixed: ArrayLike, groups: ArrayLike) -> ScreenMoments:
        """Return the moments with the effects of batches taken off the means.

        The effects are those of the least squares fit of the environments' means by one mean a
        group (perturbation) and the columns of ``fixed``, weighted by cells, so that batches may
        be crossed with perturbations, guides and one another. Means are those at the average of
        ``fixed`` over all cells. Columns that groups explain are left alone.

        Parameters
        ----------
        fixed
            Columns such as indicators of batches, shape ``(n_environments, n_fixed)``.
        groups
            Group of every environment, shape ``(n_environments,)``.
        """
        columns = np.asarray(fixed, np.float64)
        within = self._within_groups(columns, groups), self._within_groups(self.mean, groups)
        effect = np.linalg.lstsq(*within, rcond=_RANK)[0]
        centred = columns - np.average(columns, axis=0, weights=self.n)
        return ScreenMoments(self.n, self.mean - centred @ effect, self.squares, self.scatter)

    def fixed_columns(
        self, fixed: ArrayLike, groups: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what :meth:`without_fixed` takes off as columns of a regression.

        They span the directions of ``fixed`` that groups leave free, have the mean 0 and the mean
        square 1 over all cells, and least squares estimates of their coefficients are not
        correlated.

        Returns
        -------
        columns
            Shape ``(n_environments, n_columns)``.
        sd
            Standard error of each least squares coefficient over the noise's standard deviation,
            shape ``(n_columns,)``.
        """
        columns = np.asarray(fixed, np.float64)
        centred = columns - np.average(columns, axis=0, weights=self.n)
        _, sizes, rows = np.linalg.svd(self._within_groups(columns, groups), full_matrices=False)
        free = sizes > _RANK * sizes.max(initial=0.0)
        found = centred @ rows[free].T
        size = np.sqrt(np.average(found**2, axis=0, weights=self.n))
        return found / size, size / sizes[free]

    def _within_groups(self, table: NDArray[np.float64], groups: ArrayLike) -> NDArray[np.float64]:
        """Return a table less its means in groups, times the root of the cells."""
        codes, weight = np.asarray(groups, np.int64), self.n.astype(np.float64)[:, None]
        members = _members(codes, int(codes.max(initial=-1)) + 1)
        mean = members @ (weight * table) / np.maximum(members @ weight, 1.0)
        return np.sqrt(weight) * (table - mean[codes])


def _members(codes: NDArray[np.int64], n_groups: int) -> sp.csr_array:
    ones = np.ones(len(codes))
    return sp.csr_array((ones, (codes, np.arange(len(codes)))), shape=(n_groups, len(codes)))
