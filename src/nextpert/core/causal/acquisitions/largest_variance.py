"""MaxV and CV: the largest remaining variance of the weights, or of the ideal shift."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core._checks import as_vector
from nextpert.core.causal._lookahead import adjoint_by_draws
from nextpert.core.causal.base import LookaheadAcquisition, reduction
from nextpert.core.causal.registry import acquisition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.causal.base import CandidateStates
    from nextpert.core.causal.dag_blr import DagBlr

    Vector = NDArray[np.float64]


class LargestVariance(LookaheadAcquisition):
    """The largest ``e_i v' M_i' v`` over nodes, with ``M_i'`` after the hypothetical cells.

    A subclass defines the terms and the direction ``v`` of a node. The function is not smooth
    where two nodes tie; the gradient is then that of one of them.
    """

    is_sum = False

    @property
    def floor(self) -> float:
        """Zero, because only the variance of the weights counts."""
        return 0.0

    def coefficients(self) -> tuple[Vector, Vector]:
        """Return zeros and ``e``."""
        return np.zeros(self.n_nodes), self.spread_ahead()[0]

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Vector]:
        """Return the acquisition and its gradient at one shift, shape ``(n_nodes,)``."""
        vector = as_vector(shift, self.n_nodes, "shift")
        slopes = np.zeros((self.n_nodes, 1))
        posterior = self.posterior
        terms = self._terms(vector)
        i = int(terms.argmax())
        if terms[i] > 0:
            # In equation 6, d1 = v' M x' and d2 = 1/n + x'' M x': the gradient of -d1^2 / d2 in x'.
            cov, y, d2, after = self._node(i, posterior.predict_mean(vector))
            v = self._direction(i, after)
            ratio = v @ y / d2
            by_row = 2 * self.problem.lin[i] * ratio * (ratio * y - cov @ v)
            slopes[posterior.dag.parents(i), 0] = by_row[self.problem.intercept :]
            weights = posterior.estimates["weights"][:, None]
            adjoint_by_draws(posterior.place, posterior.dag.order, weights, slopes)
        return max(float(terms[i]), 0.0), slopes[:, 0]

    def _node(self, i: int, x: Vector) -> tuple[Any, ...]:
        """Return ``M``, ``y = M x'``, ``d2`` and ``M' = M - y y' / d2`` of node i at the mean x."""
        posterior, k = self.posterior, self.problem.intercept
        cov = self.cov[posterior.mptr[i] : posterior.mptr[i + 1]]
        row = np.append(np.ones(k), x[posterior.dag.parents(i)])
        cov = cov.reshape(len(row), len(row))
        y = cov @ row
        # Equation 6 for the whole matrix: M' = M - M x x' M / (1/n + x' M x).
        d2 = self.problem.inv_n + row @ y
        return cov, y, d2, cov - np.outer(y, y) / d2

    def _terms(self, shift: Vector) -> Vector:
        """Return the term of every node after cells of one shift, both of shape ``(n_nodes,)``."""
        raise NotImplementedError

    def _direction(self, i: int, after: NDArray[np.float64]) -> Vector:
        """Return ``v`` of node i, whose ``M'`` is ``after``."""
        raise NotImplementedError


@acquisition("maxv")
class MaxVariance(LargestVariance):
    """MaxV: the largest remaining variance of a linear combination of weights after the next cells.

    The value is ``max_i e_i |M_i|_2``, with ``e_i`` the noise variance of node ``i`` and
    ``e_i M_i`` the covariance of its weights (Zhang et al. 2023, Methods, baselines). It does not
    depend on the target.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, MaxVariance
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> round(MaxVariance(blr, np.array([1.0, 0.0])).value([1.0, 0.0]), 9)
    0.5
    """

    def _excess(self, shifts: NDArray[np.float64]) -> Vector:
        return np.array([self._terms(shift).max(initial=0.0) for shift in shifts])

    @cached_property
    def _before(self) -> Vector:
        blocks = self.posterior.squares(self.posterior.blocks["cov"])
        tops = [np.linalg.eigvalsh(block).max(initial=0.0) for block in blocks]
        return np.asarray(self.problem.lin * np.array(tops))

    def _terms(self, shift: Vector) -> Vector:
        x = self.posterior.predict_mean(shift)
        terms = np.zeros(self.n_nodes)
        # Largest first, so that few eigenvalues are computed.
        for i in np.argsort(-self._before):
            # Cells only reduce variances, so that the other terms can stay 0.
            if self._before[i] <= terms.max():
                break
            terms[i] = self.problem.lin[i] * np.linalg.eigvalsh(self._node(i, x)[-1])[-1]
        return terms

    def _direction(self, i: int, after: NDArray[np.float64]) -> Vector:
        return np.asarray(np.linalg.eigh(after)[1][:, -1])

    def current(self) -> float:
        """Return the acquisition of the current posterior."""
        return float(self._before.max())


@acquisition("cv")
class CausalVariance(LargestVariance):
    """Causal variance (CV): the largest remaining variance of a coordinate of the ideal shift.

    The value is ``max_i e_i w_i`` after ``n_cells`` more cells, with ``e_i`` the noise variance of
    node ``i`` and ``e_i w_i`` the variance of its coordinate (Zhang et al. 2023, Methods,
    baselines). It is not differentiable where two nodes share the largest variance; there, the
    gradient of one of them is returned.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import CausalVariance, Dag, DagBlr
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> CausalVariance(blr, np.array([1.0, 0.0])).value([1.0, 0.0])
    0.5
    """

    def _combine(self, w: NDArray[np.float64]) -> Any:
        return (self.problem.lin * w.T).max(axis=-1, initial=0.0)

    def _terms(self, shift: Vector) -> Vector:
        return self.problem.lin * self.left(shift[None])[:, 0]

    def _direction(self, i: int, after: NDArray[np.float64]) -> Vector:
        parents = self.posterior.dag.parents(i)
        return np.append(np.ones(self.problem.intercept), self.target_mean[parents])

    @classmethod
    def _over_graphs(
        cls, candidates: CandidateStates, graphs: Sequence[DagBlr], *, noise_aware: bool
    ) -> tuple[Vector, Vector]:
        """Return values and variance reductions over equally weighted graphs.

        The variance of a coordinate is the sum of the variance within graphs and the variance
        between them, which is assumed constant: ``mean_k e_ki w_ki + Var_k b_ki``.
        """
        parts = [
            cls(blr, candidates.target_mean, n_cells=candidates.n_cells, noise_aware=noise_aware)
            for blr in graphs
        ]
        # Total variance: within graphs, plus that of the ideal shifts between graphs.
        between = np.var([part.ideal_shift for part in parts], axis=0)[:, None]
        current = np.mean([part.problem.lin * part.w_now for part in parts], axis=0)
        after = np.mean(
            [part.problem.lin[:, None] * part.left(candidates.shifts) for part in parts], axis=0
        )
        values = (after + between).max(axis=0, initial=0.0)
        return values, reduction(current.max(initial=0.0), after.max(axis=0, initial=0.0))
