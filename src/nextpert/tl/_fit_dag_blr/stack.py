"""How far graph, coexpression, other perturbations and other screens are believed on this one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata.eager import eager
from nextpert._adata.fit_record import StackRecord
from nextpert._adata.members import members_of
from nextpert._adata.roles import fitted_roles
from nextpert.core.effects.experts import (
    Expert,
    Perturbations,
    coexpression_expert,
    graph_expert,
    left_out,
    mean_expert,
)
from nextpert.core.effects.random_shifts import learn_mixtures, refit
from nextpert.core.effects.stack import Stack, learn_stack
from nextpert.core.effects.stacked import (
    GRAPH,
    OTHER_SCREEN,
    by_name,
    unseen_mixture,
    with_expectation,
)
from nextpert.tl._fit_dag_blr.together import learn_together
from nextpert.tl._learn_dag.held_out import has_seen_perturbed, held_out_dags

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import Roles
    from nextpert.core import Dag, DagBlr
    from nextpert.core.effects.interactions import Interactions
    from nextpert.core.effects.random_shifts import RandomShifts
    from nextpert.core.effects.shift_prior import ShiftPrior
    from nextpert.core.effects.stacked import Together
    from nextpert.tl._fit_dag_blr.cells import FitCells
    from nextpert.tl._fit_dag_blr.expected import Expected

    Array = NDArray[np.float64]
    Graphs = Sequence[tuple[NDArray[np.int64], Array]]  # folds of perturbations, weights without

FEWEST = 3  # perturbations, to learn from
_FOLDS = 5  # of perturbations, each left out of one graph


@dataclass(frozen=True)
class Problem:
    """What a stack is learned from, beside the cells in ``adata``."""

    adata: ad.AnnData
    columns: NDArray[np.int64]
    genes: list[str]
    dag: Dag
    dag_key: str
    roles: Roles
    separator: str
    posterior: Callable[[Dag], DagBlr]  # before any cells
    other: Mapping[str, Array]  # effects in another screen, by perturbation
    n_jobs: int = 1


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
    """

    stack: Stack
    unseen: Array
    interactions: Interactions | None


def stacked(
    problem: Problem, cells: FitCells, expected: Expected, found: RandomShifts
) -> tuple[ShiftPrior, Stacked | None]:
    """Return the prior of shifts by a stack of experts, and the stack.

    With fewer than three perturbations there is nothing to learn it from: the graph is believed.
    """
    if len(expected.used.names) < FEWEST:
        return found.prior, None
    graphs = _held_out_weights(problem, cells, expected, found)
    seen = _perturbations(problem, cells, expected)
    both = learn_together(_members(problem, expected), found, seen)
    known, together = (None, None) if both is None else both
    experts = _left_out(problem, expected, seen, graphs, together)
    stack = learn_stack(seen.observed, seen.variance, experts, seen.scored(), sd=seen.sd)
    prior = _told(problem, expected, found, seen, stack.left_out, together)
    prior = learn_mixtures(found.posterior, prior)
    # Of a perturbation without cells the change of the own gene is not known either. As far as the
    # graph is believed, what is left are shifts on it; beyond that, effects as they are.
    own = expected.used.shifts
    experts = _left_out(problem, expected, replace(seen, change=own), graphs, together)
    unseen = unseen_mixture(cells.pooled, found, own + stack.expected(experts), together)
    believed = min(dict(zip(stack.names, stack.weights.tolist(), strict=True))[GRAPH], 1.0)
    unseen = believed * prior.weights.mean(axis=0) + (1.0 - believed) * unseen
    return prior, Stacked(stack, unseen, known)


def held_out_experts(
    problem: Problem, cells: FitCells, expected: Expected, found: RandomShifts
) -> tuple[Perturbations, list[Expert]]:
    """Return the perturbations, and what experts say of each that have not seen it."""
    seen = _perturbations(problem, cells, expected)
    graphs = _held_out_weights(problem, cells, expected, found)
    both = learn_together(_members(problem, expected), found, seen)
    return seen, _left_out(problem, expected, seen, graphs, None if both is None else both[1])


def _left_out(
    problem: Problem,
    expected: Expected,
    perturbations: Perturbations,
    graphs: Graphs,
    together: Together | None,
) -> list[Expert]:
    graph = _graph_by_folds(perturbations, graphs)
    coexpression = left_out(perturbations, coexpression_expert)
    return _common(problem, expected, perturbations, [graph, coexpression], together)


