"""Effects learned from one half of the cells, scored on halves, guides and batches held out.

All tables have one row a perturbation; nan where it was not scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.model import scores
from nextpert.core.model.effects import Effects, estimate_effects
from nextpert.core.model.perturbations import Perturbations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.tl._diagnose.halves import Halves
    from nextpert.tl._diagnose.model import Refit
    from nextpert.tl._fit_dag_blr.cells import FitCells

    Array = NDArray[np.float64]

LARGE = 3.0  # standard errors of an effect that is called large


@dataclass(frozen=True)
class Side:
    """One half of the cells, to learn from or to score on.

    Parameters
    ----------
    cells
        Its cells, as the fit takes them.
    seen
        Its means and their sampling error.
    variance
        Variance of the observed effects about those of the perturbations, shape
        ``(n_perturbations, n_genes)``: sampling error, and the variance that the fit expects
        between the guides that the other half does not hold.
    variance_unseen
        The same about effects that are expected without any cells, so of all guides.
    """

    cells: FitCells
    seen: Perturbations
    variance: Array
    variance_unseen: Array

    @property
    def large(self) -> NDArray[np.bool_]:
        """Which effects are 3 standard errors or more."""
        return np.abs(self.seen.observed) >= LARGE * np.sqrt(self.variance)


def read_sides(refit: Refit, halves: Halves, spread: float) -> list[Side]:
    """Return both halves of the cells; ``spread`` is the variance between guides of the fit.

    What is judged is what the fit says of effects of perturbations, whatever the guide. Half of the
    guides differ from the effect by their own deviations, which no interval for the effect holds.
    So the variance between the guides that are scored is added to the sampling error, where a
    perturbation or the controls are split by guide: with shares ``w`` of their cells in each guide,
    ``spread * sum w^2`` of the noise variance each. It is the variance that the fit itself takes
    guides to have. Where none are declared that is 0: the fit says then that other guides show the
    same means but for sampling, and guides that scatter are its errors. To add the variance that
    they do have would hide this: between halves that are alike the fit misses by that variance
    twice, and would be excused for one.

    Where a perturbation has one guide its halves share the deviation of that guide, so it is taken
    to have none, in the half that is learned from as well: sampling alone is judged there.
    """
    if not halves.declared:
        spread = 0.0
    sides = []
    for part in halves.parts:
        cells = halves.pool(part, by_guide=halves.declared, spread=spread, alike=~halves.by_guides)
        seen = measured(refit, cells)
        share = spread * halves.guide_shares(part)
        others = np.where(halves.by_guides, share, 0.0)
        between, unseen = (between_guides(each, seen) for each in (others, share))
        sides.append(Side(cells, seen, seen.variance + between, seen.variance + unseen))
    return sides


def between_guides(share: Array, seen: Perturbations) -> Array:
    """Return the variance between guides in observed effects, from that in the groups' means."""
    return (share[1:] + share[0])[:, None] * np.diag(seen.covariance())


def measured(refit: Refit, cells: FitCells) -> Perturbations:
    """Return the means of some cells and their sampling error, by perturbation."""
    place = {gene: i for i, gene in enumerate(refit.spec.genes)}
    targets = [[place[gene] for gene in some] for some in refit.spec.plan.targets]
    return Perturbations(cells.screen, 0, np.arange(1, len(targets) + 1), targets)


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
        return share_of(*self.large)


@dataclass(frozen=True)
class OnHalves:
    """What one half of the cells says of the other, mean over both ways."""

    scored: Scored
    r: Array  # of the halves' effects over genes
    first: dict[str, Array]  # how often a perturbation's own state comes first, by estimate


def judge_halves(refit: Refit, sides: list[Side]) -> OnHalves:
    """Judge effects learned from one half of the cells of every perturbation on the other."""
    used = _on_both(sides)
    parts, firsts = [], []
    for mine, other in (sides, sides[::-1]):
        truth = other.seen.observed
        effects = refit.effects(refit.learned(mine.cells))
        empty = refit.learned(mine.cells, empty=True)
        estimates = {
            SHRUNKEN: effects.mean,
            MEANS: mine.seen.observed,
            NO_GRAPH: refit.effects(empty).mean,
            # Before predictors are asked: drawn to nothing, but for own genes.
            ALONE: estimate_effects([empty.found.posterior], empty.found.prior).mean,
        }
        parts.append(_score(effects, estimates, truth, other.variance, used, large=mine.large))
        firsts.append({k: scores.comes_first(estimates[k], truth, used) for k in (SHRUNKEN, MEANS)})
    r = scores.correlations(*(side.seen.observed for side in sides))
    return OnHalves(
        _mean_of(parts),
        np.where(used, r, np.nan),
        {k: (firsts[0][k] + firsts[1][k]) / 2 for k in firsts[0]},
    )


def judge_guides(refit: Refit, halves: Halves, spread: float) -> Scored | None:
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
        parts.append(_left_out(refit, halves, left_out, spread=spread, extra=extra))
    return _mean_of(parts)


def judge_batches(refit: Refit, halves: Halves) -> Scored | None:
    """Judge effects learned without a batch on its means, for each of the largest batches."""
    parts = []
    cells = np.bincount(halves.batch, halves.whole.n)
    for batch in np.argsort(-cells, kind="stable")[:_MOST_BATCHES]:
        held = halves.batch == batch
        control = halves.group == 0
        n = [int(halves.whole.n[control & some].sum()) for some in (held, ~held)]
        if min(n) >= LEFT:
            part = _left_out(refit, halves, held)
            if np.isfinite(part.coverage).any():
                parts.append(part)
    return _mean_of(parts) if parts else None


def _left_out(
    refit: Refit,
    halves: Halves,
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
    mine, other = measured(refit, cells), measured(refit, halves.pool(whole, held))
    used = (mine.n > 1) & (other.n >= LEFT)
    effects = refit.effects(refit.learned(cells))
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


def share_of(covered: Array, n: Array) -> Array:
    """Return how many of some are covered, as a share; NaN where there are none."""
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
