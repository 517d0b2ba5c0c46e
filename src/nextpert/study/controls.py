"""Negative controls: control guides taken as perturbations, whose true effects are zero."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from nextpert._adata import strings
from nextpert._adata.progress import progress
from nextpert.core import ScreenMoments
from nextpert.core.model.scores import MEDIAN, SIGNIFICANCE, null_width
from nextpert.core.screen.guides import UNKNOWN, distinct
from nextpert.study.quantities import NO_ERROR
from nextpert.study.scores import MIN_CELLS_SCORED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from nextpert._adata.undeclared_guides import Nested
    from nextpert.core.fit.cells import FitCells
    from nextpert.study.held_out import Halves, Refit
    from nextpert.study.quantities import Numbers

    Array = NDArray[np.float64]


_FOLDS = 4  # of control guides; each takes one fit, with three quarters of the control guides
BY_GUIDES, BY_CELLS, OF_TABLE, NOT_JUDGED = "guides", "cells", "table", ""
_UNCHANGED_SHARE = 0.25  # share of the perturbations, those with the smallest effects


class NegativeControls(NamedTuple):
    """Effects of control cells that were taken as perturbations, as a user gets them."""

    kind: str  # what each group is; OF_TABLE has no cells, NOT_JUDGED too few
    # One row per group: name, n_cells, n_false (significant effects), coverage of 0.
    table: pd.DataFrame
    z: Array  # differences of means over their standard errors, shape (n_nulls, n_genes)
    factor: float  # multiplies the standard errors of tests, which include undeclared guides
    numbers: dict[str, Numbers]  # the quantities of the part; NaN without nulls

    def widened(self, width: float) -> NegativeControls:
        """Return the same with standard errors of tests multiplied by a further factor."""
        factor, name = self.factor * width, "standard_error_factor"
        new = (factor, *self.numbers[name][1:])
        return self._replace(factor=factor, numbers=self.numbers | {name: new})


class _Split(NamedTuple):
    """Control cells that are taken as perturbations: masks of environments, by name."""

    kind: str
    halves: Halves
    screen: ScreenMoments
    members: dict[str, NDArray[np.bool_]]


def judge_controls(
    refit: Refit, halves: Halves, undeclared: Nested | None, share_called: float
) -> NegativeControls:
    """Estimate the effects of control cells that are taken as perturbations.

    In each of four folds (or as many as there are guides), a quarter of the control guides are
    taken as perturbations, each separately, while the other guides stay controls. The model is
    fitted as users fit it, with all perturbations of the screen. ``share_called`` is the share of
    the screen's effects on other genes than targets that are significant.
    """
    split = _split(halves)
    prefix, names = "null", list(split.members)
    while any(name.startswith(prefix) for name in refit.fit.names):
        prefix += "0"
    n_folds = min(_FOLDS, len(names))
    folds = [names[k::n_folds] for k in range(n_folds)]
    rows: list[tuple[Any, ...]] = []
    z, z_of_tests, covariance = [np.zeros((0, len(refit.spec.genes)))], [], np.zeros((0, 0))
    for fold in progress(n_folds, "Negative controls", iterable=folds):
        held_out = _in_place_of_perturbations(split.halves, [split.members[name] for name in fold])
        equal_guides = np.zeros(held_out.n_groups, bool)
        # One guide is on both sides.
        if split.kind != BY_GUIDES and not halves.by_guides[0]:
            equal_guides[[0, *range(halves.n_groups, held_out.n_groups)]] = True
        cells = held_out.pool(
            split.screen, all_groups=True, by_guide=halves.declared, equal_guides=equal_guides
        )
        new = [f"{prefix}{k}" for k in range(len(fold))]
        effects = refit.effects(cells.rows(held_out.scored), new)
        null_rows = slice(-len(fold), None)
        inside = (effects.lower[null_rows] <= 0) & (effects.upper[null_rows] >= 0)
        n_false = (effects.lfsr[null_rows] < SIGNIFICANCE).sum(axis=1)
        rows += zip(fold, cells.n_cells[null_rows], n_false, inside.mean(axis=1), strict=True)
        z.append(_z_scores(cells)[null_rows])
        if undeclared is not None:
            cells = held_out.pool(
                split.screen,
                all_groups=True,
                by_guide=True,
                spread=undeclared.variance,
                equal_guides=equal_guides,
            )
            z_of_tests.append(_z_scores(cells)[null_rows])
        covariance = cells.pooled.covariance
    table = pd.DataFrame(rows, columns=["name", "n_cells", "n_false", "coverage"])
    table = table.astype({"n_cells": np.int64, "n_false": np.int64, "coverage": np.float64})
    z_scores = np.vstack(z)
    width = null_width(z_scores, covariance)
    factor = (null_width(np.vstack(z_of_tests), covariance) if z_of_tests else width).factor
    n, size, false = z_scores.size, len(table), int(table["n_false"].sum())
    covered, share, low, high = (
        (float(table["coverage"].mean()), false / n, *binomtest(false, n).proportion_ci())
        if n
        else np.full(4, np.nan)
    )
    rate, rate_low = (
        min(x / share_called, 1.0) if share_called > 0 else NO_ERROR for x in (share, low)
    )
    share_error, covered_error = (np.sqrt(p * (1 - p) / n) if n else p for p in (share, covered))
    numbers = {
        "n_false": (false, NO_ERROR, n),
        "false_share": (share, share_error, n),
        "false_share_lower": (low, NO_ERROR, n),
        "false_share_upper": (high, NO_ERROR, n),
        "false_discovery_rate": (rate, NO_ERROR, n),
        "false_discovery_rate_lower": (rate_low, NO_ERROR, n),
        "coverage_90": (covered, covered_error, n),
        "null_width": (width.value, width.error, size),
        "standard_error_factor": (factor, NO_ERROR, size),
    }
    # Only the z-scores of a table's perturbations show whether its standard errors are right.
    if halves.of_table:
        cells = halves.pool(halves.all_cells, all_groups=True)
        measured = cells.pooled.variance_ratio[1:] < UNKNOWN
        sizes = [np.median(np.abs(z[k])) for z, k in zip(_z_scores(cells), measured, strict=True)]
        # About 1 if standard errors are right and this share of perturbations changes few genes.
        rate_low = float(np.quantile(sizes, _UNCHANGED_SHARE)) / MEDIAN
        numbers["perturbations_width"] = rate_low, NO_ERROR, len(refit.fit.names)
    return NegativeControls(
        split.kind, table.assign(name=strings(table["name"])), z_scores, factor, numbers
    )


def _split(halves: Halves) -> _Split:
    """Return the control cells that are taken as perturbations.

    These are guides with 20 cells or more. If there are fewer than two, half of the control cells
    is taken, which tests sampling error alone (weaker evidence). A table has none, because all of
    its effects are relative to the same means of the controls.

    If most perturbations have cells in one batch only, guides and halves are taken batch by batch,
    and 20 other controls stay in every batch. Otherwise the error that the controls of a batch add
    to its perturbations would be missed.
    """
    moments, control, guide, name = (
        halves.all_cells,
        halves.group == 0,
        halves.guide,
        halves.guide_name,
    )
    if halves.of_table:
        return _Split(OF_TABLE, halves, moments, {})
    _, batch = np.unique(halves.batch, return_inverse=True)
    inside = np.zeros((batch.max() + 1, halves.n_groups))
    np.add.at(inside, (batch, halves.group), moments.n)
    nested = len(inside) > 1 and np.mean((inside[:, 1:] >= MIN_CELLS_SCORED).sum(axis=0) > 1) < 0.5
    if nested:
        guide = distinct(halves.guide, batch)[1]
        name = np.where(name == "", "", name + " in " + halves.batch_name)
    named = control & (name != "")
    size = np.bincount(guide[named], moments.n[named])
    large = [k for k in np.argsort(-size, kind="stable").tolist() if size[k] >= MIN_CELLS_SCORED]
    if nested:  # sorted by batch, so that those of a batch go to different folds
        of_batch = {k: batch[guide == k][0] for k in large}
        large = [k for k in large if inside[of_batch[k], 0] - size[k] >= MIN_CELLS_SCORED]
        large.sort(key=of_batch.__getitem__)
    elif len(large) == 2 and moments.n[control].sum() - size[large].sum() < MIN_CELLS_SCORED:
        large = large[1:]  # each is the other's control, and gives the same result
    elif len(large) < 2:
        large = []
    if large:
        members = {name[guide == k][0]: control & (guide == k) for k in large}
        return _Split(BY_GUIDES, halves, moments, members)
    one, two = halves.parts
    if min(part.n[control].sum() for part in halves.parts) < MIN_CELLS_SCORED:
        return _Split(NOT_JUDGED, halves, moments, {})
    screen = ScreenMoments(
        np.append(one.n, two.n),
        np.vstack([one.mean, two.mean]),
        np.vstack([one.squares, two.squares]),
        one.scatter + two.scatter,
    )
    columns = ("group", "condition", "guide", "batch")
    doubled: dict[str, Any] = {name: np.tile(getattr(halves, name), 2) for name in columns}
    twice = replace(halves, fixed=np.vstack([halves.fixed, halves.fixed]), **doubled)
    second = np.append(np.zeros_like(control), control)
    members = {
        f"half of the controls in {halves.batch_name[in_batch][0]}": second & np.tile(in_batch, 2)
        for in_batch in (batch == b for b in range(len(inside) if nested else 0))
        if min(part.n[control & in_batch].sum() for part in halves.parts) >= MIN_CELLS_SCORED
    }
    return _Split(BY_CELLS, twice, screen, members or {"half of the control cells": second})


def _in_place_of_perturbations(halves: Halves, members: list[NDArray[np.bool_]]) -> Halves:
    """Return the same cells, with some of the controls as groups after the perturbations."""
    group, condition = halves.group.copy(), halves.condition.copy()
    step = int(condition.max()) + 1
    for k, is_member in enumerate(members):
        group[is_member] = halves.n_groups + k
        condition[is_member] += (k + 1) * step
    new = halves.n_groups + np.arange(len(members))
    scored, n_groups = np.append(halves.scored, new), halves.n_groups + len(members)
    return replace(halves, group=group, condition=condition, n_groups=n_groups, scored=scored)


def _z_scores(cells: FitCells) -> Array:
    """Return differences from the controls over their standard errors; 0 for constant genes."""
    change, error = cells.pooled.to_controls()
    variance = cells.pooled.covariance.diagonal() * error
    return np.where(variance > 0, change / np.sqrt(np.where(variance > 0, variance, 1.0)), 0.0)


class StoredControls(NamedTuple):
    """Tests of perturbations in a stored diagnosis, and whether its controls are trusted.

    Their standard errors are multiplied by the width of the null. ``tests`` is ``None`` without a
    diagnosis; ``weak`` are the guides that hardly change their target gene.
    """

    tests: pd.DataFrame | None = None
    is_trusted: bool = True
    weak: frozenset[str] = frozenset()


def weak_guides(diagnosis: Mapping[str, Any]) -> list[str]:
    """Return the guides of a diagnosis that hardly change their target gene."""
    guides = diagnosis.get("guides")
    return [] if guides is None else guides["guide"][guides["weak"]].astype(str).tolist()
