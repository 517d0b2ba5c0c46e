"""Domains of interventions: spheres, few shifted nodes, boxes, and finite pools."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import ive

from nextpert.core._checks import (
    as_numbers,
    as_rng,
    as_vector,
    require_count,
    require_finite,
    require_positive,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Vector = NDArray[np.float64]
    Mask = NDArray[np.bool_]


ALL_NODES = slice(None)
# Starts in a box: draws of either kind, and searches from the best per random start asked for.
_BOX_DRAWS, _BOX_STARTS = 512, 12


@dataclass(frozen=True)
class Optimum:
    """The best shift found in a domain.

    Parameters
    ----------
    shift
        The shift, shape ``(n_nodes,)``, units of the data.
    value
        Acquisition at this shift; lower is better.
    index
        Index of the shift in the pool; ``None`` for other domains.
    do
        Nodes that are held at their entries of ``shift`` (hard interventions), boolean,
        ``(n_nodes,)``; ``None`` if the pool has none.
    """

    shift: Vector
    value: float
    index: int | None = None
    do: Mask | None = None


class Domain:
    """Base class: a set of possible interventions."""

    def moments(self, n_nodes: int) -> tuple[Vector, Vector]:
        """Return the mean and variance of a uniformly drawn shift, each ``(n_nodes,)``."""
        raise NotImplementedError

    def mean_square(self, b: Vector) -> Vector:
        """Return ``E(a_i - b_i)^2`` for a uniformly drawn shift, shape ``(n_nodes,)``."""
        mean, variance = self.moments(len(b))
        return variance + (mean - b) ** 2

    def free(self, n_nodes: int) -> Vector:
        """Return the share of interventions that do not hold a node, shape ``(n_nodes,)``."""
        return np.ones(n_nodes)

    def project(self, shift: ArrayLike) -> Vector:
        """Return the point of the domain nearest to ``shift``, shape ``(n_nodes,)``."""
        raise NotImplementedError

    def sample(self, n: int, n_nodes: int, rng: int | np.random.Generator | None = None) -> Vector:
        """Draw shifts uniformly, shape ``(n, n_nodes)``."""
        raise NotImplementedError

    def output_weighted_square(self, b: Vector) -> Vector:
        """Return ``E(a_i - b_i)^2`` under the output weights of :class:`CivOw`."""
        message = f"CIV-OW has no output weights on {type(self).__name__}: use Sphere, Pool or Civ."
        raise ValueError(message)

    def minimise(
        self,
        acquisition: Any,
        *,
        starts: Sequence[ArrayLike] = (),
        n_random: int = 2,
        rng: int | np.random.Generator | None = None,
    ) -> Optimum:
        """Return the best shift of the domain.

        Parameters
        ----------
        acquisition
            The acquisition; lower is better.
        starts
            Shifts from which local searches start, in addition to the current estimate of the
            ideal shift; the paper uses the last intervention.
        n_random
            Number of additional random starts.
        rng
            Seed or generator for the random starts.
        """
        optimum = acquisition.closed_form(self)
        if optimum is not None:
            return Optimum(optimum, acquisition.value(optimum))
        p = acquisition.n_nodes
        # Local searches from all starts; the end with the lowest value is returned.
        points = [as_vector(start, p, "A start", finite=False) for start in starts]
        # The paper's two starts: the last shift and the current estimate.
        points += acquisition.starts()
        if n_random:
            points += self._random_starts(acquisition, n_random, as_rng(rng))
        usable = [s for s in points if np.isfinite(s).all() and np.any(s)]
        return Optimum(*self._search(acquisition, usable or list(self.sample(1, p, rng))))

    def _random_starts(self, acquisition: Any, n: int, rng: np.random.Generator) -> list[Vector]:
        return list(self.sample(n, acquisition.n_nodes, rng))

    def _search(self, acquisition: Any, starts: list[Vector]) -> tuple[Vector, float]:
        ends = (self._descend(acquisition, start) for start in starts)
        return min(ends, key=lambda end: end[1])

    def _descend(self, acquisition: Any, start: Vector) -> tuple[Vector, float]:
        raise NotImplementedError


class Pool(Domain):
    """A finite list of candidate shifts, searched exhaustively.

    Parameters
    ----------
    shifts
        Candidates, shape ``(n_shifts, n_nodes)``, units of the data.
    do
        Which entries are hard interventions, boolean, same shape: there the node is held at the
        entry and its parents have no effect; elsewhere the entry is added. Default: none.

    Raises
    ------
    ValueError
        If the list is empty, contains NaN or infinite values, or ``do`` has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Pool
    >>> Pool(np.eye(3)).project([0.1, 2.0, 0.0]).tolist()
    [0.0, 1.0, 0.0]
    """

    def __init__(self, shifts: ArrayLike, do: ArrayLike | None = None) -> None:
        self.shifts = as_numbers(shifts, "shifts")
        self.do = None if do is None else np.asarray(do)
        if self.shifts.ndim != 2 or len(self.shifts) == 0:
            message = (
                f"A pool needs shifts of shape (n_shifts, n_nodes) with at least one row, but got "
                f"the shape {self.shifts.shape}."
            )
            raise ValueError(message)
        require_finite(self.shifts, "shifts")
        if self.do is not None and (self.do.shape != self.shifts.shape or self.do.dtype != bool):
            message = (
                f"do must be boolean with the shape of shifts, {self.shifts.shape}, but is "
                f"{self.do.dtype} with the shape {self.do.shape}."
            )
            raise ValueError(message)

    def mean_square(self, b: Vector) -> Vector:
        """Return the mean over the pool of ``(a_i - b_i)^2``, counted as 0 where i is held."""
        self._require(len(b))
        free = True if self.do is None else ~self.do
        return np.asarray((free * (self.shifts - b) ** 2).mean(axis=0))

    def free(self, n_nodes: int) -> Vector:
        """Return the share of the candidates that do not hold a node, shape ``(n_nodes,)``."""
        return np.ones(n_nodes) if self.do is None else 1 - self.do.mean(axis=0)

    def moments(self, n_nodes: int) -> tuple[Vector, Vector]:
        """Return the mean and variance over the pool, each ``(n_nodes,)``."""
        self._require(n_nodes)
        return self.shifts.mean(axis=0), self.shifts.var(axis=0)

    def project(self, shift: ArrayLike) -> Vector:
        """Return the candidate nearest to ``shift``."""
        vector = as_numbers(shift, "shift", copy=False)
        self._require(len(vector))
        return self.shifts[((self.shifts - vector) ** 2).sum(axis=1).argmin()]

    def sample(self, n: int, n_nodes: int, rng: int | np.random.Generator | None = None) -> Vector:
        """Draw candidates with replacement, shape ``(n, n_nodes)``."""
        self._require(n_nodes)
        return self.shifts[as_rng(rng).integers(len(self.shifts), size=n)]

    def output_weights(self, b: ArrayLike) -> Vector:
        """Return weights under which the predicted gap ``|a - b|^2`` is uniform on its range.

        The weight of a candidate is its share of the range: half the distance to either neighbour
        among the sorted gaps. Candidates with equal gaps divide their share equally.
        """
        gap = ((self.shifts - np.asarray(b, dtype=np.float64)) ** 2).sum(axis=1)
        levels, level, counts = np.unique(gap, return_inverse=True, return_counts=True)
        if len(levels) == 1:
            return np.full(len(gap), 1 / len(gap))
        # Each level extends half way to its neighbours.
        half = np.diff(levels) / 2
        width = np.concatenate([half, [0.0]]) + np.concatenate([[0.0], half])
        return (width / counts)[level] / width.sum()

    def output_weighted_square(self, b: Vector) -> Vector:
        """Return ``E(a_i - b_i)^2`` under :meth:`output_weights`, shape ``(n_nodes,)``."""
        return self.output_weights(b) @ (self.shifts - b) ** 2

    def minimise(self, acquisition: Any, **kwargs: object) -> Optimum:
        """Return the best candidate, the first of equals; the other arguments are not used.

        Raises
        ------
        ValueError
            If the pool has hard interventions and the acquisition has no form for them.
        """
        if self.do is None:
            values = acquisition.values(self.shifts)
        elif "do" in signature(acquisition.values).parameters:
            values = acquisition.values(self.shifts, self.do)
        else:
            message = (
                f"Acquisition {acquisition.name!r} does not rank hard interventions: use 'civ', "
                f"'greedy' or 'random', or a Pool without do."
            )
            raise ValueError(message)
        index = int(np.argmin(values))
        do = None if self.do is None else self.do[index].copy()
        return Optimum(self.shifts[index].copy(), float(values[index]), index, do)

    def _require(self, n_nodes: int) -> None:
        if self.shifts.shape[1] != n_nodes:
            message = (
                f"The shifts of the pool have {self.shifts.shape[1]} nodes, but must have those of "
                f"the model, {n_nodes}."
            )
            raise ValueError(message)


class Sphere(Domain):
    """All shifts of norm ``radius``, as in the simulations of Zhang et al. 2023.

    If the model has no intercept, acquisitions with look-ahead do not increase with the norm, so
    that the best point of the ball lies on its surface.

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

    def __init__(self, radius: float = 1.0) -> None:
        self.radius = require_positive(radius, "radius")

    def moments(self, n_nodes: int) -> tuple[Vector, Vector]:
        """Return means of zero and variances of ``radius^2 / n_nodes``, each ``(n_nodes,)``."""
        return np.zeros(n_nodes), np.full(n_nodes, self.radius**2 / n_nodes)

    def project(self, shift: ArrayLike) -> Vector:
        """Return ``radius shift / |shift|``; for a shift of zero, the point on the first axis."""
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
        """Return ``E(a_i - b_i)^2`` under the output weights of :class:`CivOw`.

        ``kappa`` is the concentration of a bimodal von Mises-Fisher density about +-b, which
        replaces equation 8 of the paper for p = 3 (its Fig. 3), where CIV-OW would equal CIV.
        """
        p = len(b)
        norm = np.linalg.norm(b)
        if norm == 0 or p == 1:
            return b**2 + self.radius**2 / p
        # t = a'b / |b| has mean square tau R^2; the other p - 1 directions share the rest.
        tau = 1 / 3
        if kappa is not None:
            # Mean squared cosine under von Mises-Fisher; ive scales both Bessel functions alike.
            tau = 1 - (p - 1) / kappa * ive(p / 2, kappa) / ive(p / 2 - 1, kappa)
        share = (b / norm) ** 2
        return b**2 + self.radius**2 * (tau * share + (1 - tau) * (1 - share) / (p - 1))

    def _descend(
        self, acquisition: Any, start: Vector, on: NDArray[np.bool_] | slice = ALL_NODES
    ) -> tuple[Vector, float]:
        """Return the best shift of the nodes ``on`` that a search from ``start`` finds."""
        floor = acquisition.floor
        unit = np.zeros(len(start))
        if on is ALL_NODES and getattr(acquisition, "is_sum", False):
            from nextpert.core.causal._sphere_search import minimise_on_sphere

            shift, excess, _ = minimise_on_sphere(
                acquisition.problem, self.radius, start, 500, 1e-7
            )
            return shift, floor + float(excess)
        # Relative to the part of the value that depends on the shift, so that tolerances do not
        # depend on the units.
        scale = abs(acquisition.value(self.project(start)) - floor) or 1.0

        def objective(z: Vector) -> tuple[float, Vector]:
            # The shift is radius z / |z|; only the gradient perpendicular to z matters.
            norm = np.linalg.norm(z)
            unit[on] = z / norm
            value, grad = acquisition.value_and_grad(self.radius * unit)
            across = self.radius * (grad - (grad @ unit) * unit)[on] / norm
            return (value - floor) / scale, across / scale

        options = {"ftol": 1e-9, "gtol": 1e-8, "maxiter": 1000, "maxls": 8}
        end = minimize(objective, start[on], jac=True, method="L-BFGS-B", options=options)
        unit[on] = end.x / np.linalg.norm(end.x)
        shift = self.radius * unit
        return shift, acquisition.value(shift)


