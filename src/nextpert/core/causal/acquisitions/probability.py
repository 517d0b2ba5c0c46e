"""The probability that a candidate is the nearest to the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextpert.core.causal.base import Acquisition, Ranked
from nextpert.core.causal.registry import acquisition

if TYPE_CHECKING:
    from nextpert.core.causal.base import CandidateStates


@acquisition("probability")
class Probability(Acquisition):
    """Minus the probability that a candidate is the nearest of all to the target.

    The probability is estimated from joint draws of weights, graphs and shifts (see
    :func:`~nextpert.core.ranked_distance`).

    Examples
    --------
    >>> from nextpert.core import Candidates, Dag, DagBlr, find_acquisition
    >>> blr = DagBlr(Dag.from_edges(2, []), noise_var=1.0, intercept=False)
    >>> candidates = Candidates(blr, [[1.0, 2.0], [3.0, 0.0]], [0.0, 2.0])
    >>> find_acquisition("probability").of_candidates(candidates).values.tolist()
    [-1.0, 0.0]
    """

    on_domain = False
    exact_only = False
    in_words = "the probability of being the nearest"

    @classmethod
    def of_candidates(cls, candidates: CandidateStates) -> Ranked:
        """Return minus the probability of every candidate."""
        return Ranked(0.0 - candidates.distances.nearest[:-1])
