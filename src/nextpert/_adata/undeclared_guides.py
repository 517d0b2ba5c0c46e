"""Detection of columns of ``obs`` that look like guides but have no role, and their variance."""

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
from nextpert.core.model.scores import SIGNIFICANCE
from nextpert.core.screen.guides import distinct, spread_p_value, spread_within

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert._adata.roles import Roles

    Codes = NDArray[np.int64]

logger = logging.getLogger(__name__)

FEWEST_CELLS = 5  # per level; smaller levels do not count
# Classes computed from expression: "mixscape_class" divides a label by the response of its cells.
_COMPUTED = ("mixscape",)
_CELLS = 20_000  # read to estimate the variance between levels


@dataclass(frozen=True)
class Nested:
    """A column of ``obs`` without a role, each level of which belongs to one perturbation label.

    ``n_levels`` counts levels with at least five cells. ``variance`` is the variance between levels
    within a label, divided by the noise variance of a cell (median gene), and 0 if they differ by
    no more than sampling error; ``p_value`` tests for no variance, over all genes, and is NaN if
    levels are too few. ``call`` declares the column in addition to the other roles.
    """

    column: str
    n_levels: int
    variance: float
    p_value: float
    call: str

    @property
    def scatters(self) -> bool | None:
        """Whether its levels differ significantly beyond sampling; ``None`` if not tested."""
        return None if np.isnan(self.p_value) else bool(self.p_value < SIGNIFICANCE)

    def scatter_in_words(self) -> str:
        """Return the variance between its levels as a clause."""
        if self.scatters is None:
            return "there are too few levels to test their variance"
        if not self.scatters:
            return "they differ by no more than sampling error"
        p = "p < 0.001" if self.p_value < 0.001 else f"p = {self.p_value:.3f}"
        return (
            f"they differ by more than sampling error ({p}), with a variance of "
            f"{self.variance:.2g} times the noise variance of a cell in the median gene"
        )


def undeclared_guides(
    adata: ad.AnnData, columns: ArrayLike, names: Sequence[str], roles: Roles
) -> Nested | None:
    """Return the column without a role that nests in the perturbation labels, if there is one.

    Each level of such a column belongs to one label, and at least half of the labels (the control
    and ``names``) have two or more levels with at least five cells. A copy of the labels does not
    qualify. Of several columns, that with the most significant variance on the genes of ``columns``
    is returned. At most 20,000 cells, drawn at random, are read. Also returns ``None`` if guides
    are declared or ``adata`` is a table of effects.
    """
    if roles.guide_key is not None or is_table(adata):
        return None
    group = read_every_label(adata, roles).groups([roles.control, *names])
    labels = pd.Index(adata.obs.columns)
    nesting = []
    for name in labels[~labels.duplicated(keep=False)]:
        computed = not isinstance(name, str) or any(word in name.lower() for word in _COMPUTED)
        codes = None if computed or name in roles.columns else _levels(adata, name, group)
        if codes is not None and _nests(codes, group):
            n_levels = int((np.bincount(codes[codes >= 0]) >= FEWEST_CELLS).sum())
            nesting.append((name, n_levels, *_scatter(adata, columns, group, codes, roles)))
    if not nesting:
        return None
    best = min(nesting, key=lambda one: (np.nan_to_num(one[3], nan=1.0), -one[2]))
    return Nested(*best, call_with(roles, guide_key=best[0]))


def warn_undeclared(nested: Nested | None) -> None:
    """Warn about a column that looks like guides and is not declared.

    If its levels do not differ beyond sampling error, the message is only logged, because the fit
    is valid without the column.
    """
    if nested is None:
        return
    message = (
        f"The levels of adata.obs[{nested.column!r}] nest in the perturbation labels, as guides "
        f"do, but the column is not declared: {nested.scatter_in_words()}. Cells that share "
        f"a guide are not independent replicates. If its levels are guides, replicates or "
        f"clones, declare it with {nested.call}, and fit again."
    )
    if nested.scatters is False:
        logger.info("%s", message)
    else:
        warn(message)


def call_with(roles: Roles, **added: str | Sequence[str]) -> str:
    """Return a call of ``pp.setup_screen``, as text, that adds columns to the roles."""
    usual = vars(type(roles)())
    others = {name: x for name, x in vars(roles).items() if name != "values" and x != usual[name]}
    words = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}"
        for name, value in (added | {x: y for x, y in others.items() if x not in added}).items()
    )
    return f"npt.pp.setup_screen(adata, {words})"


def _levels(adata: ad.AnnData, name: str, group: Codes) -> Codes | None:
    """Return every cell's level in a column, -1 for none; ``None`` if it is not categorical."""
    column = column_of(adata, name)
    kind = column.dtype
    if pd.api.types.is_float_dtype(kind) or pd.api.types.is_bool_dtype(kind):
        return None
    try:
        codes, values = pd.factorize(column, use_na_sentinel=True)
    except TypeError:  # values that cannot be hashed
        return None
    used = group >= 0
    n_levels = len(np.unique(codes[used]))
    if n_levels * FEWEST_CELLS > 2 * used.sum():  # such as barcodes
        return None
    none = np.array([names_no_perturbation(str(value)) for value in values] + [True])
    return np.where(used & ~none[codes], codes, -1).astype(np.int64)


def _nests(codes: Codes, group: Codes) -> bool:
    """Whether each level lies in one label, and half of the labels have two large levels."""
    both = codes >= 0
    label = np.zeros(int(codes.max(initial=-1)) + 1, np.int64)
    label[codes[both]] = group[both]
    if (label[codes[both]] != group[both]).any():
        return False
    per_label = np.bincount(label[np.bincount(codes[both]) >= FEWEST_CELLS])
    return bool(2 * (per_label > 1).sum() >= len(np.unique(group[group >= 0])) > 0)


def _scatter(
    adata: ad.AnnData, columns: ArrayLike, group: Codes, codes: Codes, roles: Roles
) -> tuple[float, float]:
    """Return the variance between levels within labels and its p-value, from a sample of cells.

    Batch effects are subtracted by least squares.
    """
    batches = [read_labels(adata, key, argument="batch_key").codes for key in roles.batch_key]
    known = np.all([codes >= 0, *(each >= 0 for each in batches)], axis=0)
    cells = np.flatnonzero(known & (group >= 0))
    if len(cells) > _CELLS:
        cells = np.sort(np.random.default_rng(0).choice(cells, _CELLS, replace=False))
    rows, place = distinct(*(each[cells] for each in (group, codes, *batches)))
    of_cell = np.full(len(codes), -1, np.int64)
    of_cell[cells] = place
    (read,) = read_screens(adata, columns, [coding({"row": of_cell})], layer=roles.layer)
    screen = read.moments()
    if batches:
        fixed = [rows[:, [k]] == np.unique(rows[:, k])[1:] for k in range(2, rows.shape[1])]
        screen = screen.without_fixed(np.hstack(fixed), rows[:, 0])
    pairs, place = np.unique(rows[:, :2], axis=0, return_inverse=True)
    screen = screen.pool(place.ravel(), len(pairs))
    return spread_within(screen, pairs[:, 0]), spread_p_value(screen, pairs[:, 0])
