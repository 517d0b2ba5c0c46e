"""Expected effects by the stack of experts, as the prior of shifts on a graph."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.effects.experts import Expert, Perturbations, given_expert
from nextpert.core.effects.random_shifts import RandomShifts, learn_mixtures, refit
from nextpert.core.graph.dag import Dag
from nextpert.core.posterior.dag_blr import DagBlr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert.core.cells.pool_guides import PooledGuides
    from nextpert.core.effects.shift_prior import ShiftPrior

    Array = NDArray[np.float64]

GRAPH = "graph"
SUM = "sum of members"
OTHER_SCREEN = "other screen"


def sum_expert(
    perturbations: Perturbations, members: Sequence[Sequence[int]], found: RandomShifts
) -> Expert:
    """Return the sum of what the members of a combination do alone; nothing for the others.

    Its weight is how far effects add up: below 1 where they saturate. Members do what the fit says
    of them: by the means of their cells, which err, the weight would be too small.

    Parameters
    ----------
    perturbations
        The perturbations.
    members
        Numbers of the measured perturbations that each one is a combination of; none for those
        that are no combination, or whose members were not all measured alone.
    found
        The fit to all perturbations.
    """
    effects, shared = np.zeros((2, *perturbations.observed.shape))
    blr, known = found.posterior, found.prior.given(found.posterior)
    does = known.states(blr) - blr.predict_mean(np.zeros(blr.n_nodes))
    for j, alone in enumerate(members):
        if alone:
            effects[j] = does[list(alone)].sum(axis=0)
            shared[j] = known.share[list(alone)].sum(axis=0) * perturbations.control_variance
    own = perturbations.own()
    effects[own] = shared[own] = 0.0
    return Expert(SUM, effects, shared)


def with_expectation(
    prior: ShiftPrior, own: Array, experts: Sequence[Expert], weights: Array
) -> ShiftPrior:
    """Return the prior with expected effects by a stack.

    The graph's part is told as a shift of the own genes, so that what is not known of the graph's
    weights is not known of it either; that of the others as an effect.

    Parameters
    ----------
    prior
        The prior to change.
    own
        Expected change of own genes, 0 elsewhere, shape ``(n_perturbations, n_nodes)``, units of
        the data.
    experts
        The experts on these perturbations.
    weights
        Weight of each expert for each perturbation, shape ``(n_perturbations, n_experts)``.
    """
    by_graph = np.zeros(len(own))
    effect = np.zeros_like(own)
    for expert, weight in zip(experts, weights.T, strict=True):
        if expert.name == GRAPH:
            by_graph = weight
        elif weight.any():
            effect += weight[:, None] * expert.effects
    shift = by_graph[:, None] * own
    return replace(prior, shift=shift, effect=effect + own - shift)


def unseen_mixture(cells: PooledGuides, found: RandomShifts, expected: Array) -> Array:
    """Return the weights of the prior variances for perturbations without cells.

    They are learned from what perturbations differ by from the effects expected without their
    cells, in units of a gene's variance and on no graph. So the error of the graph and of other
    experts, own changes that are not known, and shifts of many genes together are all in them. A
    shift of each gene ``i`` with the variance ``tau^2 sigma_i^2`` is one of ``tau^2`` times the
    variance of cells in every effect, whatever the graph: they serve as weights for shifts.

    Parameters
    ----------
    cells
        The controls, and then the perturbations.
    found
        The fit to them.
    expected
        Effect expected of every perturbation without its cells, shape
        ``(n_perturbations, n_nodes)``, units of the data.
    """
    empty = DagBlr(Dag.from_edges(cells.mean.shape[1], []))
    prior = replace(found.prior, shift=expected, effect=np.zeros_like(expected))
    return learn_mixtures(refit(empty, cells, found), prior).weights.mean(axis=0)


def by_name(
    perturbations: Perturbations, names: Sequence[str], known: Mapping[str, Array], expert: str
) -> Expert:
    """Return what is known from elsewhere of perturbations by their names, else nothing."""
    shape = (len(names), perturbations.moments.n_nodes)
    effects = np.full(shape, np.nan)
    for row, name in zip(effects, names, strict=True):
        if name in known:
            row[:] = known[name]
    return given_expert(perturbations, effects, expert)
