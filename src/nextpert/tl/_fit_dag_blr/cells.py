"""The cells of a fit: controls and perturbations, one environment a guide, read once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert import _adata
from nextpert.core import Moments, ScreenMoments
from nextpert.core.cells.pool_guides import PooledGuides, guide_variance, pool_guides
from nextpert.core.cells.spread_within import spread_within

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert._adata import LabelTable, Roles


FEWEST_GUIDES = 3  # of the controls, to learn from them how far guides scatter


@dataclass(frozen=True)
class FitCells:
    """Cells of the controls (first) and of perturbations, without what batches add.

    Parameters
    ----------
    control
        Moments of the controls; of their scatter the diagonal alone.
    pooled
        Controls and perturbations, guides pooled.
    screen
        Moments of controls and perturbations, guides not told apart.
    guide_variance
        Spread of guides over the noise variance.
    n_guides
        Number of guides of the controls, 0 where none are named.
    """

    control: Moments
    pooled: PooledGuides
    screen: ScreenMoments
    guide_variance: float
    n_guides: int

    @property
    def n_cells(self) -> NDArray[np.int64]:
        """Cells of every perturbation."""
        return self.pooled.n_cells[1:]


def read_fit_cells(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    labels: LabelTable,
    names: Sequence[str],
    roles: Roles,
    *,
    exact: bool,
    spread: float | None = None,
    without: Collection[str] = (),
) -> FitCells:
    """Read the cells of the controls and of some perturbations.

    With ``exact`` shifts guides do not differ, and all cells scatter alike, as in the paper.
    ``spread`` is the variance of guides where it is known from other genes. No cell of the
    perturbations ``without`` is read, not even to learn what batches add.
    """
    group = labels.groups([roles.control, *names])
    guided = roles.guide_key is not None and not exact
    guide = np.zeros(len(group), np.int64)
    if guided:
        guide = _adata.read_labels(adata, str(roles.guide_key), argument="guide_key").codes
    used = np.flatnonzero(group >= 0)
    pairs, place = np.unique(
        np.column_stack([group[used], guide[used]]), axis=0, return_inverse=True
    )
    of_pair = np.full(len(group), -1, np.int64)
    of_pair[used] = place.ravel()
    batches = _adata.read_batches(adata, columns, roles, without=without)
    screen = _adata.pooled_moments(adata, columns, of_pair, len(pairs), roles, batches=batches)
    return pool_cells(
        screen, pairs[:, 0], 1 + len(names), guided=guided, exact=exact, spread=spread,
        fixed_sd=() if batches is None else batches.sd,
    )  # fmt: skip


def pool_environments(
    screen: ScreenMoments,
    group: NDArray[np.int64],
    condition: NDArray[np.int64],
    guide: NDArray[np.int64],
    fixed: NDArray[np.float64],
    n_groups: int,
    *,
    guided: bool,
    exact: bool = False,
    spread: float | None = None,
    alike: NDArray[np.bool_] | None = None,
) -> FitCells:
    """Return the cells of environments as a fit takes them, batches estimated from these alone.

    Parameters
    ----------
    screen
        Moments of the environments, of genes alone.
    group, condition, guide
        Perturbation of each (0 for the controls), the same with conditions told apart, and its
        guide, shape ``(n_environments,)``.
    fixed
        Indicators of batches, shape ``(n_environments, n_fixed)``.
    n_groups
        Number of perturbations, and the controls.
    guided, exact, spread, alike
        As in :func:`pool_cells`; guides are told apart where ``guided``.
    """
    columns, sd = screen.fixed_columns(fixed, condition)
    screen = screen.without_fixed(fixed, condition).with_columns(columns)
    told = guide if guided else np.zeros_like(guide)
    pairs, place = np.unique(np.column_stack([group, told]), axis=0, return_inverse=True)
    return pool_cells(
        screen.pool(place.ravel(), len(pairs)), pairs[:, 0], n_groups, guided=guided, exact=exact,
        spread=spread, alike=alike, fixed_sd=sd,
    )  # fmt: skip


def pool_cells(
    screen: ScreenMoments,
    of_group: NDArray[np.int64],
    n_groups: int,
    *,
    guided: bool,
    exact: bool = False,
    spread: float | None = None,
    alike: NDArray[np.bool_] | None = None,
    fixed_sd: ArrayLike = (),
) -> FitCells:
    """Pool the guides of the controls (group 0) and of every perturbation.

    ``guided`` says whether environments are guides, whose spread is learned unless it is given.
    ``alike`` are the groups whose guides are taken as not to differ, shape ``(n_groups,)``; by
    default the controls, if all their cells have one guide: it is not told then which they have.
    ``fixed_sd`` as in :func:`~nextpert.core.cells.pool_guides.pool_guides`.
    """
    augmented, screen = screen, screen.subset(np.arange(screen.n_nodes - len(np.asarray(fixed_sd))))
    controls = np.flatnonzero((of_group == 0) & (screen.n > 0))
    if spread is None or not guided:
        spread = _learned_spread(screen, of_group, controls) if guided else 0.0
    if alike is None:
        alike = (np.arange(n_groups) == 0) & (len(controls) == 1)
    of_each = np.where(alike[of_group], 0.0, spread)
    pooled = pool_guides(augmented, of_group, n_groups, guide_variance=of_each, fixed_sd=fixed_sd)
    if exact:
        pooled = replace(pooled, variance_ratio=np.ones_like(pooled.variance_ratio))
    control = _control(screen, of_group == 0)
    n_guides = int((of_group == 0).sum()) if guided else 0
    return FitCells(control, pooled, screen.pool(of_group, n_groups), spread, n_guides)


def _learned_spread(
    screen: ScreenMoments, of_group: NDArray[np.int64], controls: NDArray[np.int64]
) -> float:
    """Return the variance of the controls' guides, or where these are few of perturbations'."""
    if len(controls) >= FEWEST_GUIDES:
        return guide_variance(screen, controls)
    return spread_within(screen, np.where(of_group > 0, of_group, -1))


def _control(screen: ScreenMoments, which: NDArray[np.bool_]) -> Moments:
    nothing = np.zeros_like(screen.scatter)
    own = ScreenMoments(screen.n[which], screen.mean[which], screen.squares[which], nothing)
    one = own.pool(np.zeros(int(which.sum()), np.int64), 1)
    return Moments(int(one.n[0]), one.mean[0], np.diag(one.squares[0]))
