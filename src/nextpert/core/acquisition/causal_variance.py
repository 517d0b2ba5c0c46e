"""CV: the largest remaining variance of the ideal shift."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.acquisition import _lookahead as lookahead
from nextpert.core.acquisition.base import LookaheadAcquisition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]


class CausalVariance(LookaheadAcquisition):
    """CV: the largest remaining variance of a coordinate of the ideal shift, ``max_i e_i w_i``.

    Zhang et al. 2023, Methods (baselines). Not smooth where two nodes tie; the gradient is that
    of the largest.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import CausalVariance, Dag, DagBlr
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> CausalVariance(blr, np.array([1.0, 0.0])).value([1.0, 0.0])
    0.5
    """

    name = "cv"
    kind = lookahead.MAX

    def coefficients(self) -> tuple[Vector, Vector]:
        """Return zeros and ``e``."""
        return np.zeros(self.n_nodes), self.spread_ahead()[0]
