"""Expected effects by the stack of experts, as the prior of shifts on a graph."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.effects.experts import Expert, Perturbations, given_expert

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert.core.effects.shift_prior import ShiftPrior

    Array = NDArray[np.float64]

GRAPH = "graph"
SUM = "sum of members"


def sum_expert(perturbations: Perturbations, members: Sequence[Sequence[int]]) -> Expert:
    """Return the sum of what the members of a combination do alone; nothing for the others.

    Its weight is how far effects add up: below 1 where they saturate.

    Parameters
    ----------
    perturbations
        The perturbations.
    members
        Numbers of the measured perturbations that each one is a combination of; none for those
        that are no combination, or whose members were not all measured alone.
    """
    effects, shared = np.zeros((2, *perturbations.observed.shape))
    observed = perturbations.observed
    for j, alone in enumerate(members):
        if alone:
            effects[j] = observed[list(alone)].sum(axis=0)
            shared[j] = len(alone) * perturbations.control_variance
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
