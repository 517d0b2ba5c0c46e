"""The cells of a fit: controls and perturbations with pooled guides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core.model.within_cells import coexpression
from nextpert.core.screen.departures import (
    MIN_CELLS_OF_GUIDE,
    Guides,
    GuideSpread,
    combine_guides,
    learn_spread,
)
from nextpert.core.screen.guides import MeanErrors, PooledGuides, distinct, pool_guides
from nextpert.core.screen.moments import Moments
from nextpert.core.screen.screen import ScreenMoments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


_MIN_REPLICATE_FREEDOM = 2  # degrees of freedom of the variance between replicates


class ByCondition(NamedTuple):
    """Names of conditions, and the controls and perturbations of each."""

    names: list[str]
    parts: list[PooledGuides]


@dataclass(frozen=True)
class FitCells:
    """Cells of the controls (first) and of perturbations, without batch effects.

    Parameters
    ----------
    pooled
        Controls and perturbations, with guides weighted by their precision.
    screen
        Moments of controls and perturbations, over the cells of all guides.
    spread
        Variance between guides along coexpression and in single genes; ``None`` if guides are not
        declared.
    guide_variance
        The same as one number, divided by the noise variance: the mean over genes without rare
        large departures; 0 without guides.
    n_guides
        Number of guides of the controls, 0 if guides are not declared.
    conditions
        The same cells by condition; ``None`` if they are not modelled by condition.
    replicate_variance
        Variance of effects between batches, as ``guide_variance``; 0 if perturbations are not in
        several batches.
    """

    pooled: PooledGuides
    screen: ScreenMoments
    spread: GuideSpread | None
    guide_variance: float
    n_guides: int
    conditions: ByCondition | None = None
    replicate_variance: float = 0.0

    @cached_property
    def control(self) -> Moments:
        """Moments of the controls, with only the diagonal of their scatter."""
        one = self.screen
        mean, squares = (np.asarray(x[0], np.float64) for x in (one.mean, one.squares))
        return Moments(int(one.n[0]), mean, np.diag(squares))

    def rows(self, index: ArrayLike) -> FitCells:
        """Return some groups, in the given order; the scatter of all groups is kept."""
        groups = np.asarray(index, np.int64)
        by = self.conditions
        if by is not None:
            by = ByCondition(by.names, [part.rows(groups) for part in by.parts])
        return replace(
            self, pooled=self.pooled.rows(groups), screen=self.screen.some(groups), conditions=by
        )

    @property
    def n_cells(self) -> NDArray[np.int64]:
        """Number of cells of every perturbation."""
        return self.pooled.n_cells[1:]


def with_conditions(
    fit_cells: FitCells,
    screen: ScreenMoments,
    group: NDArray[np.int64],
    condition: NDArray[np.int64],
    names: Sequence[str],
    *,
    guide: NDArray[np.int64] | None = None,
    equal_guides: NDArray[np.bool_] | None = None,
    fixed_sd: ArrayLike = (),
) -> FitCells:
    """Return ``fit_cells``, the cells of a fit, with the same cells by condition.

    The other parameters are as in :func:`pool_cells`. ``condition`` is the position in ``names`` of
    each environment's condition; batches were compared within conditions. Conditions without
    controls or without perturbed cells are left out. If fewer than two conditions remain, or a
    perturbation has cells in none of them, ``fit_cells`` is returned unchanged.
    """
    n_groups = len(fit_cells.pooled.n)
    has_cells = screen.n > 0
    controls, perturbed = (
        {k for k in range(len(names)) if (has_cells & is_group & (condition == k)).any()}
        for is_group in (group == 0, group > 0)
    )
    # A condition without controls has no reference.
    usable = sorted(controls & perturbed)
    if len(usable) < 2:
        return fit_cells
    if equal_guides is None:  # as in pool_cells, of all conditions
        equal_guides = (np.arange(n_groups) == 0) & (guide is not None) & (fit_cells.n_guides == 1)
    parts = []
    for k in usable:
        in_condition = condition == k
        parts.append(
            pool_cells(
                _of_own_variances(screen.some(in_condition)),
                group[in_condition],
                n_groups,
                guide=None if guide is None else guide[in_condition],
                spread=fit_cells.spread,
                equal_guides=equal_guides,
                fixed_sd=fixed_sd,
            ).pooled
        )
    # Every perturbation needs cells in a condition with controls.
    cells = np.sum([part.n_cells for part in parts], axis=0)
    if ((cells == 0) & (fit_cells.pooled.n_cells > 0)).any():
        return fit_cells
    return replace(fit_cells, conditions=ByCondition([names[k] for k in usable], parts))


def _of_own_variances(screen: ScreenMoments) -> ScreenMoments:
    """Return some environments of a screen, with the scatter rescaled to their own variances.

    Correlations stay those of the screen. A table is returned unchanged, because its scatter does
    not come from cells.
    """
    if screen.counted is not None:
        return screen
    # S_ij sqrt(own_i own_j / S_ii S_jj): correlations of all cells, own variances.
    own_squares, all_squares = screen.squares.sum(axis=0), screen.scatter.diagonal()
    root = np.sqrt(
        np.divide(own_squares, all_squares, out=np.zeros_like(own_squares), where=all_squares > 0)
    )
    return replace(screen, scatter=screen.scatter * np.outer(root, root))


def pool_cells(
    screen: ScreenMoments,
    group: NDArray[np.int64],
    n_groups: int,
    *,
    guide: NDArray[np.int64] | None = None,
    spread: GuideSpread | float | None = None,
    equal_guides: NDArray[np.bool_] | None = None,
    fixed_sd: ArrayLike = (),
    are_replicates: bool = True,
) -> FitCells:
    """Pool the guides of the controls (group 0) and of every perturbation (equation 7).

    ``screen`` has one environment per perturbation, guide and batch, and batch columns after the
    genes (:meth:`~nextpert.core.ScreenMoments.without_batches`); ``group`` and ``guide`` are those
    of each environment. ``spread`` is the variance between guides (a number: relative to that of
    cells), learned by default. ``equal_guides`` marks groups whose guides are assumed not to
    differ: by default the controls, if all their cells have one guide. If perturbations are in
    several batches, these are replicates: the variance of effects between them is learned in the
    same way, and enters all errors, unless ``are_replicates`` is false, as for conditions.
    """
    p = screen.n_nodes - len(np.asarray(fixed_sd))  # the last nodes are the batch columns
    replicate = None
    if are_replicates and screen.counted is None:
        replicate = _replicates(screen, p, group, fixed_sd)
    unit = replicate if guide is None else guide
    # One environment per perturbation and guide; batch effects are already subtracted.
    pairs, index = distinct(group, np.zeros_like(group) if unit is None else unit)
    of_group = pairs[:, 0]
    augmented = screen.pool(index, len(pairs))
    genes = augmented.subset(np.arange(p))
    by_group = genes.pool(of_group, n_groups)
    if unit is None:
        pooled = pool_guides(augmented, of_group, n_groups, fixed_sd=fixed_sd)
        return FitCells(pooled, by_group, None, 0.0, 0)
    if guide is None:  # the controls define the effects of batches
        departs = np.arange(n_groups) > 0
        pooled, _, variance = _with_departures(augmented, genes, of_group, departs, None, fixed_sd)
        return FitCells(pooled, by_group, None, 0.0, 0, replicate_variance=variance)
    if equal_guides is None:
        controls = np.flatnonzero((of_group == 0) & (genes.n > 0))
        equal_guides = (np.arange(n_groups) == 0) & (len(controls) == 1)
    pooled, spread, variance = _with_departures(
        augmented, genes, of_group, ~equal_guides, spread, fixed_sd
    )
    fit_cells = FitCells(pooled, by_group, spread, variance, int((of_group == 0).sum()))
    if replicate is None:
        return fit_cells
    pairs, index = distinct(group, replicate)
    by_replicate = screen.pool(index, len(pairs)).subset(np.arange(p))
    pooled, variance = _with_replicates(pooled, by_replicate, pairs[:, 0])
    return replace(fit_cells, pooled=pooled, replicate_variance=variance)


def _replicates(
    screen: ScreenMoments, n_genes: int, group: NDArray[np.int64], fixed_sd: ArrayLike
) -> NDArray[np.int64] | None:
    """Return the replicate of every environment: its batch, if perturbations are in several.

    ``None`` if too few perturbations are in several batches to estimate the variance of their
    effects between batches.
    """
    columns = screen.mean[:, n_genes:][:, np.isfinite(np.asarray(fixed_sd, np.float64))]
    if not columns.shape[1]:
        return None
    replicate = np.unique(columns.round(9), axis=0, return_inverse=True)[1].ravel()
    pairs, index = distinct(group, replicate)
    n_cells = np.bincount(index, screen.n, len(pairs))
    pairs = pairs[(pairs[:, 0] > 0) & (n_cells >= MIN_CELLS_OF_GUIDE)]
    # Differences within perturbations, minus the effects of batches.
    freedom = len(pairs) - len(np.unique(pairs[:, 0])) - (len(np.unique(pairs[:, 1])) - 1)
    return np.asarray(replicate, np.int64) if freedom >= _MIN_REPLICATE_FREEDOM else None


def _with_replicates(
    pooled: PooledGuides, screen: ScreenMoments, group: NDArray[np.int64]
) -> tuple[PooledGuides, float]:
    """Return pooled guides with the variance between replicates, and this variance.

    ``screen`` has one environment per perturbation and replicate, and ``group`` is its
    perturbation.
    """
    errors = pooled.errors
    assert errors is not None
    n_groups = len(pooled.n)
    cells = errors.cells
    by_group = screen.pool(group, n_groups)
    guides = Guides.of(screen, group, by_group.mean, pooled.variance_ratio, cells)
    spread = learn_spread(guides, np.arange(n_groups) > 0)
    share = screen.n / np.maximum(by_group.n[group], 1)
    replicate_share = np.bincount(group, share**2, n_groups)[:, None]
    replicate_share[0] = 0.0  # the controls define the effects of batches
    own_error = errors.own + replicate_share * spread.own_variance()
    along = errors.along + replicate_share * spread.along
    result = replace(pooled, errors=errors._replace(own=own_error, along=along))
    return result, spread.variance_on(cells)


def _with_departures(
    augmented: ScreenMoments,
    screen: ScreenMoments,
    group: NDArray[np.int64],
    departs: NDArray[np.bool_],
    spread: GuideSpread | float | None,
    fixed_sd: ArrayLike,
) -> tuple[PooledGuides, GuideSpread, float]:
    """Return pooled guides with the errors of their departures, and the variance of these.

    ``screen`` has one environment per guide, and ``augmented`` also the batch columns.
    """
    # Coexpression of cells within guides, and departures from the mean of all cells of a group.
    n_groups = len(departs)
    plain = pool_guides(augmented, group, n_groups, fixed_sd=fixed_sd)
    total, n_guides = int(screen.n.sum()), int(np.count_nonzero(screen.n))
    scale = max(total - n_groups, 1) / max(total - n_guides, 1)  # of degrees of freedom
    within = replace(plain, scatter=screen.scatter * scale)
    cells = coexpression(within)
    guides = Guides.of(screen, group, plain.mean, plain.variance_ratio, cells)
    if spread is None:
        spread = learn_spread(guides, departs)
    elif not isinstance(spread, GuideSpread):
        spread = GuideSpread.of_variance(spread)
    spread = spread.on(cells.factors.shape[1])
    variance = spread.variance_on(cells)
    of_each = np.where(departs[group], variance, 0.0)
    pooled = pool_guides(augmented, group, n_groups, guide_variance=of_each, fixed_sd=fixed_sd)
    has_cells = screen.n > 0
    weight = screen.n / (1.0 + screen.n * of_each)
    share = (weight / np.maximum(pooled.n[group], 1e-300))[has_cells]
    guides = Guides.of(screen, group, pooled.mean, pooled.variance_ratio, cells)
    shared = combine_guides(guides, share, spread, departs)
    errors = MeanErrors(shared.own, shared.along, cells, shared.coincidence)
    mean = pooled.mean + shared.offset * cells.unit
    return replace(pooled, mean=mean, errors=errors), spread, variance
