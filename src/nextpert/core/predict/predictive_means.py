"""What the mean of some cells, not seen yet, may turn out to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_nodes, as_rng, as_vector, require_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.posterior.dag_blr import DagBlr


def predictive_means(
    posterior: DagBlr,
    shift: ArrayLike,
    n_cells: int,
    *,
    known: Mapping[int, float] | None = None,
    n_samples: int = 400,
    rng: int | np.random.Generator | None = None,
) -> NDArray[np.float64]:
    r"""Draw the mean of ``n_cells`` cells under a shift from the posterior predictive.

    With weights, intercepts and noise variances drawn from the posterior,

    .. math:: \bar x = B \bar x + c + a + \bar\varepsilon, \qquad
        \bar\varepsilon_i \sim N(0, \sigma_i^2 / n),

    so that the draws hold both what is not known of the model and the scatter of the cells.

    Parameters
    ----------
    posterior
        The posterior over the weights.
    shift
        Shift of every node, shape ``(n_nodes,)``, units of the data.
    n_cells
        Number of cells.
    known
        Means that have been measured in those cells, by node: they are put in as they are, and
        the shift of such a node says nothing (as if it had a flat prior).
    n_samples
        Number of draws.
    rng
        Seed or generator.

    Returns
    -------
    ndarray
        Means, shape ``(n_samples, n_nodes)``, units of the data.

    Raises
    ------
    ValueError
        If the shift has another shape, a node is not in the graph, or a number is too small.

    Examples
    --------
    >>> from nextpert.core import DagBlr, Moments, random_scm
    >>> from nextpert.core.predict.predictive_means import predictive_means
    >>> scm = random_scm(3, rng=0)
    >>> blr = DagBlr(scm.dag).update(Moments.from_array(scm.sample(5000, rng=1)))
    >>> draws = predictive_means(blr, [1, 0, 0], 100, rng=2)
    >>> bool(abs(draws.mean(axis=0) - scm.mean([1, 0, 0])).max() < 0.1)
    True
    """
    p, generator = posterior.n_nodes, as_rng(rng)
    added = as_vector(shift, p, "shift")
    count = require_count(n_cells, "n_cells")
    measured = {} if known is None else dict(known)
    as_nodes(measured, p, "known")
    draws, noise_var = posterior.sample(n_samples, generator)
    noise = generator.standard_normal(noise_var.shape) * np.sqrt(noise_var / count)
    means = added + noise  # (n_samples, n_nodes)
    dag, vptr = posterior.dag, posterior.vptr
    for i in dag.order.tolist():
        if i in measured:
            means[:, i] = measured[i]
            continue
        parents = dag.parents(i)
        start = vptr[i + 1] - len(parents)
        if posterior.intercept:
            means[:, i] += draws[:, vptr[i]]
        if len(parents):
            weights = draws[:, start : vptr[i + 1]]
            means[:, i] += np.einsum("sk,sk->s", weights, means[:, parents])
    return means
