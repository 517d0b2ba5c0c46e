"""Whether a further round is worthwhile: its expected gain, from the knowledge gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import gamma

from nextpert.core._blas import one_thread
from nextpert.core._checks import as_rng, require_count
from nextpert.core.design.goal import as_goal
from nextpert.core.model.scores import SIGNIFICANCE, squared_size

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.design.distances import RankedDistance
    from nextpert.core.design.goal import Goal
    from nextpert.core.design.joint_draws import States

    Array = NDArray[np.float64]

_MIN_DRAWS = 100  # minimum draws of what a plan shows, for any number of genes
_MAX_NUMBERS = 20_000_000  # in all draws of a plan, 160 MB
_MIN_VARIANCE = 1e-300  # avoids 0 / 0; below every variance


class NextPlate(NamedTuple):
    """Joint draws of the measurements of the next round.

    ``candidates`` are the indices in the plan, ``(n,)``; ``distances`` their squared distances,
    ``(n_draws, n)``; and ``expected``, in the same draws, the squared distances of the states
    expected after the plan.
    """

    candidates: NDArray[np.int64]
    distances: Array
    expected: Array


@one_thread()
def draw_plate(
    states: States,
    target: ArrayLike | Goal,
    candidates: ArrayLike,
    *,
    variance: ArrayLike,
    n_samples: int = 1000,
    rng: int | np.random.Generator | None = None,
) -> NextPlate:
    """Return joint draws of distances in a plan, and of the distances expected after it.

    In each draw, the means measured are the states of the draw plus sampling error. The expectation
    of a node after the plan is its mean over draws plus a fraction of its measured departure: the
    variance over draws, divided by the sum of this variance and the error variance.

    Parameters
    ----------
    states
        The joint posterior of the states of only the candidates in the plan.
    target
        The target mean, shape ``(n_nodes,)``, units of the data; or a goal of any kind.
    candidates
        Indices of these candidates in the pool, shape ``(n,)``.
    variance
        Sampling variance of a candidate's mean in the plan: a number, or one per node.
    n_samples, rng
        Number of draws (fewer if a plan with many nodes would not fit into memory), and seed.
    """
    generator = as_rng(rng)
    index = np.asarray(candidates, np.int64)
    expected, draw = states
    p = expected.shape[1]
    goal = as_goal(target, p)
    fits = max(_MAX_NUMBERS // (p * (len(index) + 1)), _MIN_DRAWS)
    count = min(require_count(n_samples, "n_samples", minimum=2), fits)
    distances, rows = [], []
    for one in (one for shared in draw(count, generator) for one in shared.sampled(generator)):
        state = one.states
        distances.append(goal.distance(state, state[-1], one.target_error) - goal.floor)
        rows.append(state)
    drawn = np.array(rows)
    mean, spread = drawn.mean(axis=0), drawn.var(axis=0)
    error = np.broadcast_to(np.asarray(variance, np.float64), p)
    fraction = spread / np.maximum(spread + error, _MIN_VARIANCE)
    drawn += np.sqrt(error) * generator.standard_normal(drawn.shape)
    after = mean + fraction * (drawn - mean)
    expected_after = [goal.distance(state, mean[-1]) for state in after]
    return NextPlate(index, np.array(distances)[:, :-1], np.array(expected_after)[:, :-1])


def knowledge_gradient(plate: NextPlate, measured: ArrayLike, elsewhere: float) -> float:
    """Return the expected decrease of the smallest known distance after the next round, 0 or more.

    The expected distance after the plan is the mean distance over draws whose expected states have
    similar distances. One half of the draws determines which candidate will be chosen, and the
    other half the expected distance of this candidate, and vice versa, so that the choice among
    noisy means has no optimistic bias. ``measured`` states which candidates of the plan have
    cells; ``elsewhere`` is the smallest expected distance among the control and the measured
    candidates that are not in the plan.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.stopping import NextPlate, knowledge_gradient
    >>> distance = np.repeat([[1.0], [3.0]], 100, axis=0)
    >>> plate = NextPlate(np.array([0]), distance, distance)
    >>> knowledge_gradient(plate, [False], elsewhere=2.0)
    0.5
    """
    distances = plate.distances
    is_measured = np.asarray(measured, np.bool_)
    best_now = min(float(distances[:, is_measured].mean(axis=0).min(initial=np.inf)), elsewhere)
    n = len(distances)
    order = np.argsort(plate.expected, axis=0, kind="stable")
    ordered = np.take_along_axis(distances, order, axis=0)
    halves = np.empty((2, *distances.shape))
    for rows in np.array_split(np.arange(n), max(int(np.sqrt(n / 2)), 1)):
        for half, after in enumerate(halves):
            mean = ordered[rows[half::2]].mean(axis=0, keepdims=True)
            np.put_along_axis(after, order[rows], mean, axis=0)
    gains = []
    for prediction, true in (halves, halves[::-1]):
        best = prediction.argmin(axis=1)[:, None]
        chosen, value = (np.take_along_axis(x, best, axis=1) for x in (prediction, true))
        gains.append(best_now - np.where(chosen < elsewhere, value, elsewhere).mean())
    return max(float(np.mean(gains)), 0.0)


# The six kinds of advice, in the order in which they are tried.
AT_TARGET = "the control is at the target"
UNTRUSTED = "the negative controls are not trusted"
CONFIRM = "confirm what you have"
STOP = "stop, as a further round gains too little"
MEASURE = "measure more cells of these first"
ORDER = "order this plan"
KINDS = (AT_TARGET, UNTRUSTED, CONFIRM, STOP, MEASURE, ORDER)
# Defaults of the rule. TOLERANCE is the smallest difference between two candidates that matters, a
# tenth of the control's distance; MIN_GAIN the smallest expected gain of a round that is worth its
# cost, relative to the same distance; STOP_PROBABILITY that with which no candidate is closer.
TOLERANCE, MIN_GAIN, STOP_PROBABILITY = 0.1, 0.02, 0.95
_N_SPACINGS = 5  # spacings that determine the scale of the lower tail
_NODES = 50  # quadrature nodes over this scale, and over the gain
_TINY = 1e-150  # avoids 0 / 0; its square is still above 0


@dataclass(frozen=True)
class Stopping:
    """The expected gain of the next round, and whether the plan is worthwhile.

    ``chosen`` is the best known candidate: that with the smallest expected distance among
    candidates with cells and the control (the last). ``gain`` is the squared distance by which the
    best known candidate is expected to be closer after the plan, ``relative_gain`` its share of the
    control's distance (NaN if this is not above 0), and ``good_enough`` the probability that no
    candidate is closer by more than the tolerance, NaN if it is not stated. ``gain_of_more`` is the
    gain from the same number of cells of measured candidates, NaN if not requested. ``advice`` is
    one of :data:`KINDS`.
    """

    chosen: int
    gain: float
    relative_gain: float
    good_enough: float
    gain_of_more: float
    advice: str


def stopping(
    ranked: RankedDistance,
    measured: ArrayLike,
    plate: NextPlate | None,
    repeat: NextPlate | None = None,
    *,
    tolerance: float = TOLERANCE,
    min_gain: float = MIN_GAIN,
    stop_probability: float = STOP_PROBABILITY,
    is_stated: bool = True,
    is_trusted: bool = True,
) -> Stopping:
    """Return the expected gain of the next round, and one of six kinds of advice.

    The decision minimises the expected squared distance: the best known candidate, which may be the
    control, is that with the smallest mean over draws (equation 31), and no test overrides it. The
    first applicable advice is given: the control is at the target (its expected distance is not
    above 0); the negative controls are not trusted (``is_trusted``), so that no draw can be;
    confirm the best known candidate, because with probability ``stop_probability`` or more no
    candidate is closer to the target by more than ``tolerance`` of the control's distance; stop,
    because the better of the two plans gains less than ``min_gain`` of that distance; measure more
    cells of candidates with cells first (the plan ``repeat``), because they gain at least as much
    as the plan; or order the plan. The probability is stated only if ``is_stated``.

    The gain is a knowledge gradient (Frazier, Powell and Dayanik 2008, doi:10.1137/070693424): the
    expected distance of the candidate that is best known now, minus that of the candidate best
    known after the plan. Expected distances are compared, and not the smallest of noisy draws, so
    that noise alone does not predict a gain.

    Candidates without cells may be better than the model expects. Their distances are therefore
    also assumed to have the distribution of the measured distances: ``record_chance`` is the
    probability that one of these candidates is closer by more than the tolerance. Its integral, the
    expected gain of such candidates in the plan, is used if it exceeds the knowledge gradient. No
    candidate is closer than the target itself, so this expected gain is at most the distance of the
    expected state of the best known candidate minus the variance of its estimate.

    Examples
    --------
    >>> from nextpert.core import Dag, DagBlr, ranked_distance
    >>> from nextpert.core.design.distances import states_of
    >>> from nextpert.core.design.stopping import draw_plate, stopping
    >>> blr = DagBlr(Dag.from_edges(1, []), noise_var=1.0, intercept=False)
    >>> states = states_of(blr, [[1.0], [1.5]])
    >>> found = ranked_distance(states, [2.0], n_samples=10)
    >>> plate = draw_plate(states, [2.0], [0, 1], variance=0.1, n_samples=10)
    >>> [stopping(found, [True, seen], plate).advice for seen in (False, True)]
    ['order this plan', 'confirm what you have']
    """
    is_measured = np.asarray(measured, np.bool_)
    control_distance = float(ranked.mean[-1])
    has_mean = np.append(is_measured, True)  # the control is known
    chosen = int(np.where(has_mean, ranked.mean, np.inf).argmin())
    has_distance = control_distance > 0
    enough = tolerance * max(control_distance, 0.0)
    as_near = ranked.as_near(tolerance)[0, chosen]
    measured_means = ranked.mean[:-1][is_measured]
    # Above 0 if the best known candidate is the control.
    farther = float(measured_means.min() - ranked.mean[chosen]) if len(measured_means) else 0.0
    room = max(float(2 * ranked.centre[chosen] - ranked.mean[chosen]), 0.0)
    n_new = int((~is_measured).sum())
    record = float(record_chance(measured_means, n_new, farther + enough, farther + room))
    good = float(as_near) * (1 - record)
    gradients = [np.nan, np.nan]
    for i, option in enumerate((plate, repeat)):
        if option is not None:
            elsewhere = has_mean.copy()
            elsewhere[option.candidates] = False
            nearest = float(ranked.mean[elsewhere].min())
            gradients[i] = knowledge_gradient(option, is_measured[option.candidates], nearest)
    n_records = 0 if plate is None else int((~is_measured[plate.candidates]).sum())
    of_records = record_gain(measured_means, n_records, farther, room)
    gain = float(np.nanmax([gradients[0], of_records]))
    of_more = gradients[1]
    if not has_distance:
        advice = AT_TARGET
    elif not is_trusted:
        advice = UNTRUSTED
    elif is_stated and good >= stop_probability:
        advice = CONFIRM
    elif not max(gain, 0.0 if np.isnan(of_more) else of_more) >= min_gain * control_distance:
        advice = STOP
    else:
        advice = MEASURE if of_more >= gain else ORDER
    fraction = gain / control_distance if has_distance else np.nan
    good = good if has_distance and is_stated else np.nan
    return Stopping(chosen, gain, fraction, good, of_more, advice)


def is_apart(goal: Goal, counted: ArrayLike, covariance: ArrayLike) -> bool:
    """Return whether a target differs from the controls, by a test at :data:`SIGNIFICANCE`.

    It is the test of the size of a perturbation
    (:func:`~nextpert.core.model.scores.squared_size`), on the genes that count, in the weights of
    the goal. The difference is that between the controls' mean and the mean of the target states,
    or the nearest values within bounds. A signature is a change from the controls, which always
    differs. Genes of a known state that have the controls' mean were not given and do not count.

    Parameters
    ----------
    goal
        The goal with the means of the target's cells and their sampling variances; its origin is
        the mean of the controls.
    counted
        Number of cells whose mean has the error of the controls' mean, ``(n_nodes,)``.
    covariance
        Covariance between cells, ``(n_nodes, n_nodes)``, units of the data.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.goal import Goal
    >>> from nextpert.core.design.stopping import is_apart
    >>> states = [[0.1, -0.1]], [[1.0, 0.0]]
    >>> [is_apart(Goal([0.0, 0.0], states=x), [50, 50], np.eye(2)) for x in states]
    [False, True]
    """
    if goal.signature is not None:
        return True
    origin = goal.origin
    sigma = np.asarray(covariance, np.float64)
    bounded = np.clip(origin, goal.low, goal.high) - origin
    within = np.maximum(sigma.diagonal(), _MIN_VARIANCE)
    variance = within / np.maximum(np.asarray(counted, np.float64), _MIN_VARIANCE)
    tests = [(bounded, variance, bounded != 0)]
    if len(goal.states):
        mean, error = goal.shares @ goal.states, goal.shares**2 @ goal.variances
        is_given = (error > 0) | ~np.isclose(mean, origin, rtol=1e-6, atol=1e-9)
        tests.append((mean - origin, variance + error, is_given))
    p_values = [np.inf]
    for d, total, is_used in tests:
        nodes = np.flatnonzero(is_used & (goal.weights > 0))
        root = np.sqrt(goal.weights[nodes])
        if len(nodes):
            of_kept = sigma[np.ix_(nodes, nodes)] * np.outer(root, root)
            size = squared_size(d[nodes] * root, (within / total)[nodes][None], of_kept)
            p_values.append(float(size.p_value[0]))
    return min(p_values) < SIGNIFICANCE / (len(p_values) - 1 or 1)


def differing(q_value: ArrayLike, q_value_from_others: ArrayLike) -> NDArray[np.bool_]:
    """Return which perturbations differ from the controls and from the mean of the others.

    The q-values come from the two tests of :func:`~nextpert.core.model.scores.pooled_sizes`. A
    single perturbation is compared only with the controls (the other q-value is NaN). Groups
    without cells (both NaN) never differ. Without any effects, one of nine perturbations
    differs in 3 of 80 screens (``benchmarks/results/power.md``).
    """
    from_others = np.asarray(q_value_from_others, np.float64)
    differs = np.asarray(q_value, np.float64) < SIGNIFICANCE
    return differs & ((from_others < SIGNIFICANCE) | np.isnan(from_others))


def record_gain(values: ArrayLike, n_more: int, excess: float, max_excess: float) -> float:
    """Return the expected amount by which a further value lies below the smallest known value.

    It is the integral of :func:`record_chance` over excesses from ``excess`` to ``excess + most``;
    0 if fewer than two values are known, which do not determine a scale.
    """
    if len(np.asarray(values)) < 2 or n_more < 1 or not max_excess > 0:
        return 0.0
    steps = (np.arange(_NODES) + 0.5) / _NODES * max_excess
    return float(
        max_excess
        * np.mean([record_chance(values, n_more, excess + x, excess + max_excess) for x in steps])
    )


def record_chance(values: ArrayLike, n_more: int, excess: float, max_excess: ArrayLike) -> Array:
    r"""Return the probability that a further value is below the smallest by more than ``excess``.

    If all values come from one distribution, the smallest of all is among the ``m`` further values,
    and not the ``k`` known ones, with probability ``m / (m + k)``. If the lower tail is exponential
    with scale ``s``, the smallest further value lies below the smallest known one by more than
    ``x`` with probability ``r / (1 + r)``,

    .. math:: r = \frac{m}{k} \frac{e^{-x/s} - e^{-x_{most}/s}}{1 - e^{-x_{most}/s}},

    averaged over the scale: the sum of the distances from the five smallest known values to the
    sixth has a gamma distribution with that scale. ``max_excess`` is the largest possible excess, a
    number or ``(n,)``; the probability of a larger ``excess`` is 0.

    Examples
    --------
    >>> from nextpert.core.design.stopping import record_chance
    >>> record_chance([1.0, 2.0, 3.0], 3, 0.0, [9.0]).round(3).tolist()
    [0.5]
    >>> record_chance([1.0, 2.0, 3.0], 3, 0.5, [0.4, 1.0, 9.0]).round(2).tolist()
    [0.0, 0.29, 0.42]
    """
    ordered = np.sort(np.asarray(values, np.float64))
    max_excess = np.asarray(max_excess, np.float64)
    n_spacings = min(_N_SPACINGS, len(ordered) - 1)
    possible = max_excess > excess
    if n_more < 1 or n_spacings < 1:
        return possible * n_more / max(n_more + len(ordered), 1)
    spacings = max(float((ordered[n_spacings] - ordered[:n_spacings]).sum()), _TINY)
    rate = gamma.ppf((np.arange(_NODES) + 0.5) / _NODES, n_spacings)[:, None] / spacings
    end = np.exp(-rate * np.maximum(max_excess, excess).ravel())
    fraction = np.exp(-rate * excess) - end
    ratio = n_more / len(ordered) * fraction / np.maximum(1 - end, _TINY)
    chance = (ratio / (1 + ratio)).mean(axis=0).reshape(max_excess.shape)
    return np.where(possible, chance, 0.0)
