"""Detection of columns of ``obs`` that look like batches but have no role, and of their effect."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata.labels import MISSING, column_of, read_every_label, read_labels
from nextpert._adata.screen import coding, read_screens
from nextpert._adata.table import is_table
from nextpert._adata.undeclared_guides import FEWEST_CELLS, call_with
from nextpert._warn import warn
from nextpert.core._checks import list_names
from nextpert.core.screen.guides import distinct
from nextpert.core.screen.levels import independence_p_value, level_effects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert._adata.roles import Roles
    from nextpert._adata.undeclared_guides import Nested
    from nextpert.core.screen.levels import LevelEffects

    Codes = NDArray[np.int64]

# Family-wise error over all columns (Bonferroni). It is strict, because with it the negative
# controls are no longer trusted: batches that matter have p-values far below it.
SIGNIFICANCE = 0.001
_MOST_LEVELS = 100  # a column with more levels is no batch
_MOST_NUMBERS = 20  # a numeric column with more distinct values is a quantity
_CELLS, _GENES = 20_000, 300  # a sample of both is read: batches affect many genes
# Names of columns that are computed from the expression of cells. Perturbations change them, so
# that differences between their levels are no batch effects.
_COMPUTED = re.compile(
    r"leiden|louvain|cluster|phase|cell_?cycle|cell_?(type|state)|subtype|mixscape|kmeans|dbscan|"
    r"doublet|singlet|outlier|predict|annotation|_res[._]|score|pct|percent|counts?$|^n_|^num_|"
    r"number_of|total|filter|quality|pass_|_pass|passe",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class UndeclaredBatches:
    """A column of ``obs`` without a role, between whose levels cells of one perturbation differ.

    ``p_value`` tests for no difference within perturbations, over the genes. Where perturbations
    and controls are divided differently among the levels, differences from the controls contain
    differences between levels: ``width`` is the factor by which standard errors are therefore too
    small (root mean square over perturbations and genes), and ``shifted`` the share of effects that
    are shifted by more than one standard error. ``also`` names further such columns, and ``call``
    declares the first.
    """

    column: str
    n_levels: int
    p_value: float
    width: float
    shifted: float
    call: str
    also: tuple[str, ...] = ()

    def in_words(self) -> str:
        """Return what differs, and by how much, in two sentences."""
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        also = f" (so do those of {list_names(self.also)})" if self.also else ""
        return (
            f"cells of the same perturbation differ between its {self.n_levels} levels by more "
            f"than chance ({p}){also}. As perturbations and controls are divided among them, this "
            f"shifts {self.shifted:.1%} of the effects by more than one standard error; on average "
            f"standard errors are too small by a factor of {self.width:.2f}"
        )


class ShiftedCovariate(NamedTuple):
    """A column that looks computed from expression, and the perturbations whose cells differ in it.

    The cells of these perturbations are divided among the levels in other shares than controls.
    """

    column: str
    perturbations: tuple[str, ...]


class Undeclared(NamedTuple):
    """Columns of ``obs`` without a role that matter for a fit."""

    guides: Nested | None = None  # that looks like guides
    batches: UndeclaredBatches | None = None  # that looks like batches
    covariates: tuple[ShiftedCovariate, ...] = ()  # that look computed from expression


def undeclared_batches(
    adata: ad.AnnData, columns: ArrayLike, names: Sequence[str], roles: Roles
) -> UndeclaredBatches | None:
    """Return the column without a role whose levels differ most within perturbations, if any.

    A column qualifies if it has 2 to 100 levels of five cells or more, half of which occur in two
    labels or more, and its name does not look computed from expression. Its levels are compared
    within perturbation, guide and declared batch; where each perturbation is in one level, the
    controls alone show differences. At most 20,000 cells and 300 genes of ``columns``, drawn at
    random, are read. ``None`` for a table of effects.
    """
    if is_table(adata):
        return None
    group = read_every_label(adata, roles).groups([roles.control, *names])
    block, known = _blocks(adata, group, roles)
    tested = [
        (name, codes, np.where(_in_mixed_blocks(block, codes, known), codes, -1))
        for name, codes in _columns(adata, roles, group >= 0, computed=False)
        if _crosses(group, codes)
    ]
    tested = [each for each in tested if (each[2] >= 0).any()]
    if not tested:
        return None
    found = []
    compared = [(codes, int(all_codes.max()) + 1) for _, all_codes, codes in tested]
    effects = _effects(adata, columns, block, compared, roles)
    for (name, codes, _), of_levels in zip(tested, effects, strict=True):
        if of_levels is not None and of_levels.p_value * len(tested) < SIGNIFICANCE:
            found.append((of_levels.excess, name, codes, of_levels))
    if not found:
        return None
    # The finest division that explains more: lanes before the replicates that contain them.
    found.sort(key=lambda one: -one[0])
    _, name, codes, of_levels = found[0]
    batches = [*roles.batch_key, name]
    return UndeclaredBatches(
        name,
        len(np.unique(codes[codes >= 0])),
        of_levels.p_value * len(tested),
        *_bias(group, codes, of_levels),
        call_with(roles, batch_key=batches if len(batches) > 1 else name),
        tuple(each[1] for each in found[1:]),
    )


def warn_undeclared_batches(batches: UndeclaredBatches | None) -> None:
    """Warn about a column that looks like batches and is not declared."""
    if batches is not None:
        warn(
            f"adata.obs[{batches.column!r}] is not declared, but {batches.in_words()}. If its "
            f"levels are batches, replicates, donors or conditions, declare it with "
            f"{batches.call}, and fit again. If it was computed from expression, remove the column."
        )


def shifted_covariates(
    adata: ad.AnnData, names: Sequence[str], roles: Roles
) -> tuple[ShiftedCovariate, ...]:
    """Return the columns that look computed from expression, with the perturbations that differ.

    The levels of cells of a perturbation and of controls are compared within declared batches.
    """
    if is_table(adata):
        return ()
    group = read_every_label(adata, roles).groups([roles.control, *names])
    batches = [read_labels(adata, key).codes for key in roles.batch_key]
    found = []
    strata = distinct(*batches)[1] if batches else np.zeros(len(group), np.int64)
    columns = [
        (name, codes)
        for name, codes in _columns(adata, roles, group >= 0, computed=True)
        if len(np.unique(codes[(group == 0) & (codes >= 0)])) > 1
    ]
    order = np.argsort(group, kind="stable")
    ends = np.searchsorted(group[order], np.arange(len(names) + 2))
    cells = [
        order[start:end] for start, end in pairwise(ends)
    ]  # of the controls, and of each label
    for name, codes in columns:
        shape = int(strata.max(initial=0)) + 1, int(codes.max()) + 1

        def counts(
            cells_used: Codes, codes: Codes = codes, shape: tuple[int, int] = shape
        ) -> Codes:
            """Return numbers of cells by stratum and level."""
            used = cells_used[codes[cells_used] >= 0]
            table_cell = strata[used] * shape[1] + codes[used]
            return np.bincount(table_cell, minlength=shape[0] * shape[1]).reshape(shape)

        of_control = counts(cells[0])
        level = SIGNIFICANCE / (len(names) * len(columns))
        differ = [
            perturbation
            for perturbation, some in zip(names, cells[1:], strict=True)
            if independence_p_value(counts(some), of_control) < level
        ]
        if differ:
            found.append(ShiftedCovariate(name, tuple(differ)))
    return tuple(found)


def _columns(
    adata: ad.AnnData, roles: Roles, used: NDArray[np.bool_], *, computed: bool
) -> Iterator[tuple[str, Codes]]:
    """Yield the columns without a role that have few levels, and the level of every cell.

    Cells of levels with fewer than five of the ``used`` cells have level -1. ``computed`` chooses
    columns whose names look computed from expression, or the others.
    """
    labels = pd.Index(adata.obs.columns)
    for name in labels[~labels.duplicated(keep=False)]:
        if not isinstance(name, str) or name in roles.columns:
            continue
        if bool(_COMPUTED.search(name)) is not computed:
            continue
        column = column_of(adata, name)
        try:
            codes, values = pd.factorize(column, use_na_sentinel=True)
        except TypeError:  # values that cannot be hashed
            continue
        is_number = pd.api.types.is_numeric_dtype(column)
        if is_number and (len(values) > _MOST_NUMBERS or (np.asarray(values, float) % 1).any()):
            continue
        missing = np.array([str(value).lower() in MISSING for value in values] + [True])
        codes = np.where(used & ~missing[codes], codes, -1).astype(np.int64)
        size = np.bincount(codes[codes >= 0], minlength=len(values))
        large = np.append(size >= FEWEST_CELLS, False)  # of cells without a level
        if 1 < large.sum() <= _MOST_LEVELS:
            yield name, np.where(large[codes], codes, -1)


def _blocks(adata: ad.AnnData, group: Codes, roles: Roles) -> tuple[Codes, NDArray[np.bool_]]:
    """Return the combination of label, guide, batches and categories of cells that are compared.

    The second result is which cells have a label and a known batch.
    """
    codes = [group]
    guide = [] if roles.guide_key is None else [roles.guide_key]
    for key in (*guide, *roles.batch_key, *roles.covariates):
        column = column_of(adata, key)
        is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        if key in roles.covariates and is_number:
            continue  # a quantity, which divides no cells
        codes.append(pd.factorize(column, use_na_sentinel=True)[0].astype(np.int64))
    has_levels = np.all([codes_of >= 0 for codes_of in codes], axis=0)
    return distinct(*codes)[1], has_levels


def _in_mixed_blocks(
    block: Codes, codes: Codes, has_levels: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which cells have a level and are in a block with two levels or more."""
    used = has_levels & (codes >= 0)
    pairs, _ = distinct(block[used], codes[used])
    n_levels = np.bincount(pairs[:, 0], minlength=int(block.max(initial=-1)) + 1)
    return np.asarray(used & (n_levels[block] > 1))


