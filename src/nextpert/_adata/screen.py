"""The environments of a screen, and the moments of all of them in one pass over the cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert._adata._fold import fold_blocks
from nextpert._adata.labels import (
    LabelTable,
    column_of,
    read_labels,
    read_perturbations,
    require_control,
)
from nextpert._adata.panel import list_names
from nextpert.core.cells.screen_moments import ScreenMoments

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert._adata.roles import Roles

_NO_GUIDE = ""  # cells whose guide is not said form one block a perturbation


@dataclass(frozen=True)
class Environments:
    """Groups of cells that share perturbation, guide, batches and conditions.

    Parameters
    ----------
    roles
        The columns that tell them apart.
    table
        One row an environment, sorted: the columns of ``roles`` without numeric covariates (the
        first is the perturbation), and ``n_cells``.
    codes
        Row of every cell, shape ``(n_cells,)``; -1 for cells without a perturbation label.
    covariates
        Values of the numeric covariates, shape ``(n_cells, n_covariates)``.
    covariate_names
        Their columns of ``obs``.
    condition_names
        The covariates that are categories: columns of ``table``.
    """

    roles: Roles
    table: pd.DataFrame
    codes: NDArray[np.int64]
    covariates: NDArray[np.float64]
    covariate_names: list[str]
    condition_names: list[str]

    @property
    def perturbation(self) -> NDArray[np.object_]:
        """Perturbation of every environment."""
        return self.table[self.roles.perturbation_key].to_numpy(dtype=object)

    def perturbations(self) -> list[str]:
        """Return all perturbations, sorted, without the controls."""
        names = sorted(set(self.perturbation))
        return [name for name in names if name != self.roles.control]

    def conditions(self) -> tuple[list[str], NDArray[np.float64]]:
        """Return names and indicators of all conditions but the first of each column."""
        return self._levels(self.condition_names)

    def batches(self) -> tuple[list[str], NDArray[np.float64]]:
        """Return names and indicators of all batches but the first of each column."""
        return self._levels(list(self.roles.batch_key))

    def _levels(self, columns: Sequence[str]) -> tuple[list[str], NDArray[np.float64]]:
        names, indicators = [], []
        for column in columns:
            values = self.table[column].to_numpy(dtype=object)
            for level in sorted(set(values))[1:]:
                names.append(f"{column}={level}")
                indicators.append((values == level).astype(np.float64))
        return names, np.array(indicators).reshape(len(names), len(self.table)).T

    def only(self, perturbations: Sequence[str]) -> Environments:
        """Return the environments of some perturbations; cells of others get code -1."""
        kept = np.isin(self.perturbation, np.array(list(perturbations), dtype=object))
        place = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
        table = self.table[kept].reset_index(drop=True)
        return Environments(
            self.roles, table, place[self.codes], self.covariates, self.covariate_names,
            self.condition_names,
        )  # fmt: skip


def read_environments(adata: ad.AnnData, roles: Roles) -> Environments:
    """Return the environments of the labelled cells.

    Raises
    ------
    ValueError
        If a column is absent, no cell is a control, a batch or condition is missing for a
        labelled cell, or a numeric covariate is not finite there.
    """
    labels = read_perturbations(adata, roles)
    require_control(labels, roles.control)
    labelled = labels.codes >= 0
    categories, numeric, values = [], [], []
    for name in roles.covariates:
        column = column_of(adata, name)
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            numeric.append(name)
            values.append(_finite(column, labelled, name))
        else:
            categories.append(name)
    tables: dict[str, LabelTable] = {roles.perturbation_key: labels}
    guide = [] if roles.guide_key is None else [roles.guide_key]
    for name in [*guide, *roles.batch_key, *categories]:
        tables[name] = read_labels(adata, name, argument="batch_key, guide_key or covariates")
        missing = int((labelled & (tables[name].codes < 0)).sum())
        if missing and name not in guide:
            message = (
                f"adata.obs[{name!r}] is missing for {missing} labelled cells: fill it, or drop "
                f"these cells."
            )
            raise ValueError(message)
    codes, table = _combine(tables, labelled)
    covariates = np.column_stack(values) if values else np.zeros((adata.n_obs, 0))
    return Environments(roles, table, codes, covariates, numeric, categories)


def screen_moments(
    adata: ad.AnnData,
    columns: ArrayLike,
    environments: Environments,
    *,
    weights: NDArray[np.int64] | None = None,
    show_progress: bool = False,
) -> ScreenMoments:
    """Return the moments of all environments: genes of the panel, then numeric covariates.

    Sums are taken block by block in the order of the cells and then as a tree whose shape the
    number of blocks fixes, so that the bits depend on neither chunks nor workers.

    Parameters
    ----------
    adata
        As in :func:`nextpert._adata.environment_moments`.
    columns
        Columns of the panel, shape ``(n_genes,)``.
    environments
        As of :func:`read_environments`; cells with code -1 are not read.
    weights
        How often every cell counts, shape ``(n_cells,)``; ``None`` stands for once.
    show_progress
        Whether to show a progress bar where the matrix is large.

    Raises
    ------
    ValueError
        If a cell that is read holds NaN or infinite values; the genes are named.
    """
    part = fold_blocks(
        adata, columns, environments.codes, len(environments.table),
        extra=environments.covariates, weights=weights, layer=environments.roles.layer,
        show_progress=show_progress,
    )  # fmt: skip
    return ScreenMoments.from_part(part, len(environments.table))


def _finite(column: pd.Series, labelled: NDArray[np.bool_], name: str) -> NDArray[np.float64]:
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = int((labelled & ~np.isfinite(values)).sum())
    if bad:
        message = (
            f"The covariate adata.obs[{name!r}] is missing or infinite for {bad} labelled cells: "
            f"fill it, or drop these cells."
        )
        raise ValueError(message)
    return np.where(labelled, values, 0.0)


def _combine(
    tables: dict[str, LabelTable], labelled: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Return the environment of every cell, and the table of all that occur, sorted."""
    stacked = np.column_stack([table.codes[labelled] for table in tables.values()])
    found, place = np.unique(stacked, axis=0, return_inverse=True)
    codes = np.full(len(labelled), -1, np.int64)
    codes[labelled] = place.ravel()
    columns = {
        name: np.array([*table.names, _NO_GUIDE], dtype=object)[found[:, k]]
        for k, (name, table) in enumerate(tables.items())
    }
    columns["n_cells"] = np.bincount(place.ravel(), minlength=len(found))
    return codes, pd.DataFrame(columns)


def describe(environments: Environments) -> str:
    """Return one line about the environments, for the log."""
    roles = environments.roles
    parts = [f"{len(environments.perturbations())} perturbations"]
    for what, keys in (
        ("guides", [roles.guide_key] if roles.guide_key else []),
        ("batches", list(roles.batch_key)),
        ("conditions", environments.condition_names),
    ):
        if keys:
            n = len(environments.table.drop_duplicates(keys))
            parts.append(f"{n} {what}")
    if environments.covariate_names:
        parts.append(f"covariates {list_names(environments.covariate_names)}")
    return f"{len(environments.table)} environments: " + ", ".join(parts)
