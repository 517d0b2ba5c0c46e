"""The ranking of a design, and the rounds so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import read_result
from nextpert._adata.arguments import checked
from nextpert.core._shown import percent
from nextpert.pl._docs import documented
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    entry,
    finish,
    first_of,
    font_size,
    goal,
    legend,
    root_figure,
    row_height,
    short,
    square_root,
    unit_of_distance,
)

if TYPE_CHECKING:
    import os

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# Distances that spread wider than this are drawn on a square-root axis.
_WIDE = 30
_AROUND = 1.6  # inches above and below the rows
_LEAST = 0.5  # per cent: what rounds to 0 has no bar


@checked()
@documented
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

    From left to right: the predicted squared distance of every candidate's mean to the target, with
    its 90% interval, best candidate on top (on a square-root axis where distances spread widely);
    the acquisition that ranks them; and, from the second round towards this target on, the distance
    predicted for the one chosen in each, with its 90% interval. The chosen one is orange; open
    circles are candidates without cells; a stroke marks the distance of the measured cells; the
    dashed line is the distance of the control.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.design_interventions`.
    key
        Its ``key_added``.
    n_top
        Maximum number of candidates.
    ax
        Axes to draw the distances on; acquisition and trace are left out then.
    %(show)s

    Returns
    -------
    %(returns)s

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
    stored = read_result(adata, key, "tl.design_interventions", what="design", part="ranking")
    table = stored["ranking"].sort_values("rank")
    is_control = table["is_control"].to_numpy(dtype=bool)
    ranking = table[~is_control]
    top = ranking.head(n_top)
    control = float(table.loc[is_control, "predicted_distance"].iloc[0])
    trace = stored["trace"]
    trace = trace[trace["target"].astype(str) == str(stored["params"]["target"])]
    panels = [ax] if ax is not None else _panels(len(top), len(trace))
    _draw_distances(panels[0], top, len(ranking), control, stored)
    handles = [
        entry("chosen", ORANGE, "o"),
        entry("measured cells", BLUE, "o"),
        entry("no cells yet", BLUE, "o", face="white"),
        entry("90% interval", GREY, line="-"),
        entry("distance of the cells", BLACK, "|"),
        entry("control", GREY, line="--"),
    ]
    if ax is not None:
        legend(ax, handles, loc="best")
        return finish(ax, own=False, show=show, return_fig=return_fig, save=save)
    legend(root_figure(panels[0]), handles, loc="outside upper center", ncols=3)
    _draw_acquisition(panels[1], top, str(stored["params"]["acquisition"]))
    if len(panels) > 2:
        _draw_trace(panels[2], trace, stored)
    return finish(panels, own=True, show=show, return_fig=return_fig, save=save)


def _panels(n_candidates: int, n_rounds: int) -> list[Axes]:
    """Return the panels of distances, of the acquisition and, of several rounds, of the trace."""
    import matplotlib.pyplot as plt

    height = max(3.6, _AROUND + n_candidates * row_height(n_candidates, 0.24, _AROUND))
    widths = [4.0, 2.2]
    if n_rounds > 1:
        height = max(height, 4.6)  # for the names below the trace
        widths.append(min(max(2.0, 0.6 + 0.28 * n_rounds), 8.0))
    figure = plt.figure(figsize=(sum(widths), height), layout="constrained")
    grid = figure.add_gridspec(1, len(widths), width_ratios=widths)
    first = figure.add_subplot(grid[0])
    panels = [first, figure.add_subplot(grid[1], sharey=first)]
    return [*panels, figure.add_subplot(grid[2])] if n_rounds > 1 else panels


def _draw_distances(
    panel: Axes, top: pd.DataFrame, n_all: int, control: float, stored: Any
) -> None:
    """Draw a row per candidate of ``top``; ``control`` is the control's distance."""
    mean, low, high, measured = (
        top[name].to_numpy(dtype=float)
        for name in ("predicted_distance", "predicted_low", "predicted_high", "measured_distance")
    )
    seen = top["n_cells_seen"].to_numpy(dtype=int)
    for place in range(len(top)):
        colour = ORANGE if place == 0 else BLUE
        # The mean itself may lie outside its interval where the draws are skew.
        reach = np.maximum([mean[place] - low[place], high[place] - mean[place]], 0.0)
        panel.errorbar(
            mean[place], place, xerr=reach[:, None], fmt="o", color=colour,
            markersize=7 if place == 0 else 5, elinewidth=1.2, capsize=2,
            markerfacecolor=colour if seen[place] else "white",
        )  # fmt: skip
    panel.axvline(control, color=GREY, linestyle="--", linewidth=1, zorder=0)
    panel.scatter(measured, range(len(top)), marker="|", s=60, color=BLACK, zorder=3)
    values, scale = np.append(mean, control), ""
    if values.min() > 0 and values.max() > _WIDE * values.min():
        square_root(panel)
        scale = "\nsquare-root axis"
    names = [
        f"{name} ({n} cells)" if n else f"{name} (no cells yet)"
        for name, n in zip(top["perturbation"], seen, strict=True)
    ]
    size = font_size(row_height(len(top), 0.24, _AROUND))
    panel.set_yticks(range(len(top)), names, fontsize=size)
    panel.get_yticklabels()[0].set_fontweight("bold")
    panel.set_ylim(len(top) - 0.5, -0.5)
    panel.set_xlabel(f"predicted distance to the target\n({unit_of_distance(stored)}){scale}")
    title = f"towards {goal(stored['params']['target'])}\n"
    title += first_of(len(top), n_all, "candidates")
    if float(top["relative_distance"].iloc[0]) > 1:
        title += "\nthe chosen one is predicted\nfarther than control cells"
    panel.set_title(title)


