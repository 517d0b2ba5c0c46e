"""First and second moments of the cells of one environment, dense or sparse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import scipy.sparse as sp

from nextpert.core._blas import one_thread
from nextpert.core._checks import MASKED, as_nodes, require_count
from nextpert.core._compile import entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from numpy.typing import ArrayLike, NDArray

    Block: TypeAlias = NDArray[Any] | sp.sparray | sp.spmatrix

T = TypeVar("T")


@dataclass
class PairwiseSum(Generic[T]):
    """A sum of successive parts by pairwise addition, with about ``log2(n_parts)`` sums in memory.

    Parameters
    ----------
    empty
        The sum of no parts.
    merge
        Function that adds two sums, of which the earlier comes first.
    """

    empty: T
    merge: Callable[[T, T], T]
    _levels: list[T | None] = field(default_factory=list, init=False)

    def add(self, part: T) -> None:
        """Add the next part."""
        # Like adding 1 to a binary number: level k has the sum of 2^k parts.
        for level, stored in enumerate(self._levels):
            if stored is None:
                self._levels[level] = part
                return
            part = self.merge(stored, part)
            self._levels[level] = None
        self._levels.append(part)

    def total(self) -> T:
        """Return the sum of all parts added."""
        total: T | None = None
        # The later parts are at the lower levels.
        for stored in self._levels:
            if stored is not None:
                total = stored if total is None else self.merge(stored, total)
        return self.empty if total is None else total


@entry
def sparse_scatter(
    data: NDArray[np.float64],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    rows: NDArray[np.int64],
    total: NDArray[np.float64],
    scatter: NDArray[np.float64],
) -> float:
    """Fill the sum and scatter of some CSR rows; return the smallest remaining share of a square.

    Each row needs sorted columns without duplicates. Every sum runs in the order of ``rows``, so
    that its result does not depend on other rows of the matrix. ``total``, shape ``(n_nodes,)``,
    and ``scatter``, ``(n_nodes, n_nodes)``, must be zero on entry. The share of a sum of squares
    that remains after subtraction of the mean shows how many digits the subtraction has lost.
    """
    for r in rows:
        first, last = indptr[r], indptr[r + 1]
        for a in range(first, last):
            value, j = data[a], indices[a]
            total[j] += value
            for b in range(a, last):
                scatter[j, indices[b]] += value * data[b]
    # sum x x' - n mean mean', and the remaining share of each square.
    min_share = 1.0
    for j in range(len(total)):
        mean = total[j] / max(len(rows), 1)
        square = scatter[j, j]
        for k in range(j, len(total)):
            scatter[j, k] -= mean * total[k]
            scatter[k, j] = scatter[j, k]
        if square > 0:
            min_share = min(min_share, scatter[j, j] / square)
    return min_share


# Number of indices checked at once, of a matrix in memory or in a file.
_AT_ONCE = 2**22


def require_sound(matrix: Any, name: str = "The sparse matrix") -> None:
    """Raise an error unless the indices of a CSR or CSC matrix in memory lie within its shape."""
    if sp.issparse(matrix) and matrix.format in ("csr", "csc"):
        shape = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
        arrays = matrix.data, matrix.indices, matrix.indptr
        require_sound_arrays(arrays, shape, name)


def require_sound_arrays(
    arrays: tuple[Any, Any, Any], shape: tuple[int, int | None], name: str = "The sparse matrix"
) -> None:
    """Raise an error unless ``data``, ``indices`` and ``indptr`` are consistent, also in a file.

    ``shape`` is the number of pointers minus 1, and the bound below which all indices must lie; if
    the bound is ``None``, indices are not checked here but when they are read.
    """
    n_major, n_minor = shape
    data, indices, indptr = arrays
    if any(len(array.shape) != 1 for array in arrays):
        raise damaged("values or indices that are not one-dimensional", name)
    if indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        raise damaged("indices that are not whole numbers", name)
    if indptr.shape[0] != n_major + 1:
        problem = f"{indptr.shape[0]} row or column pointers instead of {n_major + 1}"
        raise damaged(problem, name)
    # Pointers never decrease, and end within the values.
    last = 0
    for start in range(0, n_major + 1, _AT_ONCE):
        chunk = np.asarray(indptr[start : start + _AT_ONCE])
        if chunk[0] < last or (chunk[1:] < chunk[:-1]).any() or (start == 0 and chunk[0] != 0):
            raise damaged("row pointers that decrease, or do not start at 0", name)
        last = int(chunk[-1])
    if last > min(data.shape[0], indices.shape[0]):
        raise damaged("fewer values than its row pointers require", name)
    for start in range(0, 0 if n_minor is None else indices.shape[0], _AT_ONCE):
        chunk = np.asarray(indices[start : start + _AT_ONCE])
        if chunk.min() < 0 or chunk.max() >= n_minor:
            raise damaged("column indices out of range", name)


def require_numbers(values: Any, name: str = "The matrix") -> None:
    """Raise an error for values that are masked, complex or not numbers."""
    if np.ma.isMaskedArray(values):
        raise ValueError(MASKED.format(name))
    kind = np.dtype(values.dtype).kind
    if kind not in "buif":
        content = "complex numbers" if kind == "c" else f"values of type {values.dtype}"
        message = f"{name} contains {content}, but real numbers are needed: convert them first."
        raise ValueError(message)


def damaged(problem: str, name: str = "The sparse matrix") -> ValueError:
    """Return the error about a damaged matrix."""
    return ValueError(f"{name} is damaged: it has {problem}. Write the file again.")


# Sparse squares are summed about zero; if the scatter is a smaller share, they are too imprecise.
_LOST_DIGITS = 1e-3


@dataclass(frozen=True)
class Moments:
    """Number of cells, mean and scatter of an environment (the cells under one intervention).

    The class stores the scatter about the mean instead of the raw sum of ``x x'``, because
    differences of large raw sums lose precision if means are far from zero. Raw sums are available
    as :attr:`total` and :attr:`gram`.

    Parameters
    ----------
    n
        Number of cells.
    mean
        Mean of every node, shape ``(n_nodes,)``, in the units of the data.
    scatter
        Sum over cells of ``(x - mean)(x - mean)'``, shape ``(n_nodes, n_nodes)``.

    Raises
    ------
    ValueError
        If shapes do not agree, the number of cells is not a whole number of at least 0, or a value
        is not finite (squares of values above about 1e150 overflow).

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Moments
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> whole = Moments.from_array(x)
    >>> parts = Moments.from_array(x[:40]) + Moments.from_array(x[40:])
    >>> whole.n, bool(np.allclose(whole.scatter, parts.scatter))
    (100, True)
    """

    n: int
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]
    variance: NDArray[np.float64] = field(init=False)  # by maximum likelihood, (n_nodes,)
    n_nodes: int = field(init=False)

    def __post_init__(self) -> None:
        for name in ("mean", "scatter"):
            value = np.asanyarray(getattr(self, name))
            require_numbers(value, f"The {name}")
            object.__setattr__(self, name, np.asarray(value, dtype=np.float64))
        mean, scatter = self.mean, self.scatter
        if mean.ndim != 1 or scatter.shape != (len(mean), len(mean)):
            message = (
                f"The mean has the shape {mean.shape} and the scatter {scatter.shape}, but "
                "(n_nodes,) and (n_nodes, n_nodes) are needed."
            )
            raise ValueError(message)
        if not self.n >= 0 or int(self.n) != self.n:
            message = f"The number of cells must be a whole number, 0 or above, but is {self.n!r}."
            raise ValueError(message)
        if not np.isfinite(mean).all():
            raise not_finite(~np.isfinite(mean))
        if not np.isfinite(scatter).all():
            # A product may overflow although both squares are finite: all its nodes are listed.
            raise too_large(np.asarray(~np.isfinite(scatter).all(axis=0)))
        vars(self).update(variance=np.diag(scatter) / max(self.n, 1), n_nodes=len(mean))

    @classmethod
    def zeros(cls, n_nodes: int) -> Moments:
        """Return the moments of no cells."""
        n_nodes = require_count(n_nodes, "n_nodes", minimum=0)
        return cls(0, np.zeros(n_nodes), np.zeros((n_nodes, n_nodes)))

    @classmethod
    def from_array(cls, x: Block | ArrayLike) -> Moments:
        """Return the moments of cells ``x``, shape ``(n_cells, n_nodes)``, dense or sparse.

        Raises
        ------
        ValueError
            If ``x`` is not two-dimensional, or contains values that are NaN, infinite or too large
            to be squared; the message lists their columns.
        """
        block: Any = x if sp.issparse(x) else np.asanyarray(x)
        require_numbers(block, "The matrix of cells")
        require_sound(block)
        if block.ndim != 2:
            message = f"Cells must be a matrix (n_cells, n_nodes), but its shape is {block.shape}."
            raise ValueError(message)
        if sp.issparse(block):
            with one_thread():
                return sparse_moments(canonical_csr(block), np.arange(block.shape[0]))
        n, p = block.shape
        if n == 0:
            return cls.zeros(p)
        dense = np.asarray(block, dtype=np.float64)
        # Two passes: squares are computed about the mean, so that no digits are lost.
        with np.errstate(invalid="ignore", over="ignore"):  # reported below
            mean = dense.mean(axis=0)
            if not np.isfinite(mean).all():
                bad = np.asarray(~np.isfinite(dense).all(axis=0))
                raise not_finite(bad) if bad.any() else too_large(~np.isfinite(mean))
            # The scatter of one cell is 0, and loops over single cells need no limit on threads.
            if n == 1:
                return cls(n, mean, np.zeros((p, p)))
            centred = dense - mean
            with one_thread():
                products = centred.T @ centred
                return cls(n, mean, (products + products.T) / 2)

    @property
    def total(self) -> NDArray[np.float64]:
        """Sum over cells of ``x``, shape ``(n_nodes,)``."""
        return self.n * self.mean

    @property
    def gram(self) -> NDArray[np.float64]:
        """Sum over cells of ``x x'``, shape ``(n_nodes, n_nodes)``."""
        return self.scatter + self.n * np.outer(self.mean, self.mean)

    def correlation(self) -> NDArray[np.float64]:
        """Return the correlation matrix, shape ``(n_nodes, n_nodes)``.

        Raises
        ------
        ValueError
            If a node is constant; the message gives its index.
        """
        constant = self.constant_nodes()
        if len(constant):
            message = (
                f"Correlations are undefined, because nodes {constant.tolist()} are constant: "
                f"remove these nodes."
            )
            raise ValueError(message)
        # S_ij / sqrt(S_ii S_jj).
        scale = np.sqrt(np.diag(self.scatter))
        correlation = self.scatter / np.outer(scale, scale)
        np.fill_diagonal(correlation, 1.0)
        return correlation

    def constant_nodes(self) -> NDArray[np.int64]:
        """Return the indices of nodes that do not vary beyond rounding."""
        spread = np.diag(self.scatter)
        # Squares that rounding of the mean alone can cause.
        rounding = 1e-13 * self.n * np.maximum(self.mean**2, np.finfo(np.float64).tiny)
        return np.flatnonzero(spread <= rounding)

    def __add__(self, other: Moments) -> Moments:
        if self.n_nodes != other.n_nodes:
            message = (
                f"Moments of {self.n_nodes} and of {other.n_nodes} nodes cannot be added: give the "
                f"same nodes."
            )
            raise ValueError(message)
        n = self.n + other.n
        if n == 0:
            return self
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            step = other.mean - self.mean
            mean = self.mean + step * (other.n / n)
            between = np.outer(step, step) * (self.n * other.n / n)
            scatter = self.scatter + other.scatter + between
        return Moments(n, mean, scatter)

    def subset(self, nodes: Iterable[int]) -> Moments:
        """Return the moments of some nodes, in the given order."""
        index = np.array(as_nodes(nodes, self.n_nodes, "nodes"), dtype=np.int64)
        return Moments(self.n, self.mean[index], self.scatter[np.ix_(index, index)])


