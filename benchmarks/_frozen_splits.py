"""Screens of a folder, and random splits of them into what is seen and what judges it.

For ``benchmarks.frozen``, whose docstring says how a folder names its screens.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._screens import Source, read_screen
from nextpert._adata.roles import Roles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    Array = np.ndarray

MIN_HELD_OUT = 40  # cells of a perturbation that judge it
CELL_KEYS = ("perturbation_key", "control", "guide_key", "layer")


class HeldOut(NamedTuple):
    """Means of cells or rows that are held out, and the variances of their errors.

    ``effect`` and ``variance`` are perturbations x genes, NaN without cells or rows. The variance
    of the controls' means, ``(n_genes,)``, comes on top in effects (in tables, errors hold it).
    """

    effect: Array
    variance: Array
    control_variance: Array

    @property
    def is_known(self) -> Array:
        """Perturbations with cells or rows."""
        return np.isfinite(self.effect).all(axis=1)


@dataclass(frozen=True)
class Split:
    """What is seen of a screen, and what judges it.

    Arrays are perturbations x genes of the panel: ``effect`` and ``variance`` of the means that are
    seen, with the variance of the controls' means as in ``HeldOut``. ``held_out`` are all cells or
    rows that judge, ``halves`` two parts of them that share none. ``own`` marks target genes,
    ``sd`` is that of a gene within cells (its error in a table).
    """

    adata: ad.AnnData
    names: list[str]
    effect: Array
    variance: Array
    control_variance: Array
    held_out: HeldOut
    halves: tuple[HeldOut, HeldOut]
    own: Array
    sd: Array
    shift: str
    has_cells: bool

    @property
    def in_halves(self) -> Array:
        """Perturbations with held-out effects in both halves."""
        return self.halves[0].is_known & self.halves[1].is_known


class CellScreen:
    """A screen of cells."""

    def __init__(self, settings: dict[str, Any], path: Path, data: Path) -> None:
        named = {key: settings[key] for key in CELL_KEYS if key in settings}
        roles = Roles(batch_key=tuple(settings.get("batch_key", ())), **named)
        whole = roles.layer is None and has_counts(path, roles)
        counts = bool(settings.get("counts", whole))
        source = Source(str(path), roles, counts=counts, depth_key=settings.get("depth_key"))
        self.screen = read_screen(data, source, n_variable=int(settings.get("n_genes", 100)))
        self.roles, self.shift = roles, str(settings.get("shift", "knockout"))
        self.label = self.screen.labels()
        self.x = np.asarray(self.screen.cells.X, float)

    def size(self) -> str:
        """Describe the screen."""
        n = len(set(self.label)) - 1
        return f"{len(self.x):,} cells, {n} perturbations, {self.x.shape[1]} genes in the panel"

    def split(self, n_cells: int, seed: int) -> Split:
        """Return a random split with ``n_cells`` cells seen of each perturbation."""
        rng, control = np.random.default_rng(seed), self.roles.control
        sizes = Counter(self.label)
        names = sorted(
            name for name, n in sizes.items() if name != control and n >= n_cells + MIN_HELD_OUT
        )
        is_seen = np.zeros(len(self.label), bool)
        rows = {name: rng.permutation(np.flatnonzero(self.label == name)) for name in names}
        controls = rng.permutation(np.flatnonzero(self.label == control))
        is_seen[controls[: len(controls) // 2]] = True
        for cells in rows.values():
            is_seen[cells[:n_cells]] = True
        seen_control = self.x[controls[: len(controls) // 2]]
        genes = seen_control.std(axis=0) > 0
        adata = self.screen.cells[is_seen][:, genes].copy()
        roles: dict[str, Any] = {"guide_key": self.roles.guide_key}
        roles |= {"batch_key": [*self.roles.batch_key]} if self.roles.batch_key else {}
        npt.pp.setup_screen(
            adata,
            perturbation_key=self.roles.perturbation_key,
            control=control,
            check_scale=False,
            **roles,
        )
        x = self.x[:, genes]
        effect = np.zeros((len(names), x.shape[1]))
        seen = [controls[: len(controls) // 2], *(cells[:n_cells] for cells in rows.values())]
        within = np.concatenate([x[cells] - x[cells].mean(axis=0) for cells in seen])
        sd = np.sqrt((within**2).sum(axis=0) / (len(within) - len(seen)))
        for k in range(len(names)):
            effect[k] = x[seen[k + 1]].mean(axis=0) - x[seen[0]].mean(axis=0)
        variance, control_variance = np.tile(sd**2 / n_cells, (len(names), 1)), sd**2 / len(seen[0])
        # The order is random, so that the first and the last half are random halves.
        out = [controls[len(controls) // 2 :], *(cells[n_cells:] for cells in rows.values())]
        first, last = zip(*(np.array_split(cells, 2) for cells in out), strict=True)
        own = np.array([
            [gene == self.target(name) for gene in adata.var_names] for name in names
        ])  # fmt: skip
        return Split(
            adata, names, effect, variance, control_variance, means_of(x, out),
            (means_of(x, first), means_of(x, last)), own, sd, self.shift, has_cells=True,
        )  # fmt: skip

    def target(self, name: str) -> str | None:
        """Return the gene that a perturbation targets, if it is measured."""
        column = self.screen.targets.get(name)
        return None if column is None else str(self.screen.cells.var_names[column])


def means_of(x: Array, parts: Sequence[Array]) -> HeldOut:
    """Return the means of rows of each perturbation less those of the control, the first part."""
    means = np.array([x[part].mean(axis=0) for part in parts])
    variance = np.array([x[part].var(axis=0, ddof=1) / len(part) for part in parts])
    return HeldOut(means[1:] - means[0], variance[1:], variance[0])


def has_counts(path: Path, roles: Roles) -> bool:
    """Return whether the values are whole numbers, by the first cells of a file."""
    adata = ad.read_h5ad(path, backed="r")
    try:
        if roles.perturbation_key not in adata.obs:
            message = f"{path.name} has no obs[{roles.perturbation_key!r}]: name perturbation_key."
            raise ValueError(message)
        first: Any = adata[:200].to_memory().X
        values = np.asarray(first.toarray() if hasattr(first, "toarray") else first)
        return bool((values == np.round(values)).all())
    finally:
        adata.file.close()


class TableScreen:
    """A screen of effects and standard errors, with replicates as rows."""

    def __init__(self, settings: dict[str, Any], path: Path, data: Path) -> None:
        scale = np.log(float(settings.get("base", np.e)))
        files = (found_file(settings[key], path, data) for key in ("effects", "errors"))
        self.effects, self.errors = (
            scale * pd.read_csv(file, sep="\t" if ".tsv" in file.name else ",", index_col=0)
            for file in files
        )
        matches = [re.fullmatch(settings["row"], str(row)) for row in self.effects.index]
        if None in matches:
            row = self.effects.index[matches.index(None)]
            raise ValueError(f"Row {row!r} does not match {settings['row']!r}.")
        groups = [match.groupdict() for match in matches if match]
        self.names = np.array([group["perturbation"] for group in groups])
        self.batch = [group.get("batch") for group in groups]
        self.n_genes = int(settings.get("n_genes", 300))
        self.shift = str(settings.get("shift", "knockout"))

    def size(self) -> str:
        """Describe the screen."""
        n, several = len(set(self.names)), sum(c > 1 for c in Counter(self.names).values())
        return f"a table of {len(self.names)} rows, {n} perturbations, {several} with replicates"

    def split(self, n_cells: int, seed: int) -> Split:
        """Return a split with one row of every perturbation."""
        rng, names = np.random.default_rng([seed, n_cells]), sorted(set(self.names))
        rows = [rng.permutation(np.flatnonzero(self.names == name)) for name in names]
        seen = np.array([row[0] for row in rows])
        variance_of_gene = self.effects.iloc[seen].var(axis=0).to_numpy()
        complete = np.isfinite(self.effects.iloc[seen]).all(axis=0).to_numpy()
        order = np.argsort(-np.where(complete, variance_of_gene, -1.0), kind="stable")
        genes = np.sort(order[: min(self.n_genes, int(complete.sum()))])
        effects, errors = (x.to_numpy()[:, genes] for x in (self.effects, self.errors))
        parts = []
        for x in (effects, errors):
            parts.append(pd.DataFrame(x[seen], index=names, columns=self.effects.columns[genes]))
        batch = {name: str(self.batch[row]) for name, row in zip(names, seen, strict=True)}
        told = {} if None in self.batch else {"batch": batch}
        adata = npt.pp.effect_table(parts[0], parts[1], control_se="conservative", **told)
        out = [row[1:] for row in rows]
        # A perturbation with a single row held out has no halves.
        halves = [np.array_split(row, 2) if len(row) > 1 else [row[:0]] * 2 for row in out]
        first, last = (replicates(effects, errors, part) for part in zip(*halves, strict=True))
        own = np.array([[gene == name for gene in adata.var_names] for name in names])
        sd = np.sqrt((errors[seen] ** 2).mean(axis=0))
        return Split(
            adata, names, effects[seen], errors[seen] ** 2, np.zeros(len(genes)),
            replicates(effects, errors, out), (first, last), own, sd, self.shift, has_cells=False,
        )  # fmt: skip


def replicates(effects: Array, errors: Array, parts: Sequence[Array]) -> HeldOut:
    """Return the means of rows of each perturbation; NaN without rows."""
    mean, variance = np.full((2, len(parts), effects.shape[1]), np.nan)
    for k, part in enumerate(parts):
        if len(part):
            mean[k] = effects[part].mean(axis=0)
            between = effects[part].var(axis=0, ddof=1) if len(part) > 1 else 0.0
            variance[k] = np.maximum(between / len(part), (errors[part] ** 2).mean(axis=0))
    return HeldOut(mean, variance, np.zeros(effects.shape[1]))


def found_file(name: str, path: Path, data: Path) -> Path:
    """Return a file that is named relative to a TOML file or to the folder of the data."""
    for folder in (path.parent, data):
        if (folder / name).is_file():
            return (folder / name).resolve()
    raise FileNotFoundError(f"There is no file {name!r} beside {path.name} or in {data}.")


def screens_in(folder: Path, data: Path) -> Iterator[tuple[str, dict[str, Any], Path]]:
    """Yield the name, the settings and the path of every screen."""
    named = set()
    for path in sorted(folder.rglob("*.toml")):
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
        if "cells" in settings:
            try:
                named.add(found_file(settings["cells"], path, data))
            except FileNotFoundError as error:
                settings["missing"] = str(error)
        yield path.stem, settings, path
    for path in sorted(folder.rglob("*.h5ad")):
        if path.resolve() not in named:
            yield path.stem, {"cells": path.name}, path


def opened(settings: dict[str, Any], path: Path, data: Path) -> CellScreen | TableScreen:
    """Read a screen."""
    if "cells" in settings:
        return CellScreen(settings, found_file(settings["cells"], path, data), data)
    if {"effects", "errors", "row"} <= set(settings):
        return TableScreen(settings, path, data)
    raise ValueError(f"{path.name} needs the key cells, or the keys effects, errors and row.")
