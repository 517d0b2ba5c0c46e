"""CIV: the causal integrated variance, over domains of exact shifts and over candidates."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert.core._checks import as_rng, as_vector, require_count, require_positive
from nextpert.core.acquisition import _civ_kernel as kernel
from nextpert.core.acquisition._civ_groups import Between, Groups, average_weights
from nextpert.core.acquisition.base import LookaheadAcquisition, project, settle_by_noise
from nextpert.core.acquisition.candidates import Ranked
from nextpert.core.acquisition.domain.pool import Pool
from nextpert.core.acquisition.domain.sphere import Sphere
from nextpert.core.acquisition.registry import acquisition
from nextpert.core.posterior.pair_shifts import pair_shifts, weights_of
from nextpert.core.predict.goal import Quadratic, as_goal
from nextpert.core.predict.ranked_distance import expected_states

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.acquisition.candidates import Candidates
    from nextpert.core.acquisition.domain.base import Domain
    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.goal import Goal

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]


class Polynomial(NamedTuple):
    """Terms of the variance of the optimality gap as ``quad v^2 + lin v + fixed``.

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


def gap_variance(
    posterior: DagBlr, shift: ArrayLike, target_mean: ArrayLike, *, n_cells: float = 1
) -> float:
    """Return the variance of the optimality gap of a shift.

    The gap is ``g(a) = |a + mean of n noise vectors - (I - B) mu*|^2``; its variance is
    ``sum_i kappa_i s_i^2 + 4 s_i e_i (a_i - b_i)^2`` with ``s_i = 1/n + w_i``
    (Zhang et al. 2023, eq. 12, for known noise variances).

    Parameters
    ----------
    posterior
        The posterior over the weights.
    shift
        The shift, shape ``(n_nodes,)``, units of the data.
    target_mean
        The target state, shape ``(n_nodes,)``, units of the data.
    n_cells
        Number of cells whose mean is compared with the target.

    Returns
    -------
    float
        The variance, in the fourth power of the units of the data.

    Raises
    ------
    ValueError
        While the noise variances' shape is not above 2 (infinite variance), or for wrong shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, gap_variance
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> gap_variance(blr, [1.0, 0.0], [1.0, 0.0])
    10.0
    """
    target = as_vector(target_mean, posterior.n_nodes, "target_mean")
    offset = as_vector(shift, posterior.n_nodes, "shift") - posterior.ideal_shift(target)
    noise = 1 / require_positive(n_cells, "n_cells")
    _, w = project(posterior, target)
    return float(Polynomial.of_gap(*posterior.spread(), noise, offset**2).at(w))


