"""Number, mean and spread of some cells: all that a squared distance of their mean needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.cells.moments import too_large

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Some cells, without the matrix that their :class:`Moments` have.

    Parameters
    ----------
    n
        Number of cells.
    mean
        Their mean, shape ``(n_nodes,)``, units of the data.
    spread
        Sum over cells and nodes of the squared deviation from the mean, squared units of the data.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.cells.sample import Sample
    >>> cells = Sample.of(np.array([[1.0, 0.0], [3.0, 0.0]]))
    >>> cells.n, cells.spread, cells.variance_of_mean
    (2, 2.0, 1.0)
    """

    n: int
    mean: Vector
    spread: float

    @classmethod
    def of(cls, cells: Vector) -> Sample:
        """Return the sample of cells, shape ``(n_cells, n_nodes)``.

        Raises
        ------
        ValueError
            If values are too large to be squared; the columns are named.
        """
        n = len(cells)
        mean = cells.sum(axis=0) / max(n, 1)
        with np.errstate(over="ignore", invalid="ignore"):  # named below
            squares = ((cells - mean) ** 2).sum(axis=0)
        if not np.isfinite(squares).all():
            raise too_large(~np.isfinite(squares))
        return cls(n, mean, float(squares.sum()))

    def __add__(self, other: Sample) -> Sample:
        n = self.n + other.n
        step = other.mean - self.mean
        between = float(step @ step) * self.n * other.n / max(n, 1)
        mean = self.mean + step * (other.n / max(n, 1))
        return Sample(n, mean, self.spread + other.spread + between)

    @property
    def variance_of_mean(self) -> float:
        """Summed variance of the mean of all nodes, estimated; NaN below two cells."""
        return self.spread / (self.n * (self.n - 1)) if self.n > 1 else float("nan")

    def distance(self, target_mean: Vector) -> float:
        """Return ``|mean - target|^2`` less the part that sampling the cells adds on average.

        Of a single cell that part is not known, and stays in.
        """
        apart = float(((self.mean - target_mean) ** 2).sum())
        return apart - self.variance_of_mean if self.n > 1 else apart
