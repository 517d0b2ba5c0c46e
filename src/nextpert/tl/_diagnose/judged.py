"""What each part of a model does on cells, guides, batches and perturbations that it has not seen.

All tables have one row a perturbation; nan where it was not judged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.effects import scores
from nextpert.core.effects.effects import Effects, perturbation_effects
from nextpert.core.effects.experts import MEAN
from nextpert.core.effects.random_shifts import learn_mixtures
from nextpert.core.effects.stack import Stack, learn_stack
from nextpert.core.effects.stacked import GRAPH
from nextpert.tl._diagnose.sides import LARGE, between_guides, measured
from nextpert.tl._fit_dag_blr.stack import expected_by, held_out_experts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.effects.experts import Expert
    from nextpert.tl._diagnose.halves import Halves
    from nextpert.tl._diagnose.model import Model
    from nextpert.tl._diagnose.sides import Side
    from nextpert.tl._fit_dag_blr.cells import FitCells

    Array = NDArray[np.float64]

LEFT = 20  # cells of a guide or batch to score on, at least
_FOLDS = 4  # of guides
_MOST_BATCHES = 5
SHRUNKEN, MEANS, NOTHING = "shrunken", "cells", "nothing"
NO_GRAPH, ALONE = "no_graph", "alone"  # with an empty graph; without experts, too


@dataclass(frozen=True)
class Scored:
    """Squared errors summed over genes, and how many means 90% intervals cover.

    Large effects are chosen by the cells that they are learned from: 3 standard errors or more
    there. A right posterior has seen these cells, so 90% of its intervals cover whatever is chosen
    by them. Chosen by the cells that they are scored on, effects would be large by luck too, and
    few of their intervals would cover even if the model is right.

    Parameters
    ----------
    errors
        By estimate, the variance of the means they are scored on subtracted, shape
        ``(n_perturbations,)``, squared units of the data.
    coverage
        Share of genes whose interval covers the mean, same shape.
    large
        Of the large effects: how many are covered, and how many there are, shape
        ``(2, n_perturbations)``.
    """

    errors: dict[str, Array]
    coverage: Array
    large: Array

    @property
    def coverage_large(self) -> Array:
        """Share of large effects that intervals cover; NaN for perturbations without any."""
        return _share(*self.large)


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
    coverage
        Share of the other genes whose 90% interval covers the effect.
    large
        The same of those alone whose effect is 3 standard errors or more, for intervals about 0
        cover the many effects that are nothing: how many are covered, and how many there are,
        shape ``(2, n_perturbations)``. What is expected has seen none of the cells, so large
        effects are chosen by one half of the cells and scored on the other, both ways.
    """

    stack: Stack
    without_graph: Stack
    mean_alone: Stack
    r: Array
    coverage: Array
    large: Array

    @property
    def coverage_large(self) -> Array:
        """Share of large effects that intervals cover; NaN for perturbations without any."""
        return _share(*self.large)


def judge_unseen(model: Model, halves: Halves, cells: FitCells, sides: list[Side]) -> Unseen:
    """Judge the experts on perturbations that were left out; ``cells`` are those of the fit."""
    expected, found = model.start(cells)
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
    share = cells.guide_variance * halves.guide_shares(halves.whole)
    variance = seen.variance + between_guides(share, seen)
    inside = scores.holds(effects, seen.observed, np.where(used, variance, 0.0))
    coverage = _share((inside & used).sum(axis=1), used.sum(axis=1))
    large = np.zeros((2, n))
    both = used & _on_both(sides)[:, None]
    for mine, other in (sides, sides[::-1]):
        noise = np.where(both, other.variance_unseen, 0.0)
        large += _count(scores.holds(effects, other.seen.observed, noise), both & mine.large)
    return Unseen(stack, without, mean, r, coverage, large)


