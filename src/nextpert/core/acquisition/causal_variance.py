"""CV: the largest remaining variance of the ideal shift."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.acquisition import _lookahead as lookahead
from nextpert.core.acquisition.base import LookaheadAcquisition
from nextpert.core.acquisition.candidates import Ranked
from nextpert.core.acquisition.registry import acquisition

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.acquisition.candidates import Candidates

    Vector = NDArray[np.float64]


@acquisition("cv")
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

    kind = lookahead.MAX

    def coefficients(self) -> tuple[Vector, Vector]:
        """Return zeros and ``e``."""
        return np.zeros(self.n_nodes), self.spread_ahead()[0]

    @classmethod
    def of_candidates(cls, asked: Candidates) -> Ranked:
        """Return it of every candidate at its expected shift, over the graphs that count alike.

        The variance of a coordinate is that within graphs and that between them, which cells to
        come leave as it is: ``mean_k e_ki w_ki + Var_k b_ki``.
        """
        ideal = np.array([blr.ideal_shift(asked.target_mean) for blr in asked.graphs])
        after, now = cls._within(asked, noise_aware=asked.noise_aware)
        values = (after + ideal.var(axis=0)[:, None]).max(axis=0, initial=0.0)
        if not asked.noise_aware:  # what is reported as removed is what is expected
            after, now = cls._within(asked, noise_aware=True)
        before = now.max(initial=0.0)
        left = after.max(axis=0, initial=0.0)
        return Ranked(values, 1 - left / before if before > 0 else np.zeros_like(left))

    @classmethod
    def _within(cls, asked: Candidates, *, noise_aware: bool) -> tuple[Vector, Vector]:
        """Return the mean over graphs of ``e_i w_i``, (p, m) after cells of each, and (p,) now."""
        parts = [
            cls(blr, asked.target_mean, n_cells=asked.n_cells, noise_aware=noise_aware)
            for blr in asked.graphs
        ]
        after = [part.problem.lin[:, None] * part.left(asked.expected_shifts) for part in parts]
        now = [part.problem.lin * part.w_now for part in parts]
        return np.mean(after, axis=0), np.mean(now, axis=0)
