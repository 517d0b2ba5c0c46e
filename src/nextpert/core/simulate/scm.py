"""Linear structural causal models: the truth behind simulated cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from nextpert.core._blas import one_thread
from nextpert.core._checks import (
    as_nodes,
    as_numbers,
    as_rng,
    as_vector,
    require_count,
    require_finite,
)
from nextpert.core.cells._sound import require_numbers
from nextpert.core.graph.dag import Dag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    Vector = NDArray[np.float64]


class LinearScm:
    """Linear SCM ``x = B x + c + a + noise`` over a directed acyclic graph.

    Parameters
    ----------
    weights
        B, shape ``(n_nodes, n_nodes)``, dense or sparse; row = child, column = parent.
    noise_var
        Noise variances, shape ``(n_nodes,)``, squared units of the data.
    intercept
        c, shape ``(n_nodes,)``; zero by default.

    Raises
    ------
    CycleError
        If the non-zero weights form a cycle.
    ValueError
        If shapes differ, a weight is not finite, or a variance is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import LinearScm
    >>> scm = LinearScm(np.array([[0.0, 0.0], [0.5, 0.0]]), np.ones(2))
    >>> scm.mean(shift=[2.0, 0.0]).tolist()
    [2.0, 1.0]
    >>> scm.optimal_shift([2.0, 1.0]).tolist()
    [2.0, 0.0]
    """

    def __init__(
        self,
        weights: ArrayLike | sp.sparray,
        noise_var: ArrayLike,
        intercept: ArrayLike | None = None,
    ) -> None:
        given = weights if sp.issparse(weights) else as_numbers(weights, "weights")
        require_numbers(given, "weights")
        matrix = sp.csr_array(given, dtype=np.float64)
        require_finite(matrix.data, "weights")
        self.dag = Dag.from_matrix(matrix.T)
        self.weights = matrix.toarray()
        self.n_nodes = self.dag.n_nodes
        children = np.repeat(np.arange(self.n_nodes), self.dag.in_degree)
        self._flat = self.weights[children, self.dag.indices]
        self.noise_var = as_vector(noise_var, self.n_nodes, "noise_var")
        if (self.noise_var <= 0).any():
            message = "noise_var must be above 0 for every node."
            raise ValueError(message)
        zero = np.zeros(self.n_nodes)
        self.intercept = (
            zero if intercept is None else as_vector(intercept, self.n_nodes, "intercept")
        )

    @one_thread()
    def _propagate(self, source: NDArray[np.float64], fixed: Mapping[int, float]) -> Vector:
        # One substitution along the topological order; columns are cells.
        as_nodes(fixed, self.n_nodes, "do")
        x = source.copy()
        for i in self.dag.order:
            if int(i) in fixed:
                x[i] = fixed[int(i)]
                continue
            parents = self.dag.parents(i)
            if len(parents):
                x[i] += self.weights[i, parents] @ x[parents]
        return x

    def _source(self, shift: ArrayLike | None) -> Vector:
        extra = 0.0 if shift is None else as_vector(shift, self.n_nodes, "shift")
        return self.intercept + extra

    def sample(
        self,
        n_cells: int,
        shift: ArrayLike | None = None,
        *,
        do: Mapping[int, float] | None = None,
        rng: int | np.random.Generator | None = None,
    ) -> NDArray[np.float64]:
        """Draw cells, shape ``(n_cells, n_nodes)``, under a shift or with nodes held fixed (do)."""
        count = require_count(n_cells, "n_cells", least=0)
        noise = as_rng(rng).standard_normal((count, self.n_nodes)) * np.sqrt(self.noise_var)
        return self._propagate((noise + self._source(shift)).T, do or {}).T

    def mean(
        self, shift: ArrayLike | None = None, *, do: Mapping[int, float] | None = None
    ) -> Vector:
        """Return the mean under a shift or do intervention, shape ``(n_nodes,)``."""
        return self._propagate(self._source(shift), do or {})

    @one_thread()
    def covariance(self) -> NDArray[np.float64]:
        """Return the covariance of control cells (shifts do not change it)."""
        effects = self._propagate(np.eye(self.n_nodes), {})
        return (effects * self.noise_var) @ effects.T

    @one_thread()
    def optimal_shift(self, target_mean: ArrayLike) -> Vector:
        """Return the shift ``(I - B) mu* - c`` whose mean is ``target_mean``."""
        target = as_vector(target_mean, self.n_nodes, "target_mean")
        return target - self.weights @ target - self.intercept

    def standardised(self) -> LinearScm:
        """Return the same model in units in which every node has variance one."""
        scale = 1 / np.sqrt(np.diag(self.covariance()))
        weights = scale[:, None] * self.weights / scale
        return LinearScm(weights, self.noise_var * scale**2, self.intercept * scale)
