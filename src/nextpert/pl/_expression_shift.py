"""Expression of target genes in perturbed and in control cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata import (
    measured_genes,
    read_blocks,
    read_labels,
    read_roles,
    require_control,
    resolve_panel,
)
from nextpert._adata.arguments import checked
from nextpert._adata.sources import dense
from nextpert.core.fit.naming import Naming
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREY,
    LIGHT,
    REACH,
    SMALL,
    chosen,
    counted,
    documented,
    entry,
    finish,
    label_grid,
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

    from nextpert._adata import LabelTable, Roles

    Values = NDArray[np.float64]
    Cells = dict[str, NDArray[np.bool_]]

_BINS = 8, 40  # minimum and maximum; in between, the root of the number of cells


@checked()
@documented
def expression_shift(
    adata: AnnData,
    *,
    genes: str | Sequence[str] | None = None,
    perturbation_key: str | None = None,
    control: str | None = None,
    layer: str | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | None:
    """Draw the expression of every target gene in control and in perturbed cells, with means.

    The figure shows whether each perturbation changes its own target gene, as in Extended Data Fig.
    9 of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0). Each panel is a histogram of the values
    other than zero (control grey, perturbed blue), with heights as shares of all cells of the
    group. The two bars in the grey strip on the left are the shares of zeros, on a scale of 0 to
    100%; there is no strip if no cell has a zero. Vertical lines are the means of all cells,
    including zeros; the title gives their difference ± half of its 90% interval.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression.
    genes
        Target genes to draw; by default all measured genes that are the only target of some cells.
    %(roles)s
    layer
        Layer to read; ``None`` stands for ``adata.X``.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there are no control cells, a gene is not measured or no cell is perturbed in it alone,
        or a value is NaN or infinite.

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
    control = roles.control
    labels = read_labels(adata, roles.perturbation_key)
    require_control(labels, control)
    naming = Naming(set(measured_genes(adata, roles.gene_symbols)), roles.separator, control)
    cells = _perturbed_cells(naming, labels, control)
    target_genes = list(cells)
    without = "No cells perturbed in these measured genes alone"
    rows = chosen(
        target_genes if genes is None else genes,
        target_genes,
        without,
        f"adata.obs[{labels.key!r}]",
    )
    names = [target_genes[i] for i in rows]
    groups = {"": labels.groups([control]) == 0} | {gene: cells[gene] for gene in names}
    values = _read(adata, names, groups, roles)
    axes, columns = panels_of(len(names), 6, (1.7, 1.5), (0.4, 1.2))
    width = root_figure(axes[0]).get_figwidth() / columns
    zeros = any((part == 0).any() for pair in values for part in pair)
    for panel, gene, (controls, perturbed) in zip(axes, names, values, strict=True):
        _draw(panel, controls, perturbed, zeros=zeros)
        panel.set_title(_title(gene, controls, perturbed), fontsize=min(5.5 * width, SMALL))
    handles = [
        Patch(color=GREY, alpha=0.55, linewidth=0, label=control),
        Patch(edgecolor=BLUE, facecolor="none", label="perturbed"),
        entry(f"mean of {control}", BLACK, line="-"),
        entry("mean of perturbed", BLUE, line="-"),
    ]
    if zeros:
        handles.append(Patch(color=LIGHT, linewidth=0, label="bars: share of zeros"))
    unit = "expression (log-normalised)\nin titles: change of the mean ± half of its 90% interval"
    n_columns = len(handles) if columns >= 5 else 2
    label_grid(axes, (unit, "cells"), handles, loc="outside upper center", ncols=n_columns)
    return finish(axes, is_new=True, show=show, return_fig=return_fig, save=save)


def _perturbed_cells(naming: Naming, labels: LabelTable, control: str) -> Cells:
    """Return the cells of every measured gene that is the only target of some cells."""
    labels_of: dict[str, list[str]] = {}
    for name in labels.names:
        inside, outside = naming.targets(name)
        if name != control and len(inside) == 1 and not outside:
            labels_of.setdefault(inside[0], []).append(name)
    return {gene: labels.groups(names) >= 0 for gene, names in labels_of.items()}


def _read(
    adata: AnnData, genes: list[str], cells: Cells, roles: Roles
) -> list[tuple[Values, Values]]:
    """Read each gene in controls (``cells[""]``) and its own cells, all in one pass."""
    _, columns = resolve_panel(adata, genes, gene_symbols=roles.gene_symbols)
    rows = np.flatnonzero(np.any(list(cells.values()), axis=0))
    values = np.empty((len(rows), len(genes)))
    for block_rows, block in read_blocks(adata, columns, rows, layer=roles.layer):
        values[np.searchsorted(rows, block_rows)] = dense(block)
    return [(values[cells[""][rows], j], values[cells[g][rows], j]) for j, g in enumerate(genes)]


def _draw(panel: Axes, control: Values, perturbed: Values, *, zeros: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    groups = (control, perturbed)
    low = min(*(float(values.min()) for values in groups), 0.0)
    high = max(*(float(values.max()) for values in groups), 0.0)
    span = (high - low) or 1.0
    strip = 0.3 * span if zeros else 0.0
    nonzero = [values[values != 0] for values in groups]
    n_bins = int(np.clip(np.sqrt(min(map(len, nonzero))), *_BINS))
    edges = np.linspace(low, low + span, 1 + n_bins)
    # Shares of all cells of the group; zeros are counted in the strip.
    tops = [
        np.histogram(x, edges)[0] / len(group) for x, group in zip(nonzero, groups, strict=True)
    ]
    unit = 0.92 / (max(float(top.max()) for top in tops) or 1.0)
    panel.stairs(unit * tops[0], edges, fill=True, color=GREY, alpha=0.55, linewidth=0)
    panel.stairs(unit * tops[1], edges, color=BLUE, linewidth=1.1)
    for colour, values in zip((BLACK, BLUE), groups, strict=True):
        panel.axvline(float(values.mean()), color=colour, linewidth=1.4)
    stop = low + 1.03 * span
    ticks = [tick for tick in MaxNLocator(4).tick_values(low, stop) if low <= tick <= stop]
    names = [f"{tick:g}".replace("-", "−") for tick in ticks]
    if zeros:
        panel.axvspan(low - strip, low - 0.02 * span, color=LIGHT, alpha=0.6, linewidth=0, zorder=0)
        places = low - strip * np.array([0.72, 0.32])
        shares = [float(np.mean(values == 0)) for values in groups]
        panel.bar(places, shares, 0.34 * strip, color=[GREY, BLUE])
        ticks, names = [*ticks, low - 0.52 * strip], [*names, "zeros"]
    panel.set(xlim=(low - strip, stop), ylim=(0, 1), yticks=[])
    panel.set_xticks(ticks, names)
    panel.tick_params(labelsize=7, length=2)
    panel.spines["left"].set_visible(False)


def _title(gene: str, control: Values, perturbed: Values) -> str:
    shift = f"{perturbed.mean() - control.mean():+.2f}".replace("-", "−")
    if min(len(control), len(perturbed)) > 1:
        variance = sum(values.var(ddof=1) / len(values) for values in (control, perturbed))
        shift += f" ± {REACH * np.sqrt(variance):.2f}"
    return f"{gene} ({counted(len(perturbed), 'cell')})\n{shift}"
