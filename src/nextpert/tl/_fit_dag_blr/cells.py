"""The cells of a fit or a diagnosis, read once: controls and perturbations, guides pooled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert._adata.screen import coding, distinct, read_environments, read_screens
from nextpert.core import Moments, ScreenMoments
from nextpert.core.screen.guides import PooledGuides, pool_guides, spread_within

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert._adata import Roles
    from nextpert._adata.read import Checksum
    from nextpert._adata.screen import Environments
    from nextpert.core.screen.screen import Screen


class ByCondition(NamedTuple):
    """Names of conditions, and the controls and perturbations of each."""

    names: list[str]
    parts: list[PooledGuides]


@dataclass(frozen=True)
class FitCells:
    """Cells of the controls (first) and of perturbations, without what batches add.

    Parameters
    ----------
    pooled
        Controls and perturbations, guides pooled.
    screen
        Moments of controls and perturbations, guides pooled.
    guide_variance
        Spread of guides over the noise variance.
    n_guides
        Number of guides of the controls, 0 where none are named.
    conditions
        The same cells by condition; ``None`` where fewer than two have controls.
    """

    pooled: PooledGuides
    screen: ScreenMoments
    guide_variance: float
    n_guides: int
    conditions: ByCondition | None = None

    @cached_property
    def control(self) -> Moments:
        """Moments of the controls; of their scatter the diagonal alone."""
        one = self.screen
        mean, squares = (np.asarray(x[0], np.float64) for x in (one.mean, one.squares))
        return Moments(int(one.n[0]), mean, np.diag(squares))

    def rows(self, index: ArrayLike) -> FitCells:
        """Return some groups, in the order given; the scatter stays that of all."""
        which, by = np.asarray(index, np.int64), self.conditions
        if by is not None:
            by = ByCondition(by.names, [part.rows(which) for part in by.parts])
        return replace(
            self, pooled=self.pooled.rows(which), screen=self.screen.some(which), conditions=by
        )

    @property
    def n_cells(self) -> NDArray[np.int64]:
        """Cells of every perturbation."""
        return self.pooled.n_cells[1:]


@dataclass(frozen=True)
class Cells:
    """The cells of a fit or a diagnosis, read once.

    Parameters
    ----------
    fits
        Environments of each fit, and their sums. Perturbations that a fit has, and the controls,
        are another fold than those whose cells only tell what batches add.
    searches
        Environments of searches of graphs, and their sums, of which perturbations that are left
        out together are a fold; ``None`` where there are no searches.
    halves
        Sums of each half of some environments (columns ``"environment"`` and ``"half"``); ``None``
        where there are none.
    checksum
        Of the values, as a fingerprint asks for it.
    """

    fits: list[tuple[Environments, Screen]]
    searches: tuple[Environments, Screen] | None
    halves: Screen | None
    checksum: int

    def fit_cells(
        self,
        names: Sequence[str],
        fit: int = 0,
        *,
        guided: bool,
        spread: float | None = None,
    ) -> FitCells:
        """Return the cells of the controls and of the perturbations ``names`` of a fit.

        Guides are separate if ``guided``. ``spread`` is the variance of guides where it is known
        from other genes.
        """
        known, screen = self.fits[fit]
        cells, keys, sd = known.without_batches(screen, names)
        found = pool_cells(
            cells, keys[:, 0], 1 + len(names), guide=keys[:, 1] if guided else None,
            spread=spread, fixed_sd=sd,
        )  # fmt: skip
        if known.roles.condition_key is None:
            return found
        cells, keys, sd = known.without_batches(screen, names, by_condition=True)
        return with_conditions(
            found, cells, keys[:, 0], keys[:, 3], condition_names(known),
            guide=keys[:, 1] if guided else None, fixed_sd=sd,
        )  # fmt: skip


def fit_environments(adata: ad.AnnData, roles: Roles, names: Sequence[str]) -> Environments:
    """Return the environments of a fit.

    Conditions and perturbations other than ``names`` count where they tell what batches add.
    """
    if roles.batch_key:
        return read_environments(adata, roles, named=names)
    found = read_environments(adata, replace(roles, covariates=()), named=names)
    asked = found.groups([roles.control, *names]) >= 0
    return found.only(sorted(set(found.perturbation[asked])))


def read_cells(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    environments: Environments,
    names: Sequence[str],
    *,
    without: Sequence[Collection[str]] = ((),),
    searches: Environments | None = None,
    sets: Sequence[Collection[str]] = (),
    halves: tuple[Environments, NDArray[np.int64]] | None = None,
    checksum: Checksum | None = None,
) -> Cells:
    """Read all labelled cells in one pass (in two where the graph was learned on another layer).

    Parameters
    ----------
    adata, columns
        The cells, and the columns of the panel, shape ``(n_genes,)``.
    environments
        Those of a fit.
    names
        Perturbations of the fit.
    without
        Perturbations of which each fit sees no cell; by default there is one, to all. The sums of
        each are taken apart, so that they are to the bit those of a screen that lacks these cells.
    searches
        Environments of searches; ``None`` where there are none.
    sets
        Perturbations that are left out of a search together. One scatter is held for all that are
        in the same sets: of five folds one each, and of pairs of folds of which the second are of
        what the first leave, 25.
    halves
        Environments, and the half of every cell, 0 or 1, shape ``(n_cells,)``.
    checksum
        Weights of a checksum of the values.
    """
    layer, labels = environments.roles.layer, set(environments.perturbation)
    fits, codings = [], []
    for some in without:
        gone = environments.groups(list(some)) >= 0
        rest = environments.only(sorted(labels - set(environments.perturbation[gone])))
        fits.append(rest)
        group = rest.groups([rest.roles.control, *names])  # their order is that of sums
        of_cell = {"order": np.append(group, -1)[rest.codes], "environment": rest.codes}
        codings.append(coding(of_cell, fold=np.append(group >= 0, -1)[rest.codes]))
    if halves is not None:
        known, half = halves
        half = np.where(known.codes >= 0, half, -1)
        codings.append(coding({"environment": known.codes, "half": half}, fold=half))
    other: list[Screen] = []
    if searches is not None:
        kind = np.append(_kinds(searches, sets), -1)[searches.codes]
        held = coding({"environment": searches.codes}, fold=kind, extra=searches.covariates)
        if searches.roles.layer == layer:
            codings.append(held)
        else:
            other, _ = read_screens(adata, columns, [held], layer=searches.roles.layer)
    screens, found = read_screens(adata, columns, codings, checksum=checksum, layer=layer)
    screens += other
    return Cells(
        list(zip(fits, screens[: len(fits)], strict=True)),
        None if searches is None else (searches, screens[-1]),
        None if halves is None else screens[len(fits)], found,
    )  # fmt: skip


def _kinds(environments: Environments, sets: Sequence[Collection[str]]) -> NDArray[np.int64]:
    """Return a number for the sets that the perturbation of each environment is in."""
    members = [np.ones(len(environments.table), bool)]
    members += [environments.groups(list(some)) >= 0 for some in sets]
    _, first, kind = np.unique(
        np.column_stack(members), axis=0, return_index=True, return_inverse=True
    )
    return np.asarray(np.argsort(np.argsort(first))[kind.ravel()], np.int64)


def condition_names(environments: Environments) -> list[str]:
    """Return the conditions of a screen, in the order of their numbers; none without."""
    key = environments.roles.condition_key
    return [] if key is None else sorted(set(environments.table[key]))


def with_conditions(
    found: FitCells,
    screen: ScreenMoments,
    group: NDArray[np.int64],
    condition: NDArray[np.int64],
    names: Sequence[str],
    *,
    guide: NDArray[np.int64] | None = None,
    alike: NDArray[np.bool_] | None = None,
    fixed_sd: ArrayLike = (),
) -> FitCells:
    """Return the cells of a fit with the same cells by condition.

    Conditions without controls or without perturbed cells are left out. They stay pooled where
    fewer than two are left, or where a perturbation is in none of these.

    Parameters
    ----------
    found
        The cells, conditions pooled.
    screen, group, guide, alike, fixed_sd
        As of :func:`pool_cells`; batches were compared within conditions.
    condition
        Condition of each environment, shape ``(n_environments,)``.
    names
        Names of the conditions.
    """
    n_groups, some = len(found.pooled.n), screen.n > 0
    controls, perturbed = (
        {k for k in range(len(names)) if (some & which & (condition == k)).any()}
        for which in (group == 0, group > 0)
    )
    held = sorted(controls & perturbed)
    if len(held) < 2:
        return found
    if alike is None:  # as in pool_cells, of all conditions
        alike = (np.arange(n_groups) == 0) & (guide is not None) & (found.n_guides == 1)
    parts = []
    for k in held:
        kept = condition == k
        parts.append(
            pool_cells(
                _of_own_variances(screen.some(kept)), group[kept], n_groups,
                guide=None if guide is None else guide[kept], spread=found.guide_variance,
                alike=alike, fixed_sd=fixed_sd,
            ).pooled
        )  # fmt: skip
    cells = np.sum([part.n_cells for part in parts], axis=0)
    if ((cells == 0) & (found.pooled.n_cells > 0)).any():
        return found  # controls of one condition in the place of a perturbation
    return replace(found, conditions=ByCondition([names[k] for k in held], parts))


def _of_own_variances(screen: ScreenMoments) -> ScreenMoments:
    """Return some environments of a screen with their own variances in the scatter within all.

    Correlations stay those of the screen. A table has no variances of its own.
    """
    if screen.counted is not None:
        return screen
    own, whole = screen.squares.sum(axis=0), screen.scatter.diagonal()
    root = np.sqrt(np.divide(own, whole, out=np.zeros_like(own), where=whole > 0))
    return replace(screen, scatter=screen.scatter * np.outer(root, root))


def pool_cells(
    screen: ScreenMoments,
    group: NDArray[np.int64],
    n_groups: int,
    *,
    guide: NDArray[np.int64] | None = None,
    spread: float | None = None,
    alike: NDArray[np.bool_] | None = None,
    fixed_sd: ArrayLike = (),
) -> FitCells:
    """Pool the guides of the controls (group 0) and of every perturbation (equation 7).

    Parameters
    ----------
    screen
        Moments of environments, the columns of batches after the genes
        (:meth:`~nextpert.core.ScreenMoments.without_batches`).
    group
        Perturbation of each, shape ``(n_environments,)``.
    n_groups
        Number of perturbations, and the controls.
    guide
        Guide of each, same shape; ``None`` without guides.
    spread
        Variance of guides over that of noise, which is learned unless it is given.
    alike
        Groups whose guides are taken as not to differ, shape ``(n_groups,)``; by default the
        controls, if all their cells have one guide: it is not told then which they have.
    fixed_sd
        As in :func:`~nextpert.core.screen.guides.pool_guides`.
    """
    pairs, place = distinct(group, np.zeros_like(group) if guide is None else guide)
    of_group = pairs[:, 0]
    augmented = screen.pool(place, len(pairs))
    screen, n_fixed = augmented, len(np.asarray(fixed_sd))
    if n_fixed:  # the last nodes are the columns of batches
        screen = augmented.subset(np.arange(augmented.n_nodes - n_fixed))
    controls = np.flatnonzero((of_group == 0) & (screen.n > 0))
    if guide is None:
        spread = 0.0
    elif spread is None:  # from the guides of all, each compared with others of its perturbation
        spread = spread_within(screen, of_group)
    if alike is None:
        alike = (np.arange(n_groups) == 0) & (len(controls) == 1)
    of_each = np.where(alike[of_group], 0.0, spread)
    pooled = pool_guides(augmented, of_group, n_groups, guide_variance=of_each, fixed_sd=fixed_sd)
    n_guides = 0 if guide is None else int((of_group == 0).sum())
    return FitCells(pooled, screen.pool(of_group, n_groups), spread, n_guides)
