"""Expected effects by the weighted predictors, as the prior of shifts on a graph."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.effects.predictors.graph import Graph
from nextpert.core.effects.random_shifts import RandomShifts, learn_mixtures, refit
from nextpert.core.graph.dag import Dag
from nextpert.core.posterior.dag_blr import DagBlr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert.core.cells.pool_guides import PooledGuides
    from nextpert.core.effects.interactions import Together
    from nextpert.core.effects.predictors.base import Prediction
    from nextpert.core.effects.shift_prior import ShiftPrior

    Array = NDArray[np.float64]


def with_expectation(
    prior: ShiftPrior, own: Array, predictions: Sequence[Prediction], weights: Mapping[str, Array]
) -> ShiftPrior:
    """Return the prior with the effects that weighted predictors expect.

    The graph's part is told as a shift of the target genes, so that what is not known of the
    graph's weights is not known of it either; that of the others as an effect.

    Parameters
    ----------
    prior
        The prior to change.
    own
        Expected change of target genes, 0 elsewhere, shape ``(n_perturbations, n_nodes)``, units
        of the data.
    predictions
        What predictors expect of these perturbations; the graph's own is not read.
    weights
        Weight of each predictor, by name, for each perturbation, shape ``(n_perturbations,)``.
    """
    effect = np.zeros_like(own)
    for each in predictions:
        if each.name != Graph.name and weights[each.name].any():
            effect += weights[each.name][:, None] * each.effects
    shift = weights.get(Graph.name, np.zeros(len(own)))[:, None] * own
    return replace(prior, shift=shift, effect=effect + own - shift)


def unseen_mixture(
    cells: PooledGuides, found: RandomShifts, expected: Array, together: Together | None = None
) -> Array:
    """Return the weights of the prior variances for perturbations without cells.

    They are learned from what perturbations differ by from the effects expected without their
    cells, in units of a gene's variance and on no graph. So the error of the graph and of other
    predictors, own changes that are not known, and shifts of many genes together are all in them. A
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
