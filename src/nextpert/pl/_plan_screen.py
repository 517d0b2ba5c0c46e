"""The next round: its perturbations, why they were chosen, their cells, and expected benefit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import changes_since, read_result, remedy_of, words_of
from nextpert._adata.arguments import checked
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    documented,
    draw_intervals,
    draw_marks,
    entry,
    finish,
    font_size,
    from_zero,
    goal,
    legend,
    name_rows,
    root_figure,
    row_height,
    row_panels,
    unit_of_distance,
)

if TYPE_CHECKING:
    import os

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour, marker and label of every strategy.
_STRATEGIES = {
    "exploit": (BLUE, "o", "chosen to find the best"),
    "measure": (BLUE, "o", "to measure again"),
    "confirm": (GREEN, "o", "to confirm"),
    "explore": (ORANGE, "s", "chosen to reduce uncertainty"),
    "acquisition": (PURPLE, "^", "chosen by the acquisition"),
    "include": (GREY, "D", "included on request"),
    "control": (GREY, "o", "controls"),
}


@checked()
@documented
def plan_screen(
    adata: AnnData,
    *,
    key: str = "plan",
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | None:
    """Draw the perturbations of the next round: distances, cells, and expected benefit.

    The left panel shows the predicted squared distance of every perturbation's mean to the target
    with its 90% interval, coloured by the strategy that chose it. A stroke marks the distance of
    the expected state, by which perturbations are chosen; the dashed line is the control. The
    middle panel shows the cells of every perturbation. The right panel shows, for each row and
    those above it together, the probability that they include the nearest of all candidates, and
    the share of the remaining uncertainty that they are expected to resolve. :func:`replay`
    compares strategies.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.plan_screen`.
    key
        The ``key_added`` of :func:`nextpert.tl.plan_screen`.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there is no plan (run :func:`nextpert.tl.plan_screen` first), or it is empty.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=200, n_perturbed=20, perturbed=["MYC"])
    >>> npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STAT1"), ("STAT1", "B2M")])
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.plan_screen(adata, {"B2M": 3.0}, candidates="genes", n_perturbations=2)
    >>> figure = npt.pl.plan_screen(adata, return_fig=True)
    >>> len(figure.axes)
    3
    """
    stored = read_result(adata, key, "tl.plan_screen", what="plan", part="plate")
    table = stored["plate"].astype({"strategy": str})
    if not len(table):
        message = (
            f"The plan is empty, so there is nothing to draw: {stored['advice']['words']} To fill "
            f"a plan nevertheless, give strategy='exploit' to tl.plan_screen."
        )
        if changed := changes_since(adata, stored):
            since = f"{words_of(key, changed)}: {remedy_of(stored, 'tl.plan_screen')}"
            message = f"{since}. {message}"
        raise ValueError(message)
    panels = row_panels(len(table), [4.0, 1.8, 2.5], shared=3, min_height=3.4)
    handles = _draw_distances(panels[0], table, stored)
    _draw_cells(panels[1], table)
    handles += _draw_worth(panels[2], table[table["strategy"] != "control"])
    legend(root_figure(panels[0]), handles, loc="outside upper center", ncols=4)
    return finish(panels, is_new=True, show=show, return_fig=return_fig, save=save)


def _draw_distances(panel: Axes, table: pd.DataFrame, stored: Any) -> list[Any]:
    """Draw a row per perturbation, marked by its strategy; return the legend's entries."""
    names = [f"predicted_{name}" for name in ("distance", "low", "high")]
    n_cells = table["n_cells_seen"].to_numpy(dtype=int)
    handles = []
    for strategy, (colour, marker, words) in _STRATEGIES.items():
        rows = np.flatnonzero(table["strategy"] == strategy)
        values = table[names].to_numpy(dtype=float)[rows].T
        draw_intervals(panel, values, n_cells[rows] > 0, colour, rows=rows, marker=marker, s=32)
        if strategy == "control":
            for distance in values[0]:
                panel.axvline(distance, color=GREY, linestyle="--", linewidth=1, zorder=0)
        elif len(rows):
            handles.append(entry(words, colour, marker))
    draw_marks(panel, table["state_distance"])
    named = zip(table["perturbation"], n_cells, strict=True)
    name_rows(panel, [f"{name}{'' if n else ' (new)'}" for name, n in named])
    from_zero(panel, table["predicted_low"])
    panel.set_xlabel(f"predicted distance, 90% interval\n({unit_of_distance(stored)})")
    panel.set_title(f"next round towards {goal(stored['params']['target'])}")
    return [*handles, entry("expected state", BLACK, "|"), entry("control", GREY, line="--")]


def _draw_cells(panel: Axes, table: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    cells = table["n_cells"].to_numpy(dtype=int)
    colours = [_STRATEGIES[strategy][0] for strategy in table["strategy"]]
    bars = panel.barh(range(len(table)), cells, height=0.6, color=colours)
    panel.bar_label(bars, padding=2, fontsize=font_size(row_height(len(table)), 7))
    panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    panel.set(xlim=(0, 1.3 * cells.max()), xlabel="cells", title=f"{cells.sum()} cells")


def _draw_worth(panel: Axes, table: pd.DataFrame) -> list[Any]:
    """Draw the benefit of each row and those above it; return the lines, for the legend."""
    lines = []
    for name, label, style in (
        ("probability_contains_best", "nearest candidate included", "o-"),
        ("variance_reduction", "uncertainty resolved", "s--"),
    ):
        colour = BLUE if style == "o-" else ORANGE
        at = 100 * table[name].to_numpy(dtype=float)
        lines += panel.plot(at, range(len(at)), style, color=colour, markersize=3.5, label=label)
    panel.set(xlim=(-4, 104), xticks=[0, 50, 100])
    panel.set(xlabel="%, this row and those above", title="expected benefit")
    return lines
