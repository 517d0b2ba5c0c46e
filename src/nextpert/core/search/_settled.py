"""What settled the direction of every arc of a graph, and which are open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.graph._equivalence import Pdag
from nextpert.core.graph.dag import Dag
from nextpert.core.search._backward import agreeing_dag
from nextpert.core.search.prior_knowledge import PriorKnowledge

if TYPE_CHECKING:
    from numpy.typing import NDArray


CELLS, INTERVENTIONS, PRIOR, OPEN = "cells", "interventions", "prior knowledge", "open"


def settled_by(
    dag: Dag,
    exogenous_arcs: NDArray[np.bool_] | None = None,
    prior: PriorKnowledge | None = None,
) -> list[tuple[int, int, str]]:
    """Return every arc ``(parent, child)`` with what settled its direction.

    ``"cells"``: all graphs of its Markov equivalence class agree, as the independences of cells
    of one environment tell. ``"interventions"``: all those agree that have the same arcs from
    what the experiment set (``exogenous_arcs``, shape ``(n_exogenous, n_nodes)``). ``"prior
    knowledge"``: all those agree that agree with it. ``"open"``: a graph that fits equally well
    has the arc the other way.
    """
    p = dag.n_nodes
    graph = alone = Pdag.of_class(dag)
    n_exogenous = 0 if exogenous_arcs is None else len(exogenous_arcs)
    known = PriorKnowledge(p) if prior is None else prior
    if exogenous_arcs is not None and n_exogenous:
        joint = np.zeros((p + n_exogenous, p + n_exogenous), np.bool_)
        joint[:p, :p] = dag.to_matrix().toarray() != 0
        joint[p:, :p] = exogenous_arcs
        graph = Pdag.of_class(Dag.from_matrix(joint), n_exogenous)
        known = known.with_exogenous(n_exogenous)
    out = []
    for x, y in dag.edges():
        if x in alone.parents[y]:
            how = CELLS
        elif x in graph.parents[y]:
            how = INTERVENTIONS
        else:
            how = OPEN if prior is None or _can_turn(graph, x, y, known) else PRIOR
        out.append((x, y, how))
    return out


def _can_turn(graph: Pdag, x: int, y: int, prior: PriorKnowledge) -> bool:
    """Whether a member that agrees has y -> x: one that agrees when y must stand before x."""
    before = prior.before.copy()
    before[y, x] = True
    return agreeing_dag(graph, before, prior.forbidden) is not None
