"""What graphs, coexpression and other perturbations say of a perturbation that was left out.

All take the statistics of the other cells, and return the effect on every gene per unit of the
perturbation's own change (or, for the mean of the others, the effect itself).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import nextpert as npt
from nextpert.core import Dag, Moments, PriorKnowledge, boss, context_moments, gsp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from benchmarks._screens import Screen, Statistics

Found = tuple[Dag, np.ndarray]  # a graph, and the genes each perturbation acts on directly


def plain_moments(found: Statistics) -> Moments:
    """Return the moments of all cells, batches taken off."""
    return context_moments(found.moments, found.indicators()[:, :0], fixed=found.fixed)


def joint_moments(found: Statistics) -> Moments:
    """Return the moments of genes and indicators of perturbations, batches taken off."""
    return context_moments(found.moments, found.indicators(), fixed=found.fixed)


def isolated(moments: Moments, n_genes: int) -> Moments:
    """Return the moments with genes that do not vary in a resample as nodes joined to nothing."""
    lost = [int(i) for i in moments.constant_nodes() if i < n_genes]
    scatter = moments.scatter.copy()
    scatter[lost] = scatter[:, lost] = 0.0
    scatter[lost, lost] = moments.n * (1 + moments.mean[lost] ** 2)
    return Moments(moments.n, moments.mean, scatter)


def search_controls(controls: Statistics, *, method: str = "boss", rng: int = 0) -> Dag:
    """Return the graph of the control cells."""
    moments = isolated(plain_moments(controls), controls.moments.n_nodes)
    best = boss(moments, rng=rng)
    return best.dag if method == "boss" else gsp(moments, orders=best.order, rng=rng).dag


def search_all(
    found: Statistics, first: Iterable[int] | None = None, *, n_starts: int = 1, rng: int = 0
) -> Found:
    """Return the graph of all cells with indicators of perturbations, some genes first."""
    p = found.moments.n_nodes
    joint = isolated(joint_moments(found), p)
    prior = None
    if first is not None:
        early = sorted(set(first))
        prior = PriorKnowledge(p, tiers=[early, [i for i in range(p) if i not in set(early)]])
    result = boss(joint, n_context=joint.n_nodes - p, prior=prior, n_starts=n_starts, rng=rng)
    return result.dag, result.context_edges


def learn_all(found: Screen, perturbations: list[str], **options: Any) -> Found:
    """Return the same by the public function: ``tl.learn_dag`` on the cells of some labels."""
    roles = found.environments.roles
    kept = found.cells.obs[roles.perturbation_key].isin(perturbations)
    cells = found.cells[kept.to_numpy()].copy()
    npt.pp.setup_screen(
        cells, perturbation_key=roles.perturbation_key, control=roles.control,
        batch_key=list(roles.batch_key),
    )  # fmt: skip
    npt.tl.learn_dag(cells, method="boss", environments="all", search_options=options)
    labels = sorted(set(perturbations) - {roles.control})
    edges = np.zeros((len(labels), cells.n_vars), bool)
    table = cells.uns["dag"]["direct_targets"]
    for name, gene in zip(table["perturbation"], table["gene"], strict=True):
        acting = [name == label or name in label.split("+") for label in labels]
        edges[acting, cells.var_names.get_loc(gene)] = True
    return Dag.from_matrix(cells.varp["dag"]), edges


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


def coexpression(moments: Moments, gene: int) -> np.ndarray:
    """Return the slopes of all genes on one."""
    return moments.scatter[:, gene] / moments.scatter[gene, gene]