def judge_halves(model: Model, sides: list[Side], weights: Array) -> OnHalves:
    """Judge effects learned from one half of the cells of every perturbation on the other."""
    used = _on_both(sides)
    parts, firsts = [], []
    for mine, other in (sides, sides[::-1]):
        truth = other.seen.observed
        effects = model.effects(mine.cells, weights)
        estimates = {
            SHRUNKEN: effects.mean,
            MEANS: mine.seen.observed,
            NO_GRAPH: model.effects(mine.cells, weights, empty=True).mean,
            ALONE: model.effects_alone(mine.cells).mean,
        }
        parts.append(_score(effects, estimates, truth, other.variance, used, large=mine.large))
        firsts.append({k: scores.comes_first(estimates[k], truth, used) for k in (SHRUNKEN, MEANS)})
    r = scores.correlations(*(side.seen.observed for side in sides))
    return OnHalves(
        _mean_of(parts),
        np.where(used, r, np.nan),
        {k: (firsts[0][k] + firsts[1][k]) / 2 for k in firsts[0]},
    )


def judge_guides(model: Model, halves: Halves, weights: Array, spread: float) -> Scored | None:
    """Judge effects learned without a guide of each perturbation, and half of the controls' guides.

    Intervals have the spread between guides added. ``None`` where guides are too few.
    """
    if not halves.declared:
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
    every = np.zeros(halves.n_groups, bool)  # guides of all groups differ
    cells = halves.pool(whole, ~held, by_guide=spread is not None, spread=spread, alike=every)
    mine, other = measured(model, cells), measured(model, halves.pool(whole, held))
    used = (mine.n > 1) & (other.n >= LEFT)
    effects = model.effects(cells, weights)
    observed = cells.pooled.mean[1:] - cells.pooled.mean[0]
    noise = np.diag(mine.covariance())
    counts = np.maximum(cells.pooled.counted, 1e-300)
    spread = 1 / counts[1:] + 1 / counts[0] + cells.pooled.fixed_error()[1:, None]
    large = np.abs(observed) >= LARGE * np.sqrt(noise * spread)
    estimates = {SHRUNKEN: effects.mean, MEANS: observed}
    between = extra * np.diag(other.covariance())
    return _score(
        effects, estimates, other.observed, other.variance, used, large=large, between=between
    )


def _on_both(sides: list[Side]) -> NDArray[np.bool_]:
    return np.asarray((sides[0].seen.n > 1) & (sides[1].seen.n > 1))


def _score(
    effects: Effects,
    estimates: dict[str, Array],
    observed: Array,
    variance: Array,
    used: NDArray[np.bool_],
    *,
    large: NDArray[np.bool_],
    between: Array | float = 0.0,
) -> Scored:
    noise = np.where(used[:, None], variance, 0.0)
    every = estimates | {NOTHING: np.zeros_like(observed)}
    errors = {
        name: np.where(used, scores.error_sums(each, observed, noise), np.nan)
        for name, each in every.items()
    }
    inside = scores.holds(effects, observed, noise + between)
    coverage = np.where(used, inside.mean(axis=1), np.nan)
    return Scored(errors, coverage, _count(inside, used[:, None] & large))


def _count(inside: NDArray[np.bool_], which: NDArray[np.bool_]) -> Array:
    """Return how many of some effects are covered, and how many there are, by perturbation."""
    return np.array([(inside & which).sum(axis=1), which.sum(axis=1)], np.float64)


def _share(covered: Array, n: Array) -> Array:
    return np.where(n > 0, covered / np.maximum(n, 1.0), np.nan)


def _mean_of(parts: list[Scored]) -> Scored:
    """Return the mean over splits of what each perturbation was judged by; counts are added."""

    def mean(tables: list[Array]) -> Array:
        every = np.array(tables)
        n = np.isfinite(every).sum(axis=0)
        return np.where(n > 0, np.nansum(every, axis=0) / np.maximum(n, 1), np.nan)

    errors = {name: mean([part.errors[name] for part in parts]) for name in parts[0].errors}
    large = np.sum([part.large for part in parts], axis=0)
    return Scored(errors, mean([part.coverage for part in parts]), large)
