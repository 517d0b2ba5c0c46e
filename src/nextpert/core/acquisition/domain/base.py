"""What every domain of interventions shares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nextpert.core._checks import as_rng, as_vector

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
        The criterion there; lower is better.
    index
        Its place in the pool, ``None`` in other domains.
    lower_bound
        What no shift of the domain can beat; ``nan`` where it is not known or was not asked for.
        Equal to ``value`` in a pool, which is searched whole.
    """

    shift: Vector
    value: float
    index: int | None = None
    lower_bound: float = float("nan")


class Criterion(Protocol):
    """What a domain asks of an acquisition to find its best shift; lower is better."""

    n_nodes: int

    @property
    def floor(self) -> float:
        """What of the criterion no shift can change."""

    def value(self, shift: ArrayLike) -> float:
        """Return the criterion at one shift."""

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Vector]:
        """Return the criterion and its gradient at one shift."""

    def values(self, shifts: ArrayLike) -> Vector:
        """Return the criterion at every shift of a pool."""

    def closed_form(self, domain: Domain, rng: np.random.Generator) -> Vector | None:
        """Return the best shift of ``domain`` where it is known without a search."""

    def starts(self) -> list[Vector]:
        """Return good starting shifts for a search."""


class Domain:
    """Base class: where interventions may lie."""

    def moments(self, n_nodes: int) -> tuple[Vector, Vector]:
        """Return mean and variance of a shift drawn uniformly, each ``(n_nodes,)``."""
        raise NotImplementedError

    def project(self, shift: ArrayLike) -> Vector:
        """Return the point of the domain nearest to ``shift``, shape ``(n_nodes,)``."""
        raise NotImplementedError

    def sample(self, n: int, n_nodes: int, rng: int | np.random.Generator | None = None) -> Vector:
        """Draw shifts uniformly, shape ``(n, n_nodes)``."""
        raise NotImplementedError

    def output_weighted_square(self, b: Vector, kappa: float | None = None) -> Vector:
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
        certify: bool = False,
        rng: int | np.random.Generator | None = None,
    ) -> Optimum:
        """Return the best shift of the domain.

        Parameters
        ----------
        acquisition
            The criterion, lower is better.
        starts
            Where searches start, beside the acquisition's own starts (the current estimate);
            the paper adds the last intervention.
        n_random
            Number of further random starts; a box, where searches end in many places, takes
            twelve times as many, the best of its draws.
        certify
            Whether to compute the lower bound too, where one is known (costs one small solve a
            node).
        rng
            Seed or generator of the random starts.
        """
        generator = as_rng(rng)
        known = acquisition.closed_form(self, generator)
        if known is not None:
            value = acquisition.value(known)
            return Optimum(known, value, self._index(known), value)
        p = acquisition.n_nodes
        points = [
            as_vector(s, p, "A start", finite=False) for s in ([] if starts is None else starts)
        ]
        points += acquisition.starts()
        points += self._random_starts(acquisition, n_random, generator)
        usable = [s for s in points if np.isfinite(s).all() and np.any(s)]
        if not usable:
            usable = list(self.sample(1, p, generator))
        found = self._search(acquisition, usable)
        return replace(found, lower_bound=self._bound(acquisition)) if certify else found

    def _random_starts(
        self, acquisition: Criterion, n: int, rng: np.random.Generator
    ) -> list[Vector]:
        return list(self.sample(n, acquisition.n_nodes, rng))

    def _bound(self, acquisition: Criterion) -> float:
        return float("nan")

    def _index(self, shift: Vector) -> int | None:
        return None

    def _search(self, acquisition: Criterion, starts: list[Vector]) -> Optimum:
        raise NotImplementedError
