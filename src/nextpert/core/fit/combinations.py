"""What a fit says of combinations without cells, and members without: their interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.fit.candidates import CandidateSet, as_expected, as_fitted
from nextpert.core.fit.naming import numbered, pooled
from nextpert.core.model.interactions import learn_interactions
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictors.mean_perturbation import MeanPerturbation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.fit.interventions import Interventions
    from nextpert.core.model.interactions import Interactions
    from nextpert.core.model.unseen_scale import WithoutCells

    Array = NDArray[np.float64]


def fitted_candidates(interventions: Interventions, fit: FittedPosterior) -> CandidateSet:
    """Return candidates, with cells or without, with the prior that the fit has for them.

    Combinations without cells are predicted from their members, and perturbations that have cells
    only in combinations are predicted from these.
    """
    if fit.is_exact:
        return CandidateSet.exact(interventions)
    pool = as_expected(interventions, fit)
    rows, members = _without_cells(interventions.names, fit)
    prior = pool.without_cells
    if not rows or prior is None:
        return pool
    known, numbers, _ = _interactions(members, fit)
    number = (np.cumsum(~pool.measured) - 1)[rows]
    prior.effect[number], prior.own_variance[number] = known.predict(numbers)
    return pool


def shared_with_controls(names: Sequence[str], fit: FittedPosterior) -> tuple[list[int], Array]:
    """Return the combinations without cells, and how far the controls' mean is in what they do.

    Effects of members are differences from the controls' mean, as far as cells are believed of
    them; of a member without cells only the mean perturbation is such a difference.

    Returns
    -------
    rows
        Places among ``names`` of combinations without cells.
    shared
        Share of the sampling error of the controls' mean in the effect expected of each, shape
        ``(len(rows), n_genes)``.
    """
    rows, members = _without_cells(names, fit)
    row, data_weight = _alone_in(fit), fit.data_weight()
    strength, expected = 1.0, np.zeros(len(fit.genes))
    if fit.expectation is not None:
        expected += fit.expectation.weights.get(MeanPerturbation.name, 0.0)
        if fit.expectation.interactions is not None:
            strength = fit.expectation.interactions.strength
    shared = np.zeros((len(rows), len(fit.genes)))
    for each, some in zip(shared, members, strict=True):
        each += np.sum([data_weight[row[m]] if m in row else expected for m in some], axis=0)
        each *= strength if len(some) > 1 else 1.0
    return rows, shared


def _alone_in(fit: FittedPosterior) -> dict[str, int]:
    """Return the row of every member that was perturbed alone."""
    return {some[0]: j for j, some in enumerate(fit.members) if len(some) == 1}


def _without_cells(
    names: Sequence[str], fit: FittedPosterior
) -> tuple[list[int], list[tuple[str, ...]]]:
    """Return the places of combinations without cells, and their members.

    Of members, too, that have cells in combinations alone.
    """
    new = ~np.append(fit.seen, False)[fit.rows_of(names)]
    every = [fit.naming.members(name) for name in names]
    rows = [
        i for i, some in enumerate(every) if new[i] and (len(some) > 1 or some in fit.in_company)
    ]
    return rows, [every[i] for i in rows]


def _interactions(
    combinations: Sequence[tuple[str, ...]], fit: FittedPosterior
) -> tuple[Interactions, list[tuple[int, ...]], Array]:
    """Return the interactions of the fit, and the members in it of some combinations.

    And the variance of cells of one perturbation, ``(n_genes,)``.
    """
    expectation = fit.expectation
    record = None if expectation is None else expectation.interactions
    within = fit.posterior.noise_var
    if expectation is not None:
        cell = Perturbations(expectation.seen.moments, 0, [], []).within
        within = np.maximum(cell, np.finfo(np.float64).tiny)
    scale, joint = np.sqrt(within), []
    if record is not None:
        joint = [j for j, some in enumerate(fit.members) if len(some) > 1 and fit.seen[j]]
    labels, numbers = numbered([*(fit.members[j] for j in joint), *combinations])
    # What members do alone: of those with cells as fitted, of others as predictors expect.
    single = _alone_in(fit)
    alone, variance = np.full((2, len(labels), len(fit.genes)), np.nan)
    cells = [k for k, label in enumerate(labels) if label in single]
    without = [
        k for k, label in enumerate(labels)
        if label not in single
        and (label in fit.genes or fit.is_described(label)
             or (fit.takes_any_label and (label,) not in fit.in_company))
    ]  # fmt: skip
    if cells:
        rows = np.array([single[labels[k]] for k in cells])
        alone[cells], variance[cells] = _alone(fit, rows)
        # That of all singles: what a pair does is not to depend on the other candidates.
        mean, spread = _alone(fit, np.array(sorted(single.values())))
        squares = mean**2 + spread
        scale = np.sqrt((squares.sum(axis=0) + squares.mean()) / (len(squares) + 1))
    if without:
        names = [labels[k] for k in without]
        inside = [[name] if name in fit.genes else [] for name in names]
        unseen = as_expected(as_fitted(names, inside, fit), fit)
        alone[without], variance[without] = _alone(fit, unseen.place, unseen.without_cells)
    # What the measured combinations did, and how far that was learned to add up.
    combined, effects, noise = numbers[: len(joint)], *np.zeros((2, len(joint), len(fit.genes)))
    if expectation is not None and joint:
        seen = Perturbations(expectation.seen.moments, 0, 1 + np.array(joint), [()] * len(joint))
        combined, effects, noise, _ = pooled(combined, seen.observed, seen.variance)
    known = learn_interactions(
        alone, variance, combined, effects, noise, scale=scale, learned=record
    )
    return known, numbers[len(joint) :], within


def _alone(
    fit: FittedPosterior, place: NDArray[np.int64], prior: WithoutCells | None = None
) -> tuple[Array, Array]:
    """Return mean and variance of effects, ``(n_perturbations, n_genes)``."""
    draws = fit.effects(place, prior)
    return draws.posterior_mean(), draws.sd() ** 2
