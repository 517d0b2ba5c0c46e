"""A prior of weights in units of the noise: what it would be worth."""

from __future__ import annotations

from typing import Any

import numpy as np

from nextpert.core import DagBlr

Array = np.ndarray


class NoiseUnitsBlr(DagBlr):
    """DAG-BLR whose prior is set after dividing every node by its noise's standard deviation.

    There every noise variance is 1, and one scale fits all weights: ``B_ik`` has the prior
    variance ``(sigma_i^2 / sigma_k^2) / lambda``, while the usual prior has
    ``sigma_i^2 / lambda``, whatever the scale of the parent. In units of variance one the noise
    of the last nodes of a dense graph is small, so that the two differ much. Unknown noise
    variances are first estimated under the usual prior. No intercept.
    """

    def __init__(
        self, dag: Any, *, noise_var: Array | None, prior_scale: float | str = "evidence"
    ) -> None:
        super().__init__(dag, noise_var=noise_var, intercept=False, prior_scale=prior_scale)
        unit = None if noise_var is None else 1.0
        self.scaled = DagBlr(dag, noise_var=unit, intercept=False, prior_scale=prior_scale)

    @property
    def blocks(self) -> dict[str, Array]:
        """The posterior, worked out in units of the noise and put back."""
        if self._blocks is None:
            self._blocks = self._in_noise_units()
        return self._blocks

    def _noise_sd(self) -> Array:
        if self.known_noise_var is not None:
            return np.sqrt(self.known_noise_var)
        plain = DagBlr(self.dag, intercept=False)
        plain.xtx, plain.xty, plain.yty, plain.cells = self.xtx, self.xty, self.yty, self.cells
        return np.sqrt(plain.noise_var)

    def _in_noise_units(self) -> dict[str, Array]:
        sd = self._noise_sd()
        parent = sd[self.dag.indices]
        child = np.repeat(sd, self.dag.in_degree)
        pairs = np.empty_like(self.xtx)
        for i in range(self.n_nodes):
            own = sd[self.dag.parents(i)]
            pairs[self.mptr[i] : self.mptr[i + 1]] = np.outer(own, own).ravel()
        scaled = self.scaled
        scaled._blocks = None
        scaled.xtx, scaled.xty = self.xtx / pairs, self.xty / (parent * child)
        scaled.yty, scaled.cells = self.yty / sd**2, self.cells
        found = dict(scaled.blocks)
        found["cov"] = found["cov"] / pairs
        found["weights"] = found["weights"] * child / parent
        found["residual"] = found["residual"] * sd**2
        return found
