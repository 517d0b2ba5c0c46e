"""Expected effects by the stack of experts, as the prior of shifts on a graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
TOGETHER = "members together"
OTHER_SCREEN = "other screen"


@dataclass(frozen=True)
class Together:
    """What members do together, for some of the perturbations: mean and variance of the effect.

    Parameters
    ----------
    rows
        Numbers of the combinations among the perturbations.
    mean, variance
        Effects expected of them and their variances, shape ``(len(rows), n_nodes)``, units of
        the data and their square.
    shared
        Share of the control mean's sampling error in ``mean``, shape ``(len(rows), n_nodes)``.
    """

    rows: NDArray[np.int64]
    mean: Array
    variance: Array
    shared: Array

    def expert(self, perturbations: Perturbations) -> Expert:
        """Return what members do together as an expert that is settled; nothing for others."""
        effects, shared = np.zeros((2, *perturbations.observed.shape))
        effects[self.rows] = self.mean
        shared[self.rows] = self.shared * perturbations.control_variance
        own = perturbations.own()
        effects[own] = shared[own] = 0.0
        return Expert(TOGETHER, effects, shared, settled=True)

    def silenced(self, expert: Expert) -> Expert:
        """Return another expert that has nothing to say of combinations."""
        effects = expert.effects.copy()
        effects[self.rows] = 0.0
        shared = None if expert.shared is None else expert.shared.copy()
        if shared is not None:
            shared[self.rows] = 0.0
        return replace(expert, effects=effects, shared=shared)

    def told(self, prior: ShiftPrior, ratio: Array) -> ShiftPrior:
        """Return the prior with the effects of combinations, own genes included.

        ``ratio`` of the noise variance of every node to the variance of its cells, shape
        ``(n_nodes,)``: a shift of each gene with ``tau^2`` of its noise is one of ``tau^2`` of
        the variance of cells in every effect, whatever the graph.
        """
        shift, effect, own = prior.shift.copy(), prior.effect.copy(), prior.own.copy()
        shift[self.rows], effect[self.rows] = 0.0, self.mean
        own[self.rows] = self.variance * ratio
        return replace(prior, shift=shift, effect=effect, own=own)


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


def unseen_mixture(
    cells: PooledGuides, found: RandomShifts, expected: Array, together: Together | None = None
) -> Array:
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
    together
        What is expected of combinations, which are no matter of the mixture.
    """
    empty = DagBlr(Dag.from_edges(cells.mean.shape[1], []))
    prior = replace(found.prior, shift=expected, effect=np.zeros_like(expected))
    single = np.ones(len(expected), bool)
    if together is not None:
        prior = together.told(prior, np.ones(expected.shape[1]))
        single[together.rows] = False
    weights = learn_mixtures(refit(empty, cells, found), prior).weights
    return weights[single if single.any() else ~single].mean(axis=0)


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