@acquisition("civ")
class Civ(LookaheadAcquisition):
    """Causal integrated variance: how uncertain the optimality gap stays, averaged over shifts.

    The variance of ``g(a) = |a + mean noise - (I - B) mu*|^2`` under the posterior after
    ``n_cells`` hypothetical cells, averaged over ``domain``:
    ``sum_i kappa_i s_i^2 + 4 s_i e_i E(a_i - b_i)^2`` with ``s_i = 1/n + w_i``
    (Zhang et al. 2023, eqs. 12 and 13, there for known noise variances and the unit sphere).
    Over candidates whose shifts are uncertain it is :class:`UncertainCiv`.

    Parameters
    ----------
    posterior
        The posterior over the weights.
    target_mean
        The target state, shape ``(n_nodes,)``, units of the data.
    domain
        Where interventions may lie; its mean and variance define the average. The unit sphere by
        default, as in the paper.
    n_cells
        Number of hypothetical cells (the next batch).
    noise_aware
        Whether the hypothetical cells' scatter teaches too (see :class:`LookaheadAcquisition`).

    Raises
    ------
    ValueError
        For a target of the wrong length, or while the noise variances' shape is not above 2.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Civ, Dag, DagBlr, Sphere
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> civ = Civ(blr, np.array([1.0, 0.0]))
    >>> Sphere(1.0).minimise(civ, rng=0).shift.round(3).tolist()
    [1.0, 0.0]
    """

    in_words = "what their cells would teach (causal integrated variance)"
    output_weighted = False

    def __init__(
        self,
        posterior: DagBlr,
        target_mean: ArrayLike,
        *,
        domain: Domain | None = None,
        n_cells: float = 1,
        noise_aware: bool = False,
    ) -> None:
        self.domain = Sphere(1.0) if domain is None else domain
        super().__init__(posterior, target_mean, n_cells=n_cells, noise_aware=noise_aware)

    def mean_square(self) -> Vector:
        """Return ``E(a_i - b_i)^2`` over the domain, shape ``(n_nodes,)``."""
        mean, variance = self.domain.moments(self.n_nodes)
        return variance + (mean - self.ideal_shift) ** 2

    def coefficients(self) -> tuple[Vector, Vector]:
        """Return ``kappa`` and ``4 e E(a - b)^2``."""
        e, kappa = self.spread_ahead()
        terms = Polynomial.of_gap(e, kappa, 0.0, self.mean_square())
        return terms.quad, terms.lin

    @classmethod
    def of_candidates(cls, asked: Candidates) -> Ranked:
        """Return it after cells of every candidate, shifts and graph uncertain."""
        seed = int(asked.rng.integers(2**63))  # one choice of the average for both
        found = cls._over(asked, noise_aware=asked.noise_aware, rng=seed)
        # What is reported as removed is what is expected, by the cells' scatter too.
        aware = found if asked.noise_aware else cls._over(asked, noise_aware=True, rng=seed)
        return Ranked(found.values(), aware.removed())

    @classmethod
    def plate(cls, asked: Candidates, ready: Index, size: int) -> Index:
        """Return the best of the candidates ``ready``, each given the cells of those before."""
        civ = cls._over(asked, noise_aware=asked.noise_aware, rng=asked.rng)
        chosen, _ = civ.plate(size + asked.size - len(ready))
        return chosen[np.isin(chosen, ready)][:size]

    @classmethod
    def _over(cls, asked: Candidates, **options: Any) -> UncertainCiv:
        return UncertainCiv(
            asked.posteriors, asked.shifts, asked.goal, n_cells=asked.n_cells,
            output_weighted=cls.output_weighted, **options,
        )  # fmt: skip


@acquisition("civ_ow")
class CivOw(Civ):
    """Output-weighted CIV: shifts whose outcome is rare weigh more.

    As :class:`Civ`, averaged under the paper's output weights (Zhang et al. 2023, eq. 8). On a
    sphere of radius R, ``t = a'b/|b|`` is then uniform on ``[-R, R]`` and, with ``bhat = b/|b|``,
    ``E(a_i - b_i)^2 = b_i^2 + R^2 (tau bhat_i^2 + (1 - tau)(1 - bhat_i^2)/(p - 1))``, tau = 1/3.
    On a finite pool the weights make the predicted gap uniform over its range.

    Parameters
    ----------
    posterior, target_mean, n_cells, noise_aware
        As for :class:`Civ`.
    domain
        A sphere (unit by default) or a pool.
    kappa
        Concentration of a bimodal von Mises-Fisher density about +-b, used instead of eq. 8. The
        paper uses it at p = 3, where eq. 8 gives CIV itself; spheres only.

    Raises
    ------
    ValueError
        For a domain without output weights (boxes, sparse shifts), or as :class:`Civ`.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import CivOw, Dag, DagBlr
    >>> blr = DagBlr(Dag.from_edges(4, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> CivOw(blr, np.array([1.0, 0, 0, 0])).mean_square().round(3).tolist()
    [1.333, 0.222, 0.222, 0.222]
    """

    in_words = "what their cells would teach (output-weighted causal integrated variance)"
    output_weighted = True

    def __init__(
        self,
        posterior: DagBlr,
        target_mean: ArrayLike,
        *,
        domain: Domain | None = None,
        n_cells: float = 1,
        noise_aware: bool = False,
        kappa: float | None = None,
    ) -> None:
        self.kappa = None if kappa is None else require_positive(kappa, "kappa")
        super().__init__(
            posterior, target_mean, domain=domain, n_cells=n_cells, noise_aware=noise_aware
        )

    def mean_square(self) -> Vector:
        """Return ``E(a_i - b_i)^2`` under the output weights, shape ``(n_nodes,)``."""
        return self.domain.output_weighted_square(self.ideal_shift, self.kappa)


