"""What batches add to the genes of a cell, and moments of groups of cells without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata._fold import fold_blocks
from nextpert._adata.labels import read_labels
from nextpert._adata.panel import list_names
from nextpert._adata.read import environment_moments
from nextpert._adata.screen import read_environments, screen_moments
from nextpert.core.cells.moments import Moments
from nextpert.core.cells.screen_moments import ScreenMoments

if TYPE_CHECKING:
    from collections.abc import Collection

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert._adata.roles import Roles


@dataclass(frozen=True)
class Batches:
    """Combinations of batches, and what each adds to every gene.

    Parameters
    ----------
    names
        Of the combinations that occur.
    codes
        Combination of every cell, -1 where a batch is missing, shape ``(n_cells,)``.
    offsets
        What it adds, on average nothing over the labelled cells, shape
        ``(n_combinations, n_genes)``; nan where no labelled cell is of it.
    columns
        Columns of a regression in which it is estimated, shape ``(n_combinations, n_columns)``,
        as of :meth:`~nextpert.core.ScreenMoments.fixed_columns`; nan likewise.
    sd
        Standard errors of their coefficients over the noise's standard deviation.
    """

    names: list[str]
    codes: NDArray[np.int64]
    offsets: NDArray[np.float64]
    columns: NDArray[np.float64]
    sd: NDArray[np.float64]

    def of_cells(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what batches add to each of some cells, shape ``(len(cells), n_genes)``.

        Raises
        ------
        ValueError
            If a batch is missing, or holds no labelled cell.
        """
        codes = self.codes[cells]
        if (codes < 0).any():
            message = f"{(codes < 0).sum()} of the cells that are read have no batch: fill it."
            raise ValueError(message)
        unknown = [k for k in np.unique(codes) if np.isnan(self.offsets[k]).any()]
        if unknown:
            message = (
                f"Batches without any labelled cell: {list_names(self.names[k] for k in unknown)}. "
                f"What they add cannot be told: leave their cells out."
            )
            raise ValueError(message)
        return self.offsets[codes]

    def errors(self, groups: ArrayLike, n_groups: int) -> NDArray[np.float64]:
        """Return the errors that batches leave in the means of groups, ``(n_groups, n_columns)``.

        ``groups`` has the group of every cell, -1 for none. As
        :attr:`~nextpert.core.cells.pool_guides.PooledGuides.fixed_errors`.
        """
        codes = np.asarray(groups, np.int64)
        cells = np.flatnonzero(codes >= 0)
        total, n = np.zeros((n_groups, len(self.sd))), np.bincount(codes[cells], minlength=n_groups)
        np.add.at(total, codes[cells], self.columns[self.codes[cells]] * self.sd)
        return total / np.maximum(n, 1)[:, None]


def read_batches(
    adata: ad.AnnData, columns: ArrayLike, roles: Roles, *, without: Collection[str] = ()
) -> Batches | None:
    """Return what batches add to the genes, ``None`` where no column of batches is said.

    Cells of the perturbations ``without`` are not read.

    Least squares of the means of all environments by one mean a perturbation (and condition) and
    the batches, so that batches may be crossed with perturbations and with one another.
    """
    if not roles.batch_key:
        return None
    environments = read_environments(adata, roles)
    if without:
        environments = environments.only(sorted(set(environments.perturbation) - set(without)))
    genes = np.asarray(columns, np.int64)
    screen = screen_moments(adata, genes, environments).subset(np.arange(len(genes)))
    keys = [roles.perturbation_key, *environments.condition_names]
    group = environments.table.groupby(keys, sort=False).ngroup().to_numpy()
    clean = screen.without_fixed(environments.batches()[1], group)
    fixed, sd = screen.fixed_columns(environments.batches()[1], group)
    tables = [read_labels(adata, key, argument="batch_key") for key in roles.batch_key]
    stacked = np.column_stack([table.codes for table in tables])
    found, place = np.unique(stacked, axis=0, return_inverse=True)
    missing = np.asarray((found < 0).any(axis=1))
    codes = np.where(missing[place.ravel()], -1, place.ravel())
    names = [
        ", ".join("missing" if c < 0 else t.names[c] for t, c in zip(tables, row, strict=True))
        for row in found
    ]
    offsets = np.full((len(found), len(genes)), np.nan)
    of_combination = np.full((len(found), len(sd)), np.nan)
    cells, of_environment = np.unique(environments.codes, return_index=True)
    first = of_environment[cells >= 0]  # a cell of every environment
    offsets[codes[first]] = screen.mean - clean.mean
    of_combination[codes[first]] = fixed
    return Batches(names, codes, offsets, of_combination, sd)


