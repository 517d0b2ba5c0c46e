"""Guides by name: what they target, and lists of those that a cell carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert._adata.labels import CONTROL_TARGETS, MISSING
from nextpert._adata.panel import closest
from nextpert.core._checks import list_names
from nextpert.core._codec import strings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

# Of these the study of Perturb-CITE-seq has two kinds, which it tells apart.
_KINDS = ("no_site", "one_non-gene_site")
TARGETING = "targeting"


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
            f"control_guides names no guide and no target of a guide: {list_names(unknown)}."
            f"{closest(unknown, [*targets, *names])}"
        )
        raise ValueError(message)
    kinds, without = [], []
    for name, target in zip(names, targets, strict=True):
        low, is_control = target.lower(), name in controls or target in controls
        if low in MISSING and not is_control:
            without.append(name)
        is_control = is_control or (control_guides is None and low in CONTROL_TARGETS)
        kinds.append(TARGETING if not is_control else low if low in _KINDS else "control")
    if without:
        message = (
            f"Guides without a target: {list_names(without)}. Give each one with target_of, or "
            f"name it in control_guides if it is a control guide."
        )
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
    if len(twice) or unknown:
        message = (
            f"The table of guides names guides twice: {list_names(twice)}."
            if len(twice)
            else f"Guides that are not in the table of guides: {list_names(unknown)}."
            f"{closest(unknown[:3], table.index)}"
        )
        raise ValueError(message)
    kind_of, target_of = table["kind"].astype(str).to_dict(), table["target"].astype(str).to_dict()
    rows = []
    for each in lists:
        kinds = {kind_of[guide] for guide in each}
        targets = {target_of[guide] for guide in each if kind_of[guide] == TARGETING}
        kind = TARGETING if targets else "+".join(sorted(kinds)) or "none"
        rows.append((separator.join(each), len(each), tuple(sorted(targets)), kind))
    return pd.DataFrame(rows, columns=["name", "n_guides", "targets", "kind"])
