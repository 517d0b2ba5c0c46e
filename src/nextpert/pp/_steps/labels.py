"""From the targets every cell carries to the labels an analysis uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import strings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    from nextpert.pp._steps.genes import GeneNames
    from nextpert.pp._steps.options import ScreenOptions

CONTROL = "control"


@dataclass(frozen=True)
class CellTargets:
    """What every cell carries, as found.

    Parameters
    ----------
    codes
        Position in the lists below, shape ``(n_cells,)``.
    names
        The label, or list of guides, as found.
    targets
        Its targets.
    roles
        ``"control"``, ``"perturbed"`` or ``"unassigned"``.
    """

    codes: NDArray[np.int64]
    names: list[str]
    targets: list[tuple[str, ...]]
    roles: list[str]

    def cells(self, role: str) -> NDArray[np.bool_]:
        """Return which cells have a role."""
        return np.array([found == role for found in self.roles], dtype=bool)[self.codes]


@dataclass(frozen=True)
class PanelLabels:
    """The labels of a panel, one for everything that is found in a cell.

    Parameters
    ----------
    labels
        The label an analysis uses.
    shown
        The targets it names.
    others
        Targets that the cells carry too, but that the label does not name.
    usable
        Whether the panel has a place for it.
    """

    labels: list[str]
    shown: list[list[str]]
    others: list[list[str]]
    usable: list[bool]

    @property
    def n_targets(self) -> NDArray[np.int64]:
        """Number of different targets, those that the label does not name included."""
        pairs = zip(self.shown, self.others, strict=True)
        return np.array([len(shown) + len(others) for shown, others in pairs], dtype=np.int64)


def label_cells(
    found: CellTargets, panel: Collection[str], names: GeneNames, options: ScreenOptions
) -> PanelLabels:
    """Name everything found by the genes of its targets."""
    genes = set(panel)
    out = PanelLabels([], [], [], [])
    for targets, role in zip(found.targets, found.roles, strict=True):
        every = sorted({names.find(target) for target in targets}) if role == "perturbed" else []
        inside = [target for target in every if target in genes]
        shown = inside if options.combinations == "panel_only" and inside else every
        out.labels.append(options.separator.join(shown) if role == "perturbed" else CONTROL)
        out.shown.append(shown)
        out.others.append([target for target in every if target not in shown])
        out.usable.append(options.outside == "keep" or genes.issuperset(shown))
    return out


def perturbation_table(
    named: PanelLabels,
    n_found: NDArray[np.int64],
    n_kept: NDArray[np.int64],
    reason: Callable[[str], str],
) -> pd.DataFrame:
    """Return one row a perturbation: its targets, its cells, and why it is left out.

    Combinations that are left out are not listed: there may be tens of thousands.

    Parameters
    ----------
    named
        The labels.
    n_found, n_kept
        Number of cells of each entry of ``named``, before and after all choices.
    reason
        Why a target has no place in the panel.
    """
    rows: dict[str, list[Any]] = {}
    for i, (label, shown) in enumerate(zip(named.labels, named.shown, strict=True)):
        if not shown or not n_found[i] or (len(shown) > 1 and not n_kept[i]):
            continue
        why = "too few cells" if named.usable[i] else reason(shown[0])
        row = rows.setdefault(label, [", ".join(shown), 0, 0, 0, why])
        row[1] += n_kept[i]
        row[2] += n_found[i]
        row[3] += n_kept[i] * bool(named.others[i])
    labels = sorted(rows)
    n_cells, n_cells_found, n_with_others = (
        np.array([rows[label][k] for label in labels], dtype=np.int64) for k in (1, 2, 3)
    )
    return pd.DataFrame(
        {
            "perturbation": strings(labels),
            "target_genes": strings(rows[label][0] for label in labels),
            "n_cells": n_cells,
            "n_cells_found": n_cells_found,
            "n_cells_with_other_targets": n_with_others,
            "kept": n_cells > 0,
            "reason": strings("" if rows[label][1] else rows[label][4] for label in labels),
        },
        index=pd.Index(np.arange(len(labels))),
    )
