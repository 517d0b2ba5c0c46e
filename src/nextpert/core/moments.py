"""First and second moments of the cells of one environment, all that a fit needs of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    from numpy.typing import ArrayLike, NDArray

    Block: TypeAlias = NDArray[Any] | sp.sparray | sp.spmatrix


@dataclass(frozen=True)
class Moments:
    """Number of cells, mean and scatter of an environment (the cells under one intervention).

    The scatter about the mean is kept rather than the raw sum of ``x x'``: the two carry the
    same information, but differences of large raw sums lose digits where means are far from
    zero. Raw sums are at hand as :attr:`total` and :attr:`gram`.

    Parameters
    ----------
    n
        Number of cells.
    mean
        Mean of every node, shape ``(n_nodes,)``, in the units of the data.
    scatter
        Sum over cells of ``(x - mean)(x - mean)'``, shape ``(n_nodes, n_nodes)``.

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

    @classmethod
    def zeros(cls, n_nodes: int) -> Moments:
        """Return the moments of no cells."""
        return cls(0, np.zeros(n_nodes), np.zeros((n_nodes, n_nodes)))

    @classmethod
    def from_array(cls, x: Block | ArrayLike) -> Moments:
        """Return the moments of cells ``x``, shape ``(n_cells, n_nodes)``, dense or sparse.

        Raises
        ------
        ValueError
            If ``x`` is not two-dimensional, or holds NaN or infinite values; the message names
            the columns.
        """
        block: Any = x if sp.issparse(x) else np.asarray(x)
        if block.ndim != 2:
            message = f"Cells must be a matrix (n_cells, n_nodes), but its shape is {block.shape}."
            raise ValueError(message)
        n, p = block.shape
        if n == 0:
            return cls.zeros(p)
        if sp.issparse(block):
            return cls._from_sparse(sp.csr_array(block, dtype=np.float64))
        dense = np.asarray(block, dtype=np.float64)
        mean = dense.mean(axis=0)
        if not np.isfinite(mean).all():
            raise _not_finite(mean)
        if n == 1:
            return cls(1, mean, np.zeros((p, p)))  # untouched memory: the fit does not read it
        centred = dense - mean
        return cls(n, mean, _symmetric(centred.T @ centred))

    @classmethod
    def from_blocks(cls, blocks: Iterable[Block], n_nodes: int) -> Moments:
        """Return the moments of all cells of ``blocks``, each read once and then let go."""
        moments = cls.zeros(n_nodes)
        for block in blocks:
            moments = moments + cls.from_array(block)
        return moments

    @classmethod
    def _from_sparse(cls, x: sp.csr_array) -> Moments:
        n = x.shape[0]
        mean = np.asarray(x.sum(axis=0), dtype=np.float64) / n
        if not np.isfinite(mean).all():
            raise _not_finite(mean)
        gram = np.asarray((x.T @ x).todense())
        scatter = gram - n * np.outer(mean, mean)
        if (np.diag(scatter) < 1e-6 * np.diag(gram)).any():
            # A mean a thousand times the spread: the difference has lost half its digits.
            return cls.from_array(x.toarray())
        return cls(n, mean, _symmetric(scatter))

    @property
    def n_nodes(self) -> int:
        """Number of nodes (genes)."""
        return len(self.mean)

    @property
    def total(self) -> NDArray[np.float64]:
        """Sum over cells of ``x``, shape ``(n_nodes,)``."""
        return self.n * self.mean

    @property
    def gram(self) -> NDArray[np.float64]:
        """Sum over cells of ``x x'``, shape ``(n_nodes, n_nodes)``."""
        return self.scatter + self.n * np.outer(self.mean, self.mean)

    @property
    def variance(self) -> NDArray[np.float64]:
        """Maximum-likelihood variance of each node, shape ``(n_nodes,)``."""
        return np.diag(self.scatter) / max(self.n, 1)

    def correlation(self) -> NDArray[np.float64]:
        """Return the correlation matrix, shape ``(n_nodes, n_nodes)``.

        Raises
        ------
        ValueError
            If a node is constant; the message gives its index.
        """
        constant = self.constant_nodes()
        if len(constant):
            message = f"Nodes {constant.tolist()} are constant: correlations are undefined."
            raise ValueError(message)
        scale = np.sqrt(np.diag(self.scatter))
        correlation = self.scatter / np.outer(scale, scale)
        np.fill_diagonal(correlation, 1.0)
        return correlation

    def constant_nodes(self) -> NDArray[np.int64]:
        """Return the indices of nodes that do not vary, up to rounding."""
        spread = np.diag(self.scatter)
        rounding = 1e-13 * self.n * np.maximum(self.mean**2, np.finfo(np.float64).tiny)
        return np.flatnonzero(spread <= rounding)

    def __add__(self, other: Moments) -> Moments:
        if self.n_nodes != other.n_nodes:
            message = f"Moments of {self.n_nodes} and of {other.n_nodes} nodes cannot be added."
            raise ValueError(message)
        n = self.n + other.n
        if n == 0:
            return self
        step = other.mean - self.mean
        mean = self.mean + step * (other.n / n)
        between = np.outer(step, step) * (self.n * other.n / n)
        return Moments(n, mean, self.scatter + other.scatter + between)

    def subset(self, nodes: ArrayLike) -> Moments:
        """Return the moments of some nodes, in the order given."""
        index = np.asarray(nodes, dtype=np.int64)
        return Moments(self.n, self.mean[index], self.scatter[np.ix_(index, index)])

    def centre(self, origin: ArrayLike) -> Moments:
        """Return the moments of ``x - origin``; use one origin for all environments."""
        return Moments(self.n, self.mean - np.asarray(origin, dtype=np.float64), self.scatter)


def _symmetric(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return (matrix + matrix.T) / 2


def _not_finite(mean: NDArray[np.float64]) -> ValueError:
    columns = np.flatnonzero(~np.isfinite(mean))
    error = ValueError(f"Columns {columns[:10].tolist()} hold NaN or infinite values: remove them.")
    error.columns = columns  # type: ignore[attr-defined]  # lets callers name the genes
    return error
