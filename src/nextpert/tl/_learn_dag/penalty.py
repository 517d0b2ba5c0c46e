"""The penalty of the BIC, chosen by perturbations that a graph has not seen.

The BIC counts cells as independent samples. Cells that share a clone, a well or a cell state are
not: their noise varies together, and edges appear that only this sample has. Such edges predict the
cells of a perturbation that was left out worse than no edge does, so that held-out perturbations
show the penalty that is needed.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from nextpert._adata import list_names
from nextpert._adata.progress import progress
from nextpert._adata.read import read_screens
from nextpert._adata.screen import coding
from nextpert.tl._learn_dag.context import ContextNodes, Joint, search
from nextpert.tl._learn_dag.graphs import fold_streams, without_sets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert.core.search.registry import Found, SearchOptions
    from nextpert.tl._learn_dag.context import Panel

    Array = NDArray[np.float64]

logger = logging.getLogger(__name__)

# From the default on, which is the best with independent cells (benchmarks/known_targets.py).
PENALTIES = (2.0, 4.0, 8.0, 16.0, 32.0)
_N_FOLDS = 5  # of perturbations; also the fewest of which anything is known
_N_STARTS = 2  # losses are means over folds: the best of ten starts changes little


class HeldOutCells(NamedTuple):
    """What a graph is to predict of the perturbations of a fold; q nodes: genes, covariates."""

    shift: Array  # difference of means to the controls, batches off, (n_perturbations, q)
    within: Array  # covariance of their cells about the means of environments, (q, q)
    other: NDArray[np.bool_]  # genes that are no targets, (n_perturbations, n_genes)


def choose_penalty(
    panel: Panel, options: SearchOptions, n_jobs: int
) -> tuple[SearchOptions, pd.DataFrame]:
    """Return options with the penalty whose graphs predict best what they have not seen.

    The table has the ``loss`` of every penalty, above the least, and its ``standard_error``.
    Perturbations whose targets are known, by their labels or told, are left out in five folds.
    Loss is the negative log-likelihood (Gaussian, per gene and cell) of their cells given the graph
    and the weights of the others; their target genes' means are left to themselves. A network is
    not used. The highest penalty within one standard error of the best, as in the lasso, was no
    better in screens of correlated cells, and where cells were independent and the graph dense, it
    lost true edges.

    Raises
    ------
    ValueError
        If fewer than five perturbations have known targets.
    """
    known = known_genes(panel)
    if len(known) < _N_FOLDS:
        message = (
            f"penalty='auto' leaves out perturbations whose target genes are known and on the "
            f"panel, but there are {len(known)} ({list_names(known) or 'none'}): give a number, or "
            f"name the targets of {_N_FOLDS} or more with perturbation_targets."
        )
        raise ValueError(message)
    folds = _folds(panel, known)
    asked = replace(options, n_runs=min(options.n_runs, _N_STARTS), network=None)
    tasks = list(product(PENALTIES, folds))
    streams = fold_streams(len(tasks))
    where = "among the cells without some perturbations"

    def lost(number: int) -> Array:
        penalty, (joint, cells) = tasks[number]
        some = replace(asked, penalty=penalty)
        return held_out_loss(joint, search(joint, panel.genes, some, streams[number], where), cells)

    pool = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
    with progress(len(tasks), "Penalties") as bar:
        each = [(loss, bar.update())[0] for loss in pool(map(delayed(lost), range(len(tasks))))]
    losses = np.concatenate(each).reshape(len(PENALTIES), -1)
    best = int(np.argmin(losses.mean(axis=1)))  # the lowest of those with the same graphs
    more = losses - losses[best]
    error = more.std(axis=1, ddof=1) / np.sqrt(len(known))
    logger.info("Penalty %g predicts left-out perturbations best.", PENALTIES[best])
    table = {"penalty": PENALTIES, "loss": more.mean(axis=1), "standard_error": error}
    return replace(options, penalty=PENALTIES[best]), pd.DataFrame(table)


def _folds(panel: Panel, known: Mapping[str, Sequence[str]]) -> list[tuple[Joint, HeldOutCells]]:
    """Return, for every fold, the moments of the cells outside it, and the cells inside it.

    The cells are read once. Batches and conditions are taken off the means of what is left out.
    """
    adata, columns, genes, environments, told = panel
    labels, place = sorted(known), {gene: i for i, gene in enumerate(genes)}
    order = environments.groups([environments.roles.control, *labels])  # -1: targets not known
    fold = np.where(order > 0, (order - 1) % _N_FOLDS + 1, 0)  # 0 is never left out
    one = coding(
        {"environment": environments.codes}, fold=np.append(fold, 0)[environments.codes],
        extra=environments.covariates,
    )  # fmt: skip
    ((screen,), _) = read_screens(adata, columns, [one], layer=environments.roles.layer)
    every, group = screen.moments(), environments.levels(environments.roles.perturbation_key)
    fixed = np.hstack([environments.batches()[1], environments.conditions()[1]])
    if fixed.shape[1]:
        every = every.without_fixed(fixed, group)

    means = every.some(order >= 0).pool(order[order >= 0], len(labels) + 1).mean
    shifts = means[1:] - means[0]
    out, sets = [], [labels[k::_N_FOLDS] for k in range(_N_FOLDS)]
    for k, (rest, some) in enumerate(without_sets(environments, screen, sets)):
        other = np.ones((len(sets[k]), len(genes)), np.bool_)
        for row, name in enumerate(sets[k]):
            other[row, [place[gene] for gene in known[name]]] = False
        inside = screen.some(fold == k + 1).moments()
        within = inside.scatter / max(int(inside.n.sum()), 1)
        joint = Joint.of(some, len(genes), ContextNodes.of(rest, genes, told))
        out.append((joint, HeldOutCells(shifts[k::_N_FOLDS], within, other)))
    return out


def known_genes(panel: Panel) -> dict[str, list[str]]:
    """Return the target genes of every label that they are known of."""
    environments, told = panel.environments, panel.targets
    naming = environments.naming_on(panel.genes)
    out = {}
    for label in environments.perturbations():
        inside, outside = naming.targets(label)
        parts = [label] if label in told else [*inside, *outside]
        each = [told.get(part, [part] if part in inside else None) for part in parts]
        if parts and None not in each:
            out[label] = [gene for some in each for gene in some or ()]
    return out


def held_out_loss(joint: Joint, found: Found, cells: HeldOutCells) -> Array:
    """Return the negative log-likelihood of each perturbation left out, (n_perturbations,).

    With ``x_i = b x_P + e``, weights b and variance v by least squares on the cells seen, it is
    ``(log v + (w + m^2) / v) / 2`` per gene, w the variance of ``x_i - b x_P`` within the cells
    left out and m its mean's difference to the controls, which is not looked at in target genes.
    """
    p, q = cells.other.shape[1], len(cells.within)
    scatter, n = joint.moments.scatter, joint.moments.n
    # Of context nodes, covariates have values in the cells left out, and indicators are the same.
    node = np.r_[np.arange(p), np.where(joint.present < q - p, joint.present + p, -1)]
    left, variance = np.eye(p, q), np.empty(p)
    for gene in range(p):
        used = np.r_[found.dag.parents(gene), p + np.flatnonzero(found.context_edges[:, gene])]
        used = used.astype(np.int64)
        gram, cross = scatter[np.ix_(used, used)], scatter[used, gene]
        weights = np.linalg.lstsq(gram, cross, rcond=1e-12)[0]
        variance[gene] = (scatter[gene, gene] - weights @ cross) / n
        seen = node[used] >= 0
        left[gene, node[used][seen]] -= weights[seen]
    within = np.einsum("ij,jk,ik->i", left, cells.within, left)
    squares = np.where(cells.other, (cells.shift @ left.T) ** 2, 0.0)
    return np.mean(np.log(variance) + (within + squares) / variance, axis=1) / 2
