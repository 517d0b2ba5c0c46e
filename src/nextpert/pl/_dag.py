"""The learned graph as an edge diagram."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from nextpert._adata import eager, list_names, read_graph, symbols_of
from nextpert._adata.arguments import at_least, checked
from nextpert.core.screen.moments import require_sound
from nextpert.pl._dag_parts import (
    draw_edges,
    draw_modules,
    lies_below,
    read_edges,
    read_modules,
    strongest,
)
from nextpert.pl._docs import documented
from nextpert.pl._figure import (
    BLACK,
    LIGHT,
    SCREEN,
    SMALL,
    TEXT,
    chosen,
    counted,
    finish,
    font_size,
    legend,
    panel_of,
    root_figure,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from nextpert.core import Dag

    Vector = NDArray[np.float64]
    Nodes = NDArray[np.int64]

_LINE = 0.14  # height of a line of text, in inches
_MOST_NAMES = 30  # of genes without edges


@checked(min_weight=at_least(0))
@documented
def dag(
    adata: AnnData,
    *,
    key: str = "dag",
    posterior_key: str | None = "dag_blr",
    genes: Sequence[str] | None = None,
    highlight: Sequence[str] = (),
    modules: str | Mapping[str, str] | pd.Series | None = None,
    min_weight: float = 0.0,
    n_top: int = 100,
    directed: bool = True,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | Axes | None:
    """Draw the graph, causes left of effects, with its strongest edges.

    Genes stand in topological order, so that every edge runs from left to right and needs no
    arrowhead. With a posterior, positive weights are blue and lie above the names, negative ones
    orange and below, and width grows with the absolute weight (posterior mean: change of the child
    per unit of the parent, log-normalised expression). Without, all edges lie above; they are grey,
    or coloured by what orients the edge. Shaded bands mark topological layers (the longest path
    that leads to a gene). Genes without edges are named below, but for those of ``highlight``,
    which come last.

    Where :func:`nextpert.tl.learn_dag` learned the graph, an unoriented edge is dashed: left to
    right is one choice of two. With bootstrap graphs (``n_graphs``) an edge is the darker, and
    without a posterior the wider, the more of them have it; in either direction, if it is
    unoriented.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.learn_dag`.
    key
        The ``key_added`` of :func:`nextpert.tl.learn_dag`.
    posterior_key
        The ``key_added`` of :func:`nextpert.tl.fit_dag_blr`; ignored if it was not run, or if
        ``None``.
    genes
        Genes to draw, with the edges between them; by default the panel.
    highlight
        Genes to set in bold, such as the chosen targets.
    modules
        Modules to colour the genes by: a column of ``adata.var``, or a mapping gene -> module.
        Genes without a module (missing, or not in the mapping) stay white.
    min_weight
        Leave out edges of smaller absolute weight.
    n_top
        Maximum number of edges, the strongest: by absolute weight; without a posterior by their
        share of the bootstrap graphs, or else those of the genes with most edges.
    directed
        Whether to draw edges as causes and effects; ``False`` calls them associations, for a graph
        whose directions are not trusted (:func:`nextpert.tl.diagnose`).
    ax
        Axes to draw on.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there is no graph (run :func:`nextpert.tl.learn_dag` first), a gene is not in it,
        or ``modules`` names no column or none of the genes drawn.
    TypeError
        If ``modules`` is neither a column's name nor a mapping.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=100, perturbed=0)
    >>> npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STAT1"), ("STAT1", "B2M")])
    >>> figure = npt.pl.dag(adata, return_fig=True)
    >>> figure.axes[0].get_title()
    '3 genes, 2 edges'
    """
    names, columns, graph = read_graph(adata, key)
    drawn = chosen(genes, names, "Genes not in the graph", f"The graph {key!r}")
    if len(highlight):
        chosen(highlight, names, "Genes not in the graph", f"The graph {key!r}")
    adjacency = sp.csr_array(graph.to_matrix())[drawn][:, drawn]
    shown = [names[i] for i in drawn]
    member: dict[str, str] = {}
    if modules is not None:
        member = read_modules(adata, modules, shown, symbols_of(adata.uns.get(key)))
    weights, stored = _weights(adata, posterior_key, columns[drawn]), adata.uns.get(key)
    table = eager(stored["edges"]) if hasattr(stored, "keys") and "edges" in stored else None
    every = read_edges(adjacency, shown, weights, table, directed=directed)
    if weights is not None:
        every = every[every["weight"].abs() >= min_weight]
    edges = strongest(every, n_top)
    is_cut = len(edges) < len(every)
    bold, linked = set(map(str, highlight)), {*edges["parent"], *edges["child"]}
    order, layer = _order(type(graph).from_matrix(adjacency), [gene in linked for gene in shown])
    marked = linked | bold or set(shown)
    here = [i for i in order if shown[i] in marked]
    text = "an edge joins two genes that are associated; which acts on which is not known"
    if directed:
        text = "genes in topological order: causes left, effects right"
    if apart := [gene for gene in shown if gene not in marked]:
        text += f"\n{counted(len(apart), 'gene')} without {'any of these ' if is_cut else ''}edges"
        text += "" if is_cut else f": {list_names(apart, _MOST_NAMES)}"
    names = [shown[i] for i in here]
    panel, band = _draw_names(ax, names, bold, text, edges)
    if directed:
        _shade_layers(panel, layer[here])
    handles = draw_edges(panel, edges, names, band, directed=directed)
    legend(panel, [*handles, *draw_modules(panel, member, names, band)])
    n_edges = counted(len(every), "edge" if directed else "association")
    title = f"{len(shown)} genes, {f'strongest {len(edges)} of ' if is_cut else ''}{n_edges}"
    if edges["is_open"].any():
        title += f", {edges['is_open'].sum()} unoriented"
    # From the left: it may be wider than the genes.
    panel.set_title(title, fontsize=TEXT, x=0.0, ha="left")
    return finish(panel, own=ax is None, show=show, return_fig=return_fig, save=save)


def _weights(adata: AnnData, posterior_key: str | None, columns: Nodes) -> Vector | None:
    """Return posterior mean weights (row = parent), or ``None`` where there are none."""
    name = f"{posterior_key}_mean"
    if posterior_key is None or name not in adata.varp:
        return None
    require_sound(adata.varp[name], f"adata.varp[{name!r}]")
    matrix = sp.csr_array(eager(adata.varp[name]))
    return np.asarray(matrix[columns][:, columns].todense(), dtype=np.float64)


def _order(graph: Dag, linked: list[bool]) -> tuple[list[int], Nodes]:
    """Return the genes from left to right, and the layer of each (-1: without edges, and last).

    Within a layer genes stand in the order of their parents' mean place, which keeps edges short.
    """
    layer = np.zeros(graph.n_nodes, dtype=np.int64)
    for node in graph.order:
        layer[node] = layer[graph.parents(int(node))].max(initial=-1) + 1
    n_children = np.bincount(graph.indices, minlength=graph.n_nodes)
    place = np.zeros(graph.n_nodes)
    order: list[int] = []
    for level in range(int(layer.max(initial=0)) + 1):
        members = np.flatnonzero(layer == level).tolist()
        pull = {i: place[graph.parents(i)].mean() if level else -n_children[i] for i in members}
        for node in sorted(members, key=pull.__getitem__):
            place[node] = len(order)
            order.append(node)
    return sorted(order, key=lambda i: not linked[i]), np.where(linked, layer, -1)


def _draw_names(
    ax: Axes | None, names: list[str], bold: set[str], text: str, edges: pd.DataFrame
) -> tuple[Axes, float]:
    """Draw the names of genes side by side, and a text below; return half the height of the names.

    The panel, which is returned first, has room for the ``edges`` above and below.
    """
    column = float(np.clip(19.0 / len(names), 0.1, 0.21))  # width of a gene, in inches
    size = font_size(column)
    width = max(2.0 + column * len(names), 4.0)
    panel = panel_of(ax, (width, min(max(0.5 * width, 3.4), SCREEN)))
    figure = root_figure(panel)
    letters = 72 * max(panel.get_window_extent().width / figure.dpi, 3.6) / (0.56 * SMALL)
    text = "\n".join(
        textwrap.fill(line, int(letters), break_on_hyphens=False) for line in text.splitlines()
    )
    below = _LINE * text.count("\n")
    if ax is None:
        figure.set_figheight(min(figure.get_figheight() + below, SCREEN))
    place = {name: x for x, name in enumerate(names)}
    span = (edges["child"].map(place) - edges["parent"].map(place)).to_numpy(float)
    is_below = lies_below(edges)
    up, down = (1.03 * span[side].max(initial=1.0) ** 0.75 for side in (~is_below, is_below))
    down *= bool(is_below.any())
    names_high = 0.66 * size / 72 * (max(map(len, names)) + 1.5)  # they stand upright
    high = panel.get_window_extent().height / figure.dpi - below
    fraction = min(names_high / high, 0.6)
    band = (up + down) * fraction / (1 - fraction) / 2  # in units of the y axis
    for x, name in enumerate(names):
        panel.text(
            x, 0, name, rotation=90, ha="center", va="center", color=BLACK, zorder=3,
            fontsize=size, fontweight="bold" if name in bold else "normal",
        )  # fmt: skip
    panel.set(xlim=(-0.9, len(names) - 0.1), ylim=(-band - down, band + up), xticks=[], yticks=[])
    panel.set_xlabel(text, fontsize=SMALL, loc="left")
    panel.spines[:].set_visible(False)
    return panel, band


def _shade_layers(panel: Axes, layer: Nodes) -> None:
    """Shade every other topological layer."""
    bounds = np.flatnonzero(np.diff(layer, prepend=-2, append=-2))
    for start, stop in list(itertools.pairwise(bounds))[::2]:
        if layer[start] >= 0:
            panel.axvspan(start - 0.5, stop - 0.5, color=LIGHT, alpha=0.6, linewidth=0, zorder=0)
