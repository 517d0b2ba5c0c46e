"""Random graphs of the paper's families, and random graphs with given numbers of parents."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng, require_count
from nextpert.core.graph.dag import Dag

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

FAMILIES = ("complete", "erdos_renyi", "path")


def random_dag(
    n_nodes: int,
    family: str = "erdos_renyi",
    *,
    expected_degree: float = 4.0,
    rng: int | np.random.Generator | None = None,
) -> Dag:
    """Draw a graph whose nodes are numbered in topological order.

    The families are those of the simulations of Zhang et al. 2023
    (doi:10.1038/s42256-023-00719-0).

    Parameters
    ----------
    n_nodes
        Number of nodes.
    family
        ``"complete"``: all pairs are joined; ``"erdos_renyi"``: every pair is joined with the same
        probability; ``"path"``: one directed path.
    expected_degree
        Mean number of neighbours of a node of an Erdos-Renyi graph.
    rng
        Seed or generator.

    Examples
    --------
    >>> from nextpert.core import random_dag
    >>> random_dag(4, "path").edges()
    [(0, 1), (1, 2), (2, 3)]
    """
    p, generator = require_count(n_nodes, "n_nodes"), as_rng(rng)
    if family not in FAMILIES:
        message = f"Unknown graph family {family!r}: choose one of {sorted(FAMILIES)}."
        raise ValueError(message)
    if not expected_degree >= 0:
        message = f"expected_degree must be 0 or above, but is {expected_degree!r}."
        raise ValueError(message)
    if family == "path":
        return Dag.from_edges(p, pairwise(range(p)))
    # Parents have smaller numbers than children.
    rows, columns = np.tril_indices(p, -1)
    if family == "erdos_renyi":
        kept = generator.random(len(rows)) < expected_degree / max(p - 1, 1)
        rows, columns = rows[kept], columns[kept]
    return Dag.from_edges(p, zip(columns.tolist(), rows.tolist(), strict=True))


def matched_random_dag(
    in_degree: ArrayLike, *, rng: int | np.random.Generator | None = None
) -> Dag:
    """Draw a random acyclic graph with given numbers of parents.

    An order is drawn uniformly among those in which every node has enough nodes before it, then
    the parents of every node uniformly among the nodes before it.

    Examples
    --------
    >>> from nextpert.core.graph.random_dag import matched_random_dag
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
