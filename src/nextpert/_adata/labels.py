"""Perturbation labels and guides: the cells that have them, and the genes that they name."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert._adata.panel import closest, in_order, measured_genes
from nextpert._adata.table import cells_of, is_table
from nextpert.core._checks import list_names
from nextpert.core._codec import strings
from nextpert.core.fit.naming import Naming

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles

logger = logging.getLogger(__name__)

_SEPARATORS = ",;|"  # usual ones between the guides of a cell

# Texts for a missing value in tables and files, in lower case.
MISSING = ("", "na", "n/a", "nan", "<na>", "none", "null")
# Labels that name no perturbation: a cell has no guide, several guides, or an unknown guide.
# "negative", "doublet" and "multiplet" come from hashtag demultiplexing; the last two come from the
# dataset loaders. In lower case, with underscores.
NO_PERTURBATION = frozenset({
    *MISSING, "unassigned", "unknown", "ambiguous", "negative", "multi", "multiple", "multiplet",
    "doublet", "no_guide", "control_guide",
})  # fmt: skip
# Labels of control cells in published screens, in lower case.
CONTROL_TARGETS = (
    "control", "negative_control", "no_site", "non-targeting", "non_targeting", "nontargeting",
    "nt", "ntc", "one_non-gene_site", "safe-targeting", "scramble", "scrambled",
)  # fmt: skip
# Reason in tables why a label is left out.
NAMES_NONE = "no perturbation"


@dataclass(frozen=True)
class LabelTable:
    """The labels in the column ``key`` of ``.obs``; ``names`` are all that occur, sorted.

    ``codes`` is the position of every cell's label, -1 for none, shape ``(n_cells,)``. ``naming``
    defines which labels are the same (``None``: only equal labels); ``pooled`` holds pairs of a
    name and another spelling, and ``left_out`` maps labels that name no perturbation to their
    numbers of cells. For a table of effects, ``cells`` is the number of cells per row.
    """

    key: str
    names: list[str]
    codes: NDArray[np.int64]
    naming: Naming | None = None
    pooled: tuple[tuple[str, str], ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    cells: NDArray[np.int64] | None = None

    def spelled(self, asked: Iterable[str]) -> list[str]:
        """Return labels in the spelling of the column; labels that do not occur are unchanged."""
        return list(asked) if self.naming is None else self.naming.spelled(asked, self.names)

    def groups(self, asked: Sequence[str]) -> NDArray[np.int64]:
        """Return the position in ``asked`` of every cell's label, ``-1`` for other labels."""
        place = {name: i for i, name in enumerate(self.spelled(asked))}
        lookup = np.array([place.get(name, -1) for name in self.names] + [-1], dtype=np.int64)
        return lookup[self.codes]

    def n_cells(self, name: str) -> int:
        """Return the number of cells with a label, which may be one of ``left_out``."""
        has_label = self.groups([name]) == 0
        return self.left_out.get(name, 0) or int(
            np.sum(has_label if self.cells is None else self.cells[has_label])
        )

    def without(self, names: Iterable[str]) -> LabelTable:
        """Return the table without some labels; their cells count as cells without a label."""
        dropped = {name: self.n_cells(name) for name in names}
        is_kept = np.array([name not in dropped for name in self.names], bool)
        place = np.append(np.where(is_kept, np.cumsum(is_kept) - 1, -1), -1)
        return replace(
            self,
            names=[name for name in self.names if name not in dropped],
            codes=place[self.codes],
            left_out={**self.left_out, **dropped},
        )

    def perturbations(
        self, named: Iterable[str] | None = None, what: str = "perturbations"
    ) -> list[str]:
        """Return all labels except the control, or those ``named``, in the column's spelling."""
        control = (self.naming or Naming()).control
        if named is None:
            return [name for name in self.names if name != control]
        chosen = list(dict.fromkeys(self.spelled(str(name) for name in in_order(named))))
        self.require(chosen, what.capitalize())
        if control in chosen:
            message = f"{what} names the controls, {control!r}: leave them out."
            raise ValueError(message)
        return chosen

    def require(self, asked: Sequence[str], what: str) -> None:
        """Raise if no cell has some label in ``asked``; the error suggests close matches."""
        unknown = [name for name in self.spelled(asked) if name not in self.names]
        if unknown:
            message = f"{what} not found in adata.obs[{self.key!r}]: {list_names(unknown)}."
            hint = closest(unknown, self.names)
            if genes := [x for x in unknown if self.naming is not None and x in self.naming.genes]:
                hint = (
                    f" Genes are not perturbations ({list_names(genes)}): for a target mean of a "
                    f"gene, pass a mapping of genes to means."
                )
            raise ValueError(f"{message}{hint} The column holds {list_names(self.names)}.")


