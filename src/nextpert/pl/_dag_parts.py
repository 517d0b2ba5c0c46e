"""What stands on the drawing of a graph: edges, direct targets, modules, and their legends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from nextpert._adata import (
    closest,
    in_order,
    list_names,
    measured_genes,
)
from nextpert.core.fit.naming import Naming
from nextpert.core.search._classes import CELLS, INTERVENTIONS, OPEN, PRIOR
from nextpert.pl._figure import BLACK, BLUE, GREEN, GREY, ORANGE, PALETTE, PURPLE, chosen, entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Nodes = NDArray[np.int64]

_THINNEST, _THICKEST = 0.3, 3.5
_COLOURS = {CELLS: GREY, INTERVENTIONS: GREEN, PRIOR: PALETTE[1], OPEN: GREY}
_LABELS = {
    CELLS: "oriented by cells",
    INTERVENTIONS: "by interventions",
    PRIOR: "by prior knowledge",
    OPEN: "unoriented",
}
TARGET, OFF, OTHER = "acts on its target", "acts on another gene", "not named after a gene here"
_TARGET_COLOURS = {TARGET: BLACK, OFF: PURPLE, OTHER: PALETTE[0]}
_WIDTHS = {TARGET: 1.0, OFF: 2.0, OTHER: 1.0}  # distinct in print without colours as well
# Beyond as many modules as colours, the colours come again, hatched.
_HATCHES = ("", "////", "....", "xxxx")
_STRENGTH = 0.55  # of the colour on white, so that black names stay readable on it


class Edges(NamedTuple):
    """The edges between the genes drawn, and what is known of them; ``None`` where it is not.

    ``share`` is that of the bootstrap graphs that have the edge, in either direction where it is
    unoriented. All are of shape ``(n_edges,)``.
    """

    parent: Nodes
    child: Nodes
    weight: Vector | None
    oriented_by: NDArray[np.str_] | None
    share: Vector | None

    @property
    def is_open(self) -> NDArray[np.bool_]:
        """Whether each edge is unoriented."""
        if self.oriented_by is None:
            return np.zeros(len(self.parent), np.bool_)
        return np.asarray(self.oriented_by == OPEN)

    def strongest(self, n: int) -> Edges:
        """Return the edges of largest absolute weight, in their order.

        Without weights, those that most graphs have; without these, those of the genes with most
        edges.
        """
        if self.weight is not None:
            strength = np.abs(self.weight)
        elif self.share is not None:
            strength = self.share
        else:
            degree = np.bincount(np.concatenate([self.parent, self.child]))
            strength = degree[self.parent] + degree[self.child]
        kept = np.sort(np.argsort(-strength, kind="stable")[:n])
        known: Any = {name: part[kept] for name, part in self._asdict().items() if part is not None}
        return self._replace(**known)


def known_edges(
    table: pd.DataFrame | None,
    names: Sequence[str],
    parent: Nodes,
    child: Nodes,
    weight: Vector | None,
) -> Edges:
    """Return edges between genes of some names with what the stored ``table`` says of them.

    A graph that was changed by hand has edges that the table does not know: it says nothing then.
    """
    rows = {}
    if table is not None:
        pairs = zip(table["parent"].astype(str), table["child"].astype(str), strict=True)
        rows = {pair: row for row, pair in enumerate(pairs)}
    ends = [(names[x], names[y]) for x, y in zip(parent, child, strict=True)]
    if table is None or not all(pair in rows for pair in ends):
        return Edges(parent, child, weight, None, None)
    drawn = table.iloc[[rows[pair] for pair in ends]]
    how = drawn["oriented_by"].to_numpy(dtype=str)
    if "frequency" not in drawn:
        return Edges(parent, child, weight, how, None)
    frequency, adjacency = (drawn[name].to_numpy(float) for name in ("frequency", "adjacency"))
    return Edges(parent, child, weight, how, np.where(how == OPEN, adjacency, frequency))


def _darkness(share: Vector | float) -> Any:
    """Return the opacity of lines that a share of the graphs has."""
    return 0.12 + 0.8 * np.asarray(share)


def _width_of_share(share: Vector | float) -> Any:
    return 0.4 + 1.1 * np.asarray(share)


def draw_edges(
    panel: Axes,
    edges: Edges,
    place: Nodes,
    below: NDArray[np.bool_] | None,
    band: float,
    *,
    directed: bool = True,
) -> list[Any]:
    """Draw edges as edges above the band of names, some below it; return the legend's entries.

    ``place`` is that of each gene from the left, ``band`` half the height of the names. Unless
    ``directed``, nothing is said of directions.
    """
    from matplotlib.collections import LineCollection

    start, stop = place[edges.parent], place[edges.child]
    span = (stop - start).astype(float)
    t = np.linspace(0, np.pi, 80)
    x = (start + stop)[:, None] / 2 - span[:, None] / 2 * np.cos(t)
    y = band + span[:, None] ** 0.75 * np.sin(t)
    if below is not None:
        y[below] *= -1
    if not directed:
        edges = edges._replace(oriented_by=None)
    width, colours = _style(edges)
    styles = [_dashes(w) if d else "solid" for w, d in zip(width, edges.is_open, strict=True)]
    lines = LineCollection(
        list(np.stack([x, y], axis=-1)), linewidths=width.tolist() or 0.8,
        linestyles=styles or "solid", colors=colours, zorder=2,
    )  # fmt: skip
    panel.add_collection(lines)
    words = ("raises", "lowers") if directed else ("positive", "negative")
    return _handles(edges, words, two_sided=below is not None)


def _dashes(width: float) -> tuple[float, tuple[float, float]]:
    """Return dashes of the same length whatever the width, which matplotlib scales them by."""
    return 0.0, (3.5 / width, 2.2 / width)


def _style(edges: Edges) -> tuple[Vector, Any]:
    """Return the width and colour of every edge.

    Frequency is darkness. Width is that of the weight, or again of the frequency. Colour is the
    sign of the weight, or what orients the edge.
    """
    from matplotlib.colors import to_rgba_array

    n = len(edges.parent)
    names, width, alpha = [GREY] * n, np.full(n, 0.8), np.full(n, 0.65)
    if edges.oriented_by is not None:
        names = [_COLOURS[how] for how in edges.oriented_by]
    if edges.share is not None:
        width, alpha = _width_of_share(edges.share), _darkness(edges.share)
    if edges.weight is not None:
        strength = np.abs(edges.weight) / _largest(edges.weight)
        names = np.where(edges.weight < 0, ORANGE, BLUE).tolist()
        width = _THINNEST + (_THICKEST - _THINNEST) * strength
        if edges.share is None:
            alpha = 0.45 + 0.4 * strength  # weak edges step back
    colours = to_rgba_array(names)
    if n:
        colours[:, 3] = alpha
    return width, colours


def _largest(weight: Vector) -> float:
    return float(np.abs(weight).max(initial=0.0)) or 1.0


def _handles(edges: Edges, words: tuple[str, str], *, two_sided: bool) -> list[Any]:
    handles: list[Any] = []
    if edges.weight is not None:
        above, under = (" (above)", " (below)") if two_sided else ("", "")
        handles.append(entry(words[0] + above, BLUE, line="-", linewidth=2))
        handles.append(entry(words[1] + under, ORANGE, line="-", linewidth=2))
        largest = _largest(edges.weight)
        for size in (largest, largest / 4):
            width = _THINNEST + (_THICKEST - _THINNEST) * size / largest
            handles.append(entry(f"weight {size:.2g}", GREY, line="-", linewidth=width))
    if edges.oriented_by is not None:
        found = set(edges.oriented_by.tolist())
        for how in (CELLS, INTERVENTIONS, PRIOR) if edges.weight is None else ():
            if how in found:
                handles.append(entry(_LABELS[how], _COLOURS[how], line="-", linewidth=1.5))
        if OPEN in found:
            handles.append(entry(_LABELS[OPEN], GREY, line=_dashes(1.2)))
    if edges.share is not None:
        for share in (1.0, 0.5, 0.1):
            width = 1.5 if edges.weight is not None else float(_width_of_share(share))
            style: Any = {"linewidth": width, "alpha": float(_darkness(share))}
            handles.append(entry(f"in {share:.0%} of the graphs", GREY, line="-", **style))
    return handles


class DirectTargets(NamedTuple):
    """Lines to draw, a perturbation and a gene each, and how often bootstrap graphs have them."""

    perturbation: list[str]
    gene: list[str]
    kind: list[str]
    share: NDArray[np.float64] | None

    @property
    def names(self) -> list[str]:
        """The perturbations."""
        return list(dict.fromkeys(self.perturbation))


def read_direct_targets(
    table: pd.DataFrame | None,
    wanted: bool | Sequence[str],
    panel: Sequence[str],
    drawn: Sequence[str],
    key: str,
) -> DirectTargets | None:
    """Return the direct targets among the genes drawn, or ``None`` where they are not wanted.

    A perturbation whose label names genes of the panel has them as targets.

    Raises
    ------
    ValueError
        If none are stored, or a perturbation has none.
    """
    if wanted is False:
        return None
    if table is None:
        message = (
            f"adata.uns[{key!r}] has no direct targets: run tl.learn_dag first, with "
            f'method="boss", environments="all", or leave direct_targets out.'
        )
        raise ValueError(message)
    perturbation = table["perturbation"].astype(str)
    keep = np.isin(table["gene"].astype(str), list(drawn))
    if wanted is not True:
        held = list(dict.fromkeys(perturbation))
        named = Naming(set(panel)).spelled(map(str, in_order(wanted)), held)
        where = f"adata.uns[{key!r}]['direct_targets']"
        places = chosen(named, held, "Perturbations without direct targets", where)
        names = [held[i] for i in places]
        keep &= np.isin(perturbation, names)
    rows = table[keep]
    share = rows["frequency"].to_numpy(float) if "frequency" in rows else None
    who, what = (rows[name].astype(str).tolist() for name in ("perturbation", "gene"))
    known = set(panel)
    kind = [_kind(label, gene, known) for label, gene in zip(who, what, strict=True)]
    return DirectTargets(who, what, kind, share)


def _kind(label: str, gene: str, panel: set[str]) -> str:
    named = Naming(panel).targets(label)[0]
    return OTHER if not named else TARGET if gene in named else OFF


def draw_direct_targets(
    panel: Axes,
    targets: DirectTargets,
    genes: Sequence[str],
    rows: tuple[float, float],
    font_size: float,
) -> list[Any]:
    """Draw squares and names below the genes, and lines between; return the legend's entries.

    ``rows`` are the lower edge of the band of genes and the row of the squares.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba_array

    top, row = rows
    place = {gene: k for k, gene in enumerate(genes)}
    where = _places(targets, place)
    lines = [
        [(where[label], row), (place[gene], top)]
        for label, gene in zip(targets.perturbation, targets.gene, strict=True)
    ]
    colours = to_rgba_array([_TARGET_COLOURS[kind] for kind in targets.kind])
    if lines and targets.share is not None:
        colours[:, 3] = _darkness(targets.share)
    widths = [_WIDTHS[kind] for kind in targets.kind]
    panel.add_collection(LineCollection(lines, linewidths=widths, colors=colours, zorder=2))
    panel.scatter(list(where.values()), [row] * len(where), s=16, c=BLACK, marker="s", zorder=4)
    for label, x in where.items():
        panel.annotate(
            label, (x, row), (0, -5), textcoords="offset points", rotation=90,
            ha="center", va="top", fontsize=font_size, color=BLACK,
        )  # fmt: skip
    left, right = panel.get_xlim()
    panel.set_xlim(min([left, *(x - 0.9 for x in where.values())]),
                   max([right, *(x + 0.9 for x in where.values())]))  # fmt: skip
    square = entry("perturbation", BLACK, "s", markersize=4)
    kinds = [kind for kind in _TARGET_COLOURS if kind in targets.kind]
    return [
        square,
        *(entry(k, _TARGET_COLOURS[k], line="-", linewidth=_WIDTHS[k]) for k in kinds),
    ]


