"""The learned graph as an arc diagram."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._adata import eager, in_order, list_names, read_graph, symbols_of
from nextpert._adata.arguments import at_least, checked
from nextpert.core.screen.moments import require_sound
from nextpert.pl._dag.arcs import draw_arcs, known_arcs
from nextpert.pl._dag.direct_targets import draw_direct_targets, read_direct_targets
from nextpert.pl._dag.modules import draw_modules, read_modules
from nextpert.pl._figure import BLACK, LIGHT, SCREEN, SMALL, TEXT, finish, font_size, root_figure

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

_LINES = 0.7  # height of the lines between perturbations and genes, in inches
_LINE = 0.14  # height of a line of text, in inches
_MOST_LINES = 6  # of text, for the names of genes without arcs


@checked(min_weight=at_least(0))
def dag(
    adata: AnnData,
    *,
    key: str = "dag",
    posterior_key: str | None = "dag_blr",
    genes: Sequence[str] | None = None,
    highlight: Sequence[str] = (),
    modules: str | Mapping[str, str] | pd.Series | None = None,
    min_weight: float = 0.0,
    direct_targets: bool | Sequence[str] = False,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | Axes | None:
    """Draw the graph as an arc diagram: genes in topological order, causes left of effects.

    Every arc runs from left to right, so it needs no arrowhead. With a posterior, positive
    weights are blue and lie above the names, negative ones orange and below, and width grows with
    the absolute weight (posterior mean: change of the child per unit of the parent,
    log-normalised expression). Without, all arcs lie above; they are grey, or coloured by what
    settles their direction. Shaded bands mark topological layers (the longest path that leads to
    a gene). Genes without arcs are named below, but for those of ``highlight`` and with a line of
    ``direct_targets``, which come last.

    Where :func:`nextpert.tl.learn_dag` learned the graph, an arc whose direction is open is
    dashed: left to right is one choice of two. With graphs of resamples (``n_graphs``) an arc is
    the darker, and without a posterior the wider, the more of them have it; in either direction,
    if it is open.

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
        Genes to draw, with the arcs between them; by default the panel.
    highlight
        Genes to set in bold, such as the chosen targets.
    modules
        Modules to colour the genes by: a column of ``adata.var``, or a mapping gene -> module.
        Genes without a module (missing, or not in the mapping) stay white.
    min_weight
        Leave out arcs of smaller absolute weight.
    direct_targets
        Whether to draw perturbations, and all else that the experiment set, as squares below the
        genes with lines to what each acts on directly (``uns["dag"]["direct_targets"]``), the
        darker the more resamples have them; or the perturbations to draw. Lines to genes other
        than those that the label names (off-targets, perhaps) stand out. All arcs between genes
        lie above then.
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
        If there is no graph (run :func:`nextpert.tl.learn_dag` first), a gene is not in it,
        ``modules`` names no column, none of the genes drawn, or more than 32 modules, or there
        are no direct targets, or none of a perturbation.
    TypeError
        If ``modules`` is neither a column's name nor a mapping.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=100, perturbed=0)
    >>> npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STAT1"), ("STAT1", "B2M")])
    >>> figure = npt.pl.dag(adata, return_fig=True)
    >>> figure.axes[0].get_title()
    '3 genes, 2 arcs'
    """
    names, columns, graph = read_graph(adata, key)
    drawn = _chosen(names, genes, key)
    _chosen(names, highlight, key)
    adjacency = sp.csr_array(graph.to_matrix())[drawn][:, drawn]
    shown = [names[i] for i in drawn]
    member = (
        None
        if modules is None
        else read_modules(adata, modules, shown, symbols_of(adata.uns.get(key)))
    )
    weights = _weights(adata, posterior_key, columns[drawn])
    targets = read_direct_targets(
        _table(adata, key, "direct_targets"), direct_targets, names, shown, key
    )
    parent, child = adjacency.nonzero()
    if weights is not None:
        keep = np.abs(weights[parent, child]) >= min_weight
        parent, child = parent[keep], child[keep]
    order, layer = _order(type(graph).from_matrix(adjacency))
    wanted = {*map(str, highlight), *(() if targets is None else targets.gene)}
    order, apart = _apart(order, {*parent.tolist(), *child.tolist()}, shown, wanted)
    place = np.full(len(shown), -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    weight = None if weights is None else weights[parent, child]
    ends = [(shown[x], shown[y]) for x, y in zip(parent, child, strict=True)]
    arcs = known_arcs(_table(adata, key, "arcs"), ends, weight)
    squares = [] if targets is None else targets.names
    figure, panel = _axes(ax, max(len(order), len(squares)), _inches_below(squares))
    text = _text_below(panel, apart)
    if ax is None:
        height = figure.get_figheight() + _LINE * text.count("\n")
        figure.set_figheight(min(height, SCREEN))
    _draw_layers(panel, layer[order])
    ranked = [shown[i] for i in order]
    _draw_names(panel, ranked, set(map(str, highlight)))
    below = None if targets is not None or weight is None else weight < 0
    two = below is not None and bool(below.any())
    sides = np.zeros(len(parent), np.bool_) if below is None else below
    tall = 1.03 * np.abs(place[child] - place[parent]) ** 0.75
    up, down = (float(tall[side].max(initial=1.0)) for side in (~sides, sides))
    down *= two
    band, room = _heights(panel, up + down, text, _inches_below(squares))
    handles = draw_arcs(panel, place[parent], place[child], below, band, arcs)
    _frame(panel, -band - room - down, band + up, text)
    if targets is not None:
        row = -band - room * _LINES / max(_inches_below(squares), _LINES)
        size = _font_size(len(squares))
        handles += draw_direct_targets(panel, targets, ranked, (-band, row), size)
    if member is not None:
        handles += draw_modules(panel, ranked, member, band)
    _legend(panel, handles)
    title = f"{len(shown)} genes, {len(parent)} arcs"
    if arcs.open.any():
        title += f", {int(arcs.open.sum())} of open direction"
    # From the left: both may be wider than the genes.
    panel.set_title(title, fontsize=TEXT, x=0.0, ha="left")
    return finish(figure, panel, show=show, return_fig=return_fig, save=save, own=ax is None)


def _chosen(names: list[str], genes: Sequence[str] | None, key: str) -> Nodes:
    if genes is None:
        return np.arange(len(names))
    wanted = list(dict.fromkeys([genes] if isinstance(genes, str) else map(str, in_order(genes))))
    absent = [gene for gene in wanted if gene not in names]
    if absent:
        message = (
            f"Genes not in the graph {key!r}: {list_names(absent)}. It holds {list_names(names)}."
        )
        raise ValueError(message)
    return np.array([names.index(gene) for gene in wanted], dtype=np.int64)


def _apart(
    order: Nodes, linked: set[int], names: list[str], wanted: set[str]
) -> tuple[Nodes, list[str]]:
    """Return the genes to draw, and the names of those without arcs, which are only listed.

    Without any arc all are drawn.
    """
    drawn = [i for i in order.tolist() if i in linked or names[i] in wanted]
    if not drawn:
        return order, []
    apart = sorted(set(range(len(names))) - set(drawn))
    return np.array(drawn, dtype=np.int64), [names[i] for i in apart]


def _text_below(panel: Axes, apart: list[str]) -> str:
    """Return what is said below the graph, in lines that fit."""
    text = "genes in topological order: causes left, effects right"
    if not apart:
        return text
    figure = root_figure(panel)
    inches = max(panel.get_window_extent().width / figure.dpi, 3.6)
    letters = int(72 * inches / (0.56 * SMALL))
    plural = "s" * (len(apart) > 1)
    told, names = f"{len(apart)} gene{plural} without arcs: ", list(apart)
    lines = textwrap.wrap(told + ", ".join(names), letters, break_on_hyphens=False)
    while len(lines) > _MOST_LINES:
        names.pop()
        rest = f" and {len(apart) - len(names)} more"
        lines = textwrap.wrap(told + ", ".join(names) + rest, letters, break_on_hyphens=False)
    return "\n".join([text, *lines])


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
    """Return the genes from left to right, and the layer of each (-1: without arcs).

    Within a layer genes stand in the order of their parents' mean place, which keeps arcs short.
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