class UncertainCiv:
    """Causal integrated variance over candidates whose shifts are uncertain, cells seen or not.

    Candidate ``j`` shifts node ``i`` by ``a_ij + u_ij``; its optimality gap is
    ``g_j = sum_i (a_i + u_i + mean noise - (mu*_i - q'beta_i))^2`` with ``q = (1, mu*_P)``. Cells
    seen tie ``u`` to the weights: with ``z = (1, mean of the cells)``, ``w`` the share believed and
    ``t`` the spare variance, its terms have the variance ``e_i s_ij``,
    ``s = 1/n + (q - w z)' M (q - w z) + t``, so that
    ``Var g_j = sum_i kappa_i s^2 + 4 s e_i E[term]^2``. The criterion is the mean of that over the
    candidates after ``n_cells`` cells of one of them, which teach of the weights and of its own
    shift. Where shifts are exact it is :class:`Civ` on a :class:`Pool`. Over several graphs what
    lies between them, the mean over candidates of ``Var_k E_k[g_j]``, is added, within each group
    of them; cells to come leave graphs as many and as different as they are.

    Parameters
    ----------
    posterior
        The posterior over the weights; or one on each of several graphs, which count by the
        weight of their shifts.
    shifts
        The candidates; for several graphs the same for all, or one for each.
    target
        The target state, shape ``(n_nodes,)``, units of the data; or a goal of any kind, for which
        a state stands in and weights of the terms (:func:`goal_gap`).
    n_cells
        Number of hypothetical cells (the next batch).
    noise_aware
        Whether the hypothetical cells' scatter teaches too (see :class:`LookaheadAcquisition`).
    output_weighted
        Whether candidates are weighted such that their expected gaps are spread evenly (CIV-OW).
    weights
        What every candidate counts for in the average, shape ``(n_perturbations,)``, none
        negative; they are scaled to a sum of 1. Alike by default.
    n_average
        Of more candidates with cells, or with effects told as such, than this (at least 2), the
        average takes as many, drawn at random. Every candidate is still valued, with what its
        cells teach of its own shift.
    rng
        Seed or generator of that choice.

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
        count = average_weights(weights, known.n_perturbations)
        if output_weighted:
            gap = self._mean([self._terms(*pair) for pair in self._pairs])
            gap *= np.sqrt(self._node)
            count = count * Pool(gap).output_weights(np.zeros(blr.n_nodes))
            count = count / count.sum()
        alone = np.any([_is_alone(each) for _, each in self._pairs], axis=0)
        most = require_count(n_average, "n_average", least=2)
        self._groups = Groups.of(count, alone, most, as_rng(rng))

    def values(self) -> Vector:
        """Return the criterion after cells of every candidate, ``(n_perturbations,)``."""
        return self.floor + self._found.excess + self._found.between

    @property
    def floor(self) -> float:
        """The part of the criterion that noise alone makes: weights, shifts and graph known."""
        return self._found.floor

    def removed(self) -> Vector:
        """Return the share of what cells may teach that those of every candidate would remove.

        Between 0 (nothing learned) and 1 (weights and shifts known), ``(n_perturbations,)``; what
        lies between graphs is not counted. Expected with ``noise_aware``, else as the paper looks
        ahead.
        """
        return self._found.removed

    def removed_after(self, chosen: Sequence[int]) -> Vector:
        """Return the share removed by cells of those chosen and of every candidate besides.

        Parameters
        ----------
        chosen
            Indices of candidates, ``n_cells`` cells each; one twice has twice as many.
        """
        return self._after(chosen).removed

    def removed_by(self, cells: ArrayLike) -> float:
        """Return the share removed by cells of several candidates, those of a whole plate.

        Parameters
        ----------
        cells
            Number of cells of every candidate, 0 or more, shape ``(n_perturbations,)``. The gap
            stays that of a mean of ``n_cells`` cells.
        """
        given = as_vector(cells, self._groups.size, "cells")
        if given.min() < 0:
            message = "cells of candidates must be 0 or more."
            raise ValueError(message)
        return float(self._look(given, 0.0).removed[0])

    def plate(self, size: int) -> tuple[Index, Vector]:
        """Return candidates for one plate, each the best one given the cells of those before.

        Parameters
        ----------
        size
            Number of different candidates, ``n_cells`` cells each; where there are fewer, all.

        Returns
        -------
        chosen, removed
            Indices in the order chosen, and the share of what cells may teach that would be
            removed up to each (as :meth:`removed`).
        """
        chosen: list[int] = []
        removed: list[float] = []
        for _ in range(min(require_count(size, "size"), self._groups.size)):
            found = self._after(chosen)
            values = found.excess + found.between
            values[chosen] = np.inf
            chosen.append(int(values.argmin()))
            removed.append(float(found.removed[chosen[-1]]))
        return np.array(chosen, dtype=np.int64), np.array(removed)

    def gap_moments(self) -> tuple[Vector, Vector]:
        """Return mean and variance of every candidate's gap as known now, ``(n_perturbations,)``.

        The least mean is the greedy choice. Squared and fourth power of the units of the data.
        """
        means, variances = [], []
        for blr, known in self._pairs:
            now = self._on_graph(blr, known, 0)
            r = kernel.weights_part(now.gaps) + now.gaps.spare
            means.append(now.level + now.e @ r)
            variances.append(now.variance.at(r))
        mean = self._mean(means)
        return mean, self._mean(variances) + self._mean((np.array(means) - mean) ** 2)

    def _mean(self, values: Sequence[float] | Sequence[Vector] | Vector) -> Vector:
        """Return the mean over graphs, the first axis."""
        return np.asarray(np.average(np.asarray(values), axis=0, weights=self._shares))

    def _terms(self, blr: DagBlr, known: ShiftPosterior) -> Vector:
        """Return what every candidate is expected to miss the ideal shift by, row a candidate."""
        return known.expected(blr) - blr.ideal_shift(self.target_mean)

    def _on_graph(self, blr: DagBlr, known: ShiftPosterior, n_ahead: float) -> _OnGraph:
        """Return the gaps on a graph as things are now, noise reckoned as after ``n_ahead``."""

        def columns(value: Vector) -> Vector:  # a copy: hypothetical cells change some of them
            return np.array(value.T, dtype=np.float64, order="C")

        mean, _, effect = known.about_effect(blr)
        target = self.target_mean - (effect if effect.any() else np.zeros((1, blr.n_nodes)))
        share, spare = columns(known.share), columns(known.spare)
        gaps = kernel.Gaps(
            blr.dag.indptr, blr.dag.indices, blr.vptr, blr.mptr, blr.blocks["cov"],
            columns(target), columns(mean), columns(known.states(blr) - effect),
            share, np.zeros_like(share), spare,
        )  # fmt: skip
        e, kappa = blr.spread(n_ahead, expected=self.noise_aware)
        e, kappa = self._node * e, self._node**2 * kappa
        square = columns(self._node * self._terms(blr, known) ** 2)
        inv_n = 1 / self.n_cells
        variance = Polynomial.of_gap(e[:, None], kappa[:, None], inv_n, square)
        return _OnGraph(gaps, e, variance, inv_n * e.sum() + square.sum(axis=0))

    @cached_property
    def _found(self) -> _Found:
        return self._look(np.zeros(self._groups.size), self.n_cells)

    def _after(self, chosen: Sequence[int]) -> _Found:
        if not len(chosen):
            return self._found
        counts = np.bincount(chosen, minlength=self._groups.size).astype(np.float64)
        return self._look(self.n_cells * counts, self.n_cells)

    def _look(self, cells: Vector, more: float) -> _Found:
        """Look at the criterion after ``cells`` (m,) and, of each candidate in turn, ``more``."""
        groups, told = self._groups, np.flatnonzero(cells).tolist()
        for j in told:
            groups = groups.with_alone(j)
        between = {known.group: Between(groups) for _, known in self._pairs}
        floors, befores, excesses = [], [], []
        for (blr, known), share in zip(self._pairs, self._shares, strict=True):
            n_ahead = float(cells.sum()) + more
            graph = self._on_graph(blr, known, n_ahead)
            gaps = graph.gaps
            floors.append(groups.weights @ graph.variance.fixed.sum(axis=0))
            befores.append(groups.average(graph.above_floor()))
            cov = settle_by_noise(blr, n_ahead) if self.noise_aware else gaps.cov.copy()
            graph = graph._replace(gaps=gaps._replace(cov=cov))
            for j in told:
                kernel.observe(graph.gaps, j, 1 / cells[j])
            if more:
                among = between[known.group] if len(self._pairs) > 1 else None
                excesses.append(graph.look_ahead(groups, 1 / more, among, float(share)))
            else:
                excesses.append(np.array([groups.average(graph.above_floor())]))
        floor, before = float(self._mean(floors)), float(self._mean(befores))
        apart = sum(
            (each.share * each.values() for each in between.values()), np.zeros(groups.size)
        )
        return _Found(floor, before, self._mean(excesses), apart)


class _Found(NamedTuple):
    floor: float
    before: float  # excess now, before any further cell
    excess: Vector  # after cells of every candidate, within graphs, less the floor
    between: Vector

    @property
    def removed(self) -> Vector:
        """The share of the excess now that the cells remove."""
        if self.before <= 0:
            return np.zeros_like(self.excess)
        return 1 - self.excess / self.before


class _OnGraph(NamedTuple):
    """The gaps of all candidates on one graph."""

    gaps: kernel.Gaps
    e: Vector  # (p,)
    variance: Polynomial  # of the gaps in r = y'My + t, (p, m)
    level: Vector  # expected gaps without r, (m,)

    def above_floor(self) -> Vector:
        """Return the gaps' variances, less what noise alone makes of them, ``(m,)``."""
        r = kernel.weights_part(self.gaps) + self.gaps.spare
        return self.variance._replace(fixed=np.zeros(1)).at(r)

    def look_ahead(
        self, groups: Groups, inv_more: float, between: Between | None, share: float
    ) -> Vector:
        """Return the average above its floor after 1 / ``inv_more`` cells of each candidate, (m,).

        What the graph, of weight ``share``, expects of the gaps then goes to ``between``.
        """
        (quad, lin, _), t = self.variance, self.gaps.spare
        m = groups.size
        own, others = np.empty(m), np.empty((2, m))
        left = np.empty((0 if between is None else len(groups.leaders) + 2, m))
        # Of a group, with r = v + t: sum w (quad r^2 + lin r) = a v^2 + b v + c.
        a = quad * groups.sums(np.ones((1, m)))
        b, c = groups.sums(lin + 2 * quad * t), groups.sums((quad * t + lin) * t)
        kernel.look_ahead(
            self.gaps, inv_more, groups.leaders, a, b, quad[:, 0].copy(), lin, self.e,
            own, others, left,
        )  # fmt: skip
        others += np.array([[c[:, 0].sum()], [c[:, 1:].sum()]])
        if between is not None:
            between.add(left, self.level, self.e @ t, share)
        return groups.total(others, own)


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
