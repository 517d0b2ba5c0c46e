"""Shifts bounded node by node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from nextpert.core._checks import as_rng
from nextpert.core.acquisition.domain.base import Domain, Optimum

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.acquisition.domain.base import Criterion

    Vector = NDArray[np.float64]


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
        self.low = np.array(low, dtype=np.float64)
        self.high = np.array(high, dtype=np.float64)
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
        vector = np.asarray(shift, dtype=np.float64)
        return np.clip(vector, *self._bounds(len(vector)))

    def sample(self, n: int, n_nodes: int, rng: int | np.random.Generator | None = None) -> Vector:
        """Draw shifts uniformly in the box, shape ``(n, n_nodes)``."""
        return as_rng(rng).uniform(*self._bounds(n_nodes), size=(n, n_nodes))

    def _search(self, acquisition: Criterion, starts: list[Vector]) -> Optimum:
        found = [self._descend(acquisition, self.project(start)) for start in starts]
        values = [acquisition.value(shift) for shift in found]
        best = int(np.argmin(values))
        return Optimum(found[best], float(values[best]))

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
