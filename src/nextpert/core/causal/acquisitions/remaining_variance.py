"""The variance of distances that remains after the next cells, by joint draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.causal.base import Acquisition, Ranked
from nextpert.core.causal.registry import acquisition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.causal.base import CandidateStates


@acquisition("remaining_variance")
class OfDistances(Acquisition):
    """Variance of the distances that remains after cells of a candidate (equations 32 and 33).

    It is the counterpart of CIV (:class:`~nextpert.core.Civ`) for uncertain shifts and all goals,
    computed from joint draws: the variance of the candidates' squared distances to the target,
    weighted by the probability that they are nearer than the control. CIV instead averages the
    variance of the gap between shifts over all candidates with equal weights, in closed form. Both
    are defined under exact shifts, and may then rank differently.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Candidates, Dag, DagBlr, find_acquisition
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False)
    >>> candidates = Candidates(blr, [[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0], n_cells=10, rng=0)
    >>> ranked = find_acquisition("remaining_variance").of_candidates(candidates)
    >>> bool(ranked.variance_reduction[0] > ranked.variance_reduction[1])
    True
    """

    on_domain = False
    exact_only = False
    in_words = "the variance of all distances that is expected to remain after their cells"

    @classmethod
    def of_candidates(cls, candidates: CandidateStates) -> Ranked:
        """Return the remaining variance after cells of each candidate."""
        remaining = candidates.remaining
        gains = remaining.gains(candidates.noise.at(candidates.n_cells))
        removed = gains / remaining.before if remaining.before > 0 else np.zeros_like(gains)
        return Ranked(remaining.before - gains, removed)

    @classmethod
    def plate(
        cls, candidates: CandidateStates, allowed: NDArray[np.int64], size: int
    ) -> NDArray[np.int64]:
        """Return the best candidates in ``allowed``, given the cells of those chosen before."""
        is_allowed = np.isin(np.arange(candidates.size), allowed)
        noise = candidates.noise.at(candidates.n_cells)
        return np.array(
            candidates.remaining.most_informative(size, noise, allowed=is_allowed), np.int64
        )
