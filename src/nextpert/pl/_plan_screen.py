"""The next round: which perturbations and why, their cells, and its expected benefit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import read_result, read_stored
from nextpert._adata.arguments import checked
from nextpert.pl._docs import documented
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    REACH,
    entry,
    finish,
    font_size,
    goal,
    legend,
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

_AROUND = 1.6  # inches above and below the rows
# Colour, marker and words of every strategy.
_STRATEGIES = {
    "exploit": (BLUE, "o", "chosen to find the best"),
    "explore": (ORANGE, "s", "chosen to reduce uncertainty"),
    "acquisition": (PURPLE, "^", "chosen by the acquisition"),
    "include": (GREEN, "D", "included on request"),
    "control": (GREY, "|", "controls"),
}


@checked()
@documented
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
    """Draw the perturbations of the next round, and how the plan compares with other strategies.

    From left to right: the predicted squared distance of every perturbation's mean to the target
    with its 90% interval, coloured by the strategy that chose it; a stroke marks the distance of
    the expected state, by which perturbations are chosen, and the dashed line is the control; the
    cells of every perturbation; what the first perturbations are worth together, that is the
    probability that the nearest of all candidates is among them, and the share of the remaining
    uncertainty that they are expected to resolve; and, where the screen was replayed, how near each
    strategy came round by round, and how many rounds it took to find the best, with 90% intervals
    (see :func:`replay`).

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.plan_screen`.
    key
        Its ``key_added``.
    replay_key
        Results of :func:`nextpert.tl.replay_design` to draw as well, if there are any; ``None`` for
        none.
    ax
        Axes to draw the distances on; all else is left out then.
    %(show)s

    Returns
    -------
    %(returns)s

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
    stored = read_result(adata, key, "tl.plan_screen", what="plan", part="plate")
    table = stored["plate"]
    shown = [
        strategy for strategy in _STRATEGIES if (table["strategy"].astype(str) == strategy).any()
    ]
    handles = [
        entry(_STRATEGIES[strategy][2], _STRATEGIES[strategy][0], _STRATEGIES[strategy][1])
        for strategy in shown
        if strategy != "control"
    ]
    handles += [
        entry("its expected mean", BLACK, "|"),
        entry("control", GREY, line="--"),
    ]
    if ax is not None:
        _draw_distances(ax, table, stored)
        legend(ax, handles, loc="best")
        return finish(ax, own=False, show=show, return_fig=return_fig, save=save)
    replayed = replay_key is not None and replay_key in adata.uns
    panels = _panels(len(table), replayed)
    _draw_distances(panels[0], table, stored)
    _draw_cells(panels[1], table)
    handles += _draw_worth(panels[2], table)
    if replayed:
        replay(adata, key=str(replay_key), ax=panels[3], show=False)
        _tell_plates(panels[3], read_stored(adata, str(replay_key), "tl.replay_design"))
    where = {"loc": "outside upper center", "ncols": len(handles) if replayed else 4}
    legend(root_figure(panels[0]), handles, **where)
    return finish(panels, own=True, show=show, return_fig=return_fig, save=save)


def _panels(n_rows: int, replayed: bool) -> list[Axes]:
    import matplotlib.pyplot as plt

    widths = [3.6, 1.5, 2.2, *([3.4] if replayed else [])]
    height = max(3.4, _AROUND + n_rows * row_height(n_rows, 0.24, _AROUND))
    figure = plt.figure(figsize=(1.2 + sum(widths), height), layout="constrained")
    grid = figure.add_gridspec(1, len(widths), width_ratios=widths)
    first = figure.add_subplot(grid[0])
    panels = [first, *(figure.add_subplot(grid[i], sharey=first) for i in (1, 2))]
    return [*panels, figure.add_subplot(grid[3])] if replayed else panels


def _draw_distances(panel: Axes, table: pd.DataFrame, stored: Any) -> None:
    mean, low, high, state = (
        table[name].to_numpy(dtype=float)
        for name in ("predicted_distance", "predicted_low", "predicted_high", "state_distance")
    )
    seen = table["n_cells_seen"].to_numpy(dtype=int)
    for place, strategy in enumerate(table["strategy"].astype(str)):
        colour, marker, _ = _STRATEGIES[strategy]
        if strategy == "control":
            panel.axvline(mean[place], color=GREY, linestyle="--", linewidth=1, zorder=0)
        panel.plot([low[place], high[place]], [place, place], color=colour, linewidth=1.2)
        panel.plot(
            mean[place], place, marker=marker, color=colour, markersize=6,
            markerfacecolor=colour if seen[place] else "white", linestyle="none",
        )  # fmt: skip
    panel.scatter(state, range(len(table)), marker="|", s=60, color=BLACK, zorder=3)
    wells = [f"{well}  " for well in table["well"]] if "well" in table else [""] * len(table)
    names = [
        f"{well}{name}{'' if n else ' (new)'}"
        for well, name, n in zip(wells, table["perturbation"], seen, strict=True)
    ]
    size = font_size(row_height(len(table), 0.24, _AROUND))
    panel.set_yticks(range(len(table)), names, fontsize=size)
    panel.set_ylim(len(table) - 0.5, -0.5)
    least, most = min(0.0, np.nanmin(low)), panel.get_xlim()[1]
    panel.set_xlim(left=least - 0.03 * (most - least))  # so that nothing at 0 is cut
    unit = unit_of_distance(stored)
    panel.set_xlabel(f"predicted distance, 90% interval\n({unit})")
    panel.set_title(f"next round towards {goal(stored['params']['target'])}")


def _draw_cells(panel: Axes, table: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    cells = table["n_cells"].to_numpy(dtype=int)
    bars = panel.barh(
        range(len(table)), cells, height=0.6,
        color=[_STRATEGIES[strategy][0] for strategy in table["strategy"].astype(str)],
    )  # fmt: skip
    size = font_size(row_height(len(table), 0.24, _AROUND), 7)
    panel.bar_label(bars, padding=2, fontsize=size)
    panel.set_xlim(0, 1.3 * cells.max())
    panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    panel.tick_params(labelleft=False, left=False)
    panel.set(xlabel="cells", title=f"{cells.sum()} cells")


def _draw_worth(panel: Axes, table: pd.DataFrame) -> list[Any]:
    """Draw what the first perturbations are worth together; return the lines, for the legend."""
    chosen = table[table["strategy"] != "control"]
    lines = [
        panel.plot(
            100 * chosen[name].to_numpy(dtype=float), np.arange(len(chosen)), color=colour,
            marker=marker, markersize=3.5, linestyle=dashes, label=label,
        )[0]
        for name, label, colour, marker, dashes in (
            ("probability_contains_best", "nearest candidate included", BLUE, "o", "-"),
            ("variance_reduction", "uncertainty resolved", ORANGE, "s", "--"),
        )
    ]  # fmt: skip
    panel.set(xlim=(-4, 104), xticks=[0, 50, 100])
    panel.tick_params(labelleft=False, left=False)
    panel.set(xlabel="%, this row and those above", title="what the plan covers")
    return lines


def _tell_plates(panel: Axes, replayed: Any) -> None:
    """Write beside every strategy how many rounds it took to the best, with half the interval."""
    panel.set_title("replayed here: rounds to the best (± 90%)")
    table = replayed["overall"]
    reading = bool(replayed["params"]["held_out"][0])  # that which is drawn
    rows = table[table["held_out"] == reading].set_index("strategy")
    for text in panel.texts:
        name = text.get_text()
        if name in rows.index:
            row = rows.loc[name]
            text.set_text(f"{name}: {row['plates']:.1f} ± {REACH * row['plates_sem']:.1f}")
