"""Random: the baseline that every criterion has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng, as_vector
from nextpert.core.acquisition.base import Acquisition

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.acquisition.domain.base import Domain

    Vector = NDArray[np.float64]


class Random(Acquisition):
    """Random: every shift of the domain is as good as any other.

    Values are uniform random numbers, new at each call, so that a pool is ranked at random.

    Parameters
    ----------
    n_nodes
        Number of nodes.
    rng
        Seed or generator.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Random
    >>> Random(2, rng=0).values(np.eye(2)).shape
    (2,)
    """

    name = "random"

    def __init__(self, n_nodes: int, *, rng: int | np.random.Generator | None = None) -> None:
        self.n_nodes = n_nodes
        self._rng = as_rng(rng)

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Vector]:
        """Return a random number and a zero gradient."""
        as_vector(shift, self.n_nodes, "shift")
        return float(self._rng.random()), np.zeros(self.n_nodes)

    def values(self, shifts: ArrayLike) -> Vector:
        """Return a random number for every shift of a pool, ``(n_shifts, n_nodes)``."""
        return self._rng.random(len(self._pool(shifts)))

    def closed_form(self, domain: Domain, rng: np.random.Generator) -> Vector | None:
        """Return a random point of ``domain``."""
        return domain.sample(1, self.n_nodes, self._rng)[0]
