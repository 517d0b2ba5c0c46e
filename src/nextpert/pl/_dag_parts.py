"""What stands on the drawing of a graph: edges, modules, and their legends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import list_names, measured_genes
from nextpert.core.search._classes import CELLS, INTERVENTIONS, OPEN, PRIOR
from nextpert.pl._figure import BLUE, GREEN, GREY, ORANGE, PALETTE, chosen, entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

_THINNEST, _THICKEST = 0.3, 3.5
# Colour and words of what orients an edge.
_ORIENTED = {
    CELLS: (GREY, "oriented by cells"),
    INTERVENTIONS: (GREEN, "by interventions"),
    PRIOR: (PALETTE[1], "by prior knowledge"),
    OPEN: (GREY, "unoriented"),
}


def read_edges(
    adjacency: Any,
    names: Sequence[str],
    weights: Vector | None,
    table: pd.DataFrame | None,
    *,
    directed: bool,
) -> pd.DataFrame:
    """Return the edges between genes: ``parent``, ``child``, ``is_open``, and what is known.

    That is ``weight``, ``oriented_by`` (if ``directed``), and ``share``: that of the bootstrap
    graphs that have the edge, in either direction where it is unoriented. A graph that was changed
    by hand has edges that the stored ``table`` does not know: it says nothing then.
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
    known = edges.merge(table, how="left", on=ends)
    if known["oriented_by"].isna().any():
        return edges
    is_open = known["oriented_by"] == OPEN
    if "frequency" in known:
        known["share"] = known["adjacency"].where(is_open, known["frequency"])
    return known.assign(is_open=is_open) if directed else known.drop(columns="oriented_by")


def lies_below(edges: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which edges are drawn below the names: those of negative weight."""
    weight = edges["weight"] if "weight" in edges else np.zeros(len(edges))
    return np.asarray(weight) < 0


def strongest(edges: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the edges of largest absolute weight, in their order.

    Without weights, those that most graphs have; without these, those of the genes with most edges.
    """
    if "weight" in edges:
        strength = edges["weight"].abs()
    elif "share" in edges:
        strength = edges["share"]
    else:
        degree = pd.concat([edges["parent"], edges["child"]]).value_counts()
        strength = edges["parent"].map(degree) + edges["child"].map(degree)
    return edges.iloc[np.sort(np.argsort(-strength.to_numpy(float), kind="stable")[:n])]


def draw_edges(
    panel: Axes,
    edges: pd.DataFrame,
    names: Sequence[str],
    band: float,
    *,
    directed: bool,
) -> list[Any]:
    """Draw edges above and below the names of genes, whose band is twice ``band`` high.

    Share is darkness. Width is that of the weight, or again of the share. Colour is the sign of
    the weight, or what orients the edge. Return the legend's entries; unless ``directed``, they say
    nothing of directions.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba_array

    place = {name: x for x, name in enumerate(names)}
    start, stop = (edges[end].map(place).to_numpy(float)[:, None] for end in ("parent", "child"))
    t = np.linspace(0, np.pi, 80)
    x = (start + stop) / 2 - (stop - start) / 2 * np.cos(t)
    y = band + (stop - start) ** 0.75 * np.sin(t)
    y[lies_below(edges)] *= -1
    n = len(edges)
    colours, width, alpha = [GREY] * n, np.full(n, 0.8), np.full(n, 0.65)
    if "oriented_by" in edges:
        colours = [_ORIENTED[how][0] for how in edges["oriented_by"]]
    if "share" in edges:
        share = edges["share"].to_numpy(float)
        width, alpha = _width_of_share(share), _darkness(share)
    if "weight" in edges:
        weight = edges["weight"].to_numpy()
        strength = np.abs(weight) / (np.abs(weight).max(initial=0.0) or 1.0)
        colours = np.where(weight < 0, ORANGE, BLUE).tolist()
        width = _width_of_weight(strength)
        if "share" not in edges:
            alpha = 0.45 + 0.4 * strength  # weak edges step back
    dashes = [_dashes(w) if d else "solid" for w, d in zip(width, edges["is_open"], strict=True)]
    if n:
        lines, ink = list(np.stack([x, y], axis=-1)), to_rgba_array(colours, alpha)
        panel.add_collection(
            LineCollection(lines, linewidths=width, linestyles=dashes, colors=ink, zorder=2)
        )
    words = ("raises", "lowers") if directed else ("positive", "negative")
    return _handles(edges, words)


def _darkness(share: Any) -> Any:
    """Return the opacity of lines that a share of the graphs has."""
    return 0.12 + 0.8 * share


def _width_of_share(share: Any) -> Any:
    return 0.4 + 1.1 * share


def _width_of_weight(strength: Any) -> Any:
    return _THINNEST + (_THICKEST - _THINNEST) * strength


def _dashes(width: float) -> tuple[float, tuple[float, float]]:
    """Return dashes of the same length whatever the width, which matplotlib scales them by."""
    return 0.0, (3.5 / width, 2.2 / width)


def _handles(edges: pd.DataFrame, words: tuple[str, str]) -> list[Any]:
    handles, has_weight = [], "weight" in edges
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
    for share in (1.0, 0.5, 0.1) if "share" in edges else ():
        label, width = f"in {share:.0%} of the graphs", _width_of_share(share)
        width = 1.5 if has_weight else width
        handles.append(entry(label, GREY, line="-", alpha=_darkness(share), linewidth=width))
    return handles


def read_modules(
    adata: AnnData, modules: Any, genes: Sequence[str], gene_symbols: str | None = None
) -> dict[str, str]:
    """Return the module of every gene that has one, out of ``genes``.

    Raises
    ------
    ValueError
        If the column of ``adata.var`` is absent, or no gene has a module.
    """
    if isinstance(modules, str):
        columns = [str(column) for column in adata.var.columns]
        chosen(modules, columns, "Columns that are not in adata.var", "It")
        names = measured_genes(adata, gene_symbols)
        modules = pd.Series(adata.var[modules].to_numpy(), names, dtype=object)
    given = {str(gene): value for gene, value in modules.items()}
    member = {gene: str(given[gene]) for gene in genes if not pd.isna(given.get(gene))}
    if not member:
        message = f"modules names none of the genes drawn: {list_names(genes)}."
        raise ValueError(message)
    return member


def draw_modules(
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
