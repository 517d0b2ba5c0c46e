"""Shifts bounded node by node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from nextpert.core._checks import as_numbers, as_rng
from nextpert.core.acquisition.domain.base import Domain, Optimum

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.acquisition.domain.base import Criterion

    Vector = NDArray[np.float64]

_DRAWS = 1024  # looked at before the searches, of which the best are starts
_PER_START = 12  # searches for every random start asked for
_STIRRED = 3  # of the places where searches end, how many are looked around
_ROUND = 256  # draws of one look around


class Box(Domain):
    """All shifts between ``low`` and ``high``, node by node.

    Parameters
    ----------
    low, high
        Bounds, shape ``(n_nodes,)`` or one number for all nodes, units of the data.

    Raises
    ------
    ValueError
        If a bound is not finite or ``low`` exceeds ``high``.

    Examples
    --------
    >>> from nextpert.core import Box
    >>> Box(-1.0, 0.0).project([-3.0, 0.5]).tolist()
    [-1.0, 0.0]
    """

    def __init__(self, low: ArrayLike, high: ArrayLike) -> None:
        self.low = as_numbers(low, "low")
        self.high = as_numbers(high, "high")
        if self.low.size != self.high.size and 1 not in (self.low.size, self.high.size):
            message = f"low has shape {self.low.shape}, but high {self.high.shape}: give one size."
            raise ValueError(message)
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all()):
            message = "The bounds of a box must be finite."
            raise ValueError(message)
        if np.any(self.low > self.high):
            message = "A box needs low <= high for every node."
            raise ValueError(message)

    def __repr__(self) -> str:
        return f"Box(low={self.low.min():g}, high={self.high.max():g})"

    def _bounds(self, n_nodes: int) -> tuple[Vector, Vector]:
        try:
            low, high = np.broadcast_to(self.low, n_nodes), np.broadcast_to(self.high, n_nodes)
        except ValueError as error:
            message = f"The bounds of the box do not fit {n_nodes} nodes."
            raise ValueError(message) from error
        return low, high

    def moments(self, n_nodes: int) -> tuple[Vector, Vector]:
        """Return the middle and ``(high - low)^2 / 12``."""
        low, high = self._bounds(n_nodes)
        return (low + high) / 2, (high - low) ** 2 / 12

    def project(self, shift: ArrayLike) -> Vector:
        """Return the shift with every entry moved into its bounds."""
        vector = as_numbers(shift, "shift", copy=False)
        return np.clip(vector, *self._bounds(len(vector)))

    def sample(self, n: int, n_nodes: int, rng: int | np.random.Generator | None = None) -> Vector:
        """Draw shifts uniformly in the box, shape ``(n, n_nodes)``."""
        return as_rng(rng).uniform(*self._bounds(n_nodes), size=(n, n_nodes))

    def _random_starts(
        self, acquisition: Criterion, n: int, rng: np.random.Generator
    ) -> list[Vector]:
        """Return the best of many draws, half of them corners: a pool costs less than a search."""
        p = acquisition.n_nodes
        low, high = self._bounds(p)
        half = _DRAWS // 2
        corners = rng.uniform(size=(half, p)) < rng.uniform(size=(half, 1))
        draws = np.vstack([self.sample(half, p, rng), np.where(corners, high, low)])
        best = np.argsort(acquisition.values(draws), kind="stable")[: _PER_START * n]
        return list(draws[best])

    def _search(self, acquisition: Criterion, starts: list[Vector]) -> Optimum:
        found = [self._descend(acquisition, self.project(start)) for start in starts]
        values = np.array([acquisition.value(shift) for shift in found])
        rng = np.random.default_rng(0)
        ends = [
            self._stir(acquisition, found[k], float(values[k]), rng)
            for k in np.argsort(values, kind="stable")[:_STIRRED]
        ]
        shift, value = min(ends, key=lambda end: end[1])
        return Optimum(shift, value)

    def _stir(
        self, acquisition: Criterion, shift: Vector, value: float, rng: np.random.Generator
    ) -> tuple[Vector, float]:
        """Look around the end of a search, near and far, and search on from what is better.

        Criteria that are the largest of their nodes have kinks, at which a search stops early.
        """
        p, floor = len(shift), acquisition.floor
        low, high = self._bounds(p)
        for _ in range(20):
            reach = 10 ** rng.uniform(-3, 0, size=(_ROUND, 1)) * (high - low)
            moved = rng.uniform(size=(_ROUND, p)) < rng.uniform(size=(_ROUND, 1))
            draws = shift + np.where(moved, reach * rng.standard_normal((_ROUND, p)), 0.0)
            draws = np.clip(draws, low, high)
            values = acquisition.values(draws)
            best = int(values.argmin())
            if not values[best] < value:
                break
            before = value
            shift = self._descend(acquisition, draws[best])
            value = acquisition.value(shift)
            if not value < before - 1e-5 * abs(before - floor):
                break
        return shift, value

    def _descend(self, acquisition: Criterion, start: Vector) -> Vector:
        # In widths of the box and in shares of the part of the value that shifts can change, so
        # that tolerances mean the same in any units and however large the floor. The share is
        # taken anew where a descent ends, as it may end orders of magnitude below its start.
        low, high = self._bounds(acquisition.n_nodes)
        width, floor = high - low, acquisition.floor
        shift, least = start, acquisition.value(start) - floor
        for _ in range(5):
            scale = abs(least) or 1.0

            def objective(t: Vector, scale: float = scale) -> tuple[float, Vector]:
                value, grad = acquisition.value_and_grad(low + width * t)
                return (value - floor) / scale, grad * width / scale

            within = np.divide(shift - low, width, out=np.zeros_like(low), where=width > 0)
            found = minimize(
                objective, within, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * len(low),
                options={"ftol": 1e-12, "gtol": 1e-8, "maxiter": 1000},
            )  # fmt: skip
            moved = np.where(found.x < 1, self.project(low + width * found.x), high)
            value = acquisition.value(moved) - floor
            if value < least:
                shift = moved
            if not value < least - 1e-9 * abs(least):
                break
            least = value
        return shift
