"""Draws of distances to first order about those of the expected states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import require_count
from nextpert.core.posterior.pair_shifts import pair_shifts
from nextpert.core.predict.goal import as_goal
from nextpert.core.predict.ranked_distance import expected_states
from nextpert.core.predict.state_draws import state_draws

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.goal import Goal

    Array = NDArray[np.float64]

_STEP = 1e-3  # of a draw's departure; central differences are exact for squared distances


def first_order_distances(
    posterior: DagBlr | Sequence[DagBlr],
    shifts: ShiftPosterior | Sequence[ShiftPosterior],
    target: ArrayLike | Goal,
    *,
    n_samples: int = 400,
    rng: int | np.random.Generator | None = None,
) -> tuple[Array, Array]:
    """Return distances of the expected states, and draws of them to first order.

    What is left out, the squares of what a draw departs by, has heavy tails: summed over many
    genes it hides what sets candidates apart, and most of all of those not yet seen. So the
    probability of being the nearest under these draws tells better which candidates to try, as
    replays of screens show; it is no posterior of the distance.

    Parameters
    ----------
    posterior, shifts
        As in :func:`~nextpert.core.predict.state_draws.state_draws`.
    target
        The wanted mean, shape ``(n_nodes,)``, units of the data; or a goal of any kind, whose
        kinks and bounds are smoothed over the step of a difference.
    n_samples
        Number of draws.
    rng
        Seed or generator.

    Returns
    -------
    expected, draws
        Shapes ``(n_perturbations,)`` and ``(n_draws, n_perturbations)``; squared units of the
        data, or as the goal measures. What the error of the target adds is not taken out.

    Raises
    ------
    ValueError
        If posteriors, shifts and target do not fit together.

    Examples
    --------
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.posterior.shift_posterior import ShiftPosterior
    >>> from nextpert.core.predict.first_order import first_order_distances
    >>> blr = DagBlr(Dag.from_edges(2, []), noise_var=1.0, intercept=False)
    >>> known = ShiftPosterior.exact([[1.0, 2.0], [3.0, 0.0]])
    >>> expected, draws = first_order_distances(blr, known, [0.0, 2.0], n_samples=1)
    >>> expected.tolist(), draws.tolist()
    ([1.0, 13.0], [[1.0, 13.0]])
    """
    require_count(n_samples, "n_samples")
    pairs = pair_shifts(posterior, shifts)
    goal = as_goal(target, pairs[0][0].n_nodes)
    centre = expected_states(pairs)
    states = state_draws(posterior, shifts, n_samples=n_samples, nothing=True, rng=rng)

    def at(step: float, away: Array) -> Array:
        moved = centre + step * away
        return goal.distance(moved, moved[-1])[:-1]

    expected = at(0.0, centre)
    slopes = [
        (at(_STEP, state - centre) - at(-_STEP, state - centre)) / (2 * _STEP) for state in states
    ]
    return expected, expected + np.array(slopes)
