"""MI-Int: mutual information between the next cells and the ideal shift."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.causal._lookahead import information
from nextpert.core.causal.base import DrawnAcquisition, project
from nextpert.core.causal.registry import acquisition

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.causal.dag_blr import DagBlr

    Array = NDArray[np.float64]


@acquisition("mi")
class MutualInformationInt(DrawnAcquisition):
    """MI-Int: minus the mutual information between the next cells and the ideal shift, in nats.

    The value is the expected change of the entropy of ``(I - B) mu* - c``,
    ``E sum_i log(w_i' / w_i) / 2``. After cells at ``x``, ``w_i' = w_i - d1^2 / d2`` with
    ``d1 = (M q)' x_P`` and ``d2 = 1/n + x_P' M x_P``; ``x = (I - B)^-1 (c + a + noise)`` is drawn
    with weights from the posterior (Zhang et al. 2023, Extended Data Fig. 5). For one cell the
    value is exact apart from Monte Carlo error and, if noise variances are unknown, a constant that
    does not depend on the shift; as in the paper's look-ahead, several cells are set to their mean.
    The terms of nodes without parents do not depend on the shift.

    Parameters
    ----------
    posterior
        The posterior over the weights.
    target_mean
        The target mean, shape ``(n_nodes,)``, units of the data.
    n_cells
        Number of hypothetical cells (the next batch).
    n_samples
        Number of draws of weights and noise, the same for every shift.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        If the target has the wrong length, or there are no cells or no draws.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, MutualInformationInt, Sphere
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> acquisition = MutualInformationInt(blr, [1.0, 0.0], rng=0)
    >>> bool(acquisition.value([1.0, 0.0]) < acquisition.value([0.0, 1.0]) < 0)
    True
    """

    noisy = True

    def __init__(
        self,
        posterior: DagBlr,
        target_mean: ArrayLike,
        *,
        n_cells: float = 1,
        n_samples: int = 64,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__(posterior, target_mean, n_cells=n_cells, n_samples=n_samples, rng=rng)
        self.u, self.w0 = project(self.posterior, self.target_mean)

    def at_means(self, x: Array) -> tuple[float, Array]:
        """Return the mean of ``sum_i log(w_i' / w_i) / 2`` over draws and its gradient in ``x``."""
        posterior = self.posterior
        resolved, slopes = np.zeros_like(x), np.zeros_like(x)
        terms = (int(posterior.intercept), 1.0 / self.n_cells, posterior.blocks["cov"], self.u)
        # resolved_i = d1^2 / (d2 w_i), so that log(1 - resolved) is log(w' / w).
        information(posterior.place, terms, self.w0, x, resolved, slopes)
        n_samples = x.shape[1]
        return float(np.log1p(-resolved).sum()) / (2 * n_samples), slopes / n_samples
