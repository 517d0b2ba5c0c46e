"""The learned graph as an edge diagram."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert._adata import eager, list_names, read_graph, say_changes
from nextpert._adata.arguments import checked
from nextpert.core.screen.moments import require_sound
from nextpert.core.search._classes import CELLS, INTERVENTIONS, OPEN, PRIOR
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    PALETTE,
    SCREEN,
    SMALL,
    TEXT,
    chosen,
    counted,
    documented,
    entry,
    finish,
    font_size,
    legend,
    panel_of,
    root_figure,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from nextpert.core import Dag

    Vector = NDArray[np.float64]
    Nodes = NDArray[np.int64]

_LINE = 0.14  # height of a line of text, in inches
_MAX_LISTED_GENES = 30  # of genes without edges that are listed
_MIN_LINE_WIDTH = 0.3
_MAX_LINE_WIDTH = 3.5
# Colour and label of what orients an edge.
_ORIENTED = {
    CELLS: (GREY, "oriented by cells"),
    INTERVENTIONS: (GREEN, "by interventions"),
    PRIOR: (PALETTE[1], "by prior knowledge"),
    OPEN: (GREY, "unoriented"),
}


@checked()
@documented
def dag(
    adata: AnnData,
    *,
    key: str = "dag",
    posterior_key: str | None = "dag_blr",
    genes: Sequence[str] | None = None,
    modules: str | None = None,
    n_top: int = 100,
    directed: bool = True,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | Axes | None:
    """Draw the strongest edges of the graph, with causes left of effects.

    Genes are in topological order, so that every edge runs from left to right and needs no
    arrowhead. With a posterior, edges with positive weights are blue and above the names, edges
    with negative weights are orange and below, and width grows with the absolute weight (posterior
    mean: change of the child per unit of the parent, log-normalised expression). Without a
    posterior, all edges are above the names, and grey or coloured by what orients them. Shaded
    bands mark topological layers (by the longest path to a gene). Genes without edges are named
    below.

    In a graph from :func:`nextpert.tl.learn_dag`, unoriented edges are dashed: the direction drawn
    is one of two that are possible. With bootstrap graphs (``n_graphs``), edges that occur in more
    of them are darker and, without a posterior, wider; an unoriented edge counts in either
    direction.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.learn_dag`.
    key
        The ``key_added`` of :func:`nextpert.tl.learn_dag`.
    posterior_key
        The ``key_added`` of :func:`nextpert.tl.fit_dag_blr`. Without this result, or if ``None``,
        no weights are drawn.
    genes
        Genes to draw, with the edges between them; by default the panel.
    modules
        Column of ``adata.var`` by which genes are coloured; genes without a value stay white.
    n_top
        Maximum number of edges. Those with the largest absolute weights are drawn; without a
        posterior, those in most bootstrap graphs; without bootstrap graphs, those between the
        genes with most edges.
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
        If there is no graph (run :func:`nextpert.tl.learn_dag` first), a gene is not in it, or
        ``modules`` is not a column, or has no value for the genes drawn.

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
    for used, function in ((key, "tl.learn_dag"), (posterior_key, "tl.fit_dag_blr")):
        if used is not None and hasattr(adata.uns.get(used), "keys"):
            say_changes(adata, used, adata.uns[used], function)
    drawn = chosen(genes, names, "Genes not in the graph", f"The graph {key!r}")
    adjacency = sp.csr_array(graph.to_matrix())[drawn][:, drawn]
    shown = [names[i] for i in drawn]
    member = {} if modules is None else _read_modules(adata, modules, shown, columns[drawn])
    weights = _weights(adata, posterior_key, columns[drawn])
    stored = adata.uns.get(key)
    table = eager(stored["edges"]) if hasattr(stored, "keys") and "edges" in stored else None
    all_edges = _read_edges(adjacency, shown, weights, table, directed=directed)
    edges = _strongest(all_edges, n_top)
    is_cut = len(edges) < len(all_edges)
    linked = {*edges["parent"], *edges["child"]} or set(shown)
    order, layer = _order(type(graph).from_matrix(adjacency), [gene in linked for gene in shown])
    linked_order = [i for i in order if shown[i] in linked]
    text = "an edge joins two genes that are associated; its direction is not known"
    if directed:
        text = "genes in topological order: causes left, effects right"
    if isolated := [gene for gene in shown if gene not in linked]:
        text += (
            f"\n{counted(len(isolated), 'gene')} without {'any of these ' if is_cut else ''}edges"
        )
        text += "" if is_cut else f": {list_names(isolated, _MAX_LISTED_GENES)}"
    names = [shown[i] for i in linked_order]
    panel, band = _draw_names(ax, names, text, edges)
    if directed:
        _shade_layers(panel, layer[linked_order])
    handles = _draw_edges(panel, edges, names, band, directed=directed)
    legend(panel, [*handles, *_draw_modules(panel, member, names, band)])
    n_edges = counted(len(all_edges), "edge" if directed else "association")
    title = f"{len(shown)} genes, {f'strongest {len(edges)} of ' if is_cut else ''}{n_edges}"
    if edges["is_open"].any():
        title += f", {edges['is_open'].sum()} unoriented"
    # From the left: it may be wider than the genes.
    panel.set_title(title, fontsize=TEXT, x=0.0, ha="left")
    return finish(panel, is_new=ax is None, show=show, return_fig=return_fig, save=save)


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

    Within a layer, genes are ordered by the mean position of their parents, so that edges are
    short.
    """
    layer = np.zeros(graph.n_nodes, dtype=np.int64)
    for node in graph.order:
        layer[node] = layer[graph.parents(int(node))].max(initial=-1) + 1
    n_children = np.bincount(graph.indices, minlength=graph.n_nodes)
    position = np.zeros(graph.n_nodes)
    order: list[int] = []
    for level in range(int(layer.max(initial=0)) + 1):
        members = np.flatnonzero(layer == level).tolist()
        pull = {i: position[graph.parents(i)].mean() if level else -n_children[i] for i in members}
        for node in sorted(members, key=pull.__getitem__):
            position[node] = len(order)
            order.append(node)
    return sorted(order, key=lambda i: not linked[i]), np.where(linked, layer, -1)


def _draw_names(
    ax: Axes | None, names: list[str], text: str, edges: pd.DataFrame
) -> tuple[Axes, float]:
    """Draw the names of genes side by side, and a text below.

    Return the panel, which has room for the ``edges`` above and below, and half the height of the
    names.
    """
    # Width of a gene, in inches.
    column = float(np.clip(19.0 / len(names), 0.1, 0.21))
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
    position = {name: x for x, name in enumerate(names)}
    span = (edges["child"].map(position) - edges["parent"].map(position)).to_numpy(float)
    is_below = _lies_below(edges)
    up, down = (1.03 * span[side].max(initial=1.0) ** 0.75 for side in (~is_below, is_below))
    down *= bool(is_below.any())
    names_high = 0.66 * size / 72 * (max(map(len, names)) + 1.5)  # they stand upright
    high = panel.get_window_extent().height / figure.dpi - below
    fraction = min(names_high / high, 0.6)
    band = (up + down) * fraction / (1 - fraction) / 2  # in units of the y axis
    for x, name in enumerate(names):
        panel.text(
            x,
            0,
            name,
            rotation=90,
            ha="center",
            va="center",
            color=BLACK,
            zorder=3,
            fontsize=size,
        )
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


def _read_edges(
    adjacency: Any,
    names: Sequence[str],
    weights: Vector | None,
    table: pd.DataFrame | None,
    *,
    directed: bool,
) -> pd.DataFrame:
    """Return the edges between genes: ``parent``, ``child``, ``is_open``, and further columns.

    These are, if known, ``weight``, ``oriented_by`` (if ``directed``), and ``fraction``: the
    fraction of bootstrap graphs with the edge, in either direction if it is unoriented. The stored
    ``table`` is ignored if it lacks an edge, because the graph was changed by hand.
    """
    parent, child = adjacency.nonzero()
    genes = np.array(names, dtype=object)
    edges = pd.DataFrame({"parent": genes[parent], "child": genes[child], "is_open": False})
    if weights is not None:
        edges["weight"] = weights[parent, child]
    if table is None:
        return edges
    ends = ["parent", "child"]
    table = table.astype({**dict.fromkeys(ends, str), "oriented_by": str})
    table = table.filter([*ends, "oriented_by", "frequency", "adjacency"])
    merged = edges.merge(table, how="left", on=ends)
    if merged["oriented_by"].isna().any():
        return edges
    is_open = merged["oriented_by"] == OPEN
    if "frequency" in merged:
        merged["fraction"] = merged["adjacency"].where(is_open, merged["frequency"])
    return merged.assign(is_open=is_open) if directed else merged.drop(columns="oriented_by")


def _lies_below(edges: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which edges are drawn below the names: those of negative weight."""
    weight = edges["weight"] if "weight" in edges else np.zeros(len(edges))
    return np.asarray(weight) < 0


def _strongest(edges: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the edges with the largest absolute weights, in their order.

    Without weights, these are the edges in most bootstrap graphs; without bootstrap graphs, those
    of the genes with most edges.
    """
    if "weight" in edges:
        strength = edges["weight"].abs()
    elif "fraction" in edges:
        strength = edges["fraction"]
    else:
        degree = pd.concat([edges["parent"], edges["child"]]).value_counts()
        strength = edges["parent"].map(degree) + edges["child"].map(degree)
    return edges.iloc[np.sort(np.argsort(-strength.to_numpy(float), kind="stable")[:n])]


def _draw_edges(
    panel: Axes,
    edges: pd.DataFrame,
    names: Sequence[str],
    band: float,
    *,
    directed: bool,
) -> list[Any]:
    """Draw edges above and below the names of genes, whose band is twice ``band`` high.

    Darkness shows the fraction of bootstrap graphs. Width shows the weight or, without weights,
    this fraction. Colour shows the sign of the weight, or what orients the edge. Return the
    legend's entries, which name no directions unless ``directed``.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba_array

    position = {name: x for x, name in enumerate(names)}
    start, stop = (edges[end].map(position).to_numpy(float)[:, None] for end in ("parent", "child"))
    t = np.linspace(0, np.pi, 80)
    x = (start + stop) / 2 - (stop - start) / 2 * np.cos(t)
    y = band + (stop - start) ** 0.75 * np.sin(t)
    y[_lies_below(edges)] *= -1
    n = len(edges)
    colours = [GREY] * n
    width = np.full(n, 0.8)
    alpha = np.full(n, 0.65)
    if "oriented_by" in edges:
        colours = [_ORIENTED[how][0] for how in edges["oriented_by"]]
    if "fraction" in edges:
        fraction = edges["fraction"].to_numpy(float)
        width, alpha = _width_of_fraction(fraction), _darkness(fraction)
    if "weight" in edges:
        weight = edges["weight"].to_numpy()
        strength = np.abs(weight) / (np.abs(weight).max(initial=0.0) or 1.0)
        colours = np.where(weight < 0, ORANGE, BLUE).tolist()
        width = _width_of_weight(strength)
        if "fraction" not in edges:
            alpha = 0.45 + 0.4 * strength  # weak edges are lighter
    dashes = [_dashes(w) if d else "solid" for w, d in zip(width, edges["is_open"], strict=True)]
    if n:
        lines = list(np.stack([x, y], axis=-1))
        ink = to_rgba_array(colours, alpha)
        panel.add_collection(
            LineCollection(lines, linewidths=width, linestyles=dashes, colors=ink, zorder=2)
        )
    words = ("raises", "lowers") if directed else ("positive", "negative")
    return _handles(edges, words)


def _darkness(fraction: Any) -> Any:
    """Return the opacity of edges that occur in a fraction of the graphs."""
    return 0.12 + 0.8 * fraction


def _width_of_fraction(fraction: Any) -> Any:
    return 0.4 + 1.1 * fraction


def _width_of_weight(strength: Any) -> Any:
    return _MIN_LINE_WIDTH + (_MAX_LINE_WIDTH - _MIN_LINE_WIDTH) * strength


def _dashes(width: float) -> tuple[float, tuple[float, float]]:
    """Return dashes of the same length for any width; matplotlib scales dashes by the width."""
    return 0.0, (3.5 / width, 2.2 / width)


def _handles(edges: pd.DataFrame, words: tuple[str, str]) -> list[Any]:
    handles = []
    has_weight = "weight" in edges
    if has_weight:
        handles.append(entry(f"{words[0]} (above)", BLUE, line="-", linewidth=2))
        handles.append(entry(f"{words[1]} (below)", ORANGE, line="-", linewidth=2))
        largest = edges["weight"].abs().max() if len(edges) else 1.0
        for part in (1.0, 0.25):
            label = f"weight {part * largest:.2g}"
            handles.append(entry(label, GREY, line="-", linewidth=_width_of_weight(part)))
    for how, (colour, label) in _ORIENTED.items():
        if "oriented_by" in edges and (edges["oriented_by"] == how).any():
            if how == OPEN:
                handles.append(entry(label, colour, line=_dashes(1.2)))
            elif not has_weight:
                handles.append(entry(label, colour, line="-", linewidth=1.5))
    for fraction in (1.0, 0.5, 0.1) if "fraction" in edges else ():
        label, width = f"in {fraction:.0%} of the graphs", _width_of_fraction(fraction)
        width = 1.5 if has_weight else width
        handles.append(entry(label, GREY, line="-", alpha=_darkness(fraction), linewidth=width))
    return handles


def _read_modules(
    adata: AnnData, column: str, genes: Sequence[str], places: Nodes
) -> dict[str, str]:
    """Return the module of every gene that has one; ``places`` are their columns in ``adata``."""
    columns = [str(name) for name in adata.var.columns]
    chosen(column, columns, "Columns that are not in adata.var", "It")
    values = adata.var[column].iloc[places]
    named = zip(genes, values, strict=True)
    member = {gene: str(module) for gene, module in named if not pd.isna(module)}
    if not member:
        message = (
            f"adata.var[{column!r}] has no value for the genes drawn: {list_names(genes)}. Name "
            f"another column as modules."
        )
        raise ValueError(message)
    return member


def _draw_modules(
    panel: Axes, member: Mapping[str, str], names: Sequence[str], band: float
) -> list[Any]:
    """Draw a tile behind every name that has a module, in its colour; return the legend's entries.

    ``band`` is half the height of the names.
    """
    import seaborn as sns
    from matplotlib.patches import Patch, Rectangle

    modules = sorted(set(member.values()))
    colours = PALETTE if len(modules) <= len(PALETTE) else sns.husl_palette(len(modules))
    # Light enough for black names.
    tints = [sns.blend_palette(["white", colour], 21)[11] for colour in colours]
    tint = dict(zip(modules, tints, strict=False))
    for x, name in enumerate(names):
        if name in member:
            style = {"facecolor": tint[member[name]], "linewidth": 0, "zorder": 1}
            panel.add_patch(Rectangle((x - 0.5, -0.96 * band), 1.0, 1.92 * band, **style))
    return [Patch(label=module, facecolor=tint[module], linewidth=0) for module in modules]
