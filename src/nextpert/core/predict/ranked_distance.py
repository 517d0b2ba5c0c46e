"""How far every perturbation's mean stays from a target, and how sure their order is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng, require_count
from nextpert.core.posterior.pair_shifts import pair_shifts, weights_of
from nextpert.core.predict.goal import as_goal
from nextpert.core.predict.state_draws import state_draws

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.goal import Goal

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class RankedDistance:
    """Squared distances to a target, in squared units of the data, or as the goal measures.

    Every array but ``draws`` has the shape ``(n_perturbations + 1,)``; the last entry is that of
    doing nothing.

    Parameters
    ----------
    mean, sd
        Posterior mean and standard deviation. Below 0 now and then where the target is known with
        error only and the distance is about nothing.
    low, high
        Ends of the interval, not below 0.
    centre
        Squared distance of the expected state, ``|E theta - mu*|^2``. ``mean`` exceeds it by the
        variance of the state, summed over nodes, so that what is little known is far in the mean;
        the perturbation whose state the target is comes first by ``centre`` more often.
    nearest
        Probability of being the nearest perturbation; 0 for doing nothing, which is none.
    nearer
        Probability of being nearer than doing nothing; 0 for doing nothing itself.
    floor
        Squared distance that the error of the target's mean makes by itself. It is taken out of
        the others, but what lies below it is not told apart well.
    draws
        The draws, shape ``(n_draws, n_perturbations + 1)``.
    """

    mean: Array
    sd: Array
    low: Array
    high: Array
    centre: Array
    nearest: Array
    nearer: Array
    floor: float
    draws: Array

    @property
    def gap(self) -> Array:
        """How much nearer the nearest perturbation is expected to be than each."""
        return self.mean - self.draws[:, :-1].min(axis=1, initial=np.inf).mean()


def ranked_distance(
    posterior: DagBlr | Sequence[DagBlr],
    shifts: ShiftPosterior | Sequence[ShiftPosterior],
    target: ArrayLike | Goal,
    *,
    target_variance: ArrayLike | None = None,
    confidence: float = 0.9,
    n_samples: int = 1000,
    rng: int | np.random.Generator | None = None,
) -> RankedDistance:
    """Return every perturbation's squared distance to a target, and how sure their order is.

    By draws of weights, noise variances, graphs and shifts, common to all perturbations as far as
    they share them (:func:`~nextpert.core.predict.state_draws.state_draws`). Where the target is
    the mean of some cells, its error is drawn too and what it adds to a squared distance, the
    trace of its covariance ``V``, is taken out: once for the error in the mean given, once for
    that drawn. So the mean is unbiased, as that of :func:`nextpert.tl.target_distances`. Of a goal
    that is so for its wanted states, by weights and shares; from bounds, signatures, margins and
    angles nothing is taken out. What these start from is the state of doing nothing of the same
    draw.

    Parameters
    ----------
    posterior
        The posterior over the weights; or one on each of several graphs, which count by the
        weight of their shifts.
    shifts
        What is known of the shifts; for several graphs the same for all, or one for each.
    target
        The wanted mean, shape ``(n_nodes,)``, units of the data; or a goal of any kind (see
        :class:`~nextpert.core.predict.goal.Goal`).
    target_variance
        Sampling variance of a wanted mean: of every node, shape ``(n_nodes,)``, or its covariance,
        ``(n_nodes, n_nodes)``; squared units of the data. ``None`` (default): known without error,
        or as the goal says.
    confidence
        Coverage of the intervals, above 0 and below 1.
    n_samples
        Number of draws, at least 2; as many from every graph, so up to one a graph more.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        If posteriors, shifts and target do not fit together, or hold an impossible value.

    Examples
    --------
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.posterior.shift_posterior import ShiftPosterior
    >>> from nextpert.core.predict.ranked_distance import ranked_distance
    >>> blr = DagBlr(Dag.from_edges(2, []), noise_var=1.0, intercept=False)
    >>> shifts = ShiftPosterior.exact([[1.0, 2.0], [3.0, 0.0]])
    >>> found = ranked_distance(blr, shifts, [0.0, 2.0], n_samples=10)
    >>> found.mean.tolist(), found.nearest.tolist(), found.nearer.tolist()
    ([1.0, 13.0, 4.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    """
    if not 0 < confidence < 1:
        message = f"confidence must be between 0 and 1, both excluded, but is {confidence!r}."
        raise ValueError(message)
    require_count(n_samples, "n_samples", least=2)
    pairs, generator = pair_shifts(posterior, shifts), as_rng(rng)
    p = pairs[0][0].n_nodes
    goal = as_goal(target, p, target_variance)
    states = state_draws(posterior, shifts, n_samples=n_samples, nothing=True, rng=generator)
    own = generator.spawn(1)[0]  # of the target's error
    rows = []
    for state in states:
        rows.append(goal.distance(state, state[-1], goal.draw_errors(own)) - 2 * goal.floor)
    draws = np.array(rows)
    ends = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    low, high = np.maximum(ends, 0.0)
    nearer = (draws < draws[:, -1:]).mean(axis=0)
    nearest = np.append(probability_nearest(draws[:, :-1]), 0.0)
    mean, sd = draws.mean(axis=0), draws.std(axis=0, ddof=1)
    expected = expected_states(pairs)
    centre = goal.distance(expected, expected[-1]) - goal.floor
    return RankedDistance(mean, sd, low, high, centre, nearest, nearer, goal.floor, draws)


def probability_nearest(draws: Array) -> Array:
    """Return the share of draws ``(n_draws, n)`` in which each of ``n`` is least; ties are split.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.predict.ranked_distance import probability_nearest
    >>> probability_nearest(np.array([[1.0, 1.0, 2.0], [3.0, 1.0, 2.0]])).tolist()
    [0.25, 0.75, 0.0]
    """
    least = draws == draws.min(axis=1, keepdims=True, initial=np.inf)
    return (least / np.maximum(least.sum(axis=1, keepdims=True), 1)).mean(axis=0)


def expected_states(pairs: list[tuple[DagBlr, ShiftPosterior]]) -> Array:
    """Return the expected states over graphs, weights at their mean; that of no shift last."""
    each = [
        np.vstack([known.states(blr), blr.predict_mean(np.zeros((1, blr.n_nodes)))])
        for blr, known in pairs
    ]
    return np.average(each, axis=0, weights=weights_of(pairs))
