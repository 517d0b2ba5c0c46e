"""Squared distances of perturbations to a target, with confidence intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata.arguments import checked
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREY,
    LIGHT,
    finish,
    font_size,
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

_AROUND = 1.5  # inches above and below the rows


@checked()
def target_distances(
    adata: AnnData,
    *,
    key: str = "target_distances",
    n_top: int = 60,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | Axes | None:
    """Draw the squared distance of every perturbation's mean to the target, nearest on top.

    As in Fig. 6b of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0), with confidence
    intervals. Points are unbiased estimates; the small ticks are the distances of the sample
    means, which noise makes too large. The dashed line and the band are the control cells and
    their interval. Points are filled where the difference to the control cells is told from 0 by
    its own interval, which is narrower than the two drawn, as these share the noise of the
    target's mean.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.target_distances`.
    key
        Its ``key_added``.
    n_top
        Most perturbations to draw; the control cells' line is drawn in any case.
    ax
        Axes to draw on.
    show
        Whether to show the figure; by default as scanpy is set up.
    return_fig
        Whether to return the figure.
    save
        File to save the figure to.

    Returns
    -------
    ~matplotlib.figure.Figure or ~matplotlib.axes.Axes or None
        The figure, with ``return_fig``; ``None`` once shown; else the axes.

    Raises
    ------
    ValueError
        If there are no distances (run :func:`nextpert.tl.target_distances` first).

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(perturbed=["MYC", "FOS"], n_control=500)
    >>> npt.tl.target_distances(adata, "MYC")
    >>> figure = npt.pl.target_distances(adata, return_fig=True)
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['control (500 cells)', 'FOS (100 cells)']
    """
    stored = read_to_draw(
        adata, key, "tl.target_distances", what="distances", part="n_target_cells"
    )
    table = stored["table"].sort_values("distance", kind="stable")
    top = table.head(n_top)
    control = str(stored["params"]["control"])
    figure, panel = _axes(ax, len(top))
    _draw_control(panel, table[table["perturbation"] == control])
    _draw_distances(panel, top, control)
    percent = f"{100 * float(stored['params']['confidence']):g} %"
    panel.set_xlabel(
        f"distance to the target's mean\n({unit_of_distance(stored)}; {percent} intervals)",
        fontsize=9,
    )
    n_genes = len(stored["genes"])
    panel.set_title(
        f"distance to {_goal(stored)}\nover {n_genes} gene{'s' * (n_genes > 1)}"
        + (f"; nearest {len(top)} of {len(table)}" if len(top) < len(table) else ""),
        fontsize=9,
    )
    return finish(figure, panel, show=show, return_fig=return_fig, save=save, own=ax is None)


def _axes(ax: Axes | None, n: int) -> tuple[Figure, Axes]:
    import matplotlib.pyplot as plt

    if ax is not None:
        return root_figure(ax), ax
    height = _AROUND + n * row_height(n, 0.21, _AROUND)
    return plt.subplots(figsize=(5.6, max(2.6, height)), layout="constrained")


def _goal(stored: dict[str, object]) -> str:
    name, n = str(stored["target"]), int(str(stored["n_target_cells"]))
    if not n:
        return "wanted means of genes" if len(name) > 40 else name
    return f"{name} ({n} cell{'s' * (n > 1)})"


def _draw_control(panel: Axes, row: pd.DataFrame) -> None:
    if len(row):
        low, high = float(row["low"].iloc[0]), float(row["high"].iloc[0])
        panel.axvspan(low, high, color=LIGHT, alpha=0.7, linewidth=0, zorder=0)
        centre = float(row["distance"].iloc[0])
        panel.axvline(centre, color=GREY, linestyle="--", linewidth=1, zorder=1)


def _draw_distances(panel: Axes, top: pd.DataFrame, control: str) -> None:
    from matplotlib.lines import Line2D

    names = [str(name) for name in top["perturbation"]]
    places = np.arange(len(top))
    values = {
        column: top[column].to_numpy(dtype=float) for column in top if column != top.columns[0]
    }
    colours = [BLACK if name == control else BLUE for name in names]
    panel.hlines(places, values["low"], values["high"], colors=colours, linewidth=1.3, zorder=2)
    apart = (values["difference_low"] > 0) | (values["difference_high"] < 0)
    filled = apart | np.isnan(values["difference"])
    face = [c if full else "white" for c, full in zip(colours, filled, strict=True)]
    panel.scatter(values["distance"], places, c=face, edgecolors=colours, s=24, zorder=3)
    panel.scatter(
        values["plug_in_distance"], places, marker="|", c=GREY, s=40, linewidth=1.2, zorder=2
    )
    labels = [
        f"{name} ({n} cell{'s' * (n > 1)})"
        for name, n in zip(names, top["n_cells"].astype(int), strict=True)
    ]
    panel.set_yticks(places, labels, fontsize=font_size(row_height(len(top), 0.21, _AROUND)))
    panel.set_ylim(len(top) - 0.4, -0.6)
    panel.set_xlim(left=min(0.0, *(1.05 * values["distance"])))
    panel.spines[["top", "right"]].set_visible(False)
    handles = [
        Line2D([], [], color=BLUE, marker="o", markersize=5, label="unbiased, with interval"),
        Line2D(
            [],
            [],
            color=BLUE,
            marker="o",
            markerfacecolor="white",
            markersize=5,
            label=f"not told from {control}",
        ),
        Line2D([], [], color=GREY, marker="|", ls="", markersize=7, label="of the sample means"),
        Line2D([], [], color=GREY, linestyle="--", linewidth=1, label=control),
    ]
    panel.legend(
        handles=handles, frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0)
    )
