"""Statistics of the cells of a screen: environments, their means, and one scatter per fold."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert.core._checks import as_numbers
from nextpert.core._codec import array
from nextpert.core.screen.moments import Moments, canonical_csr, require_numbers
from nextpert.core.screen.parts import Part, merge, screen_part

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray


_RANK = 1e-10  # singular values below this share of the largest are treated as 0


@dataclass(frozen=True)
class ScreenMoments:
    """Numbers of cells, means and variances of environments, and their pooled scatter.

    An environment is a group of cells with the same perturbation, guide, batch and condition. The
    scatter about the means of environments is pooled, so that 10,000 environments of 1,000 genes
    take 168 MB; with one matrix per environment they would take 80 GB.

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
        Sum over all cells of ``(x - mean)(x - mean)'`` with the mean of the cell's environment,
        shape ``(n_nodes, n_nodes)``.
    counted
        For a screen given as a table, the number of cells that each mean counts as: the variance of
        its node over the squared standard error, or 0 if the mean is unknown (equation 25); same
        shape as ``mean``. ``squares`` are then 0 for unknown variances. ``None`` (default) for a
        screen of cells.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> screen = ScreenMoments.from_array(x, np.arange(100) % 4, 4)
    >>> screen.n.tolist(), screen.scatter.shape
    ([25, 25, 25, 25], (3, 3))
    """

    n: NDArray[np.int64] = array("n_environments", dtype=np.int64)
    mean: NDArray[np.float64] = array("n_environments", "n_nodes", is_table=True)
    squares: NDArray[np.float64] = array("n_environments", "n_nodes", is_table=True)
    scatter: NDArray[np.float64] = array("n_nodes", "n_nodes")
    counted: NDArray[np.float64] | None = array(
        "n_environments", "n_nodes", optional=True, is_table=True
    )
    n_environments: int = field(init=False)
    n_nodes: int = field(init=False)

    def __post_init__(self) -> None:
        vars(self).update(n_environments=len(self.n), n_nodes=len(self.scatter))

    @classmethod
    def from_array(cls, x: Any, groups: ArrayLike, n_groups: int) -> ScreenMoments:
        """Return the moments of cells ``x``, shape ``(n_cells, n_nodes)``, dense or sparse.

        ``groups`` has the environment of every cell, below ``n_groups``; cells with -1 are left
        out.

        Raises
        ------
        ValueError
            If ``x`` is not a matrix with one row per entry of ``groups``, contains NaN, infinite or
            very large values, or a group is not below ``n_groups``.
        """
        codes = np.asarray(groups, np.int64)
        if sp.issparse(x):
            require_numbers(x, "The matrix of cells")
        values = canonical_csr(x) if sp.issparse(x) else as_numbers(x, "The cells", copy=False)
        if values.ndim != 2 or codes.shape != values.shape[:1]:
            message = (
                f"Cells must be a matrix (n_cells, n_nodes) with one group per cell, but the "
                f"shapes are {values.shape} and {codes.shape}."
            )
            raise ValueError(message)
        if len(codes) and codes.max() >= n_groups:
            message = f"groups must be below n_groups, {n_groups}, but one is {codes.max()}."
            raise ValueError(message)
        is_used = codes >= 0
        return cls.from_part(screen_part(values[is_used], codes[is_used]), n_groups)

    @classmethod
    def from_part(cls, part: Part, n_groups: int) -> ScreenMoments:
        """Return the moments of ``n_groups`` environments from the sums over those with cells."""
        p = part.mean.shape[1]
        n = np.zeros(n_groups, np.int64)
        mean, squares = np.zeros((n_groups, p)), np.zeros((n_groups, p))
        n[part.groups], mean[part.groups], squares[part.groups] = part.n, part.mean, part.squares
        scatter = sum((part.scatter[k] for k in sorted(part.scatter)), start=np.zeros((p, p)))
        return cls(n, mean, squares, scatter)

    def mean_variance(self, environment: int) -> NDArray[np.float64]:
        """Return the sampling variance of an environment's means; 0 if it is unknown."""
        n = int(self.n[environment])
        if self.counted is None:
            return self.squares[environment] / max(n * (n - 1), 1)
        counted = self.counted[environment]
        within = self.scatter.diagonal()
        within = within / max(int(self.n.sum()) - self.n_environments, 1)
        return np.divide(within, counted, out=np.zeros_like(counted), where=counted > 0)

    def __add__(self, other: ScreenMoments) -> ScreenMoments:
        """Add cells of the same environments."""
        environments, one = np.arange(self.n_environments), np.zeros(self.n_environments, np.int64)
        parts = (
            Part(environments, one, s.n, s.mean, s.squares, {0: s.scatter}) for s in (self, other)
        )
        return self.from_part(merge(*parts), self.n_environments)

    def subset(self, nodes: ArrayLike) -> ScreenMoments:
        """Return the moments of some nodes, in the given order."""
        index = np.asarray(nodes, np.int64)
        if np.array_equal(index, np.arange(self.n_nodes)):
            return self
        scatter = self.scatter[np.ix_(index, index)]
        counted = None if self.counted is None else self.counted[:, index]
        return ScreenMoments(self.n, self.mean[:, index], self.squares[:, index], scatter, counted)

    def some(self, index: ArrayLike) -> ScreenMoments:
        """Return some environments, with the pooled scatter in proportion to their cells."""
        index = np.asarray(index)
        if np.array_equal(index, np.arange(self.n_environments)):
            return self
        # Only the scatter of all environments is known: each cell has an equal share.
        n = self.n[index]
        scatter = self.scatter * (n.sum() / max(int(self.n.sum()), 1))
        counted = None if self.counted is None else self.counted[index]
        return ScreenMoments(n, self.mean[index], self.squares[index], scatter, counted)

    def pool(self, groups: ArrayLike, n_groups: int) -> ScreenMoments:
        """Return the moments of merged environments: ``groups`` has the new one of each.

        Differences between the means of merged environments become scatter within. If no two are
        merged, the result has exactly the same numbers, in another order. Means of a table are
        weighted by their effective numbers of cells, and the covariance of a table stays the same.
        """
        codes = np.asarray(groups, np.int64)
        if n_groups == len(codes) and np.array_equal(codes, np.arange(n_groups)):
            return self
        if len(np.unique(codes)) == len(codes):
            n = np.zeros(n_groups, np.int64)
            mean, squares = np.zeros((2, n_groups, self.n_nodes), self.mean.dtype)
            n[codes], mean[codes], squares[codes] = self.n, self.mean, self.squares
            counted = self.counted
            if counted is not None:
                counted = np.zeros_like(mean)
                counted[codes] = self.counted
            return ScreenMoments(n, mean, squares, self.scatter, counted)
        if self.counted is not None:
            return self._pooled_means(codes, n_groups)
        members = _members(codes, n_groups)
        # Chan: squares of the parts, plus n times the squared deviations of their means.
        n = np.asarray(members @ self.n, np.int64)
        mean = members @ (self.n[:, None] * self.mean) / np.maximum(n, 1)[:, None]
        # Differences of the parts' means become scatter within.
        departure = self.mean - mean[codes]
        weighted = departure * self.n[:, None]
        squares = members @ (self.squares + weighted * departure)
        between = weighted.T @ departure
        return ScreenMoments(n, mean, squares, self.scatter + (between + between.T) / 2)

    def _pooled_means(self, codes: NDArray[np.int64], n_groups: int) -> ScreenMoments:
        """Return :meth:`pool` for a table, in which some environments may have unknown means."""
        members = _members(codes, n_groups)
        counted = np.asarray(self.counted)
        n = np.asarray(members @ self.n, np.int64)
        total = members @ counted
        # If all means are unknown, any mean will do.
        weights = np.where(total[codes] > 0, counted, self.n[:, None])
        mean = members @ (weights * self.mean) / np.maximum(members @ weights, 1e-300)
        # The variance, scatter over degrees of freedom, stays the same.
        freedom = [max(int(cells.sum()) - len(cells), 1) for cells in (n[n > 0], self.n)]
        scatter = self.scatter * (freedom[0] / freedom[1])
        return ScreenMoments(n, mean, members @ self.squares, scatter, total)

    def with_columns(self, columns: ArrayLike) -> ScreenMoments:
        """Return the moments with additional columns as last nodes.

        ``columns``, shape ``(n_environments, n_columns)``, are constant within environments, such
        as indicators of batches.
        """
        added = np.asarray(columns, np.float64)
        wide = ((0, 0), (0, added.shape[1]))
        # Columns are known without error, so that they count as all cells.
        counted = self.counted
        if counted is not None:
            counted = np.hstack([counted, np.repeat(self.n[:, None], added.shape[1], axis=1)])
        return ScreenMoments(
            self.n,
            np.hstack([self.mean, added]),
            np.pad(self.squares, wide),
            np.pad(self.scatter, (wide[1], wide[1])),
            counted,
        )

    def total(self) -> Moments:
        """Return the moments of all cells, irrespective of environments."""
        one = self.pool(np.zeros(self.n_environments, np.int64), 1)
        return Moments(int(one.n[0]), one.mean[0], one.scatter)

    def without_fixed(self, fixed: ArrayLike, groups: ArrayLike) -> ScreenMoments:
        """Return the moments with the effects of batches subtracted from the means.

        The effects are estimated by least squares: the means of environments, weighted by cells,
        are regressed on one mean per group (perturbation) and the columns of ``fixed``. Batches may
        be crossed with perturbations, guides and one another. The resulting means refer to the
        average of ``fixed`` over all cells. Columns that groups explain have no effect.
        """
        columns = np.asarray(fixed, np.float64)
        # Weighted least squares of means on batches, within perturbations (equation 8).
        within = self._within_groups(columns, groups), self._within_groups(self.mean, groups)
        effect = np.linalg.lstsq(*within, rcond=_RANK)[0]
        centred = columns - np.average(columns, axis=0, weights=self.n)
        return replace(self, mean=self.mean - centred @ effect)

    def fixed_columns(
        self, fixed: ArrayLike, groups: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the columns of the regression in :meth:`ScreenMoments.without_fixed`.

        The first columns span the directions of ``fixed`` that vary within groups, have mean 0 and
        mean square 1 over all cells, and have uncorrelated least squares coefficients. The second
        result is the standard error of each coefficient over the noise's standard deviation. The
        other columns, whose standard error is infinite, are the directions that are constant within
        groups: their effects cannot be estimated, and are confounded with those of the groups.
        """
        columns = np.asarray(fixed, np.float64)
        centred = columns - np.average(columns, axis=0, weights=self.n)
        # Directions that groups do not explain, with uncorrelated least squares estimates.
        root = np.linalg.qr(self._within_groups(columns, groups), mode="r")
        _, sizes, rows = np.linalg.svd(root)
        n_free = int((sizes > _RANK * sizes.max(initial=0.0)).sum())
        estimable, confounded = centred @ rows[:n_free].T, centred @ rows[n_free:].T
        size = np.sqrt(np.average(estimable**2, axis=0, weights=self.n))
        sd = np.append(size / sizes[:n_free], np.full(confounded.shape[1], np.inf))
        return np.hstack([estimable / size, confounded]), sd

    def without_batches(
        self, fixed: ArrayLike, groups: ArrayLike
    ) -> tuple[ScreenMoments, NDArray[np.float64]]:
        """Return moments for a fit, and standard errors of :meth:`ScreenMoments.fixed_columns`.

        The effects of batches are subtracted from the means (:meth:`without_fixed`), and the
        columns of this regression become the last nodes (equation 8).
        """
        if not np.shape(fixed)[1]:
            return self, np.zeros(0)
        columns, sd = self.fixed_columns(fixed, groups)
        if not len(sd):  # for large screens, avoid a copy of the means
            return self, sd
        clean = self.without_fixed(fixed, groups) if np.isfinite(sd).any() else self
        return clean.with_columns(columns), sd

    def _within_groups(self, table: NDArray[np.float64], groups: ArrayLike) -> NDArray[np.float64]:
        """Return a table minus its group means, times the square root of the cells."""
        # Frisch, Waugh, Lovell: one mean per group is projected out.
        codes = np.asarray(groups, np.int64)
        weight = self.n.astype(np.float64)[:, None]
        members = _members(codes, int(codes.max(initial=-1)) + 1)
        mean = members @ (weight * table) / np.maximum(members @ weight, 1.0)
        return np.sqrt(weight) * (table - mean[codes])


def _members(codes: NDArray[np.int64], n_groups: int) -> sp.csr_array:
    ones = np.ones(len(codes))
    return sp.csr_array((ones, (codes, np.arange(len(codes)))), shape=(n_groups, len(codes)))


@dataclass(frozen=True)
class Screen:
    """Numbers of cells, means and squares of environments, and the pooled scatter of each fold.

    An environment is a group of cells with equal values in ``columns``: perturbation, guide, batch,
    condition, or half of a random split. A fold is a set of environments that are used or left out
    together, or, if folds overlap, a set that is used alone. Scatter is stored per fold, so that
    cells are read only once. With 1,000 genes, the scatter matrices of 26 folds take 208 MB; one
    matrix for each of 10,000 environments would take 80 GB.

    Parameters
    ----------
    columns
        Columns that define environments: for each name, whole numbers of shape
        ``(n_environments,)``, -1 if missing.
    fold
        Fold of every environment, shape ``(n_environments,)``, or 1 for every fold that it belongs
        to, shape ``(n_environments, n_folds)``.
    n, mean, squares
        As in :class:`~nextpert.core.ScreenMoments`.
    scatter
        For each fold, the sum over its cells of ``(x - mean)(x - mean)'`` with the mean of the
        cell's environment, shape ``(n_nodes, n_nodes)``.
    counted
        As in :class:`~nextpert.core.ScreenMoments`.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.screen.parts import screen_part
    >>> from nextpert.core.screen.screen import Screen
    >>> x, label = np.random.default_rng(0).normal(size=(100, 3)), np.arange(100) % 4
    >>> part = screen_part(x, label, fold=np.array([0, 0, 1, 1]))
    >>> screen = Screen.from_part(part, {"label": np.arange(4)}, np.array([0, 0, 1, 1]))
    >>> screen.some([True, True, False, False]).pool("label", 4).n.tolist()
    [25, 25, 0, 0]
    """

    columns: Mapping[str, NDArray[np.int64]]
    fold: NDArray[np.int64]
    n: NDArray[np.int64]
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]
    scatter: Mapping[int, NDArray[np.float64]]
    counted: NDArray[np.float64] | None = None

    @classmethod
    def from_part(
        cls, part: Part, columns: Mapping[str, NDArray[np.int64]], fold: NDArray[np.int64]
    ) -> Screen:
        """Return the screen from the sums over its cells; environments without cells have zeros."""
        one = ScreenMoments.from_part(part, len(fold))
        return cls(columns, fold, one.n, one.mean, one.squares, part.scatter)

    def some(self, index: ArrayLike) -> Screen:
        """Return some environments; each fold must be selected as a whole or not at all.

        If folds overlap, the environments must be those of one fold.

        Raises
        ------
        ValueError
            If a fold is divided, because the scatter of its parts is unknown.
        """
        selected = np.asarray(index, bool)
        overlap = self.fold.ndim == 2
        if overlap:
            folds = set(np.flatnonzero(((self.fold.T > 0) == selected).all(axis=1)).tolist()[:1])
        else:
            folds = set(self.fold[selected].tolist())
        if (overlap and not folds) or (not overlap and folds & set(self.fold[~selected].tolist())):
            message = (
                "The environments of a fold cannot be separated: read the cells with more folds."
            )
            raise ValueError(message)
        return replace(
            self,
            columns={name: codes[selected] for name, codes in self.columns.items()},
            fold=np.full(selected.sum(), max(folds)) if overlap else self.fold[selected],
            n=self.n[selected],
            mean=self.mean[selected],
            squares=self.squares[selected],
            scatter={k: fold_scatter for k, fold_scatter in self.scatter.items() if k in folds},
            counted=None if self.counted is None else self.counted[selected],
        )

    def halves(self, column: str) -> tuple[Screen, Screen]:
        """Return the environments with code 0 in a column, and those with code 1."""
        half = self.columns[column]
        return self.some(half == 0), self.some(half == 1)

    def moments(self) -> ScreenMoments:
        """Return the moments of every environment, and the scatter within all of them."""
        p = self.mean.shape[1]
        scatter = sum((self.scatter[k] for k in sorted(self.scatter)), start=np.zeros((p, p)))
        return ScreenMoments(self.n, self.mean, self.squares, scatter, self.counted)

    def without_batches(
        self, fixed: ArrayLike, groups: ArrayLike
    ) -> tuple[Screen, NDArray[np.float64]]:
        """Do as :meth:`ScreenMoments.without_batches`, for every fold."""
        if not np.shape(fixed)[1]:
            return self, np.zeros(0)
        corrected, sd = self.moments().without_batches(fixed, groups)
        wide = (0, len(sd))
        scatter = {
            k: np.pad(fold_scatter, (wide, wide)) for k, fold_scatter in self.scatter.items()
        }
        return Screen(
            self.columns,
            self.fold,
            self.n,
            corrected.mean,
            corrected.squares,
            scatter,
            corrected.counted,
        ), sd

    def pool(self, column: str, n_groups: int) -> ScreenMoments:
        """Return the moments of environments pooled by their code in a column without -1."""
        return self.moments().pool(self.columns[column], n_groups)

    def of_fold(self, fold: int) -> Moments:
        """Return the moments of all cells of a fold."""
        rows = np.flatnonzero(self.fold == fold)
        if self.counted is not None:
            return self._known_mean(rows)
        scatter = self.scatter.get(fold, np.zeros((self.mean.shape[1],) * 2))
        if len(rows) == 1:
            return Moments(int(self.n[rows[0]]), self.mean[rows[0]], scatter)
        return ScreenMoments(self.n[rows], self.mean[rows], self.squares[rows], scatter).total()

    def _known_mean(self, rows: NDArray[np.int64]) -> Moments:
        """Return the mean of some environments of a table, with a scatter from its known error."""
        moments = self.moments()
        one = moments.pool(np.isin(np.arange(len(self.n)), rows, invert=True).astype(np.int64), 2)
        n = int(one.n[0])
        return Moments(n, one.mean[0], np.diag(one.mean_variance(0) * n * max(n - 1, 1)))
