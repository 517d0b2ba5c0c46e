"""Own target genes, which say nothing of whether a candidate does what the target does."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata import list_names
from nextpert.core.design.joint_draws import NOT_JOINED, control_by_node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.fit.candidates import CandidateSet
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.tl._design_interventions.target import Wanted

    Vector = NDArray[np.float64]

logger = logging.getLogger(__name__)

LEAST_LEFT = 0.5  # of the control's distance, without a candidate's own genes, to rank it


def without_own_genes(
    pool: CandidateSet, wanted: Wanted, fit: FittedPosterior
) -> tuple[CandidateSet, Wanted]:
    """Return the candidates that can be ranked, and what is wanted of each.

    Towards the state of a perturbation, the genes that it targets count for nobody, and those that
    a candidate targets do not count for it (equation 28). A candidate without whose genes less than
    half of the control's distance is left is not ranked. The log says so.

    Raises
    ------
    ValueError
        If no gene is left, or no candidate.
    """
    if pool.is_exact:  # no draws of these states hold the target
        cells = replace(wanted, goal=wanted.cells, targets=NOT_JOINED, target_genes=None)
        return pool, cells
    if wanted.target_genes is None:
        return pool, wanted
    bound, left = bind(wanted, fit, pool.interventions.targets)
    kept = np.flatnonzero(left >= LEAST_LEFT)
    remedy = f"Give nextpert.Target(state={wanted.label or '...'!r}, own_genes='include')."
    if not len(kept):
        message = (
            f"No candidate can be ranked: the target genes of each are more than half of the "
            f"control's distance to {wanted.name}. {remedy}"
        )
        raise ValueError(message)
    if len(kept) < len(left):
        names, targets = pool.interventions.names, pool.interventions.targets
        not_ranked = {
            names[i]: f"without {list_names(targets[i])}, {100 * left[i]:.0f}% of the control's "
            f"distance is left"
            for i in np.flatnonzero(left < LEAST_LEFT)
        }
        pool, bound = pool.rows(kept), replace(bound.rows(kept), not_ranked=not_ranked)
        words = (f"{name} ({why})" for name, why in not_ranked.items())
        logger.warning("Not ranked: %s. %s", list_names(words), remedy)
    if any(bound.left_out):
        logger.info("Distances to %s are measured %s.", wanted.name, bound.genes_in_words)
    return pool, bound


def bind(
    wanted: Wanted, fit: FittedPosterior, targets: Sequence[Sequence[str]]
) -> tuple[Wanted, Vector]:
    """Return what is wanted of candidates with these target genes.

    And the share of the control's distance that is left without them, ``(n_candidates,)``.

    Raises
    ------
    ValueError
        If the perturbations of the target target all genes that count.
    """
    place = {gene: i for i, gene in enumerate(fit.genes)}
    common = [place[gene] for gene in wanted.target_genes or ()]
    states = fit.states(np.empty(0, np.int64), None, wanted.targets)
    control = control_by_node(states, wanted.goal)
    control[common] = 0.0
    if not control.sum() > 0:
        message = (
            f"The genes that count are all targets of {wanted.name}: give "
            f"nextpert.Target(own_genes='include'), or other weights."
        )
        raise ValueError(message)
    weighed = (wanted.goal.weights > 0) & ~np.isin(np.arange(len(place)), common)
    each = [[place[gene] for gene in some if weighed[place[gene]]] for some in targets]
    left = 1.0 - np.array([control[some].sum() for some in each]) / control.sum()
    first = [gene for gene in wanted.target_genes or () if wanted.goal.weights[place[gene]] > 0]
    bound = replace(
        wanted,
        goal=wanted.goal.leave_out(common, each, control),
        cells=wanted.cells.leave_out(common, each, control),
        every=wanted.goal,
        left_out=[[*first, *(fit.genes[i] for i in some)] for some in [*each, []]],
    )
    return bound, left
