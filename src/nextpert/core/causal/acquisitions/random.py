"""Random choice, the baseline for every acquisition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng, as_vector
from nextpert.core.causal.base import Acquisition, Ranked
from nextpert.core.causal.registry import acquisition

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.causal.base import CandidateStates
    from nextpert.core.causal.dag_blr import DagBlr
    from nextpert.core.causal.domains import Domain

    Vector = NDArray[np.float64]


@acquisition("random")
class Random(Acquisition):
    """Random: a uniform random choice among the shifts of the domain.

    Values are uniform random numbers that are drawn anew at each call, so that a pool is ranked at
    random.

    Parameters
    ----------
    posterior
        A posterior, of which only the number of nodes is used.
    target_mean
        Not used; accepted as by the other acquisitions.
    rng
        Seed or generator.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, Random
    >>> Random(DagBlr(Dag.from_edges(2, [])), rng=0).values(np.eye(2)).shape
    (2,)
    """

    exact_only = False
    in_words = "chance"

    def __init__(
        self,
        posterior: DagBlr,
        target_mean: ArrayLike | None = None,
        *,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self.n_nodes = posterior.n_nodes
        self._rng = as_rng(rng)

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Vector]:
        """Return a random number and a zero gradient."""
        as_vector(shift, self.n_nodes, "shift")
        return float(self._rng.random()), np.zeros(self.n_nodes)

    def values(self, shifts: ArrayLike, do: NDArray[np.bool_] | None = None) -> Vector:
        """Return a random number for every shift of a pool, ``(n_shifts, n_nodes)``."""
        return self._rng.random(len(self._pool(shifts)))

    @classmethod
    def of_candidates(cls, candidates: CandidateStates) -> Ranked:
        """Return a random number for every candidate."""
        return Ranked(candidates.rng.random(candidates.size))

    @classmethod
    def plate(
        cls, candidates: CandidateStates, allowed: NDArray[np.int64], size: int
    ) -> NDArray[np.int64]:
        """Return up to ``size`` candidates in ``allowed``, drawn at random."""
        return candidates.rng.choice(allowed, min(size, len(allowed)), replace=False)

    def closed_form(self, domain: Domain) -> Vector | None:
        """Return a random point of ``domain``."""
        return domain.sample(1, self.n_nodes, self._rng)[0]
