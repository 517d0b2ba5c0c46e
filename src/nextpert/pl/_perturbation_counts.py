"""Cells per perturbation, ranked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata import (
    measured_genes,
    read_perturbations,
    read_roles,
    require_control,
)
from nextpert._adata.arguments import ANY_TEXT, checked
from nextpert.core.fit.naming import Naming
from nextpert.pl._docs import documented
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    finish,
    legend,
    panel_of,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from nextpert._adata import LabelTable

    Counts = dict[int, list[tuple[int, str]]]

# More perturbations than these are ranked by number, without their names.
_MOST_NAMES = 70
# Bars that differ by more than this factor are drawn on a logarithmic axis.
_WIDE = 50
# Numbers of targets from the last of these on are drawn together.
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE)


@checked(separator=ANY_TEXT)
@documented
def perturbation_counts(
    adata: AnnData,
    *,
    perturbation_key: str | None = None,
    control: str | None = None,
    separator: str = "+",
    exclude: Sequence[str] = (),
    min_cells: int | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | Axes | None:
    """Draw the number of cells of every perturbation, ranked, by its number of targets.

    As in Supplementary Figs. 5 and 6 of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0). Up to
    70 perturbations are bars with names; more are curves over the rank, one for each number of
    targets, from 4 on together. The axis of cells is logarithmic for curves, and for bars that
    differ widely.

    Parameters
    ----------
    adata
        Cells x genes, with labels.
    %(roles)s
    exclude
        Further labels that are no perturbation, beside those such as ``"unassigned"``; the title
        counts their cells.
    min_cells
        Draw a line at this number of cells, and count the perturbations that reach it.
    %(end)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If the column of labels is absent, there are no control or no perturbed cells, or a label
        of ``exclude`` is unknown.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=100, n_perturbed=20, perturbed=["MYC"])
    >>> figure = npt.pl.perturbation_counts(adata, return_fig=True)
    >>> figure.axes[0].get_title().splitlines()
    ['1 perturbation, 20 cells', '100 cells control']
    """
    roles = read_roles(
        adata, perturbation_key=perturbation_key, control=control, separator=separator
    )
    control, labels = roles.control, read_perturbations(adata, roles)
    require_control(labels, control)
    named = [exclude] if isinstance(exclude, str) else [str(name) for name in exclude]
    left_out = labels.spelled(named)
    labels.require([name for name in left_out if name not in labels.left_out], "Labels to exclude")
    counts, n_out = _count(adata, labels, control, separator, set(left_out))
    n_labels = sum(map(len, counts.values()))
    has_legend = len(counts) > 1 or min_cells is not None
    width = max(1.0 + 0.21 * n_labels, 3.6) if n_labels <= _MOST_NAMES else 5.0
    panel = panel_of(ax, (width + 2.4 * has_legend, 3.6))
    draw = _draw_bars if n_labels <= _MOST_NAMES else _draw_curves
    draw(panel, counts, min_cells)
    if min_cells is not None:
        panel.axhline(min_cells, color=BLACK, linestyle="--", linewidth=1, zorder=3)
    if has_legend:
        legend(panel, panel.get_legend_handles_labels()[0])
    n_cells = sum(n for ranked in counts.values() for n, _ in ranked)
    title = f"{n_labels:,} perturbation{'s' * (n_labels > 1)}, {n_cells:,} cells"
    title += f"\n{labels.n_cells(control):,} cells {control}"
    panel.set_title(title + (f", {n_out:,} cells left out" if n_out else ""))
    panel.set_ylabel("cells")
    return finish(panel, own=ax is None, show=show, return_fig=return_fig, save=save)


def _count(
    adata: AnnData, labels: LabelTable, control: str, separator: str, left_out: set[str]
) -> tuple[Counts, int]:
    """Return (cells, label) by number of targets, ranked, and the number of cells left out."""
    kept = labels.codes >= 0
    each = None if labels.cells is None else labels.cells[kept]
    n_cells = np.bincount(labels.codes[kept], each, len(labels.names)).astype(np.int64)
    naming = Naming(set(measured_genes(adata)), separator, control)
    counts: Counts = {}
    n_out = sum(labels.left_out.values())
    for name, n in zip(labels.names, n_cells.tolist(), strict=True):
        n_targets = min(sum(map(len, naming.targets(name))), len(_COLOURS))
        if name in left_out or (name != control and not n_targets):
            n_out += n
        elif name != control:
            counts.setdefault(n_targets, []).append((n, name))
    if not counts:
        message = f"No perturbed cells: adata.obs[{labels.key!r}] holds no other label."
        raise ValueError(message)
    ranked = {k: sorted(counts[k], key=lambda item: (-item[0], item[1])) for k in sorted(counts)}
    return ranked, n_out


def _describe(n_targets: int, ranked: list[tuple[int, str]], min_cells: int | None) -> str:
    """Return ``"2 targets: 31 perturbations"``, for the legend."""
    several = f"{n_targets}{' or more' * (n_targets == len(_COLOURS))} targets"
    text = f"{several if n_targets > 1 else '1 target'}: {len(ranked):,}"
    text += f" perturbation{'s' * (len(ranked) > 1)}"
    if min_cells is None:
        return text
    return f"{text},\n{sum(n >= min_cells for n, _ in ranked):,} with {min_cells:,} cells or more"


def _draw_bars(panel: Axes, counts: Counts, min_cells: int | None) -> None:
    names: list[str] = []
    heights: list[int] = []
    for n_targets, ranked in counts.items():
        places = np.arange(len(names), len(names) + len(ranked))
        bars = panel.bar(
            places, [n for n, _ in ranked], color=_COLOURS[n_targets - 1], width=0.75,
            label=_describe(n_targets, ranked, min_cells), linewidth=0,
        )  # fmt: skip
        panel.bar_label(bars, padding=3, rotation=90, fontsize=7, color=BLACK)
        names += [name for _, name in ranked]
        heights += [n for n, _ in ranked]
    panel.set_xticks(range(len(names)), names, rotation=90)
    panel.set_xlim(-0.7, len(names) - 0.3)
    if max(heights) > _WIDE * min(heights):
        _logarithmic(panel, max(heights))
    else:
        panel.set_ylim(0, 1.2 * max(heights))


def _draw_curves(panel: Axes, counts: Counts, min_cells: int | None) -> None:
    most_labels = max(map(len, counts.values()))
    for n_targets, ranked in counts.items():
        rank = np.arange(1, len(ranked) + 1)
        height: NDArray[np.int64] = np.array([n for n, _ in ranked])
        label = _describe(n_targets, ranked, min_cells)
        marker = "o" if len(ranked) == 1 else None
        panel.plot(
            rank, height, color=_COLOURS[n_targets - 1], linewidth=1.8, label=label,
            drawstyle="steps-mid", marker=marker, markersize=4,
        )  # fmt: skip
    if most_labels > 500:
        from matplotlib.ticker import FuncFormatter

        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    panel.set_xlabel("rank of the perturbation")
    _logarithmic(panel, max(ranked[0][0] for ranked in counts.values()))


def _logarithmic(panel: Axes, most: int) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    panel.set_yscale("log")
    panel.set_ylim(0.8, 3 * most)
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
