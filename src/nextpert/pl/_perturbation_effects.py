"""Effects of many perturbations as a heat map, or of one perturbation with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import in_order, read_result
from nextpert._adata.arguments import checked
from nextpert.core.fit.naming import Naming
from nextpert.core.model.scores import SIGNIFICANCE
from nextpert.pl._effect_map import (
    clustered,
    draw_effects,
    order_of,
    strongest,
    where,
    with_cells,
)
from nextpert.pl._figure import (
    BLUE,
    GREY,
    ORANGE,
    SCREEN,
    chosen,
    documented,
    draw_intervals,
    draw_marks,
    entry,
    finish,
    first_of,
    legend,
    name_rows,
    panel_of,
    row_height,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@checked()
@documented
def perturbation_effects(
    adata: AnnData,
    *,
    perturbations: Sequence[str] | None = None,
    key: str = "perturbation_effects",
    n_top: int = 40,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | Axes | None:
    """Draw the strongest effects of perturbations on genes, with intervals for a single one.

    Several perturbations are drawn as a heat map with a row per perturbation and a column per gene,
    both in the order of a clustering of the effects. Colour is the expected effect; + and − mark
    effects whose direction is significant (local false sign rate below 0.05).

    For a single perturbation, the plot has one row per gene. A point with a line marks the expected
    effect and its interval; the point is filled if the direction of the effect is significant. A
    diamond marks the direct part of the effect, which is not mediated by other genes of the graph.
    A grey tick marks the raw difference of means.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.perturbation_effects`.
    perturbations
        Labels to draw; by default all. A single one, as in ``["STAT1"]``, is drawn with intervals.
    key
        The ``key_added`` of :func:`nextpert.tl.perturbation_effects`.
    n_top
        Maximum number of perturbations, and of genes; those with the largest effects are drawn.
    ax
        Axes to draw on.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If the effects were not computed (run :func:`nextpert.tl.perturbation_effects` first), or
        do not include one of ``perturbations``.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(perturbed=["MYC", "FOS"], n_control=500)
    >>> npt.tl.learn_dag(adata)
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.perturbation_effects(adata)
    >>> figure = npt.pl.perturbation_effects(adata, perturbations=["MYC"], return_fig=True)
    >>> figure.axes[0].get_title().splitlines()[0]
    'effect of MYC (100 cells)'
    """
    stored = read_result(adata, key, "tl.perturbation_effects", what="effects", part="lfsr")
    labels = [str(name) for name in stored["perturbations"]]
    naming = Naming({str(gene) for gene in stored["genes"]}, str(stored["params"]["separator"]))
    requested = labels if perturbations is None else map(str, in_order(perturbations))
    rows = chosen(
        naming.spelled(requested, labels),
        labels,
        "Perturbations without effects",
        f"adata.uns[{key!r}]",
    )
    drawn = rows[strongest(stored["mean"][rows], n_top, axis=0)]
    genes = strongest(stored["mean"][drawn], n_top, axis=1)
    down = row_height(len(genes) if len(rows) == 1 else len(drawn), 1.9)
    if len(rows) == 1:
        panel = panel_of(ax, (5.6, max(2.6, 1.5 + down * len(genes))))
        _draw_intervals(panel, stored, rows[0], genes)
    else:
        # With many genes, columns are narrower as well: the figure is at most two screens wide.
        cell = (row_height(len(genes), 2.6 - SCREEN), down)
        panel = panel_of(ax, (2.6 + cell[0] * len(genes), 1.9 + cell[1] * len(drawn)))
        effect = stored["mean"][np.ix_(drawn, genes)]
        rows_drawn = drawn[order_of(clustered(effect))]
        draw_effects(panel, stored, rows_drawn, genes[order_of(clustered(effect.T))], cell)
        title = first_of(len(drawn), len(rows), "perturbations")
        title += f" on {first_of(len(genes), len(stored['genes']), 'genes')}{where(stored)}"
        panel.set_title(
            f"effects of {title}\n(+ or −: significant direction, lfsr < {SIGNIFICANCE:g})"
        )
    return finish(panel, is_new=ax is None, show=show, return_fig=return_fig, save=save)


def _draw_intervals(panel: Axes, stored: dict[str, Any], row: int, columns: np.ndarray) -> None:
    """Draw the effects of one perturbation on some genes, the largest on top."""
    columns = columns[np.argsort(-stored["mean"][row, columns], kind="stable")]
    mean, lower, upper, lfsr, direct, of_cells = (
        stored[name][row, columns]
        for name in ("mean", "lower", "upper", "lfsr", "direct", "raw_mean")
    )
    panel.axvline(0.0, color=GREY, linestyle="--", linewidth=1, zorder=1)
    draw_intervals(panel, (mean, lower, upper), lfsr < SIGNIFICANCE)
    panel.scatter(
        direct, range(len(columns)), marker="D", c="none", edgecolors=ORANGE, s=18, zorder=5
    )
    draw_marks(panel, of_cells, GREY)
    name_rows(panel, [str(stored["genes"][i]) for i in columns])
    level = f"{100 * float(stored['params']['level']):g}%"
    panel.set_xlabel(
        f"effect: mean minus that of {stored['params']['control']}\n"
        f"(log-normalised expression, {level} intervals)"
    )
    genes = first_of(len(columns), len(stored["genes"]), "genes")
    panel.set_title(f"effect of {with_cells(stored, row)}{where(stored)}\non {genes}")
    handles = [
        entry(f"significant direction (lfsr < {SIGNIFICANCE:g})", BLUE, "o", line="-"),
        entry("direction not significant", BLUE, "o", line="-", face="white"),
        entry("direct part", ORANGE, "D", face="none", markersize=4),
    ]
    if np.isfinite(of_cells).any():
        handles.append(entry("difference of the cells' means", GREY, "|", markersize=7))
    legend(panel, handles)
