"""Domains of interventions: what they share, finite lists of shifts, and boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.optimize import minimize

from nextpert.core._checks import as_numbers, as_rng, as_vector, require_finite
from nextpert.core._shown import Shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Vector = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Optimum(Shown):
    """The best shift found in a domain.

    Parameters
    ----------
    shift
        The shift, shape ``(n_nodes,)``, units of the data.
    value
        The acquisition there; lower is better.
    index
        Its place in the pool, ``None`` in other domains.
    """

    shift: Vector
    value: float
    index: int | None = None


class Criterion(Protocol):
    """What a domain asks of an acquisition to find its best shift; lower is better."""

    n_nodes: int

    @property
    def floor(self) -> float:
        """What of the acquisition no shift can change."""

    def value(self, shift: ArrayLike) -> float:
        """Return the acquisition at one shift."""

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Vector]:
        """Return the acquisition and its gradient at one shift."""

    def values(self, shifts: ArrayLike) -> Vector:
        """Return the acquisition at every shift of a pool."""

    def closed_form(self, domain: Domain) -> Vector | None:
        """Return the best shift of ``domain`` where it is known without a search."""

    def starts(self) -> list[Vector]:
        """Return good starting shifts for a search."""


class Domain(Shown):
    """Base class: a set of possible interventions."""

    def moments(self, n_nodes: int) -> tuple[Vector, Vector]:
        """Return mean and variance of a shift drawn uniformly, each ``(n_nodes,)``."""
        raise NotImplementedError

    def project(self, shift: ArrayLike) -> Vector:
        """Return the point of the domain nearest to ``shift``, shape ``(n_nodes,)``."""
        raise NotImplementedError

    def sample(self, n: int, n_nodes: int, rng: int | np.random.Generator | None = None) -> Vector:
        """Draw shifts uniformly, shape ``(n, n_nodes)``."""
        raise NotImplementedError

    def output_weighted_square(self, b: Vector) -> Vector:
        """Return ``E(a_i - b_i)^2`` under output weights; not every domain has them."""
        message = (
            f"CIV-OW has no output weights on {type(self).__name__}: use Sphere or Pool, or Civ."
        )
        raise ValueError(message)

    def minimise(
        self,
        acquisition: Criterion,
        *,
        starts: Sequence[ArrayLike] | None = None,
        n_random: int = 2,
        rng: int | np.random.Generator | None = None,
    ) -> Optimum:
        """Return the best shift of the domain.

        Parameters
        ----------
        acquisition
            The acquisition, lower is better.
        starts
            Where searches start, beside the acquisition's own starts (the current estimate);
            the paper adds the last intervention.
        n_random
            Number of further random starts; a box, where searches end in many places, takes
            twelve times as many, the best of its draws.
        rng
            Seed or generator of the random starts.
        """
        known = acquisition.closed_form(self)
        if known is not None:
            return Optimum(known, acquisition.value(known))
        p = acquisition.n_nodes
        points = [
            as_vector(start, p, "A start", finite=False)
            for start in (() if starts is None else starts)
        ]
        points += acquisition.starts()
        if n_random:
            points += self._random_starts(acquisition, n_random, as_rng(rng))
        usable = [s for s in points if np.isfinite(s).all() and np.any(s)]
        if not usable:
            usable = list(self.sample(1, p, rng))
        return self._search(acquisition, usable)

    def _random_starts(
        self, acquisition: Criterion, n: int, rng: np.random.Generator
    ) -> list[Vector]:
        return list(self.sample(n, acquisition.n_nodes, rng))

    def _search(self, acquisition: Criterion, starts: list[Vector]) -> Optimum:
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
        If the list is empty or has NaN or infinite values.

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

    def _facts(self) -> dict[str, int]:
        return {"n_shifts": len(self.shifts)}

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
        # Each level reaches half way to its neighbours.
        half = np.diff(levels) / 2
        width = np.concatenate([half, [0.0]]) + np.concatenate([[0.0], half])
        return (width / counts)[which] / width.sum()

    def output_weighted_square(self, b: Vector) -> Vector:
        """Return ``E(a_i - b_i)^2`` under :meth:`output_weights`, shape ``(n_nodes,)``."""
        return self.output_weights(b) @ (self.shifts - b) ** 2

    def minimise(self, acquisition: Criterion, **kwargs: object) -> Optimum:
        """Return the best candidate; the first of equals. Further options are not needed."""
        values = acquisition.values(self.shifts)
        index = int(np.argmin(values))
        return Optimum(self.shifts[index].copy(), float(values[index]), index)

    def _require(self, n_nodes: int) -> None:
        if self.shifts.shape[1] != n_nodes:
            message = f"The pool has {self.shifts.shape[1]} nodes, but {n_nodes} are needed."
            raise ValueError(message)


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
        self.low, self.high = as_numbers(low, "low"), as_numbers(high, "high")
        message = ""
        if self.low.size != self.high.size and 1 not in (self.low.size, self.high.size):
            message = f"low has shape {self.low.shape}, but high {self.high.shape}: give one size."
        elif not (np.isfinite(self.low).all() and np.isfinite(self.high).all()):
            message = "The bounds of a box must be finite."
        elif np.any(self.low > self.high):
            message = "A box needs low <= high for every node."
        if message:
            raise ValueError(message)

    def _facts(self) -> dict[str, float]:
        return {"low": float(self.low.min()), "high": float(self.high.max())}

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
        # Corners with any share of high bounds, not half of them alone.
        corners = rng.uniform(size=(half, p)) < rng.uniform(size=(half, 1))
        draws = np.vstack([self.sample(half, p, rng), np.where(corners, high, low)])
        best = np.argsort(acquisition.values(draws), kind="stable")[: _PER_START * n]
        return list(draws[best])

    def _search(self, acquisition: Criterion, starts: list[Vector]) -> Optimum:
        ends = [self._descend(acquisition, self.project(start)) for start in starts]
        ends.sort(key=lambda end: end[1])
        rng = np.random.default_rng(0)
        stirred = [self._stir(acquisition, *end, rng) for end in ends[:_STIRRED]]
        return Optimum(*min(stirred, key=lambda end: end[1]))

    def _stir(
        self, acquisition: Criterion, shift: Vector, value: float, rng: np.random.Generator
    ) -> tuple[Vector, float]:
        """Look around the end of a search, near and far, and search on from what is better.

        Acquisitions that are the largest of their nodes have kinks, at which a search stops early.
        """
        p, floor = len(shift), acquisition.floor
        low, high = self._bounds(p)
        for _ in range(20):
            reach = 10 ** rng.uniform(-3, 0, size=(_ROUND, 1)) * (high - low)
            # Of some nodes, from few to all of them.
            moved = rng.uniform(size=(_ROUND, p)) < rng.uniform(size=(_ROUND, 1))
            draws = shift + np.where(moved, reach * rng.standard_normal((_ROUND, p)), 0.0)
            draws = np.clip(draws, low, high)
            values = acquisition.values(draws)
            best = int(values.argmin())
            if not values[best] < value:
                break
            before = value
            shift, value = self._descend(acquisition, draws[best])
            if not value < before - 1e-5 * abs(before - floor):
                break
        return shift, value

    def _descend(self, acquisition: Criterion, start: Vector) -> tuple[Vector, float]:
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
            end = minimize(
                objective, within, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * len(low),
                options={"ftol": 1e-12, "gtol": 1e-8, "maxiter": 1000},
            )  # fmt: skip
            moved = np.where(end.x < 1, self.project(low + width * end.x), high)
            value = acquisition.value(moved) - floor
            if value < least:
                shift = moved
            if not value < least - 1e-9 * abs(least):
                break
            least = value
        return shift, acquisition.value(shift)
