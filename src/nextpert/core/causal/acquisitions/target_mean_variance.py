"""Target-mean variance: the remaining variance of the predicted mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.causal.base import LookaheadAcquisition
from nextpert.core.causal.registry import acquisition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


@acquisition("target_mean_variance")
class TargetMeanVariance(LookaheadAcquisition):
    """The remaining variance of the predicted mean itself, ``sum_i |A_.i|^2 e_i w_i``.

    With ``A = (I - B)^-1``, the error of a weight is weighted by its downstream effect, unlike in
    CIV.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, TargetMeanVariance
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> TargetMeanVariance(blr, np.array([1.0, 0.0])).value([1.0, 0.0])
    0.5
    """

    def coefficients(self) -> tuple[Vector, Vector]:
        """Return zeros and ``|A_.i|^2 e_i``."""
        e, _ = self.spread_ahead()
        # Column i of A is the effect of a unit shift at node i on all nodes.
        effects = self.posterior.solve(np.eye(self.n_nodes))
        return np.zeros(self.n_nodes), (effects**2).sum(axis=0) * e

    @property
    def floor(self) -> float:
        """Zero, because only the variance of the weights counts."""
        return 0.0
