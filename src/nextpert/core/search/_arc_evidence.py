"""What the cells say of every arc, given the rest of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core.graph._equivalence import Pdag
from nextpert.core.graph.dag import Dag
from nextpert.core.search._imap import Scratch
from nextpert.core.search._local_score import local_score
from nextpert.core.search._scores import make_score_problem
from nextpert.core.search.prior_knowledge import PriorKnowledge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.cells.moments import Moments
    from nextpert.core.search.boss import BossResult


def arc_evidence(
    moments: Moments,
    found: BossResult,
    *,
    n_exogenous: int = 0,
    score: str = "bic",
    penalty: float = 2.0,
    prior: PriorKnowledge | None = None,
    **_: Any,
) -> tuple[NDArray[np.float64], float]:
    """Return the log-evidence of every arc over none, row = parent, and the score's own log-odds.

    The other parents of both ends are those of the graph. An arc that would close a circle with
    the rest of it has minus infinity. Where cells do not tell the direction of an arc, both have
    that of the one in the graph. Pairs of which anything is known before are nan. Of the BIC, only
    ``log(n) / 2`` an arc is evidence; the rest of the penalty is the log-odds given to any arc.
    """
    p = moments.n_nodes - n_exogenous
    known = PriorKnowledge(p) if prior is None else prior
    problem = make_score_problem(moments, score, penalty, known.with_exogenous(n_exogenous))
    score_odds = -0.5 * (penalty - 1) * float(np.log(moments.n)) if score == "bic" else 0.0
    full = np.zeros((moments.n_nodes, moments.n_nodes), np.bool_)
    full[:p, :p] = found.dag.to_matrix().toarray() != 0
    full[p:, :p] = found.exogenous_arcs
    rows, scratch = np.zeros_like(problem.before), Scratch.empty(moments.n_nodes)
    for parent, child in np.argwhere(full):
        rows[child, parent >> 6] |= np.uint64(1 << (int(parent) & 63))
    out = np.empty((p, p))
    for child in range(p):
        own = local_score(problem, rows[child], child, scratch)
        for parent in range(p):
            row = rows[child].copy()
            row[parent >> 6] ^= np.uint64(1 << (parent & 63))
            change = 0.0 if parent == child else local_score(problem, row, child, scratch) - own
            out[parent, child] = (-change if full[parent, child] else change) - score_odds
    _rule_out(out, full[:p, :p])
    graph = Pdag.of_class(Dag.from_matrix(full), n_exogenous)
    for y in range(p):
        for x in graph.neighbours[y]:
            if full[x, y]:
                out[y, x] = out[x, y]
    out[known.before | known.before.T | known.forbidden | known.forbidden.T] = np.nan
    np.fill_diagonal(out, np.nan)
    return out, score_odds


def _rule_out(evidence: NDArray[np.float64], arcs: NDArray[np.bool_]) -> None:
    """Set arcs to minus infinity that a path from their child to their parent forbids."""
    p = len(arcs)
    reach = np.zeros((p, p), np.bool_)  # by paths of any length
    for node in Dag.from_matrix(arcs).order[::-1]:
        children = arcs[node]
        reach[node] = children | reach[children].any(axis=0)
    longer = np.array([reach[row].any(axis=0) for row in arcs])  # by two arcs or more
    back = np.where(arcs, longer, reach)
    evidence[back.T] = -np.inf
