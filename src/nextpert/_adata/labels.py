"""Perturbation labels and guides: which cells bear them, and which genes they name."""

from __future__ import annotations

import logging
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
    from collections.abc import Callable, Iterable, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles

logger = logging.getLogger(__name__)

# How tables and files write a missing value; in lower case.
MISSING = ("", "na", "n/a", "nan", "<na>", "none", "null")
# Labels that name no perturbation: no guide was found in the cell, several were, or which one is
# not known. "negative", "doublet" and "multiplet" are the words of hashtag demultiplexing; the
# last two those of the loaders of datasets. In lower case, with underscores.
NO_PERTURBATION = frozenset({
    *MISSING, "unassigned", "unknown", "ambiguous", "negative", "multi", "multiple", "multiplet",
    "doublet", "no_guide", "control_guide",
})  # fmt: skip
# Names under which screens keep their control guides, in lower case.
CONTROL_TARGETS = (
    "control", "negative_control", "no_site", "non-targeting", "non_targeting", "nontargeting",
    "nt", "ntc", "one_non-gene_site", "safe-targeting", "scramble", "scrambled",
)  # fmt: skip
# Why they are left out, in tables.
NAMES_NONE = "no perturbation"


# Of these the study of Perturb-CITE-seq has two kinds, which it tells apart.
_KINDS = ("no_site", "one_non-gene_site")
TARGETING = "targeting"


