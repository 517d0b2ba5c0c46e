"""Environments of a screen, batch effects, and moments in one pass over the cells."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert._adata.labels import (
    LabelTable,
    column_of,
    read_labels,
    read_perturbations,
    require_control,
)
from nextpert._adata.read import Coding, read_screens
from nextpert._adata.sources import real_values
from nextpert.core._checks import list_names, require_small
from nextpert.core.fit.naming import Naming
from nextpert.core.screen.guides import distinct

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert._adata.roles import Roles
    from nextpert.core import Moments, ScreenMoments
    from nextpert.core.screen.screen import Screen

# Batches are fixed effects: with fewer than two cells per batch, they would fit most cells exactly.
_FEWEST_CELLS = 2
# A numeric column with more distinct values than this, and fewer cells per value, is a quantity.
_MANY_NUMBERS = 20
_CELLS_OF_A_NUMBER = 10
logger = logging.getLogger(__name__)

_NO_GUIDE = ""  # cells without a guide form one block per perturbation


@dataclass(frozen=True)
class Environments:
    """Groups of cells that share perturbation, guide, batches and categorical covariates.

    ``table`` has one row per group, sorted: the columns of ``roles`` without numeric covariates
    (the first is the perturbation), and ``n_cells``. ``codes`` is the row of every cell, -1 for
    cells without a perturbation label; ``covariates`` holds the numeric covariates of cells, and
    ``condition_names`` names the categorical ones, which are columns of ``table``. ``left_out``
    maps labels that name no perturbation to their numbers of cells, and ``naming`` defines which
    labels are the same.
    """

    roles: Roles
    table: pd.DataFrame
    codes: NDArray[np.int64]
    covariates: NDArray[np.float64]
    covariate_names: list[str]
    condition_names: list[str]
    left_out: Mapping[str, int] = field(default_factory=dict)
    naming: Naming | None = None

    perturbation: NDArray[np.object_] = field(init=False)  # of every environment

    def __post_init__(self) -> None:
        labels = self.table[self.roles.perturbation_key].to_numpy(dtype=object)
        object.__setattr__(self, "perturbation", labels)

    def perturbations(self) -> list[str]:
        """Return all perturbations, sorted, without the controls."""
        names = sorted(set(self.perturbation))
        return [name for name in names if name != self.roles.control]

    def say_without_guide(self) -> None:
        """Log how many labelled cells have no guide, if there are any."""
        key = self.roles.guide_key
        n = 0 if key is None else self.table["n_cells"][self.table[key] == _NO_GUIDE].sum()
        if n:
            logger.warning(
                "%d labelled cells have no guide in adata.obs[%r]: such cells of a perturbation "
                "are treated as cells of one further guide. Fill the column, or drop these cells.",
                n,
                key,
            )

    def naming_on(self, genes: Iterable[str]) -> Naming:
        """Return the naming of perturbations for these measured genes."""
        return Naming(frozenset(genes), self.roles.separator, self.roles.control)

    @property
    def is_control(self) -> NDArray[np.bool_]:
        """Which environments consist of control cells."""
        return np.asarray(self.perturbation == self.roles.control)

    def numbered(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return 0 for controls, from 1 on the positions in ``names``, and -1 for all others."""
        return self.groups([self.roles.control, *names])

    def groups(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the position in ``names`` of the perturbation of every environment, or -1."""
        labels = self.perturbation
        if self.naming is not None:
            names = self.naming.spelled(names, sorted(set(labels)))
        position_of = {name: k for k, name in enumerate(names)}
        return np.array([position_of.get(name, -1) for name in labels], np.int64)

    def levels(self, *keys: str) -> NDArray[np.int64]:
        """Return a number per environment for its combination of levels in some columns."""
        if not keys:
            return np.zeros(len(self.table), np.int64)
        return np.asarray(self.table.groupby(list(keys), sort=True).ngroup(), np.int64)

    def indicators(self, columns: Sequence[str]) -> tuple[list[str], NDArray[np.float64]]:
        """Return names and indicators of the levels of some columns, without each first level."""
        names, indicators = [], []
        for column in columns:
            values = self.table[column].to_numpy(dtype=object)
            for level in sorted(set(values))[1:]:
                names.append(f"{column}={level}")
                indicators.append((values == level).astype(np.float64))
        return names, np.array(indicators).reshape(len(names), len(self.table)).T

    def without_batches(
        self, screen: Screen, names: Sequence[str], *, by_condition: bool = False
    ) -> tuple[ScreenMoments, NDArray[np.int64], NDArray[np.float64]]:
        """Return the environments of controls and perturbations without batch effects.

        ``screen`` has the sums of these environments. ``by_condition`` compares batches within
        perturbation and condition, so that differences between conditions remain. Returns the
        moments of genes, followed by those of the batch columns; group (0 for the controls), guide,
        batch and condition of each environment, shape ``(n_environments, 4)``; and ``fixed_sd`` as
        in :func:`~nextpert.core.screen.guides.pool_guides`.
        """
        rows = screen.columns["environment"]
        roles = self.roles
        condition_columns = [] if roles.condition_key is None else [roles.condition_key]
        clean = screen
        sd = np.zeros(0)
        if roles.batch_key:
            within = [roles.perturbation_key, *self.condition_names]
            condition = self.levels(*within, *(condition_columns if by_condition else []))[rows]
            clean, sd = screen.without_batches(self.indicators(roles.batch_key)[1][rows], condition)
        group = self.numbered(names)
        guide = self.levels(*([] if roles.guide_key is None else [roles.guide_key]))
        batch = self.levels(*roles.batch_key)
        keys = np.column_stack([group, guide, batch, self.levels(*condition_columns)])[rows]
        own = keys[:, 0] >= 0
        return clean.some(own).moments(), keys[own], sd

    def confounded(self, names: Sequence[str]) -> list[str]:
        """Return those of ``names`` whose effects cannot be separated from batch effects.

        Batch effects are estimated within perturbations. A combination of batches that is constant
        within each perturbation cannot be estimated: it remains in every difference between
        perturbations in which it does not cancel.
        """
        columns = self.indicators(self.roles.batch_key)[1]
        if not columns.shape[1]:
            return []
        group = self.levels(self.roles.perturbation_key, *self.condition_names)
        first, n = np.unique(group, return_index=True)[1], np.bincount(group)
        mean = np.zeros((len(n), columns.shape[1]))
        np.add.at(mean, group, columns)
        within = columns - (mean / n[:, None])[group]
        sizes, directions = np.linalg.eigh(within.T @ within)
        free = columns[first] @ directions[:, sizes < 1e-9 * len(columns)]
        own = self.numbered(names)[first]
        separate = {
            int(own[k])
            for control in free[own == 0]
            for k in np.flatnonzero(np.abs(free - control).max(axis=1, initial=0.0) < 1e-6)
        }
        return [name for j, name in enumerate(names, start=1) if j in own and j not in separate]

    def only(self, perturbations: Sequence[str]) -> Environments:
        """Return the environments of some perturbations; cells of others get code -1."""
        is_kept = np.isin(self.perturbation, np.array(list(perturbations), dtype=object))
        code_of = np.append(np.where(is_kept, np.cumsum(is_kept) - 1, -1), -1)
        table = self.table[is_kept].reset_index(drop=True)
        return replace(self, table=table, codes=code_of[self.codes])


def read_environments(
    adata: ad.AnnData, roles: Roles, *, named: Iterable[str] | None = None
) -> Environments:
    """Return the environments of the labelled cells.

    Labels in ``named`` are kept even if they look like labels that name no perturbation.
    """
    labels = read_perturbations(adata, roles, named=named)
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
        read = read_labels(adata, name, argument="batch_key, guide_key or covariates")
        tables[name] = read.without(level for level in read.names if not level.strip())
        missing = int((labelled & (tables[name].codes < 0)).sum())
        if missing and name not in guide:
            message = f"adata.obs[{name!r}] is missing for {missing} labelled cells: fill it in."
            raise ValueError(message)
    for name in roles.batch_key:
        _require_batches(column_of(adata, name), tables[name], labelled)
    # The environment of every cell, and the sorted table of all environments.
    levels, row_of = distinct(*(labels_of.codes[labelled] for labels_of in tables.values()))
    codes = np.full(len(labelled), -1, np.int64)
    codes[labelled] = row_of
    columns = {
        name: np.array([*labels_of.names, _NO_GUIDE], dtype=object)[levels[:, k]]
        for k, (name, labels_of) in enumerate(tables.items())
    }
    table = pd.DataFrame({**columns, "n_cells": np.bincount(row_of, minlength=len(levels))})
    if roles.condition_key is not None:
        _require_controls(table, roles)
    covariates = np.column_stack(values) if values else np.zeros((adata.n_obs, 0))
    return Environments(
        roles, table, codes, covariates, numeric, categories, labels.left_out, labels.naming
    )


def coding(
    columns: Mapping[str, NDArray[np.int64]],
    *,
    fold: NDArray[np.int64] | None = None,
    extra: NDArray[np.float64] | None = None,
    weights: NDArray[np.int64] | None = None,
) -> Coding:
    """Return the coding whose environments are the combinations of columns that occur, sorted.

    ``columns`` maps names to whole numbers, one per cell; cells with -1 in all columns are not
    read. ``fold`` is the fold of every cell: each fold has its own scatter (by default, all cells
    share one). ``extra`` and ``weights`` are as in :class:`~nextpert._adata.read.Coding`.
    """
    levels = list(columns.values())
    n_cells = len(levels[0])
    cells = np.flatnonzero(np.any([codes_of >= 0 for codes_of in levels], axis=0))
    fold = np.zeros(n_cells, np.int64) if fold is None else fold
    rows, row_of = distinct(*(codes_of[cells] for codes_of in (*levels, fold)))
    codes = np.full(n_cells, -1, np.int64)
    codes[cells] = row_of
    extra = np.zeros((n_cells, 0)) if extra is None else extra
    by_name = {name: rows[:, k].copy() for k, name in enumerate(columns)}
    return Coding(codes, rows[:, -1].copy(), extra, weights, by_name)


def coding_without(environments: Environments, sets: Sequence[Collection[str]]) -> Coding:
    """Return the coding with one fold per set of labels: all cells but those of the set.

    The sums of each fold are taken for themselves, so that they are bitwise identical to those of a
    screen without the other cells.
    """
    one = coding({"environment": environments.codes}, extra=environments.covariates)
    is_in_fold = [environments.groups(list(labels)) < 0 for labels in sets]
    return one._replace(fold=np.array(is_in_fold, np.int64).T[one.columns["environment"]])


def without_sets(
    environments: Environments, screen: Screen, sets: Sequence[Collection[str]]
) -> Iterator[tuple[Environments, ScreenMoments]]:
    """Yield, for every set of labels, the environments of all other labels and their moments.

    ``screen`` has the sums of :func:`coding_without`.
    """
    labels = set(environments.perturbation)
    for left_out in sets:
        is_kept = environments.groups(list(left_out)) < 0
        remaining = sorted(labels - set(environments.perturbation[~is_kept]))
        yield environments.only(remaining), screen.some(is_kept).moments()


def screen_moments(
    adata: ad.AnnData,
    columns: ArrayLike,
    environments: Environments,
    *,
    weights: NDArray[np.int64] | None = None,
) -> ScreenMoments:
    """Return the moments of all environments: genes of the panel, then numeric covariates.

    ``weights`` is how often every cell counts, shape ``(n_cells,)``; ``None`` stands for once.
    ``adata``, ``columns`` and the errors are those of :func:`read_screens`.
    """
    one = coding(
        {"environment": environments.codes}, extra=environments.covariates, weights=weights
    )
    layer = environments.roles.layer
    (screen,) = read_screens(adata, columns, [one], layer=layer)
    return screen.moments()


def _require_batches(column: pd.Series, batches: LabelTable, labelled: NDArray[np.bool_]) -> None:
    """Raise if a column holds a continuous quantity, or a level for almost every cell."""
    n_cells, n_batches = int(labelled.sum()), len(np.unique(batches.codes[labelled]))
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    is_quantity = is_number and n_batches > _MANY_NUMBERS
    min_cells = _CELLS_OF_A_NUMBER if is_quantity else _FEWEST_CELLS
    if n_batches > 1 and n_cells < min_cells * n_batches:
        message = (
            f"batch_key={batches.key!r} holds {n_batches} values in {n_cells} cells: name a column "
            f"with few values, such as the plate, and pass quantities as covariates."
        )
        raise ValueError(message)


def _require_controls(table: pd.DataFrame, roles: Roles) -> None:
    """Raise if a condition has no controls with which to compare its perturbations."""
    conditions = table[roles.condition_key]
    absent = sorted(
        set(conditions) - set(conditions[table[roles.perturbation_key] == roles.control])
    )
    if absent:
        message = (
            f"These conditions in adata.obs[{roles.condition_key!r}] have no control cells: "
            f"{list_names(absent)}. Remove all cells of these conditions, declare another "
            f"condition_key, or set condition_key=None."
        )
        raise ValueError(message)


def _finite(column: pd.Series, labelled: NDArray[np.bool_], name: str) -> NDArray[np.float64]:
    covariate = f"The covariate adata.obs[{name!r}]"
    values = real_values(column, covariate)
    if bad := int((labelled & ~np.isfinite(values)).sum()):
        message = f"{covariate} is missing or infinite for {bad} labelled cells: "
        message += "fill it in, or drop these cells."
        raise ValueError(message)
    finite = np.where(labelled, values, 0.0)
    require_small(finite, covariate)
    return finite


def describe(environments: Environments) -> str:
    """Return one line about the environments, for the log."""
    n = len(environments.perturbations())
    columns = environments.roles.columns[1:]
    by = f", by {list_names(columns)}" if columns else ""
    return f"{len(environments.table)} groups of cells: controls and {n} perturbations{by}"


@dataclass(frozen=True)
class Batches:
    """Combinations of batches, and their effects on every gene.

    ``codes`` is the combination of every cell, -1 if a batch is missing. ``offsets`` are the
    effects of each combination, with mean 0 over the labelled cells, shape
    ``(n_combinations, n_genes)``; ``columns`` are the regressors from which the effects are
    estimated, as in :meth:`~nextpert.core.ScreenMoments.fixed_columns`. Both are NaN for a
    combination without labelled cells. ``sd`` are the standard errors of the coefficients, divided
    by the standard deviation of the noise.
    """

    names: list[str]
    codes: NDArray[np.int64]
    offsets: NDArray[np.float64]
    columns: NDArray[np.float64]
    sd: NDArray[np.float64]

    def of_cells(self, cells: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the batch effects in each of some cells, shape ``(len(cells), n_genes)``."""
        self.require(cells)
        return self.offsets[self.codes[cells]]

    def require(self, cells: NDArray[np.int64]) -> None:
        """Raise unless the batch effects in each of some cells are known."""
        codes = self.codes[cells]
        if (codes < 0).any():
            message = f"{(codes < 0).sum()} of the cells in use have no batch: fill in the columns "
            raise ValueError(message + "of batch_key.")
        unknown = [self.names[k] for k in np.unique(codes) if np.isnan(self.offsets[k]).any()]
        if unknown:
            message = f"Batches without labelled cells: {list_names(unknown)}. Leave out their "
            message += "cells, or label some of them."
            raise ValueError(message)

    def errors(self, groups: ArrayLike, n_groups: int) -> NDArray[np.float64]:
        """Return the errors of batch effects in the means of groups, ``(n_groups, n_columns)``.

        ``groups`` is the group of every cell, -1 for none. The errors are scaled as
        :attr:`~nextpert.core.screen.guides.PooledGuides.fixed_errors`.
        """
        codes = np.asarray(groups, np.int64)
        cells = np.flatnonzero(codes >= 0)
        total = np.zeros((n_groups, len(self.sd)))
        n = np.bincount(codes[cells], minlength=n_groups)
        np.add.at(total, codes[cells], self.columns[self.codes[cells]] * self.sd)
        return total / np.maximum(n, 1)[:, None]


def read_batches(adata: ad.AnnData, columns: ArrayLike, roles: Roles) -> Batches | None:
    """Return the batch effects on the genes, or ``None`` if no batch column is declared.

    The means of all environments are regressed on perturbations (and conditions) and batches by
    least squares, so that batches may be crossed with perturbations and with each other.
    """
    none = np.full(adata.n_obs, -1, np.int64)
    return read_groupings(adata, columns, [(none, 0)], roles)[1] if roles.batch_key else None


def read_groupings(
    adata: ad.AnnData,
    columns: ArrayLike,
    groupings: Sequence[tuple[NDArray[np.int64], int]],
    roles: Roles,
) -> tuple[list[list[Moments]], Batches | None]:
    """Return the moments of groups of cells for several groupings, in one pass.

    A grouping is the group of every cell, -1 for none, and the number of groups. Batch effects are
    estimated from all labelled cells, subtracted, and also returned (``None`` without batches).
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
        all_environments = coding({"environment": environments.codes})
        labelled, *screens = read_screens(
            adata, columns, [all_environments, *codings], layer=roles.layer
        )
        batches = _batches(labelled.moments(), environments, of_cell, names)
        for codes, _ in groupings:
            batches.require(np.flatnonzero(codes >= 0))
        screens = [
            replace(screen, mean=screen.mean - batches.offsets[screen.columns["batch"]])
            for screen in screens
        ]
    moments = [
        [screen.of_fold(k) for k in range(n)]
        for screen, (_, n) in zip(screens, groupings, strict=True)
    ]
    return moments, batches


def _combinations(adata: ad.AnnData, roles: Roles) -> tuple[NDArray[np.int64], list[str]]:
    """Return the batch combination of every cell, -1 if a batch is missing, and all their names."""
    tables = [read_labels(adata, key, argument="batch_key") for key in roles.batch_key]
    rows, row_of = distinct(*(table.codes for table in tables))
    missing = np.asarray((rows < 0).any(axis=1))
    names = [
        ", ".join("missing" if c < 0 else t.names[c] for t, c in zip(tables, row, strict=True))
        for row in rows
    ]
    return np.where(missing[row_of], -1, row_of), names


def _batches(
    labelled: ScreenMoments,
    environments: Environments,
    codes: NDArray[np.int64],
    names: list[str],
) -> Batches:
    """Return the effects of batch combinations, estimated from the means of environments."""
    group = environments.levels(environments.roles.perturbation_key, *environments.condition_names)
    clean, sd = labelled.without_batches(
        environments.indicators(environments.roles.batch_key)[1], group
    )
    without, columns = np.split(clean.mean, [labelled.n_nodes], axis=1)
    estimated = np.isfinite(sd)  # effects of the others are confounded with those of perturbations
    columns, sd = columns[:, estimated], sd[estimated]
    offsets = np.full((len(names), labelled.n_nodes), np.nan)
    of_combination = np.full((len(names), len(sd)), np.nan)
    cells, of_environment = np.unique(environments.codes, return_index=True)
    # One cell of every environment.
    first = of_environment[cells >= 0]
    offsets[codes[first]] = labelled.mean - without
    of_combination[codes[first]] = columns
    return Batches(names, codes, offsets, of_combination, sd)