def group_moments(
    adata: ad.AnnData,
    columns: ArrayLike,
    groups: ArrayLike,
    n_groups: int,
    roles: Roles,
    *,
    batches: Batches | None = None,
    show_progress: bool = False,
) -> list[Moments]:
    """Return the moments of groups of cells, without what batches add.

    Parameters
    ----------
    adata, columns, groups, n_groups, show_progress
        As in :func:`nextpert._adata.environment_moments`.
    roles
        Layer, and columns of batches.
    batches
        As of :func:`read_batches`, which is called where they are needed and not given.
    """
    options: dict[str, Any] = {"layer": roles.layer, "show_progress": show_progress}
    batches = read_batches(adata, columns, roles) if batches is None else batches
    if batches is None:
        return environment_moments(adata, columns, groups, n_groups, **options)
    codes = np.asarray(groups, np.int64)
    pairs, of_pair = _pairs(codes, batches)
    parts = environment_moments(adata, columns, of_pair, len(pairs), **options)
    out = [Moments.zeros(batches.offsets.shape[1]) for _ in range(n_groups)]
    for (group, batch), part in zip(pairs.tolist(), parts, strict=True):
        out[group] = out[group] + part.centre(batches.offsets[batch])
    return out


def pooled_moments(
    adata: ad.AnnData,
    columns: ArrayLike,
    groups: ArrayLike,
    n_groups: int,
    roles: Roles,
    *,
    batches: Batches | None = None,
) -> ScreenMoments:
    """Return the moments of groups of cells, without what batches add, their scatter pooled.

    The columns of batches, if there are any, are the last nodes, so that a regression on them takes
    up what is not known of batches. The memory is that of one matrix, however many groups there
    are. The arguments are those of :func:`group_moments`.
    """
    codes, genes = np.asarray(groups, np.int64), np.asarray(columns, np.int64)
    none = np.zeros((len(codes), 0))
    if batches is None:
        part = fold_blocks(adata, genes, codes, n_groups, extra=none, layer=roles.layer)
        return ScreenMoments.from_part(part, n_groups)
    pairs, of_pair = _pairs(codes, batches)
    part = fold_blocks(adata, genes, of_pair, len(pairs), extra=none, layer=roles.layer)
    found = ScreenMoments.from_part(part, len(pairs))
    mean = found.mean - batches.offsets[pairs[:, 1]]
    clean = ScreenMoments(found.n, mean, found.squares, found.scatter)
    clean = clean.with_columns(batches.columns[pairs[:, 1]])
    return clean.pool(pairs[:, 0], n_groups)


def _pairs(
    codes: NDArray[np.int64], batches: Batches
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all pairs of a group and a batch that occur, and the pair of every cell."""
    cells = np.flatnonzero(codes >= 0)
    batches.of_cells(cells)  # raises where a batch is not known
    both = np.column_stack([codes[cells], batches.codes[cells]])
    pairs, place = np.unique(both, axis=0, return_inverse=True)
    of_pair = np.full(len(codes), -1, np.int64)
    of_pair[cells] = place.ravel()
    return pairs, of_pair
