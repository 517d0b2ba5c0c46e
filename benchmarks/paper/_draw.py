"""Figures of campaigns, drawn from the csv files alone."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
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


def save(figure: Any, folder: Path, key: str) -> None:
    """Save a figure as png of few colours, which keeps it small, and close it."""
    whole = BytesIO()
    figure.savefig(whole, dpi=130)
    plt.close(figure)
    image = Image.open(whole).convert("RGB").quantize(255)
    image.save(folder / f"{key}.png", optimize=True)


def draw_curves(ax: Any, table: Any, *, width: float = 1.4, bands: bool = True) -> None:
    """Draw distance over rounds, a line an acquisition, shaded by the standard error."""
    marks = max(table["round"].max() // 5, 1)
    for acquisition, part in table.groupby("acquisition", sort=False):
        colour, line, marker = LOOKS[str(acquisition)]
        at = part.sort_values("round")
        some = [i for i, t in enumerate(at["round"]) if t % marks == 0]
        ax.plot(
            at["round"], at["mean"], color=colour, linestyle=line, marker=marker, markevery=some,
            markersize=3.2, linewidth=width, label=NAMES[str(acquisition)],
        )  # fmt: skip
        if bands:
            low, high = at["mean"] - at["sem"], at["mean"] + at["sem"]
            ax.fill_between(at["round"], low, high, color=colour, alpha=0.12, linewidth=0)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    ax.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    ax.grid(which="major", color="0.9", linewidth=0.6)
    ax.set_axisbelow(True)


def legend(figure: Any, ax: Any, columns: int) -> None:
    """Put one legend for all panels above them."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=columns, frameon=False, handlelength=3.2
    )


def draw_one(key: str, folder: Path) -> None:
    """Draw a figure with one setting: a panel a prior, and the time a round where measured."""
    table = read_csv(folder, key)
    times = read_csv(folder, f"{key}-runtime") if key == "ed5" else None
    n = 2 if times is None else 3
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, n, figsize=(3.3 * n, 3.4), layout="constrained")
        axes[1].sharey(axes[0])
        for ax, prior, title in zip(axes, ("fixed", "learned"), _PRIORS, strict=False):
            draw_curves(ax, table[table["prior"] == prior])
            ax.set_title(title, loc="left", fontsize=9, fontweight="bold")
            ax.set_xlabel("round")
        axes[0].set_ylabel(DISTANCE)
        if times is not None:
            _draw_times(axes[2], times)
        legend(figure, axes[0], 6 if n == 2 else 9)
        save(figure, folder, key)


_PRIORS = ("the paper's prior, M = I", "prior scale learned")


def _draw_times(ax: Any, times: Any) -> None:
    part = times[times["prior"] == "fixed"].iloc[::-1]
    colours = [LOOKS[c][0] for c in part["acquisition"]]
    ax.barh([NAMES[c] for c in part["acquisition"]], part["ms"], color=colours)
    ax.set_xlabel("CPU time a round (ms)")
    ax.set_title("runtime, M = I", loc="left", fontsize=9, fontweight="bold")
    for place, ms in enumerate(part["ms"]):
        ax.text(ms, place, f" {ms:.2f}", va="center", fontsize=7)
    ax.margins(x=0.15)


def draw_grid(key: str, folder: Path) -> None:
    """Draw a panel a setting: all acquisitions under the fixed prior, CIV under the learned one."""
    table = read_csv(folder, key)
    settings = list(dict.fromkeys(table["setting"]))
    columns = min(5 if len(settings) > 8 else 4, len(settings))
    rows = -(-len(settings) // columns)
    with plt.rc_context({**STYLE, "font.size": 7}):
        size = (2.1 * columns + 0.5, 1.9 * rows + 0.6)
        figure, axes = plt.subplots(
            rows, columns, figsize=size, sharex=True, squeeze=False, layout="constrained"
        )
        for ax, setting in zip(axes.flat, settings, strict=False):
            part = table[table["setting"] == setting]
            draw_curves(ax, part[part["prior"] == "fixed"], width=1.0, bands=False)
            one = part[(part["prior"] == "learned") & (part["acquisition"] == "civ")]
            ax.plot(one["round"], one["mean"], color="#222222", label="CIV, prior scale learned")
            ax.set_title(setting.replace(", not standardised", " (raw)"), loc="left", fontsize=7)
        for ax in axes.flat[len(settings) :]:
            ax.set_axis_off()
        for ax in axes.flat[max(len(settings) - columns, 0) : len(settings)]:
            ax.tick_params(labelbottom=True)
        figure.supxlabel("round", fontsize=8)
        figure.supylabel(DISTANCE, fontsize=8)
        legend(figure, axes.flat[0], 7 if columns > 3 else 4)
        save(figure, folder, key)


def draw_wrong_graphs(key: str, folder: Path) -> None:
    """Draw the distance after the last round over the number of wrong edges, a panel a kind."""
    table = read_csv(folder, key)
    last = table[table["round"] == table["round"].max()]
    wrong = {s.name: s.n_missing + s.n_extra + s.n_reversed for s in FIGURES[key].settings}
    kinds = (("missing", "edges missing"), ("extra", "edges in excess"), ("reversed", "reversed"))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            2, 3, figsize=(7.6, 5), sharex=True, sharey=True, layout="constrained"
        )
        for row, prior, shown in zip(axes, ("fixed", "learned"), _PRIORS, strict=True):
            for ax, (kind, title) in zip(row, kinds, strict=True):
                part = last[(last["prior"] == prior)]
                keep = [s.endswith((kind, "right graph")) for s in part["setting"]]
                part = part[keep].assign(round=part["setting"].map(wrong))
                draw_curves(ax, part)
                ax.set_title(f"{title}; {shown}", loc="left", fontsize=7.5)
        figure.supxlabel("structural Hamming distance of the graph given to the true one")
        figure.supylabel(f"{DISTANCE}, last round")
        legend(figure, axes[0, 0], 6)
        save(figure, folder, key)


def draw(key: str, folder: Path) -> None:
    """Draw a figure of campaigns."""
    makers = {"fig5": draw_one, "ed5": draw_one, "ed6": draw_wrong_graphs}
    makers.get(key, draw_grid)(key, folder)
