"""Random graphs of the families used in the simulations of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng, require_count
from nextpert.core.dag import Dag

if TYPE_CHECKING:
    from collections.abc import Callable

    Edges = list[tuple[int, int]]


def random_dag(
    n_nodes: int,
    family: str = "erdos_renyi",
    *,
    expected_degree: float = 4.0,
    rng: int | np.random.Generator | None = None,
) -> Dag:
    """Draw a graph whose nodes are numbered in topological order.

    Parameters
    ----------
    n_nodes
        Number of nodes.
    family
        ``"complete"``, ``"erdos_renyi"``, ``"barabasi_albert"``, ``"path"``, ``"out_star"``,
        ``"in_star"``, ``"tree"`` (each node has one random earlier parent) or ``"empty"``.
    expected_degree
        Mean number of neighbours of a node (Erdos-Renyi, Barabasi-Albert).
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
    """
    p, generator = require_count(n_nodes, "n_nodes"), as_rng(rng)
    families: dict[str, Callable[[], Edges]] = {
        "complete": lambda: [(k, i) for i in range(p) for k in range(i)],
        "erdos_renyi": lambda: _erdos_renyi(p, expected_degree, generator),
        "barabasi_albert": lambda: _barabasi_albert(p, expected_degree, generator),
        "path": lambda: [(i - 1, i) for i in range(1, p)],
        "out_star": lambda: [(0, i) for i in range(1, p)],
        "in_star": lambda: [(k, p - 1) for k in range(p - 1)],
        "tree": lambda: [(int(generator.integers(i)), i) for i in range(1, p)],
        "empty": list,
    }
    if family not in families:
        message = f"Unknown graph family {family!r}: choose one of {sorted(families)}."
        raise ValueError(message)
    if not expected_degree >= 0:
        message = f"expected_degree must be 0 or above, but is {expected_degree!r}."
        raise ValueError(message)
    return Dag.from_edges(p, families[family]())


def _erdos_renyi(p: int, degree: float, rng: np.random.Generator) -> Edges:
    probability = min(degree / max(p - 1, 1), 1.0)
    rows, cols = np.tril_indices(p, -1)
    keep = rng.random(len(rows)) < probability
    return [(int(k), int(i)) for i, k in zip(rows[keep], cols[keep], strict=True)]


def _barabasi_albert(p: int, degree: float, rng: np.random.Generator) -> Edges:
    # Each new node takes m parents, drawn in proportion to their degree so far.
    m = max(round(degree / 2), 1)
    edges: Edges = []
    weight = np.ones(p)
    for i in range(1, p):
        share = weight[:i] / weight[:i].sum()
        for k in rng.choice(i, size=min(m, i), replace=False, p=share):
            edges.append((int(k), i))
            weight[[k, i]] += 1
    return edges
