"""CIV-OW: the output-weighted causal integrated variance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import require_positive
from nextpert.core.acquisition.civ import Civ
from nextpert.core.acquisition.registry import acquisition

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.acquisition.domain.base import Domain
    from nextpert.core.posterior.dag_blr import DagBlr


@acquisition("civ_ow")
class CivOw(Civ):
    """Output-weighted CIV: shifts whose outcome is rare weigh more.

    As :class:`Civ`, averaged under the paper's output weights (Zhang et al. 2023, eq. 8). On a
    sphere of radius R, ``t = a'b/|b|`` is then uniform on ``[-R, R]`` and, with ``bhat = b/|b|``,
    ``E(a_i - b_i)^2 = b_i^2 + R^2 (tau bhat_i^2 + (1 - tau)(1 - bhat_i^2)/(p - 1))``, tau = 1/3.
    On a finite pool the weights make the predicted gap uniform over its range.

    Parameters
    ----------
    posterior
        The posterior over the weights.
    target_mean
        The wanted mean, shape ``(n_nodes,)``, units of the data.
    domain
        A sphere (unit by default) or a pool.
    n_cells
        Number of hypothetical cells (the next batch).
    noise_aware
        Whether the hypothetical cells' scatter teaches too (see :class:`LookaheadAcquisition`).
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

    def mean_square(self) -> NDArray[np.float64]:
        """Return ``E(a_i - b_i)^2`` under the output weights, shape ``(n_nodes,)``."""
        return self.domain.output_weighted_square(self.ideal_shift, self.kappa)
