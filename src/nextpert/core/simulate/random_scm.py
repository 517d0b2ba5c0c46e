"""Random linear SCMs, as in the simulations of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng, require_count
from nextpert.core.graph.random_dag import random_dag
from nextpert.core.simulate.scm import LinearScm

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from nextpert.core.graph.dag import Dag


def random_scm(
    n_nodes: int,
    graph: str | Dag = "complete",
    *,
    expected_degree: float = 4.0,
    low: float = 0.25,
    high: float = 1.0,
    noise_var: ArrayLike = 1.0,
    standardise: bool = True,
    rng: int | np.random.Generator | None = None,
) -> LinearScm:
    """Draw a linear SCM: weights uniform on ``[-high, -low]`` and ``[low, high]``.

    Follows Zhang et al. 2023, Methods (simulations): equal noise variances, then, with
    ``standardise``, every node rescaled to variance one.

    Parameters
    ----------
    n_nodes
        Number of nodes.
    graph
        A :class:`Dag`, or the name of a family, see :func:`random_dag`.
    expected_degree
        Mean number of neighbours, for families that have one.
    low, high
        Smallest and largest absolute weight before standardising.
    noise_var
        Noise variance of every node before standardising, one number or ``(n_nodes,)``, squared
        units of the data. One number (the paper's noise level) counts only without
        ``standardise``, which undoes it.
    standardise
        Whether to rescale every node to variance one.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        For an unknown family, a graph or noise of another size, or ``low > high``.

    Examples
    --------
    >>> from nextpert.core import random_scm
    >>> scm = random_scm(5, "erdos_renyi", expected_degree=2, rng=0)
    >>> bool(abs(scm.covariance().diagonal() - 1).max() < 1e-12)
    True
    """
    count, generator = require_count(n_nodes, "n_nodes"), as_rng(rng)
    if not 0 <= low <= high:
        message = f"Weights need 0 <= low <= high, but low is {low} and high {high}."
        raise ValueError(message)
    if np.shape(noise_var) not in ((), (count,)):
        shape = np.shape(noise_var)
        message = f"noise_var must be one number or one a node ({count}), but has shape {shape}."
        raise ValueError(message)
    dag = (
        random_dag(count, graph, expected_degree=expected_degree, rng=generator)
        if isinstance(graph, str)
        else graph
    )
    if dag.n_nodes != count:
        message = f"The graph has {dag.n_nodes} nodes, but n_nodes is {count}."
        raise ValueError(message)
    weights = np.zeros((count, count))
    for parent, child in dag.edges():
        sign = 1 if generator.random() < 0.5 else -1
        weights[child, parent] = sign * generator.uniform(low, high)
    scm = LinearScm(weights, np.broadcast_to(noise_var, count))
    return scm.standardised() if standardise else scm
