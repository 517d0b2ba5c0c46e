"""The arcs of a graph whose direction neither the cells nor prior knowledge tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.graph._equivalence import Pdag
from nextpert.core.search._backward import agreeing_dag

if TYPE_CHECKING:
    from nextpert.core.graph.dag import Dag
    from nextpert.core.search.prior_knowledge import PriorKnowledge


def open_arcs(dag: Dag, prior: PriorKnowledge | None = None) -> list[tuple[int, int]]:
    """Return the arcs that point the other way in a graph of the same class.

    All graphs of a Markov equivalence class fit the cells of one environment equally well. With
    prior knowledge, only those members count that agree with it.
    """
    graph = Pdag.of_class(dag)
    reversible = [(x, y) for x, y in dag.edges() if x in graph.neighbours[y]]
    if prior is None:
        return reversible
    return [(x, y) for x, y in reversible if _can_turn(graph, x, y, prior)]


def _can_turn(graph: Pdag, x: int, y: int, prior: PriorKnowledge) -> bool:
    """Whether a member that agrees has y -> x: one that agrees when y must stand before x."""
    before = prior.before
    if before[x, y] or prior.forbidden[y, x]:
        return False
    above, below = before[:, y].copy(), before[x].copy()
    above[y] = below[x] = True
    return agreeing_dag(graph, before | np.outer(above, below), prior.forbidden) is not None
