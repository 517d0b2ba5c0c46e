"""Draws the figures of ``results.md`` from the tables in ``benchmarks/results``.

``python docs/draw_results.py`` writes ``docs/_static/results/<name>.svg``. Bars are 90% intervals
unless the axis says otherwise.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from _figures import BLUE, GREEN, GREY, ORANGE, PINK, draw, folder_asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TABLES = Path(__file__).parents[1] / "benchmarks" / "results"
# A method has the same colour, marker and line in all figures.
OURS = {"color": BLUE, "marker": "o", "linestyle": "-"}
OURS_TOO = {"color": BLUE, "marker": "D", "linestyle": "--", "markerfacecolor": "white"}
MEANS = {"color": GREY, "marker": "s", "linestyle": ":"}
OTHER = {"color": ORANGE, "marker": "^", "linestyle": "--"}
ANOTHER = {"color": GREEN, "marker": "v", "linestyle": "-."}
NAMES = {"papalexi": "Papalexi", "tapseq": "TAP-seq", "norman": "Norman", "hill": "Hill"}
Z90 = 1.645


def table(file: str, *after: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return head and rows of the first table of a page after some lines, each by its start."""
    lines = (TABLES / f"{file}.md").read_text(encoding="utf-8").splitlines()
    place = 0
    for start in after:
        place = next(i for i in range(place, len(lines)) if lines[i].startswith(start))
    place = next(i for i in range(place, len(lines)) if lines[i].startswith("|"))
    found = []
    while place < len(lines) and lines[place].startswith("|"):
        found.append([cell.strip() for cell in lines[place].strip().strip("|").split("|")])
        place += 1
    return found[0][1:], {row[0]: row[1:] for row in found[2:]}


def numbers(cells: Sequence[str]) -> np.ndarray:
    """Return the first number of every cell."""
    return np.array([float(re.findall(r"[+-]?\d+\.?\d*", cell)[0]) for cell in cells])


