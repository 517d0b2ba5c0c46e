"""The target state as a quadratic form: points, a signature, and bounds."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from nextpert.core._blas import in_blocks
from nextpert.core._checks import as_numbers, as_vector, require_finite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]


def numbers(
    value: ArrayLike | None, n: int, name: str, default: float, *, many: bool = False
) -> Array:
    """Return ``n`` numbers, ``default`` if they are not given; of ``many`` states one row each.

    They must be finite unless ``default`` is infinite: bounds, of which no other can be infinite.
    """
    if value is None:
        return np.full((0, n) if many else n, default)
    values = as_numbers(value, name)
    if values.ndim != 1 + many or values.shape[-1] != n:
        rows = "one row per state, " * many
        message = f"{name} has shape {values.shape}: give {rows}one value for each of {n}."
        raise ValueError(message)
    if np.isfinite(default):
        require_finite(values, name)
    elif np.isnan(values).any() or (values == -default).any():
        message = f"{name} has NaN or a bound that no state can meet: use {default} for none."
        raise ValueError(message)
    return values


class Quadratic(NamedTuple):
    """A distance ``sum_i weights_i (theta_i - point_i)^2``, both of shape ``(n_nodes,)``."""

    point: Array
    weights: Array


class Distance(NamedTuple):
    """A kind of distance: its names, and its formula unless it is a sum of squared differences.

    ``axis`` names it on axes, ``words`` after the name of a target. ``of_changes(goal, changes,
    wanted, shares)`` returns how far changes from the control, ``(n, n_nodes)``, are from wanted
    ones, ``(n_wanted, n_nodes)``. ``nearest(goal, change, wanted, shares)`` returns the change at
    distance 0 nearest to one; ``None``: the mean of the wanted ones.
    """

    axis: str
    words: str = ""
    of_changes: Callable[[Goal, Array, Array, Array], Array] | None = None
    nearest: Callable[[Goal, Array, Array, Array], Array] | None = None


def _cosine(goal: Goal, changes: Array, wanted: Array, shares: Array) -> Array:
    size, total = goal.length(changes), np.ones(len(changes))
    for v, share in zip(wanted, shares, strict=True):
        both = size * goal.length(v)
        along = goal.dot(changes, v)
        total -= share * np.divide(along, both, out=np.zeros_like(both), where=both > 0)
    return np.maximum(total, 0.0)


def _along(goal: Goal, change: Array, wanted: Array, shares: Array) -> Array:
    """Return the nearest point in the wanted direction, or where it leads if none is near."""
    sizes = goal.length(wanted)
    v = shares @ (wanted / np.maximum(sizes, 1e-300)[:, None])
    along = float(change @ (goal.weights * v)) / max(float(goal.square(v)), 1e-300)
    return (along if along > 0 else float(shares @ sizes)) * v


# By the names of ``distance`` of :class:`nextpert.Target`.
DISTANCES = {
    "squared": Distance("squared, log-normalised expression²"),
    "noise": Distance("squared, variances of control cells", "in units of noise"),
    "cosine": Distance("1 - cosine of the angle", "direction only", _cosine, _along),
}


@dataclass(frozen=True)
class OwnNodes:
    """What of the distance is left out for each state alone, and what it is then multiplied by.

    ``left_out`` is 1 for nodes that do not count for a state, ``(n, n_nodes)``; ``factor`` is the
    distance of the control over that on the other nodes, ``(n,)``.
    """

    left_out: csr_array
    factor: Array

    @cached_property
    def counted(self) -> Array:
        """The factor where a node counts for a state, else 0, shape ``(n, n_nodes)``."""
        counted = np.repeat(self.factor[:, None], self.left_out.shape[1], axis=1)
        counted[self.row, self.left_out.indices] = 0.0
        return counted

    @cached_property
    def row(self) -> NDArray[np.int64]:
        """State of every entry of what is left out."""
        return np.repeat(np.arange(len(self.factor)), np.diff(self.left_out.indptr))


class Goal:
    r"""Distance of states to a target; 0 if all of its parts are reached.

    With weights ``w`` of the nodes, ``|x|^2 = sum_i w_i x_i^2``, and ``(x)_+ = max(x, 0)``, a
    state ``theta`` has the distance

    .. math:: \sum_s c_s |\theta - m_s|^2 + (|v| - v'W(\theta - o) / |v|)_+^2
        + \sum_i w_i \big((l_i - \theta_i)_+^2 + (\theta_i - h_i)_+^2\big)

    - of target states ``m_s`` with equal shares ``c_s`` that sum to 1: the distance to their
      mean, plus a constant, the variance of the states about it;
    - of a signature ``v``, the change from the origin ``o`` to reach: the part of it that is
      missing along its direction. Genes compensate for each other, and neither a larger change nor
      one in other directions has a penalty: it is the distance to a half-space, whose nearest point
      to the origin is ``o + v``;
    - of bounds ``l``, ``h``, gene by gene.

    With ``distance="cosine"`` it is one minus the cosine of the angle between ``theta - o`` and
    ``m_s - o``, or ``v``, with weights ``w``: 0 for the same direction, 1 for no change or one at
    a right angle, 2 for the opposite. Other names of ``DISTANCES`` have formulas of their own.

    Parameters
    ----------
    origin
        The control state, shape ``(n_nodes,)``, units of the data.
    states
        Target states, shape ``(n_states, n_nodes)``, with equal weights.
    variances
        Sampling variance of the nodes of each of them, ``(n_nodes,)``; ``None`` for
        a state known without error.
    signature
        Change from the origin to reach, shape ``(n_nodes,)``.
    low, high
        Lower and upper bounds, shape ``(n_nodes,)``; infinite for none.
    weights, scale
        Weight of a node, and the scale of its squared differences, such as one over its variance;
        shape ``(n_nodes,)``, 1 by default.
    distance
        A name of ``DISTANCES``; for ``"noise"`` give one over the variances as ``scale``.

    Raises
    ------
    ValueError
        If parts do not fit together, have an impossible value, or none is given.

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
        weights: ArrayLike | None = None,
        scale: ArrayLike | None = None,
        distance: str = "squared",
    ) -> None:
        p = self.n_nodes = len(np.atleast_1d(np.asarray(origin)))
        self.origin = numbers(origin, p, "origin", 0.0)
        self.scale = numbers(scale, p, "scale", 1.0)
        self.weights = numbers(weights, p, "weights", 1.0) * self.scale
        self.kind, self.of_changes = distance, DISTANCES[distance].of_changes
        self.own: OwnNodes | None = None
        self.states = numbers(states, p, "states", 0.0, many=True)
        self.signature = None if signature is None else as_vector(signature, p, "signature")
        self.low = numbers(low, p, "low", -np.inf)
        self.high = numbers(high, p, "high", np.inf)
        self._bounded = np.isfinite(self.low) | np.isfinite(self.high)
        given = [None] * len(self.states) if variances is None else list(variances)
        each = [numbers(np.zeros(p) if v is None else v, p, "variances", 0.0) for v in given]
        self.variances = np.array(each).reshape(-1, p)
        # Parts fit together, and have possible values.
        n, signed, bounded = len(self.states), self.signature is not None, self._bounded.any()
        crossed = np.flatnonzero(self.low > self.high)[:5]
        wrong: dict[str, Any] = {}
        for name in ("scale", "weights"):
            value = getattr(self, name)
            wrong[f"{name} must be numbers of at least 0, and not all of them 0."] = (
                not (np.isfinite(value) & (value >= 0)).all() or not value.any()
            )
        wrong |= {
            f"variances must be one for each of {n} states, or None.": len(given) != n,
            "variances must not be negative.": (self.variances < 0).any(),
            f"low is above high at nodes {crossed.tolist()}: no state is between.": len(crossed),
            "Nothing is wanted: give states, a signature or bounds.": not (n or signed or bounded),
            "The signature asks for no change: give it a node that counts.": (
                self.signature is not None and not self.length(self.signature) > 0
            ),
            f"distance={distance!r} takes states or a signature, and nothing beside it.": (
                self.of_changes is not None and (bool(n) == signed or bounded)
            ),
        }
        for message, is_wrong in wrong.items():
            if is_wrong:
                raise ValueError(message)
        self.shares = np.full(n, 1 / max(n, 1))
        # Whether it is only the squared distance to target states, weighted or not.
        self.is_states = n > 0 and self.of_changes is None and not (signed or bounded)
        # What the errors of the target states add to the distance; with own nodes ``(n,)``.
        self.floor: Any = self.shares @ [self.excess(each) for each in self.variances]

    @classmethod
    def point(cls, mean: ArrayLike, variance: ArrayLike | None = None) -> Goal:
        """Return the goal of one target mean, its sampling variance, and equal weights.

        Examples
        --------
        >>> from nextpert.core.design.goal import Goal
        >>> Goal.point([1.0, 2.0]).distance([[1.0, 0.0]]).tolist()
        [4.0]
        """
        point = np.atleast_1d(as_numbers(mean, "mean"))
        return cls(np.zeros(len(point)), states=point[None], variances=[variance])

    def leave_out(
        self, common: Sequence[int], each: Sequence[Sequence[int]], control: ArrayLike
    ) -> Goal:
        r"""Return the goal without some nodes, and for every candidate without its own.

        With :math:`O_j` the nodes left out for candidate ``j``, and :math:`d_{0j}` the control's
        expected distance on the others, its distance is (equation 28)

        .. math:: \frac{d_0}{d_{0j}} \sum_{i \notin O_j} w_i (\theta_i - m_i)^2,

        so that distances relative to the control's are those on the same nodes. ``common`` nodes
        count for no candidate, ``each`` not for one; ``control`` is what every node adds to the
        control's expected distance, ``(n_nodes,)``. States that this goal is asked for are those of
        all candidates, and of the control, last; see :meth:`rows`.
        """
        goal = copy(self)
        goal.weights = np.where(np.isin(np.arange(self.n_nodes), list(common)), 0.0, self.weights)
        if any(each):
            row = np.repeat(np.arange(len(each)), [len(some) for some in each])
            node = np.array([i for some in each for i in some], np.int64)
            shape = len(each) + 1, self.n_nodes
            out = csr_array((np.ones(len(row)), (row, node)), shape)
            counted = np.where(goal.weights > 0, control, 0.0)
            left, factor = counted.sum() - out @ counted, np.ones(len(each) + 1)
            if self.of_changes is not None:
                goal.own, goal.floor = OwnNodes(out, factor), np.zeros(len(factor))
                left = goal.distance(np.broadcast_to(self.origin, shape))
            # The last is the control, without which no node is left out.
            goal.own = OwnNodes(out, np.divide(left[-1], left, out=factor.copy(), where=left > 0))
        goal.floor = goal.shares @ [goal.excess(each) for each in goal.variances]
        return goal

    def rows(self, which: Any) -> Goal:
        """Return the goal for some of its candidates; the same where none has own nodes."""
        own = self.own
        if own is None or (
            isinstance(which, slice) and which.indices(len(own.factor)) == (0, len(own.factor), 1)
        ):
            return self
        goal = copy(self)
        goal.own = OwnNodes(own.left_out[which], own.factor[which])
        goal.floor = self.floor[which]
        return goal

    def weigh(self, x: ArrayLike) -> Array:
        """Return ``x`` of every state and node, ``(n, n_nodes)``, times what these count for."""
        weighed = np.asarray(self.weights * np.asarray(x))
        return weighed if self.own is None else weighed * self.own.counted

    def dot(self, states: Array, x: Array) -> Array:
        """Return the weighted product of states with others ``(..., n_nodes)`` for all of them."""
        product = np.asarray(states @ (self.weights * x).T)
        if self.own is None:
            return product
        out, row = self.own.left_out, self.own.row
        held = np.broadcast_to(states, out.shape)[row, out.indices]
        own = csr_array((held, out.indices, out.indptr), out.shape) @ (self.weights * x).T
        return ((product - own).T * self.own.factor).T

    @property
    def is_plain(self) -> bool:
        """Whether it is the squared distance to one state with equal weights of nodes."""
        equal = (self.weights == 1).all() and (self.scale == 1).all()
        return bool(self.is_states and len(self.states) == 1 and equal)

    def distance(
        self, states: ArrayLike, origin: ArrayLike | None = None, errors: Array | None = None
    ) -> Array:
        """Return the distance of every state, ``(n,)``: squared units over the scale, or 0 to 2.

        ``origin`` is the control state that signature and directions start from, in place of the
        goal's own: that of the same draw, say. ``errors`` are of the target states
        (:meth:`draw_errors`).
        """
        start = self.origin if origin is None else np.asarray(origin, np.float64)
        every = np.asarray(states)
        blocks = in_blocks(*every.shape) if every.ndim == 2 else []
        if len(blocks) > 1:
            return np.concatenate(
                [self.rows(rows).distance(every[rows], start, errors) for rows in blocks]
            )
        given = as_numbers(states, "states", copy=False)
        targets = self.states if errors is None else self.states + errors
        if self.of_changes is not None:
            return self.of_changes(self, given - start, *self._wanted(targets - start))
        total = np.zeros(len(given))
        for weight, state in zip(self.shares, targets, strict=True):
            total += weight * self.square(given - state)
        if self.signature is not None:
            total += self._lacking(given - start) ** 2
        if self._bounded.any():
            total += self.square(np.clip(given, self.low, self.high) - given)
        return total

    def excess(self, variance: ArrayLike) -> Any:
        """Return what a sampling variance, ``(n_nodes,)``, adds to the distance to target states.

        What it adds to other parts, or to angles, has no closed form and is not subtracted: 0.
        """
        if not len(self.states) or self.of_changes is not None:
            return 0.0 if self.own is None else np.zeros(len(self.own.factor))
        if self.own is None:
            return float((np.asarray(variance) * self.weights).sum())
        return self.dot(np.ones(self.n_nodes), np.asarray(variance))

    def draw_errors(self, rng: np.random.Generator) -> Array | None:
        """Draw errors of the target states, ``(n_states, n_nodes)``; ``None`` if they are known."""
        if not np.any(self.floor):
            return None
        return np.sqrt(self.variances) * rng.standard_normal(self.variances.shape)

    def error_sd(self, states: ArrayLike) -> Array:
        """Return what errors of the target states add to distances, to first order.

        A standard deviation for every state, ``2 sqrt(sum_s c_s^2 |V_s^(1/2) W (theta - m_s)|^2)``
        with ``V_s`` the sampling variances of ``m_s``; shape ``(n,)``.
        """
        every = np.asarray(states)
        total = np.zeros(len(every))
        if np.any(self.floor):
            for c, state, variance in zip(self.shares, self.states, self.variances, strict=True):
                total += c**2 * (self.weigh(every - state) ** 2 @ variance)
        return 2.0 * np.sqrt(total)

    def quadratic(self, at: ArrayLike) -> Quadratic:
        """Return a quadratic approximation of the distance near a state, ``(n_nodes,)``.

        Bounds and signature are replaced by the nearest point to ``at`` that keeps them, a
        direction by the point along it that is nearest. What couples nodes is left out: a signature
        weighs a node by its share of the direction. Nodes without a target have the weight 0 and
        the point of ``at``.
        """
        here = as_vector(at, self.n_nodes, "at")
        w, parts = self.weights, []
        if self.of_changes is not None:
            wanted, shares = self._wanted(self.states - self.origin)
            nearest = DISTANCES[self.kind].nearest
            change = here - self.origin
            change = nearest(self, change, wanted, shares) if nearest else shares @ wanted
            parts.append((self.origin + change, w))
        else:
            parts += [(m, c * w) for m, c in zip(self.states, self.shares, strict=True)]
            if self.signature is not None:
                v = self.signature / self.length(self.signature)
                lacking = self._lacking((here - self.origin)[None])[0]
                parts.append((here + lacking * v, w * v**2 * w))
            kept = np.clip(here, self.low, self.high)
            parts.append((kept, w * self._bounded))
        weights = np.sum([weight for _, weight in parts], axis=0)
        pulled = np.sum([weight * point for point, weight in parts], axis=0)
        point = np.divide(pulled, weights, out=here.copy(), where=weights > 0)
        return Quadratic(point, weights)

    def square(self, x: Array) -> Array:
        """Return the weighted sum of squares over nodes."""
        return self.weigh(x**2).sum(axis=-1)

    def length(self, x: Array) -> Array:
        """Return its root."""
        return np.sqrt(self.square(x))

    def _lacking(self, change: Array) -> Array:
        v = self.signature
        assert v is not None
        size = self.length(v)
        return np.maximum(size - change @ (self.weights * v) / size, 0.0)

    def _wanted(self, targets: Array) -> tuple[Array, Array]:
        """Return wanted changes and their shares: the signature, or those to target states."""
        return (
            (targets, self.shares) if self.signature is None else (self.signature[None], np.ones(1))
        )


def as_goal(target: ArrayLike | Goal, n_nodes: int) -> Goal:
    """Return a goal unchanged, and a target mean as a goal whose only state it is.

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
        message = f"The goal has {target.n_nodes} nodes, but the posterior has {n_nodes}."
        raise ValueError(message)
    return target