def _crosses(group: Codes, codes: Codes) -> bool:
    """Whether half of the levels or more occur in two labels or more, unlike those of guides."""
    used = (group >= 0) & (codes >= 0)
    pairs, _ = distinct(codes[used], group[used])
    n_labels = np.bincount(pairs[:, 0])
    return bool(2 * (n_labels > 1).sum() >= (n_labels > 0).sum())


def _effects(
    adata: ad.AnnData,
    columns: ArrayLike,
    block: Codes,
    compared: list[tuple[Codes, int]],
    roles: Roles,
) -> list[LevelEffects | None]:
    """Return the effects of the levels of each column, from a sample of cells and genes.

    ``compared`` has the level of every cell, -1 for cells that are not compared, and the number of
    levels, for every column.
    """
    rng = np.random.default_rng(0)
    genes = np.asarray(columns, np.int64)
    if len(genes) > _GENES:
        genes = genes[np.sort(rng.choice(len(genes), _GENES, replace=False))]
    cells = np.flatnonzero(np.any([codes >= 0 for codes, _ in compared], axis=0))
    if len(cells) > _CELLS:
        cells = rng.choice(cells, _CELLS, replace=False)
    sampled = np.zeros(len(block), bool)
    sampled[cells] = True
    codings = [
        coding({"block": np.where(kept, block, -1), "level": np.where(kept, codes, -1)})
        for codes, _ in compared
        for kept in [sampled & (codes >= 0)]
    ]
    screens = read_screens(adata, genes, codings, layer=roles.layer)
    return [
        level_effects(screen.moments(), screen.columns["block"], screen.columns["level"], n_levels)
        for screen, (_, n_levels) in zip(screens, compared, strict=True)
    ]


def _bias(group: Codes, codes: Codes, of_levels: LevelEffects) -> tuple[float, float]:
    """Return ``width`` and ``shifted`` of :class:`UndeclaredBatches`."""
    used = (group >= 0) & (codes >= 0)
    counts = np.zeros((int(group.max()) + 1, len(of_levels.inverse)))
    np.add.at(counts, (group[used], codes[used]), 1.0)
    n = counts.sum(axis=1)
    measured = np.flatnonzero(n[1:] > 0) + 1
    if not n[0] or not len(measured):
        return 1.0, 0.0
    share = counts / np.maximum(n, 1.0)[:, None]
    # Squared shifts, relative to the squared standard error of a difference of means.
    ratio = of_levels.squared_shifts(share[measured] - share[0])
    ratio /= (1.0 / n[measured] + 1.0 / n[0])[:, None]
    return float(np.sqrt(1.0 + max(ratio.mean(), 0.0))), float((ratio > 1.0).mean())
