"""Effects of one perturbation, a row a gene, with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata.effects import CLEAR_SIGN
from nextpert.pl._figure import BLACK, BLUE, GREY, ORANGE, font_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


def with_cells(stored: dict[str, Any], row: int) -> str:
    """Return a perturbation's name with its cells, for labels."""
    n = int(stored["n_cells"][row])
    cells = f"{n} cell{'s' * (n > 1)}" if n else "no cells"
    return f"{stored['perturbations'][row]} ({cells})"


def draw_intervals(
    panel: Axes, stored: dict[str, Any], row: int, columns: NDArray[Any], height: float
) -> None:
    """Draw the effects of one perturbation on some genes, the largest on top.

    ``height`` is that of a row, in inches.
    """
    columns = columns[np.argsort(-stored["mean"][row, columns], kind="stable")]
    values = {
        name: stored[name][row, columns]
        for name in ("mean", "lower", "upper", "lfsr", "direct", "cells_mean")
    }
    places = np.arange(len(columns))
    panel.axvline(0.0, color=GREY, linestyle="--", linewidth=1, zorder=1)
    panel.hlines(places, values["lower"], values["upper"], colors=BLUE, linewidth=1.3, zorder=3)
    face = np.where(values["lfsr"] < CLEAR_SIGN, BLUE, "white")
    panel.scatter(values["mean"], places, c=face, edgecolors=BLUE, s=22, zorder=4)
    panel.scatter(
        values["direct"], places, marker="D", c="none", edgecolors=ORANGE, s=18, linewidths=1,
        zorder=5,
    )  # fmt: skip
    measured = np.isfinite(values["cells_mean"])
    panel.scatter(
        values["cells_mean"][measured], places[measured], marker="|", c=GREY, s=50, linewidth=1.2,
        zorder=2,
    )  # fmt: skip
    panel.set_yticks(
        places, [str(stored["genes"][i]) for i in columns], fontsize=font_size(height, 7)
    )
    panel.tick_params(axis="x", labelsize=8)
    panel.set_ylim(len(columns) - 0.4, -0.6)
    panel.spines[["top", "right"]].set_visible(False)
    level = f"{100 * float(stored['params']['level']):g} %"
    control = str(stored["params"]["control"])
    panel.set_xlabel(
        f"effect: mean less that of {control}\n(log-normalised expression, {level} intervals)",
        fontsize=9,
    )
    n_genes = len(stored["genes"])
    panel.set_title(
        f"effect of {with_cells(stored, row)}\non "
        + (f"{len(columns)} of {n_genes} genes" if len(columns) < n_genes else f"{n_genes} genes"),
        fontsize=9,
    )
    _legend(panel, any_cells=bool(measured.any()))


def _legend(panel: Axes, *, any_cells: bool) -> None:
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 5}
    handles = [
        Line2D([], [], **dot, label=f"effect, sign clear (lfsr < {CLEAR_SIGN:g})"),
        Line2D([], [], **dot, markerfacecolor="white", label="sign not clear"),
        Line2D([], [], color=ORANGE, marker="D", ls="", markersize=4, markerfacecolor="none",
               label="direct part"),
    ]  # fmt: skip
    if any_cells:
        handles.append(
            Line2D(
                [],
                [],
                color=GREY,
                marker="|",
                ls="",
                markersize=7,
                label="difference of the cells' means",
            )
        )
    panel.legend(
        handles=handles, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0),
        labelcolor=BLACK,
    )  # fmt: skip