def read_labels(
    adata: ad.AnnData,
    key: str,
    *,
    argument: str = "perturbation_key",
    naming: Naming | None = None,
) -> LabelTable:
    """Return the labels in ``adata.obs[key]``; missing values count as no label.

    Labels that ``naming`` considers the same are merged under the spelling of the first cell.
    """
    remedy = f"pass an existing column as {argument}"
    if argument == "perturbation_key":
        remedy += ", or run pp.assign_guides on a column of guides first"
    column = column_of(adata, key, remedy)
    # Strings are made once per distinct value, not per cell.
    first, values = pd.factorize(column, use_na_sentinel=True)
    text = [str(value) for value in values]  # in order of first occurrence
    shown = text if naming is None else naming.spelled(text)
    position, names = pd.factorize(
        np.array(shown, dtype=object), sort=True
    )  # 1 and "1" are one label
    codes = np.append(position, -1)[first].astype(np.int64)
    pairs = dict.fromkeys(zip(shown, text, strict=True))
    pooled = tuple((name, other) for name, other in pairs if name != other)
    cells = cells_of(adata) if is_table(adata) else None
    return LabelTable(str(key), [str(name) for name in names], codes, naming, pooled, cells=cells)


def names_no_perturbation(label: str) -> bool:
    """Return whether a label means that the cell has no single known perturbation.

    Examples
    --------
    >>> from nextpert._adata.labels import names_no_perturbation
    >>> [names_no_perturbation(label) for label in ("Unassigned", "No guide", "", "MYC")]
    [True, True, True, False]
    """
    return label.strip().lower().replace(" ", "_").replace("-", "_") in NO_PERTURBATION


def read_every_label(
    adata: ad.AnnData, roles: Roles, *, argument: str = "perturbation_key"
) -> LabelTable:
    """Return the label of every cell for look-ups; labels with the same members are merged."""
    naming = Naming(set(measured_genes(adata, roles.gene_symbols)), roles.separator, roles.control)
    return read_labels(adata, roles.perturbation_key, argument=argument, naming=naming)


def read_perturbations(
    adata: ad.AnnData, roles: Roles, *, named: Iterable[str] | None = None
) -> LabelTable:
    """Return the perturbation of every cell; labels with the same members are merged.

    Labels that name no perturbation (:func:`names_no_perturbation`) are left out like missing
    labels, and counted, except the control's label and those in ``named``. All code that needs the
    perturbation of a cell calls this function.
    """
    labels = read_every_label(adata, roles)
    named_labels = {roles.control, *labels.spelled(str(name) for name in in_order(named or ()))}
    return labels.without(
        n for n in labels.names if names_no_perturbation(n) and n not in named_labels
    )


def say_left_out(left_out: Mapping[str, int], key: str) -> None:
    """Log how many cells are left out because their labels name no perturbation, if any."""
    if left_out:
        shown = [f"{name or '(empty)'} {n}" for name, n in left_out.items()]
        logger.warning(
            "%d cells are left out, as their labels in adata.obs[%r] name no perturbation: %s.",
            sum(left_out.values()),
            key,
            list_names(shown),
        )


