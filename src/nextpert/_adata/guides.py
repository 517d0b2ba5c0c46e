"""The guides of a screen: one table of guides and their targets, and the guides of every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata.guide_names import PAIR, control_name
from nextpert._adata.labels import MISSING
from nextpert._adata.panel import closest
from nextpert.core._checks import list_names
from nextpert.core._codec import strings
from nextpert.core.fit.naming import Naming

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

KEY = "guides"  # in uns
TARGETING = "targeting"
_PAIRS = Naming(separator=PAIR, control="")
COLUMNS = ("target", "kind", "n_cells", "decided_by")
# The Perturb-CITE-seq study distinguishes these two kinds of control guides.
_KINDS = ("no_site", "one_non-gene_site")


def guide_table(
    targets: Mapping[str, Any],
    decided_by: str | Mapping[str, str],
    control_guides: Iterable[str] | None = None,
    more: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return the table of guides, the layout of ``uns["guides"]``, with a row for each guide.

    Columns are ``target`` (empty for control guides), ``kind``, ``n_cells`` (0 until
    :func:`count_cells`), ``decided_by``, and those of ``more``, such as the guides' sequences.
    ``targets`` has the target of every guide, for a control guide its usual name. Raises an error
    if a guide that is not a control guide has no target, or if an entry of ``control_guides``
    matches neither a guide nor a target.
    """
    names = [str(guide) for guide in targets]
    # Missing values of any kind (None, NaN, pandas.NA) become the texts in MISSING.
    texts = [str(target).strip() for target in targets.values()]
    controls = set() if control_guides is None else {str(name) for name in control_guides}
    if unknown := sorted(controls.difference(names, texts)):
        message = (
            f"control_guides contains names that match no guide and no target: "
            f"{list_names(unknown)}. Correct or remove these names."
        )
        raise ValueError(message + closest(unknown, [*texts, *names]))
    kinds, without = [], []
    for name, target in zip(names, texts, strict=True):
        is_control = name in controls or target in controls
        if target.lower() in MISSING and not is_control:
            without.append(name)
        usual = control_name(target) if control_guides is None else ""
        kind = usual.lower() if usual.lower() in _KINDS else "control"
        kinds.append(kind if is_control or usual else TARGETING)
    if without:
        names_shown = list_names(without)
        message = (
            f"Guides without a target: {names_shown}. Add them to targets, or pass control_guides."
        )
        raise ValueError(message)
    shown = ["" if k != TARGETING else t for t, k in zip(texts, kinds, strict=True)]
    how = [decided_by if isinstance(decided_by, str) else decided_by[name] for name in names]
    table = pd.DataFrame(
        {"target": strings(shown), "kind": strings(kinds)},
        index=pd.Index(strings(names), name="guide"),
    )
    table["n_cells"] = np.zeros(len(names), dtype=np.int64)
    table["decided_by"] = strings(how)
    if more is not None:
        for column in [name for name in more.columns if name not in ("guide", *COLUMNS)]:
            values = more[column].reindex(names)
            is_number = values.dtype.kind in "buif"
            text = strings(values.astype(object).fillna(""))
            table[str(column)] = values.to_numpy() if is_number else text
    return table


def targets_before_number(names: Iterable[str]) -> dict[str, str]:
    """Return the text before the last underscore: in the Perturb-CITE-seq study, the target."""
    return {name: name.rsplit("_", 1)[0] for name in names}


def count_cells(
    table: pd.DataFrame, lists: Sequence[Sequence[str]], codes: NDArray[np.int64]
) -> pd.DataFrame:
    """Return the table of guides with the number of cells that have each guide."""
    n_cells = dict.fromkeys(table.index, 0)
    for guides, n in zip(lists, np.bincount(codes, minlength=len(lists)), strict=True):
        for guide in guides:
            n_cells[guide] += int(n)
    return table.assign(n_cells=np.array(list(n_cells.values()), dtype=np.int64))


def split_lists(lists: pd.Series, separator: str) -> tuple[NDArray[np.int64], list[list[str]]]:
    """Return the position of every cell's list of guides, and the distinct lists."""
    text = lists.astype(object).where(lists.notna(), "").astype(str)
    codes, joined = pd.factorize(text.to_numpy(dtype=object), sort=True)
    parts = [[part.strip() for part in str(each).split(separator)] for each in joined]
    split = [[part for part in each if part.lower() not in MISSING] for each in parts]
    return codes.astype(np.int64), split


def guide_sets(lists: Sequence[Sequence[str]], table: pd.DataFrame, separator: str) -> pd.DataFrame:
    """Return one row per list of guides, looked up in the table of guides.

    ``name`` joins the guides, ``n_guides`` counts them, ``targets`` are the sorted targets of
    targeting guides, and ``kind`` is ``"none"``, ``"targeting"``, or, if all are control guides,
    their kind. Raises an error if the table lacks a guide or contains it twice.
    """
    if len(twice := table.index[table.index.duplicated()]):
        message = f"The table of guides contains these guides more than once: {list_names(twice)}."
        raise ValueError(message)
    if unknown := sorted({guide for each in lists for guide in each}.difference(table.index)):
        message = f"The table of guides lacks these guides: {list_names(unknown)}."
        raise ValueError(message + closest(unknown[:3], table.index))
    kind_of, target_of = table["kind"].astype(str).to_dict(), table["target"].astype(str).to_dict()
    rows = []
    for each in lists:
        kinds = {kind_of[guide] for guide in each}
        named = (target_of[guide] for guide in each if kind_of[guide] == TARGETING)
        targets = {target for name in named for target in _PAIRS.members(name)}
        kind = TARGETING if targets else "+".join(sorted(kinds)) or "none"
        rows.append((separator.join(each), len(each), tuple(sorted(targets)), kind))
    return pd.DataFrame(rows, columns=["name", "n_guides", "targets", "kind"])
