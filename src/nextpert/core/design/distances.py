"""Draws of the means that perturbations reach, of their distances to a target, and their order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from nextpert.core._checks import as_rng, require_count
from nextpert.core._shown import Shown
from nextpert.core.design.goal import as_goal
from nextpert.core.design.joint_draws import Draw, States, distance_draws, slope_draws
from nextpert.core.model._kernels import solve_forward
from nextpert.core.model.shift_posterior import pair_shifts, weights_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.design.goal import Goal
    from nextpert.core.model.dag_blr import DagBlr
    from nextpert.core.model.shift_posterior import ShiftPosterior

    Array = NDArray[np.float64]


def states_of(
    posterior: DagBlr | Sequence[DagBlr], shifts: ShiftPosterior | Sequence[ShiftPosterior]
) -> States:
    """Return the joint posterior of the states on one graph or several (:func:`state_draws`)."""

    def draws(n_samples: int, rng: np.random.Generator) -> Iterator[Draw]:
        return map(Draw, state_draws(posterior, shifts, n_samples=n_samples, nothing=True, rng=rng))

    return States(expected_states(pair_shifts(posterior, shifts)), draws)


def state_draws(
    posterior: DagBlr | Sequence[DagBlr],
    shifts: ShiftPosterior | Sequence[ShiftPosterior],
    *,
    n_samples: int = 400,
    nothing: bool = False,
    rng: int | np.random.Generator | None = None,
) -> Iterator[Array]:
    """Yield draws of the mean reached by every perturbation, one draw after the other.

    The mean is ``(I - B)^-1 (c + a + u)``. Weights and noise variances are drawn from the
    posterior, the same for every perturbation; given them ``u`` is drawn, its nodes going together
    as the shifts say, from components where it is a mixture. So where cells are believed whole the
    draws scatter about the cells' mean, and where there are none about the graph's prediction.
    Only one draw is held at a time.

    Parameters
    ----------
    posterior
        The posterior over the weights; or one on each of several graphs, which count by the
        weight of their shifts.
    shifts
        Posterior of the shifts; for several graphs the same for all, or one for each.
    n_samples
        Number of draws; graphs of the same weight have the same number, so it is rounded up.
    nothing
        Whether the mean reached by no shift comes as a last row.
    rng
        Seed or generator. The weights drawn do not depend on the shifts.

    Yields
    ------
    ndarray
        Means, shape ``(n_perturbations, n_nodes)`` (one row more with ``nothing``), units of the
        data.

    Raises
    ------
    ValueError
        If posteriors and shifts do not fit together, or hold an impossible value.

    Examples
    --------
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.model.shift_posterior import ShiftPosterior
    >>> from nextpert.core.design.distances import state_draws
    >>> blr = DagBlr(Dag.from_edges(2, []), noise_var=1.0, intercept=False)
    >>> [x.tolist() for x in state_draws(blr, ShiftPosterior.exact([[1.0, 2.0]]), n_samples=1)]
    [[[1.0, 2.0]]]
    """
    count, generator = require_count(n_samples, "n_samples"), as_rng(rng)
    pairs = pair_shifts(posterior, shifts)
    counts = _counts(weights_of(pairs), count, generator)
    own = generator.spawn(1)[0]  # of the shifts, so that the weights do not depend on them
    return (
        state
        for (blr, known), n in zip(pairs, counts, strict=True)
        for state in _draws_of_one(blr, known, n, nothing, generator, own)
    )


def _counts(weights: Array, count: int, rng: np.random.Generator) -> list[int]:
    """Return how many draws are taken of each graph, in expectation by its weight."""
    if (weights == weights[0]).all():
        return [-(-count // len(weights))] * len(weights)
    ends = np.floor(np.cumsum(weights)[:-1] * count + rng.random()).astype(int)
    return np.diff(np.concatenate([[0], ends, [count]])).tolist()


def _draws_of_one(
    posterior: DagBlr,
    shifts: ShiftPosterior,
    count: int,
    nothing: bool,
    rng: np.random.Generator,
    own: np.random.Generator,
) -> Iterator[Array]:
    """Yield ``count`` draws of the states on one graph, each ``(n_perturbations, n_nodes)``.

    With ``nothing`` the controls' state is the last row. ``own`` draws what is left of shifts.
    """
    # One column per perturbation, so that the kernel's inner loops run along memory.
    told = shifts.about_effect(posterior)
    mean, prior, effect, share, spare = (
        _columns(value, nothing) for value in (*told, shifts.share, shifts.spare)
    )
    mean = mean[: posterior.n_nodes]  # fixed columns come after the nodes
    uncertain = bool(spare.any())
    if not count:
        return
    weights, noise_var = posterior.sample(count, rng)
    dag, rest, is_weight = posterior.dag, np.zeros_like(spare), posterior.is_weight
    drawn = None if shifts.components is None else shifts.components(own, shifts.together)
    for draw, variance in zip(weights, noise_var, strict=True):
        if drawn is not None:
            share, spare = (_columns(value, nothing) for value in next(drawn))
        if uncertain:
            rest = np.sqrt(spare * variance[:, None]) * _alike(shifts, spare.shape, own)
        left = rest
        if posterior.n_fixed:  # of the cells' means what the draw's batches, say, account for
            left = rest - share * _columns(shifts.explained(draw, posterior), nothing)
        # x = B x + source, where the shares believed of the cells leave the weights no say.
        source = prior + draw[posterior.vptr[:-1], None] if posterior.intercept else prior
        b = csr_array((draw[is_weight], dag.indices, dag.indptr), shape=(len(prior), len(prior)))
        x = source + share * (mean - source - b @ mean) + left
        solve_forward(dag.indptr, dag.indices, dag.order, posterior.vptr, draw, x)
        yield (x + effect).T


def _alike(shifts: ShiftPosterior, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return standard normals, one column per perturbation, correlated as its shifts are."""
    drawn = rng.standard_normal(shape)
    if shifts.loadings is None or shifts.rest is None:
        return drawn
    common = rng.standard_normal((shifts.loadings.shape[1], shape[1]))
    variance = (shifts.loadings**2).sum(axis=1) + shifts.rest
    own, shared = np.sqrt(shifts.rest / variance), shifts.loadings / np.sqrt(variance)[:, None]
    return own[:, None] * drawn + shared @ common


