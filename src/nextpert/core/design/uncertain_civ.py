"""CIV over candidates whose shifts are uncertain, those with cells and those without."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert.core._checks import as_rng, as_vector, require_count, require_positive
from nextpert.core._shown import Shown
from nextpert.core.design import _civ_kernel as kernel
from nextpert.core.design._civ_kernel import Between, Groups
from nextpert.core.design.base import settle_by_noise
from nextpert.core.design.distances import expected_states
from nextpert.core.design.domains import Pool
from nextpert.core.design.goal import Quadratic, as_goal
from nextpert.core.model.shift_posterior import pair_shifts, weights_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.design.goal import Goal
    from nextpert.core.model.dag_blr import DagBlr
    from nextpert.core.model.shift_posterior import ShiftPosterior

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]


_ONE = 1e-12  # cells whose change, over their number, is the slope: no digits cancel in it


class Polynomial(NamedTuple):
    """Terms of the variance of the gap (equation 14) as ``quad v^2 + lin v + fixed``.

    The gap ``g = sum_i (a_i + u_i + mean noise - (mu*_i - q'beta_i))^2``, ``q = (1, mu*_P)``, has
    the variance ``sum_i kappa_i s_i^2 + 4 e_i m_i s_i`` (Zhang et al. 2023, eq. 12, there for
    known noise variances): ``e_i s_i`` is the variance of a term and ``m_i`` its expected square.
    ``s_i = noise_i + v_i``, where ``v_i`` is what the weights add, ``q'Mq`` where shifts are
    exact, and ``noise_i`` is 1/n, and what is not known of the shift.
    """

    quad: Vector
    lin: Vector
    fixed: Vector

    @classmethod
    def of_gap(cls, e: Vector, kappa: Vector, noise: Vector | float, square: Vector) -> Polynomial:
        """Return the terms, shapes ``(n_nodes,)`` or ``(n_nodes, n_shifts)``."""
        slope = 4 * e * square
        return cls(kappa, slope + 2 * kappa * noise, (slope + kappa * noise) * noise)

    def at(self, v: Vector) -> Vector:
        """Return their sum over nodes, the first axis."""
        return np.asarray(((self.quad * v + self.lin) * v + self.fixed).sum(axis=0))


class UncertainCiv(Shown):
    """Causal integrated variance over candidates whose shifts are uncertain, cells seen or not.

    Candidate ``j`` shifts node ``i`` by ``a_ij + u_ij``; its optimality gap is
    ``g_j = sum_i (a_i + u_i + mean noise - (mu*_i - q'beta_i))^2`` with ``q = (1, mu*_P)``. Cells
    correlate ``u`` with the weights: with ``z = (1, mean of the cells)``, shrinkage weight ``w``
    and residual variance ``t``, its terms have the variance ``e_i s_ij``,
    ``s = 1/n + (q - w z)' M (q - w z) + t``, so that
    ``Var g_j = sum_i kappa_i s^2 + 4 s e_i E[term]^2``. CIV is the mean of that over the
    candidates after ``n_cells`` cells of one of them, which are informative about the weights and
    the shift of that candidate. For exact shifts it is :class:`Civ` on a :class:`Pool`. With
    several graphs, the variance between them, the mean over candidates of ``Var_k E_k[g_j]``, is
    added within each group of them; future cells do not change it.

    Parameters
    ----------
    posterior
        The posterior over the weights; or one on each of several graphs, which count by the
        weight of their shifts.
    shifts
        The candidates; for several graphs the same for all, or one for each.
    target
        The target state, shape ``(n_nodes,)``, units of the data; or a goal of any kind, which is
        approximated by a state and weights of the terms (``goal_gap``).
    n_cells
        Number of hypothetical cells (the next batch).
    noise_aware
        Whether to include the information in the hypothetical cells' scatter (see
        :class:`LookaheadAcquisition`).
    output_weighted
        Whether candidates are weighted so that their expected gaps are uniform (CIV-OW).
    weights
        Weight of every candidate in the average, shape ``(n_perturbations,)``, not negative; they
        are scaled to a sum of 1. Equal by default.
    n_average
        Maximum number of candidates with cells, or with expected effects, in the average (at
        least 2); of more, a random sample is used. Every candidate still has a value, which
        includes the information of its cells about its own shift.
    rng
        Seed or generator of that sample.

    Raises
    ------
    ValueError
        If posteriors, shifts and target do not fit together, or the noise variances' shape is not
        above 2.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Civ, Dag, DagBlr, Pool, ShiftPosterior, UncertainCiv
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> known = ShiftPosterior.exact(np.eye(2))
    >>> UncertainCiv(blr, known, [1.0, 0.0]).values().tolist()
    [11.5, 16.0]
    >>> Civ(blr, [1.0, 0.0], domain=Pool(np.eye(2))).values(np.eye(2)).tolist()
    [11.5, 16.0]
    """

    def __init__(
        self,
        posterior: DagBlr | Sequence[DagBlr],
        shifts: ShiftPosterior | Sequence[ShiftPosterior],
        target: ArrayLike | Goal,
        *,
        n_cells: float = 1,
        noise_aware: bool = False,
        output_weighted: bool = False,
        weights: ArrayLike | None = None,
        n_average: int = 1000,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self._pairs = pair_shifts(posterior, shifts)
        self._shares = weights_of(self._pairs)
        blr, known = self._pairs[0]
        if not known.n_perturbations:
            message = "CIV averages over candidates: give at least one."
            raise ValueError(message)
        self.target_mean, self._node = goal_gap(self._pairs, as_goal(target, blr.n_nodes))
        self.n_cells = require_positive(n_cells, "n_cells")
        self.noise_aware = bool(noise_aware)
        size = known.n_perturbations
        count = np.ones(size) if weights is None else as_vector(weights, size, "weights")
        if count.min() < 0 or count.sum() == 0:
            message = "weights of candidates must be 0 or more, and one of them above."
            raise ValueError(message)
        count = count / count.sum()
        if output_weighted:
            gap = self._mean([self._terms(*pair) for pair in self._pairs])
            gap *= np.sqrt(self._node)
            count = count * Pool(gap).output_weights(np.zeros(blr.n_nodes))
            count = count / count.sum()
        alone = np.any([_is_alone(each) for _, each in self._pairs], axis=0)
        most = require_count(n_average, "n_average", least=2)
        self._groups = Groups.of(count, alone, most, as_rng(rng))

    def _facts(self) -> dict[str, Any]:
        return {"n_candidates": self.size, "n_cells": self.n_cells}

    @property
    def size(self) -> int:
        """Number of candidates."""
        return self._groups.size

    def values(self) -> Vector:
        """Return the acquisition after cells of every candidate, ``(n_perturbations,)``."""
        return self.floor + self._first.left_by_each

    @property
    def floor(self) -> float:
        """The part of the acquisition due to noise alone, with weights, shifts and graph known."""
        each = [self._groups.weights @ now.variance.fixed.sum(axis=0) for now in self._first.now]
        return float(self._mean(each))

    def variance_reduction(self) -> Vector:
        """Return the variance reduction by the cells of every candidate.

        Between 0 (no information) and 1 (weights and shifts known), ``(n_perturbations,)``,
        without the variance between graphs. Expected with ``noise_aware``, else by the paper's
        look-ahead.
        """
        return self._first.removed_by_each

    def variance_reduction_after(self, chosen: Sequence[int]) -> Vector:
        """Return the variance reduction by cells of those chosen and of every further candidate.

        Parameters
        ----------
        chosen
            Indices of candidates, ``n_cells`` cells each; one twice has twice as many.
        """
        return self._look(chosen).removed_by_each

    def after(self, cells: ArrayLike, total: float | None = None) -> CivAfter:
        """Return the acquisition within graphs after any cells of any candidates, as of a plate.

        Parameters
        ----------
        cells
            Number of cells of every candidate, 0 or more, shape ``(n_perturbations,)``. The gap
            stays that of a mean of ``n_cells`` cells.
        total
            Cells that noise and scatter are reckoned after; as many as there are by default.

        Examples
        --------
        >>> import numpy as np
        >>> from nextpert.core import Dag, DagBlr, ShiftPosterior, UncertainCiv
        >>> blr = DagBlr(
        ...     Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0
        ... )
        >>> known = ShiftPosterior.exact([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
        >>> civ = UncertainCiv(blr, known, [1.0, 0.0], n_cells=20, noise_aware=True)
        >>> round(civ.after([15, 0, 5]).variance_reduction, 3)
        0.991
        """
        given = as_vector(cells, self._groups.size, "cells")
        if given.min() < 0:
            message = "cells of candidates must be 0 or more."
            raise ValueError(message)
        return CivAfter(self, given, float(given.sum() if total is None else total))

    def plate(self, size: int) -> tuple[Index, Vector]:
        """Return candidates for one plate, each the best one given the cells of those before.

        Parameters
        ----------
        size
            Number of different candidates, ``n_cells`` cells each; where there are fewer, all.

        Returns
        -------
        chosen, removed
            Indices in the order chosen, and the variance reduction up to each (as
            :meth:`variance_reduction`).
        """
        chosen: list[int] = []
        removed: list[float] = []
        for _ in range(min(require_count(size, "size"), self._groups.size)):
            found = self._look(chosen)
            values = found.left_by_each.copy()
            values[chosen] = np.inf
            chosen.append(int(values.argmin()))
            removed.append(float(found.removed_by_each[chosen[-1]]))
        return np.array(chosen, dtype=np.int64), np.array(removed)

    def gap_moments(self) -> tuple[Vector, Vector]:
        """Return the current mean and variance of every candidate's gap, ``(n_perturbations,)``.

        The least mean is the greedy choice. Squared and fourth power of the units of the data.
        """
        means, variances = [], []
        for now in self._graphs:
            r = kernel.weights_part(now.gaps) + now.gaps.spare
            means.append(now.level + now.e @ r)
            variances.append(now.variance.at(r))
        mean = self._mean(means)
        return mean, self._mean(variances) + self._mean((np.array(means) - mean) ** 2)

    def _mean(self, values: Sequence[float] | Sequence[Vector] | Vector) -> Vector:
        """Return the mean over graphs, the first axis."""
        return np.asarray(np.average(np.asarray(values), axis=0, weights=self._shares))

    def _terms(self, blr: DagBlr, known: ShiftPosterior) -> Vector:
        """Return what every candidate is expected to miss the ideal shift by, row per candidate."""
        return known.expected(blr) - blr.ideal_shift(self.target_mean)

    @cached_property
    def _graphs(self) -> list[_OnGraph]:
        """The gaps on every graph as things are now."""

        def columns(value: Vector) -> Vector:  # a copy: hypothetical cells change some of them
            return np.array(value.T, dtype=np.float64, order="C")

        found = []
        for blr, known in self._pairs:
            mean, _, effect = known.about_effect(blr)
            target = self.target_mean - (effect if effect.any() else np.zeros((1, blr.n_nodes)))
            share, spare = columns(known.share), columns(known.spare)
            gaps = kernel.Gaps(
                blr.dag.indptr, blr.dag.indices, blr.vptr, blr.mptr, blr.blocks["cov"],
                columns(target), columns(mean), columns(known.states(blr) - effect),
                share, np.zeros_like(share), spare,
            )  # fmt: skip
            square = columns(self._node * self._terms(blr, known) ** 2)
            found.append(_OnGraph(gaps, square, 1 / self.n_cells, *self._spread(blr, 0.0)))
        return found

    def _spread(self, blr: DagBlr, n_ahead: float) -> tuple[Vector, Vector]:
        e, kappa = blr.spread(n_ahead, expected=self.noise_aware)
        return self._node * e, self._node**2 * kappa

    @cached_property
    def _first(self) -> CivAfter:
        return self._look([])

    def _look(self, chosen: Sequence[int]) -> CivAfter:
        """Return the acquisition after ``n_cells`` of those chosen, noise as after one more."""
        counts = np.bincount(np.array(chosen, int), minlength=self._groups.size)
        cells = self.n_cells * counts.astype(np.float64)
        return CivAfter(self, cells, float(cells.sum()) + self.n_cells)


class CivAfter:
    """CIV above its floor after some cells of each candidate, and what further cells change.

    Within graphs it is convex in the cells: each adds precision to a normal model of weights and
    shifts.

    Parameters
    ----------
    civ
        The acquisition.
    cells
        Cells of every candidate, shape ``(n_perturbations,)``.
    n_ahead
        Cells that noise and scatter are reckoned after.
    """

    def __init__(self, civ: UncertainCiv, cells: Vector, n_ahead: float) -> None:
        self._civ, self._groups = civ, civ._groups.with_cells(cells)
        self.now: list[_OnGraph] = []  # on every graph, without the cells
        self._graphs: list[_OnGraph] = []  # and with them
        told = np.flatnonzero(cells).tolist()
        for (blr, _), graph in zip(civ._pairs, civ._graphs, strict=True):
            e, kappa = civ._spread(blr, n_ahead)
            self.now.append(graph._replace(e=e, kappa=kappa))
            cov = settle_by_noise(blr, n_ahead) if civ.noise_aware else graph.gaps.cov.copy()
            gaps = graph.gaps._replace(cov=cov)
            if told:
                gaps = gaps._replace(again=gaps.again.copy(), spare=gaps.spare.copy())
            for j in told:
                kernel.observe(gaps, j, 1 / cells[j])
            self._graphs.append(self.now[-1]._replace(gaps=gaps))

    def _average(self, graphs: Sequence[_OnGraph]) -> float:
        return float(self._civ._mean([self._groups.average(x.above_floor()) for x in graphs]))

    @cached_property
    def value(self) -> float:
        """The acquisition within graphs after the cells."""
        return float(_finite(self._average(self._graphs)))

    @cached_property
    def before(self) -> float:
        """The acquisition within graphs as things are now, without any cells to come."""
        return self._average(self.now)

    @property
    def variance_reduction(self) -> float:
        """The share of the acquisition that the cells are expected to remove."""
        return 1 - self.value / self.before if self.before > 0 else 0.0

    def changes(self, asked: ArrayLike, n_cells: float) -> Vector:
        """Return the changes of the acquisition by ``n_cells`` more of each of some candidates.

        Parameters
        ----------
        asked
            Indices of candidates.
        n_cells
            Cells of each.
        """
        some = np.asarray(asked, np.int64)
        each = [graph.changes(self._groups, some, n_cells) for graph in self._graphs]
        return _finite(self._civ._mean(each))

    def slopes(self, asked: ArrayLike) -> Vector:
        """Return the slopes of the acquisition in the cells of some candidates."""
        return self.changes(asked, _ONE) / _ONE

    @cached_property
    def _by_each(self) -> tuple[Vector, Vector]:
        """What is left within and between graphs by ``n_cells`` of each besides, ``(m,)``."""
        civ, within = self._civ, []
        between = {known.group: Between(self._groups) for _, known in civ._pairs}
        each = zip(civ._pairs, civ._shares, self._graphs, strict=True)
        for (_, known), share, graph in each:
            among = between[known.group] if len(civ._pairs) > 1 else None
            changes = graph.changes(self._groups, None, civ.n_cells, among, float(share))
            within.append(self._groups.average(graph.above_floor()) + changes)
        apart = sum((x.share * x.values() for x in between.values()), np.zeros(self._groups.size))
        return civ._mean(within), apart

    @property
    def left_by_each(self) -> Vector:
        """The acquisition, what lies between graphs too, after ``n_cells`` of each besides."""
        within, between = self._by_each
        return within + between

    @property
    def removed_by_each(self) -> Vector:
        """The share of the acquisition within graphs removed by the cells and those of each."""
        within, before = self._by_each[0], self.before
        return 1 - within / before if before > 0 else np.zeros_like(within)


class _OnGraph(NamedTuple):
    """The gaps of all candidates on one graph."""

    gaps: kernel.Gaps
    square: Vector  # of their expected terms, (p, m)
    inv_n: float
    e: Vector  # (p,)
    kappa: Vector  # (p,)

    @property
    def variance(self) -> Polynomial:
        """Of the gaps, in ``r = y'My + t``."""
        return Polynomial.of_gap(self.e[:, None], self.kappa[:, None], self.inv_n, self.square)

    @property
    def level(self) -> Vector:
        """Expected gaps without ``r``, ``(m,)``."""
        return np.asarray(self.inv_n * self.e.sum() + self.square.sum(axis=0))

    def above_floor(self) -> Vector:
        """Return the gaps' variances, less what noise alone makes of them, ``(m,)``."""
        r = kernel.weights_part(self.gaps) + self.gaps.spare
        return self.variance._replace(fixed=np.zeros(1)).at(r)

    def changes(
        self,
        groups: Groups,
        asked: Index | None,
        n_cells: float,
        between: Between | None = None,
        share: float = 1.0,
    ) -> Vector:
        """Return how the average changes by cells of each candidate ``asked``, (n_asked,).

        Of all where ``asked`` is ``None``; then what the graph, of weight ``share``, expects of the
        gaps goes to ``between``.
        """
        (quad, lin, _), t = self.variance, self.gaps.spare
        gaps = self.gaps if asked is None else kernel.columns(self.gaps, asked)
        m, lead = gaps.spare.shape[1], kernel.columns(self.gaps, groups.leaders)
        own, others = np.empty(m), np.empty((2, m))
        left = np.empty((0 if between is None else len(groups.leaders) + 2, m))
        # Of a group, with r = v + t: sum w (quad r^2 + lin r) = a v^2 + b v + what is fixed.
        a, b = quad * groups.sums(np.ones((1, groups.size))), groups.sums(lin + 2 * quad * t)
        slope = lin if asked is None else np.ascontiguousarray(lin[:, asked])
        kernel.look_ahead(
            gaps, lead, 1 / n_cells, a, b, self.kappa, slope, self.e, own, others, left
        )
        if between is not None:
            between.add(left, self.level, self.e @ t, share)
        return groups.total(others, own, slice(None) if asked is None else asked)


def _finite(value: Vector | float) -> Vector:
    if not np.isfinite(value).all():
        message = (
            "States of candidates and target lie too far apart for their distances to be "
            "squared: give cells, target and shifts in smaller units, or smaller weights."
        )
        raise ValueError(message)
    return np.asarray(value)


def _is_alone(known: ShiftPosterior) -> NDArray[np.bool_]:
    """Return the candidates whose gaps depend on the weights in a way of their own."""
    told = known.share if known.effect is None else known.share + np.abs(known.effect)
    return np.any(told > 0, axis=1)


def goal_gap(pairs: list[tuple[DagBlr, ShiftPosterior]], goal: Goal) -> Quadratic:
    """Return the ideal state and what every node's shift counts for in the gap, for any goal.

    The ideal is the point that the goal's quadratic has near the best expected state, that of a
    candidate or of the control. The gap is measured in shifts, the goal in states, and a shift
    moves what is downstream: so node ``i`` counts for the mean of the weights over what a shift
    of it moves, ``d_i sum_k A_ki^2 w_k / sum_k A_ki^2 d_k`` with ``A = (I - B)^-1`` and the goal's
    scale ``d``. Regulators count for what they regulate; where all nodes count alike it is 1, the
    gap of Zhang et al. 2023, and with a scale that of nodes so scaled.
    """
    if goal.is_plain:
        return Quadratic(goal.states[0], goal.scale)
    at = expected_states(pairs)
    best = int(goal.distance(at, at[-1]).argmin())
    point, weights = goal.quadratic(at[best])
    if np.array_equal(weights, goal.scale):
        return Quadratic(point, weights)
    p = goal.n_nodes
    each = [blr.solve(np.eye(p)) ** 2 for blr, _ in pairs]
    moved = np.average(each, axis=0, weights=weights_of(pairs))
    return Quadratic(point, goal.scale * (weights @ moved) / (goal.scale @ moved))
