"""Greedy: test the current estimate of the ideal shift."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_vector
from nextpert.core.causal.base import Acquisition, Ranked
from nextpert.core.causal.registry import acquisition

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.causal.base import CandidateStates
    from nextpert.core.causal.dag_blr import DagBlr
    from nextpert.core.causal.domains import Domain

    Vector = NDArray[np.float64]


@acquisition("greedy")
class Greedy(Acquisition):
    """Greedy: the squared distance between a shift and the estimated ideal shift ``b``.

    On a sphere of radius ``r``, the minimum is at ``r b / |b|``; in a pool, it is the candidate
    nearest to ``b`` (Zhang et al. 2023, Methods, baselines).

    Parameters
    ----------
    posterior
        The posterior over the weights.
    target_mean
        The target mean, shape ``(n_nodes,)``, units of the data.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, Greedy
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False)
    >>> Greedy(blr, np.array([1.0, 0.0])).value([0.0, 0.0])
    1.0
    """

    exact_only = False
    in_words = "the expected distance to the target (for exact shifts, to the ideal shift)"

    def __init__(self, posterior: DagBlr, target_mean: ArrayLike) -> None:
        super().__init__(posterior, target_mean)

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Vector]:
        """Return ``|a - b|^2`` and its gradient."""
        gap = as_vector(shift, self.n_nodes, "shift") - self.ideal_shift
        return float(gap @ gap), 2 * gap

    def values(self, shifts: ArrayLike, do: NDArray[np.bool_] | None = None) -> Vector:
        """Return ``|a - b|^2`` for every shift of a pool, ``(n_shifts, n_nodes)``.

        A node that is held (``do``) is compared with its target mean instead of ``b``.
        """
        ideal = self.ideal_shift if do is None else np.where(do, self.target_mean, self.ideal_shift)
        return ((self._pool(shifts) - ideal) ** 2).sum(axis=1)

    def closed_form(self, domain: Domain) -> Vector | None:
        """Return the point of ``domain`` nearest to ``b``."""
        return domain.project(self.ideal_shift)

    @classmethod
    def of_candidates(cls, candidates: CandidateStates) -> Ranked:
        """Return mean distances over draws; for exact shifts, the mean ``|a - b|^2`` over graphs.

        If the goal is not a single state, the value for an exact shift is the distance of its
        expected state.
        """
        if not candidates.exact:
            return Ranked(candidates.distances.mean[:-1])
        if not candidates.goal.is_plain:
            states = candidates.states.mean
            return Ranked(candidates.goal.distance(states[:-1], states[-1]))
        # One target state and exact shifts: |a - b|^2 for every graph.
        shifts = candidates.shifts
        by_graph = [cls(blr, candidates.target_mean).values(shifts) for blr in candidates.graphs]
        return Ranked(np.mean(by_graph, axis=0))
