"""Random graphs of the families used in the simulations of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextpert.core._checks import as_rng, require_count
from nextpert.core.graph._graph_families import FAMILIES
from nextpert.core.graph.dag import Dag

if TYPE_CHECKING:
    import numpy as np


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
        One of

        - ``"complete"``: all pairs are joined.
        - ``"erdos_renyi"``: every pair is joined with the same probability.
        - ``"barabasi_albert"``: new nodes choose parents by their degree.
        - ``"path"``: one directed path; ``"line"``: a chain, its arcs pointing either way.
        - ``"out_star"``, ``"in_star"``: one parent of all the others, or one child.
        - ``"tree"``: a random tree, its arcs pointing either way; ``"rooted_tree"``: all pointing
          away from a random root.
        - ``"chordal"``: random parents, then the parents of every node are joined, so that no
          cycle of four or more nodes lacks a chord.
        - ``"clique_tree"``: overlapping cliques of 3 or 4 nodes, joined like a tree.
        - ``"empty"``: no arcs.
    expected_degree
        Mean number of neighbours of a node (Erdos-Renyi, Barabasi-Albert; chordal before parents
        are joined). The paper's graphs: ``0.2 (n_nodes - 1)``, 4 and ``0.2 (n_nodes - 1)``.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        For an unknown family, or an expected degree below 0.

    Examples
    --------
    >>> from nextpert.core import random_dag
    >>> random_dag(4, "path").edges()
    [(0, 1), (1, 2), (2, 3)]
    >>> random_dag(30, "clique_tree", rng=0).in_degree.max()
    np.int64(3)
    """
    p, generator = require_count(n_nodes, "n_nodes"), as_rng(rng)
    if family not in FAMILIES:
        message = f"Unknown graph family {family!r}: choose one of {sorted(FAMILIES)}."
        raise ValueError(message)
    if not expected_degree >= 0:
        message = f"expected_degree must be 0 or above, but is {expected_degree!r}."
        raise ValueError(message)
    return Dag.from_edges(p, FAMILIES[family](p, expected_degree, generator))
