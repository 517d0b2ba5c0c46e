"""Random graphs in which every node has as many parents as in a given one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng
from nextpert.core.graph.dag import Dag

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def matched_random_dag(
    in_degree: ArrayLike, *, rng: int | np.random.Generator | None = None
) -> Dag:
    """Draw a random acyclic graph with given numbers of parents.

    An order is drawn uniformly among those in which every node has enough nodes before it, then
    the parents of every node uniformly among the nodes before it.

    Parameters
    ----------
    in_degree
        Number of parents of every node, shape ``(n_nodes,)``, as
        :attr:`~nextpert.core.Dag.in_degree`.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        If no acyclic graph has these numbers of parents.

    Examples
    --------
    >>> from nextpert.core.graph.matched_random_dag import matched_random_dag
    >>> matched_random_dag([2, 0, 1], rng=0).in_degree.tolist()
    [2, 0, 1]
    """
    degree, generator = np.asarray(in_degree, dtype=np.int64), as_rng(rng)
    p = len(degree)
    if (degree < 0).any() or (np.sort(degree) > np.arange(p)).any():
        message = f"No acyclic graph has nodes with {np.sort(degree).tolist()} parents."
        raise ValueError(message)
    # A node with d parents stands at place d or later. Placed in falling order of d, each has
    # the same number of places to choose from whatever was chosen before, so orders are uniform.
    order = np.full(p, -1, dtype=np.int64)
    for node in np.argsort(-degree, kind="stable"):
        free = degree[node] + np.flatnonzero(order[degree[node] :] < 0)
        order[free[generator.integers(len(free))]] = node
    parents: list[list[int]] = [[] for _ in range(p)]
    for place, node in enumerate(order):
        if degree[node]:
            parents[node] = generator.permutation(order[:place])[: degree[node]].tolist()
    return Dag.from_parents(parents)
