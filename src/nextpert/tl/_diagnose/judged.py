"""Effects learned from some of the cells, scored on halves, guides and batches held out.

All tables have one row per perturbation, with NaN for those not judged. Their columns are an
estimate's squared error summed over genes, under its name, ``COVERAGE`` (the fraction of genes
whose 90% interval covers the mean), and of large effects how many are covered and how many there
are (``COVERED``, ``LARGE``). Large effects are chosen by the cells that they are learned from: 3
standard errors or more there. A calibrated posterior covers 90% of any effects chosen by these
cells. If effects were chosen by the cells that they are scored on, some would be large by chance,
and few of their intervals would cover the means, even for a calibrated model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from nextpert.core.fit.naming import places
from nextpert.core.model import scores
from nextpert.core.model.effects import Effects
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.screen.guides import distinct

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.fit.cells import FitCells
    from nextpert.tl._diagnose.halves import Halves
    from nextpert.tl._diagnose.model import Refit

    Array = NDArray[np.float64]

SURE = 3.0  # standard errors of an effect that is called large
SIZES = (0.0, 1.0, 2.0, 3.0, 5.0)  # of an estimate, in standard deviations of its posterior
LEFT = 20  # cells of a guide or batch to score on, at least
_FOLDS = 4  # of guides
_MOST_BATCHES = 5
SHRUNKEN, MEANS, NOTHING = "shrunken", "raw_means", "no_effect"
NO_GRAPH = "no_graph"  # effects that ask no graph
COVERAGE, COVERED, LARGE = "coverage", "covered", "large"
GUIDES, BATCHES = "guides", "batches"
FIRST = {SHRUNKEN: "first", MEANS: "first_by_raw_means"}  # how often the own state comes first


class Side(NamedTuple):
    """One half of the cells, to learn from or to score on; tables ``(n_perturbations, n_genes)``.

    Variances are those of observed effects about those of the perturbations: sampling error, and
    the variance that the fit expects between the guides that the other half does not hold.
    """

    cells: FitCells  # as the fit takes them
    seen: Perturbations  # means and their sampling error
    variance: Array
    variance_unseen: Array  # about effects that are expected without any cells, so of all guides
    large: NDArray[np.bool_]  # which effects are 3 standard errors or more


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
        variance, unseen = (
            seen.variance + (of[1:] + of[0])[:, None] * seen.within
            for of in (np.where(halves.by_guides, share, 0.0), share)
        )
        large = np.abs(seen.observed) >= SURE * np.sqrt(variance)
        sides.append(Side(cells, seen, variance, unseen, large))
    return sides


def measured(refit: Refit, cells: FitCells) -> Perturbations:
    """Return the means of some cells and their sampling error, by perturbation."""
    targets = places(refit.spec.plan.targets, refit.spec.genes)
    return Perturbations(cells.screen, 0, np.arange(1, len(targets) + 1), targets)


def judge_halves(refit: Refit, sides: list[Side]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judge effects learned from one half of the cells of every perturbation on the other.

    The mean over both ways; besides, the correlation of the halves' effects over genes that are no
    targets (``r_others``), and how often a perturbation's own state comes first (``FIRST``), by
    estimate.

    The second table is the coverage of 90% intervals by the size of the estimate, ``SIZES``
    standard deviations of the posterior or more and less than the next: what a user sees of an
    effect. Effects are chosen by the cells that they are learned from, so that a calibrated
    posterior covers 90% in each row.
    """
    used = refit.is_sampled & (sides[0].seen.n > 1) & (sides[1].seen.n > 1)
    parts, by_size = [], np.zeros((2, len(used), len(SIZES)))
    for mine, other in (sides, sides[::-1]):
        truth, known = other.seen.observed, np.isfinite(other.variance) & used[:, None]
        learned = refit.learned(mine.cells)
        effects = refit.effects(learned)
        estimates = {
            SHRUNKEN: effects.mean,
            MEANS: mine.seen.observed,
            NO_GRAPH: refit.effects(learned, by_graph=False).mean,
        }
        table = _score(effects, estimates, truth, other.variance, used, large=mine.large)
        for name, column in FIRST.items():
            table[column] = scores.comes_first(
                estimates[name], np.where(known, truth, np.nan), used
            )
        parts.append(table)
        inside = scores.holds(effects, truth, np.where(known, other.variance, 0.0))
        z = np.abs(effects.mean) / np.maximum(effects.sd, np.finfo(np.float64).tiny)
        sizes = np.searchsorted(SIZES, z, side="right") - 1
        for k in range(len(SIZES)):
            which = (sizes == k) & known
            by_size[:, :, k] += (inside & which).sum(axis=1), which.sum(axis=1)
    others = ~sides[0].seen.own() & np.isfinite(sides[0].variance)
    r_others = scores.correlations(sides[0].seen.observed, sides[1].seen.observed, others)
    covered, errors = np.transpose(
        [scores.ratio_with_error(*x) for x in np.moveaxis(by_size, 2, 0)]
    )
    return _mean_of(parts).assign(r_others=np.where(used, r_others, np.nan)), pd.DataFrame(
        {
            "size_from": np.array(SIZES),
            "size_to": np.array([*SIZES[1:], np.inf]),
            "n": by_size[1].sum(axis=0).astype(np.int64),
            "coverage": covered,
            "standard_error": errors,
        },
        index=pd.Index(np.arange(len(SIZES))),
    )


