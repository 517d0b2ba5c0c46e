"""CIV over candidates whose shifts are not known, those with cells and those without."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert.core._checks import as_rng, require_count, require_positive
from nextpert.core.acquisition import _uncertain_kernel as kernel
from nextpert.core.acquisition._goal_gap import goal_gap
from nextpert.core.acquisition._noise_aware import settle_by_noise
from nextpert.core.acquisition._uncertain_between import Between, Groups, average_weights
from nextpert.core.acquisition.domain.pool import Pool
from nextpert.core.posterior.pair_shifts import pair_shifts, weights_of
from nextpert.core.predict.goal import as_goal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.goal import Goal

    Vector = NDArray[np.float64]
    _Spread = tuple[Vector, Vector]


class UncertainCiv:
    """Causal integrated variance over candidates whose shifts are uncertain, cells seen or not.

    Candidate ``j`` shifts node ``i`` by ``a_ij + u_ij``; its optimality gap is
    ``g_j = sum_i (a_i + u_i + mean noise - (mu*_i - q'beta_i))^2`` with ``q = (1, mu*_P)``. Cells
    seen tie ``u`` to the weights: with ``z = (1, mean of the cells)``, ``w`` the share believed and
    ``t`` the spare variance, its terms have the variance ``e_i s_ij``,
    ``s = 1/n + (q - w z)' M (q - w z) + t``, so that
    ``Var g_j = sum_i kappa_i s^2 + 4 s e_i E[term]^2``. The criterion is the mean of that over the
    candidates after ``n_cells`` cells of one of them, which teach of the weights and of its own
    shift. Where shifts are exact it is :class:`Civ` on a :class:`Pool`, and over several graphs
    :class:`ManyGraphs`: what lies between graphs, the mean over candidates of ``Var_k E_k[g_j]``,
    is added, within each group of them.

    Parameters
    ----------
    posterior
        The posterior over the weights; or one on each of several graphs, which count by the
        weight of their shifts.
    shifts
        The candidates; for several graphs the same for all, or one for each.
    target
        The wanted mean, shape ``(n_nodes,)``, units of the data; or a goal of any kind, for which
        a wanted mean stands in and weights of the terms (see
        ``nextpert.core.acquisition._goal_gap``).
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
    >>> from nextpert.core import Civ, Dag, DagBlr, Pool
    >>> from nextpert.core.acquisition.uncertain_civ import UncertainCiv
    >>> from nextpert.core.posterior.shift_posterior import ShiftPosterior
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
        goal = as_goal(target, blr.n_nodes)
        self.target_mean, self._node = goal_gap(self._pairs, goal)
        self.n_cells = require_positive(n_cells, "n_cells")
        self.noise_aware = bool(noise_aware)
        count = average_weights(weights, known.n_perturbations)
        if output_weighted:
            gap = self._mean([self._expected_terms(*pair) for pair in self._pairs])
            gap *= np.sqrt(self._node)
            count = count * Pool(gap).output_weights(np.zeros(blr.n_nodes))
            count = count / count.sum()
        alone = np.any([_is_alone(each) for _, each in self._pairs], axis=0)
        most = require_count(n_average, "n_average", least=2)
        self._groups = Groups.of(count, alone, most, as_rng(rng))

    def values(self) -> Vector:
        """Return the criterion after cells of every candidate, ``(n_perturbations,)``."""
        return self.floor + self._found.excess + self._found.between

    def removed(self) -> Vector:
        """Return the share of what cells may teach that those of every candidate would remove.

        Between 0 (nothing learned) and 1 (weights and shifts known), ``(n_perturbations,)``; what
        lies between graphs is not counted. Expected with ``noise_aware``, else as the paper looks
        ahead.
        """
        return self.removed_after([])

    def removed_after(self, chosen: Sequence[int]) -> Vector:
        """Return the share removed by cells of those chosen and of every candidate besides.

        Parameters
        ----------
        chosen
            Indices of candidates, ``n_cells`` cells each; one twice has twice as many.
        """
        found = self._look(chosen) if len(chosen) else self._found
        return 1 - found.excess / found.before if found.before > 0 else np.zeros(self._groups.size)

    def plate(self, size: int) -> tuple[NDArray[np.int64], Vector]:
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
            found = self._look(chosen) if chosen else self._found
            values = found.excess + found.between
            values[chosen] = np.inf
            chosen.append(int(values.argmin()))
            left = float(found.excess[chosen[-1]])
            removed.append(1 - left / found.before if found.before > 0 else 0.0)
        return np.array(chosen, dtype=np.int64), np.array(removed)

    @property
    def floor(self) -> float:
        """The part of the criterion that noise alone makes: weights, shifts and graph known."""
        return self._found.floor

    def gap_moments(self) -> tuple[Vector, Vector]:
        """Return mean and variance of every candidate's gap as known now, ``(n_perturbations,)``.

        The least mean is the greedy choice. Squared and fourth power of the units of the data.
        """
        means, variances = [], []
        for blr, known in self._pairs:
            gaps = self._gaps(blr, known, *self._spread(blr), blr.blocks["cov"])
            s = gaps.inv_n + _weights_part(gaps) + gaps.spare
            means.append(gaps.e @ s + gaps.square.sum(axis=0))
            variances.append(gaps.kappa @ s**2 + 4 * gaps.e @ (s * gaps.square))
        mean = self._mean(means)
        return mean, self._mean(variances) + self._mean((np.array(means) - mean) ** 2)

    def _mean(self, values: Sequence[float] | Sequence[Vector] | Vector) -> Vector:
        """Return the mean over graphs, the first axis."""
        return np.asarray(np.average(np.asarray(values), axis=0, weights=self._shares))

    @cached_property
    def _found(self) -> _Found:
        return self._look([])

    def _look(self, chosen: Sequence[int]) -> _Found:
        """Look ahead to cells of every candidate after those of some that are chosen already."""
        groups, n_ahead = self._groups, self.n_cells * (1 + len(chosen))
        for j in chosen:
            groups = groups.with_alone(j)
        between = {known.group: Between(groups) for _, known in self._pairs}
        floors, befores, excesses = [], [], []
        for (blr, known), share in zip(self._pairs, self._shares, strict=True):
            e, kappa = self._spread(blr, n_ahead, expected=self.noise_aware)
            gaps = self._gaps(blr, known, e, kappa, blr.blocks["cov"])
            r = _weights_part(gaps) + gaps.spare
            slope, noise = 4 * e[:, None] * gaps.square, kappa[:, None] * gaps.inv_n
            floors.append(gaps.inv_n * (groups.weights @ (noise + slope).sum(axis=0)))
            each = (r * (kappa[:, None] * r + 2 * noise + slope)).sum(axis=0)
            befores.append(groups.average(each))
            cov = settle_by_noise(blr, n_ahead) if self.noise_aware else gaps.cov.copy()
            gaps = gaps._replace(cov=cov, group=groups.group)
            for j in chosen:
                kernel.observe(gaps, _only(gaps, j), j)
            among = between[known.group]
            excesses.append(self._excess(gaps, groups, among, float(share)))
        floor, before = float(self._mean(floors)), float(self._mean(befores))
        apart = sum(
            (each.share * each.values() for each in between.values()), np.zeros(groups.size)
        )
        return _Found(floor, before, self._mean(excesses), apart)

    def _excess(self, gaps: kernel.Gaps, groups: Groups, between: Between, share: float) -> Vector:
        """Return the criterion within a graph, less its floor, and add the graph to ``between``."""
        several = len(self._pairs) > 1
        own, others = np.empty(groups.size), np.empty((2, groups.size))
        rows = len(groups.leaders) + 2 if several else 0
        left = np.empty((rows, groups.size))
        kernel.look_ahead(gaps, groups.leaders, own, others, left)
        if several:
            level = gaps.inv_n * gaps.e.sum() + gaps.square.sum(axis=0)
            between.add(left, level, gaps.e @ gaps.spare, share)
        return groups.total(others, own)

    def _expected_terms(self, blr: DagBlr, known: ShiftPosterior) -> Vector:
        """Return what every candidate is expected to miss the ideal shift by, row a candidate."""
        return known.expected(blr) - blr.ideal_shift(self.target_mean)

    def _spread(self, blr: DagBlr, n_cells: float = 0, *, expected: bool = False) -> _Spread:
        e, kappa = blr.spread(n_cells, expected=expected)
        return self._node * e, self._node**2 * kappa

    def _gaps(
        self, blr: DagBlr, known: ShiftPosterior, e: Vector, kappa: Vector, cov: Vector
    ) -> kernel.Gaps:
        def columns(value: Vector) -> Vector:
            return np.ascontiguousarray(value.T, dtype=np.float64)

        mean, _, effect = known.about_effect(blr)
        target = self.target_mean - (effect if effect.any() else np.zeros((1, blr.n_nodes)))
        return kernel.Gaps(
            1 / self.n_cells, blr.dag.indptr, blr.dag.indices, blr.vptr, blr.mptr, cov,
            columns(target), columns(mean), columns(known.states(blr) - effect),
            columns(known.share), np.zeros_like(columns(known.share)), columns(known.spare),
            columns(self._node * self._expected_terms(blr, known) ** 2),
            self._groups.weights, self._groups.group, e, kappa,
        )  # fmt: skip


class _Found(NamedTuple):
    floor: float
    before: float  # excess now, before any further cell
    excess: Vector  # after cells of every candidate, within graphs, less the floor
    between: Vector


def _is_alone(known: ShiftPosterior) -> NDArray[np.bool_]:
    """Return the candidates whose gaps depend on the weights in a way of their own."""
    told = known.share if known.effect is None else known.share + np.abs(known.effect)
    return np.any(told > 0, axis=1)


def _only(gaps: kernel.Gaps, j: int) -> kernel.Gaps:
    """Return the gaps of one candidate alone, as they are now."""
    names = ("mean", "state", "share", "again", "spare", "square")
    one: dict[str, Any] = {name: getattr(gaps, name)[:, j : j + 1].copy() for name in names}
    return gaps._replace(**one)


def _weights_part(gaps: kernel.Gaps) -> Vector:
    out = np.empty_like(gaps.spare)
    kernel.weights_part(gaps, out)
    return out
