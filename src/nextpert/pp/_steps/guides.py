"""Lists of guides: what they target, how many a cell carries, and the label of each cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata import closest, list_names, strings
from nextpert._adata.labels import CONTROL_TARGETS, MISSING, column_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert.pp._steps.bookkeeping import ScreenOptions
    from nextpert.pp._steps.genes import GeneNames


CONTROL = "control"


class CellTargets(NamedTuple):
    """What every cell carries, as found.

    Parameters
    ----------
    codes
        Row of the table, shape ``(n_cells,)``.
    table
        One row for each different label, or list of guides: ``name`` as found, ``targets``, and
        ``role``: ``"control"``, ``"perturbed"`` or ``"unassigned"``.
    """

    codes: NDArray[np.int64]
    table: pd.DataFrame

    def have(self, role: str) -> NDArray[np.bool_]:
        """Return which cells have a role."""
        return (self.table["role"] == role).to_numpy()[self.codes]


def label_cells(
    carried: CellTargets, panel: Collection[str], names: GeneNames, options: ScreenOptions
) -> pd.DataFrame:
    """Name everything that cells carry by the genes of its targets, one row each.

    ``label`` is what an analysis uses, ``shown`` the targets that it names, ``others`` those that
    it does not name, ``n_targets`` the number of both, and ``usable`` whether the panel has a place
    for it.
    """
    genes, rows = set(panel), []
    for targets, role in zip(carried.table["targets"], carried.table["role"], strict=True):
        every = sorted({names.find(target) for target in targets}) if role == "perturbed" else []
        inside = [target for target in every if target in genes]
        shown = inside if options.combinations == "panel_only" and inside else every
        label = options.separator.join(shown) if role == "perturbed" else CONTROL
        others = [target for target in every if target not in shown]
        usable = options.labels.outside == "keep" or genes.issuperset(shown)
        rows.append((label, shown, others, len(every), usable))
    return pd.DataFrame(rows, columns=["label", "shown", "others", "n_targets", "usable"])


def perturbation_table(
    named: pd.DataFrame,
    n_found: NDArray[np.int64],
    n_kept: NDArray[np.int64],
    reasons: Mapping[str, str],
) -> pd.DataFrame:
    """Return one row per perturbation: its targets, its cells, and why it is left out.

    Combinations that are left out are not listed: there may be tens of thousands.

    Parameters
    ----------
    named
        As of :func:`label_cells`.
    n_found, n_kept
        Number of cells of each row of ``named``, before and after all choices.
    reasons
        Why a target that is measured has no place in the panel.
    """
    n_targets = named["shown"].map(len).to_numpy()
    listed = (n_targets > 0) & (n_found > 0) & ((n_targets == 1) | (n_kept > 0))
    entries = pd.DataFrame(
        {
            "perturbation": named["label"],
            "target_genes": named["shown"].map(", ".join),
            "n_cells": n_kept,
            "n_cells_found": n_found,
            "n_cells_with_other_targets": n_kept * named["others"].map(bool),
            "reason": [
                "too few cells" if usable or not shown else reasons.get(shown[0], "not measured")
                for usable, shown in zip(named["usable"], named["shown"], strict=True)
            ],
        }
    )
    numbers = ["n_cells", "n_cells_found", "n_cells_with_other_targets"]
    by_label = entries[listed].groupby("perturbation")
    table = by_label.first().assign(**by_label[numbers].sum()).reset_index()
    table.insert(5, "kept", table["n_cells"] > 0)
    table.loc[table["kept"], "reason"] = ""
    for name in ("perturbation", "target_genes", "reason"):
        table[name] = strings(table[name])
    return table.astype(dict.fromkeys(numbers, np.int64)).set_axis(np.arange(len(table)))


# Of these the study of Perturb-CITE-seq has two kinds, which it tells apart.
_KINDS = ("no_site", "one_non-gene_site")
TARGETING = "targeting"


def guide_table(
    guides: Iterable[str],
    target_of: Mapping[str, str] | Callable[[str], str] | None = None,
    control_guides: Iterable[str] | None = None,
) -> pd.DataFrame:
    """Return one row per guide: ``target`` (empty for control guides) and ``kind``.

    Raises
    ------
    ValueError
        If a guide that is not named as a control guide has no target, or a control guide is no
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
    are no others.

    Raises
    ------
    ValueError
        If a guide is not in the table, or twice in it.
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


def cell_guides(
    adata: ad.AnnData, key: str, separator: str, table_key: str
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Return the row of every cell, and :func:`guide_sets`, of the guides of ``adata.obs[key]``.

    Guides are looked up in ``adata.uns[table_key]``. Without that table, targets follow from their
    names.
    """
    remedy = "call pp.assign_guides, or name the column with the guides of cells with guides_key"
    codes, lists = split_lists(column_of(adata, key, remedy), separator)
    table = adata.uns.get(table_key)
    if not isinstance(table, pd.DataFrame):
        table = guide_table(sorted({guide for each in lists for guide in each}))
    elif not {"target", "kind"} <= set(table.columns):
        message = f"adata.uns[{table_key!r}] must hold the columns 'target' and 'kind'."
        raise ValueError(message)
    return codes, guide_sets(lists, table, separator)
