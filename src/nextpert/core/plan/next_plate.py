"""What the next plate is expected to gain, by the knowledge gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._checks import as_rng, require_count
from nextpert.core.predict.goal import as_goal
from nextpert.core.predict.state_draws import state_draws

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.goal import Goal

    Array = NDArray[np.float64]

_FEWEST, _NUMBERS = 100, 20_000_000  # draws, and numbers at most in them
_TINY = 1e-300  # keeps 0 / 0 from a division; below every variance


class NextPlate(NamedTuple):
    """Joint draws of what the next plate measures.

    Parameters
    ----------
    candidates
        Which candidates are on it, shape ``(n,)``.
    distances
        Their squared distances, shape ``(n_draws, n)``.
    expected
        In the same draws, the squared distances of the states that will be expected after the
        plate's cells, same shape.
    """

    candidates: NDArray[np.int64]
    distances: Array
    expected: Array


def draw_plate(
    posterior: DagBlr | Sequence[DagBlr],
    shifts: ShiftPosterior | Sequence[ShiftPosterior],
    target: ArrayLike | Goal,
    candidates: ArrayLike,
    *,
    variance: ArrayLike,
    n_samples: int = 1000,
    rng: int | np.random.Generator | None = None,
) -> NextPlate:
    """Return joint draws of what a plate measures, and of what will be expected after it.

    In each draw the plate's means are the states of the draw and their sampling error. After it
    each node is expected at its mean over draws, plus the share of its departure that is not
    error: its variance over draws, over that variance and the error's.

    Parameters
    ----------
    posterior, shifts
        As for :func:`~nextpert.core.predict.state_draws.state_draws`; the shifts are those of the
        candidates on the plate alone.
    target
        The wanted mean, shape ``(n_nodes,)``, units of the data; or a goal of any kind.
    candidates
        Their indices in the pool, shape ``(n,)``.
    variance
        Sampling variance of a candidate's mean on the plate, a number or of every node.
    n_samples
        Number of draws; fewer where a plate of many nodes would not fit into memory.
    rng
        Seed or generator.
    """
    generator, index = as_rng(rng), np.asarray(candidates, np.int64)
    p = (posterior if hasattr(posterior, "n_nodes") else posterior[0]).n_nodes
    goal = as_goal(target, p)
    fits = max(_NUMBERS // (p * (len(index) + 1)), _FEWEST)
    count = min(require_count(n_samples, "n_samples", least=2), fits)
    states = np.array(
        list(state_draws(posterior, shifts, n_samples=count, nothing=True, rng=generator))
    )
    distances = [goal.distance(state, state[-1]) - goal.floor for state in states]
    mean, spread = states.mean(axis=0), states.var(axis=0)
    error = np.broadcast_to(np.asarray(variance, np.float64), p)
    share = spread / np.maximum(spread + error, _TINY)
    states += np.sqrt(error) * generator.standard_normal(states.shape)
    after = mean + share * (states - mean)
    expected = [goal.distance(state, mean[-1]) for state in after]
    return NextPlate(index, np.array(distances)[:, :-1], np.array(expected)[:, :-1])


def knowledge_gradient(plate: NextPlate, measured: ArrayLike, elsewhere: float) -> float:
    """Return by how much the best known is expected to be closer after the next plate.

    What is expected of a distance after the plate is its regression on the distance of the expected
    state: its mean over draws in which that is alike. Half of the draws say which candidate will be
    chosen, the other half what is then expected of it, by turns; so choosing among noisy means
    promises nothing.

    Parameters
    ----------
    plate
        The next plate.
    measured
        Which of its candidates have cells already, shape ``(n,)``.
    elsewhere
        The smallest expected distance of those known and not on the plate, the control among them.

    Returns
    -------
    float
        At least 0, squared units of the data.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.plan.next_plate import NextPlate, knowledge_gradient
    >>> distance = np.repeat([[1.0], [3.0]], 100, axis=0)
    >>> told = NextPlate(np.array([0]), distance, distance)
    >>> knowledge_gradient(told, [False], elsewhere=2.0)
    0.5
    """
    distances, seen = plate.distances, np.asarray(measured, np.bool_)
    now = min(float(distances[:, seen].mean(axis=0).min(initial=np.inf)), elsewhere)
    n = len(distances)
    order = np.argsort(plate.expected, axis=0, kind="stable")
    ordered = np.take_along_axis(distances, order, axis=0)
    halves = np.empty((2, *distances.shape))
    for rows in np.array_split(np.arange(n), max(int(np.sqrt(n / 2)), 1)):
        for half, after in enumerate(halves):
            mean = ordered[rows[half::2]].mean(axis=0, keepdims=True)
            np.put_along_axis(after, order[rows], mean, axis=0)
    gains = []
    for told, true in (halves, halves[::-1]):
        best = told.argmin(axis=1)[:, None]
        chosen, value = (np.take_along_axis(x, best, axis=1) for x in (told, true))
        gains.append(now - np.where(chosen < elsewhere, value, elsewhere).mean())
    return max(float(np.mean(gains)), 0.0)