def judge_left_out(refit: Refit, halves: Halves, spread: float) -> dict[str, pd.DataFrame]:
    """Judge effects learned without some guides, or a batch, on these; parts with enough cells.

    Without a guide of each perturbation and half of the controls' guides: intervals have the
    variance between guides, ``spread``, added. And without each of the largest batches.
    """
    parts: dict[str, list[pd.DataFrame]] = {GUIDES: [], BATCHES: []}
    n, control = halves.whole.n, halves.group == 0
    pairs, place = distinct(halves.group, halves.guide)
    size = np.bincount(place, n, len(pairs))
    enough = [np.flatnonzero((pairs[:, 0] == g) & (size >= LEFT)) for g in range(halves.n_groups)]
    several = [some for some in enough[1:] if len(some) > 1]
    n_folds = min(_FOLDS, max(map(len, several), default=0))
    for fold in range(n_folds if halves.declared and len(enough[0]) > 1 else 0):
        of_control = enough[0][fold % 2 :: 2]
        held = [of_control, *(some[[fold % len(some)]] for some in several)]
        share = size[of_control] / size[of_control].sum()
        extra = spread * (1.0 + float((share**2).sum()))
        left_out = np.isin(place, np.concatenate(held))
        parts[GUIDES].append(_left_out(refit, halves, left_out, spread=spread, extra=extra))
    for batch in np.argsort(-np.bincount(halves.batch, n), kind="stable")[:_MOST_BATCHES]:
        left_out = halves.batch == batch
        if min(n[control & left_out].sum(), n[control & ~left_out].sum()) >= LEFT:
            part = _left_out(refit, halves, left_out)
            parts[BATCHES] += [part] * bool(part[COVERAGE].notna().any())
    return {name: _mean_of(some) for name, some in parts.items() if some}


def _left_out(
    refit: Refit,
    halves: Halves,
    held: NDArray[np.bool_],
    *,
    spread: float | None = None,
    extra: float = 0.0,
) -> pd.DataFrame:
    """Score effects learned without some environments on these.

    ``extra`` is the variance between guides that intervals are to allow for, over that of noise.
    """
    whole = halves.whole
    every = np.zeros(halves.n_groups, bool)  # guides of all groups differ
    cells = halves.pool(whole, ~held, by_guide=spread is not None, spread=spread, alike=every)
    mine, other = measured(refit, cells), measured(refit, halves.pool(whole, held))
    used = refit.is_sampled & (mine.n > 1) & (other.n >= LEFT)
    effects = refit.effects(refit.learned(cells))
    observed, error = cells.pooled.to_controls()
    large = np.abs(observed) >= SURE * np.sqrt(mine.within * error)
    estimates = {SHRUNKEN: effects.mean, MEANS: observed}
    between = extra * other.within
    return _score(
        effects, estimates, other.observed, other.variance, used, large=large, between=between
    )


def _score(
    effects: Effects,
    estimates: dict[str, Array],
    observed: Array,
    variance: Array,
    used: NDArray[np.bool_],
    *,
    large: NDArray[np.bool_],
    between: Array | float = 0.0,
) -> pd.DataFrame:
    """Return the scores of effects and other estimates on means of other cells.

    All tables are ``(n_perturbations, n_genes)``. Intervals are those of ``effects``; to
    ``estimates``, by name, "no effect" is added. ``variance``, that of the ``observed`` means, is
    taken off errors; it is infinite where a table has no value, which is not scored. ``between``
    is variance that intervals are to allow for besides.
    """
    known = np.isfinite(variance) & used[:, None]
    noise = np.where(known, variance, 0.0)
    every = estimates | {NOTHING: np.zeros_like(observed)}
    table = pd.DataFrame(
        {
            # Squared error on these means, less their variance: unbiased, so below 0 now and then.
            name: (np.where(known, each - observed, 0.0) ** 2 - noise).sum(axis=1)
            for name, each in every.items()
        }
    )
    inside, large = scores.holds(effects, observed, noise + between) & known, large & known
    table[COVERAGE] = inside.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    table[~used] = np.nan
    return table.assign(**{COVERED: (inside & large).sum(axis=1), LARGE: large.sum(axis=1)})


def _mean_of(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the mean over splits of what each perturbation was judged by; counts are added."""
    every = pd.concat(parts).groupby(level=0)
    return every.mean().assign(**{name: every[name].sum() for name in (COVERED, LARGE)})
