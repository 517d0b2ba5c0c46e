"""Shifts of a given norm, and those of them that touch few nodes."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.optimize import minimize
from scipy.special import ive

from nextpert.core._checks import as_numbers, as_rng, require_count, require_positive
from nextpert.core.causal.domains import Domain, Optimum

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.causal.domains import Criterion

    Vector = NDArray[np.float64]
    # A shift, its value and its support.
    _End = tuple[Vector, float, NDArray[np.bool_]]


class Sphere(Domain):
    """All shifts of norm ``radius``, as in the paper's simulations.

    An acquisition that looks ahead never rises with the norm where the model has no intercept, so
    the best point of the ball lies on the sphere too.

    Parameters
    ----------
    radius
        Norm of the shifts, units of the data.

    Raises
    ------
    ValueError
        If the radius is not above 0.

    Examples
    --------
    >>> from nextpert.core import Sphere
    >>> Sphere(2.0).project([3.0, 4.0]).tolist()
    [1.2, 1.6]
    """

    _shown: ClassVar[tuple[str, ...]] = ("radius",)

    def __init__(self, radius: float = 1.0) -> None:
        self.radius = require_positive(radius, "radius")

    def moments(self, n_nodes: int) -> tuple[Vector, Vector]:
        """Return zero means and ``radius^2 / n_nodes``."""
        return np.zeros(n_nodes), np.full(n_nodes, self.radius**2 / n_nodes)

    def project(self, shift: ArrayLike) -> Vector:
        """Return ``radius shift / |shift|``; the first axis for a shift of zero."""
        vector = as_numbers(shift, "shift")
        norm = float(np.linalg.norm(vector))
        if norm == 0:
            vector[0] = norm = 1.0
        return self.radius * vector / norm

    def sample(self, n: int, n_nodes: int, rng: int | np.random.Generator | None = None) -> Vector:
        """Draw shifts uniformly on the sphere, shape ``(n, n_nodes)``."""
        normals = as_rng(rng).standard_normal((n, n_nodes))
        return self.radius * normals / np.linalg.norm(normals, axis=1, keepdims=True)

    def output_weighted_square(self, b: Vector, kappa: float | None = None) -> Vector:
        """Return ``E(a_i - b_i)^2`` under the output weights (see :class:`CivOw`).

        ``kappa`` is the concentration of a bimodal von Mises-Fisher density about +-b, used instead
        of equation 8 of the paper at p = 3 (its Fig. 3), where that gives CIV itself.
        """
        p, norm = len(b), np.linalg.norm(b)
        if norm == 0 or p == 1:
            return b**2 + self.radius**2 / p
        # t = a'b / |b| has the mean square tau R^2 and the other p - 1 directions share the rest.
        tau = 1 / 3
        if kappa is not None:
            # Mean square cosine under von Mises-Fisher; ive scales both Bessel functions alike.
            tau = 1 - (p - 1) / kappa * ive(p / 2, kappa) / ive(p / 2 - 1, kappa)
        share = (b / norm) ** 2
        return b**2 + self.radius**2 * (tau * share + (1 - tau) * (1 - share) / (p - 1))

    def _search(self, acquisition: Criterion, starts: list[Vector]) -> Optimum:
        ends = [self._descend(acquisition, start) for start in starts]
        return Optimum(*min(ends, key=lambda end: end[1]))

    def _descend(
        self, acquisition: Criterion, start: Vector, support: NDArray[np.bool_] | None = None
    ) -> tuple[Vector, float]:
        """Return the best shift found from ``start``, on some nodes where given, and its value."""
        if support is None and getattr(acquisition, "is_sum", False):
            from nextpert.core.causal._sphere_search import minimise_on_sphere

            problem: Any = acquisition.problem  # type: ignore[attr-defined]
            shift, excess, _ = minimise_on_sphere(problem, self.radius, start, 500, 1e-7)
            return shift, acquisition.floor + float(excess)
        unit = np.zeros(len(start))
        some = slice(None) if support is None else support
        # In shares of the part of the value that shifts can change, so that tolerances do not
        # depend on the units.
        floor = acquisition.floor
        scale = abs(acquisition.value(self.project(start)) - floor) or 1.0

        def objective(z: Vector) -> tuple[float, Vector]:
            # The shift is radius z / |z|; only the gradient across z counts.
            norm = np.linalg.norm(z)
            unit[some] = z / norm
            value, grad = acquisition.value_and_grad(self.radius * unit)
            across = self.radius * (grad - (grad @ unit) * unit)[some] / norm
            return (value - floor) / scale, across / scale

        options = {"ftol": 1e-9, "gtol": 1e-8, "maxiter": 1000, "maxls": 8}
        end = minimize(objective, start[some], jac=True, method="L-BFGS-B", options=options)
        unit[some] = end.x / np.linalg.norm(end.x)
        return self.radius * unit, acquisition.value(self.radius * unit)


class Sparse(Sphere):
    """All shifts of norm ``radius`` with at most ``k`` nodes shifted.

    All single nodes are tried. Further nodes are added one at a time, each time the one that lowers
    the acquisition most, with a new search of the shift. Nodes are then exchanged as long as that
    lowers it.

    Parameters
    ----------
    k
        Largest number of nodes shifted.
    radius
        Norm of the shifts, units of the data.

    Raises
    ------
    ValueError
        If ``k`` is below 1 or the radius not above 0.

    Examples
    --------
    >>> from nextpert.core import Sparse
    >>> Sparse(1).project([0.5, -3.0, 1.0]).tolist()
    [0.0, -1.0, 0.0]
    """

    _shown = ("k", "radius")

    def __init__(self, k: int, radius: float = 1.0) -> None:
        self.k = require_count(k, "k")
        super().__init__(radius)

    def output_weighted_square(self, b: Vector, kappa: float | None = None) -> Vector:
        """Raise: shifts on few nodes have no output weights."""
        return Domain.output_weighted_square(self, b)

    def project(self, shift: ArrayLike) -> Vector:
        """Return the k largest entries, scaled to norm ``radius``."""
        vector = as_numbers(shift, "shift")
        keep = np.argsort(-np.abs(vector), kind="stable")[: self.k]
        if not np.any(vector):
            vector[keep[0]] = 1.0
        result = np.zeros(len(vector))
        result[keep] = self.radius * vector[keep] / np.linalg.norm(vector[keep])
        return result

    def sample(self, n: int, n_nodes: int, rng: int | np.random.Generator | None = None) -> Vector:
        """Draw supports and directions uniformly, shape ``(n, n_nodes)``."""
        generator = as_rng(rng)
        size = min(self.k, n_nodes)
        shifts = np.zeros((n, n_nodes))
        for row in shifts:
            entries = generator.standard_normal(size)
            support = generator.choice(n_nodes, size, replace=False)
            row[support] = self.radius * entries / np.linalg.norm(entries)
        return shifts

    def _search(self, acquisition: Criterion, starts: list[Vector]) -> Optimum:
        p = acquisition.n_nodes
        # One node: all 2 p shifts are tried.
        singles = self.radius * np.vstack([np.eye(p), -np.eye(p)])
        values = acquisition.values(singles)
        best, least = singles[int(values.argmin())], float(values.min())
        support = best != 0

        def on(support: NDArray[np.bool_], *more: Vector) -> _End:
            usable = [start for start in [*more, *starts] if start[support].any()]
            ends = [
                self._descend(acquisition, s, support)
                for s in [*usable, support.astype(np.float64)]
            ]
            return *min(ends, key=lambda end: end[1]), support

        each = np.eye(p, dtype=np.bool_)
        # The node whose addition lowers the acquisition most.
        for _ in range(min(self.k, p) - 1):
            wider = [
                on(support | each[new], np.where(each[new], 0.1 * self.radius, best))
                for new in np.flatnonzero(~support)
            ]
            shift, value, support = min(wider, key=lambda end: end[1])
            # A wider support holds the shift so far: keep it where no search got below it.
            if value < least:
                best, least = shift, value
        # One node exchanged for another.
        for _ in range(p if self.k > 1 else 0):
            swaps = product(np.flatnonzero(support), np.flatnonzero(~support))
            exchanged = (on(support ^ each[gone] ^ each[new]) for gone, new in swaps)
            limit = least - 1e-9 * abs(least)
            better = next((end for end in exchanged if end[1] < limit), None)
            if better is None:
                break
            best, least, support = better
        return Optimum(best, least)