def left_out_table(
    n_cells: Mapping[str, int], reasons: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return one row per label left out: label, cells, reason (default: no perturbation)."""
    reasons = [NAMES_NONE] * len(n_cells) if reasons is None else reasons
    return pd.DataFrame(
        {
            "perturbation": strings(n_cells),
            "n_cells": np.array(list(n_cells.values()), np.int64),
            "reason": strings(reasons),
        },
        index=pd.Index(np.arange(len(n_cells))),
    )


def say_pooled(labels: LabelTable) -> None:
    """Log which labels name the same perturbation, so that their cells are counted together."""
    if labels.pooled:
        spellings: dict[str, list[str]] = {}
        for name, other in labels.pooled:
            spellings.setdefault(name, []).append(other)
        shown = (f"{name} ({', '.join(others)})" for name, others in spellings.items())
        logger.warning(
            "Labels of adata.obs[%r] that name the same perturbation are merged: %s.",
            labels.key,
            list_names(shown),
        )


def column_of(adata: ad.AnnData, key: str, remedy: str = "name an existing column") -> pd.Series:
    """Return a column of ``obs`` in memory."""
    if key not in adata.obs.columns:
        columns = [str(column) for column in adata.obs.columns]
        message = (
            f"adata.obs has no column {key!r}.{closest([str(key)], columns)} It holds "
            f"{list_names(columns) or 'no column'}: {remedy}."
        )
        raise ValueError(message)
    column = adata.obs[key]
    # Columns of anndata.experimental.read_lazy are lazy.
    return column.to_series() if hasattr(column, "to_series") else column


def joins_guides(level: str, levels: Container[str]) -> bool:
    """Return whether a label combines several guides, one of which is also a label on its own.

    Examples
    --------
    >>> from nextpert._adata.labels import joins_guides
    >>> guides = {"STAT1_1", "NTC_2", "STAT1_1;NTC_2", "a|b"}
    >>> [guide for guide in sorted(guides) if joins_guides(guide, guides)]
    ['STAT1_1;NTC_2']
    """
    parts = parts_of(level)
    return len(parts) > 1 and any(part in levels for part in parts)


def parts_of(level: str) -> list[str]:
    """Return the guides that a label may join by a usual separator."""
    return [part.strip() for part in re.split(f"[{_SEPARATORS}]", level)]


def usual_separator(levels: Iterable[str]) -> str:
    """Return the usual separator that joins most labels that are also there alone, or an empty one.

    Examples
    --------
    >>> from nextpert._adata.labels import usual_separator
    >>> usual_separator({"STAT1_1", "NTC_2", "STAT1_1;NTC_2", "a|b"})
    ';'
    """
    alone = set(levels)
    n_joined = {
        mark: sum(
            mark in level and not alone.isdisjoint(map(str.strip, level.split(mark)))
            for level in alone
        )
        for mark in _SEPARATORS
    }
    return max(n_joined, key=lambda mark: n_joined[mark]) if any(n_joined.values()) else ""


def usual_controls(names: Iterable[str]) -> list[str]:
    """Return the names that are common labels of controls, sorted.

    Examples
    --------
    >>> from nextpert._adata.labels import usual_controls
    >>> usual_controls(["NTC", "MYC", "ctrl"])
    ['NTC', 'ctrl']
    """
    return sorted(name for name in names if name.lower() in {*CONTROL_TARGETS, "ctrl"})


def require_control(labels: LabelTable, control: str) -> None:
    """Raise if no cell has the label of the controls."""
    if control not in labels.names:
        hint = closest([control], labels.names)
        if usual := usual_controls(labels.names):
            hint = f" {list_names(usual)} may be the label of the controls."
        message = (
            f"No control cells: no cell has adata.obs[{labels.key!r}] == {control!r}.{hint} The "
            f"column holds {list_names(labels.names)}: pass the label of the controls as control."
        )
        raise ValueError(message)
