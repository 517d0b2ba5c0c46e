"""Target genes in the cells in which they are perturbed, beside controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import (
    list_names,
    measured_genes,
    read_blocks,
    read_labels,
    read_roles,
    require_control,
    resolve_panel,
)
from nextpert._adata.arguments import ANY_TEXT, checked
from nextpert._adata.sources import dense
from nextpert.core.fit.naming import Naming
from nextpert.pl._docs import documented
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREY,
    LIGHT,
    REACH,
    TEXT,
    entry,
    finish,
    legend,
    panels_of,
    root_figure,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from nextpert._adata import LabelTable

    Values = NDArray[np.float64]

_FEWEST_BINS, _MOST_BINS = 8, 40


@dataclass(frozen=True)
class _Gene:
    """Expression of one gene in control cells and in the cells in which it is perturbed."""

    name: str
    control: Values
    perturbed: Values


@checked(separator=ANY_TEXT)
@documented
def expression_shift(
    adata: AnnData,
    *,
    genes: str | Sequence[str] | None = None,
    gene_symbols: str | None = None,
    perturbation_key: str | None = None,
    control: str | None = None,
    separator: str = "+",
    layer: str | None = None,
    ncols: int | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | None:
    """Draw the expression of every target gene in control and in perturbed cells, with means.

    As in Extended Data Fig. 9 of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0): does a
    perturbation do what it should to its own gene? Each panel is a histogram of the values other
    than zero (control grey, perturbed blue, heights as shares of all cells of the group, so that
    they compare); the two bars in the grey strip on the left are the shares of cells with zero,
    the full height being all of them (no strip where there are none). Vertical lines are the
    means of all cells, zeros included; their difference is given ± half of its 90% interval.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression.
    genes
        Target genes to draw; by default all that are measured and have cells of their own, that
        is cells whose label names this gene and no other.
    gene_symbols
        Column of ``adata.var`` with the names of genes, if not ``adata.var_names``.
    %(roles)s
    layer
        Layer to read; ``None`` stands for ``adata.X``.
    ncols
        Panels in a row; by default 6, or as many more as let the figure fit on a screen.
    ax
        Axes to draw on, for a single gene.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there are no control cells, a gene is not measured or no cell is perturbed in it alone,
        a value is NaN or infinite, or ``ax`` is given for several genes.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=100, n_perturbed=20, perturbed=["MYC"])
    >>> figure = npt.pl.expression_shift(adata, return_fig=True)
    >>> figure.axes[0].get_title().splitlines()[0]
    'MYC (20 cells)'
    """
    from matplotlib.patches import Patch

    roles = read_roles(adata, perturbation_key=perturbation_key, control=control, layer=layer)
    perturbation_key, control, layer = roles.perturbation_key, roles.control, roles.layer
    labels = read_labels(adata, perturbation_key)
    require_control(labels, control)
    cells = _perturbed_cells(measured_genes(adata, gene_symbols), labels, control, separator)
    wanted = _wanted(adata, cells, genes, labels.key, gene_symbols)
    if ax is not None and len(wanted) > 1:
        message = f"ax takes one gene, but there are {len(wanted)}: name one with `genes`."
        raise ValueError(message)
    shown = _read(adata, wanted, labels.groups([control]) == 0, cells, layer, gene_symbols)
    axes, columns = panels_of(ax, len(shown), ncols, 6, (1.7, 1.5), (0.4, 1.0))
    zeros = any((values == 0).any() for gene in shown for values in (gene.control, gene.perturbed))
    for panel, gene in zip(axes, shown, strict=True):
        _draw(panel, gene, zeros=zeros)
    handles = [
        Patch(color=GREY, alpha=0.55, linewidth=0, label=control),
        Patch(edgecolor=BLUE, facecolor="none", label="perturbed"),
        entry(f"mean of {control}", BLACK, line="-"),
        entry("mean of perturbed", BLUE, line="-"),
    ]
    if zeros:
        handles.append(Patch(color=LIGHT, linewidth=0, label="bars: share of zeros"))
    unit = "expression (log-normalised); in titles: change of the mean ± half of its 90% interval"
    if ax is not None:
        ax.set_xlabel(unit.split(";")[0])
        legend(ax, handles)
        return finish(axes, own=False, show=show, return_fig=return_fig, save=save)
    figure = root_figure(axes[0])
    is_wide = columns >= 5
    if not is_wide:
        figure.set_figwidth(figure.get_figwidth() + 1.8)  # for the legend
        unit = unit.replace("; ", "\n")
    figure.supxlabel(unit, fontsize=TEXT)
    figure.supylabel("cells", fontsize=TEXT)
    where = "outside upper center" if is_wide else "outside right upper"
    legend(figure, handles, loc=where, ncols=len(handles) if is_wide else 1)
    return finish(axes, own=True, show=show, return_fig=return_fig, save=save)


def _perturbed_cells(
    genes: Sequence[str], labels: LabelTable, control: str, separator: str
) -> dict[str, NDArray[np.bool_]]:
    """Return the cells of every measured gene that is the only target of some cells."""
    naming = Naming(set(genes), separator, control)
    own: dict[str, list[str]] = {}
    for name in labels.names:
        inside, outside = naming.targets(name)
        if name != control and len(inside) == 1 and not outside:
            own.setdefault(inside[0], []).append(name)
    return {gene: labels.groups(names) >= 0 for gene, names in own.items()}


def _wanted(
    adata: AnnData,
    cells: dict[str, Any],
    genes: str | Sequence[str] | None,
    key: str,
    gene_symbols: str | None,
) -> list[str]:
    if genes is not None:
        names = [genes] if isinstance(genes, str) else list(dict.fromkeys(map(str, genes)))
        resolve_panel(adata, names, gene_symbols=gene_symbols)
        without = [gene for gene in names if gene not in cells]
    else:
        names, without = list(cells), []
    if without or not names:
        message = (
            f"No cell is perturbed in {list_names(without) or 'a measured gene'} alone, by "
            f"adata.obs[{key!r}]. Genes with such cells: {list_names(cells, limit=30) or 'none'}."
        )
        raise ValueError(message)
    return names


def _read(
    adata: AnnData,
    genes: list[str],
    control: NDArray[np.bool_],
    cells: dict[str, NDArray[np.bool_]],
    layer: str | None,
    gene_symbols: str | None,
) -> list[_Gene]:
    """Read the genes of all cells in one pass."""
    _, columns = resolve_panel(adata, genes, gene_symbols=gene_symbols)
    rows = np.flatnonzero(np.any([control, *(cells[gene] for gene in genes)], axis=0))
    values = np.empty((len(rows), len(genes)))
    for here, block in read_blocks(adata, columns, rows, layer=layer):
        values[np.searchsorted(rows, here)] = dense(block)
    return [
        _Gene(gene, values[control[rows], j], values[cells[gene][rows], j])
        for j, gene in enumerate(genes)
    ]


def _draw(panel: Axes, gene: _Gene, *, zeros: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    both = np.concatenate([gene.control, gene.perturbed])
    low, high = float(min(both.min(), 0.0)), float(max(both.max(), 0.0))
    span = (high - low) or 1.0
    strip = 0.3 * span if zeros else 0.0
    edges = np.linspace(low, low + span, 1 + _n_bins(gene, span))
    # Shares of all cells of the group; zeros are counted in the strip.
    tops = [
        np.histogram(values[values != 0], edges)[0] / len(values)
        for values in (gene.control, gene.perturbed)
    ]
    tallest = max(float(top.max()) for top in tops) or 1.0
    control, perturbed = (0.92 * top / tallest for top in tops)
    panel.stairs(control, edges, fill=True, color=GREY, alpha=0.55, linewidth=0)
    panel.stairs(perturbed, edges, color=BLUE, linewidth=1.1)
    for colour, values in ((GREY, gene.control), (BLUE, gene.perturbed)):
        mean_colour = BLACK if colour == GREY else colour
        panel.axvline(float(values.mean()), color=mean_colour, linewidth=1.4)
    if zeros:
        panel.axvspan(low - strip, low - 0.02 * span, color=LIGHT, alpha=0.6, linewidth=0, zorder=0)
        shares = [float(np.mean(values == 0)) for values in (gene.control, gene.perturbed)]
        places = low - strip * np.array([0.72, 0.32])
        panel.bar(places, shares, 0.34 * strip, color=[GREY, BLUE])
    panel.set(xlim=(low - strip, low + 1.03 * span), ylim=(0, 1), yticks=[])
    stop = panel.get_xlim()[1]
    ticks = np.array(MaxNLocator(4).tick_values(low, stop))
    ticks = ticks[(ticks >= low) & (ticks <= stop)]
    names = [f"{tick:g}".replace("-", "−") for tick in ticks]
    if strip:
        ticks, names = np.append(ticks, low - 0.52 * strip), [*names, "zeros"]
    panel.set_xticks(ticks, names)
    panel.tick_params(labelsize=7, length=2)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.set_title(_title(gene), fontsize=8)


def _n_bins(gene: _Gene, span: float) -> int:
    """Return the number of bins by Freedman and Diaconis, of the smaller group."""
    values = [v[v != 0] for v in (gene.control, gene.perturbed)]
    fewer = min((v for v in values if len(v) > 1), key=len, default=None)
    if fewer is None:
        return _FEWEST_BINS
    low, high = np.quantile(fewer, [0.25, 0.75])
    width = max(2 * (high - low) / len(fewer) ** (1 / 3), span / _MOST_BINS)
    return int(max(np.ceil(span / width), _FEWEST_BINS)) if high > low else _FEWEST_BINS


def _title(gene: _Gene) -> str:
    n = len(gene.perturbed)
    shift = gene.perturbed.mean() - gene.control.mean()
    error, digits = "", 2
    if min(n, len(gene.control)) > 1:
        variance = gene.perturbed.var(ddof=1) / n + gene.control.var(ddof=1) / len(gene.control)
        reach = REACH * np.sqrt(variance)
        if reach > 0:
            digits = int(np.clip(-np.floor(np.log10(reach)), 2, 4))
        error = f" ± {reach:.{digits}f}"
    number = f"{shift:+.{digits}f}".replace("-", "−")
    return f"{gene.name} ({n:,} cell{'s' * (n > 1)})\n{number}{error}"
