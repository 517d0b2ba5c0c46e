"""How much weight each predictor gets on a screen: graph, coexpression, other perturbations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata.posterior import StackRecord
from nextpert.core.effects.perturbations import Perturbations
from nextpert.core.effects.predictors.base import Prediction, Sources, build_predictors
from nextpert.core.effects.predictors.graph import Graph
from nextpert.core.effects.predictors.members import Members
from nextpert.core.effects.random_shifts import learn_mixtures, refit
from nextpert.core.effects.stack import Stack, learn_stack
from nextpert.core.effects.stacked import unseen_mixture, with_expectation
from nextpert.tl._fit_dag_blr.together import learn_together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.effects.interactions import Interactions
    from nextpert.core.effects.random_shifts import RandomShifts
    from nextpert.core.effects.shift_prior import ShiftPrior
    from nextpert.tl._fit_dag_blr.cells import FitCells
    from nextpert.tl._fit_dag_blr.expected import Expected
    from nextpert.tl._fit_dag_blr.spec import Graphs, Spec

    Array = NDArray[np.float64]

FEWEST = 3  # perturbations, to learn from
_FOLDS = 5  # of perturbations, each left out of one graph


@dataclass(frozen=True)
class Stacked:
    """A stack, and what it leaves of the effects of perturbations without cells.

    Parameters
    ----------
    stack
        The stack.
    unseen
        Weights of the prior variances ``TAU2`` for a perturbation without cells, shape
        ``(n_components,)``.
    interactions
        What the members of combinations do together; ``None`` where there are no combinations.
    seen, predictors
        What it was learned from: the perturbations, and what each predictor said of them without
        their cells.
    """

    stack: Stack
    unseen: Array
    interactions: Interactions | None
    seen: Perturbations
    predictors: list[Prediction]


def folds(n: int) -> list[NDArray[np.int64]]:
    """Return the rows of perturbations that are left out together, of ``n`` in all."""
    return [np.arange(k, n, _FOLDS) for k in range(min(_FOLDS, n))]


def folds_of(names: Sequence[str]) -> list[list[str]]:
    """Return the labels that a fit to some perturbations leaves out of its graphs together."""
    if len(names) < FEWEST:
        return []
    return [[names[j] for j in fold] for fold in folds(len(names))]


def stacked(
    spec: Spec, cells: FitCells, expected: Expected, found: RandomShifts, graphs: Graphs
) -> tuple[ShiftPrior, Stacked | None]:
    """Return the prior of shifts by a stack of predictors, and the stack.

    With fewer than three perturbations there is nothing to learn it from: the graph is believed.
    """
    names = expected.used.names
    if len(names) < FEWEST:
        return found.prior, None
    place = {gene: i for i, gene in enumerate(spec.genes)}
    targets = [[place[gene] for gene in some] for some in expected.used.targets]
    every = np.arange(1, len(targets) + 1)
    seen = Perturbations(
        cells.screen, 0, every, targets, batches=cells.pooled.fixed_errors, names=names
    )
    both = learn_together([spec.naming.members(name) for name in names], found, seen)
    known, together = (None, None) if both is None else both
    # Graphs that have not seen the perturbations.
    by_fold = folds(len(names))
    dags = graphs.without(folds_of(names))
    weights = [
        (fold, refit(spec.posterior(dag), cells.pooled, found, without=fold).mean().toarray())
        for fold, dag in zip(by_fold, dags, strict=True)
    ]
    asked = build_predictors(
        Sources(held_out_weights=weights, other_screen=spec.other, together=together)
    )
    members = next((each for each in asked if isinstance(each, Members)), None)

    def held_out(change: Array | None, before: Sequence[Prediction] = ()) -> list[Prediction]:
        """Return what predictors expect, given the change of target genes (``None``: observed).

        What does not depend on that change is taken from ``before``.
        """
        some = replace(seen, change=change)
        found = [
            each.held_out(some) if each.uses_change or not before else before[k]
            for k, each in enumerate(asked)
        ]
        if members is None:
            return found
        return [members.silenced(p) for p in found]

    predictors = held_out(None)
    stack = learn_stack(seen.observed, seen.variance, predictors, seen.scored(), sd=seen.sd)
    # What is expected starts from target genes' changes as far as cells say, not as they came out.
    told = predictors if expected.efficacy is None else held_out(expected.change, predictors)
    by_name = dict(zip(stack.names, stack.left_out.T, strict=True))
    prior = with_expectation(found.prior, expected.used.shifts, told, by_name)
    if together is not None:
        within = np.maximum(seen.covariance().diagonal(), np.finfo(np.float64).tiny)
        prior = together.told(prior, found.posterior.noise_var / within)
    prior = learn_mixtures(found.posterior, prior)
    # Of a perturbation without cells the change of the target gene is not known either. As far as
    # the graph has weight, what is left are shifts on it; beyond that, effects as they are.
    own = expected.used.shifts
    without = own + stack.expected(held_out(own, predictors))
    unseen = unseen_mixture(cells.pooled, found, without, together)
    believed = min(float(stack.weights[stack.names.index(Graph.name)]), 1.0)
    unseen = believed * prior.weights.mean(axis=0) + (1.0 - believed) * unseen
    return prior, Stacked(stack, unseen, known, seen, predictors)


def stack_record(stacked: Stacked) -> StackRecord:
    """Return the stack as it is stored."""
    stack = stacked.stack
    return StackRecord(
        list(stack.names), stack.weights, np.nan_to_num(stack.alone, nan=1.0),
        float(np.nan_to_num(stack.error, nan=1.0)), stack.residual_variance, stacked.unseen,
        stacked.interactions,
    )  # fmt: skip


def stack_in_words(stack: Stack) -> str:
    """Return the weights for the log line."""
    shares = ", ".join(
        f"{name} {weight:.2f}" for name, weight in zip(stack.names, stack.weights, strict=True)
    )
    return (
        f"Weights of what is expected of a perturbation without cells: {shares} (left-out error "
        f"{stack.error:.2f} of that of no effect)."
    )
