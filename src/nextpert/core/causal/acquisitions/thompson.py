"""Thompson sampling: the nearest candidate under a single draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng
from nextpert.core.causal.base import Acquisition, Ranked
from nextpert.core.causal.registry import acquisition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.causal.base import Asked

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]

DRAWS = 40  # from which a plate takes one for each of its perturbations, with replacement


@acquisition("thompson")
class Thompson(Acquisition):
    """The squared distance to the target under a single draw of weights, graph and shifts.

    A candidate ranks first with the probability that it is the nearest.

    Examples
    --------
    >>> from nextpert.core import Candidates, Dag, DagBlr, find_acquisition
    >>> blr = DagBlr(Dag.from_edges(2, []), noise_var=1.0, intercept=False)
    >>> asked = Candidates(blr, [[1.0, 2.0], [3.0, 0.0]], [0.0, 2.0])
    >>> find_acquisition("thompson").of_candidates(asked).values.tolist()
    [1.0, 13.0]
    """

    on_domain = False
    exact_only = False
    in_words = "one draw (Thompson)"

    @classmethod
    def of_candidates(cls, asked: Asked) -> Ranked:
        """Return it of every candidate, of one graph at random."""
        draws = asked.draw(2).draws  # as many of each graph, so that one is picked among them all
        return Ranked(draws[asked.rng.integers(len(draws)), :-1])

    @classmethod
    def plate(cls, asked: Asked, ready: Index, size: int) -> Index:
        """Return up to ``size`` of the candidates ``ready``, each the nearest of another draw."""
        _, draws = asked.first_order(DRAWS)
        return ready[thompson_plate(draws[:, ready], size, asked.rng)]


def thompson_plate(
    draws: Vector, size: int, rng: int | np.random.Generator | None = None
) -> NDArray[np.int64]:
    """Return up to ``size`` different candidates for one plate, each the nearest in another draw.

    ``draws`` are squared distances, ``(n_draws, n_perturbations)``. If the nearest candidate of a
    draw was chosen before, the nearest of the others is taken. Indices are in the order of the
    draws.
    """
    generator = as_rng(rng)
    left = np.ones(draws.shape[1], dtype=np.bool_)
    chosen: list[int] = []
    # One draw for each place of the plate: its nearest of those that are left.
    while len(chosen) < min(size, draws.shape[1]):
        row = draws[generator.integers(len(draws))]
        chosen.append(int(np.where(left, row, np.inf).argmin()))
        left[chosen[-1]] = False
    return np.array(chosen, dtype=np.int64)