def covary(scatter: NDArray[np.float64]) -> bool:
    """Return whether a scatter contains covariances, and not only variances."""
    return bool(np.count_nonzero(scatter) > len(scatter))


def canonical_csr(x: Any) -> sp.csr_array:
    """Return ``x`` as CSR of floats with sorted, unique columns; ``x`` is not changed."""
    cells = sp.csr_array(x, dtype=np.float64)
    if not cells.has_canonical_format:
        cells = cells.copy()
        cells.sum_duplicates()
    return cells


def sparse_moments(x: sp.csr_array, rows: NDArray[np.int64]) -> Moments:
    """Return the moments of some rows of a :func:`canonical_csr` matrix, in their order.

    Raises
    ------
    ValueError
        If a value is NaN, infinite or too large to be squared; the message lists the columns.
    """
    p, n = x.shape[1], len(rows)
    # One pass over the non-zeros, sum x x' - n mean mean'.
    total, scatter = np.zeros(p), np.zeros((p, p))
    min_share = sparse_scatter(x.data, x.indices, x.indptr, rows, total, scatter)
    if not np.isfinite(total).all():
        bad = ~np.isfinite(total)
        raise too_large(bad) if np.isfinite(x.data).all() else not_finite(bad)
    if (
        min_share < _LOST_DIGITS
    ):  # the mean is far larger than the SD: centre the cells before they are squared
        return Moments.from_array(x[rows].toarray())
    return Moments(n, total / max(n, 1), scatter)


def not_finite(bad: NDArray[np.bool_]) -> ValueError:
    """Return the error about columns with NaN or infinite values, listed in ``columns``."""
    return _about(bad, "contain NaN or infinite values: remove these columns or the cells.")


def too_large(bad: NDArray[np.bool_]) -> ValueError:
    """Return the error about columns whose squares overflow, listed in ``columns``."""
    problem = "contain values too large to be squared: rescale the values."
    error = _about(bad, problem)
    error.overflow = True  # type: ignore[attr-defined]
    return error


def _about(bad: NDArray[np.bool_], problem: str) -> ValueError:
    columns = np.flatnonzero(bad)
    error = ValueError(f"Columns {columns[:10].tolist()} {problem}")
    error.columns = columns  # type: ignore[attr-defined]  # lets callers name the genes
    return error