def _places(targets: DirectTargets, place: dict[str, int]) -> dict[str, float]:
    """Return the place of every square: near the targets it is named after, or all; 1 apart."""
    ends: dict[str, list[tuple[bool, int]]] = {name: [] for name in targets.names}
    for label, gene, kind in zip(targets.perturbation, targets.gene, targets.kind, strict=True):
        ends[label].append((kind == TARGET, place[gene]))
    middle = {}
    for label, found in ends.items():
        named = [x for is_named, x in found if is_named]
        middle[label] = float(np.mean(named or [x for _, x in found]))
    names = sorted(middle, key=lambda label: (middle[label], label))
    if not names:
        return {}
    rank = np.arange(len(names))
    spare = len(place) - len(names)  # squares that are more than the genes reach out on both sides
    low = min(0.0, spare / 2)
    free = isotonic_regression(np.array([middle[label] for label in names]) - rank).x
    x = np.clip(free, low, low + max(spare, 0)) + rank
    return dict(zip(names, x.tolist(), strict=True))


def read_modules(
    adata: AnnData, modules: Any, genes: Sequence[str], gene_symbols: str | None = None
) -> dict[str, str]:
    """Return the module of every gene that has one, out of ``genes``.

    Raises
    ------
    ValueError
        If the column of ``adata.var`` is absent, no gene has a module, or there are too many.
    TypeError
        If ``modules`` is neither a column's name nor a mapping.
    """
    if isinstance(modules, str):
        if modules not in adata.var.columns:
            columns = [str(column) for column in adata.var.columns]
            message = (
                f"adata.var has no column {modules!r}.{closest([modules], columns)} It holds "
                f"{list_names(columns) or 'no column'}."
            )
            raise ValueError(message)
        names = measured_genes(adata, gene_symbols)
        modules = pd.Series(adata.var[modules].to_numpy(), names, dtype=object)
    given = {str(gene): value for gene, value in modules.items()}
    found = {gene: str(given[gene]) for gene in genes if not pd.isna(given.get(gene))}
    if not found:
        message = f"modules names none of the genes drawn: {list_names(genes)}."
        raise ValueError(message)
    n = len(set(found.values()))
    if n > len(PALETTE) * len(_HATCHES):
        message = (
            f"{n} modules cannot be distinguished: give {len(PALETTE) * len(_HATCHES)} at most."
        )
        raise ValueError(message)
    return found


def module_styles(found: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the style of every module, by name, in the order of the legend."""
    from matplotlib.colors import to_rgb

    names = sorted(set(found.values()))
    tints = [tuple(1 - _STRENGTH * (1 - part) for part in to_rgb(each)) for each in PALETTE]
    return {
        name: {
            "facecolor": tints[i % len(PALETTE)],
            "hatch": _HATCHES[i // len(PALETTE)],
            "edgecolor": "white",
            "linewidth": 0,
        }
        for i, name in enumerate(names)
    }


def draw_modules(
    panel: Axes, genes: Sequence[str], found: Mapping[str, str], band: float
) -> list[Patch]:
    """Draw a tile in the colour of its module behind every name; return the legend's entries."""
    from matplotlib.patches import Patch, Rectangle

    styles = module_styles(found)
    for place, gene in enumerate(genes):
        if gene in found:
            style = styles[found[gene]]
            tile = Rectangle((place - 0.5, -0.96 * band), 1.0, 1.92 * band, zorder=1, **style)
            panel.add_patch(tile)
    return [Patch(label=name, **style) for name, style in styles.items()]
