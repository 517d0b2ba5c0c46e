"""MaxV: the largest remaining variance of any weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.causal import _lookahead as lookahead
from nextpert.core.causal.base import LookaheadAcquisition
from nextpert.core.causal.registry import acquisition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


@acquisition("maxv")
class MaxVariance(LookaheadAcquisition):
    """MaxV: the largest remaining variance of any weight direction, ``max_i e_i |M_i|_2``.

    Zhang et al. 2023, Methods (baselines). It does not look at the target.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, MaxVariance
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> round(MaxVariance(blr, np.array([1.0, 0.0])).value([1.0, 0.0]), 9)
    0.5
    """

    kind = lookahead.NORM

    def coefficients(self) -> tuple[Vector, Vector]:
        """Return zeros and ``e``."""
        return np.zeros(self.n_nodes), self.spread_ahead()[0]

    def _eigen(self) -> tuple[Vector, Vector]:
        each = [np.linalg.eigh(block) for block in self.posterior.squares(self.cov)]
        none = [np.empty(0)]  # of a graph without edges
        values = np.concatenate([*none, *(values for values, _ in each)])
        return values, np.concatenate([*none, *(vectors.ravel() for _, vectors in each)])

    def current(self) -> float:
        """Return the acquisition now, before any further cell."""
        blocks = self.posterior.squares(self.posterior.blocks["cov"])
        tops = [np.linalg.eigvalsh(block).max(initial=0.0) for block in blocks]
        return float((self.problem.lin * np.array(tops)).max())
