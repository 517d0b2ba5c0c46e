"""Domains of interventions: shifts of a fixed norm, and finite pools of shifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import ive

from nextpert.core._checks import as_numbers, as_rng, as_vector, require_finite, require_positive

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Vector = NDArray[np.float64]


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
    """

    shift: Vector
    value: float
    index: int | None = None


class Domain:
    """Base class: a set of possible interventions."""

    def moments(self, n_nodes: int) -> tuple[Vector, Vector]:
        """Return the mean and variance of a uniformly drawn shift, each ``(n_nodes,)``."""
        raise NotImplementedError

    def project(self, shift: ArrayLike) -> Vector:
        """Return the point of the domain nearest to ``shift``, shape ``(n_nodes,)``."""
        raise NotImplementedError

    def sample(self, n: int, n_nodes: int, rng: int | np.random.Generator | None = None) -> Vector:
        """Draw shifts uniformly, shape ``(n, n_nodes)``."""
        raise NotImplementedError

    def output_weighted_square(self, b: Vector) -> Vector:
        """Return ``E(a_i - b_i)^2`` under the output weights of :class:`CivOw`."""
        raise NotImplementedError

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
        raise NotImplementedError


class Pool(Domain):
    """A finite list of candidate shifts, searched exhaustively.

    Parameters
    ----------
    shifts
        Candidates, shape ``(n_shifts, n_nodes)``, units of the data.

    Raises
    ------
    ValueError
        If the list is empty or contains NaN or infinite values.

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
            message = (
                f"A pool needs shifts of shape (n_shifts, n_nodes) with at least one row, but got "
                f"the shape {self.shifts.shape}."
            )
            raise ValueError(message)
        require_finite(self.shifts, "shifts")

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
        levels, which, counts = np.unique(gap, return_inverse=True, return_counts=True)
        if len(levels) == 1:
            return np.full(len(gap), 1 / len(gap))
        # Each level extends half way to its neighbours.
        half = np.diff(levels) / 2
        width = np.concatenate([half, [0.0]]) + np.concatenate([[0.0], half])
        return (width / counts)[which] / width.sum()

    def output_weighted_square(self, b: Vector) -> Vector:
        """Return ``E(a_i - b_i)^2`` under :meth:`output_weights`, shape ``(n_nodes,)``."""
        return self.output_weights(b) @ (self.shifts - b) ** 2

    def minimise(self, acquisition: Any, **kwargs: object) -> Optimum:
        """Return the best candidate, the first of equals; the other arguments are not used."""
        values = acquisition.values(self.shifts)
        index = int(np.argmin(values))
        return Optimum(self.shifts[index].copy(), float(values[index]), index)

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
        p, norm = len(b), np.linalg.norm(b)
        if norm == 0 or p == 1:
            return b**2 + self.radius**2 / p
        # t = a'b / |b| has mean square tau R^2; the other p - 1 directions share the rest.
        tau = 1 / 3
        if kappa is not None:
            # Mean squared cosine under von Mises-Fisher; ive scales both Bessel functions alike.
            tau = 1 - (p - 1) / kappa * ive(p / 2, kappa) / ive(p / 2 - 1, kappa)
        share = (b / norm) ** 2
        return b**2 + self.radius**2 * (tau * share + (1 - tau) * (1 - share) / (p - 1))

    def minimise(
        self,
        acquisition: Any,
        *,
        starts: Sequence[ArrayLike] = (),
        n_random: int = 2,
        rng: int | np.random.Generator | None = None,
    ) -> Optimum:
        """Return the best shift that local searches from all starts find on the sphere."""
        known = acquisition.closed_form(self)
        if known is not None:
            return Optimum(known, acquisition.value(known))
        p = acquisition.n_nodes
        # Local searches from all starts; the end with the lowest value is returned.
        points = [as_vector(start, p, "A start", finite=False) for start in starts]
        # The paper's two starts: the last shift and the current estimate.
        points += acquisition.starts()
        if n_random:
            points += list(self.sample(n_random, p, rng))
        usable = [s for s in points if np.isfinite(s).all() and np.any(s)]
        ends = [self._descend(acquisition, s) for s in usable or self.sample(1, p, rng)]
        return Optimum(*min(ends, key=lambda end: end[1]))

    def _descend(self, acquisition: Any, start: Vector) -> tuple[Vector, float]:
        """Return the best shift that a search from ``start`` finds, and its value."""
        floor = acquisition.floor
        if getattr(acquisition, "is_sum", False):
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
            unit = z / norm
            value, grad = acquisition.value_and_grad(self.radius * unit)
            across = self.radius * (grad - (grad @ unit) * unit) / norm
            return (value - floor) / scale, across / scale

        options = {"ftol": 1e-9, "gtol": 1e-8, "maxiter": 1000, "maxls": 8}
        end = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
        shift = self.radius * (end.x / np.linalg.norm(end.x))
        return shift, acquisition.value(shift)