def _columns(value: Array, nothing: bool) -> Array:
    rows = np.vstack([value, np.zeros((1, value.shape[1]))]) if nothing else value
    return np.ascontiguousarray(rows.T, dtype=np.float64)


def first_order_distances(
    posterior: DagBlr | Sequence[DagBlr],
    shifts: ShiftPosterior | Sequence[ShiftPosterior],
    target: ArrayLike | Goal,
    *,
    states: States | None = None,
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
        As in :func:`~nextpert.core.design.distances.state_draws`; not read if ``states`` are
        given.
    target
        The target mean, shape ``(n_nodes,)``, units of the data; or a goal of any kind, whose
        kinks and bounds are smoothed over the step of a difference.
    states
        The joint posterior of the states, if it is not that of posterior and shifts.
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
    >>> from nextpert.core.model.shift_posterior import ShiftPosterior
    >>> from nextpert.core.design.distances import first_order_distances
    >>> blr = DagBlr(Dag.from_edges(2, []), noise_var=1.0, intercept=False)
    >>> known = ShiftPosterior.exact([[1.0, 2.0], [3.0, 0.0]])
    >>> expected, draws = first_order_distances(blr, known, [0.0, 2.0], n_samples=1)
    >>> expected.tolist(), draws.tolist()
    ([1.0, 13.0], [[1.0, 13.0]])
    """
    require_count(n_samples, "n_samples")
    centre, draw = states_of(posterior, shifts) if states is None else states
    goal = as_goal(target, centre.shape[1])

    expected, generator = goal.distance(centre, centre[-1])[:-1], as_rng(rng)
    # By map, so that a draw is gone before the next one is made.
    slopes = map(partial(slope_draws, goal, centre, rng=generator), draw(n_samples, generator))
    return expected, expected + np.concatenate([each[:, :-1] for each in slopes])


@dataclass(frozen=True, repr=False)
class RankedDistance(Shown):
    """Squared distances to a target, in squared units of the data, or as the goal measures.

    Every array but ``draws`` has the shape ``(n_perturbations + 1,)``; the last entry is that of
    the control.

    Parameters
    ----------
    mean, sd
        Posterior mean and standard deviation. The mean can be below 0 if the target has an error
        and the distance is about 0.
    median
        Posterior median, not below 0: uncertain states do not have a large one by the rare draws
        that are far away.
    low, high
        Ends of the interval, not below 0. Of a squared distance to target states (equation 34),
        ``high`` is a quantile of the draws, and ``low`` the smaller one of two: the lower end of
        the shortest interval, and the quantile of draws to first order, which lack the variance of
        the state that every draw adds to its distance. Of goals with other parts it is the
        shortest interval.
    centre
        Squared distance of the expected state, ``|E theta - mu*|^2``. ``mean`` exceeds it by the
        variance of the state, summed over nodes, so uncertain states have a large mean distance.
        The perturbation that defines the target ranks first more often by ``centre``.
    nearest
        Probability of being the nearest perturbation; 0 for the control, which is none.
    nearer
        Probability of being nearer than the control; 0 for the control itself.
    floor
        Squared distance due to the error of the target's mean alone. It is subtracted from the
        others, but distances below it are hard to distinguish.
    draws
        The draws, shape ``(n_draws, n_perturbations + 1)``.
    """

    mean: Array
    sd: Array
    median: Array
    low: Array
    high: Array
    centre: Array
    nearest: Array
    nearer: Array
    floor: float
    draws: Array

    @property
    def gap(self) -> Array:
        """Expected difference of each distance to that of the nearest perturbation."""
        return self.mean - self.draws[:, :-1].min(axis=1, initial=np.inf).mean()


def ranked_distance(
    posterior: DagBlr | Sequence[DagBlr],
    shifts: ShiftPosterior | Sequence[ShiftPosterior],
    target: ArrayLike | Goal,
    *,
    target_variance: ArrayLike | None = None,
    states: States | None = None,
    confidence: float = 0.9,
    n_samples: int = 1000,
    rng: int | np.random.Generator | None = None,
) -> RankedDistance:
    """Return every perturbation's squared distance to a target, and probabilities of their order.

    By draws of weights, noise variances, graphs and shifts, common to all perturbations as far as
    they share them (:func:`~nextpert.core.design.distances.state_draws`). Where the target is
    the mean of some cells, its error is drawn too and what it adds to a squared distance, the
    trace of its covariance ``V``, is taken out: once for the error in the mean given, once for
    that drawn. So the mean is unbiased, as that of :func:`nextpert.tl.target_distances`. Of a goal
    that is so for its target states, by weights and shares; from bounds, signatures, margins and
    angles nothing is taken out. What these start from is the control state of the same
    draw. A target state that is itself a perturbation of the draws (:class:`Draw`) has no other
    error, and nothing is taken out: each draw holds one possible truth of both.

    Parameters
    ----------
    posterior
        The posterior over the weights; or one on each of several graphs, which count by the
        weight of their shifts. Neither it nor ``shifts`` is read if ``states`` are given.
    shifts
        Posterior of the shifts; for several graphs the same for all, or one for each.
    target
        The target mean, shape ``(n_nodes,)``, units of the data; or a goal of any kind (see
        :class:`~nextpert.core.design.goal.Goal`).
    target_variance
        Sampling variance of a target mean: of every node, shape ``(n_nodes,)``, or its covariance,
        ``(n_nodes, n_nodes)``; squared units of the data. ``None`` (default): known without error,
        or as the goal says.
    states
        The joint posterior of the states, if it is not that of posterior and shifts.
    confidence
        Coverage of the intervals, above 0 and below 1.
    n_samples
        Number of draws, at least 2; rounded up to the same number from every graph.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        If posteriors, shifts and target do not fit together, or hold an impossible value.

    Examples
    --------
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.model.shift_posterior import ShiftPosterior
    >>> from nextpert.core.design.distances import ranked_distance
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
    generator = as_rng(rng)
    expected, draw = states_of(posterior, shifts) if states is None else states
    goal = as_goal(target, expected.shape[1], target_variance)
    drawn, (found, slopes) = draw(n_samples, generator), ([], [])
    own, more = generator.spawn(2)  # of the target's error, and of what draws are to first order
    for one in drawn:
        found.append(distance_draws(goal, one, generator, own))
        if goal.is_states:
            slopes.append(slope_draws(goal, expected, one, more))
    draws = np.concatenate(found) - 2 * goal.floor
    centre = goal.distance(expected, expected[-1]) - goal.floor
    low, high = shortest_interval(np.maximum(draws, 0.0), confidence)
    if slopes:  # equation 34
        linear = np.concatenate(slopes)
        linear += goal.error_sd(expected) * more.standard_normal(linear.shape)
        ends = (1.0 - confidence) / 2, (1.0 + confidence) / 2
        low = np.minimum(low, np.maximum(centre + np.quantile(linear, ends[0], axis=0), 0.0))
        high = np.maximum(np.quantile(draws, ends[1], axis=0), 0.0)
    nearer = (draws < draws[:, -1:]).mean(axis=0)
    nearest = np.append(probability_nearest(draws[:, :-1]), 0.0)
    mean, sd = draws.mean(axis=0), draws.std(axis=0, ddof=1)
    median = np.maximum(np.median(draws, axis=0), 0.0)
    return RankedDistance(mean, sd, median, low, high, centre, nearest, nearer, goal.floor, draws)


def shortest_interval(draws: Array, confidence: float) -> tuple[Array, Array]:
    """Return the ends of the shortest intervals that hold a share of the draws ``(n_draws, n)``.

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
    """Return the share of draws ``(n_draws, n)`` in which each of ``n`` is least; ties are split.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.distances import probability_nearest
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
