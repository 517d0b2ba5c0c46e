"""How much a network known before is believed, learned on the cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from nextpert.core._checks import as_numbers
from nextpert.core._shown import Shown
from nextpert.core.graph._equivalence import Pdag
from nextpert.core.graph.dag import Dag
from nextpert.core.search._classes import Scratch, local_score, pack_rows
from nextpert.core.search.minimal_imap import make_score
from nextpert.core.search.prior_knowledge import PriorKnowledge

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.screen.moments import Moments

_PSEUDO_PAIRS = 4.0  # pairs of the network that are as any other
_MOST = 15.0  # log-odds beyond which a belief is a certainty


@dataclass(frozen=True, repr=False)
class NetworkBelief(Shown):
    """Weight of a prior network in the score of its edges.

    Parameters
    ----------
    along
        Log-odds added to an edge of the network of mean weight, relative to any other pair of
        nodes, or to those that the score gives any edge if these are higher.
    against
        The same for an edge against one of the network.
    evidence
        Log evidence of the cells that the network's pairs differ from the others; if it is not
        above 0, ``along`` and ``against`` are 0.
    base
        Fraction of the pairs outside the network that are adjacent, estimated from the cells.
    n_edges, n_along, n_against
        Number of the network's edges, and of those that are in the graph along and against it.
    log_odds
        What the search added to the score of every edge, shape ``(n_nodes, n_nodes)``, row =
        parent.
    """

    along: float
    against: float
    evidence: float
    base: float
    n_edges: int
    n_along: int
    n_against: int
    log_odds: NDArray[np.float64]

    def stored(self) -> dict[str, float | int]:
        """Return the belief as plain numbers."""
        return {
            "log_odds_along": self.along,
            "log_odds_against": self.against,
            "log_evidence": self.evidence,
            "share_elsewhere": self.base,
            "n_edges": self.n_edges,
            "n_along": self.n_along,
            "n_against": self.n_against,
        }


def checked_network(network: ArrayLike, n_nodes: int) -> NDArray[np.float64]:
    """Return absolute weights of mean 1 over the edges."""
    weights = np.abs(as_numbers(network, "network"))
    if weights.shape != (n_nodes, n_nodes) or not np.isfinite(weights).all():
        message = f"network must be finite weights of shape ({n_nodes}, {n_nodes}), a row a parent."
        raise ValueError(message)
    np.fill_diagonal(weights, 0.0)
    if not weights.any():
        message = "The network has no edge between two of the nodes: leave it out."
        raise ValueError(message)
    return weights / weights[weights > 0].mean()


class Estimate(NamedTuple):
    """Log-odds over those of the pairs outside the network, and the share of these joined."""

    along: float
    against: float
    evidence: float
    base: float

    @property
    def base_odds(self) -> float:
        """Log-odds of one of the two edges of a pair outside the network."""
        return float(np.log(self.base / 2) - np.log1p(-self.base))


NOTHING = Estimate(0.0, 0.0, 0.0, 0.5)


def added_log_odds(
    weights: NDArray[np.float64], learned: Estimate, score_odds: float
) -> NDArray[np.float64]:
    """Return what the search adds to the score of every edge, row = parent."""
    if learned.evidence <= 0:
        return np.zeros_like(weights)
    cut = max(score_odds - learned.base_odds, 0.0)
    along = np.where(weights > 0, np.maximum(learned.along * weights - cut, 0.0), 0.0)
    turned = np.where(weights > 0, 0.0, weights.T)
    return along + np.where(turned > 0, learned.against * turned - cut, 0.0)


def belief_of(
    dag: Dag, weights: NDArray[np.float64], learned: Estimate, score_odds: float
) -> NetworkBelief:
    """Return what is said of a network that the graph was learned with."""
    edges, inside = dag.to_matrix().toarray() != 0, weights > 0
    mean = np.array([[0.0, 1.0], [0.0, 0.0]])  # one edge of mean weight
    of_mean = added_log_odds(mean, learned, score_odds)
    return NetworkBelief(
        along=float(of_mean[0, 1]),
        against=float(of_mean[1, 0]),
        evidence=learned.evidence,
        base=learned.base,
        n_edges=int(inside.sum()),
        n_along=int((edges & inside).sum()),
        n_against=int((edges & inside.T & ~inside).sum()),
        log_odds=added_log_odds(weights, learned, score_odds),
    )


def estimate_belief(state: NDArray[np.float64], weights: NDArray[np.float64]) -> Estimate:
    """Return the log-odds of largest likelihood, 0 where their log-evidence is not above 0.

    ``state[i, j]`` is the log-evidence of the edge from i to j over no edge, minus infinity where
    the rest of the graph rules it out, nan where the pair is not looked at.
    """
    a, b = np.nonzero(np.triu(~(np.isnan(state) | np.isnan(state.T)), 1))
    joined = (weights[a, b] > 0) | (weights[b, a] > 0)
    both = np.logaddexp(state[a, b], state[b, a])[~joined] - np.log(2)

    def loss(share: float) -> float:
        return -float(np.logaddexp(np.log1p(-share), np.log(share) + both).sum())

    # Half a pair joined and half a pair not, so that the share is inside (0, 1).
    base = float(
        minimize_scalar(
            lambda q: loss(q) - 0.5 * np.log(q) - 0.5 * np.log1p(-q),
            bounds=(1e-6, 1 - 1e-6), method="bounded",
        ).x
    )  # fmt: skip
    a, b = a[joined], b[joined]
    if not len(a):
        return Estimate(0.0, 0.0, 0.0, base)
    ends = weights[a, b], weights[b, a]
    lit = [(state[a, b], *ends), (state[b, a], *ends[::-1])]
    start = np.log(base / 2) - np.log1p(-base)
    shares = np.array([base / 2, base / 2, 1 - base])

    def log_likelihood(theta: NDArray[np.float64]) -> float:
        terms = [start + theta[0] * w + theta[1] * (w == 0) * v for _, w, v in lit]
        evidence = [t + s for t, (s, _, _) in zip(terms, lit, strict=True)]
        total = np.logaddexp(0.0, np.logaddexp(*evidence))
        return float((total - np.logaddexp(0.0, np.logaddexp(*terms))).sum())

    def objective(theta: NDArray[np.float64]) -> float:
        logits = np.array([start + theta[0], start + theta[1], 0.0])
        pseudo = shares @ (logits - np.logaddexp.reduce(logits))
        return -log_likelihood(theta) - _PSEUDO_PAIRS * pseudo

    bounds = [(-_MOST, _MOST)] * 2
    fits = [
        minimize(objective, x0, method="L-BFGS-B", bounds=bounds)
        for x0 in (np.zeros(2), np.array([3.0, -1.0]))
    ]
    theta = min(fits, key=lambda fit: float(fit.fun)).x
    gain = log_likelihood(theta) - log_likelihood(np.zeros(2)) - np.log(len(a))
    if gain <= 0 or theta[0] <= 0:
        return Estimate(0.0, 0.0, min(float(gain), 0.0), base)
    return Estimate(float(theta[0]), float(theta[1]), float(gain), base)


def edge_evidence(
    moments: Moments,
    dag: Dag,
    context_edges: NDArray[np.bool_],
    *,
    n_context: int = 0,
    score: str = "bic",
    penalty: float = 2.0,
    prior: PriorKnowledge | None = None,
    **_: Any,
) -> tuple[NDArray[np.float64], float]:
    """Return the log-evidence of every edge over none, row = parent, and the score's own log-odds.

    The other parents of both ends are those of the graph. An edge that would close a circle with
    the rest of it has minus infinity. Where cells do not tell the direction of an edge, both have
    that of the one in the graph. Pairs of which anything is known before are nan. Of the BIC, only
    ``log(n) / 2`` an edge is evidence; the rest of the penalty is the log-odds given to any edge.
    """
    p = moments.n_nodes - n_context
    known = PriorKnowledge(p) if prior is None else prior
    problem = make_score(moments, score, penalty, known.with_context(n_context))
    score_odds = -0.5 * (penalty - 1) * float(np.log(moments.n)) if score == "bic" else 0.0
    full = np.zeros((moments.n_nodes, moments.n_nodes), np.bool_)
    full[:p, :p] = dag.to_matrix().toarray() != 0
    full[p:, :p] = context_edges
    rows, scratch = pack_rows(full.T), Scratch.empty(moments.n_nodes)
    out = np.empty((p, p))
    for child in range(p):
        own = local_score(problem, rows[child], child, scratch)
        for parent in range(p):
            row = rows[child].copy()
            row[parent >> 6] ^= np.uint64(1 << (parent & 63))
            change = 0.0 if parent == child else local_score(problem, row, child, scratch) - own
            out[parent, child] = (-change if full[parent, child] else change) - score_odds
    _rule_out(out, full[:p, :p])
    graph = Pdag.of_class(Dag.from_matrix(full), n_context)
    for y in range(p):
        for x in graph.neighbours[y]:
            if full[x, y]:
                out[y, x] = out[x, y]
    out[known.before | known.before.T | known.forbidden | known.forbidden.T] = np.nan
    np.fill_diagonal(out, np.nan)
    return out, score_odds


def _rule_out(evidence: NDArray[np.float64], edges: NDArray[np.bool_]) -> None:
    """Set edges to minus infinity that a path from their child to their parent forbids."""
    p = len(edges)
    reach = np.zeros((p, p), np.bool_)  # by paths of any length
    for node in Dag.from_matrix(edges).order[::-1]:
        children = edges[node]
        reach[node] = children | reach[children].any(axis=0)
    longer = np.array([reach[row].any(axis=0) for row in edges])  # by two edges or more
    back = np.where(edges, longer, reach)
    evidence[back.T] = -np.inf
