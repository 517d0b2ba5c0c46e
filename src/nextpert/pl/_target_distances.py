"""Squared distances of perturbations to a target, with confidence intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata import read_result
from nextpert._adata.arguments import checked
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREY,
    LIGHT,
    counted,
    documented,
    draw_intervals,
    draw_marks,
    entry,
    finish,
    first_of,
    from_zero,
    goal,
    legend,
    name_rows,
    panel_of,
    row_height,
    unit_of_distance,
)

if TYPE_CHECKING:
    import os

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@checked()
@documented
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

    The figure follows Fig. 6b of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0), with
    confidence intervals. Points are unbiased estimates; small ticks are the distances of the sample
    means, which are biased upwards. The dashed line and the band are the control cells and their
    interval. A point is filled if the interval of its difference to the control cells excludes 0.
    That interval is narrower than the two that are drawn suggest, because both distances share the
    noise of the target's mean.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.target_distances`.
    key
        The ``key_added`` of :func:`nextpert.tl.target_distances`.
    n_top
        Maximum number of perturbations; the line of the control is always drawn.
    ax
        Axes to draw on.
    %(show)s

    Returns
    -------
    %(returns)s

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
    ['FOS (100 cells)', 'control (500 cells)']
    """
    stored = read_result(adata, key, "tl.target_distances", what="distances", part="n_target_cells")
    table = stored["table"].sort_values("distance", kind="stable")
    top = table.head(n_top)
    control = str(stored["params"]["control"])
    panel = panel_of(ax, (5.6, max(2.6, 1.6 + len(top) * row_height(len(top)))))
    for row in table[table["perturbation"] == control].itertuples():
        panel.axvspan(row.low, row.high, color=LIGHT, alpha=0.7, linewidth=0, zorder=0)
        panel.axvline(row.distance, color=GREY, linestyle="--", linewidth=1, zorder=1)
    colours = np.where(top["perturbation"] == control, BLACK, BLUE)
    differs = (top["difference_low"] > 0) | (top["difference_high"] < 0)
    filled = differs | top["difference"].isna()
    draw_intervals(panel, (top["distance"], top["low"], top["high"]), filled, colours)
    draw_marks(panel, top["plug_in_distance"], GREY)
    cells = zip(top["perturbation"], top["n_cells"].astype(int), strict=True)
    name_rows(panel, [f"{name} ({counted(n, 'cell')})" for name, n in cells])
    from_zero(panel, top["low"])
    level = f"{100 * float(stored['params']['confidence']):g}%"
    panel.set_xlabel(
        f"distance to the target's mean\n({unit_of_distance(stored)}; {level} intervals)"
    )
    n = int(str(stored["n_target_cells"]))
    title = f"distance to {goal(stored['target'])}"
    title += f" ({counted(n, 'cell')})" if n else ""
    title += f"\nover {counted(len(stored['genes']), 'gene')}"
    if len(top) < len(table):
        title += f"; nearest {first_of(len(top), len(table), 'perturbations')}"
    panel.set_title(title)
    handles = [
        entry("unbiased distance, interval", BLUE, "o", line="-"),
        entry(f"not distinguished from {control}", BLUE, "o", line="-", face="white"),
        entry("distance of sample means", GREY, "|", markersize=7),
        entry(control, GREY, line="--", linewidth=1),
    ]
    legend(panel, handles)
    return finish(panel, is_new=ax is None, show=show, return_fig=return_fig, save=save)
