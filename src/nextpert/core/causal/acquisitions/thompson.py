"""Thompson sampling: the candidate nearest to the target in a single draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng
from nextpert.core.causal.base import Acquisition, Ranked
from nextpert.core.causal.registry import acquisition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.causal.base import CandidateStates

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]

DRAWS = 40  # of means, from which one is sampled for each perturbation of a plan


@acquisition("thompson")
class Thompson(Acquisition):
    """The squared distance to the target in a single draw of weights, graph and shifts.

    The probability that a candidate ranks first is the probability that it is the nearest.

    Examples
    --------
    >>> from nextpert.core import Candidates, Dag, DagBlr, find_acquisition
    >>> blr = DagBlr(Dag.from_edges(2, []), noise_var=1.0, intercept=False)
    >>> candidates = Candidates(blr, [[1.0, 2.0], [3.0, 0.0]], [0.0, 2.0])
    >>> find_acquisition("thompson").of_candidates(candidates).values.tolist()
    [1.0, 13.0]
    """

    on_domain = False
    exact_only = False
    in_words = "the distance in a single draw (Thompson sampling)"

    @classmethod
    def of_candidates(cls, candidates: CandidateStates) -> Ranked:
        """Return the distance of every candidate in a draw from a random graph."""
        # Equally many per graph, so that one of all draws is sampled.
        draws = candidates.draw(2).draws
        return Ranked(draws[candidates.rng.integers(len(draws)), :-1])

    @classmethod
    def plate(cls, candidates: CandidateStates, allowed: Index, size: int) -> Index:
        """Return up to ``size`` candidates in ``allowed``, each the nearest in its own draw."""
        draws = candidates.distances.draws
        return allowed[thompson_plate(draws[:, allowed], size, candidates.rng)]


def thompson_plate(
    draws: Vector, size: int, rng: int | np.random.Generator | None = None
) -> NDArray[np.int64]:
    """Return up to ``size`` different candidates for a plan, each the nearest in a sampled draw.

    ``draws`` are squared distances, ``(n_draws, n_perturbations)``. If the nearest candidate of a
    draw was already chosen, the nearest of the others is taken. Indices are in the order of
    choice.
    """
    generator = as_rng(rng)
    is_remaining = np.ones(draws.shape[1], dtype=np.bool_)
    chosen: list[int] = []
    # One draw per place of the plan: the nearest of the remaining candidates.
    while len(chosen) < min(size, draws.shape[1]):
        row = draws[generator.integers(len(draws))]
        chosen.append(int(np.where(is_remaining, row, np.inf).argmin()))
        is_remaining[chosen[-1]] = False
    return np.array(chosen, dtype=np.int64)
