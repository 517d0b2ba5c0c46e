"""CIV after the cells of a plate, any number of each candidate.

For node i and candidate l the term of the optimality gap has the variance ``e_i (1/n + r_il)`` (see
``acquisition._uncertain_kernel``). After ``n_j`` cells of every candidate j the weights have the
covariance ``M = (M0^-1 + sum_j k_ij v_ij v_ij')^-1``, ``k = n/(1 + n t)``, and
``r_il = y'My + t/(1 + n_l t)`` with ``y = q - w z - b v`` and ``b = n_l t/(1 + n_l t)``, the share
of its shift that its own cells determine. ``v`` is the direction along which its cells observe the
weights, ``t`` the spare variance of its shift. Cells add precision to a normal model of weights and
shifts, so r, and with it the criterion, is convex in the cells.

Candidates without cells and effects have the same ``y = q`` and enter by sums. All others are taken
one by one; their sums are d x d matrices of each node, and nothing is larger.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._blas import one_thread
from nextpert.core._checks import as_vector, require_positive
from nextpert.core.acquisition._goal_gap import goal_gap
from nextpert.core.acquisition._noise_aware import settle_by_noise
from nextpert.core.acquisition._uncertain_between import average_weights
from nextpert.core.posterior.pair_shifts import pair_shifts, weights_of
from nextpert.core.predict.goal import as_goal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.goal import Goal

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]

_ONE = 1e-12  # cells whose change, over their number, is the slope: no digits cancel in it


class PlateCiv:
    """CIV, above its floor of noise alone, as a function of the cells of every candidate.

    At equal cells it is that of :class:`~nextpert.core.acquisition.uncertain_civ.UncertainCiv`,
    noise-aware. Over several graphs it is the mean of theirs by their weights; what lies between
    graphs is not convex in the cells and is left out.

    Parameters
    ----------
    posterior, shifts, target, weights
        As in :class:`~nextpert.core.acquisition.uncertain_civ.UncertainCiv`.
    gap_cells
        Cells of the mean whose gap counts, those of a well.
    pending
        Cells under way, shape ``(n_candidates,)``, counted as if measured.

    Raises
    ------
    ValueError
        If posteriors, shifts and target do not fit together, or a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.plan.plate_civ import PlateCiv
    >>> from nextpert.core.posterior.shift_posterior import ShiftPosterior
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> known = ShiftPosterior.exact([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    >>> civ = PlateCiv(blr, known, [1.0, 0.0], gap_cells=20)
    >>> civ.removed_by_wells([0, 2], [15, 5]).round(3).tolist()
    [0.99, 0.991]
    """

    def __init__(
        self,
        posterior: DagBlr | Sequence[DagBlr],
        shifts: ShiftPosterior | Sequence[ShiftPosterior],
        target: ArrayLike | Goal,
        *,
        gap_cells: float,
        weights: ArrayLike | None = None,
        pending: ArrayLike | None = None,
    ) -> None:
        pairs = pair_shifts(posterior, shifts)
        self.size = pairs[0][1].n_perturbations
        self.weights = average_weights(weights, self.size)
        self.pending = np.zeros(self.size)
        if pending is not None:
            self.pending = as_vector(pending, self.size, "pending")
            if self.pending.min() < 0:
                message = "Cells under way (pending) must be 0 or more."
                raise ValueError(message)
        inv_n = 1 / require_positive(gap_cells, "gap_cells")
        point, counts = goal_gap(pairs, as_goal(target, pairs[0][0].n_nodes))
        self.shares = weights_of(pairs).tolist()
        self.graphs = [_Graph(*pair, point, counts, self.weights, inv_n) for pair in pairs]
        self._alone = np.any([graph.alone for graph in self.graphs], axis=0) | (self.pending > 0)

    def after(self, cells: ArrayLike, total: float | None = None) -> AfterPlate:
        """Return the criterion after ``cells`` of every candidate, and those under way.

        The scatter of ``total`` cells is counted, by default of as many as there are.
        """
        given = as_vector(cells, self.size, "cells")
        n_cells = (given.sum() if total is None else total) + self.pending.sum()
        return AfterPlate(self, given + self.pending, float(n_cells))

    def gain(self, chosen: Sequence[int], each: float) -> Callable[[Index], Vector]:
        """Return what ``each`` cells of any candidate take from the criterion, those chosen given.

        A function of the indices of candidates, as :func:`greedy_plate` asks for it.
        """
        cells = np.zeros(self.size)
        cells[list(chosen)] = each
        found = self.after(cells, each * (len(chosen) + 1))
        return lambda candidates: -found.changes(candidates, each)

    def removed_by_wells(self, chosen: Sequence[int], cells: ArrayLike) -> Vector:
        """Return the share of the criterion that the first well removes, the first two and so on.

        What cells under way remove is counted too.
        """
        on_plate, removed = np.zeros(self.size), []
        for j, n in zip(chosen, as_vector(cells, len(chosen), "cells"), strict=True):
            on_plate[j] += n
            removed.append(self.after(on_plate).removed)
        return np.array(removed)


class AfterPlate:
    """The criterion after the cells of a plate, told of every candidate."""

    def __init__(self, civ: PlateCiv, told: Vector, n_cells: float) -> None:
        self.civ, self._n_cells = civ, n_cells
        self._columns = np.flatnonzero(civ._alone | (told > 0))
        self._nodes = self._after(told[self._columns], now=False)
        self.value = self._mean([sum(node.value for node in nodes) for nodes in self._nodes])
        if not np.isfinite(self.value):
            raise _too_far_apart()

    @one_thread()
    def _after(self, told: Vector, *, now: bool) -> list[list[_Node]]:
        graphs = self.civ.graphs
        return [graph.after(self._columns, told, self._n_cells, now=now) for graph in graphs]

    def _mean(self, values: Sequence[float]) -> float:
        return float(np.dot(self.civ.shares, values))

    @cached_property
    def before(self) -> float:
        """The criterion as things are now, without any cells to come."""
        nodes = self._after(np.zeros(len(self._columns)), now=True)
        return self._mean([sum(node.value for node in each) for each in nodes])

    @property
    def removed(self) -> float:
        """The share of the criterion that the cells are expected to remove."""
        return 1 - self.value / self.before if self.before > 0 else 0.0

    @one_thread()
    def changes(self, candidates: ArrayLike, cells: float) -> Vector:
        """Return the changes of the criterion by ``cells`` more of each of some candidates."""
        asked = np.asarray(candidates, np.int64)
        place = np.full(self.civ.size, -1)
        place[self._columns] = np.arange(len(self._columns))
        inside = np.flatnonzero(place[asked] >= 0)
        within, out = (inside, place[asked[inside]]), np.zeros(len(asked))
        for share, graph, nodes in zip(self.civ.shares, self.civ.graphs, self._nodes, strict=True):
            for i, node in enumerate(nodes):
                out += share * graph.change(i, node, asked, within, cells)
        return out

    def slopes(self, candidates: ArrayLike) -> Vector:
        """Return the slopes of the criterion in the cells of some candidates."""
        return self.changes(candidates, _ONE) / _ONE


class _Start(NamedTuple):
    """A node before the plate: the c candidates that are taken one by one, and sums of others."""

    own: Vector  # y, (d, c)
    taught: Vector  # v, (d, c)
    ideal: Vector  # q, (d,)
    others: Vector  # weight, and weighted t, t^2, squared term and t times it, (5,)


class _Node(NamedTuple):
    """A node after the plate."""

    value: float
    e: float
    kappa: float
    cov: Vector  # M, (d, d)
    own: Vector  # y, (d, c)
    taught: Vector  # v of a further cell, (d, c)
    spare: Vector  # t, (c,)
    pull: Vector  # of the c candidates: weight times slope of the gap's variance in r, (c,)
    weight: Vector  # (c,)
    ideal: Vector  # q, (d,)
    rest_pull: float  # of all others together
    rest_weight: float


class _Graph:
    """The criterion on one graph; arrays of candidates are (p, m)."""

    def __init__(
        self,
        blr: DagBlr,
        known: ShiftPosterior,
        point: Vector,
        counts: Vector,
        weights: Vector,
        inv_n: float,
    ) -> None:
        """Take ``point`` and ``counts`` (p,) of the gap, and ``weights`` (m,) of candidates."""
        mean, _, effect = known.about_effect(blr)
        self.blr, self.point, self.counts = blr, point, counts
        self.weights, self.inv_n, self.effect = weights, inv_n, effect
        self.mean, self.share, self.spare = _rows(mean), _rows(known.share), _rows(known.spare)
        self.state = _rows(known.states(blr) - effect)
        self.square = _rows(counts * (known.expected(blr) - blr.ideal_shift(point)) ** 2)
        self.alone = np.any((known.share > 0) | (effect != 0), axis=1)
        self._totals = _sums(weights, self.spare, self.square)
        self._noise: tuple[float, Vector, Vector, Vector] | None = None
        self._start: tuple[Index, list[_Start]] | None = None

    def after(self, columns: Index, told: Vector, n_cells: float, *, now: bool) -> list[_Node]:
        """Return every node after ``told`` (c,) cells of the candidates ``columns`` (c,).

        ``n_cells`` are those whose noise and scatter count; ``now`` leaves out what scatter tells.
        """
        e, kappa, settled = self._settle(n_cells)
        cov = self.blr.blocks["cov"] if now else settled
        weight, out = self.weights[columns], []
        for i, start in enumerate(self._starts(columns)):
            first, last = self.blr.mptr[i : i + 2]
            m = cov[first:last].reshape(len(start.ideal), len(start.ideal))
            t = self.spare[i, columns]
            left = 1 / (1 + told * t)  # of a shift, not determined by its own cells
            used = told > 0
            if used.any():
                taught = start.taught[:, used]
                gram = (taught * (told * left)[used]) @ taught.T
                try:
                    solved = np.linalg.solve(np.eye(len(m)) + m @ gram, m)
                except np.linalg.LinAlgError:
                    raise _too_far_apart() from None
                m = 0.5 * (solved + solved.T)
            own = start.own - (1 - left) * start.taught
            r = np.einsum("ac,ac->c", own, m @ own) + t * left
            noise, term = 2 * kappa[i] * self.inv_n, 4 * e[i]
            slope = noise + term * self.square[i, columns]  # of the gap's variance in r at r = 0
            value = weight @ (r * (kappa[i] * r + slope))
            # Of all others r = q'Mq + t, summed over their t and squared terms.
            q = start.ideal @ m @ start.ideal
            w, wt, wt2, square, square_t = start.others
            slopes, slopes_t = noise * w + term * square, noise * wt + term * square_t
            value += kappa[i] * (wt2 + q * (2 * wt + q * w)) + slopes_t + q * slopes
            out.append(_Node(
                float(value), e[i], kappa[i], m, own, left * start.taught, t * left,
                weight * (2 * kappa[i] * r + slope), weight, start.ideal,
                2 * kappa[i] * (q * w + wt) + slopes, w,
            ))  # fmt: skip
        return out

    def change(
        self, i: int, node: _Node, asked: Index, within: tuple[Index, Index], cells: float
    ) -> Vector:
        """Return what ``cells`` more of the candidates ``asked`` (a,) change of node i, (a,).

        By a rank-one step r falls by ``cross^2/d2``, so the criterion, quadratic in r, by
        ``fall/d2 - kappa fourth/d2^2``. ``within`` are the places in ``asked`` of those that are
        taken one by one, and their columns.
        """
        inside, columns = within
        taught, t = self._design(i, self.state, asked), self.spare[i, asked]
        taught[:, inside], t[inside] = node.taught[:, columns], node.spare[columns]
        tells = node.cov @ taught
        d2 = 1 / cells + np.einsum("ac,ac->c", taught, tells) + t
        cross, rest = node.own.T @ tells, node.ideal @ tells
        cross[columns, inside] += t[inside]
        square = cross**2
        fall = node.pull @ square + node.rest_pull * rest**2
        fourth = node.weight @ square**2 + node.rest_weight * rest**4
        # A candidate among the others learns of its own shift besides.
        own, weight = (rest + t) ** 2, self.weights[asked]
        weight[inside] = 0.0
        level = float(node.ideal @ node.cov @ node.ideal) + t + self.inv_n
        level = 2 * node.kappa * level + 4 * node.e * self.square[i, asked]
        fall += weight * level * (own - rest**2)
        fourth += weight * (own**2 - rest**4)
        changed: Vector = node.kappa * fourth / d2**2 - fall / d2
        return changed

    def _settle(self, n_cells: float) -> tuple[Vector, Vector, Vector]:
        """Return noise (p,) and covariances, flat, the scatter of so many cells counted."""
        if self._noise is None or n_cells != self._noise[0]:
            e, kappa = self.blr.spread(n_cells, expected=True)
            settled = settle_by_noise(self.blr, n_cells)
            self._noise = n_cells, self.counts * e, self.counts**2 * kappa, settled
        return self._noise[1:]

    def _starts(self, columns: Index) -> list[_Start]:
        """Return every node before the plate, the last ones asked for kept."""
        if self._start is None or not np.array_equal(self._start[0], columns):
            mean, state, share, spare, square = (
                each[:, columns]
                for each in (self.mean, self.state, self.share, self.spare, self.square)
            )
            target, every = (self.point - self.effect[columns]).T, np.arange(len(columns))
            # Of no others there is nothing, and no rounding of it.
            some = float(len(columns) < len(self.weights))
            sums = self._totals - _sums(self.weights[columns], spare, square)
            sums, starts = some * np.maximum(sums, 0.0), []
            for i in range(self.blr.n_nodes):
                seen = share[i] * self._design(i, mean, every)
                starts.append(_Start(
                    self._design(i, target, every) - seen, self._design(i, state, every) - seen,
                    self._design(i, self.point[:, None], np.zeros(1, int))[:, 0], sums[:, i],
                ))  # fmt: skip
            self._start = columns, starts
        return self._start[1]

    def _design(self, i: int, values: Vector, columns: Index) -> Vector:
        """Return ``(1, f, values of the parents)``, (d, c), of values (p, m).

        Fixed columns f come after the nodes, or are 0 where values end with these.
        """
        parents, k, f = self.blr.dag.parents(i), int(self.blr.intercept), self.blr.n_fixed
        rows = np.zeros((k + f + len(parents), len(columns)))
        rows[:k], rows[k + f :] = 1.0, values[parents[:, None], columns]
        if len(values) > self.blr.n_nodes:
            rows[k : k + f] = values[self.blr.n_nodes :, columns]
        return rows


def _sums(weights: Vector, spare: Vector, square: Vector) -> Vector:
    """Return weight, and weighted t, t^2, squared term and t times it of every node, (5, p)."""
    weighted = spare * weights
    return np.array([
        np.full(len(spare), weights.sum()), weighted.sum(axis=1),
        np.einsum("ij,ij->i", weighted, spare), square @ weights,
        np.einsum("ij,ij->i", weighted, square),
    ])  # fmt: skip


def _rows(values: Vector) -> Vector:
    return np.ascontiguousarray(values.T, dtype=np.float64)


def _too_far_apart() -> ValueError:
    return ValueError(
        "States of candidates and target lie too far apart for their distances to be squared: give "
        "cells, target and shifts in smaller units, or smaller weights."
    )
