"""What batches add to the genes of a cell, and moments of groups of cells without it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata.labels import read_labels
from nextpert._adata.screen import coding, read_environments, read_screens
from nextpert.core._checks import list_names
from nextpert.core.screen.guides import distinct

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert._adata.roles import Roles
    from nextpert._adata.screen import Environments
    from nextpert.core import Moments, ScreenMoments


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
        self.require(cells)
        return self.offsets[self.codes[cells]]

    def require(self, cells: NDArray[np.int64]) -> None:
        """Raise unless it is known what batches add to each of some cells."""
        codes = self.codes[cells]
        if (codes < 0).any():
            message = f"{(codes < 0).sum()} of the cells that are read have no batch: fill it."
            raise ValueError(message)
        unknown = [k for k in np.unique(codes) if np.isnan(self.offsets[k]).any()]
        if unknown:
            message = (
                f"Batches without any labelled cell: {list_names(self.names[k] for k in unknown)}. "
                f"Their effects cannot be estimated: leave their cells out."
            )
            raise ValueError(message)

    def errors(self, groups: ArrayLike, n_groups: int) -> NDArray[np.float64]:
        """Return the errors that batches leave in the means of groups, ``(n_groups, n_columns)``.

        ``groups`` has the group of every cell, -1 for none. As
        :attr:`~nextpert.core.screen.guides.PooledGuides.fixed_errors`.
        """
        codes = np.asarray(groups, np.int64)
        cells = np.flatnonzero(codes >= 0)
        total, n = np.zeros((n_groups, len(self.sd))), np.bincount(codes[cells], minlength=n_groups)
        np.add.at(total, codes[cells], self.columns[self.codes[cells]] * self.sd)
        return total / np.maximum(n, 1)[:, None]


def read_batches(adata: ad.AnnData, columns: ArrayLike, roles: Roles) -> Batches | None:
    """Return what batches add to the genes, ``None`` where no column of batches is said.

    Least squares of the means of all environments by one mean per perturbation (and condition) and
    the batches, so that batches may be crossed with perturbations and with one another.
    """
    none = np.full(adata.n_obs, -1, np.int64)
    return read_groups(adata, columns, none, 0, roles)[1] if roles.batch_key else None


def read_groups(
    adata: ad.AnnData, columns: ArrayLike, groups: ArrayLike, n_groups: int, roles: Roles
) -> tuple[list[Moments], Batches | None]:
    """Return the moments of groups of cells, without what batches add, and that; in one pass.

    ``groups`` has the group of every cell, -1 for none, shape ``(n_cells,)``. The other arguments
    are those of :func:`read_groupings`.
    """
    codes = np.asarray(groups, np.int64)
    ((found,), batches) = read_groupings(adata, columns, [(codes, n_groups)], roles)
    return found, batches


def read_groupings(
    adata: ad.AnnData,
    columns: ArrayLike,
    groupings: Sequence[tuple[NDArray[np.int64], int]],
    roles: Roles,
) -> tuple[list[list[Moments]], Batches | None]:
    """Return the moments of groups of cells by several groupings, in one pass.

    Parameters
    ----------
    adata, columns
        As in :func:`nextpert._adata.read.read_screens`.
    groupings
        Group of every cell, -1 for none, shape ``(n_cells,)``, and the number of groups.
    roles
        Layer, and columns of batches, of which all labelled cells are read to tell what they add.

    Returns
    -------
    tuple
        Moments of the groups of every grouping, without what batches add; and that, ``None`` where
        no column of batches is said.
    """
    if not roles.batch_key or not groupings:
        codings = [coding({"group": codes}, fold=codes) for codes, _ in groupings]
        screens = read_screens(adata, columns, codings, layer=roles.layer)
        batches = None
    else:
        environments = read_environments(adata, roles)
        of_cell, names = _combinations(adata, roles)
        codings = [
            coding({"batch": np.where(codes >= 0, of_cell, -1)}, fold=codes)
            for codes, _ in groupings
        ]
        every = coding({"environment": environments.codes})
        labelled, *screens = read_screens(adata, columns, [every, *codings], layer=roles.layer)
        batches = _batches(labelled.moments(), environments, of_cell, names)
        for codes, _ in groupings:
            batches.require(np.flatnonzero(codes >= 0))
        screens = [
            replace(each, mean=each.mean - batches.offsets[each.columns["batch"]])
            for each in screens
        ]
    moments = [
        [screen.of_fold(k) for k in range(n)]
        for screen, (_, n) in zip(screens, groupings, strict=True)
    ]
    return moments, batches


def _combinations(adata: ad.AnnData, roles: Roles) -> tuple[NDArray[np.int64], list[str]]:
    """Return the combination of batches of every cell, -1 where one is missing, and their names."""
    tables = [read_labels(adata, key, argument="batch_key") for key in roles.batch_key]
    found, place = distinct(*(table.codes for table in tables))
    missing = np.asarray((found < 0).any(axis=1))
    names = [
        ", ".join("missing" if c < 0 else t.names[c] for t, c in zip(tables, row, strict=True))
        for row in found
    ]
    return np.where(missing[place], -1, place), names


def _batches(
    labelled: ScreenMoments,
    environments: Environments,
    codes: NDArray[np.int64],
    names: list[str],
) -> Batches:
    """Return what the combinations ``codes`` of cells add, from the means of environments."""
    group = environments.levels(environments.roles.perturbation_key, *environments.condition_names)
    clean, sd = labelled.without_batches(
        environments.indicators(environments.roles.batch_key)[1], group
    )
    without, columns = np.split(clean.mean, [labelled.n_nodes], axis=1)
    offsets = np.full((len(names), labelled.n_nodes), np.nan)
    of_combination = np.full((len(names), len(sd)), np.nan)
    cells, of_environment = np.unique(environments.codes, return_index=True)
    first = of_environment[cells >= 0]  # a cell of every environment
    offsets[codes[first]] = labelled.mean - without
    of_combination[codes[first]] = columns
    return Batches(names, codes, offsets, of_combination, sd)
