"""The ranking of a design, and the rounds so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata.arguments import checked
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    finish,
    font_size,
    logarithmic,
    read_to_draw,
    root_figure,
    row_height,
    unit_of_distance,
)

if TYPE_CHECKING:
    import os

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Distances that spread wider than this are drawn on a logarithmic axis.
_WIDE = 30
_AROUND = 1.6  # inches above and below the rows


@checked()
def design(
    adata: AnnData,
    *,
    key: str = "design",
    n_top: int = 30,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | Axes | None:
    """Draw the ranking of candidate perturbations and the trace of all rounds.

    From left to right: the predicted squared distance of every candidate's mean to the target,
    with the 90 % interval, best candidate on top; the criterion that ranks them;
    and, from the second round on, the distance predicted for the one chosen in each. The chosen one
    is orange; open circles are candidates of which no cell has been seen; a stroke marks the
    distance that the cells themselves have; the dashed line is the distance of doing nothing.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.design_interventions`.
    key
        Its ``key_added``.
    n_top
        Most candidates to draw.
    ax
        Axes to draw the distances on; criterion and trace are left out then.
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
        If there is no design (run :func:`nextpert.tl.design_interventions` first).

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=200, n_perturbed=20, perturbed=["MYC"])
    >>> npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STAT1"), ("STAT1", "B2M")])
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.design_interventions(adata, {"B2M": 3.0}, candidates="genes")
    >>> figure = npt.pl.design(adata, return_fig=True)
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    [...]
    """
    stored = read_to_draw(adata, key, "tl.design_interventions", what="design", part="ranking")
    table = stored["ranking"].sort_values("rank")
    is_control = table["is_control"].to_numpy(dtype=bool)
    ranking, control = table[~is_control], table[is_control]
    top = ranking.head(n_top)
    nothing = float(control["predicted_distance"].iloc[0])
    if ax is not None:
        _draw_distances(ax, top, len(ranking), nothing, stored)
        figure = root_figure(ax)
        return finish(figure, ax, show=show, return_fig=return_fig, save=save, own=False)
    figure, axes = _figure(len(top), len(stored["trace"]))
    _draw_distances(axes[0], top, len(ranking), nothing, stored)
    _draw_criterion(axes[1], top, str(stored["params"]["acquisition"]))
    if len(axes) > 2:
        _draw_trace(axes[2], stored)
    return finish(figure, axes, show=show, return_fig=return_fig, save=save, own=True)


def _figure(n_candidates: int, n_rounds: int) -> tuple[Figure, list[Axes]]:
    import matplotlib.pyplot as plt

    height = max(3.6, _AROUND + n_candidates * row_height(n_candidates, 0.24, _AROUND))
    if n_rounds < 2:
        figure = plt.figure(figsize=(6.2, height), layout="constrained")
        grid = figure.add_gridspec(1, 2, width_ratios=[4.0, 2.2])
        first = figure.add_subplot(grid[0])
        return figure, [first, figure.add_subplot(grid[1], sharey=first)]
    height = max(height, 4.6)  # for the names below the trace
    last = min(max(2.0, 0.6 + 0.28 * n_rounds), 8.0)
    figure = plt.figure(figsize=(6.2 + last, height), layout="constrained")
    grid = figure.add_gridspec(1, 3, width_ratios=[4.0, 2.2, last])
    first = figure.add_subplot(grid[0])
    return figure, [first, figure.add_subplot(grid[1], sharey=first), figure.add_subplot(grid[2])]


def _draw_distances(
    panel: Axes, top: pd.DataFrame, n_all: int, control: float, stored: Any
) -> None:
    mean = top["predicted_distance"].to_numpy(dtype=float)
    low, high = (top[name].to_numpy(dtype=float) for name in ("predicted_low", "predicted_high"))
    seen = top["n_cells_seen"].to_numpy(dtype=int)
    measured = top["measured_distance"].to_numpy(dtype=float)
    values = np.append(mean, control)
    is_wide = values.min() > 0 and values.max() > _WIDE * values.min()
    if is_wide:
        logarithmic(panel, values.max() / values.min())
    for place in range(len(top)):
        colour = ORANGE if place == 0 else BLUE
        # A bar that would reach zero on a logarithmic axis stops at a tenth of the mean. The mean
        # itself may lie outside where the draws are skew.
        down = mean[place] - (max(low[place], 0.1 * mean[place]) if is_wide else low[place])
        panel.errorbar(
            mean[place],
            place,
            xerr=[[max(down, 0.0)], [max(high[place] - mean[place], 0.0)]],
            fmt="o",
            color=colour,
            markersize=7 if place == 0 else 5,
            markerfacecolor=colour if seen[place] else "white",
            elinewidth=1.2,
            capsize=2,
        )
    panel.axvline(control, color=GREY, linestyle="--", linewidth=1, zorder=0)
    shown = np.isfinite(measured) & ((measured > 0) | (not is_wide))
    panel.scatter(measured[shown], np.flatnonzero(shown), marker="|", s=60, color=BLACK, zorder=3)
    names = [
        f"{name} ({n} cells)" if n else f"{name} (no cells yet)"
        for name, n in zip(top["perturbation"], seen, strict=True)
    ]
    size = font_size(row_height(len(top), 0.24, _AROUND))
    panel.set_yticks(range(len(top)), names, fontsize=size)
    panel.get_yticklabels()[0].set_fontweight("bold")
    panel.set_ylim(len(top) - 0.5, -0.5)
    panel.set_xlabel(_label(stored), fontsize=9)
    count = (
        f"first {len(top)} of {n_all} candidates" if len(top) < n_all else f"all {n_all} candidates"
    )
    if float(top["relative_distance"].iloc[0]) > 1:
        count += "\nthe chosen one is predicted\nfarther than control cells"
    panel.set_title(f"towards {_goal(str(stored['params']['target']))}\n{count}", fontsize=9)
    _legend(panel)


def _label(stored: Any) -> str:
    return f"predicted distance to the target\n({unit_of_distance(stored)})"


def _goal(target: str) -> str:
    """Return the target's name, but not a long list of wanted means."""
    return "wanted means of genes" if target.count("=") > 3 else _short(target)


def _short(text: str, most: int = 30) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _legend(panel: Axes) -> None:
    from matplotlib.lines import Line2D

    def dot(colour: str, face: str, label: str) -> Line2D:
        return Line2D([], [], color=colour, markerfacecolor=face, marker="o", ls="", label=label)

    handles = [
        dot(ORANGE, ORANGE, "chosen"),
        dot(BLUE, BLUE, "cells seen"),
        dot(BLUE, "white", "no cells yet"),
        Line2D([], [], color=GREY, label="90 % interval"),
        Line2D([], [], color=BLACK, marker="|", ls="", label="measured"),
        Line2D([], [], color=GREY, linestyle="--", linewidth=1, label="doing nothing"),
    ]
    figure = root_figure(panel)
    if len(figure.axes) == 1:
        panel.legend(handles=handles, frameon=False, fontsize=8)
    else:
        figure.legend(
            handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=8
        )


def _draw_criterion(panel: Axes, top: pd.DataFrame, criterion: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    removed = top["uncertainty_removed"].to_numpy(dtype=float)
    colours = [ORANGE, *[BLUE] * (len(top) - 1)]
    if criterion == "probability":
        values = 100 * top["probability_best"].to_numpy(dtype=float)
        label = "probability of being\nthe nearest, %"
    elif np.isnan(removed).all():
        values = top["acquisition"].to_numpy(dtype=float)
        label = f"{criterion}\n(low is good)"
    else:
        values = 100 * removed
        label = f"uncertainty removed,\n% ({criterion}; high is good)"
    panel.scatter(values, np.arange(len(top)), c=colours, s=22)
    panel.tick_params(labelleft=False, left=False)
    panel.xaxis.set_major_locator(MaxNLocator(3))
    if criterion == "probability":
        panel.set_xlim(-6, 106)
        panel.set_xticks([0, 50, 100])
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    panel.set_xlabel(label, fontsize=9)
    panel.set_title("criterion", fontsize=9)


def _draw_trace(panel: Axes, stored: Any) -> None:
    trace = stored["trace"]
    rounds = np.arange(len(trace))
    panel.errorbar(
        rounds,
        trace["predicted_distance"].to_numpy(dtype=float),
        yerr=trace["predicted_distance_sd"].to_numpy(dtype=float),
        fmt="o-",
        color=BLACK,
        markersize=4,
        linewidth=1,
        capsize=2,
    )
    labels = [
        f"{number}: {_short(str(chosen), 20)} ({criterion})"
        for number, chosen, criterion in zip(
            trace["round"], trace["chosen"], trace["criterion"], strict=True
        )
    ]
    panel.set_xticks(rounds, labels, rotation=90, fontsize=8)
    panel.set_xlim(-0.6, len(trace) - 0.4)
    panel.set_xlabel("round: chosen\n(criterion)", fontsize=9)
    panel.set_ylabel(_label(stored), fontsize=9)
    panel.set_title("trace", fontsize=9)
