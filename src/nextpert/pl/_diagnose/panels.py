"""The panels of the diagnosis figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREY,
    LIGHT,
    ORANGE,
    PURPLE,
    SMALL,
    TEXT,
    font_size,
    logarithmic,
    row_height,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

AROUND = 2.9  # inches above and below the rows, the verdict among them
_LEAST = 1e-3  # of the largest error: what is less is drawn there


def rows_to_draw(table: pd.DataFrame, n_top: int) -> pd.DataFrame:
    """Return the perturbations with most cells, the largest effects first."""
    top = table.sort_values("n_cells", ascending=False, kind="stable").head(n_top)
    return top.sort_values("squared_distance", ascending=False, kind="stable")


def draw_errors(panel: Axes, table: pd.DataFrame, n_all: int) -> None:
    """Draw the squared error of effects from half of the cells, one row a perturbation."""
    place = np.arange(len(table))
    columns = ("error_half_nothing", "error_half_cells", "error_half")
    values = {name: table[name].to_numpy(dtype=float) for name in columns}
    every = np.concatenate(list(values.values()))
    largest = np.nanmax(every, initial=0.0)
    if largest > 0:
        values = {name: np.maximum(each, _LEAST * largest) for name, each in values.items()}
        logarithmic(panel, 1 / _LEAST)
    shrunken, cells = values["error_half"], values["error_half_cells"]
    panel.hlines(place, shrunken, cells, color=LIGHT, linewidth=2, zorder=0)
    for name, marker, colour, face, label in (
        ("error_half_nothing", "o", GREY, "white", "no effect"),
        ("error_half_cells", "s", BLUE, BLUE, "cells' means"),
        ("error_half", "D", ORANGE, ORANGE, "shrunken"),
    ):
        panel.scatter(
            values[name], place, marker=marker, s=26, facecolors=face, edgecolors=colour,
            label=label,
        )  # fmt: skip
    size = font_size(row_height(len(table), 0.2, AROUND))
    panel.set_yticks(place, table["perturbation"].tolist(), fontsize=size)
    panel.set_ylim(len(table) - 0.5, -0.5)
    panel.set_xlabel("squared error on the other half\n(log-normalised expression²)")
    shown = f"{len(table)} of {n_all}" if len(table) < n_all else f"all {n_all}"
    panel.set_title(f"effects from half of the cells, {shown}")
    _legend_above(panel)
    _sizes(panel)


def draw_correlations(panel: Axes, table: pd.DataFrame) -> None:
    """Draw the correlation of expected and observed effect on other genes, by expert."""
    place = np.arange(len(table))
    panel.axvline(0, color=GREY, linewidth=1, linestyle="--", zorder=0)
    for name, marker, colour, face, label in (
        ("r_mean_perturbation", "s", BLUE, BLUE, "mean perturbation"),
        ("r_coexpression", "v", PURPLE, PURPLE, "coexpression"),
        ("r_graph", "^", BLACK, "white", "graph"),
        ("r_all", "D", ORANGE, ORANGE, "all experts"),
    ):
        panel.scatter(
            table[name], place, marker=marker, s=26, facecolors=face, edgecolors=colour,
            label=label,
        )  # fmt: skip
    panel.set_xlim(-1.05, 1.05)
    panel.set_xlabel("correlation of expected and observed\neffect on other genes")
    panel.set_title("r, perturbation left out")
    _no_names(panel)
    _legend_above(panel)
    _sizes(panel)


def draw_strength(panel: Axes, table: pd.DataFrame) -> None:
    """Draw the change of every perturbation's own (weakest) gene, with two standard errors."""
    place = np.arange(len(table))
    change = table["own_change"].to_numpy(dtype=float)
    z = table["own_z"].to_numpy(dtype=float)
    error = np.abs(np.divide(change, z, out=np.zeros_like(change), where=np.abs(z) > 0))
    strong = np.abs(z) >= 3
    panel.axvline(0, color=GREY, linewidth=1, linestyle="--", zorder=0)
    for which, face, label in (
        (strong, BLUE, "clear (3 s.e. or more)"),
        (np.isfinite(z) & ~strong, "white", "unclear"),
    ):
        if which.any():
            panel.errorbar(
                change[which], place[which], xerr=2 * error[which], fmt="o", color=BLUE,
                markerfacecolor=face, markersize=5, elinewidth=1.2, capsize=2, label=label,
            )  # fmt: skip
    panel.set_xlabel("change of its own gene's mean\n(log-normalised expression, ± 2 s.e.)")
    panel.set_title("own gene")
    _no_names(panel)
    if np.isfinite(z).any():
        _legend_above(panel)
    else:
        panel.text(0.5, 0.5, "no own gene on the panel", ha="center", transform=panel.transAxes)
    _sizes(panel)


