"""The panels of the diagnosis figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.pl._figure import BLACK, BLUE, GREY, LIGHT, ORANGE, PURPLE, logarithmic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_SMALL = 8


def rows_to_draw(table: pd.DataFrame, n_top: int) -> pd.DataFrame:
    """Return the perturbations with most cells, the best predicted (against nothing) first."""
    top = table.sort_values("n_cells", ascending=False, kind="stable").head(n_top)
    ratio = top["error"] / top["error_nothing"]
    return top.loc[ratio.sort_values(kind="stable").index]


def draw_errors(panel: Axes, table: pd.DataFrame, n_all: int) -> None:
    """Draw the squared error of the model and of the baselines, one row a perturbation."""
    place = np.arange(len(table))
    columns = ["error", "error_nothing", "error_mean", "error_empty"]
    columns += ["error_coexpression", "error_noise"]
    values = {name: table[name].to_numpy(dtype=float) for name in columns}
    panel.hlines(
        place, values["error"], values["error_nothing"], color=LIGHT, linewidth=2, zorder=0
    )
    panel.scatter(
        values["error_noise"], place, marker="|", s=30, color=BLACK, label="sampling noise"
    )
    for name, marker, colour, face, label in (
        ("error_nothing", "o", GREY, "white", "nothing changes"),
        ("error_mean", "s", BLUE, BLUE, "mean perturbation"),
        ("error_coexpression", "v", PURPLE, PURPLE, "coexpression, controls"),
        ("error_empty", "^", BLACK, "white", "empty graph"),
        ("error", "D", ORANGE, ORANGE, "model"),
    ):
        panel.scatter(
            values[name], place, marker=marker, s=26, facecolors=face, edgecolors=colour,
            label=label,
        )  # fmt: skip
    every = np.concatenate(list(values.values()))
    if (every > 0).any():
        logarithmic(panel, every.max() / every[every > 0].min())
    panel.set_yticks(place, table["perturbation"].tolist(), fontsize=_SMALL)
    panel.set_ylim(len(table) - 0.5, -0.5)
    panel.set_xlabel("mean squared error of the held-out change\n(log-normalised expression²)")
    shown = f"{len(table)} of {n_all}" if len(table) < n_all else f"all {n_all}"
    panel.set_title(f"held-out prediction, {shown} perturbations")
    _legend_above(panel)
    _sizes(panel)


def draw_correlations(panel: Axes, table: pd.DataFrame) -> None:
    """Draw the correlation of predicted effect and observed change, with and without targets."""
    place = np.arange(len(table))
    panel.axvline(0, color=GREY, linewidth=1, linestyle="--", zorder=0)
    panel.scatter(
        table["r_with_target"], place, s=24, facecolors="white", edgecolors=GREY,
        label="with the target genes",
    )  # fmt: skip
    panel.scatter(table["r"], place, s=26, color=ORANGE, marker="D", label="without them")
    none = np.flatnonzero(table["r"].isna().to_numpy())
    panel.scatter(
        np.zeros(len(none)), none, marker="x", s=22, color=BLACK, linewidths=1,
        label="no effect predicted but on them",
    )  # fmt: skip
    panel.set_xlim(-1.05, 1.05)
    panel.set_xlabel("correlation of predicted effect\nand observed change over genes")
    panel.set_title("r, perturbation held out")
    _no_names(panel)
    _legend_above(panel)
    _sizes(panel)


def draw_strength(panel: Axes, table: pd.DataFrame) -> None:
    """Draw the change of every perturbation's own (weakest) target, with two standard errors."""
    place = np.arange(len(table))
    change = table["own_change"].to_numpy(dtype=float)
    z = table["own_z"].to_numpy(dtype=float)
    error = np.abs(np.divide(change, z, out=np.zeros_like(change), where=np.abs(z) > 0))
    strong = table["is_strong"].to_numpy(dtype=bool)
    panel.axvline(0, color=GREY, linewidth=1, linestyle="--", zorder=0)
    for which, face, label in (
        (strong, BLUE, "strong (3 s.e. or more)"),
        (~strong, "white", "weak"),
    ):
        if which.any():
            panel.errorbar(
                change[which], place[which], xerr=2 * error[which], fmt="o", color=BLUE,
                markerfacecolor=face, markersize=5, elinewidth=1.2, capsize=2, label=label,
            )  # fmt: skip
    panel.set_xlabel("change of its own target's mean\n(log-normalised expression, ± 2 s.e.)")
    panel.set_title("strength of the perturbation")
    _no_names(panel)
    _legend_above(panel)
    _sizes(panel)


