"""Graphs, and their predictions of a perturbation that was left out.

All take the statistics of the other cells, and return the effect on every gene per unit of the
perturbation's own change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core import Dag, Moments, PriorKnowledge, boss, context_moments, gsp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from benchmarks._screens import Statistics

Found = tuple[Dag, np.ndarray]  # a graph, and the genes each perturbation acts on directly


def plain_moments(found: Statistics) -> Moments:
    """Return the moments of all cells, batches taken off."""
    return context_moments(found.moments, found.indicators()[:, :0], fixed=found.fixed)


def joint_moments(found: Statistics) -> Moments:
    """Return the moments of genes and indicators of perturbations, batches taken off."""
    return context_moments(found.moments, found.indicators(), fixed=found.fixed)


def search_controls(controls: Statistics, *, method: str = "boss", rng: int = 0) -> Dag:
    """Return the graph of the control cells."""
    moments = plain_moments(controls)
    best = boss(moments, rng=rng)
    return best.dag if method == "boss" else gsp(moments, orders=best.order, rng=rng).dag


def search_all(
    found: Statistics,
    first: Iterable[int] | None = None,
    *,
    targets: Mapping[str, int] | None = None,
    n_starts: int = 1,
    rng: int = 0,
) -> Found:
    """Return the graph of all cells with indicators of perturbations.

    Some genes may come ``first``, and some perturbations have known ``targets``.
    """
    p, joint, prior = found.moments.n_nodes, joint_moments(found), None
    if first is not None:
        early = set(first)
        prior = PriorKnowledge(p, before=[(i, k) for i in early for k in set(range(p)) - early])
    known = {} if targets is None else targets
    acting = {k: [known[name]] for k, name in enumerate(found.perturbations) if name in known}
    result = boss(
        joint, n_context=joint.n_nodes - p, prior=prior, targets=acting, n_starts=n_starts, rng=rng
    )
    return result.dag, result.context_edges


def fit_weights(
    found: Statistics, dag: Dag, edges: np.ndarray | None, targets: Mapping[str, int]
) -> np.ndarray:
    """Return B of a graph, fitted to all cells: row = child, shape ``(p, p)``.

    The regression of a gene has its parents, the indicators of the perturbations that act on it
    by ``edges`` (``None``: no others), and of those that target it.
    """
    joint, p = joint_moments(found), dag.n_nodes
    names = found.perturbations
    acts = np.zeros((len(names), p), bool) if edges is None else edges.copy()
    for k, name in enumerate(names):
        if name in targets:
            acts[k, targets[name]] = True
    weights = np.zeros((p, p))
    for i in range(p):
        parents = dag.parents(i)
        columns = np.r_[parents, p + np.flatnonzero(acts[:, i])]
        if len(parents):
            gram = joint.scatter[np.ix_(columns, columns)]
            solved = np.linalg.lstsq(gram, joint.scatter[columns, i], rcond=1e-12)[0]
            weights[i, parents] = solved[: len(parents)]
    return weights


def total_effects(weights: np.ndarray) -> np.ndarray:
    """Return effects of a unit change of each gene on all, column = the gene that changes."""
    total = np.linalg.inv(np.eye(len(weights)) - weights)
    return total / np.diag(total)
