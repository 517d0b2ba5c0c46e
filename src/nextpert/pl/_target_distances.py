"""Squared distances of perturbations to a target, with confidence intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata import read_result
from nextpert._adata.arguments import checked
from nextpert.pl._docs import documented
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREY,
    LIGHT,
    entry,
    finish,
    first_of,
    font_size,
    goal,
    legend,
    panel_of,
    row_height,
    unit_of_distance,
)

if TYPE_CHECKING:
    import os

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AROUND = 1.5  # inches above and below the rows


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

    As in Fig. 6b of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0), with confidence
    intervals. Points are unbiased estimates; the small ticks are the distances of the sample
    means, which are biased upwards. The dashed line and the band are the control cells and
    their interval. Points are filled where the interval of the difference to the control cells
    excludes 0; it is narrower than the two drawn, as these share the noise of the target's mean.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.target_distances`.
    key
        Its ``key_added``.
    n_top
        Maximum number of perturbations; the line of the control is always included.
    %(end)s

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
    ['control (500 cells)', 'FOS (100 cells)']
    """
    stored = read_result(adata, key, "tl.target_distances", what="distances", part="n_target_cells")
    table = stored["table"].sort_values("distance", kind="stable")
    top = table.head(n_top)
    control = str(stored["params"]["control"])
    names = [str(name) for name in top["perturbation"]]
    places = np.arange(len(top))
    row = row_height(len(top), 0.21, _AROUND)
    panel = panel_of(ax, (5.6, max(2.6, _AROUND + len(top) * row)))
    for low, high, centre in table.loc[
        table["perturbation"] == control, ["low", "high", "distance"]
    ].to_numpy(dtype=float):
        panel.axvspan(low, high, color=LIGHT, alpha=0.7, linewidth=0, zorder=0)
        panel.axvline(centre, color=GREY, linestyle="--", linewidth=1, zorder=1)
    values = {name: top[name].to_numpy(dtype=float) for name in top if name != "perturbation"}
    colours = [BLACK if name == control else BLUE for name in names]
    panel.hlines(places, values["low"], values["high"], colors=colours, linewidth=1.3, zorder=2)
    differs = (values["difference_low"] > 0) | (values["difference_high"] < 0)
    filled = differs | np.isnan(values["difference"])
    face = [c if full else "white" for c, full in zip(colours, filled, strict=True)]
    panel.scatter(values["distance"], places, c=face, edgecolors=colours, s=24, zorder=3)
    panel.scatter(
        values["plug_in_distance"], places, marker="|", c=GREY, s=40, linewidth=1.2, zorder=2
    )
    labels = [
        f"{name} ({n} cell{'s' * (n > 1)})"
        for name, n in zip(names, top["n_cells"].astype(int), strict=True)
    ]
    panel.set_yticks(places, labels, fontsize=font_size(row))
    panel.set_ylim(len(top) - 0.4, -0.6)
    least, most = min(0.0, np.nanmin(values["low"])), panel.get_xlim()[1]
    panel.set_xlim(left=least - 0.03 * (most - least))  # so that nothing at 0 is cut
    percent = f"{100 * float(stored['params']['confidence']):g}%"
    panel.set_xlabel(
        f"distance to the target's mean\n({unit_of_distance(stored)}; {percent} intervals)"
    )
    n, n_genes = int(str(stored["n_target_cells"])), len(stored["genes"])
    cells = f" ({n} cell{'s' * (n > 1)})" if n else ""
    title = f"distance to {goal(stored['target'])}{cells}\nover {n_genes} gene{'s' * (n_genes > 1)}"
    if len(top) < len(table):
        title += f"; nearest {first_of(len(top), len(table), 'perturbations')}"
    panel.set_title(title)
    handles = [
        entry("unbiased, with interval", BLUE, "o", line="-"),
        entry(f"not distinguished from {control}", BLUE, "o", line="-", face="white"),
        entry("of the sample means", GREY, "|", markersize=7),
        entry(control, GREY, line="--", linewidth=1),
    ]
    legend(panel, handles)
    return finish(panel, own=ax is None, show=show, return_fig=return_fig, save=save)
