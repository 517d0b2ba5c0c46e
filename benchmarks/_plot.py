"""Scaling: time over genes, cells and candidates, log axes."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks._growth import Series
    from benchmarks._measure import Measured

    Curves = list[tuple[Series, list[tuple[int, Measured]]]]

# Okabe and Ito's colours: distinguished by the colour-blind, and by marker and line besides.
_COLOURS = {"a": "#0072B2", "b": "#D55E00"}
_MARKERS = {"a": "o", "b": "s"}

# Panels: title, label of the axis, names of the series in it.
PANELS = (
    ("Design", "genes", ("growth-step", "growth-pool")),
    ("Graph search", "genes", ("growth-boss",)),
    ("Moments of 36 genes", "cells", ("growth-memory", "growth-file")),
    ("Pool, 200 genes", "candidates", ("growth-candidates",)),
)


def draw(curves: Curves, path: str) -> None:
    """Draw the panels and save them; the format follows the name of the file."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    known = {series.name: (series, points) for series, points in curves}
    style = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        figure, axes = plt.subplots(2, 2, figsize=(7.2, 5.8), layout="constrained")
        for ax, (title, unit, names) in zip(axes.flat, PANELS, strict=True):
            for key, name in zip("ab", names, strict=False):
                if name in known:
                    _curve(ax, *known[name], key)
            ax.set(xscale="log", yscale="log", xlabel=f"number of {unit}", ylabel="time (s)")
            low, high = ax.get_ylim()
            ax.set_ylim(low, high * 30)  # room for the legend
            if unit == "genes":
                ticks = [25, 100, 400, 1600]
                ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
                ax.minorticks_off()
                ax.set_xlim(20, 2000)
            ax.set_title(title, loc="left", fontsize=9, fontweight="bold")
            ax.grid(which="major", color="0.9", linewidth=0.6)
            ax.set_axisbelow(True)
            if ax.lines:
                ax.legend(frameon=False, fontsize=6.5, loc="upper left", ncols=2, columnspacing=1)
        note = "medians of 3 runs on one thread, bars: least and largest; "
        note += "dense loop over 1,000 candidates: 100 measured and scaled up"
        figure.supxlabel(note, fontsize=7, color="0.3")
        figure.savefig(Path(path), dpi=200)
        plt.close(figure)


def _curve(ax, series: Series, points: list[tuple[int, Measured]], key: str) -> None:
    ours, peer = series.labels
    sides = (
        (f"nextpert: {ours}", [(s, m.ours) for s, m in points], "-", _COLOURS[key]),
        (peer, [(s, m.peer) for s, m in points if m.peer], "--", "white"),
    )
    for label, curve, line, face in sides:
        if not curve:
            continue
        sizes = [size for size, _ in curve]
        middle = [median(seconds) for _, seconds in curve]
        low = [m - min(seconds) for m, (_, seconds) in zip(middle, curve, strict=True)]
        high = [max(seconds) - m for m, (_, seconds) in zip(middle, curve, strict=True)]
        ax.errorbar(
            sizes, middle, yerr=[low, high], label=label, color=_COLOURS[key], linestyle=line,
            marker=_MARKERS[key], markersize=4.5, markerfacecolor=face, linewidth=1.4,
            capsize=2,
        )  # fmt: skip
