"""The look ahead with the hypothetical cells' own noise in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._blas import one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.posterior.dag_blr import DagBlr


@one_thread()
def settle_by_noise(posterior: DagBlr, n_cells: float) -> NDArray[np.float64]:
    """Return ``(M^-1 + n Cov_P)^-1`` of every node, flat as the posterior's ``cov``.

    ``Cov = A diag(E sigma^2) A'`` is the cells' covariance: n cells teach about the weights by
    their scatter too, whatever the shift. What a shift adds is then the usual rank-one step.
    """
    dag, blocks = posterior.dag, posterior.blocks
    effects = posterior.solve(np.eye(posterior.n_nodes))
    # The variances as they are believed now: the cells are yet to be drawn.
    spread = (effects * posterior.noise_var) @ effects.T
    settled = np.empty_like(blocks["cov"])
    for i in range(posterior.n_nodes):
        d = int(posterior.vptr[i + 1] - posterior.vptr[i])
        place = slice(posterior.mptr[i], posterior.mptr[i + 1])
        cov = blocks["cov"][place].reshape(d, d)
        parents = dag.parents(i)
        noise = np.zeros((d, d))  # the intercept's column does not vary
        noise[d - len(parents) :, d - len(parents) :] = n_cells * spread[np.ix_(parents, parents)]
        block = np.linalg.solve(np.eye(d) + cov @ noise, cov)
        settled[place] = ((block + block.T) / 2).ravel()
    return settled
