"""How far the mean reached by a shift stays from the target, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng, as_vector, require_count, require_finite
from nextpert.core.posterior import _kernels as kernels
from nextpert.core.posterior.dag_blr import DagBlr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


def target_distance(
    posterior: DagBlr | Sequence[DagBlr],
    shifts: ArrayLike,
    target_mean: ArrayLike,
    *,
    n_samples: int = 400,
    rng: int | np.random.Generator | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the squared distance of the reached mean to the target, with its uncertainty.

    The mean reached by shift ``a`` is ``(I - B)^-1 (c + a)``; weights are drawn from the
    posterior, the same draws for every shift, so that differences between shifts are sharp.

    Parameters
    ----------
    posterior
        The posterior over the weights; or one on each of several graphs, which count alike: mean
        and deviation are then over graphs and weights.
    shifts
        Shifts, shape ``(n_shifts, n_nodes)``, units of the data.
    target_mean
        The wanted mean, shape ``(n_nodes,)``, units of the data.
    n_samples
        Number of posterior draws, at least 2; as many from every graph, so up to one a graph more.
    rng
        Seed or generator.

    Returns
    -------
    mean, sd
        Posterior mean and standard deviation of the squared Euclidean distance, each
        ``(n_shifts,)``, squared units of the data.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import DagBlr, Moments, random_scm, target_distance
    >>> scm = random_scm(5, rng=0)
    >>> blr = DagBlr(scm.dag).update(Moments.from_array(scm.sample(5000, rng=1)))
    >>> shift = np.array([1.0, 0, 0, 0, 0])
    >>> mean, sd = target_distance(blr, [shift, 0 * shift], scm.mean(shift), rng=2)
    >>> bool(mean[0] < mean[1])
    True
    """
    posteriors = [posterior] if isinstance(posterior, DagBlr) else list(posterior)
    sizes = sorted({each.n_nodes for each in posteriors})
    if len(sizes) != 1:
        message = f"Posteriors on the same nodes are needed, but they have {sizes} nodes."
        raise ValueError(message)
    p, count = sizes[0], require_count(n_samples, "n_samples", least=2)
    matrix = np.asarray(shifts, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != p:
        message = f"Shifts must be (n_shifts, {p}), but their shape is {matrix.shape}."
        raise ValueError(message)
    require_finite(matrix, "shifts")
    target = as_vector(target_mean, p, "target_mean")
    generator = as_rng(rng)
    columns, each_count = np.ascontiguousarray(matrix.T), -(-count // len(posteriors))
    drawn = []
    for each in posteriors:
        draws, _ = each.sample(each_count, generator)
        dag = each.dag
        drawn.append(
            kernels.solve_draws(
                dag.indptr, dag.indices, dag.order, each.vptr, each.intercept, draws, columns,
                target,
            )
        )  # fmt: skip
    distance = np.concatenate(drawn)
    return distance.mean(axis=0), distance.std(axis=0, ddof=1)