@dataclass(frozen=True)
class LabelTable:
    """The labels of one column of ``.obs``, ``key``: all that some cell bears, sorted (``names``).

    ``codes`` is the position of every cell's label, -1 for none, shape ``(n_cells,)``. ``naming``
    says which labels are the same, ``None`` where only equal ones are; ``pooled`` are other
    spellings of names, ``left_out`` labels without a name and their cells. ``cells`` is, of a table
    of effects, what every row stands for.
    """

    key: str
    names: list[str]
    codes: NDArray[np.int64]
    naming: Naming | None = None
    pooled: tuple[tuple[str, str], ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    cells: NDArray[np.int64] | None = None

    def spelled(self, asked: Iterable[str]) -> list[str]:
        """Return labels as the column spells them, those that no cell bears as they are."""
        return list(asked) if self.naming is None else self.naming.spelled(asked, self.names)

    def groups(self, asked: Sequence[str]) -> NDArray[np.int64]:
        """Return for every cell the position of its label in ``asked``, ``-1`` for others."""
        place = {name: i for i, name in enumerate(self.spelled(asked))}
        lookup = np.array([place.get(name, -1) for name in self.names] + [-1], dtype=np.int64)
        return lookup[self.codes]

    def n_cells(self, name: str) -> int:
        """Return the number of cells that bear a label, one of ``left_out`` included."""
        mine = self.groups([name]) == 0
        return self.left_out.get(name, 0) or int(
            np.sum(mine if self.cells is None else self.cells[mine])
        )

    def without(self, names: Iterable[str]) -> LabelTable:
        """Return the table with some labels left out: their cells count as cells without one."""
        gone = {name: self.n_cells(name) for name in names}
        kept = [name for name in self.names if name not in gone]
        left_out = {**self.left_out, **gone}
        return replace(self, names=kept, codes=self.groups(kept), left_out=left_out)

    def perturbations(
        self, named: Iterable[str] | None = None, what: str = "perturbations"
    ) -> list[str]:
        """Return all labels but the controls', or those ``named``, as the column has them."""
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
        """Raise if some of ``asked`` are borne by no cell; close matches are suggested."""
        unknown = [name for name in self.spelled(asked) if name not in self.names]
        if unknown:
            message = f"{what} not found in adata.obs[{self.key!r}]: {list_names(unknown)}."
            hint = closest(unknown, self.names)
            raise ValueError(f"{message}{hint} The column holds {list_names(self.names)}.")


def read_labels(
    adata: ad.AnnData,
    key: str,
    *,
    argument: str = "perturbation_key",
    naming: Naming | None = None,
) -> LabelTable:
    """Return the labels in ``adata.obs[key]``; missing values count as no label.

    Those that name the same by ``naming`` are one, under the spelling of the first cell.
    """
    column = column_of(adata, key, f"pass an existing column as {argument}")
    # A million strings are made once.
    first, values = pd.factorize(column, use_na_sentinel=True)
    text = [str(value) for value in values]  # by the first cell of each
    shown = text if naming is None else naming.spelled(text)
    again, names = pd.factorize(np.array(shown, dtype=object), sort=True)  # 1 and "1" are one label
    codes = np.append(again, -1)[first].astype(np.int64)
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
    """Return the label of every cell, to look some up; those of the same members are one."""
    naming = Naming(set(measured_genes(adata, roles.gene_symbols)), roles.separator, roles.control)
    return read_labels(adata, roles.perturbation_key, argument=argument, naming=naming)


def read_perturbations(
    adata: ad.AnnData, roles: Roles, *, named: Iterable[str] | None = None
) -> LabelTable:
    """Return the perturbation of every cell; labels of the same members are one.

    Labels that name no perturbation (:func:`names_no_perturbation`) are left out as missing ones
    are, and counted, but for the controls' and those that the caller names. Whatever takes a cell's
    label for its perturbation reads it here.
    """
    labels = read_every_label(adata, roles)
    kept = {roles.control, *labels.spelled(str(name) for name in in_order(named or ()))}
    return labels.without(n for n in labels.names if names_no_perturbation(n) and n not in kept)


def say_left_out(left_out: Mapping[str, int], key: str) -> None:
    """Log how many cells are left out as their labels name no perturbation, if any are."""
    if left_out:
        shown = [f"{name or '(empty)'} {n}" for name, n in left_out.items()]
        logger.warning(
            "%d cells are left out, as their labels in adata.obs[%r] name no perturbation: %s.",
            sum(left_out.values()), key, list_names(shown),
        )  # fmt: skip


def left_out_table(
    n_cells: Mapping[str, int], reasons: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return one row per label that was left out: label, cells, reason (by default, no name)."""
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
    """Say which labels name the same perturbation, so that their cells are counted together."""
    if labels.pooled:
        same: dict[str, list[str]] = {}
        for name, other in labels.pooled:
            same.setdefault(name, []).append(other)
        shown = (f"{name} ({', '.join(others)})" for name, others in same.items())
        logger.warning(
            "Labels of adata.obs[%r] that name the same perturbation are merged: %s.",
            labels.key, list_names(shown),
        )  # fmt: skip


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
    # That of anndata.experimental.read_lazy is not.
    return column.to_series() if hasattr(column, "to_series") else column


def require_control(labels: LabelTable, control: str) -> None:
    """Raise if no cell bears the label of the controls."""
    if control not in labels.names:
        hint = closest([control], labels.names)
        usual = [name for name in labels.names if name.lower() in {*CONTROL_TARGETS, "ctrl"}]
        if usual and not hint:
            hint = f" {list_names(usual)} may be the label of the controls."
        message = (
            f"No control cells: no cell has adata.obs[{labels.key!r}] == {control!r}.{hint} The "
            f"column holds {list_names(labels.names)}: pass the label of the controls as control."
        )
        raise ValueError(message)


def guide_table(
    guides: Iterable[str],
    target_of: Mapping[str, str] | Callable[[str], str] | None = None,
    control_guides: Iterable[str] | None = None,
) -> pd.DataFrame:
    """Return one row per guide: ``target`` (empty for control guides) and ``kind``.

    Raise if a guide that is not named as a control guide has no target, or a control guide is no
    guide and no target.
    """
    names = [str(guide) for guide in guides]
    look_up = target_of.get if isinstance(target_of, Mapping) else target_of
    # What stands before the last underscore: "HLA-A_2" targets "HLA-A". Missing values of any kind
    # (None, NaN, pandas.NA) read as in tables.
    targets = [str(look_up(name) if look_up else name.rsplit("_", 1)[0]).strip() for name in names]
    controls = set() if control_guides is None else {str(name) for name in control_guides}
    unknown = sorted(controls.difference(names, targets))
    if unknown:
        message = (
            f"control_guides contains names that match no guide and no target: "
            f"{list_names(unknown)}. Correct or remove these names."
        )
        raise ValueError(message + closest(unknown, [*targets, *names]))
    kinds, without = [], []
    for name, target in zip(names, targets, strict=True):
        low, is_control = target.lower(), name in controls or target in controls
        if low in MISSING and not is_control:
            without.append(name)
        is_control = is_control or (control_guides is None and low in CONTROL_TARGETS)
        kinds.append(TARGETING if not is_control else low if low in _KINDS else "control")
    if without:
        names_shown = list_names(without)
        message = f"Guides without a target: {names_shown}. Pass target_of or control_guides."
        raise ValueError(message)
    shown = ["" if k != TARGETING else t for t, k in zip(targets, kinds, strict=True)]
    return pd.DataFrame(
        {"target": strings(shown), "kind": strings(kinds)}, index=pd.Index(strings(names))
    )


def split_lists(lists: pd.Series, separator: str) -> tuple[NDArray[np.int64], list[list[str]]]:
    """Return for every cell the position of its list of guides, and the different lists."""
    text = lists.astype(object).where(lists.notna(), "").astype(str)
    codes, joined = pd.factorize(text.to_numpy(dtype=object), sort=True)
    parts = [[part.strip() for part in str(each).split(separator)] for each in joined]
    split = [[part for part in each if part.lower() not in MISSING] for each in parts]
    return codes.astype(np.int64), split


def guide_sets(lists: Sequence[Sequence[str]], table: pd.DataFrame, separator: str) -> pd.DataFrame:
    """Return one row per list of guides, looked up in the table of guides.

    ``name`` joins the guides, ``n_guides`` counts them, ``targets`` are those of targeting guides,
    sorted, and ``kind`` is ``"none"``, ``"targeting"``, or that of the control guides where there
    are no others. Raise if a guide is not in the table, or twice in it.
    """
    twice = table.index[table.index.duplicated()]
    unknown = sorted({guide for each in lists for guide in each}.difference(table.index))
    if wrong := [*twice, *unknown]:
        message = f"The table of guides must hold every guide once; check {list_names(wrong)}."
        raise ValueError(message + closest(unknown[:3], table.index))
    kind_of, target_of = table["kind"].astype(str).to_dict(), table["target"].astype(str).to_dict()
    rows = []
    for each in lists:
        kinds = {kind_of[guide] for guide in each}
        targets = {target_of[guide] for guide in each if kind_of[guide] == TARGETING}
        kind = TARGETING if targets else "+".join(sorted(kinds)) or "none"
        rows.append((separator.join(each), len(each), tuple(sorted(targets)), kind))
    return pd.DataFrame(rows, columns=["name", "n_guides", "targets", "kind"])
