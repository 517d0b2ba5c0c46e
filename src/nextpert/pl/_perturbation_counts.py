"""Cells per perturbation, ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert._adata import measured_genes, read_perturbations, read_roles, require_control
from nextpert._adata.arguments import checked
from nextpert.core.fit.naming import Naming
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    counted,
    documented,
    finish,
    legend,
    logarithmic,
    panel_of,
)

if TYPE_CHECKING:
    import os

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nextpert._adata import LabelTable

_MAX_NAMED_PERTURBATIONS = 70  # more perturbations are ranked by number, without their names
_WIDE = 50  # bars that differ by more than this factor are drawn on a logarithmic axis
# By number of targets; the last colour is for this number and more.
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE)


@checked()
@documented
def perturbation_counts(
    adata: AnnData,
    *,
    perturbation_key: str | None = None,
    control: str | None = None,
    min_cells: int | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | Axes | None:
    """Draw the number of cells of every perturbation, ranked, by its number of targets.

    The figure follows Supplementary Figs. 5 and 6 of Zhang et al. 2023
    (doi:10.1038/s42256-023-00719-0). Up to 70 perturbations are drawn as bars with names; more are
    drawn as curves over the rank, one for each number of targets (4 and more together). The title
    counts cells whose label names no perturbation, such as ``"unassigned"``. The axis of cells is
    logarithmic for curves, and for bars that differ by more than a factor of 50.

    Parameters
    ----------
    adata
        Cells x genes, with labels.
    %(roles)s
    min_cells
        Draw a line at this number of cells, and count the perturbations that reach it.
    ax
        Axes to draw on.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If the column of labels is absent, or there are no control or no perturbed cells.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=100, n_perturbed=20, perturbed=["MYC"])
    >>> figure = npt.pl.perturbation_counts(adata, return_fig=True)
    >>> figure.axes[0].get_title().splitlines()
    ['1 perturbation, 20 cells', '100 cells control']
    """
    roles = read_roles(adata, perturbation_key=perturbation_key, control=control)
    control = roles.control
    labels = read_perturbations(adata, roles)
    require_control(labels, control)
    naming = Naming(set(measured_genes(adata, roles.gene_symbols)), roles.separator, control)
    table, n_out = _count(labels, naming, control)
    is_named = len(table) <= _MAX_NAMED_PERTURBATIONS
    n_groups = table["n_targets"].nunique()
    has_legend = n_groups > 1 or min_cells is not None
    width = max(1.0 + 0.21 * len(table), 3.6) if is_named else 5.0
    panel = panel_of(ax, (width + 2.4 * has_legend, 3.6))
    for n_targets in sorted(set(table["n_targets"])):
        n_cells = table.loc[table["n_targets"] == n_targets, "n_cells"]
        label = _describe(n_targets, n_cells, min_cells)
        colour = _COLOURS[n_targets - 1]
        if is_named:
            bars = panel.bar(n_cells.index, n_cells, 0.75, color=colour, label=label, linewidth=0)
            panel.bar_label(bars, padding=3, rotation=90, fontsize=7, color=BLACK)
        else:
            rank = np.arange(1, len(n_cells) + 1)
            marker = "o" if len(n_cells) == 1 else None
            panel.plot(
                rank,
                n_cells,
                color=colour,
                linewidth=1.8,
                label=label,
                drawstyle="steps-mid",
                marker=marker,
                markersize=4,
            )
    smallest, largest = table["n_cells"].min(), table["n_cells"].max()
    if is_named:
        panel.set_xticks(range(len(table)), table["label"], rotation=90)
        panel.set_xlim(-0.7, len(table) - 0.3)
    else:
        panel.set_xlabel("rank of the perturbation")
        longest = table["n_targets"].value_counts().max()
        if longest > 500:
            logarithmic(panel, "x", longest)
    if not is_named or largest > _WIDE * smallest:
        logarithmic(panel, "y", largest / smallest)
    panel.set_ylim((0, 1.2 * largest) if panel.get_yscale() == "linear" else (0.8, 3 * largest))
    if min_cells is not None:
        panel.axhline(min_cells, color=BLACK, linestyle="--", linewidth=1, zorder=3)
    if has_legend:
        legend(panel, panel.get_legend_handles_labels()[0])
    title = f"{counted(len(table), 'perturbation')}, {table['n_cells'].sum():,} cells"
    title += f"\n{labels.n_cells(control):,} cells {control}"
    panel.set_title(title + (f", {n_out:,} cells left out" if n_out else ""))
    panel.set_ylabel("cells")
    return finish(panel, is_new=ax is None, show=show, return_fig=return_fig, save=save)


def _count(labels: LabelTable, naming: Naming, control: str) -> tuple[pd.DataFrame, int]:
    """Return label, number of targets and of cells, ranked, and the number of cells left out."""
    is_labelled = labels.codes >= 0
    weights = None if labels.cells is None else labels.cells[is_labelled]
    n_cells = np.bincount(labels.codes[is_labelled], weights, len(labels.names)).astype(np.int64)
    n_targets = [sum(map(len, naming.targets(name))) for name in labels.names]
    table = pd.DataFrame({"label": labels.names, "n_targets": n_targets, "n_cells": n_cells})
    table["n_targets"] = table["n_targets"].clip(upper=len(_COLOURS))
    table = table[table["label"] != control]
    is_out = table["n_targets"] == 0
    n_out = sum(labels.left_out.values()) + int(table.loc[is_out, "n_cells"].sum())
    if is_out.all():
        message = (
            f"No perturbed cells: no label in adata.obs[{labels.key!r}] names a perturbation. Name "
            f"the column of labels as perturbation_key."
        )
        raise ValueError(message)
    by = {"n_targets": True, "n_cells": False, "label": True}
    ranked = table[~is_out].sort_values(list(by), ascending=list(by.values()))
    return ranked.reset_index(drop=True), n_out


def _describe(n_targets: int, n_cells: pd.Series, min_cells: int | None) -> str:
    """Return ``"2 targets: 31 perturbations"``, for the legend."""
    last = n_targets == len(_COLOURS)
    targets = f"{n_targets} or more targets" if last else counted(n_targets, "target")
    text = f"{targets}: {counted(len(n_cells), 'perturbation')}"
    if min_cells is None:
        return text
    return f"{text},\n{(n_cells >= min_cells).sum():,} with {min_cells:,} cells or more"
