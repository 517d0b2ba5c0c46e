"""Effects of many perturbations as a map, or of one with its intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage

from nextpert._adata import in_order, read_result
from nextpert._adata.arguments import checked
from nextpert._adata.effects import CLEAR_SIGN
from nextpert.core.fit.naming import Naming
from nextpert.pl._docs import documented
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    SCREEN,
    chosen,
    draw_map,
    entry,
    finish,
    first_of,
    font_size,
    legend,
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
    """Draw the strongest effects of perturbations on genes; of a single one, with intervals.

    Of several perturbations, a map: a row each, a column per gene, both in the order of a
    clustering of the effects. Colour is the expected effect; + and − mark those whose direction is
    significant (local false sign rate below 0.05).

    Of one, a row per gene: the expected effect with its interval, filled where its direction is
    significant; the diamond is its direct part, which is not mediated by other genes of the graph;
    the grey tick is the difference of the cells' means.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.perturbation_effects`.
    perturbations
        Labels to draw; by default all. One alone, as ``["STAT1"]``, is drawn with intervals.
    key
        The ``key_added`` of the effects.
    n_top
        Maximum number of perturbations, and of genes: those with the largest effects.
    %(end)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there are no effects (run :func:`nextpert.tl.perturbation_effects` first), or a
        perturbation is not among them.

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
    held = [str(name) for name in stored["perturbations"]]
    naming = Naming({str(gene) for gene in stored["genes"]}, str(stored["params"]["separator"]))
    asked = held if perturbations is None else map(str, in_order(perturbations))
    rows = chosen(
        naming.spelled(asked, held), held, "Perturbations without effects", f"adata.uns[{key!r}]"
    )
    if len(rows) == 1:
        genes = _strongest(stored["mean"][rows[0]][None], n_top, axis=1)
        row = row_height(len(genes), 0.19, 1.5)
        panel = panel_of(ax, (5.6, max(2.6, 1.5 + row * len(genes))))
        _draw_intervals(panel, stored, rows[0], genes, row)
    else:
        kept = rows[_strongest(stored["mean"][rows], n_top, axis=0)]
        genes = _strongest(stored["mean"][kept], n_top, axis=1)
        # Of many genes, columns are narrower as well: two screens wide, at most.
        cell = (row_height(len(genes), 0.19, 2.6 - SCREEN), row_height(len(kept), 0.19, 1.9))
        panel = panel_of(ax, (2.6 + cell[0] * len(genes), 1.9 + cell[1] * len(kept)))
        _draw_effects(panel, stored, kept, genes, cell)
        title = first_of(len(kept), len(rows), "perturbations")
        title += f" on {first_of(len(genes), len(stored['genes']), 'genes')}{_where(stored)}"
        panel.set_title(
            f"effects of {title}\n(+ or −: significant direction, lfsr < {CLEAR_SIGN:g})"
        )
    return finish(panel, own=ax is None, show=show, return_fig=return_fig, save=save)


def _strongest(effect: np.ndarray, n: int, *, axis: int) -> np.ndarray:
    """Return the rows (``axis`` 0) or columns with the largest effects, in their order."""
    size = np.abs(effect).max(axis=1 - axis)
    return np.sort(np.argsort(-size, kind="stable")[:n])


def _with_cells(stored: dict[str, Any], row: int) -> str:
    """Return a perturbation's name with its cells, for labels."""
    n = int(stored["n_cells"][row])
    cells = f"{n} cell{'s' * (n > 1)}" if n else "no cells"
    return f"{stored['perturbations'][row]} ({cells})"


def _where(stored: dict[str, Any]) -> str:
    """Return the condition that effects are of, for titles."""
    condition = stored["params"].get("condition")
    return "" if condition is None else f" in {condition}"


def _draw_effects(
    panel: Axes,
    stored: dict[str, Any],
    rows: np.ndarray,
    columns: np.ndarray,
    cell: tuple[float, float],
) -> None:
    """Draw the map of some perturbations and genes; ``cell`` is the size of a field in inches."""
    effect = stored["mean"][np.ix_(rows, columns)]
    down, right = _order(effect), _order(effect.T)
    effect, rows, columns = effect[np.ix_(down, right)], rows[down], columns[right]
    # A few genes (mostly the targets) move far more than all others, which are to be seen, too.
    limit = max(float(np.quantile(np.abs(effect), 0.98)), 1e-12)
    names = ([_with_cells(stored, j) for j in rows], [str(stored["genes"][i]) for i in columns])
    draw_map(panel, effect, names, cell, limit, "effect\n(log-normalised expression)")
    # Signs, not dots alone: both ends of the colours are equally dark where there is no colour.
    significant = stored["lfsr"][np.ix_(rows, columns)] < CLEAR_SIGN
    size = (0.3 * 72 * min(cell)) ** 2
    for marker, sign in (("+", 1), ("_", -1)):
        y, x = np.nonzero(significant & (np.sign(effect) == sign))
        ink = np.where(np.abs(effect[y, x]) > 0.7 * limit, "white", BLACK)
        panel.scatter(x + 0.5, y + 0.5, s=size, marker=marker, c=ink, linewidths=0.8, zorder=3)


def _order(effect: np.ndarray) -> np.ndarray:
    """Return the order of rows that a clustering puts side by side."""
    if len(effect) < 3:
        return np.arange(len(effect))
    tree = linkage(effect, method="average", optimal_ordering=True)
    return np.asarray(leaves_list(tree), np.int64)


def _draw_intervals(
    panel: Axes, stored: dict[str, Any], row: int, columns: np.ndarray, height: float
) -> None:
    """Draw the effects of one perturbation on some genes, the largest on top.

    ``height`` is that of a row, in inches.
    """
    columns = columns[np.argsort(-stored["mean"][row, columns], kind="stable")]
    mean, lower, upper, lfsr, direct, of_cells = (
        stored[name][row, columns]
        for name in ("mean", "lower", "upper", "lfsr", "direct", "raw_mean")
    )
    places = np.arange(len(columns))
    panel.axvline(0.0, color=GREY, linestyle="--", linewidth=1, zorder=1)
    panel.hlines(places, lower, upper, colors=BLUE, linewidth=1.3, zorder=3)
    face = np.where(lfsr < CLEAR_SIGN, BLUE, "white")
    panel.scatter(mean, places, c=face, edgecolors=BLUE, s=22, zorder=4)
    panel.scatter(
        direct, places, marker="D", c="none", edgecolors=ORANGE, s=18, linewidths=1, zorder=5
    )
    known = np.isfinite(of_cells)
    panel.scatter(of_cells[known], places[known], marker="|", c=GREY, s=50, linewidth=1.2, zorder=2)
    names = [str(stored["genes"][i]) for i in columns]
    panel.set_yticks(places, names, fontsize=font_size(height, 7))
    panel.set_ylim(len(columns) - 0.4, -0.6)
    level = f"{100 * float(stored['params']['level']):g}%"
    panel.set_xlabel(
        f"effect: mean minus that of {stored['params']['control']}\n"
        f"(log-normalised expression, {level} intervals)"
    )
    genes = first_of(len(columns), len(stored["genes"]), "genes")
    panel.set_title(f"effect of {_with_cells(stored, row)}{_where(stored)}\non {genes}")
    handles = [
        entry(f"significant direction (lfsr < {CLEAR_SIGN:g})", BLUE, "o", line="-"),
        entry("direction not significant", BLUE, "o", line="-", face="white"),
        entry("direct part", ORANGE, "D", face="none", markersize=4),
    ]
    if known.any():
        handles.append(entry("difference of the cells' means", GREY, "|", markersize=7))
    legend(panel, handles)
