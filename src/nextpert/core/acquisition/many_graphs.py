"""CIV, CIV-OW and CV over several graphs, none of which is known to be the right one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core._checks import require_kind
from nextpert.core.acquisition._pool_kernel import w_of_pool
from nextpert.core.acquisition.base import Acquisition
from nextpert.core.acquisition.causal_variance import CausalVariance
from nextpert.core.acquisition.civ import Civ
from nextpert.core.acquisition.domain.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.acquisition.base import LookaheadAcquisition
    from nextpert.core.posterior.dag_blr import DagBlr

    Vector = NDArray[np.float64]


class _Weighted(Pool):
    """A pool whose mean and variance are taken under weights."""

    def __init__(self, pool: Pool, weights: Vector) -> None:
        super().__init__(pool.shifts)
        self._weights = weights

    def moments(self, n_nodes: int) -> tuple[Vector, Vector]:
        self._require(n_nodes)
        mean = self._weights @ self.shifts
        return mean, self._weights @ (self.shifts - mean) ** 2


class ManyGraphs(Acquisition):
    """A criterion over a pool under several graphs, each with its posterior, that count alike.

    ``"civ"`` and ``"civ_ow"``: the variance of the optimality gap ``g_j`` of candidate ``j`` is
    that within graphs and that between them: the mean over graphs of CIV, plus the mean over
    candidates of ``Var_k E_k[g_j]`` with
    ``E_k[g_j] = sum_i e_ki s_ki + |a_j - b_k|^2``. The output weights of ``"civ_ow"`` are those at
    the mean of the graphs' ideal shifts. ``"cv"``: the largest variance of a coordinate of the
    ideal shift, ``mean_k e_ki w_ki + Var_k b_ki``.

    The look ahead is within graphs: cells to come change what is known of the weights, while the
    graphs stay as many and as different as they are.

    Parameters
    ----------
    criterion
        ``"civ"``, ``"civ_ow"`` or ``"cv"``.
    posteriors
        The posterior on each graph, of the same nodes and cells.
    target_mean
        The wanted mean, shape ``(n_nodes,)``, units of the data.
    domain
        The candidates.
    n_cells
        Number of hypothetical cells (the next batch).
    noise_aware
        Whether the hypothetical cells' scatter teaches too (see :class:`LookaheadAcquisition`).

    Raises
    ------
    ValueError
        For another criterion, no posteriors, or posteriors of different numbers of nodes.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, ManyGraphs, Pool
    >>> graphs = [Dag.from_edges(2, [(0, 1)]), Dag.from_edges(2, [(1, 0)])]
    >>> blrs = [DagBlr(g, noise_var=1.0, intercept=False, prior_scale=1.0) for g in graphs]
    >>> both = ManyGraphs("cv", blrs, np.array([1.0, 0.0]), domain=Pool(np.eye(2)))
    >>> both.values(np.eye(2)).tolist()
    [0.25, 0.5]
    """

    criteria = ("civ", "civ_ow", "cv")

    def __init__(
        self,
        criterion: str,
        posteriors: Sequence[DagBlr],
        target_mean: ArrayLike,
        *,
        domain: Pool,
        n_cells: float = 1,
        noise_aware: bool = False,
    ) -> None:
        if criterion not in self.criteria:
            message = f"{criterion!r} is not made for many graphs: {', '.join(self.criteria)} are."
            raise ValueError(message)
        require_kind(domain, Pool, "domain")
        self.name = criterion
        sizes = sorted({posterior.n_nodes for posterior in posteriors})
        if len(sizes) != 1:
            message = f"Posteriors on the same nodes are needed, but they have {sizes} nodes."
            raise ValueError(message)
        self.n_nodes = sizes[0]
        ideal = np.array([posterior.ideal_shift(target_mean) for posterior in posteriors])
        n_shifts = len(domain.shifts)
        weights = np.full(n_shifts, 1 / n_shifts)
        if criterion == "civ_ow":
            weights = domain.output_weights(ideal.mean(axis=0))
        pool = _Weighted(domain, weights)
        self._ideal_var = ideal.var(axis=0)
        self._gap = np.array([((domain.shifts - b) ** 2).sum(axis=1) for b in ideal])
        self._weights = weights
        self.members: list[LookaheadAcquisition] = []
        options: dict[str, Any] = {"n_cells": n_cells, "noise_aware": noise_aware}
        for blr in posteriors:
            if criterion == "cv":
                self.members.append(CausalVariance(blr, target_mean, **options))
            else:
                self.members.append(Civ(blr, target_mean, domain=pool, **options))

    def values(self, shifts: ArrayLike) -> Vector:
        """Return the criterion at every shift of a pool, ``(n_shifts, n_nodes)``."""
        matrix = self._pool(shifts)
        if self.name == "cv":
            return (self._left(matrix) + self._ideal_var[:, None]).max(axis=0, initial=0.0)
        within = np.mean([member.values(matrix) for member in self.members], axis=0)
        return within + self._between(matrix)

    def removed(self, shifts: ArrayLike) -> Vector:
        """Return the share of the weights' part, within graphs, that cells would remove.

        As :meth:`LookaheadAcquisition.removed`; what lies between graphs is not counted.
        """
        matrix = self._pool(shifts)
        if self.name == "cv":
            left = self._left(matrix).max(axis=0, initial=0.0)
            now = [m.spread_ahead()[0] * m.w_now for m in self.members]
            before = float(np.mean(now, axis=0).max(initial=0.0))
        else:
            left = np.mean([member.excess(matrix) for member in self.members], axis=0)
            before = float(np.mean([m.current() - m.floor for m in self.members]))
        return 1 - left / before if before > 0 else np.zeros(len(matrix))

    def _between(self, shifts: Vector) -> Vector:
        """Return the mean over candidates ``j`` of ``Var_k E_k[g_j]`` after each shift.

        ``E_k[g_j]`` is a part ``v_k`` that the cells to come change, and a part ``|a_j - b_k|^2``
        that they do not: ``Var v + 2 Cov(v, mean_j part) + mean_j Var part``.
        """
        v = np.array(
            [m.spread_ahead()[0] @ (1 / m.n_cells + self._w(m, shifts)) for m in self.members]
        )
        part = self._gap @ self._weights
        covariance = (part - part.mean()) @ (v - v.mean(axis=0)) / len(v)
        fixed = float(self._weights @ self._gap.var(axis=0))
        return v.var(axis=0) + 2 * covariance + fixed

    def _left(self, shifts: Vector) -> Vector:
        """Return the mean over graphs of ``e_i w_i`` after each shift, ``(n_nodes, n_shifts)``."""
        total = np.zeros((self.n_nodes, len(shifts)))
        for member in self.members:
            total += member.spread_ahead()[0][:, None] * self._w(member, shifts)
        return total / len(self.members)

    @staticmethod
    def _w(member: LookaheadAcquisition, shifts: Vector) -> Vector:
        out = np.empty((member.n_nodes, len(shifts)))
        w_of_pool(member.problem, np.ascontiguousarray(shifts.T), out)
        return out
