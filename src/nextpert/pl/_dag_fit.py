"""How well parents predict their children, beside random graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import list_names
from nextpert._adata.arguments import checked
from nextpert.pl._figure import BLUE, GREY, LIGHT, finish, read_to_draw, root_figure

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


@checked()
def dag_fit(
    adata: AnnData,
    *,
    key: str = "dag_fit",
    genes: Sequence[str] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | Axes | None:
    """Draw the correlation of every gene with its prediction from its parents.

    As in Extended Data Fig. 7 of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0), in held-out
    cells. On the left one column a gene, ranked: a point for the graph, and grey bars for the
    random graphs (the middle 90 %, the median white). Filled points lie above 95 % of them. On
    the right the mean over the genes, of the random graphs as a histogram.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.dag_fit`.
    key
        Its ``key_added``.
    genes
        Genes to draw, out of those with parents; by default all. The mean is over all genes.
    ax
        Axes to draw the genes on; the histogram is left out then.
    show
        Whether to show the figure; by default as scanpy is set up.
    return_fig
        Whether to return the figure.
    save
        File to save the figure to.

    Returns
    -------
    ~matplotlib.figure.Figure, ~matplotlib.axes.Axes, list of them, or None
        The figure, with ``return_fig``; ``None`` once shown; else the axes.

    Raises
    ------
    ValueError
        If there is no such comparison (run :func:`nextpert.tl.dag_fit` first), or a gene of
        ``genes`` has no parents in it.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_genes=10, n_control=500, perturbed=0)
    >>> npt.tl.learn_dag(adata, n_runs=5)
    >>> npt.tl.dag_fit(adata)
    >>> figure = npt.pl.dag_fit(adata, return_fig=True)
    >>> figure.axes[1].get_xlabel()
    'mean r over the genes'
    """
    stored = read_to_draw(adata, key, "tl.dag_fit", what="comparison", part="random_r")
    rows = _rows(stored["table"], genes, key)
    if ax is not None:
        _draw_genes(ax, stored["table"].iloc[rows], stored["random_r"][:, rows])
        figure = root_figure(ax)
        return finish(figure, ax, show=show, return_fig=return_fig, save=save, own=False)
    figure, axes = _figure(len(rows))
    _draw_genes(axes[0], stored["table"].iloc[rows], stored["random_r"][:, rows])
    _draw_means(axes[1], stored)
    return finish(figure, axes, show=show, return_fig=return_fig, save=save, own=True)


def _rows(table: pd.DataFrame, genes: Sequence[str] | None, key: str) -> NDArray[np.int64]:
    """Return the rows to draw, lowest r first."""
    names = [str(gene) for gene in table["gene"]]
    r = table["r"].to_numpy(dtype=float)
    if genes is None:
        return np.argsort(r, kind="stable")
    wanted = list(dict.fromkeys([genes] if isinstance(genes, str) else map(str, genes)))
    absent = [gene for gene in wanted if gene not in names]
    if absent or not wanted:
        message = (
            f"Genes without parents in uns[{key!r}]: {list_names(absent) or 'none given'}. "
            f"It holds {list_names(names) or 'none with any'}."
        )
        raise ValueError(message)
    rows = np.array([names.index(gene) for gene in wanted], dtype=np.int64)
    return rows[np.argsort(r[rows], kind="stable")]


def _figure(n_genes: int) -> tuple[Figure, list[Axes]]:
    import matplotlib.pyplot as plt

    width = min(max(1.6 + 0.17 * n_genes, 3.6), 22.0)
    figure, axes = plt.subplots(
        1,
        2,
        figsize=(width + 2.6, 4.0),
        width_ratios=[width, 2.4],
        layout="constrained",
    )
    return figure, list(axes)


def _draw_genes(panel: Axes, table: pd.DataFrame, random: NDArray[np.float64]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    places = np.arange(len(table))
    low, middle, high = np.quantile(random, [0.05, 0.5, 0.95], axis=0)
    panel.bar(places, high - low, 0.7, low, color=GREY, alpha=0.55, linewidth=0, zorder=1)
    panel.hlines(middle, places - 0.35, places + 0.35, colors="white", linewidth=1.5, zorder=2)
    r = table["r"].to_numpy(dtype=float)
    face = np.where(r > high, BLUE, "white")
    panel.scatter(places, r, s=22, c=face.tolist(), edgecolors=BLUE, linewidth=1.1, zorder=3)
    panel.axhline(0, color=LIGHT, linewidth=1, zorder=0)
    names = [f"{gene} ({n})" for gene, n in zip(table["gene"], table["n_parents"], strict=True)]
    panel.set_xticks(places, names, rotation=90, fontsize=8 if len(names) <= 75 else 5)
    panel.set_xlim(-0.7, len(places) - 0.3)
    panel.set_ylabel("Pearson r with the prediction\nfrom the parents", fontsize=9)
    panel.set_xlabel("gene (number of parents)", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_title(
        f"held-out cells: above 95 % of random graphs for {int((r > high).sum())} "
        f"of {len(r)} genes",
        fontsize=9,
    )
    handles = [
        Line2D([], [], marker="o", ls="", color=BLUE, markersize=5, label="this graph"),
        Patch(color=GREY, alpha=0.55, linewidth=0, label=f"{len(random)} random graphs"),
    ]
    panel.legend(handles=handles, frameon=False, fontsize=8, loc="upper left")


def _draw_means(panel: Axes, stored: Any) -> None:
    random = np.asarray(stored["random_mean_r"], dtype=float)
    own = float(stored["mean_r"])
    panel.hist(random, bins="auto", color=GREY, alpha=0.55, linewidth=0)
    panel.axvline(own, color=BLUE, linewidth=2)
    panel.set_xlabel("mean r over the genes", fontsize=9)
    panel.set_ylabel("random graphs", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)
    panel.set_title(
        f"{own:.3f} against {random.mean():.3f}\nz = {float(stored['z']):.1f}, "
        f"p = {float(stored['p_value']):.2g}",
        fontsize=9,
    )
