"""The variance of the optimality gap under the posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_vector, require_positive
from nextpert.core.acquisition._lookahead import project_target

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from nextpert.core.posterior.dag_blr import DagBlr


def gap_variance(
    posterior: DagBlr, shift: ArrayLike, target_mean: ArrayLike, *, n_cells: float = 1
) -> float:
    """Return the variance of the optimality gap of a shift.

    The gap is ``g(a) = |a + mean of n noise vectors - (I - B) mu*|^2``; its variance is
    ``sum_i kappa_i s_i^2 + 4 s_i e_i (a_i - b_i)^2`` with ``s_i = 1/n + w_i``
    (Zhang et al. 2023, eq. 12, for known noise variances).

    Parameters
    ----------
    posterior
        The posterior over the weights.
    shift
        The shift, shape ``(n_nodes,)``, units of the data.
    target_mean
        The wanted mean, shape ``(n_nodes,)``, units of the data.
    n_cells
        Number of cells whose mean is compared with the target.

    Returns
    -------
    float
        The variance, in the fourth power of the units of the data.

    Raises
    ------
    ValueError
        While the noise variances' shape is not above 2 (infinite variance), or for wrong shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, gap_variance
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> gap_variance(blr, [1.0, 0.0], [1.0, 0.0])
    10.0
    """
    posterior = posterior.without_fixed()
    p, dag = posterior.n_nodes, posterior.dag
    target = as_vector(target_mean, p, "target_mean")
    offset = as_vector(shift, p, "shift") - posterior.ideal_shift(target)
    u, w = np.empty(posterior.vptr[-1]), np.empty(p)
    cov = posterior.blocks["cov"]
    layout = (posterior.vptr, posterior.mptr, dag.indptr, dag.indices)
    project_target(*layout, int(posterior.intercept), cov, target, u, w)
    e, kappa = posterior.spread()
    s = 1 / require_positive(n_cells, "n_cells") + w
    return float((kappa * s**2 + 4 * s * e * offset**2).sum())
