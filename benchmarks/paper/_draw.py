"""Figures of campaigns, drawn from the csv files alone."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image

from benchmarks.paper._figures import FIGURES, NAMES
from benchmarks.paper._files import read_csv

mpl.use("Agg")
import matplotlib.pyplot as plt

# Okabe and Ito's colours; dashes and markers tell the lines apart in print.
LOOKS: dict[str, tuple[str, Any, str]] = {
    "random": ("#8A8A8A", ":", "x"),
    "greedy": ("#E69F00", "--", "s"),
    "maxv": ("#56B4E9", "-.", "D"),
    "cv": ("#009E73", "--", "^"),
    "civ": ("#0072B2", "-", "o"),
    "civ_ow": ("#D55E00", (0, (3, 3)), "v"),  # CIV shows through: the two are often one
    "ei": ("#CC79A7", "--", "P"),
    "mi": ("#222222", "-.", "*"),
    "ucb": ("#A08000", ":", "h"),
}
STYLE: Any = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
DISTANCE = "relative distance to target"
PRIOR_NAMES = {"fixed": "the paper's prior, M = I", "learned": "learned prior"}
LEARNED = "CIV, learned prior"


def save(figure: Any, folder: Path, key: str) -> None:
    """Save a figure as png of few colours, which keeps it small, and close it."""
    whole = BytesIO()
    figure.savefig(whole, dpi=130, bbox_inches="tight")
    plt.close(figure)
    image = Image.open(whole).convert("RGB").quantize(255)
    image.save(folder / f"{key}.png", optimize=True)


def draw_curves(ax: Any, table: Any, value: str = "mean", spread: str = "sd") -> None:
    """Draw means over rounds, a line per acquisition, shaded by one standard deviation."""
    marks = max(table["round"].max() // 5, 1)
    for acquisition, part in table.groupby("acquisition", sort=False):
        colour, line, marker = LOOKS[str(acquisition)]
        at = part.sort_values("round")
        some = [i for i, t in enumerate(at["round"]) if t % marks == 0]
        ax.plot(
            at["round"], at[value], color=colour, linestyle=line, marker=marker, markevery=some,
            markersize=3.2, linewidth=1.3, label=NAMES[str(acquisition)],
        )  # fmt: skip
        low, high = (at[value] - at[spread]).clip(lower=0), at[value] + at[spread]
        ax.fill_between(at["round"], low, high, color=colour, alpha=0.1, linewidth=0)
    _finish(ax)


def _finish(ax: Any) -> None:
    ax.autoscale(axis="y")  # again, where panels share it
    ax.set_ylim(bottom=0)
    ax.grid(which="major", axis="y", color="0.92", linewidth=0.6)
    ax.set_axisbelow(True)


def legend(figure: Any, ax: Any, columns: int) -> None:
    """Put one legend for all panels above them."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, frameon=False, handlelength=3.2
    )


def draw_boxes(ax: Any, columns: dict[str, Any], colours: list[str]) -> None:
    """Draw a box per column of values and a point per instance."""
    boxes = ax.boxplot(
        list(columns.values()), widths=0.65, showfliers=False, patch_artist=True,
        medianprops={"color": "black", "linewidth": 1},
    )  # fmt: skip
    for place, (box, values) in enumerate(zip(boxes["boxes"], columns.values(), strict=True), 1):
        box.set(facecolor=colours[place - 1], alpha=0.45, linewidth=0.8)
        at = place + np.linspace(-0.2, 0.2, len(values))
        ax.scatter(at, values, s=6, color=colours[place - 1], edgecolor="black", linewidth=0.3)
    ax.set_xticks(range(1, len(columns) + 1), list(columns), rotation=60, ha="right")
    ax.set_xlim(0.4, len(columns) + 0.6)
    _finish(ax)


