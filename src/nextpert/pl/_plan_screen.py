"""The next plate: what is on it and why, its cells, and what it is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import read_stored
from nextpert._adata.arguments import checked
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    finish,
    font_size,
    read_to_draw,
    root_figure,
    row_height,
    unit_of_distance,
)
from nextpert.pl._replay import replay

if TYPE_CHECKING:
    import os

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AROUND = 1.6  # inches above and below the rows of wells
# Colour, marker and words of every aim.
_AIMS = {
    "best": (BLUE, "o", "to find the best"),
    "learn": (ORANGE, "s", "to learn the way"),
    "acquisition": (PURPLE, "^", "by the acquisition"),
    "must": (GREEN, "D", "has to be on it"),
    "control": (GREY, "|", "controls"),
}


@checked()
def plan_screen(
    adata: AnnData,
    *,
    key: str = "plan",
    replay_key: str | None = "replay",
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | Axes | None:
    """Draw the next plate, well by well, and how it compares with other ways to choose.

    From left to right: the predicted squared distance of every perturbation's mean to the target
    with its 90% interval, coloured by the aim that put it on the plate; a stroke marks the distance
    of the expected state, by which wells are chosen, and the dashed line is doing nothing; the
    cells of every well; what the plate is worth up to each well, that is the probability that it
    holds the nearest of all candidates, and the share of the remaining uncertainty that it is
    expected to resolve; and, where the screen was replayed, how near each strategy came
    plate by plate, and how many plates it took to find the best, ± a standard error (see
    :func:`replay`).

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.plan_screen`.
    key
        Its ``key_added``.
    replay_key
        Results of :func:`nextpert.tl.replay_design` to draw beside it, where there are any;
        ``None`` for none.
    ax
        Axes to draw the distances on; all else is left out then.
    show
        Whether to show the figure; by default as scanpy is set up.
    return_fig
        Whether to return the figure.
    save
        File to save the figure to.

    Returns
    -------
    ~matplotlib.figure.Figure, ~matplotlib.axes.Axes, list of them, or None
        The figure, with ``return_fig``; ``None`` once shown; else the axes.

    Raises
    ------
    ValueError
        If there is no plan (run :func:`nextpert.tl.plan_screen` first).

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
    stored = read_to_draw(adata, key, "tl.plan_screen", what="plan", part="plate")
    table = stored["plate"]
    if ax is not None:
        _draw_distances(ax, table, stored)
        ax.legend(handles=_handles(table), frameon=False, fontsize=8)
        figure = root_figure(ax)
        return finish(figure, ax, show=show, return_fig=return_fig, save=save, own=False)
    replayed = replay_key is not None and replay_key in adata.uns
    figure, axes = _figure(len(table), replayed)
    for panel in axes[:3]:
        panel.tick_params(labelsize=8)
    _draw_distances(axes[0], table, stored)
    _draw_cells(axes[1], table)
    _draw_worth(axes[2], table)
    if replayed:
        replay(adata, key=str(replay_key), ax=axes[3], show=False)
        _tell_plates(axes[3], read_stored(adata, str(replay_key), "tl.replay_design"))
    handles = [*_handles(table), *axes[2].get_lines()]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=len(handles), frameon=False, fontsize=8
    )
    return finish(figure, axes, show=show, return_fig=return_fig, save=save, own=True)


def _figure(n_wells: int, replayed: bool) -> tuple[Figure, list[Axes]]:
    import matplotlib.pyplot as plt

    widths = [3.6, 1.5, 2.2, *([3.4] if replayed else [])]
    height = max(3.4, _AROUND + n_wells * row_height(n_wells, 0.24, _AROUND))
    figure = plt.figure(figsize=(1.2 + sum(widths), height), layout="constrained")
    grid = figure.add_gridspec(1, len(widths), width_ratios=widths)
    first = figure.add_subplot(grid[0])
    axes = [first, *(figure.add_subplot(grid[i], sharey=first) for i in (1, 2))]
    if replayed:
        axes.append(figure.add_subplot(grid[3]))
    return figure, axes


def _draw_distances(panel: Axes, table: pd.DataFrame, stored: Any) -> None:
    mean, low, high = (
        table[f"predicted_{name}"].to_numpy(dtype=float) for name in ("distance", "low", "high")
    )
    seen = table["n_cells_seen"].to_numpy(dtype=int)
    for place, aim in enumerate(table["aim"].astype(str)):
        colour, marker, _ = _AIMS[aim]
        if aim == "control":
            panel.axvline(mean[place], color=GREY, linestyle="--", linewidth=1, zorder=0)
        panel.plot([low[place], high[place]], [place, place], color=colour, linewidth=1.2)
        panel.plot(
            mean[place], place, marker=marker, color=colour, markersize=6,
            markerfacecolor=colour if seen[place] else "white", linestyle="none",
        )  # fmt: skip
    state = table["state_distance"].to_numpy(dtype=float)
    panel.scatter(state, range(len(table)), marker="|", s=60, color=BLACK, zorder=3)
    names = [
        f"{well}  {name}" + ("" if n else " (new)")
        for well, name, n in zip(table["well"], table["perturbation"], seen, strict=True)
    ]
    size = font_size(row_height(len(table), 0.24, _AROUND))
    panel.set_yticks(range(len(table)), names, fontsize=size)
    panel.set_ylim(len(table) - 0.5, -0.5)
    panel.set_xlim(left=0)
    panel.set_xlabel(
        f"predicted distance to the target, 90 % interval\n({unit_of_distance(stored)})",
        fontsize=9,
    )
    target = str(stored["params"]["target"])
    goal = "wanted means of genes" if target.count("=") > 3 else target
    panel.set_title(f"next plate towards {goal[:40]}", fontsize=9)


def _draw_cells(panel: Axes, table: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    cells = table["n_cells"].to_numpy(dtype=int)
    colours = [_AIMS[aim][0] for aim in table["aim"].astype(str)]
    panel.barh(range(len(table)), cells, color=colours, height=0.6)
    size = font_size(row_height(len(table), 0.24, _AROUND), 7)
    for place, n in enumerate(cells):
        panel.annotate(
            str(n), (n, place), xytext=(2, 0), textcoords="offset points", va="center",
            fontsize=size,
        )  # fmt: skip
    panel.set_xlim(0, 1.3 * cells.max())
    panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    panel.tick_params(labelleft=False, left=False)
    panel.set_xlabel("cells", fontsize=9)
    panel.set_title(f"{cells.sum()} cells", fontsize=9)


def _draw_worth(panel: Axes, table: pd.DataFrame) -> None:
    wells = table[table["aim"] != "control"]
    places = np.arange(len(wells))
    covered = 100 * wells["probability_covered"].to_numpy(dtype=float)
    removed = 100 * wells["uncertainty_removed"].to_numpy(dtype=float)
    panel.plot(covered, places, color=BLUE, marker="o", markersize=3.5, label="holds the nearest")
    panel.plot(
        removed, places, color=ORANGE, marker="s", markersize=3.5, linestyle="--",
        label="uncertainty removed",
    )  # fmt: skip
    panel.set_xlim(-4, 104)
    panel.set_xticks([0, 50, 100])
    panel.tick_params(labelleft=False, left=False)
    panel.set_xlabel("%, by the wells so far", fontsize=9)
    panel.set_title("what the plate is worth", fontsize=9)


def _tell_plates(panel: Axes, replayed: Any) -> None:
    """Write beside every strategy how many plates it took to find the best, ± a standard error."""
    panel.set_title("replayed on this screen: plates to the best", fontsize=9)
    table = replayed["overall"]
    reading = bool(replayed["params"]["held_out"][0])  # that which is drawn
    rows = table[table["held_out"] == reading].set_index("criterion")
    for text in panel.texts:
        name = text.get_text()
        if name in rows.index:
            row = rows.loc[name]
            text.set_text(f"{name}: {row['plates']:.1f} ± {row['plates_sem']:.1f}")


def _handles(table: pd.DataFrame) -> list[Any]:
    from matplotlib.lines import Line2D

    shown = [aim for aim in _AIMS if (table["aim"].astype(str) == aim).any()]
    handles = [
        Line2D([], [], color=_AIMS[aim][0], marker=_AIMS[aim][1], ls="", label=_AIMS[aim][2])
        for aim in shown
    ]
    handles.append(Line2D([], [], color=BLACK, marker="|", ls="", label="expected state"))
    handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1, label="doing nothing"))
    return handles
