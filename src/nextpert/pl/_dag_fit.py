"""How well parents predict their children, compared with random graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import read_result
from nextpert._adata.arguments import checked
from nextpert.pl._figure import (
    BLUE,
    GREY,
    LIGHT,
    documented,
    entry,
    finish,
    legend,
    root_figure,
    row_panels,
)

if TYPE_CHECKING:
    import os

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# More genes are drawn by rank, because 8 inches have no room for more names of 8 points.
_MAX_NAMED_GENES = 45


@checked()
@documented
def dag_fit(
    adata: AnnData,
    *,
    key: str = "dag_fit",
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | None:
    """Draw the correlation of every gene with its prediction from its parents.

    Correlations are in held-out cells, as in Extended Data Fig. 7 of Zhang et al. 2023
    (doi:10.1038/s42256-023-00719-0). The left panel shows the ranked genes, with a point for the
    graph and a grey bar for the middle 90% of the random graphs (the median is white). Points above
    the bar are filled. Up to 45 genes are named; more are drawn by rank. The right panel shows the
    mean over genes for the graph, and a histogram of this mean for the random graphs.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.dag_fit`.
    key
        The ``key_added`` of :func:`nextpert.tl.dag_fit`.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there is no such comparison (run :func:`nextpert.tl.dag_fit` first).

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_genes=10, n_control=500, perturbed=0)
    >>> npt.tl.learn_dag(adata, search_options={"n_runs": 5})
    >>> npt.tl.dag_fit(adata)
    >>> figure = npt.pl.dag_fit(adata, return_fig=True)
    >>> figure.axes[1].get_xlabel()
    'mean r over the genes'
    """
    stored = read_result(adata, key, "tl.dag_fit", what="comparison", part="random_r")
    rows = np.argsort(stored["table"]["r"].to_numpy(float), kind="stable")
    width = float(np.clip(1.6 + 0.18 * len(rows), 3.6, 9.8))
    panels = row_panels(0, (width, 2.6), min_height=4.0)
    handles = _draw_genes(panels[0], stored["table"].iloc[rows], stored["random_r"][:, rows])
    _draw_means(panels[1], stored)
    legend(root_figure(panels[0]), handles, loc="outside upper center", ncols=3)
    return finish(panels, is_new=True, show=show, return_fig=return_fig, save=save)


def _draw_genes(panel: Axes, table: pd.DataFrame, random: NDArray[np.float64]) -> list[Any]:
    """Draw the correlations of genes, and return the entries of the legend."""
    from matplotlib.patches import Patch

    is_named = len(table) <= _MAX_NAMED_GENES
    places = np.arange(len(table))
    low, middle, high = np.quantile(random, [0.05, 0.5, 0.95], axis=0)
    width = 0.7 if is_named else 1.0
    panel.bar(places, high - low, width, low, color=GREY, alpha=0.55, linewidth=0, zorder=1)
    panel.hlines(middle, places - width / 2, places + width / 2, colors="white", lw=1.5, zorder=2)
    r = table["r"].to_numpy(dtype=float)
    face = np.where(r > high, BLUE, "white").tolist()
    size = 22 if is_named else 12
    panel.scatter(places, r, s=size, c=face, edgecolors=BLUE, linewidth=1.0, zorder=3)
    panel.axhline(0, color=LIGHT, linewidth=1, zorder=0)
    if is_named:
        pairs = zip(table["gene"], table["n_parents"], strict=True)
        panel.set_xticks(places, [f"{gene} ({n})" for gene, n in pairs], rotation=90)
        panel.set_xlabel("gene (number of parents)")
    else:
        panel.set_xlabel("rank of the gene")
    panel.set_xlim(-0.7, len(places) - 0.3)
    panel.set_ylabel("Pearson r with the prediction\nfrom the parents")
    panel.set_title(
        f"held-out cells: {int((r > high).sum())} of {len(r)} genes above\n"
        "the middle 90% of random graphs"
    )
    random_graphs = Patch(color=GREY, alpha=0.55, lw=0, label=f"{len(random)} random graphs: 90%")
    handles = [entry("this graph, above the bar", BLUE, "o")]
    handles.append(entry("this graph, not above", BLUE, "o", face="w"))
    return [*handles, random_graphs]


def _draw_means(panel: Axes, stored: Any) -> None:
    random = np.asarray(stored["random_mean_r"], dtype=float)
    mean_r = float(stored["mean_r"])
    panel.hist(random, bins="auto", color=GREY, alpha=0.55, linewidth=0)
    panel.axvline(mean_r, color=BLUE, linewidth=2)
    panel.set(xlabel="mean r over the genes", ylabel="random graphs")
    chance = f"p = {float(stored['p_value']):.2g}"
    # No random graph predicts equally well.
    if (random < mean_r).all():
        chance = f"p < {1 / len(random):.2g}"
    panel.set_title(
        f"{mean_r:.3f} against {random.mean():.3f}\nz = {float(stored['z']):.1f}, {chance}"
    )