class Sparse(Sphere):
    """All shifts of norm ``radius`` with at most ``k`` shifted nodes.

    The search tries all single nodes, adds the node that lowers the acquisition most until there
    are ``k``, and then exchanges nodes while that lowers it. Each step searches the shift anew.

    Parameters
    ----------
    k
        Largest number of shifted nodes.
    radius
        Norm of the shifts, units of the data.

    Raises
    ------
    ValueError
        If ``k`` is below 1 or the radius is not above 0.

    Examples
    --------
    >>> from nextpert.core import Sparse
    >>> Sparse(1).project([0.5, -3.0, 1.0]).tolist()
    [0.0, -1.0, 0.0]
    """

    def __init__(self, k: int, radius: float = 1.0) -> None:
        self.k = require_count(k, "k")
        super().__init__(radius)

    def output_weighted_square(self, b: Vector, kappa: float | None = None) -> Vector:
        """Raise an error: shifts of few nodes have no output weights."""
        return Domain.output_weighted_square(self, b)

    def project(self, shift: ArrayLike) -> Vector:
        """Return the ``k`` largest entries of ``shift``, scaled to norm ``radius``."""
        vector = as_numbers(shift, "shift")
        vector[np.argsort(-np.abs(vector), kind="stable")[self.k :]] = 0.0
        return super().project(vector)

    def sample(self, n: int, n_nodes: int, rng: int | np.random.Generator | None = None) -> Vector:
        """Draw the ``k`` shifted nodes and their direction uniformly, ``(n, n_nodes)``."""
        generator = as_rng(rng)
        rank = generator.random((n, n_nodes)).argsort(axis=1).argsort(axis=1)
        draws = generator.standard_normal((n, n_nodes)) * (rank < self.k)
        return self.radius * draws / np.linalg.norm(draws, axis=1, keepdims=True)

    def _search(self, acquisition: Any, starts: list[Vector]) -> tuple[Vector, float]:
        p = acquisition.n_nodes
        indicators = np.eye(p, dtype=np.bool_)
        singles = self.radius * np.vstack([np.eye(p), -np.eye(p)])
        values = [acquisition.value(shift) for shift in singles]
        best = singles[int(np.argmin(values))]
        lowest = float(min(values))

        def on(nodes: NDArray[np.bool_]) -> tuple[Vector, float]:
            begin = [np.where(best != 0, best, 0.1 * self.radius), *starts]
            begin = [s for s in begin if s[nodes].any()]
            ends = (self._descend(acquisition, s * nodes, nodes) for s in begin)
            return min(ends, key=lambda end: end[1])

        for _ in range(min(self.k, p) - 1):
            free = np.flatnonzero(best == 0)
            shift, value = min(
                (on((best != 0) | indicators[i]) for i in free), key=lambda end: end[1]
            )
            if value < lowest:
                best, lowest = shift, value
        # One node is exchanged for another; each exchange lowers the value, so this ends.
        better = self.k > 1
        while better:
            better = False
            for removed, new in product(np.flatnonzero(best), np.flatnonzero(best == 0)):
                shift, value = on((best != 0) ^ indicators[removed] ^ indicators[new])
                if value < lowest - 1e-9 * abs(lowest - acquisition.floor):
                    best, lowest = shift, value
                    better = True
                    break
        return best, lowest


