"""The learned graph as an edge diagram, or of many edges as a matrix."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.sparse as sp

from nextpert._adata import eager, read_graph, symbols_of
from nextpert._adata.arguments import at_least, checked
from nextpert.core.screen.moments import require_sound
from nextpert.pl._dag_parts import (
    draw_direct_targets,
    draw_edges,
    draw_modules,
    known_edges,
    module_styles,
    read_direct_targets,
    read_modules,
)
from nextpert.pl._docs import documented
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    LIGHT,
    ORANGE,
    SCREEN,
    SMALL,
    TEXT,
    chosen,
    draw_map,
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
    from nextpert.pl._dag_parts import DirectTargets, Edges

    Vector = NDArray[np.float64]
    Nodes = NDArray[np.int64]

MOST_EDGES = 100  # more cannot be followed by eye
_LINES = 0.7  # height of the lines between perturbations and genes, in inches
_LINE = 0.14  # height of a line of text, in inches
_MOST_LINES = 6  # of text, for the names of genes without edges
_LOWEST = 0.07  # row of a matrix that has room for a name, in inches


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
    direct_targets: bool | Sequence[str] = False,
    directed: bool = True,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | Axes | None:
    """Draw the graph, causes left of effects: its strongest edges as edges, or many as a matrix.

    Genes stand in topological order, so that every edge runs from left to right and needs no
    arrowhead. With a posterior, positive weights are blue and lie above the names, negative ones
    orange and below, and width grows with the absolute weight (posterior mean: change of the child
    per unit of the parent, log-normalised expression). Without, all edges lie above; they are grey,
    or coloured by what orients the edge. Shaded bands mark topological layers (the longest path
    that leads to a gene). Genes without edges are named below, but for those of ``highlight`` and
    with a line of ``direct_targets``, which come last.

    Where :func:`nextpert.tl.learn_dag` learned the graph, an unoriented edge is dashed: left to
    right is one choice of two. With bootstrap graphs (``n_graphs``) an edge is the darker, and
    without a posterior the wider, the more of them have it; in either direction, if it is
    unoriented.

    More than 100 edges (``n_top``) are drawn as a matrix, causes in rows and effects in columns,
    both in topological order: colour is the weight, or else the share of bootstrap graphs; a dot
    marks unoriented edges.

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
    direct_targets
        Whether to draw perturbations, and all else that the experiment set, as squares below the
        genes with lines to what each acts on directly (``uns["dag"]["direct_targets"]``), the
        darker the more bootstrap graphs have them; or the perturbations to draw. Lines to genes
        other than those that the label names (off-targets, perhaps) stand out. All edges between
        genes lie above then.
    directed
        Whether to draw edges as causes and effects; ``False`` calls them associations, for a graph
        whose directions are not trusted (:func:`nextpert.tl.diagnose`).
    %(end)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there is no graph (run :func:`nextpert.tl.learn_dag` first), a gene is not in it,
        ``modules`` names no column, none of the genes drawn, or more than 32 modules, or there
        are no direct targets, none of a perturbation, or more than 100 edges to draw beside them.
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
    targets = read_direct_targets(
        _table(adata, key, "direct_targets"), direct_targets, names, shown, key
    )
    parent, child = adjacency.nonzero()
    weights, weight = _weights(adata, posterior_key, columns[drawn]), None
    if weights is not None:
        keep = np.abs(weights[parent, child]) >= min_weight
        parent, child = parent[keep], child[keep]
        weight = weights[parent, child]
    every = known_edges(_table(adata, key, "edges"), shown, parent, child, weight)
    edges = every.strongest(n_top)
    is_cut = len(edges.parent) < len(every.parent)
    bold = set(map(str, highlight))
    order, layer = _order(type(graph).from_matrix(adjacency))
    linked = {*edges.parent.tolist(), *edges.child.tolist()}
    wanted = bold | (set() if targets is None else set(targets.gene))
    order, apart = _apart(order, linked, shown, wanted)
    place = np.full(len(shown), -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    what = _Drawing(
        [shown[i] for i in order], layer[order], edges, place, member, bold, targets, directed
    )
    is_matrix, is_cut = len(edges.parent) > MOST_EDGES, len(edges.parent) < len(every.parent)
    if is_matrix and targets is not None:
        message = f"direct_targets are drawn beside {MOST_EDGES} edges at most: lower n_top."
        raise ValueError(message)
    said = f"{len(apart)} genes have none of these edges" if is_cut or is_matrix else ""
    panel = _draw_matrix(ax, what, said) if is_matrix else _draw_edges(ax, what, apart, said)
    strongest = f"strongest {len(edges.parent)} of " if is_cut else ""
    title = f"{len(shown)} genes, {strongest}{len(every.parent)} "
    title += "edges" if directed else "associations"
    if directed and edges.is_open.any():
        title += f", {int(edges.is_open.sum())} unoriented"
    # From the left: it may be wider than the genes.
    panel.set_title(title, fontsize=TEXT, x=0.0, ha="left")
    return finish(panel, own=ax is None, show=show, return_fig=return_fig, save=save)


class _Drawing(NamedTuple):
    """What is drawn: genes from left to right with their layers, edges, and all that marks genes.

    ``place`` is that of each gene of the graph among ``names``, -1 where it is not drawn.
    """

    names: list[str]
    layer: Nodes
    edges: Edges
    place: Nodes
    member: Mapping[str, str]
    bold: set[str]
    targets: DirectTargets | None
    directed: bool


def _draw_edges(ax: Axes | None, what: _Drawing, apart: list[str], said: str) -> Axes:
    """Draw edges as edges; ``apart`` are the genes without any, ``said`` stands for their names."""
    names, edges, place, targets = what.names, what.edges, what.place, what.targets
    squares = [] if targets is None else targets.names
    n_columns, inches_below = max(len(names), len(squares)), _inches_below(squares)
    width = max(2.0 + _column(n_columns) * n_columns, 4.0)
    panel = panel_of(ax, (width, min(max(0.5 * width, 3.4) + inches_below, SCREEN)))
    text = "genes in topological order: causes left, effects right"
    if not what.directed:
        text = "an edge joins two genes that are associated; which acts on which is not known"
    text = "\n".join([text, *([said] if said else _names_below(panel, apart))])
    if ax is None:
        figure = root_figure(panel)
        figure.set_figheight(min(figure.get_figheight() + _LINE * text.count("\n"), SCREEN))
    bounds = np.flatnonzero(np.diff(what.layer, prepend=-2, append=-2))
    for shade, (start, stop) in enumerate(itertools.pairwise(bounds)):
        if what.directed and shade % 2 == 0 and what.layer[start] >= 0:
            panel.axvspan(start - 0.5, stop - 0.5, color=LIGHT, alpha=0.6, linewidth=0, zorder=0)
    for x, name in enumerate(names):
        panel.text(
            x, 0, name, rotation=90, ha="center", va="center", color=BLACK, zorder=3,
            fontsize=_font_size(len(names)), fontweight="bold" if name in what.bold else "normal",
        )  # fmt: skip
    below = None if targets is not None or edges.weight is None else edges.weight < 0
    sides = np.zeros(len(edges.parent), np.bool_) if below is None else below
    tall = 1.03 * np.abs(place[edges.child] - place[edges.parent]) ** 0.75
    up, down = (float(tall[side].max(initial=1.0)) for side in (~sides, sides))
    down *= bool(sides.any())
    band, room = _heights(panel, up + down, text, inches_below)
    handles = draw_edges(panel, edges, place, below, band, directed=what.directed)
    panel.set(xlim=(-0.9, len(names) - 0.1), ylim=(-band - room - down, band + up))
    panel.set(xticks=[], yticks=[])
    panel.set_xlabel(text, fontsize=SMALL, loc="left")
    panel.spines[:].set_visible(False)
    if targets is not None:
        row = -band - room * _LINES / max(inches_below, _LINES)
        size = _font_size(len(squares))
        handles += draw_direct_targets(panel, targets, names, (-band, row), size)
    legend(panel, [*handles, *draw_modules(panel, names, what.member, band)])
    return panel


def _draw_matrix(ax: Axes | None, what: _Drawing, said: str) -> Axes:
    """Draw edges as a matrix, row = cause; ``said`` stands below."""
    from matplotlib.patches import Patch

    edges, n = what.edges, len(what.names)
    if edges.weight is not None:
        values, label = edges.weight, "weight"
    elif edges.share is not None:
        values, label = edges.share, "share of the graphs"
    else:
        values, label = np.ones(len(edges.parent)), "edge"
    side = float(min((SCREEN - 1.9) / n, 0.19))
    panel = panel_of(ax, (max(3.0 + side * n, 4.0), max(1.9 + side * n, 3.4)))
    rows, columns = what.place[edges.parent], what.place[edges.child]
    matrix = np.zeros((n, n))
    matrix[rows, columns] = values
    limit = max(float(np.quantile(np.abs(values), 0.98)), 1e-12)
    names = what.names if side > _LOWEST else []
    # Colours as those of edges: what raises is blue.
    draw_map(panel, matrix, (names, names), (side, side), limit, label, (ORANGE, BLUE))
    size = (0.25 * 72 * side) ** 2
    panel.scatter(
        columns[edges.is_open] + 0.5, rows[edges.is_open] + 0.5, s=size, c=BLACK, zorder=3
    )
    styles = module_styles(what.member)
    for tick in [*panel.get_xticklabels(), *panel.get_yticklabels()]:
        if tick.get_text() in what.bold:
            tick.set_fontweight("bold")
        if tick.get_text() in what.member:
            tick.set_bbox({"pad": 0.6, **styles[what.member[tick.get_text()]]})
    patches = [Patch(label=name, **style) for name, style in styles.items()]
    legend(panel, patches, loc="upper left", bbox_to_anchor=(1.3, 1.0))
    axes = ("effects", "causes") if what.directed else ("associated genes", "genes")
    panel.set_xlabel(f"{axes[0]}, in topological order" + f"\n{said}" * bool(said))
    panel.set_ylabel(f"{axes[1]}, in topological order")
    return panel


def _apart(
    order: Nodes, linked: set[int], names: list[str], wanted: set[str]
) -> tuple[Nodes, list[str]]:
    """Return the genes to draw, and the names of those without edges, which are only listed.

    Without any edge all are drawn.
    """
    drawn = [i for i in order.tolist() if i in linked or names[i] in wanted]
    if not drawn:
        return order, []
    apart = sorted(set(range(len(names))) - set(drawn))
    return np.array(drawn, dtype=np.int64), [names[i] for i in apart]


def _names_below(panel: Axes, apart: list[str]) -> list[str]:
    """Return lines with the names of genes without edges, as many as fit below the panel."""
    if not apart:
        return []
    figure = root_figure(panel)
    inches = max(panel.get_window_extent().width / figure.dpi, 3.6)
    letters = int(72 * inches / (0.56 * SMALL))
    told, names = f"{len(apart)} gene{'s' * (len(apart) > 1)} without edges: ", list(apart)
    lines = textwrap.wrap(told + ", ".join(names), letters, break_on_hyphens=False)
    while len(lines) > _MOST_LINES:
        names.pop()
        rest = f" and {len(apart) - len(names)} more"
        lines = textwrap.wrap(told + ", ".join(names) + rest, letters, break_on_hyphens=False)
    return lines


def _table(adata: AnnData, key: str, name: str) -> pd.DataFrame | None:
    """Return a table that is stored with the graph, or ``None`` where there is none."""
    stored = adata.uns.get(key)
    return eager(stored[name]) if hasattr(stored, "keys") and name in stored else None


def _weights(adata: AnnData, posterior_key: str | None, columns: Nodes) -> Vector | None:
    """Return posterior mean weights (row = parent), or ``None`` where there are none."""
    if posterior_key is None or f"{posterior_key}_mean" not in adata.varp:
        return None
    name = f"{posterior_key}_mean"
    require_sound(adata.varp[name], f"adata.varp[{name!r}]")
    matrix = sp.csr_array(eager(adata.varp[name]))
    return np.asarray(matrix[columns][:, columns].todense(), dtype=np.float64)


def _order(graph: Dag) -> tuple[Nodes, Nodes]:
    """Return the genes from left to right, and the layer of each (-1: without edges).

    Within a layer genes stand in the order of their parents' mean place, which keeps edges short.
    """
    layer = np.zeros(graph.n_nodes, dtype=np.int64)
    for node in graph.order:
        parents = graph.parents(int(node))
        layer[node] = layer[parents].max() + 1 if len(parents) else 0
    busy = graph.in_degree > 0
    busy[graph.indices] = True
    place = np.zeros(graph.n_nodes)
    order: list[int] = []
    for level in range(int(layer.max(initial=0)) + 1):
        members = [int(i) for i in np.flatnonzero((layer == level) & busy)]
        pull = {i: place[graph.parents(i)].mean() if level else -_degree(graph, i) for i in members}
        for node in sorted(members, key=pull.__getitem__):
            place[node] = len(order)
            order.append(node)
    layer[~busy] = -1
    return np.array(order + np.flatnonzero(~busy).tolist(), dtype=np.int64), layer


def _degree(graph: Dag, node: int) -> int:
    return int((graph.indices == node).sum())


def _column(n_genes: int) -> float:
    """Return the width of a gene, in inches: more than 90 stand closer."""
    return float(np.clip(19.0 / max(n_genes, 1), 0.1, 0.21))


def _font_size(n_genes: int) -> float:
    return font_size(_column(n_genes))


def _inches(names: Sequence[str], size: float) -> float:
    """Return the height of upright names."""
    return 0.66 * size / 72 * (max(map(len, names), default=0) + 1.5)


def _inches_below(squares: Sequence[str]) -> float:
    """Return the height of lines to squares and of the names of these, below the genes."""
    return _LINES + _inches(squares, _font_size(len(squares))) if squares else 0.0


def _heights(panel: Axes, edges: float, text: str, inches_below: float) -> tuple[float, float]:
    """Return half the height of the band of names, and that below it, in units of the y axis."""
    texts = [text.get_text() for text in panel.texts]
    names = _inches(texts, _font_size(len(texts)))
    figure = root_figure(panel)
    height = panel.get_window_extent().height / figure.dpi
    height -= _LINE * text.count("\n")
    share = min((names + inches_below) / height, 0.6)
    unit = edges * share / (1 - share) / (names + inches_below)  # of one inch
    return names * unit / 2, inches_below * unit