def draw_parents(panel: Axes, genes: pd.DataFrame, summary: pd.DataFrame) -> None:
    """Draw every gene's r on its parents beside random graphs, sorted."""
    known = genes[genes["r_parents"].notna()].sort_values("r_parents", kind="stable")
    if len(known):
        place = np.arange(len(known))
        random = known["r_random_mean"].to_numpy(dtype=float)
        spread = known["r_random_sd"].to_numpy(dtype=float)
        panel.errorbar(
            place, random, yerr=2 * spread, fmt="o", color=GREY, markersize=2.5, elinewidth=0.9,
            label="random graphs (± 2 s.d.)",
        )  # fmt: skip
        panel.scatter(
            place, known["r_parents"], s=14, color=ORANGE, marker="D", zorder=3, label="this graph"
        )
        low, high = panel.get_ylim()
        panel.set_ylim(low, high + 0.3 * (high - low))  # room for the legend
        _legend(panel)
    else:
        panel.text(0.5, 0.5, "the graph has no arcs", ha="center", transform=panel.transAxes)
    panel.set_xticks([])
    panel.set_xlabel("1 gene" if len(known) == 1 else f"{len(known)} genes with parents, sorted")
    panel.set_ylabel("r of gene and prediction from parents\n(perturbed cells)")
    rows = summary.set_index("quantity")["value"]
    means = [rows.get(name, np.nan) for name in ("r_parents", "r_parents_random")]
    said = f": mean {means[0]:.2f}, random {means[1]:.2f}" if np.isfinite(means).all() else ""
    panel.set_title(f"graph{said}")
    _sizes(panel)


def draw_calibration(panel: Axes, table: pd.DataFrame) -> None:
    """Draw the coverage of the predicted intervals by level."""
    level = 100 * table["level"].to_numpy(dtype=float)
    covered = 100 * table["coverage"].to_numpy(dtype=float)
    error = 200 * np.nan_to_num(table["standard_error"].to_numpy(dtype=float))
    panel.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1, label="calibrated")
    panel.errorbar(
        level, covered, yerr=error, fmt="o-", color=ORANGE, markersize=4, linewidth=1, capsize=2,
        label="held-out means (± 2 s.e.)",
    )  # fmt: skip
    panel.set_xlim(0, 100)
    panel.set_ylim(0, 100)
    panel.set_xlabel("level of the predicted interval, %")
    panel.set_ylabel("held-out means inside it, %")
    panel.set_title("calibration")
    _legend(panel)
    _sizes(panel)


def draw_residuals(panel: Axes, genes: pd.DataFrame) -> None:
    """Draw skewness of the residuals against the share of zeros, gene by gene."""
    zeros = 100 * genes["share_of_zeros"].to_numpy(dtype=float)
    skewness = genes["residual_skewness"].to_numpy(dtype=float)
    panel.axhline(0, color=GREY, linewidth=1, linestyle="--", zorder=0)
    panel.scatter(zeros, skewness, s=14, color=BLUE, alpha=0.8)
    worst = int(np.argmax(np.abs(skewness)))
    right = zeros[worst] > 50
    panel.annotate(
        str(genes["gene"].iloc[worst]), (zeros[worst], skewness[worst]), fontsize=7,
        xytext=(-4 if right else 4, 0), textcoords="offset points", va="center",
        ha="right" if right else "left",
    )  # fmt: skip
    panel.set_xlim(-3, 103)
    low, high = panel.get_ylim()
    panel.set_ylim(min(low, -1.0), max(high, 1.0))
    panel.set_xlabel("control cells in which the gene is zero, %")
    panel.set_ylabel("skewness of its residuals")
    panel.set_title("residuals (0: as the model assumes)")
    _sizes(panel)


def _no_names(panel: Axes) -> None:
    panel.tick_params(labelleft=False, left=False)


def _legend_above(panel: Axes) -> None:
    """Put the legend between panel and title, where it hides no row."""
    panel.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=7,
        borderaxespad=0.2, columnspacing=1.0, handletextpad=0.3,
    )  # fmt: skip
    panel.set_title(panel.get_title(), pad=38)


def _legend(panel: Axes) -> None:
    panel.legend(loc="upper left", framealpha=0.85, edgecolor=LIGHT, fontsize=7)


def _sizes(panel: Axes) -> None:
    panel.title.set_fontsize(9)
    for text in (panel.xaxis.label, panel.yaxis.label):
        text.set_fontsize(_SMALL)
    panel.tick_params(labelsize=_SMALL)