def expected_by(
    problem: Problem, cells: FitCells, expected: Expected, found: RandomShifts, weights: Array
) -> ShiftPrior:
    """Return the prior of shifts with what the experts expect at given weights.

    What is expected starts from own changes as far as they are believed, not as they came out.
    ``weights`` have the shape ``(n_perturbations, n_experts)``.
    """
    seen = _perturbations(problem, cells, expected)
    both = learn_together(_members(problem, expected), found, seen)
    return _told(problem, expected, found, seen, weights, None if both is None else both[1])


def _told(
    problem: Problem,
    expected: Expected,
    found: RandomShifts,
    seen: Perturbations,
    weights: Array,
    together: Together | None,
) -> ShiftPrior:
    told = seen if expected.efficacy is None else replace(seen, change=expected.change)
    graph = graph_expert(told, found.posterior.mean().toarray())
    experts = [graph, left_out(told, coexpression_expert)]
    experts = _common(problem, expected, seen, experts, together)
    prior = with_expectation(found.prior, expected.used.shifts, experts, weights)
    if together is None:
        return prior
    within = np.maximum(seen.covariance().diagonal(), np.finfo(np.float64).tiny)
    return together.told(prior, found.posterior.noise_var / within)


def _perturbations(problem: Problem, cells: FitCells, expected: Expected) -> Perturbations:
    place = {gene: i for i, gene in enumerate(problem.genes)}
    targets = [[place[gene] for gene in some] for some in expected.used.targets]
    every = np.arange(1, len(targets) + 1)
    return Perturbations(cells.screen, 0, every, targets, batches=cells.pooled.fixed_errors)


def _members(problem: Problem, expected: Expected) -> list[tuple[str, ...]]:
    genes, control = set(problem.genes), problem.roles.control
    return [
        members_of(name, genes, separator=problem.separator, control=control)
        for name in expected.used.names
    ]


def _common(
    problem: Problem,
    expected: Expected,
    seen: Perturbations,
    experts: list[Expert],
    together: Together | None,
) -> list[Expert]:
    """Return experts and those that do not ask for the change of the own gene.

    Of combinations whose members are known none of these speaks but the members.
    """
    experts = [*experts, left_out(seen, mean_expert)]
    if problem.other:
        experts.append(by_name(seen, expected.used.names, problem.other, OTHER_SCREEN))
    if together is None:
        return experts
    return [*(together.silenced(e) for e in experts), together.expert(seen)]


def _held_out_weights(
    problem: Problem, cells: FitCells, expected: Expected, found: RandomShifts
) -> Graphs:
    """Return folds of perturbations, and weights of graphs that have not seen them."""
    n = len(expected.used.names)
    folds = [np.arange(k, n, _FOLDS) for k in range(min(_FOLDS, n))]
    graphs = _graphs(problem, expected.used.names, folds)
    return [
        (fold, refit(problem.posterior(dag), cells.pooled, found, without=fold).mean().toarray())
        for fold, dag in zip(folds, graphs, strict=True)
    ]


def _graph_by_folds(perturbations: Perturbations, graphs: Graphs) -> Expert:
    """Return what graphs transmit that have not seen the perturbations."""
    effects, shared = np.zeros((2, *perturbations.observed.shape))
    for fold, weights in graphs:
        expert = graph_expert(perturbations.some(fold), weights)
        effects[fold] = expert.effects
        if expert.shared is not None:
            shared[fold] = expert.shared
    return Expert(GRAPH, effects, shared)


def _graphs(
    problem: Problem, names: Sequence[str], folds: Sequence[NDArray[np.int64]]
) -> Sequence[Dag]:
    """Return a graph a fold; the graph itself where it has seen no perturbed cell."""
    stored = eager(problem.adata.uns.get(problem.dag_key))
    if not has_seen_perturbed(stored):
        return [problem.dag] * len(folds)
    own = fitted_roles(problem.adata, stored["params"])
    if (own.perturbation_key, own.control) != (
        problem.roles.perturbation_key,
        problem.roles.control,
    ):
        return [problem.dag] * len(folds)
    return held_out_dags(
        problem.adata, problem.columns, problem.genes, stored, problem.roles,
        [[names[j] for j in fold] for fold in folds], rng=np.random.default_rng(0),
        n_jobs=problem.n_jobs,
    )  # fmt: skip


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