def _axes(ax: Axes | None, n_columns: int, inches_below: float) -> tuple[Figure, Axes]:
    import matplotlib.pyplot as plt

    if ax is not None:
        return root_figure(ax), ax
    width = max(2.0 + _column(n_columns) * n_columns, 4.0)
    height = min(max(0.5 * width, 3.4) + inches_below, SCREEN)
    return plt.subplots(figsize=(width, height), layout="constrained")


def _draw_layers(panel: Axes, layer: Nodes) -> None:
    edges = np.flatnonzero(np.diff(layer, prepend=-2, append=-2))
    for shade, (start, stop) in enumerate(itertools.pairwise(edges)):
        if shade % 2 == 0 and layer[start] >= 0:
            panel.axvspan(start - 0.5, stop - 0.5, color=LIGHT, alpha=0.6, linewidth=0, zorder=0)


def _draw_names(panel: Axes, names: list[str], bold: set[str]) -> None:
    size = _font_size(len(names))
    for place, name in enumerate(names):
        strong = name in bold
        panel.text(
            place,
            0,
            name,
            rotation=90,
            ha="center",
            va="center",
            fontsize=size,
            color=BLACK,
            fontweight="bold" if strong else "normal",
            zorder=3,
        )


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


def _heights(panel: Axes, arcs: float, text: str, inches_below: float) -> tuple[float, float]:
    """Return half the height of the band of names, and that below it, in units of the y axis."""
    texts = [text.get_text() for text in panel.texts]
    names = _inches(texts, _font_size(len(texts)))
    figure = root_figure(panel)
    height = panel.get_window_extent().height / figure.dpi
    height -= _LINE * text.count("\n")
    share = min((names + inches_below) / height, 0.6)
    unit = arcs * share / (1 - share) / (names + inches_below)  # of one inch
    return names * unit / 2, inches_below * unit


def _frame(panel: Axes, low: float, high: float, text: str) -> None:
    panel.set(xlim=(-0.9, len(panel.texts) - 0.1), ylim=(low, high), xticks=[], yticks=[])
    panel.set_xlabel(text, fontsize=SMALL, loc="left")
    for side in panel.spines.values():
        side.set_visible(False)


def _legend(panel: Axes, handles: list[Any]) -> None:
    if handles:
        panel.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8
        )
