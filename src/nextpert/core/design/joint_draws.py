"""Joint draws of the states that perturbations reach, and of their distances to a goal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert.core._blas import in_blocks
from nextpert.core._codec import table_type

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.design.goal import Goal
    from nextpert.core.model.effect_draws import EffectDraws

    Array = NDArray[np.float64]

_ROWS = 256  # perturbations at a time, so that intermediate results stay in the cache
_DRAWN = 4  # nodes whose own parts are drawn one by one; the sum of the others is approximated
_TINY = 1e-300  # avoids 0 / 0; below every variance
_NORMAL = 1e12  # shape of a gamma distribution that is numerically a normal distribution


@dataclass(frozen=True)
class Draw:
    """Joint draws of the means that perturbations reach, which share all components but own parts.

    Own parts are normal, and independent over perturbations and nodes. Distances to target states
    therefore follow from sums over nodes, and only the shared components are drawn.

    Parameters
    ----------
    states
        Means without own parts, with that of the controls last, ``(n_perturbations + 1, n_nodes)``.
    spread
        Standard deviations of own parts, same shape; ``None`` if ``states`` are complete draws.
    count
        Number of draws that share these components.
    target_error, target_spread
        For target states that are perturbations of the draw, their departures from the states of
        the goal, without own parts, and the standard deviations of their own parts, ``(n_states,
        n_nodes)``; 0 for other target states, ``None`` if no target state is a perturbation.
    target_rows
        The perturbation that each target state is, -1 for none.
    """

    states: Array
    spread: Array | None = None
    count: int = 1
    target_error: Array | None = None
    target_spread: Array | None = None
    target_rows: tuple[int, ...] = ()

    def errors(self, rng: np.random.Generator) -> Array | None:
        """Return draws of ``target_error`` with own parts, shape ``(count, n_states, n_nodes)``."""
        if self.target_error is None:
            return None
        shape = (self.count, *self.target_error.shape)
        if self.target_spread is None:
            return np.broadcast_to(self.target_error, shape)
        return self.target_error + self.target_spread * rng.standard_normal(shape)

    def joined(self, errors: Array | None) -> dict[int, Array]:
        """Return the states of candidates that are targets, by row, each ``(count, n_nodes)``."""
        if errors is None or self.target_error is None:
            return {}
        return {
            row: self.states[row] + errors[:, s] - self.target_error[s]
            for s, row in enumerate(self.target_rows)
            if row >= 0
        }

    def sampled(self, rng: np.random.Generator) -> Iterator[Draw]:
        """Yield complete draws, including own parts, one by one."""
        if self.spread is None:
            yield self
            return
        errors = self.errors(rng)
        joined = self.joined(errors)
        for k in range(self.count):
            states = self.states + self.spread * rng.standard_normal(self.states.shape)
            for row, values in joined.items():
                states[row] = values[k]
            yield Draw(states, target_error=None if errors is None else errors[k])


class States(NamedTuple):
    """The joint posterior of the means that perturbations reach, for any model.

    ``mean`` holds expected means, with the controls last, ``(n_perturbations + 1, n_nodes)``;
    ``draws(n_samples, generator)`` yields joint draws of the means, several at a time.
    """

    mean: Array
    draws: Callable[[int, np.random.Generator], Iterator[Draw]]


def states_by_effects(
    effects: EffectDraws,
    control: Array,
    perturbations: ArrayLike | None = None,
    targets: Sequence[int] = (),
    points: Array | None = None,
    n_more: int = 0,
) -> States:
    """Return the joint posterior of states: the controls' means plus effects.

    Parameters
    ----------
    effects
        Draws of effects.
    control
        Means of the controls in the stored draws, shape ``(n_draws, n_nodes)``.
    perturbations
        Rows of the perturbations in ``effects``, in order; the last ``n_more`` are targets that are
        not candidates. All rows by default.
    targets, points
        For every target state, the position of its perturbation in ``perturbations``, -1 for none,
        and its state in the goal, ``(n_states, n_nodes)``.
    n_more
        Number of perturbations that are only targets.
    """
    effect_rows = (
        np.arange(len(effects.expected))
        if perturbations is None
        else np.asarray(perturbations, np.int64)
    )
    n = len(effect_rows) - n_more
    index = np.array(targets, np.int64)
    joined = index[:, None] >= 0
    rows = tuple(np.where(index < n, index, -1).tolist())

    def draws(n_samples: int, rng: np.random.Generator) -> Iterator[Draw]:
        # Only own parts remain to be drawn, by the caller.
        del rng
        for k, count in effects.taken(n_samples):
            # One additional row for the controls, because a copy might not fit into memory.
            states, spread = effects.given(k, np.append(effect_rows, effect_rows[:1]))
            states += control[k]
            of_targets: dict[str, Any] = {}
            if points is not None and joined.any():
                of_targets = {
                    "target_rows": rows,
                    "target_spread": np.where(joined, spread[index], 0.0),
                    "target_error": np.where(joined, states[index] - points, 0.0),
                }
            states[n] = control[k]
            spread[n] = 0.0
            yield Draw(states[: n + 1], spread[: n + 1], count, **of_targets)
            del states, spread  # frees memory before the next draw

    start = control.mean(axis=0)
    mean = effects.posterior_mean(np.append(effect_rows[:n], effect_rows[:1]))
    mean += start
    mean[n] = start
    return States(mean.astype(table_type(mean.size), copy=False), draws)


def control_by_node(states: States, goal: Goal, n_samples: int = 400) -> Array:
    """Return the contribution of each node to the control's expected distance to target states.

    Shape ``(n_nodes,)``. Target states come from the same draws; see :class:`Draw`.
    """
    total = np.zeros(goal.n_nodes)
    for one in states.draws(n_samples, np.random.default_rng(0)):
        off = 0.0 if one.target_error is None else one.target_error
        square = (one.states[-1] - goal.states - off) ** 2
        if one.target_spread is not None:
            square += one.target_spread**2
        total += one.count / n_samples * (goal.shares @ square)
    return goal.weights * total


def distance_draws(
    goal: Goal, drawn: Draw, rng: np.random.Generator, target_rng: np.random.Generator
) -> tuple[Array, Array]:
    r"""Return draws of distances to a goal, and of the control's distances on the same nodes.

    Both have the shape ``(count, n_perturbations + 1)``; the second has the shape ``(count, 1)`` if
    all distances are over the same nodes.

    Given the components that draws share, the squared distance to target states with the weighted
    mean ``m`` is (equation 29)

    .. math:: \sum_i w_i (\theta_i + s_i z_i - m_i)^2 + \text{const},

    a sum of squares of independent normal variables. The four terms with the largest variance are
    drawn one by one, and the sum of the others is drawn from the shifted and scaled gamma
    distribution with the same mean, variance and skewness (Pearson 1959,
    doi:10.1093/biomet/46.3-4.364). For other goals, the distance of every draw is computed.
    The generator ``rng`` draws the errors specific to each perturbation, and ``target_rng`` those
    of the target states.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.goal import Goal
    >>> from nextpert.core.design.joint_draws import Draw, distance_draws
    >>> rng = np.random.default_rng(0)
    >>> drawn = Draw(np.zeros((2, 5)), np.array([[0.2] * 5, [0.0] * 5]), count=10_000)
    >>> distance_draws(Goal.point(np.ones(5)), drawn, rng, rng)[0].mean(axis=0).round(2).tolist()
    [5.2, 5.0]
    """
    if drawn.spread is None or not goal.is_states:
        pairs = []
        for one in drawn.sampled(rng):
            error = goal.draw_errors(target_rng)
            start = one.states[-1]
            if one.target_error is not None:
                error = one.target_error + (0.0 if error is None else error)
            distance = goal.distance(one.states, start, error)
            controls = np.broadcast_to(start, one.states.shape)
            pairs.append(
                (
                    distance,
                    goal.distance(controls, start, error) if goal.own_nodes else distance[-1:],
                )
            )
        return np.array([distance for distance, _ in pairs]), np.array([x for _, x in pairs])
    errors = drawn.errors(rng)
    off: Array = np.zeros((1, *goal.states.shape)) if errors is None else errors
    if np.any(goal.floor):
        off = np.array([goal.draw_errors(target_rng) for _ in range(drawn.count)]) + off
    target = goal.states + off
    middle, reference = goal.shares @ target, goal.shares @ goal.states
    scattered = (target - middle[:, None]) ** 2  # target states about their mean
    spread = drawn.spread
    off_middle = middle - reference
    blocks = []
    for k in range(0, len(spread), _ROWS):
        rows = slice(k, min(k + _ROWS, len(spread)))
        weights = goal.rows(rows).weigh(np.ones(goal.n_nodes))
        dispersion = goal.shares @ (scattered @ weights.T).swapaxes(0, 1).reshape(
            len(goal.states), -1
        )
        scatter = dispersion.reshape(len(off), -1)
        states = drawn.states[rows] - reference
        blocks.append(
            scatter + _square_draws(states, spread[rows], off_middle, weights, drawn.count, rng)
        )
    distances = np.concatenate(blocks, axis=1)
    for row, states in drawn.joined(errors).items():
        of_row = goal.rows([row])
        distances[:, row] = [
            of_row.distance(x[None], None, e)[0] for x, e in zip(states, off, strict=True)
        ]
    control = distances[:, -1:]
    if goal.own_nodes is not None:  # without the contribution of the nodes left out
        square = goal.shares @ (drawn.states[-1] - target) ** 2
        control = (control - goal.own_nodes.dot(1.0, goal.weights * square)) * goal.own_nodes.factor
    return distances, control


def _square_draws(
    departure: Array,
    spread: Array,
    off: Array,
    weights: Array,
    count: int,
    rng: np.random.Generator,
) -> Array:
    """Return draws of ``sum(weights (departure + spread z - off)^2)``, shape ``(count, n)``.

    ``departure`` and ``spread`` have the shape ``(n, n_nodes)``, ``off`` ``(count, n_nodes)`` or
    ``(1, n_nodes)``. With ``v = w s^2`` and ``a`` the departure of a state from the point, the
    mean, variance and third central moment of the sum are ``sum(w a^2 + v)``, ``sum(2 v^2 + 4 v w
    a^2)`` and ``sum(8 v^3 + 24 v^2 w a^2)``.
    """
    # Weights per state, or common to all states.
    v, power = weights * spread**2, weights * np.ones_like(departure)
    n_drawn = min(_DRAWN, departure.shape[1])
    variances = v * (v + 2.0 * weights * departure**2)
    top = np.argpartition(variances, -n_drawn, axis=1)[:, -n_drawn:]
    at = np.arange(len(departure))[:, None], top
    drawn = departure[at] + spread[at] * rng.standard_normal((count, *top.shape)) - off[:, top]
    total = np.asarray((power[at] * drawn**2).sum(axis=2))
    v[at] = power[at] = 0.0
    moments = []
    square = off**2
    v_power = np.ones_like(v)
    for order, factor in enumerate((1.0, 2.0, 8.0)):
        # Sums of power (departure - off)^2, with power = w v^order, and of v^(order + 1).
        weighted, v_power = power * departure, v_power * v
        sums = (weighted * departure).sum(axis=1) - 2.0 * off @ weighted.T + square @ power.T
        moments.append(factor * (v_power.sum(axis=1) + (order + 1) * sums))
        power = power * v
    mean, variance, third = np.maximum(moments, 0.0)
    # With variance v and third central moment t, the gamma distribution has the shape 4 v^3 / t^2.
    ratio = np.divide(variance, third, out=np.ones_like(third), where=third > 0)
    shape = np.clip(4.0 * variance * ratio**2, _TINY, _NORMAL)
    gamma = rng.standard_gamma(np.broadcast_to(shape, total.shape))
    return total + mean + np.sqrt(variance) * (gamma - shape) / np.sqrt(shape)


def slope_draws(goal: Goal, mean: Array, drawn: Draw, rng: np.random.Generator) -> Array:
    """Return draws of first-order changes of distances, ``(count, n_perturbations + 1)``.

    A change is the slope of the distance at the expected states ``mean`` in the direction of a
    draw. For target states it is linear in the draw, so that own parts add a normal variable. For
    goals with other parts, it is a central difference in every draw, which smooths kinks at bounds.
    """
    blocks = in_blocks(*mean.shape)

    def slope(one: Draw) -> Array:
        def at(step: float) -> Array:
            off = None if one.target_error is None else step * one.target_error

            def moved(rows: slice | int) -> Array:  # small steps need double precision
                centre = np.asarray(mean[rows], np.float64)
                return np.asarray(centre + step * (one.states[rows] - centre))

            control = moved(-1)
            distances = [goal.rows(rows).distance(moved(rows), control, off) for rows in blocks]
            return np.concatenate(distances)

        return (at(_STEP) - at(-_STEP)) / (2 * _STEP)

    if not goal.is_states:
        return np.array([slope(one) for one in drawn.sampled(rng)])
    errors = drawn.errors(rng)
    point = goal.shares @ goal.states
    common, root = np.zeros((2, len(mean)))
    for rows in blocks:
        towards = goal.rows(rows).weigh(mean[rows] - point)
        common[rows] = 2.0 * ((drawn.states[rows] - mean[rows]) * towards).sum(axis=1)
        if drawn.spread is not None:
            root[rows] = 2.0 * np.sqrt(((towards * drawn.spread[rows]) ** 2).sum(axis=1))
    if drawn.target_error is not None:
        target_parts = zip(goal.shares, goal.states, drawn.target_error, strict=True)
        for weight, state, off in target_parts:
            common -= 2.0 * weight * (goal.dot(mean, off) - goal.dot(state, off))
    if drawn.spread is None:
        return common[None]
    slopes = common + root * rng.standard_normal((drawn.count, len(root)))
    if errors is not None and drawn.target_error is not None:
        # Own parts of the targets.
        own_errors = goal.shares[:, None] * (errors - drawn.target_error)
        for row, states in drawn.joined(errors).items():
            towards = goal.rows([row]).weigh(mean[row] - point).reshape(-1)
            slopes[:, row] = common[row] + 2.0 * ((states - drawn.states[row]) @ towards)
        for s, state in enumerate(goal.states):
            towards = goal.dot(state, own_errors[:, s]).T
            towards = towards if goal.own_nodes else towards[:, None]
            slopes -= 2.0 * (goal.dot(mean, own_errors[:, s]).T - towards)
    return slopes


_STEP = 1e-3  # fraction of a draw's departure; exact for squared distances
