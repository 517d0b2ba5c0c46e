"""Whether a further plate is worthwhile: its expected gain, by the knowledge gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import gamma

from nextpert.core._checks import as_rng, require_count
from nextpert.core.design.goal import as_goal

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.design.distances import RankedDistance
    from nextpert.core.design.goal import Goal
    from nextpert.core.design.joint_draws import States

    Array = NDArray[np.float64]

_FEWEST, _NUMBERS = 100, 20_000_000  # draws, and numbers at most in them
_LEAST_VARIANCE = 1e-300  # keeps 0 / 0 from a division; below every variance


class NextPlate(NamedTuple):
    """Joint draws of what the next plate measures.

    ``candidates`` are on it, ``(n,)``; ``distances`` are their squared distances, ``(n_draws, n)``,
    and ``expected``, in the same draws, those of the states expected after the plate's cells.
    """

    candidates: NDArray[np.int64]
    distances: Array
    expected: Array


def draw_plate(
    states: States,
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
    states
        The joint posterior of the states of the candidates on the plate alone.
    target
        The target mean, shape ``(n_nodes,)``, units of the data; or a goal of any kind.
    candidates
        Their indices in the pool, shape ``(n,)``.
    variance
        Sampling variance of a candidate's mean on the plate, a number or of every node.
    n_samples, rng
        Number of draws (fewer where a plate of many nodes would not fit into memory), and seed.
    """
    generator, index = as_rng(rng), np.asarray(candidates, np.int64)
    expected, draw = states
    p = expected.shape[1]
    goal = as_goal(target, p)
    fits = max(_NUMBERS // (p * (len(index) + 1)), _FEWEST)
    count = min(require_count(n_samples, "n_samples", least=2), fits)
    distances, rows = [], []
    for one in (one for some in draw(count, generator) for one in some.sampled(generator)):
        state = one.states
        distances.append(goal.distance(state, state[-1], one.target_error) - goal.floor)
        rows.append(state)
    drawn = np.array(rows)
    mean, spread = drawn.mean(axis=0), drawn.var(axis=0)
    error = np.broadcast_to(np.asarray(variance, np.float64), p)
    fraction = spread / np.maximum(spread + error, _LEAST_VARIANCE)
    drawn += np.sqrt(error) * generator.standard_normal(drawn.shape)
    after = mean + fraction * (drawn - mean)
    expected_after = [goal.distance(state, mean[-1]) for state in after]
    return NextPlate(index, np.array(distances)[:, :-1], np.array(expected_after)[:, :-1])


def knowledge_gradient(plate: NextPlate, measured: ArrayLike, elsewhere: float) -> float:
    """Return the expected decrease of the best known distance by the next plate, at least 0.

    The expected distance after the plate is the mean of the distance over draws with a similar
    distance of the expected state. One half of the draws determines which candidate will be chosen,
    the other half its expected distance, and vice versa, so that the choice among noisy means has
    no optimistic bias. ``measured`` states which candidates of the plate have cells; ``elsewhere``
    is the smallest expected distance of measured candidates that are not on the plate, or the
    control's distance.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.stopping import NextPlate, knowledge_gradient
    >>> distance = np.repeat([[1.0], [3.0]], 100, axis=0)
    >>> plate = NextPlate(np.array([0]), distance, distance)
    >>> knowledge_gradient(plate, [False], elsewhere=2.0)
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
    for prediction, true in (halves, halves[::-1]):
        best = prediction.argmin(axis=1)[:, None]
        chosen, value = (np.take_along_axis(x, best, axis=1) for x in (prediction, true))
        gains.append(now - np.where(chosen < elsewhere, value, elsewhere).mean())
    return max(float(np.mean(gains)), 0.0)


# The five kinds of advice, in the order in which they are tried.
AT_TARGET = "the target does not differ from the control"
NO_DIFFERENCE = "no perturbation differs from the others"
CONFIRM = "confirm what you have"
MEASURE = "measure more cells of these first"
ORDER = "order this plan"
KINDS = (AT_TARGET, NO_DIFFERENCE, CONFIRM, MEASURE, ORDER)
# False discovery rate. Stricter than that of tl.diagnose: of 9 perturbations without effects one
# differs at 0.05 in every 25th screen, and a plan would be advised.
DIFFERS = 0.001
_INTERVAL = 0.9  # coverage of the interval of the control's distance
_NEAREST = 5  # spacings that determine the scale of the lower tail
_NODES = 50  # of the quadratures over that scale, and over the gain
_TINY = 1e-150  # keeps 0 / 0 from a division; its square is a number still


@dataclass(frozen=True)
class Stopping:
    """What the next plate is expected to gain, and whether it is worthwhile.

    ``chosen`` is the best known: of the candidates with cells, and the control (the last), that of
    the smallest mean distance. ``gain`` is the squared distance by which the best known is expected
    to be closer after the plate, ``relative_gain`` its share of the control's distance, and
    ``good_enough`` the probability that no candidate is closer by more than the tolerance; both are
    NaN where the control may be at the target. ``gain_of_more`` is the gain of as many more cells
    of measured candidates, NaN if it is not asked for. ``advice`` is one of :data:`KINDS`.
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
    plate: NextPlate,
    more: NextPlate | None = None,
    *,
    tolerance: float = 0.1,
    confidence: float = 0.95,
    distinct: bool = True,
) -> Stopping:
    """Return the expected gain of the next plate, and one of five kinds of advice.

    They are tried in this order: the target does not differ from the control; no candidate with
    cells differs from the others (``distinct``); with probability ``confidence`` or more no
    candidate is closer to the target than the best known by more than ``tolerance`` of the
    control's distance, so confirm that; more cells of candidates with cells (the plate ``more``)
    gain as much as the plate, so measure these first; else order the plate.

    The gain is a knowledge gradient (Frazier, Powell and Dayanik 2008, doi:10.1137/070693424): the
    expected distance of the best known now, minus that of the best known after the plate. Expected
    distances are compared, not the smallest of noisy draws, so that noise alone does not promise a
    gain.

    Candidates without cells may be better than the model expects. Their distances are therefore
    also assumed to have the distribution of the measured ones: ``record_chance`` is the chance that
    one of them is closer by more than the tolerance. Its integral, the expected gain of such
    candidates on the plate, is used where it exceeds the knowledge gradient. No candidate is closer
    than the target itself, so the gain is at most the distance of the expected state of the best
    known candidate minus the variance of its estimate.

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
    seen, nothing = np.asarray(measured, np.bool_), float(ranked.mean[-1])
    known = np.append(seen, True)  # the control is
    chosen = int(np.where(known, ranked.mean, np.inf).argmin())
    # The control can be distinguished from the target if the interval of its draws is above 0, once
    # what the error of its state adds is taken out: twice, as draws scatter about an estimate that
    # is itself off.
    low = float(np.quantile(ranked.draws[:, -1], (1 - _INTERVAL) / 2))
    error = max(float(nothing - ranked.centre[-1]), 0.0)
    is_apart = low - 2 * error > 0 and nothing > 0
    enough = tolerance * max(nothing, 0.0)
    within = ranked.draws[:, chosen] - ranked.draws.min(axis=1) <= enough
    tried = ranked.mean[:-1][seen]
    # Above 0 where the best known is the control.
    farther = float(tried.min() - ranked.mean[chosen]) if len(tried) else 0.0
    room = max(float(2 * ranked.centre[chosen] - ranked.mean[chosen]), 0.0)
    n_new = int((~seen).sum())
    record = float(record_chance(tried, n_new, farther + enough, farther + room))
    good = float(within.mean()) * (1 - record)
    gradients = [np.nan, np.nan]
    for i, each in enumerate((plate, more)):
        if each is not None:
            elsewhere = known.copy()
            elsewhere[each.candidates] = False
            nearest = float(ranked.mean[elsewhere].min())
            gradients[i] = knowledge_gradient(each, seen[each.candidates], nearest)
    of_records = record_gain(tried, int((~seen[plate.candidates]).sum()), farther, room)
    gain, of_more = max(gradients[0], of_records), gradients[1]
    if not is_apart:
        advice = AT_TARGET
    elif not distinct:
        advice = NO_DIFFERENCE
    elif good >= confidence:
        advice = CONFIRM
    else:
        advice = MEASURE if of_more >= gain else ORDER
    fraction = gain / nothing if is_apart else np.nan
    return Stopping(chosen, gain, fraction, good if is_apart else np.nan, of_more, advice)


def differing(q_value: ArrayLike, q_value_from_others: ArrayLike) -> NDArray[np.bool_]:
    """Return which perturbations differ from the controls and from the mean of the others.

    By the two tests of :func:`~nextpert.core.model.scores.pooled_sizes`. A single perturbation has
    the controls alone to differ from (NaN). Groups without cells (NaN) differ from nothing.
    """
    others = np.asarray(q_value_from_others, np.float64)
    return (np.asarray(q_value, np.float64) < DIFFERS) & ((others < DIFFERS) | np.isnan(others))


def record_gain(values: ArrayLike, n_more: int, excess: float, most: float) -> float:
    """Return by how much one of some more values is expected to lie below the smallest known.

    The integral of :func:`record_chance` over excesses from ``excess`` up to ``most`` beyond it; 0
    where fewer than two values are known, which have no scale.
    """
    if len(np.asarray(values)) < 2 or n_more < 1 or not most > 0:
        return 0.0
    steps = (np.arange(_NODES) + 0.5) / _NODES * most
    return float(
        most * np.mean([record_chance(values, n_more, excess + x, excess + most) for x in steps])
    )


def record_chance(values: ArrayLike, n_more: int, excess: float, most: ArrayLike) -> Array:
    r"""Return the probability that a further value is below the smallest by more than ``excess``.

    If all values come from one distribution, the smallest of all is among the ``m`` further values,
    and not the ``k`` known ones, with probability ``m / (m + k)``. If the lower tail is exponential
    with scale ``s``, the smallest further value lies below the smallest known one by more than
    ``x`` with probability ``r / (1 + r)``,

    .. math:: r = \frac{m}{k} \frac{e^{-x/s} - e^{-x_{most}/s}}{1 - e^{-x_{most}/s}},

    averaged over the scale: the sum of the spacings of the five smallest known values has a gamma
    distribution with that scale. ``most`` is the largest possible excess, a number or ``(n,)``; the
    probability of a larger ``excess`` is 0.

    Examples
    --------
    >>> from nextpert.core.design.stopping import record_chance
    >>> record_chance([1.0, 2.0, 3.0], 3, 0.0, [9.0]).round(3).tolist()
    [0.5]
    >>> record_chance([1.0, 2.0, 3.0], 3, 0.5, [0.4, 1.0, 9.0]).round(2).tolist()
    [0.0, 0.29, 0.42]
    """
    known, most = np.sort(np.asarray(values, np.float64)), np.asarray(most, np.float64)
    few = min(_NEAREST, len(known) - 1)
    possible = most > excess
    if n_more < 1 or few < 1:
        return possible * n_more / max(n_more + len(known), 1)
    spacings = max(float((known[few] - known[:few]).sum()), _TINY)
    rate = gamma.ppf((np.arange(_NODES) + 0.5) / _NODES, few)[:, None] / spacings
    end = np.exp(-rate * np.maximum(most, excess).ravel())
    fraction = np.exp(-rate * excess) - end
    ratio = n_more / len(known) * fraction / np.maximum(1 - end, _TINY)
    chance = (ratio / (1 + ratio)).mean(axis=0).reshape(most.shape)
    return np.where(possible, chance, 0.0)
