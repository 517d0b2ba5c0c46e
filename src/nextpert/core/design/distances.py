"""Draws of perturbations' states and of their distances to a target, and the resulting order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._blas import one_thread
from nextpert.core._checks import as_rng, require_count
from nextpert.core.causal.dag_blr import DagBlr
from nextpert.core.causal.weights import known_shifts, mean_draws
from nextpert.core.design.goal import as_goal
from nextpert.core.design.joint_draws import Draw, States, distance_draws, slope_draws

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.design.goal import Goal

    Array = NDArray[np.float64]

INTERVAL = 0.9  # coverage of intervals, one level in the whole package


def states_of(posterior: DagBlr | Sequence[DagBlr], shifts: ArrayLike) -> States:
    """Return the joint posterior of the states under known shifts, and last under none.

    ``shifts`` has the shape ``(n_shifts, n_nodes)``; posteriors on several graphs have equal
    weights.

    Examples
    --------
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.design.distances import states_of
    >>> blr = DagBlr(Dag.from_edges(2, []), noise_var=1.0, intercept=False)
    >>> states_of(blr, [[1.0, 2.0]]).mean.tolist()
    [[1.0, 2.0], [0.0, 0.0]]
    """
    posteriors = [posterior] if isinstance(posterior, DagBlr) else list(posterior)
    exact = known_shifts(posteriors, shifts)
    with_control = np.vstack([exact, np.zeros((1, exact.shape[1]))])

    def draws(n_samples: int, rng: np.random.Generator) -> Iterator[Draw]:
        return map(Draw, mean_draws(posteriors, exact, n_samples=n_samples, rng=rng))

    return States(np.mean([blr.predict_mean(with_control) for blr in posteriors], axis=0), draws)


@dataclass(frozen=True)
class RankedDistance:
    """Squared distances to a target, in squared units of the data, or in the units of the goal.

    Every array except ``draws`` has the shape ``(n_perturbations + 1,)``; the last entry belongs to
    the control.

    Parameters
    ----------
    mean
        Posterior mean. It can be below 0 if the target has an error and the distance is about 0.
    median
        Posterior median, not below 0; rare draws with large distances do not affect it.
    low, high
        Ends of the 90% interval, not below 0. For a squared distance to target states (equation
        30), ``high`` is a quantile of the draws, and ``low`` the smaller of two values: the lower
        end of the shortest interval, and a quantile of first-order draws, which do not include the
        variance of the state. For goals with other parts, it is the shortest interval.
    centre
        Squared distance of the expected state, ``|E theta - mu*|^2``; ``mean`` exceeds it by the
        variance of the state. The perturbation that defines the target ranks first more often by
        ``centre``.
    nearest, nearer
        Probability of being nearest, and of being nearer than the control; 0 for the control.
    draws
        The draws, shape ``(n_draws, n_perturbations + 1)``.
    """

    mean: Array
    median: Array
    low: Array
    high: Array
    centre: Array
    nearest: Array
    nearer: Array
    draws: Array

    def rows(self, candidates: NDArray[np.int64]) -> RankedDistance:
        """Return some perturbations, in the given order, and the control."""
        index = np.append(candidates, -1)
        names = ("mean", "median", "low", "high", "centre", "nearest", "nearer")
        of_candidates = {name: getattr(self, name)[index] for name in names}
        return RankedDistance(**of_candidates, draws=self.draws[:, index])

    def among(self, is_admitted: NDArray[np.bool_]) -> RankedDistance:
        """Return it with ``nearest`` computed among some perturbations; the others have 0."""
        nearest = np.zeros(len(self.nearest))
        nearest[:-1][is_admitted] = probability_nearest(self.draws[:, :-1][:, is_admitted])
        return replace(self, nearest=nearest)

    def as_near(self, tolerances: ArrayLike) -> Array:
        """Return the probability of each entry that no entry is nearer by more than a tolerance.

        ``tolerances``, shape ``(n_tolerances,)``, are shares of the mean distance of the control.
        The result has the shape ``(n_tolerances, n_perturbations + 1)``; without a tolerance, ties
        count for each of the nearest.

        Examples
        --------
        >>> import numpy as np
        >>> from nextpert.core.design.distances import RankedDistance
        >>> draws = np.array([[1.0, 3.0, 8.0], [5.0, 4.0, 12.0]])
        >>> RankedDistance(*[draws.mean(axis=0)] * 7, draws).as_near([0.0, 0.1, 0.2]).tolist()
        [[0.5, 0.5, 0.0], [1.0, 0.5, 0.0], [1.0, 1.0, 0.0]]
        """
        excess = self.draws - self.draws.min(axis=1, keepdims=True)
        distance = max(float(self.mean[-1]), 0.0)
        of_tolerance = [(excess <= x * distance).mean(axis=0) for x in np.atleast_1d(tolerances)]
        return np.array(of_tolerance)


@one_thread()
def ranked_distance(
    states: States,
    target: ArrayLike | Goal,
    *,
    n_samples: int = 1000,
    rng: int | np.random.Generator | None = None,
) -> RankedDistance:
    """Return squared distances to a target, and probabilities of being nearest and nearer.

    Distances follow from joint draws of the states. If the target is a mean of cells, its error is
    also drawn. The error adds the trace of its covariance to a squared distance; this trace is
    subtracted twice, for the error of the given mean and for that of the draw. The mean is thus
    unbiased, as in :func:`nextpert.tl.target_distances`. Nothing is subtracted for bounds,
    signatures and angles. A target state that is itself a perturbation of the draws
    (:class:`Draw`) has no further error, because each draw contains both states.

    Parameters
    ----------
    states
        The joint posterior of the states, such as that of
        :func:`~nextpert.core.design.distances.states_of` for known shifts.
    target
        The target mean, shape ``(n_nodes,)``, units of the data; or a goal of any kind (see
        :class:`~nextpert.core.design.goal.Goal`), with the variance of its states.
    n_samples
        Number of draws, at least 2; rounded up to the same number from every graph.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        If states and target do not match, or contain invalid values.

    Examples
    --------
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.design.distances import ranked_distance, states_of
    >>> blr = DagBlr(Dag.from_edges(2, []), noise_var=1.0, intercept=False)
    >>> states = states_of(blr, [[1.0, 2.0], [3.0, 0.0]])
    >>> found = ranked_distance(states, [0.0, 2.0], n_samples=10)
    >>> found.mean.tolist(), found.nearest.tolist(), found.nearer.tolist()
    ([1.0, 13.0, 4.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    """
    require_count(n_samples, "n_samples", minimum=2)
    generator = as_rng(rng)
    expected, draw = states
    goal = as_goal(target, expected.shape[1])
    drawn = draw(n_samples, generator)
    distances = []
    slopes = []
    # For the target's error, and for first-order draws.
    target_rng, first_order_rng = generator.spawn(2)
    for one in drawn:
        distances.append(distance_draws(goal, one, generator, target_rng))
        if goal.is_states:
            slopes.append(slope_draws(goal, expected, one, first_order_rng))
    draws, control = (
        np.concatenate(blocks) - 2 * goal.floor for blocks in zip(*distances, strict=True)
    )
    centre = goal.distance(expected, expected[-1]) - goal.floor
    low, high = shortest_interval(np.maximum(draws, 0.0), INTERVAL)
    if slopes:  # equation 30
        linear = np.concatenate(slopes)
        linear += goal.error_sd(expected) * first_order_rng.standard_normal(linear.shape)
        ends = (1.0 - INTERVAL) / 2, (1.0 + INTERVAL) / 2
        low = np.minimum(low, np.maximum(centre + np.quantile(linear, ends[0], axis=0), 0.0))
        high = np.maximum(np.quantile(draws, ends[1], axis=0), 0.0)
    nearer = (draws < control).mean(axis=0)
    nearest = np.append(probability_nearest(draws[:, :-1]), 0.0)
    median = np.maximum(np.median(draws, axis=0), 0.0)
    return RankedDistance(draws.mean(axis=0), median, low, high, centre, nearest, nearer, draws)


def shortest_interval(draws: Array, confidence: float) -> tuple[Array, Array]:
    """Return bounds of the shortest intervals with a share ``confidence`` of the draws.

    ``draws`` has the shape ``(n_draws, n)``.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.distances import shortest_interval
    >>> shortest_interval(np.array([[0.0], [0.1], [0.3], [0.2], [5.0]]), 0.8)
    (array([0.]), array([0.3]))
    """
    inside = int(np.ceil(confidence * len(draws)))
    ordered = np.sort(draws, axis=0)
    width = ordered[inside - 1 :] - ordered[: len(draws) - inside + 1]
    first = width.argmin(axis=0)[None]
    return tuple(np.take_along_axis(ordered, k, axis=0)[0] for k in (first, first + inside - 1))


def probability_nearest(draws: Array) -> Array:
    """Return the share of draws ``(n_draws, n)`` in which each column is smallest; ties are split.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.distances import probability_nearest
    >>> probability_nearest(np.array([[1.0, 1.0, 2.0], [3.0, 1.0, 2.0]])).tolist()
    [0.25, 0.75, 0.0]
    """
    is_nearest = draws == draws.min(axis=1, keepdims=True, initial=np.inf)
    return (is_nearest / np.maximum(is_nearest.sum(axis=1, keepdims=True), 1)).mean(axis=0)