class Box(Domain):
    """All shifts between ``low`` and ``high``, node by node.

    Parameters
    ----------
    low, high
        Bounds, shape ``(n_nodes,)`` or one number for all nodes, units of the data.

    Raises
    ------
    ValueError
        If a bound is not finite, or ``low`` is above ``high``.

    Examples
    --------
    >>> from nextpert.core import Box
    >>> Box(-1.0, 0.0).project([-3.0, 0.5]).tolist()
    [-1.0, 0.0]
    """

    def __init__(self, low: ArrayLike, high: ArrayLike) -> None:
        self.low, self.high = as_numbers(low, "low"), as_numbers(high, "high")
        require_finite(self.low, "low")
        require_finite(self.high, "high")
        if np.any(self.low > self.high):
            message = "A box needs low <= high for every node."
            raise ValueError(message)

    def _bounds(self, n_nodes: int) -> tuple[Vector, Vector]:
        shapes = {self.low.shape, self.high.shape}
        if not shapes <= {(), (n_nodes,)}:
            message = f"The bounds of the box must be numbers or have the shape ({n_nodes},)."
            raise ValueError(message)
        return np.broadcast_to(self.low, n_nodes), np.broadcast_to(self.high, n_nodes)

    def moments(self, n_nodes: int) -> tuple[Vector, Vector]:
        """Return the middle and ``(high - low)^2 / 12``, each ``(n_nodes,)``."""
        low, high = self._bounds(n_nodes)
        return (low + high) / 2, (high - low) ** 2 / 12

    def project(self, shift: ArrayLike) -> Vector:
        """Return the shift with every entry moved to its bounds."""
        vector = as_numbers(shift, "shift", copy=False)
        return np.clip(vector, *self._bounds(len(vector)))

    def sample(self, n: int, n_nodes: int, rng: int | np.random.Generator | None = None) -> Vector:
        """Draw shifts uniformly in the box, shape ``(n, n_nodes)``."""
        return as_rng(rng).uniform(*self._bounds(n_nodes), size=(n, n_nodes))

    def _random_starts(self, acquisition: Any, n: int, rng: np.random.Generator) -> list[Vector]:
        # The best of many draws, half of them corners: values cost less than searches.
        p = acquisition.n_nodes
        low, high = self._bounds(p)
        upper = rng.random((_BOX_DRAWS, p)) < rng.random((_BOX_DRAWS, 1))
        draws = np.vstack([self.sample(_BOX_DRAWS, p, rng), np.where(upper, high, low)])
        return list(draws[np.argsort(acquisition.values(draws), kind="stable")[: _BOX_STARTS * n]])

    def _descend(self, acquisition: Any, start: Vector) -> tuple[Vector, float]:
        """Return the best shift that a bounded search from ``start`` finds, and its value."""
        low, high = self._bounds(len(start))
        width = high - low
        floor = acquisition.floor
        begin = self.project(start)
        scale = abs(acquisition.value(begin) - floor) or 1.0

        # In widths of the box and shares of the value, so that tolerances have no units.
        def objective(t: Vector) -> tuple[float, Vector]:
            value, grad = acquisition.value_and_grad(low + width * t)
            return (value - floor) / scale, grad * width / scale

        within = np.divide(begin - low, width, out=np.zeros_like(low), where=width > 0)
        options = {"ftol": 1e-12, "gtol": 1e-8, "maxiter": 1000}
        bounds = [(0, 1)] * len(low)
        end = minimize(
            objective, within, jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
        shift = self.project(low + width * end.x)
        return shift, acquisition.value(shift)
