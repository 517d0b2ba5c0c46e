"""A finite list of candidate shifts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_numbers, as_rng, require_finite
from nextpert.core.acquisition.domain.base import Domain, Optimum

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.acquisition.domain.base import Criterion

    Vector = NDArray[np.float64]


class Pool(Domain):
    """A finite list of candidate shifts, searched whole.

    Parameters
    ----------
    shifts
        Candidates, shape ``(n_shifts, n_nodes)``, units of the data.

    Raises
    ------
    ValueError
        If the list is empty or holds NaN or infinite values.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Pool
    >>> Pool(np.eye(3)).project([0.1, 2.0, 0.0]).tolist()
    [0.0, 1.0, 0.0]
    """

    def __init__(self, shifts: ArrayLike) -> None:
        self.shifts = as_numbers(shifts, "shifts")
        if self.shifts.ndim != 2 or len(self.shifts) == 0:
            message = f"A pool needs at least one shift (n_shifts, n_nodes): {self.shifts.shape}."
            raise ValueError(message)
        require_finite(self.shifts, "shifts")

    def __repr__(self) -> str:
        return f"Pool(n_shifts={len(self.shifts)})"

    def moments(self, n_nodes: int) -> tuple[Vector, Vector]:
        """Return mean and variance over the pool."""
        self._require(n_nodes)
        return self.shifts.mean(axis=0), self.shifts.var(axis=0)

    def project(self, shift: ArrayLike) -> Vector:
        """Return the nearest candidate."""
        vector = as_numbers(shift, "shift", copy=False)
        self._require(len(vector))
        return self.shifts[((self.shifts - vector) ** 2).sum(axis=1).argmin()]

    def sample(self, n: int, n_nodes: int, rng: int | np.random.Generator | None = None) -> Vector:
        """Draw candidates with replacement, shape ``(n, n_nodes)``."""
        self._require(n_nodes)
        return self.shifts[as_rng(rng).integers(len(self.shifts), size=n)]

    def output_weights(self, b: ArrayLike) -> Vector:
        """Return weights under which the predicted gap ``|a - b|^2`` is uniform on its range.

        Each candidate weighs as much as its share of the range: half the distance to either
        neighbour in the sorted gaps. Equal gaps share alike.
        """
        gap = ((self.shifts - np.asarray(b, dtype=np.float64)) ** 2).sum(axis=1)
        levels, which, counts = np.unique(gap, return_inverse=True, return_counts=True)
        if len(levels) == 1:
            return np.full(len(gap), 1 / len(gap))
        half = np.diff(levels) / 2
        width = np.concatenate([half, [0.0]]) + np.concatenate([[0.0], half])
        return (width / counts)[which] / width.sum()

    def output_weighted_square(self, b: Vector, kappa: float | None = None) -> Vector:
        """Return ``E(a_i - b_i)^2`` under :meth:`output_weights`, shape ``(n_nodes,)``."""
        if kappa is not None:
            message = "kappa belongs to spheres: leave it out for a pool."
            raise ValueError(message)
        return self.output_weights(b) @ (self.shifts - b) ** 2

    def minimise(self, acquisition: Criterion, **kwargs: object) -> Optimum:
        """Return the best candidate; the first of equals. Further options are not needed."""
        values = acquisition.values(self.shifts)
        index = int(np.argmin(values))
        value = float(values[index])
        return Optimum(self.shifts[index].copy(), value, index, value)

    def _require(self, n_nodes: int) -> None:
        if self.shifts.shape[1] != n_nodes:
            message = f"The pool has {self.shifts.shape[1]} nodes, but {n_nodes} are needed."
            raise ValueError(message)
