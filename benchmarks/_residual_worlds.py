"""Worlds of exact truth: the residuals of a real screen, moved to effects that are known.

The truth of a perturbation is estimated once, from all its cells or rows, by ash or by singular
values with James-Stein. The residuals of cells around the mean of their perturbation stay real, and
so do their guides, batches and correlations between genes. Only their mean is set to the mean of
the controls plus the truth, so that no sampling error is left in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._frozen_splits import CellScreen, HeldOut, Split, TableScreen
from benchmarks._shrinkage import ash, singular_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    Array = np.ndarray

WAYS = {"ash": "ash", "svd": "singular values and James-Stein"}  # that estimate the truth


@dataclass(frozen=True)
class Truth:
    """Known effects of a screen, and the residuals around the means of its perturbations.

    ``effect`` is perturbations x genes, in the order of ``names``. ``rows`` are the cells, or the
    rows of a table, of each label; ``residual`` is rows x genes, of all rows of the screen. Those
    of cells have the mean of the controls on top, which is that of an unperturbed cell. ``genes``
    are the columns of the screen that are used.
    """

    screen: CellScreen | TableScreen
    names: list[str]
    rows: Mapping[str, Array]
    effect: Array
    residual: Array
    genes: Array

    def world(self, n_cells: int, seed: int) -> Split:
        """Return a screen with ``n_cells`` of each perturbation, or one row in a table."""
        rng = np.random.default_rng([seed, n_cells])
        return (_of_cells if isinstance(self.screen, CellScreen) else _of_rows)(self, n_cells, rng)


def truth_of(screen: CellScreen | TableScreen, way: str) -> Truth:
    """Return the effects that all cells, or all rows, of a screen estimate by one of ``WAYS``."""
    return (_truth_of_cells if isinstance(screen, CellScreen) else _truth_of_rows)(screen, way)


def estimated(way: str, effect: Array, variance: Array) -> Array:
    """Return shrunken effects, perturbations x genes; genes without variance have no effect."""
    varies, found = (variance > 0).all(axis=0), np.zeros_like(effect)
    x, square = effect[:, varies], variance[:, varies]
    if way == "ash":
        found[:, varies] = [ash(*pair) for pair in zip(x, np.sqrt(square), strict=True)]
    else:
        found[:, varies] = singular_values(x, square)
    return found


def _truth_of_cells(screen: CellScreen, way: str) -> Truth:
    label, x, control = screen.label, screen.x, screen.roles.control
    names = sorted(set(label) - {control})  # with at least 20 cells: the others are not read
    rows = {name: np.flatnonzero(label == name) for name in [control, *names]}
    mean = {name: x[cells].mean(axis=0) for name, cells in rows.items()}
    residual = np.full_like(x, np.nan)
    for name, cells in rows.items():
        residual[cells] = x[cells] - mean[name]
    n = sum(map(len, rows.values()))
    of_cell = np.nansum(residual**2, axis=0) / (n - len(rows))
    effect = np.array([mean[name] - mean[control] for name in names])
    share = np.array([1 / len(rows[name]) + 1 / len(rows[control]) for name in names])
    effect = estimated(way, effect, share[:, None] * of_cell)
    return Truth(screen, names, rows, effect, residual + mean[control], np.arange(x.shape[1]))


def _of_cells(truth: Truth, n_cells: int, rng: np.random.Generator) -> Split:
    """Return half of the controls, and ``n_cells`` or all cells of each perturbation, at random."""
    screen, names = truth.screen, truth.names
    control = screen.roles.control
    drawn = {name: rng.permutation(cells) for name, cells in truth.rows.items()}
    drawn = {
        name: cells[: len(cells) // 2 if name == control else n_cells]
        for name, cells in drawn.items()
    }
    genes = truth.residual[drawn[control]].std(axis=0) > 0
    known = truth.effect[:, genes]
    parts = [truth.residual[drawn[control]][:, genes]]
    parts += [truth.residual[drawn[name]][:, genes] + known[k] for k, name in enumerate(names)]
    adata = screen.screen.cells[np.concatenate([drawn[control], *(drawn[n] for n in names)])]
    adata = adata[:, genes].copy()
    adata.X = np.concatenate(parts)
    roles: dict[str, Any] = {"guide_key": screen.roles.guide_key}
    roles |= {"batch_key": [*screen.roles.batch_key]} if screen.roles.batch_key else {}
    key = screen.roles.perturbation_key
    npt.pp.setup_screen(
        adata, perturbation_key=key, control=control, check_scale=False, **roles
    )  # residuals may be negative
    within = np.concatenate([part - part.mean(axis=0) for part in parts])
    sd = np.sqrt((within**2).sum(axis=0) / (len(within) - len(parts)))
    mean = np.array([part.mean(axis=0) for part in parts])
    n = np.array([len(part) for part in parts])[:, None]
    own = np.array([[gene == screen.target(name) for gene in adata.var_names] for name in names])
    exact = HeldOut(known, np.zeros_like(known), np.zeros_like(sd))
    return Split(
        adata, names, mean[1:] - mean[0], sd**2 / n[1:], sd**2 / n[0], exact, (exact, exact), own,
        sd, screen.shift, has_cells=True,
    )  # fmt: skip


def _truth_of_rows(screen: TableScreen, way: str) -> Truth:
    """Return the truth of a table, on the genes whose means vary most between perturbations.

    The error of a mean is the larger one of the variance between its rows and that which is given:
    rows may share an error, such as that of their controls.
    """
    effects, errors = screen.effects.to_numpy(float), screen.errors.to_numpy(float)
    names = sorted(set(screen.names))
    rows = {name: np.flatnonzero(screen.names == name) for name in names}
    is_complete = (np.isfinite(effects) & np.isfinite(errors)).all(axis=0)
    mean = np.array([effects[row].mean(axis=0) for row in rows.values()])
    order = np.argsort(-np.where(is_complete, mean.var(axis=0), -1.0), kind="stable")
    genes = np.sort(order[: min(screen.n_genes, int(is_complete.sum()))])
    effects, errors, mean = effects[:, genes], errors[:, genes], mean[:, genes]
    residual, variance = np.full_like(effects, np.nan), np.zeros_like(mean)
    for k, row in enumerate(rows.values()):
        variance[k] = (errors[row] ** 2).mean(axis=0)
        if (n := len(row)) > 1:
            # The mean of n rows has a part of the error of each, so that residuals are too small.
            residual[row] = (effects[row] - mean[k]) * np.sqrt(n / (n - 1))
            variance[k] = np.maximum(effects[row].var(axis=0, ddof=1) / n, variance[k])
    if np.isnan(residual).all():
        raise ValueError("The table has no perturbation with two rows: residuals are not known.")
    return Truth(screen, names, rows, estimated(way, mean, variance), residual, genes)


def _of_rows(truth: Truth, n_cells: int, rng: np.random.Generator) -> Split:
    """Return one row of every perturbation, with its standard errors and batch as they are.

    Perturbations without replicates have the residual of a random row of another perturbation.
    """
    screen, names = truth.screen, truth.names
    seen = np.array([rng.choice(truth.rows[name]) for name in names])
    is_known = np.isfinite(truth.residual).all(axis=1)
    lent = rng.choice(np.flatnonzero(is_known), size=len(names))
    effect = truth.effect + truth.residual[np.where(is_known[seen], seen, lent)]
    error = screen.errors.to_numpy(float)[np.ix_(seen, truth.genes)]
    columns = screen.effects.columns[truth.genes]
    batch = {name: str(screen.batch[row]) for name, row in zip(names, seen, strict=True)}
    told = {} if None in screen.batch else {"batch": batch}
    tables = [pd.DataFrame(values, names, columns) for values in (effect, error)]
    adata = npt.pp.effect_table(*tables, control_se="conservative", **told)
    none, own = np.zeros(len(columns)), [[gene == name for gene in columns] for name in names]
    exact = HeldOut(truth.effect, np.zeros_like(effect), none)
    return Split(
        adata, names, effect, error**2, none, exact, (exact, exact), np.array(own),
        np.sqrt((error**2).mean(axis=0)), screen.shift, has_cells=False,
    )  # fmt: skip
