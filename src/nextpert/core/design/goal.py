"""The target state as a quadratic form: points, a signature, bounds, and states to avoid."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from nextpert.core._blas import in_blocks
from nextpert.core._checks import as_numbers, as_vector, require_finite, require_positive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]


def numbers(
    value: ArrayLike | None, n: int, name: str, default: float, *, by_state: bool = False
) -> Array:
    """Return ``n`` numbers, by default ``default``; with ``by_state``, one row per state.

    The numbers must be finite, unless ``default`` is infinite: then they are bounds, for which
    ``default`` is the only infinite value.
    """
    if value is None:
        return np.full((0, n) if by_state else n, default)
    values = as_numbers(value, name)
    if values.ndim != 1 + by_state or values.shape[-1] != n:
        rows = "one row per state, " * by_state
        message = f"{name} has shape {values.shape}: give {rows}one value for each of {n} nodes."
        raise ValueError(message)
    if np.isfinite(default):
        require_finite(values, name)
    elif np.isnan(values).any() or (values == -default).any():
        message = f"{name} has NaN, or a bound that no state can meet: use {default} for no bound."
        raise ValueError(message)
    return values


class Quadratic(NamedTuple):
    """A distance ``sum_i weights_i (theta_i - point_i)^2``, both of shape ``(n_nodes,)``."""

    point: Array
    weights: Array


class Distance(NamedTuple):
    """A kind of distance: its names, and its formula unless it is a sum of squared differences.

    ``axis`` is its name on axes, and ``words`` its name after that of a target. ``of_changes(goal,
    changes, desired, shares)`` returns the distance of changes from the control, ``(n, n_nodes)``,
    to the desired changes, ``(n_desired, n_nodes)``. ``nearest(goal, change, desired, shares)``
    returns the change at distance 0 that is nearest to ``change``; if it is ``None``, the mean of
    the desired changes is used.
    """

    axis: str
    words: str = ""
    of_changes: Callable[[Goal, Array, Array, Array], Array] | None = None
    nearest: Callable[[Goal, Array, Array, Array], Array] | None = None


def _cosine(goal: Goal, changes: Array, desired: Array, shares: Array) -> Array:
    size = goal.length(changes)
    total = np.ones(len(changes))
    for v, share in zip(desired, shares, strict=True):
        lengths = size * goal.length(v)
        along = goal.dot(changes, v)
        total -= share * np.divide(along, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return np.maximum(total, 0.0)


def _along(goal: Goal, change: Array, desired: Array, shares: Array) -> Array:
    """Return the nearest change in the desired direction; if it is opposite, the desired change."""
    sizes = goal.length(desired)
    v = shares @ (desired / np.maximum(sizes, 1e-300)[:, None])
    along = float(change @ (goal.weights * v)) / max(float(goal.square(v)), 1e-300)
    return (along if along > 0 else float(shares @ sizes)) * v


# The keys are the values of ``distance`` in :class:`nextpert.Target`.
DISTANCES = {
    "squared": Distance("squared, log-normalised expression²"),
    "noise": Distance("squared, variances of control cells", "in units of noise"),
    "cosine": Distance("1 - cosine of the angle", "direction only", _cosine, _along),
}


@dataclass(frozen=True)
class OwnNodes:
    """Nodes left out of the distance of each state, and the factor that compensates for them.

    ``left_out`` is 1 for nodes that do not count for a state, ``(n, n_nodes)``; ``factor`` is the
    distance of the control on all nodes, divided by its distance on the remaining nodes, ``(n,)``.
    """

    left_out: csr_array
    factor: Array

    @cached_property
    def counted(self) -> Array:
        """The factor if a node counts for a state, otherwise 0, shape ``(n, n_nodes)``."""
        return self.factor[:, None] * (self.left_out.toarray() == 0)

    def dot(self, states: Array | float, x: Array) -> Array:
        """Return products with vectors ``(..., n_nodes)`` over the nodes left out, ``(..., n)``."""
        n = self.left_out.shape[0]
        out = self.left_out
        row = np.repeat(np.arange(n), np.diff(out.indptr))
        values = np.broadcast_to(states, out.shape)[row, out.indices] * x[..., out.indices]
        flat = values.reshape(int(np.prod(values.shape[:-1])), len(row))
        total = np.array([np.bincount(row, products, n) for products in flat])
        return total.reshape(*values.shape[:-1], n)


class Goal:
    r"""Distance of states to a target; 0 if all of its parts are reached.

    With node weights ``w``, ``W = diag(w)``, ``|x|^2 = sum_i w_i x_i^2``, and
    ``(x)_+ = max(x, 0)``, the distance of a state ``theta`` is

    .. math:: \sum_s c_s |\theta - m_s|^2 + (|v| - v'W(\theta - o) / |v|)_+^2
        + \sum_i w_i \big((l_i - \theta_i)_+^2 + (\theta_i - h_i)_+^2\big)
        + \lambda \sum_t (|o - t| - |\theta - t|)_+^2

    the sum of four parts:

    - target states ``m_s`` with equal shares ``c_s`` that sum to 1: the distance to their mean,
      plus a constant, the variance of the states about their mean;
    - a signature ``v``, the desired change from the origin ``o``: the part of it that is missing
      along its direction. Genes compensate for each other, and neither a larger change nor a change
      in other directions has a penalty: it is the distance to a half-space, whose nearest point to
      the origin is ``o + v``;
    - bounds ``l``, ``h``, gene by gene;
    - states ``t`` to avoid: the distance by which a state is nearer to ``t`` than the origin is,
      squared, with weight ``lambda``. A state at least as far from ``t`` has no penalty.

    With ``distance="cosine"`` it is one minus the cosine of the angle between ``theta - o`` and
    ``m_s - o``, or ``v``, with weights ``w``: 0 for the same direction, 1 for no change or a change
    at a right angle, 2 for the opposite direction. Other ``DISTANCES`` may have other formulas.

    Parameters
    ----------
    origin
        The control state, shape ``(n_nodes,)``, units of the data.
    states
        Target states, shape ``(n_states, n_nodes)``, with equal weights.
    variances
        For each target state, the sampling variances of its nodes, ``(n_nodes,)``, or ``None`` for
        a state known without error.
    signature
        Desired change from the origin, shape ``(n_nodes,)``.
    low, high
        Lower and upper bounds, shape ``(n_nodes,)``; infinite for no bound.
    away_from
        States to avoid, shape ``(n_away, n_nodes)``.
    away_weight
        Weight of the states to avoid, ``lambda``.
    weights, scale
        Weight of each node, and a factor on its squared differences, such as one over its variance;
        shape ``(n_nodes,)``, 1 by default.
    distance
        A key of ``DISTANCES``; for ``"noise"`` give one over the variances as ``scale``.

    Raises
    ------
    ValueError
        If no part is given, a value is invalid, or the parts cannot be combined.

    Examples
    --------
    >>> from nextpert.core.design.goal import Goal
    >>> goal = Goal([0.0, 0.0], states=[[1.0, 0.0]], high=[5.0, 2.0])
    >>> goal.distance([[1.0, 0.0], [0.0, 0.0], [1.0, 3.0]]).tolist()
    [0.0, 1.0, 10.0]
    >>> up = Goal([0.0, 0.0], signature=[3.0, 4.0])
    >>> up.distance([[0.0, 0.0], [1.5, 2.0], [6.0, 8.0]]).tolist()
    [25.0, 6.25, 0.0]
    """

    def __init__(
        self,
        origin: ArrayLike,
        *,
        states: ArrayLike | None = None,
        variances: Sequence[ArrayLike | None] | None = None,
        signature: ArrayLike | None = None,
        low: ArrayLike | None = None,
        high: ArrayLike | None = None,
        away_from: ArrayLike | None = None,
        away_weight: float = 1.0,
        weights: ArrayLike | None = None,
        scale: ArrayLike | None = None,
        distance: str = "squared",
    ) -> None:
        p = self.n_nodes = len(np.atleast_1d(np.asarray(origin)))
        self.origin = numbers(origin, p, "origin", 0.0)
        self.scale = numbers(scale, p, "scale", 1.0)
        self.weights = numbers(weights, p, "weights", 1.0) * self.scale
        self.kind = distance
        self.of_changes = DISTANCES[distance].of_changes
        self.own_nodes: OwnNodes | None = None
        self.states = numbers(states, p, "states", 0.0, by_state=True)
        self.signature = None if signature is None else as_vector(signature, p, "signature")
        self.low = numbers(low, p, "low", -np.inf)
        self.high = numbers(high, p, "high", np.inf)
        self._bounded = np.isfinite(self.low) | np.isfinite(self.high)
        self.away_from = numbers(away_from, p, "away_from", 0.0, by_state=True)
        self.away_weight = require_positive(away_weight, "away_weight")
        avoids = len(self.away_from) > 0
        errors = [None] * len(self.states) if variances is None else list(variances)
        variance_rows = [
            numbers(np.zeros(p) if v is None else v, p, "variances", 0.0) for v in errors
        ]
        self.variances = np.array(variance_rows).reshape(-1, p)
        # Check the combination of parts, and their values.
        n = len(self.states)
        signed = self.signature is not None
        bounded = self._bounded.any()
        crossed = np.flatnonzero(self.low > self.high)[:5]
        wrong: dict[str, Any] = {}
        for name in ("scale", "weights"):
            value = getattr(self, name)
            wrong[f"{name} must be numbers of at least 0, and not all of them 0."] = (
                not (np.isfinite(value) & (value >= 0)).all() or not value.any()
            )
        wrong |= {
            f"variances must have one entry for each of {n} states, or be None.": len(errors) != n,
            "variances must not be negative.": (self.variances < 0).any(),
            f"low is above high at nodes {crossed.tolist()}: exchange the bounds.": len(crossed),
            "The goal has no part: give states, a signature or bounds.": not (
                n or signed or bounded
            ),
            "The signature asks for no change: give a node with a weight a change other than 0.": (
                self.signature is not None and not self.length(self.signature) > 0
            ),
            f"distance={distance!r} takes either states or a signature: leave out other parts.": (
                self.of_changes is not None and (bool(n) == signed or bounded or avoids)
            ),
            "away_from has the origin itself, which no state can be nearer to: leave it out.": (
                avoids and not self.length(self.origin - self.away_from).all()
            ),
        }
        for message, is_wrong in wrong.items():
            if is_wrong:
                raise ValueError(message)
        self.shares = np.full(n, 1 / max(n, 1))
        # Whether it consists only of the squared distance to target states, weighted or not.
        self.is_states = n > 0 and self.of_changes is None and not (signed or bounded or avoids)
        # Contribution of the target states' errors to the distance; with own nodes ``(n,)``.
        self.floor: Any = self.shares @ [self.excess(variance) for variance in self.variances]

    @classmethod
    def point(cls, mean: ArrayLike, variance: ArrayLike | None = None) -> Goal:
        """Return the goal for one target mean, with its sampling variance and equal weights.

        Examples
        --------
        >>> from nextpert.core.design.goal import Goal
        >>> Goal.point([1.0, 2.0]).distance([[1.0, 0.0]]).tolist()
        [4.0]
        """
        point = np.atleast_1d(as_numbers(mean, "mean"))
        return cls(np.zeros(len(point)), states=point[None], variances=[variance])

    def leave_out(
        self, common: Sequence[int], by_candidate: Sequence[Sequence[int]], control: ArrayLike
    ) -> Goal:
        r"""Return the goal without ``common`` nodes, and without the own nodes of each candidate.

        With :math:`O_j` the nodes left out for candidate ``j``, and :math:`d_0` and :math:`d_{0j}`
        the control's expected distances without common nodes and also without :math:`O_j`, the
        distance of the candidate is (equation 28)

        .. math:: \frac{d_0}{d_{0j}} \sum_{i \notin O_j} w_i (\theta_i - m_i)^2,

        so that a distance relative to the control's compares the two on the same nodes. ``common``
        nodes are left out for all candidates, ``by_candidate[j]`` for candidate ``j``; ``control``
        is the contribution of every node to the control's expected distance, ``(n_nodes,)``. The
        methods of this goal take the states of all candidates and, last, the control; see
        :meth:`rows`.
        """
        goal = copy(self)
        goal.weights = np.where(np.isin(np.arange(self.n_nodes), list(common)), 0.0, self.weights)
        if any(by_candidate):
            row = np.repeat(np.arange(len(by_candidate)), [len(nodes) for nodes in by_candidate])
            node = np.array([i for nodes in by_candidate for i in nodes], np.int64)
            shape = len(by_candidate) + 1, self.n_nodes
            out = csr_array((np.ones(len(row)), (row, node)), shape)
            counted = np.where(goal.weights > 0, control, 0.0)
            remaining = counted.sum() - out @ counted
            factor = np.ones(len(by_candidate) + 1)
            if self.of_changes is not None:
                goal.own_nodes = OwnNodes(out, factor)
                goal.floor = np.zeros(len(factor))
                remaining = goal.distance(np.broadcast_to(self.origin, shape))
            # The last state is the control, for which no node is left out.
            # Distances are not scaled if an unbiased estimate of one of the two is not above 0.
            is_scaled = (remaining > 0) & (remaining[-1] > 0)
            goal.own_nodes = OwnNodes(
                out, np.divide(remaining[-1], remaining, out=factor.copy(), where=is_scaled)
            )
        goal.floor = goal.shares @ [goal.excess(variance) for variance in goal.variances]
        return goal

    def rows(self, candidates: Any) -> Goal:
        """Return the goal for some of its candidates; unchanged if none has own nodes."""
        own_nodes = self.own_nodes
        if own_nodes is None or (
            isinstance(candidates, slice)
            and candidates.indices(len(own_nodes.factor)) == (0, len(own_nodes.factor), 1)
        ):
            return self
        goal = copy(self)
        goal.own_nodes = OwnNodes(own_nodes.left_out[candidates], own_nodes.factor[candidates])
        goal.floor = self.floor[candidates]
        return goal

    def weigh(self, x: ArrayLike) -> Array:
        """Return ``x`` of every state and node, ``(n, n_nodes)``, times the weight of the node."""
        weighed = np.asarray(self.weights * np.asarray(x))
        return weighed if self.own_nodes is None else weighed * self.own_nodes.counted

    def dot(self, states: Array, x: Array) -> Array:
        """Return the weighted products of states with vectors ``x`` of shape ``(..., n_nodes)``."""
        product = np.asarray(states @ (self.weights * x).T)
        if self.own_nodes is None:
            return product
        left_out = self.own_nodes.dot(states, self.weights * x)
        return ((product - left_out.T).T * self.own_nodes.factor).T

    @property
    def is_plain(self) -> bool:
        """Whether the goal is the squared distance to one state with equal weights of nodes."""
        equal = (self.weights == 1).all() and (self.scale == 1).all()
        return bool(self.is_states and len(self.states) == 1 and equal)

    def distance(
        self, states: ArrayLike, origin: ArrayLike | None = None, errors: Array | None = None
    ) -> Array:
        """Return the distance of every state, ``(n,)``: squared units over the scale, or 0 to 2.

        ``origin`` replaces the goal's control state as the start of signature and directions, for
        example by the control of the same draw. ``errors`` are errors of the target states
        (:meth:`draw_errors`).
        """
        start = self.origin if origin is None else np.asarray(origin, np.float64)
        all_states = np.asarray(states)
        blocks = in_blocks(*all_states.shape) if all_states.ndim == 2 else []
        if len(blocks) > 1:
            return np.concatenate(
                [self.rows(rows).distance(all_states[rows], start, errors) for rows in blocks]
            )
        values = as_numbers(states, "states", copy=False)
        targets = self.states if errors is None else self.states + errors
        if self.of_changes is not None:
            return self.of_changes(self, values - start, *self._desired(targets - start))
        total = np.zeros(len(values))
        for weight, state in zip(self.shares, targets, strict=True):
            total += weight * self.square(values - state)
        if self.signature is not None:
            total += self._lacking(values - start) ** 2
        if self._bounded.any():
            total += self.square(np.clip(values, self.low, self.high) - values)
        for state in self.away_from:
            nearer = self.length(start - state) - self.length(values - state)
            total += self.away_weight * np.maximum(nearer, 0.0) ** 2
        return total

    def excess(self, variance: ArrayLike) -> Any:
        """Return the contribution of a sampling variance, ``(n_nodes,)``, to the distance.

        The contribution to bounds, signatures or angles has no closed form and is not subtracted:
        it counts as 0.
        """
        if not len(self.states) or self.of_changes is not None:
            return 0.0 if self.own_nodes is None else np.zeros(len(self.own_nodes.factor))
        if self.own_nodes is None:
            return float((np.asarray(variance) * self.weights).sum())
        return self.dot(np.ones(self.n_nodes), np.asarray(variance))

    def draw_errors(self, rng: np.random.Generator) -> Array | None:
        """Draw errors of the target states, ``(n_states, n_nodes)``; ``None`` if they are known."""
        if not np.any(self.floor):
            return None
        return np.sqrt(self.variances) * rng.standard_normal(self.variances.shape)

    def error_sd(self, states: ArrayLike) -> Array:
        """Return the first-order SD of distances due to errors of the target states.

        For every state, ``2 sqrt(sum_s c_s^2 |V_s^(1/2) W (theta - m_s)|^2)`` with ``V_s`` the
        sampling variances of ``m_s``; shape ``(n,)``.
        """
        values = np.asarray(states)
        total = np.zeros(len(values))
        if np.any(self.floor):
            for c, state, variance in zip(self.shares, self.states, self.variances, strict=True):
                total += c**2 * (self.weigh(values - state) ** 2 @ variance)
        return 2.0 * np.sqrt(total)

    def quadratic(self, at: ArrayLike) -> Quadratic:
        """Return a quadratic approximation of the distance near a state, ``(n_nodes,)``.

        Bounds, signature and a state to avoid that is too near are replaced by the point nearest to
        ``at`` that meets them, and a direction by its nearest point. Coupling between nodes is left
        out: a signature weights a node by its share of the direction. Nodes without a target have
        weight 0 and keep the value of ``at``.
        """
        start = as_vector(at, self.n_nodes, "at")
        w = self.weights
        parts = []
        if self.of_changes is not None:
            desired, shares = self._desired(self.states - self.origin)
            nearest = DISTANCES[self.kind].nearest
            change = start - self.origin
            change = nearest(self, change, desired, shares) if nearest else shares @ desired
            parts.append((self.origin + change, w))
        else:
            parts += [(m, c * w) for m, c in zip(self.states, self.shares, strict=True)]
            if self.signature is not None:
                v = self.signature / self.length(self.signature)
                lacking = self._lacking((start - self.origin)[None])[0]
                parts.append((start + lacking * v, w * v**2 * w))
            within_bounds = np.clip(start, self.low, self.high)
            parts.append((within_bounds, w * self._bounded))
            for state in self.away_from:
                off, limit = self.length(start - state), self.length(self.origin - state)
                if 0 < off < limit:
                    at_limit = state + (start - state) * (limit / off)
                    parts.append((at_limit, self.away_weight * w))
        weights = np.sum([weight for _, weight in parts], axis=0)
        pulled = np.sum([weight * point for point, weight in parts], axis=0)
        point = np.divide(pulled, weights, out=start.copy(), where=weights > 0)
        return Quadratic(point, weights)

    def square(self, x: Array) -> Array:
        """Return the weighted sum of squares over nodes."""
        return self.weigh(x**2).sum(axis=-1)

    def length(self, x: Array) -> Array:
        """Return the square root of the weighted sum of squares over nodes."""
        return np.sqrt(self.square(x))

    def _lacking(self, change: Array) -> Array:
        v = self.signature
        assert v is not None
        size = self.length(v)
        return np.maximum(size - change @ (self.weights * v) / size, 0.0)

    def _desired(self, targets: Array) -> tuple[Array, Array]:
        """Return the desired changes and their shares: the signature, or changes to the states."""
        return (
            (targets, self.shares) if self.signature is None else (self.signature[None], np.ones(1))
        )


def as_goal(target: ArrayLike | Goal, n_nodes: int) -> Goal:
    """Return a goal unchanged, and a target mean as a goal with this mean as its only state.

    Raises
    ------
    ValueError
        If the number of nodes is not ``n_nodes``.

    Examples
    --------
    >>> from nextpert.core.design.goal import as_goal
    >>> as_goal([1.0, 2.0], 2).states.tolist()
    [[1.0, 2.0]]
    """
    if not isinstance(target, Goal):
        return Goal.point(as_vector(target, n_nodes, "target_mean"))
    if target.n_nodes != n_nodes:
        message = f"The goal has {target.n_nodes} nodes, but the posterior has {n_nodes}: give a "
        message += "goal over the nodes of the posterior."
        raise ValueError(message)
    return target