def _draw_column(axes: Any, key: str, prior: str, part: Any, ends: Any, *, beside: bool) -> None:
    """Draw the three rows of one setting; ``beside`` adds CIV under the learned prior."""
    own = part[part["prior"] == prior]
    draw_curves(axes[0], own)
    if key != "ed5":
        draw_curves(axes[2], own, "shift_mean", "shift_sd")
    names = list(dict.fromkeys(own["acquisition"]))
    at = dict(iter(ends.groupby(["prior", "acquisition"])["distance"]))
    columns = {NAMES[c]: at[prior, c].to_numpy() for c in names}
    colours = [LOOKS[c][0] for c in names]
    if beside:
        other = part[(part["prior"] == "learned") & (part["acquisition"] == "civ")]
        axes[0].plot(other["round"], other["mean"], color="#222222", lw=1.1, label=LEARNED)
        axes[2].plot(other["round"], other["shift_mean"], color="#222222", lw=1.1)
        columns["CIV, learned"] = at["learned", "civ"].to_numpy()
        colours.append("#222222")
    draw_boxes(axes[1], columns, colours)
    axes[0].set_xlabel("step")


def draw_rows(key: str, folder: Path) -> None:
    """Draw the three printed rows: distance by step, at the last step, squared distance of a*.

    A column per setting; where there is one setting, a column per prior.
    """
    table, ends = read_csv(folder, key), read_csv(folder, f"{key}-last")
    settings, last = list(dict.fromkeys(table["setting"])), table["round"].max()
    one = len(settings) == 1
    panels = [(settings[0], prior) for prior in PRIOR_NAMES] if one else [
        (setting, "fixed") for setting in settings
    ]  # fmt: skip
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            3, len(panels), figsize=(2.3 * len(panels) + (2.4 if one else 0.6), 7.4),
            sharey="row" if one else False, layout="constrained", squeeze=False,
        )  # fmt: skip
        for column, (setting, prior) in zip(axes.T, panels, strict=True):
            rows, values = (t[t["setting"] == setting] for t in (table, ends))
            _draw_column(column, key, prior, rows, values, beside=not one)
            if key == "ed5":
                _draw_times(column[2], read_csv(folder, "ed5-runtime"), prior)
            else:
                column[2].set_xlabel("step")
            title = PRIOR_NAMES[prior] if one else setting
            column[0].set_title(title, loc="left", fontsize=9, fontweight="bold")
        axes[0, 0].set_ylabel(DISTANCE)
        axes[1, 0].set_ylabel(f"{DISTANCE}, step {last}")
        third = "seconds per iteration (CPU)" if key == "ed5" else "squared distance of a*"
        axes[2, 0].set_ylabel(third)
        legend(figure, axes[0, 0], 9 if key == "ed5" else 7 if len(panels) > 2 else 6)
        save(figure, folder, key)


def _draw_times(ax: Any, times: Any, prior: str) -> None:
    part = times[times["prior"] == prior]
    names = [NAMES[c] for c in part["acquisition"]]
    ax.bar(names, part["seconds"], color=[LOOKS[c][0] for c in part["acquisition"]])
    ax.set_yscale("log")
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right")
    for place, seconds in enumerate(part["seconds"]):
        ax.text(place, seconds, f"{seconds:.1g}", ha="center", va="bottom", fontsize=6)


def draw_wrong_graphs(key: str, folder: Path) -> None:
    """Draw the distance at the last step over the number of wrong edges, a panel per kind."""
    table = read_csv(folder, key)
    last = table[table["round"] == table["round"].max()]
    wrong = {s.name: s.n_missing + s.n_extra + s.n_reversed for s in FIGURES[key].settings}
    kinds = (("missing", "edges missing"), ("extra", "edges in excess"), ("reversed", "reversed"))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2, 3, figsize=(7.6, 5), sharex=True, sharey=True, layout="constrained"
        )
        for row, (prior, shown) in zip(axes, PRIOR_NAMES.items(), strict=True):
            for ax, (kind, title) in zip(row, kinds, strict=True):
                part = last[(last["prior"] == prior)]
                keep = [s.endswith((kind, "right graph")) for s in part["setting"]]
                part = part[keep].assign(round=part["setting"].map(wrong))
                draw_curves(ax, part)
                ax.set_title(f"{title}; {shown}", loc="left", fontsize=7.5)
                ax.xaxis.get_major_locator().set_params(integer=True)
        figure.supxlabel("misspecified edges (structural Hamming distance to the true graph)")
        figure.supylabel(f"{DISTANCE}, step {table['round'].max()}")
        legend(figure, axes[0, 0], 6)
        save(figure, folder, key)


def draw(key: str, folder: Path) -> None:
    """Draw a figure of campaigns."""
    (draw_wrong_graphs if key == "ed6" else draw_rows)(key, folder)