def draw_experts(panel: Axes, experts: pd.DataFrame) -> None:
    """Draw the squared error of every expert on left-out perturbations, and its weight."""
    weights = experts["weight"].to_numpy(dtype=float)
    names = [
        f"{name} ({weight:.2f})" if np.isfinite(weight) else str(name)
        for name, weight in zip(experts["expert"], weights, strict=True)
    ]
    values = experts["error_to_nothing"].to_numpy(dtype=float)
    errors = experts["error_to_nothing_se"].to_numpy(dtype=float)
    _points(panel, names, values, errors, last=ORANGE)
    panel.set_xlabel("squared error over that of no effect (± 2 s.e.)")
    panel.set_title("experts (weight), perturbation left out")
    _sizes(panel)


def shares_to_draw(summary: pd.DataFrame) -> list[tuple[str, float, float]]:
    """Return name, value and standard error of the errors of shrunken effects on parts held out."""
    shares = []
    for part, held in (("shrinkage", "cells"), ("guides", "guide"), ("batches", "batch")):
        for quantity, beside in (("error_to_cells", "cells' means"),
                                 ("error_to_nothing", "no effect")):  # fmt: skip
            found = summary[(summary["part"] == part) & (summary["quantity"] == quantity)]
            for value, error in zip(found["value"], found["standard_error"], strict=True):
                shares.append((f"{held} held out,\nover {beside}", float(value), float(error)))
    return shares


def draw_shares(panel: Axes, shares: list[tuple[str, float, float]]) -> None:
    """Draw the squared error of effects on what was held out, over that without a model."""
    names = [name for name, _, _ in shares]
    values, errors = (np.array([row[i] for row in shares], dtype=float) for i in (1, 2))
    _points(panel, names, values, errors)
    panel.set_xlabel("squared error of shrunken effects (± 2 s.e.)")
    panel.set_title("what shrinkage and replication add")
    _sizes(panel)


def coverage_to_draw(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the coverage of 90% intervals."""
    return summary[summary["quantity"] == "coverage_90"]


def draw_coverage(panel: Axes, rows: pd.DataFrame) -> None:
    """Draw the coverage of 90% intervals of what was held out."""
    words = {"shrinkage": "cells", "unseen perturbations": "perturbations"}
    names = [words.get(part, part) for part in rows["part"]]
    values = 100 * rows["value"].to_numpy(dtype=float)
    errors = 100 * rows["standard_error"].to_numpy(dtype=float)
    _points(panel, names, values, errors, line=90.0)
    panel.set_xlim(min(45.0, np.nanmin(values, initial=90.0) - 5), 102)
    panel.set_xlabel("held-out means inside\n90% intervals, % (± 2 s.e.)")
    panel.set_title("calibration, by what was held out")
    _sizes(panel)


def _points(
    panel: Axes,
    names: list[str],
    values: np.ndarray,
    errors: np.ndarray,
    *,
    line: float = 1.0,
    last: str = BLUE,
) -> None:
    place = np.arange(len(names))
    panel.axvline(line, color=GREY, linewidth=1, linestyle="--", zorder=0)
    colours = [BLUE] * (len(names) - 1) + [last]
    for y, value, error, colour in zip(place, values, errors, colours, strict=True):
        has_error = bool(np.isfinite(error))
        panel.errorbar(
            value, y, xerr=2 * error if has_error else 0.0, fmt="o", color=colour, markersize=5,
            capsize=2, markerfacecolor=colour if has_error else "white",
        )  # fmt: skip
    known = values[np.isfinite(values)]
    if line == 1.0 and len(known):
        # A wild error bar must not hide the others.
        low = min(float(known.min()), 0.0)
        high = max(1.6 * float(known.max()), 1.2)
        panel.set_xlim(low - 0.05 * (high - low), high)
    panel.set_yticks(place, names)
    panel.set_ylim(len(names) - 0.5, -0.5)


def _no_names(panel: Axes) -> None:
    panel.tick_params(labelleft=False, left=False)


def _legend_above(panel: Axes) -> None:
    """Put the legend between panel and title, where it hides no row."""
    panel.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=7,
        borderaxespad=0.2, columnspacing=1.0, handletextpad=0.3,
    )  # fmt: skip
    panel.set_title(panel.get_title(), pad=38)


def _sizes(panel: Axes) -> None:
    panel.title.set_fontsize(TEXT)
    for text in (panel.xaxis.label, panel.yaxis.label):
        text.set_fontsize(SMALL)
    panel.tick_params(axis="x", labelsize=SMALL)
    # Names of rows may be smaller already.
    size = min([label.get_fontsize() for label in panel.get_yticklabels()], default=SMALL)
    panel.tick_params(axis="y", labelsize=min(size, SMALL))