def _draw_acquisition(panel: Axes, top: pd.DataFrame, acquisition: str) -> None:
    """Draw what ranks the candidates; of shares, bars with their number, if it rounds to any."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    resolved = 100 * top["variance_reduction"].to_numpy(dtype=float)
    places = np.arange(len(top))
    colours = np.array([ORANGE, *[BLUE] * (len(top) - 1)])
    panel.tick_params(labelleft=False, left=False)
    panel.set_title("acquisition")
    if acquisition != "probability" and np.isnan(resolved).all():
        panel.scatter(top["acquisition"].to_numpy(dtype=float), places, c=colours, s=22)
        panel.xaxis.set_major_locator(MaxNLocator(3))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        panel.set_xlabel(f"{acquisition}\n(low is good)")
        return
    if acquisition == "probability":
        values, label = 100 * top["probability_best"].to_numpy(dtype=float), "probability of being"
        panel.set(xlim=(0, 125), xticks=[0, 50, 100], xlabel=f"{label}\nthe nearest, %")
    else:
        values = resolved
        panel.set_xlim(0, 1.25 * max(float(np.nanmax(values)), _LEAST))
        panel.set_xlabel(f"uncertainty resolved,\n% ({acquisition}; high is good)")
    shown = values >= _LEAST
    panel.barh(places[shown], values[shown], color=colours[shown], height=0.6)
    size = font_size(row_height(len(top), 0.24, _AROUND), 7)
    numbers = _distinguished(values[shown])
    if acquisition == "probability":
        numbers = [percent(value / 100) for value in values[shown]]
    for place, value, number in zip(places[shown], values[shown], numbers, strict=True):
        panel.annotate(
            number, (value, place), (2, 0), textcoords="offset points", va="center", fontsize=size
        )
    if not shown.all():
        panel.set_title(f"acquisition\n(no bar: below {_LEAST:g}%)")


def _distinguished(values: NDArray[np.float64]) -> list[str]:
    """Return numbers with as few decimals as distinguish different values, at most three.

    Examples
    --------
    >>> from nextpert.pl._design import _distinguished
    >>> _distinguished(np.array([4.21, 4.04, 4.04])), _distinguished(np.array([63.2, 9.8]))
    (['4.2', '4.0', '4.0'], ['63', '10'])
    """
    for decimals in range(4):
        numbers = [f"{value:.{decimals}f}" for value in values]
        if len(set(numbers)) == len(np.unique(values)):
            break
    return numbers


def _draw_trace(panel: Axes, trace: pd.DataFrame, stored: Any) -> None:
    middle, low, high = (
        trace[name].to_numpy(dtype=float)
        for name in ("predicted_distance", "predicted_low", "predicted_high")
    )
    panel.errorbar(
        range(len(trace)), middle, yerr=[middle - low, high - middle], fmt="o-", color=BLACK,
        markersize=4, linewidth=1, capsize=2,
    )  # fmt: skip
    labels = [
        f"{number}: {short(str(chosen), 20)} ({acquisition})"
        for number, chosen, acquisition in zip(
            trace["round"], trace["chosen"], trace["acquisition"], strict=True
        )
    ]
    panel.set_xticks(range(len(trace)), labels, rotation=90)
    panel.set_xlim(-0.6, len(trace) - 0.4)
    panel.set_xlabel("round: chosen\n(acquisition)")
    panel.set_ylabel(f"predicted distance to the target\n({unit_of_distance(stored)})")
    panel.set_title("trace")
