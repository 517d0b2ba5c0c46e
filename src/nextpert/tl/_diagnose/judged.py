"""What each part of a model does on cells, guides, batches and perturbations that it has not seen.

All tables have one row a perturbation; nan where it was not judged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.effects import scores
from nextpert.core.effects.effects import Effects, perturbation_effects
from nextpert.core.effects.experts import MEAN, Perturbations
from nextpert.core.effects.random_shifts import learn_mixtures
from nextpert.core.effects.stack import Stack, learn_stack
from nextpert.core.effects.stacked import GRAPH
from nextpert.tl._fit_dag_blr.stack import expected_by, held_out_experts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.effects.experts import Expert
    from nextpert.core.effects.random_shifts import RandomShifts
    from nextpert.tl._diagnose.halves import Halves
    from nextpert.tl._diagnose.model import Model
    from nextpert.tl._fit_dag_blr.cells import FitCells
    from nextpert.tl._fit_dag_blr.expected import Expected

    Array = NDArray[np.float64]

LEFT = 20  # cells of a guide or batch to score on, at least
_CLEAR = 3.0  # standard errors
_FOLDS = 4  # of guides
_MOST_BATCHES = 5
SHRUNKEN, MEANS, NOTHING = "shrunken", "cells", "nothing"
NO_GRAPH, ALONE = "no_graph", "alone"  # with an empty graph; without experts, too


@dataclass(frozen=True)
class Scored:
    """Squared errors summed over genes, and what 90 % intervals hold.

    Parameters
    ----------
    errors
        By estimate, the variance of the means they are scored on taken off, shape
        ``(n_perturbations,)``, squared units of the data.
    coverage
        Share of genes whose interval holds the mean, same shape.
    """

    errors: dict[str, Array]
    coverage: Array


@dataclass(frozen=True)
class OnHalves:
    """What one half of the cells says of the other, mean over both ways."""

    scored: Scored
    r: Array  # of the halves' effects over genes
    first: dict[str, Array]  # how often a perturbation's own state comes first, by estimate


@dataclass(frozen=True)
class Unseen:
    """What experts say of perturbations that they have not seen.

    Parameters
    ----------
    stack
        Weights and errors of the experts.
    without_graph, mean_alone
        The same where the graph is no expert, and where the mean perturbation is the only one.
    r
        Correlations over the other genes by expert, the first of them the stack's, shape
        ``(1 + n_experts, n_perturbations)``; nan where nothing is predicted.
    coverage, coverage_clear
        Share of the other genes whose 90 % interval holds the effect; of those alone whose effect
        is 3 standard errors or more, for intervals about 0 hold the many effects that are nothing.
    """

    stack: Stack
    without_graph: Stack
    mean_alone: Stack
    r: Array
    coverage: Array
    coverage_clear: Array


def judge_unseen(model: Model, cells: FitCells, expected: Expected, found: RandomShifts) -> Unseen:
    """Judge the experts on perturbations that were left out."""
    seen, experts = held_out_experts(model.problem, cells, expected, found)
    used = seen.scored()

    def learn(some: list[Expert]) -> Stack:
        return learn_stack(seen.observed, seen.variance, some, used, sd=seen.sd)

    stack = learn(experts)
    without = learn([e for e in experts if e.name != GRAPH])
    mean = learn([e for e in experts if e.name == MEAN])
    by = np.where(seen.sd > 0, seen.sd, 1.0)
    said = [stack.expected(experts), *(e.effects for e in experts)]
    none = np.zeros_like(seen.observed)
    shares = [none + (0.0 if e.shared is None else e.shared) for e in experts]
    of_all = np.einsum("jk,kjg->jg", stack.left_out, np.array(shares))
    r = np.array([
        scores.correlations(one / by, seen.observed / by, used, common / by**2)
        for one, common in zip(said, [of_all, *shares], strict=True)
    ])  # fmt: skip
    prior = learn_mixtures(
        found.posterior, expected_by(model.problem, cells, expected, found, stack.left_out)
    )
    # As for a perturbation without cells, but that its own change is known.
    own, n = seen.own(), len(seen.targets)
    others = (prior.weights.sum(axis=0) - prior.weights) / max(n - 1, 1)
    nothing = np.zeros_like(seen.observed)
    unseen = replace(
        prior, n=np.zeros(n), mean=nothing, ratio=nothing + 1, shift=nothing,
        effect=np.where(own, seen.observed, said[0]), own=np.where(own, 0.0, np.nan),
        weights=others,
    )  # fmt: skip
    effects = perturbation_effects([found.posterior], unseen)
    inside = scores.holds(effects, seen.observed, np.where(used, seen.variance, 0.0))
    clear = used & (np.abs(seen.observed) >= _CLEAR * np.sqrt(seen.variance))
    share, of_clear = (_share(inside, which) for which in (used, clear))
    return Unseen(stack, without, mean, r, share, of_clear)


def judge_halves(model: Model, halves: Halves, weights: Array) -> OnHalves:
    """Judge effects learned from one half of the cells of every perturbation on the other."""
    sides = [halves.pool(part) for part in halves.parts]
    seen = [_measured(model, side) for side in sides]
    used = (seen[0].n > 1) & (seen[1].n > 1)
    parts, firsts = [], []
    for k, cells in enumerate(sides):
        mine, other = seen[k], seen[1 - k]
        effects = model.effects(cells, weights)
        estimates = {
            SHRUNKEN: effects.mean,
            MEANS: mine.observed,
            NO_GRAPH: model.effects(cells, weights, empty=True).mean,
            ALONE: model.effects_alone(cells).mean,
        }
        parts.append(_score(effects, estimates, other.observed, other.variance, used))
        firsts.append(
            {k: scores.comes_first(estimates[k], other.observed, used) for k in (SHRUNKEN, MEANS)}
        )
    return OnHalves(
        _mean_of(parts),
        np.where(used, scores.correlations(seen[0].observed, seen[1].observed), np.nan),
        {k: (firsts[0][k] + firsts[1][k]) / 2 for k in firsts[0]},
    )


def judge_guides(model: Model, halves: Halves, weights: Array, spread: float) -> Scored | None:
    """Judge effects learned without a guide of each perturbation, and half of the controls' guides.

    Intervals have the spread between guides added. ``None`` where guides are too few.
    """
    if not halves.has_guides:
        return None
    whole = halves.whole
    pairs, place = np.unique(
        np.column_stack([halves.group, halves.guide]), axis=0, return_inverse=True
    )
    size = np.bincount(place.ravel(), whole.n, len(pairs))
    enough = [np.flatnonzero((pairs[:, 0] == g) & (size >= LEFT)) for g in range(halves.n_groups)]
    several = [len(some) for some in enough[1:] if len(some) > 1]
    if len(enough[0]) < 2 or not several:
        return None
    parts = []
    for fold in range(min(_FOLDS, max(several))):
        held = [enough[0][fold % 2 :: 2]]
        held += [some[[fold % len(some)]] for some in enough[1:] if len(some) > 1]
        left_out = np.isin(place.ravel(), np.concatenate(held))
        control = size[held[0]] / size[held[0]].sum()
        extra = spread * (1.0 + float((control**2).sum()))
        parts.append(_left_out(model, halves, weights, left_out, spread=spread, extra=extra))
    return _mean_of(parts)


def judge_batches(model: Model, halves: Halves, weights: Array) -> Scored | None:
    """Judge effects learned without a batch on its means, for each of the largest batches."""
    parts = []
    cells = np.bincount(halves.batch, halves.whole.n)
    for batch in np.argsort(-cells, kind="stable")[:_MOST_BATCHES]:
        held = halves.batch == batch
        control = halves.group == 0
        n = [int(halves.whole.n[control & some].sum()) for some in (held, ~held)]
        if min(n) >= LEFT:
            part = _left_out(model, halves, weights, held)
            if np.isfinite(part.coverage).any():
                parts.append(part)
    return _mean_of(parts) if parts else None


def _left_out(
    model: Model,
    halves: Halves,
    weights: Array,
    held: NDArray[np.bool_],
    *,
    spread: float | None = None,
    extra: float = 0.0,
) -> Scored:
    """Score effects learned without some environments on these.

    ``extra`` is the variance between guides that intervals are to allow for, over that of noise.
    """
    whole = halves.whole
    cells = halves.pool(whole, ~held, by_guide=spread is not None, spread=spread)
    mine, other = _measured(model, cells), _measured(model, halves.pool(whole, held))
    used = (mine.n > 1) & (other.n >= LEFT)
    effects = model.effects(cells, weights)
    estimates = {SHRUNKEN: effects.mean, MEANS: cells.pooled.mean[1:] - cells.pooled.mean[0]}
    between = extra * np.diag(other.covariance())
    return _score(effects, estimates, other.observed, other.variance, used, between)


def _measured(model: Model, cells: FitCells) -> Perturbations:
    place = {gene: i for i, gene in enumerate(model.problem.genes)}
    targets = [[place[gene] for gene in some] for some in model.plan.targets]
    return Perturbations(cells.screen, 0, np.arange(1, len(targets) + 1), targets)


def _score(
    effects: Effects,
    estimates: dict[str, Array],
    observed: Array,
    variance: Array,
    used: NDArray[np.bool_],
    between: Array | float = 0.0,
) -> Scored:
    noise = np.where(used[:, None], variance, 0.0)
    every = estimates | {NOTHING: np.zeros_like(observed)}
    errors = {
        name: np.where(used, scores.error_sums(each, observed, noise), np.nan)
        for name, each in every.items()
    }
    inside = scores.holds(effects, observed, noise + between)
    return Scored(errors, np.where(used, inside.mean(axis=1), np.nan))


def _share(inside: NDArray[np.bool_], used: NDArray[np.bool_]) -> Array:
    n = used.sum(axis=1)
    return np.where(n > 0, (inside & used).sum(axis=1) / np.maximum(n, 1), np.nan)


def _mean_of(parts: list[Scored]) -> Scored:
    """Return the mean over splits of what each perturbation was judged by."""

    def mean(tables: list[Array]) -> Array:
        every = np.array(tables)
        n = np.isfinite(every).sum(axis=0)
        return np.where(n > 0, np.nansum(every, axis=0) / np.maximum(n, 1), np.nan)

    errors = {name: mean([part.errors[name] for part in parts]) for name in parts[0].errors}
    return Scored(errors, mean([part.coverage for part in parts]))
