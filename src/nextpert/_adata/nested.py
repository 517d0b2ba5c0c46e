"""Columns of ``obs`` that look like guides but have no role: found, and how far they scatter."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert._adata.labels import (
    column_of,
    names_no_perturbation,
    read_every_label,
    read_labels,
)
from nextpert._adata.screen import coding, read_screens
from nextpert._adata.table import is_table
from nextpert._warn import warn
from nextpert.core._checks import list_names
from nextpert.core.screen.guides import distinct, spread_p_value, spread_within

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert._adata.roles import Roles

    Codes = NDArray[np.int64]

logger = logging.getLogger(__name__)

FEWEST_CELLS = 5  # of a level that counts
_SIGNIFICANT = 0.05
# Classes that were computed from expression: "mixscape_class" divides a label by what its cells do.
_COMPUTED = ("mixscape",)
_CELLS = 20_000  # that are read to see how far levels scatter
_OF_A_LEVEL = 10  # cells of a level that are read at least, where it has them


@dataclass(frozen=True)
class Nested:
    """A column of ``obs`` without a role, each level of which belongs to one perturbation label.

    Parameters
    ----------
    column
        Its name.
    others
        Further such columns, which divide the cells otherwise and scatter less.
    n_levels
        Its levels of five cells or more.
    variance
        Variance between its levels within a label, over the noise variance of a cell (median
        gene); 0 where they differ by no more than sampling.
    p_value
        That of no variance between its levels, over all genes; NaN where levels are too few.
    call
        The call that declares it beside the other roles.
    """

    column: str
    others: tuple[str, ...]
    n_levels: int
    variance: float
    p_value: float
    call: str

    @property
    def scatters(self) -> bool | None:
        """Whether its levels differ significantly beyond sampling; ``None`` if not tested."""
        return None if np.isnan(self.p_value) else bool(self.p_value < _SIGNIFICANT)

    def scatter_in_words(self) -> str:
        """Return the variance between its levels as a clause."""
        if self.scatters is None:
            return "they are too few for a test of their variance"
        if not self.scatters:
            return "they differ by no more than sampling error"
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        return (
            f"they differ by more than sampling error ({p}), with a variance of "
            f"{self.variance:.2g} of a cell's noise variance in the median gene"
        )


def undeclared_guides(
    adata: ad.AnnData, columns: ArrayLike, names: Sequence[str], roles: Roles
) -> Nested | None:
    """Return the column without a role that nests in the perturbation labels, if there is one.

    Each level of such a column belongs to one label, and at least half of the labels have two
    levels of five cells or more. A column that the label and the declared columns determine (a
    copy of one, or label and batch joined) is none. Of several, the one that scatters most is
    returned. At most 20,000 cells are read, drawn at random where there are more.

    Parameters
    ----------
    adata
        Cells x genes.
    columns
        Columns of the panel, shape ``(n_genes,)``.
    names
        Perturbations that are used, beside the controls.
    roles
        The declared columns.

    Returns
    -------
    Nested or None
        ``None`` where there is no such column, a column of guides is declared, or there are no
        cells but a table of effects.
    """
    if roles.guide_key is not None or is_table(adata):
        return None
    group = read_every_label(adata, roles).groups([roles.control, *names])
    # Levels of columns of obs that nest, columns that divide cells alike once.
    found: dict[str, Codes] = {}
    labels = pd.Index(adata.obs.columns)
    for name in labels[~labels.duplicated(keep=False)]:
        computed = not isinstance(name, str) or any(word in name.lower() for word in _COMPUTED)
        codes = None if computed or name in roles.columns else _levels(adata, name, group)
        if codes is None or not _nests(codes, group):
            continue
        copies = (_follows(codes, each) and _follows(each, codes) for each in found.values())
        if not _follows(codes, _declared(adata, group, roles)) and not any(copies):
            found[name] = codes
    each = []
    for name, codes in found.items():
        n_levels = int((np.bincount(codes[codes >= 0]) >= FEWEST_CELLS).sum())
        each.append((name, n_levels, *_scatter(adata, columns, group, codes, roles)))
    if not each:
        return None
    each.sort(key=lambda one: (np.nan_to_num(one[3], nan=1.0), -one[2]))
    column, n_levels, variance, p_value = each[0]
    others = tuple(one[0] for one in each[1:])
    return Nested(column, others, n_levels, variance, p_value, _call(column, roles))


def warn_undeclared(nested: Nested | None) -> None:
    """Warn of a column that looks like guides and is not declared.

    Where its levels do not scatter the fit is right without it, and the log says so.
    """
    if nested is None:
        return
    also = f" So do those of {list_names(nested.others)}." if nested.others else ""
    message = (
        f"The levels of adata.obs[{nested.column!r}] nest in the perturbation labels, as guides "
        f"do, but the column is not declared: {nested.scatter_in_words()}.{also} Cells that share "
        f"a guide are not independent replicates. If its levels are guides, replicates or "
        f"clones, declare it with {nested.call}, and fit again."
    )
    if nested.scatters is False:
        logger.info("%s", message)
    else:
        warn(message)


def _call(column: str, roles: Roles) -> str:
    """Return the call of ``pp.setup_screen`` that adds a column of guides to the roles."""
    usual = type(roles)()
    declared: dict[str, Any] = {"guide_key": column}
    for name in (
        "perturbation_key",
        "control",
        "batch_key",
        "condition_key",
        "covariates",
        "layer",
    ):
        value = getattr(roles, name)
        if value != getattr(usual, name):
            declared[name] = value if isinstance(value, str) else list(value)
    words = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in declared.items()
    )
    return f"npt.pp.setup_screen(adata, {words})"


def _levels(adata: ad.AnnData, name: str, group: Codes) -> Codes | None:
    """Return the level of every cell in a categorical column, -1 for none and for unused cells."""
    column = column_of(adata, name)
    if not _is_categorical(column):
        return None
    try:
        codes, values = pd.factorize(column, use_na_sentinel=True)
    except TypeError:  # values that cannot be hashed
        return None
    used = group >= 0
    n_levels = len(np.unique(codes[used]))
    if n_levels * FEWEST_CELLS > 2 * used.sum():  # as barcodes
        return None
    none = np.array([names_no_perturbation(str(value)) for value in values] + [True])
    return np.where(used & ~none[codes], codes, -1).astype(np.int64)


def _is_categorical(column: pd.Series) -> bool:
    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        return True
    text = pd.api.types.is_string_dtype(kind) or pd.api.types.is_object_dtype(kind)
    return bool(text or pd.api.types.is_integer_dtype(kind))


def _nests(codes: Codes, group: Codes) -> bool:
    if not _follows(group, codes):
        return False
    sizes = np.bincount(codes[codes >= 0])
    label = np.zeros(len(sizes), np.int64)
    label[codes[codes >= 0]] = group[codes >= 0]
    per_label = np.bincount(label[sizes >= FEWEST_CELLS])
    n_labels = len(np.unique(group[group >= 0]))
    return bool(2 * (per_label > 1).sum() >= n_labels > 0)


def _follows(what: Codes, given: Codes) -> bool:
    """Whether one level is determined by another, over the cells that have both."""
    both = (what >= 0) & (given >= 0)
    of_given = np.zeros(int(given.max(initial=-1)) + 1, np.int64)
    of_given[given[both]] = what[both]
    return bool((of_given[given[both]] == what[both]).all())


def _declared(adata: ad.AnnData, group: Codes, roles: Roles) -> Codes:
    """Return the combination of label, batches and conditions of every cell, -1 for no label."""
    codes = group
    for key in roles.columns[1:]:
        if _is_categorical(column_of(adata, key)):
            level = read_labels(adata, key).codes + 1
            joined = codes * (int(level.max(initial=0)) + 1) + level
            codes = np.where(group >= 0, np.unique(joined, return_inverse=True)[1].ravel(), -1)
    return codes


def _scatter(
    adata: ad.AnnData, columns: ArrayLike, group: Codes, codes: Codes, roles: Roles
) -> tuple[float, float]:
    """Return variance and p-value between the levels within labels, from a sample of cells.

    Batches are taken off by least squares.
    """
    batches = [read_labels(adata, key, argument="batch_key").codes for key in roles.batch_key]
    known = np.all([codes >= 0, *(each >= 0 for each in batches)], axis=0)
    cells = _sample(np.where(known, group, -1), codes)
    rows, place = distinct(*(each[cells] for each in (group, codes, *batches)))
    of_cell = np.full(len(codes), -1, np.int64)
    of_cell[cells] = place
    ((read,), _) = read_screens(adata, columns, [coding({"row": of_cell})], layer=roles.layer)
    screen = read.moments()
    if batches:
        fixed = [rows[:, [k]] == np.unique(rows[:, k])[1:] for k in range(2, rows.shape[1])]
        screen = screen.without_fixed(np.hstack(fixed), rows[:, 0])
    pairs, place = np.unique(rows[:, :2], axis=0, return_inverse=True)
    screen = screen.pool(place.ravel(), len(pairs))
    return spread_within(screen, pairs[:, 0]), spread_p_value(screen, pairs[:, 0])


def _sample(group: Codes, codes: Codes) -> Codes:
    """Return all cells with a group, or where they are many some of all levels or labels."""
    cells = np.flatnonzero(group >= 0)
    if len(cells) <= _CELLS:
        return cells
    rng = np.random.default_rng(0)
    cells = rng.permutation(cells)
    cells = cells[np.argsort(codes[cells], kind="stable")]
    number = np.arange(len(cells)) - np.searchsorted(codes[cells], codes[cells])  # in its level
    cells = cells[number < max(_CELLS // len(np.unique(codes[cells])), _OF_A_LEVEL)]
    labels = rng.permutation(np.unique(group[cells]))
    sizes = np.bincount(group[cells])[labels]
    kept = labels[: max(int((np.cumsum(sizes) <= _CELLS).sum()), 1)]
    return np.sort(cells[np.isin(group[cells], kept)])
