"""Modules of genes: which gene is in which, and a colour for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from nextpert._adata import closest, list_names, measured_genes
from nextpert.pl._figure import PALETTE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

# Beyond as many modules as colours, the colours come again, hatched.
_HATCHES = ("", "////", "....", "xxxx")
_STRENGTH = 0.55


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
        message = f"{n} modules cannot be told apart: give {len(PALETTE) * len(_HATCHES)} at most."
        raise ValueError(message)
    return found


def module_styles(found: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the style of every module, by name, in the order of the legend."""
    names = sorted(set(found.values()))
    return {
        name: {
            "facecolor": _tint(PALETTE[i % len(PALETTE)]),
            "hatch": _HATCHES[i // len(PALETTE)],
            "edgecolor": "white",
            "linewidth": 0,
        }
        for i, name in enumerate(names)
    }


def _tint(colour: str) -> tuple[float, ...]:
    """Return the colour on white, so that black names stay readable on it."""
    from matplotlib.colors import to_rgb

    return tuple(1 - _STRENGTH * (1 - value) for value in to_rgb(colour))


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