def with_errors(cells: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return values and half widths of 90% intervals of cells such as ``0.63 ± 0.02``."""
    parts = [re.findall(r"[+-]?\d+\.?\d*", cell)[:2] for cell in cells]
    return np.array([float(a) for a, _ in parts]), Z90 * np.array([float(b) for _, b in parts])


def points(ax: Axes, x, y, style: dict[str, str], *, label: str, xerr=None, yerr=None) -> None:
    """Draw points with error bars, all in the same size."""
    ax.errorbar(
        x, y, xerr=xerr, yerr=yerr, label=label, markersize=4.5, linewidth=1.3, elinewidth=1.1,
        capsize=1.5, **style,
    )  # fmt: skip


def names(ax: Axes, labels: Sequence[str]) -> None:
    """Name the rows of an axis, the first one on top."""
    ax.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.5, -0.5))
    ax.tick_params(axis="y", length=0)


def level(ax: Axes, value: float, text: str = "", *, upright: bool = False) -> None:
    """Draw a baseline, with its name above it."""
    line = ax.axvline if upright else ax.axhline
    line(value, color=GREY, linewidth=1, zorder=0, label=text or None)


def legend(figure: Figure, ax: Axes, columns: int) -> None:
    """Name the methods of all panels once, on top."""
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=columns)


def effects() -> Figure:
    """Draw the error of effects from few cells, and paired ratios to other estimators."""
    figure, axes = plt.subplots(2, 3, figsize=(4.8, 4.6), sharex=True, sharey="row")
    low_rank = {"color": PINK, "marker": "x", "linestyle": "-"}
    ways = {
        "difference of means": ("means of the cells", MEANS),
        "singular values": ("singular values and James-Stein", low_rank),
        "mash": ("mash, short form", ANOTHER),
        "ash": ("ash as published", OTHER),
        "nextpert": ("nextpert", OURS),
    }
    ratios = {f"to {name}": ways[name] for name in ("singular values", "mash", "ash")}
    for (above, below), screen in zip(axes.T, ("papalexi", "tapseq", "norman"), strict=True):
        head, rows = table("few_cells", f"## {screen}:")
        cells = numbers([name.removeprefix("n = ") for name in head])
        level(above, 1, "no effect")
        for label, (row, style) in ways.items():
            values = numbers(rows[row]) / numbers(rows["no effect"])
            points(above, cells, values, style, label=label)
        above.set(xscale="log", yscale="log", title=NAMES[screen])
        _, rows = table("few_cells", f"## {screen}:", "Error of nextpert over")
        level(below, 1)
        for label, (row, style) in ratios.items():
            values, errors = with_errors(rows[row])
            points(below, cells, values, style, label=label, yerr=errors)
        below.set(xticks=cells, xlabel="cells")
        below.set_xticklabels([f"{n:.0f}" for n in cells])
        below.minorticks_off()
    axes[0, 0].set(ylabel="error / no effect", yticks=[0.03, 0.1, 0.3, 1, 3])
    axes[0, 0].set_yticklabels(["0.03", "0.1", "0.3", "1", "3"])
    axes[1, 0].set(ylabel="ratio of nextpert's error", ylim=(0, 1.2))
    axes[1, 0].legend(loc="lower left", fontsize=8, handlelength=1.2)
    legend(figure, axes[0, 0], 3)
    return figure


def coverage() -> Figure:
    """Draw the coverage of 90% intervals, by kind of effect."""
    figure, axes = plt.subplots(1, 3, figsize=(4.8, 2.4), sharex=True, sharey=True)
    for ax, screen in zip(axes, ("papalexi", "tapseq", "norman"), strict=True):
        _, rows = table("few_cells", f"## {screen}:", "Coverage")
        level(ax, 0.9, "nominal, 90%", upright=True)
        for y, cells in enumerate(rows.values()):
            values = numbers(cells)
            middle = float(np.median(values))
            bars = np.array([[middle - values.min()], [values.max() - middle]])
            style = OURS | {"linestyle": ""}
            points(ax, middle, y, style, label="nextpert" if y == 0 else "", xerr=bars)
        names(ax, list(rows))
        ax.set(title=NAMES[screen], xlim=(0.45, 1.03))
    axes[1].set_xlabel("coverage with 10, 25 and 50 cells: median and range")
    legend(figure, axes[0], 2)
    return figure


def ranking() -> Figure:
    """Draw how often a perturbation ranks first towards the state it produces."""
    figure, axes = plt.subplots(1, 3, figsize=(4.8, 3.0), sharey=True)
    ways = {
        "difference of means": ("means", MEANS),
        "nextpert, state_distance": ("centre", OURS),
        "nextpert, probability_best": ("nearest", OURS_TOO),
    }
    text = (TABLES / "own_state.md").read_text(encoding="utf-8")
    for ax, screen in zip(axes, ("papalexi", "tapseq", "norman"), strict=True):
        (candidates,) = re.findall(rf"## {screen}: \d+ of (\d+) perturbations", text)
        level(ax, 1 / int(candidates), "random")
        head, rows = table("own_state", f"## {screen}:", "One by one")
        sizes = list(dict.fromkeys(name.split(", ")[1] for name in head))
        for place, (label, (way, style)) in enumerate(ways.items()):
            columns = [head.index(f"{way}, {size}") for size in sizes]
            hits = np.array([numbers(row)[columns] for row in rows.values()])
            errors = Z90 * hits.std(axis=0, ddof=1) / np.sqrt(len(hits))
            bars = [errors, np.minimum(errors, 1 - hits.mean(axis=0))]
            x = np.arange(len(sizes)) + 0.1 * (place - 1)
            points(ax, x, hits.mean(axis=0), style, label=label, yerr=bars)
        ax.set(title=NAMES[screen], ylim=(0, 1.04), xlim=(-0.35, len(sizes) - 0.65))
        ax.set_xticks(range(len(sizes)), [size.removeprefix("n = ") for size in sizes])
        ax.set_xlabel("cells")
    axes[0].set_ylabel("share ranking first")
    legend(figure, axes[0], 2)
    return figure


def combinations() -> Figure:
    """Draw the rounds until the best combination is found."""
    figure, axes = plt.subplots(2, 2, figsize=(4.8, 4.2), sharey=True, sharex=True)
    methods = {
        "random": ("random", MEANS),
        "nearest sum": ("nearest sum", MEANS),
        "Thompson on sums": ("Thompson on sums", MEANS),
        "BoTorch": ("BoTorch", OTHER),
        "nextpert": ("ours, likely best", OURS),
    }
    settings = [
        f"{s} singles, {w}"
        for s in ("All", "Half of the")
        for w in ("target a candidate", "held out")
    ]
    for ax, setting in zip(axes.flat, settings, strict=True):
        _, rows = table("combinations", f"## {setting}")
        for y, (name, style) in enumerate(methods.values()):
            value, error = with_errors([" ± ".join(rows[name][:2])])
            points(ax, value, y, style, label=name, xerr=error)
        names(ax, list(methods))
        ax.set_title(setting.replace(" target", "\ntarget").replace(" held", "\ntarget held"))
        ax.set_xlim(0, 8)
    for ax in axes[1]:
        ax.set_xlabel("rounds of 8 until found")
    return figure


def plates() -> Figure:
    """Draw the rounds until the recommended candidate is good, means over targets."""
    figure, axes = plt.subplots(1, 3, figsize=(4.8, 2.1), sharey=True)
    ways = {
        "rounds by the model": ("exploit", OURS),
        "random choice, same model": ("random", OURS_TOO),
        "means, in turn": ("round_robin_means", MEANS),
        "means, Thompson": ("thompson_means", MEANS),
    }
    for ax, screen in zip(axes, ("papalexi", "tapseq", "norman"), strict=True):
        _, rows = table("replays", f"## {screen}:")
        for y, (label, (way, style)) in enumerate(ways.items()):
            points(ax, numbers(rows[way][-1:]), y, style, label=label)
        level(ax, numbers(rows["exploit"][-1:])[0], upright=True)
        names(ax, list(ways))
        ax.set(title=NAMES[screen], xlabel="rounds of 4", xlim=(3, 9), xticks=[4, 6, 8])
    return figure


def unseen() -> Figure:
    """Draw the error and correlation of predicted effects of unseen perturbations."""
    figure, axes = plt.subplots(3, 2, figsize=(4.8, 4.6), sharex="col", sharey=True)
    ways = {
        "mean perturbation": ("mean of the other perturbations", MEANS),
        "coexpression": ("coexpression, all other cells", MEANS),
        "learned graph": ("graph", MEANS),
        "nextpert": ("stack, own change expected", OURS),
        "nextpert, change given": ("stack", OURS_TOO),
    }
    for pair, screen in zip(axes, ("papalexi", "tapseq", "hill"), strict=True):
        _, rows = table("unseen_perturbations", f"## {screen}:", "Those with")
        level(pair[0], 1, "no effect", upright=True)
        level(pair[1], 0, upright=True)
        for y, (row, style) in enumerate(ways.values()):
            points(pair[0], numbers(rows[row][2:3]), y, style, label="")
            value, error = with_errors([" ± ".join(rows[row][:2])])
            points(pair[1], value, y, style, label=row, xerr=error)
        names(pair[0], list(ways))
        pair[0].set(title=NAMES[screen], xscale="log")
    axes[0, 0].set(xlim=(0.5, 6), xticks=[0.5, 1, 2, 5], xticklabels=["0.5", "1", "2", "5"])
    axes[-1, 0].minorticks_off()
    axes[-1, 0].set_xlabel("error / no effect")
    axes[-1, 1].set_xlabel("mean correlation")
    legend(figure, axes[0, 0], 1)
    return figure


def side_information() -> Figure:
    """Draw what side information and another screen add to predictions."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(4.8, 4.4), height_ratios=[10, 6])
    _, rows = table("side_information", "## Simulated")
    known = {
        f"simulated, {row}": [" ± ".join(rows[row][:2])] for row in ("informative", "permuted")
    }
    _, rows = table("side_information", "## Real")
    for screen, row in rows.items():
        known[f"{NAMES[screen]}, random"] = [" ± ".join(row[1:3])]
        known[f"{NAMES[screen]}, permuted"] = [" ± ".join(row[4:6])]
    level(above, 1, upright=True)
    for y, (label, cell) in enumerate(known.items()):
        value, error = with_errors(cell)
        points(above, value, y, OURS if y == 0 else MEANS, label=label, xerr=error)
    names(above, list(known))
    above.set(title="Tables of features", xlabel="error of unseen perturbations / without features")
    _, rows = table("another_screen", "## Papalexi")
    known = {
        "means of the cells": "cells' means",
        "no prediction": "no expectation",
        "without it": "without another screen",
        "with it": "with it",
        "half of it missing": "with half of it",
        "labels permuted": "with it, permuted",
    }
    level(below, 1, upright=True)
    for label, column, style in (("before its cells", 0, OTHER), ("with 10 cells", 1, OURS)):
        shown = [(y, rows[row][column]) for y, row in enumerate(known.values())]
        shown = [(y, cell) for y, cell in shown if cell != "-"]
        style = style | {"linestyle": ""}
        points(
            below, numbers([cell for _, cell in shown]), [y for y, _ in shown], style, label=label
        )
    names(below, list(known))
    below.set(title="Another screen (Papalexi, replicate 1 for 2 and 3)", xlim=(0, 1.8))
    below.set_xlabel("error / no effect")
    below.legend(loc="lower right", fontsize=7.5)
    return figure


FIGURES = {
    "effects": effects,
    "coverage": coverage,
    "ranking": ranking,
    "plates": plates,
    "combinations": combinations,
    "unseen": unseen,
    "side_information": side_information,
}
STYLE = {
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


if __name__ == "__main__":
    draw(FIGURES, STYLE, folder_asked("results"))
