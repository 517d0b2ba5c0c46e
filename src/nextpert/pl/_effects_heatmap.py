"""Effects of perturbations on genes as a heat map with the trees of both clusterings."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.cluster.hierarchy import dendrogram

from nextpert._adata import in_order, read_result
from nextpert._adata.arguments import checked
from nextpert.core.fit.naming import Naming
from nextpert.core.model.scores import SIGNIFICANCE
from nextpert.pl._effect_map import clustered, draw_effects, order_of, strongest, where
from nextpert.pl._figure import (
    GREY,
    SCREEN,
    chosen,
    documented,
    finish,
    first_of,
    panel_of,
    row_height,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

_TREE = 0.45  # depth of the trees, in inches


@checked()
@documented
def effects_heatmap(
    adata: AnnData,
    *,
    perturbations: Sequence[str] | None = None,
    genes: Sequence[str] | None = None,
    n_perturbations: int = 50,
    n_genes: int = 100,
    key: str = "perturbation_effects",
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | Axes | None:
    """Draw the significant effects as a heat map, perturbations and genes clustered, with trees.

    Rows are perturbations, columns are genes. Both are clustered by average linkage of Euclidean
    distances, as in ``seaborn.clustermap``; the trees are on the right and on top. Colour is
    the posterior mean effect, white at 0, up to the 98% quantile of the sizes drawn. + and − mark
    effects whose direction is significant (local false sign rate below 0.05).
    :func:`perturbation_effects` draws the strongest effects instead, significant or not.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.perturbation_effects`.
    perturbations
        Labels to draw; by default those with a significant effect on a gene that is drawn.
    genes
        Genes to draw; by default those on which a perturbation that is drawn has a significant
        effect.
    n_perturbations
        Maximum number of perturbations if ``perturbations`` is not given; those with the largest
        effects are drawn.
    n_genes
        Maximum number of genes if ``genes`` is not given; those with the largest effects are drawn.
    key
        The ``key_added`` of :func:`nextpert.tl.perturbation_effects`.
    ax
        Axes to draw on.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If the effects were not computed (run :func:`nextpert.tl.perturbation_effects` first), do
        not include one of ``perturbations`` or ``genes``, or none of them is significant and not
        both ``perturbations`` and ``genes`` are given.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(perturbed=["MYC", "FOS"], n_control=500)
    >>> npt.tl.learn_dag(adata)
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.perturbation_effects(adata)
    >>> axes = npt.pl.effects_heatmap(adata, genes=["MYC", "FOS", "STAT1"], show=False)
    >>> axes.get_title().splitlines()[0]
    'effects of 2 perturbations on 3 of 36 genes'
    """
    stored = read_result(adata, key, "tl.perturbation_effects", what="effects", part="lfsr")
    rows, columns = _selected(stored, perturbations, genes, (n_perturbations, n_genes), key)
    effect = stored["mean"][np.ix_(rows, columns)]
    trees = clustered(effect), clustered(effect.T)
    rows, columns = rows[order_of(trees[0])], columns[order_of(trees[1])]
    cell = (row_height(len(columns), 3.1 - SCREEN), row_height(len(rows), 2.4))
    width, height = cell[0] * len(columns), cell[1] * len(rows)
    panel = panel_of(ax, (max(3.1 + width, 4.2), 2.4 + height))
    draw_effects(panel, stored, rows, columns, cell, gap=_TREE)
    _draw_tree(panel.inset_axes((1.01, 0.0, _TREE / width, 1.0)), trees[0], of_rows=True)
    above = panel.inset_axes((0.0, 1.01, 1.0, 0.2))
    # As high in inches as the title's distance, whatever the height of the panel.
    above.set_axes_locator(partial(_above, panel))
    _draw_tree(above, trees[1], of_rows=False)
    title = first_of(len(rows), len(stored["perturbations"]), "perturbations")
    title += f" on {first_of(len(columns), len(stored['genes']), 'genes')}{where(stored)}"
    panel.set_title(
        f"effects of {title}\n(+ or −: significant direction, lfsr < {SIGNIFICANCE:g})",
        y=1.0,
        pad=72 * _TREE + 8,
    )
    return finish(panel, is_new=ax is None, show=show, return_fig=return_fig, save=save)


def _selected(
    stored: dict[str, Any],
    perturbations: Sequence[str] | None,
    genes: Sequence[str] | None,
    numbers: tuple[int, int],
    key: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns to draw: those named, or the strongest significant ones."""
    labels, panel = ([str(name) for name in stored[part]] for part in ("perturbations", "genes"))
    slot = f"adata.uns[{key!r}]"
    naming = Naming(set(panel), str(stored["params"]["separator"]))
    requested = labels if perturbations is None else map(str, in_order(perturbations))
    rows = chosen(naming.spelled(requested, labels), labels, "Perturbations without effects", slot)
    columns = chosen(genes, panel, "Genes without effects", slot)
    is_significant = stored["lfsr"][np.ix_(rows, columns)] < SIGNIFICANCE
    if (perturbations is None or genes is None) and not is_significant.any():
        message = (
            f"No effect in {slot} is significant (lfsr < {SIGNIFICANCE:g}) among those requested: "
            f"name both perturbations and genes to draw them regardless."
        )
        raise ValueError(message)
    if perturbations is None:
        rows = rows[is_significant.any(axis=1)]
        rows = rows[strongest(stored["mean"][np.ix_(rows, columns)], numbers[0], axis=0)]
    if genes is None:
        is_significant = stored["lfsr"][np.ix_(rows, columns)] < SIGNIFICANCE
        columns = columns[is_significant.any(axis=0)]
        columns = columns[strongest(stored["mean"][np.ix_(rows, columns)], numbers[1], axis=1)]
    return rows, columns


def _above(panel: Axes, _part: Axes, _renderer: Any) -> Bbox:
    """Return where the tree of columns is: above the panel, of a depth in inches."""
    from matplotlib.transforms import Bbox

    box, dots = panel.bbox, panel.figure.dpi
    position = Bbox.from_bounds(box.x0, box.y1 + 0.03 * dots, box.width, _TREE * dots)
    return position.transformed(panel.figure.transSubfigure.inverted())


def _draw_tree(part: Axes, tree: np.ndarray | None, *, of_rows: bool) -> None:
    """Draw a tree of the rows or columns of a map, whose fields have a width of 1."""
    from matplotlib.collections import LineCollection

    part.axis("off")
    if tree is None:
        return
    drawn = dendrogram(tree, no_plot=True)
    # Leaves are 10 apart, the first at 5.
    leaves, heights = np.array(drawn["icoord"]) / 10.0, np.array(drawn["dcoord"])
    ends = (heights, leaves) if of_rows else (leaves, heights)
    part.add_collection(LineCollection(list(np.stack(ends, axis=-1)), colors=GREY, linewidths=0.8))
    n, depth = len(tree) + 1, max(1.02 * float(heights.max()), 1e-12)
    part.set(xlim=(0, depth) if of_rows else (0, n), ylim=(n, 0) if of_rows else (0, depth))
