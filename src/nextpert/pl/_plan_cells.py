"""Curves of a plan of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import read_result
from nextpert._adata.arguments import checked
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    PURPLE,
    TEXT,
    counted,
    documented,
    finish,
    legend,
    logarithmic,
    panels_of,
    root_figure,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour and dashes for numbers of guides other than the planned one.
_STYLES: tuple[tuple[str, Any], ...] = (
    (ORANGE, (0, (1, 1))),
    (PALETTE[0], (0, (4, 1.5))),
    (GREEN, (0, (3, 1, 1, 1))),
    (BLUE, "-"),
    (PURPLE, (0, (6, 1.5))),
)
_FEW_CELLS = 10  # values for fewer cells do not determine the range of the axis


@checked()
@documented
def plan_cells(
    adata: AnnData,
    *,
    key: str = "plan_cells",
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | None:
    """Draw power and precision by number of cells and guides.

    The panels show the fraction of genes in which the effect is detected, and half the width of the
    interval of an effect on the median gene. Each number of guides has a line; the line of the plan
    is black. Dashed lines are the values needed. If the plan has ``n_cells``, a third panel shows
    the fraction of genes by the number of perturbations that share these cells.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.plan_cells`.
    key
        The ``key_added`` of :func:`nextpert.tl.plan_cells`.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there is no plan (run :func:`nextpert.tl.plan_cells` first).

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(perturbed=["MYC", "FOS"], n_control=500)
    >>> npt.tl.learn_dag(adata)
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.plan_cells(adata, n_cells=5000)
    >>> figure = npt.pl.plan_cells(adata, return_fig=True)
    >>> len(figure.axes)
    3
    """
    stored = read_result(adata, key, "tl.plan_cells", what="plan of cells", part="curves")
    effect, power = float(stored["params"]["effect"]), float(stored["params"]["power"])
    budget = stored.get("budget")
    if budget is not None and budget.empty:
        budget = None
    panels, _ = panels_of(2 + (budget is not None), 2, (3.8, 2.6), (0.0, 0.7))
    title = f"{stored['noise']['n_control_cells']} control cells"
    root_figure(panels[0]).suptitle(title, fontsize=TEXT)
    if budget is not None:
        _draw_budget(panels[-1], budget, stored["params"])
    _draw(panels[0], stored, "power", power)
    panels[0].set_ylim(-0.03, 1.03)
    panels[0].set_ylabel(f"fraction of genes in which\na change of {effect:g} is detected")
    _draw(panels[1], stored, "half_width", effect / 2)
    panels[1].set_ylabel("half of the 90% interval of the\nmedian gene (units of the data)")
    legend(panels[0], panels[0].get_legend_handles_labels()[0], loc="lower right")
    return finish(panels, own=True, show=show, return_fig=return_fig, save=save)


def _draw(panel: Axes, stored: dict[str, Any], column: str, needed: float) -> None:
    """Draw one column of the curves, a line per number of guides, and the value needed."""
    curves, styles = stored["curves"], iter(_STYLES)
    for n_guides, curve in curves.groupby("n_guides"):
        is_planned = n_guides == stored["params"]["n_guides"]
        colour, dashes = (BLACK, "-") if is_planned else next(styles)
        panel.plot(
            curve["n_cells"], curve[column], color=colour, linestyle=dashes,
            linewidth=2.0 if is_planned else 1.4, zorder=3 if is_planned else 2,
            label=counted(int(str(n_guides)), "guide"),
        )  # fmt: skip
    panel.axhline(needed, color=GREY, linestyle="--", linewidth=1, zorder=1, label="needed")
    logarithmic(panel, "x", curves["n_cells"].max() / curves["n_cells"].min())
    values = curves.loc[curves["n_cells"] >= _FEW_CELLS, column].to_numpy(float)
    panel.set_ylim(0, 1.08 * np.nanmax(values, initial=needed))
    panel.set_xlabel("cells per perturbation")


def _draw_budget(panel: Axes, budget: pd.DataFrame, params: Mapping[str, Any]) -> None:
    """Draw the power by number of perturbations, and mark the largest number with enough power."""
    number, needed = budget["n_perturbations"], float(params["power"])
    panel.plot(number, budget["power"], color=BLACK, linewidth=2.0, zorder=3)
    panel.axhline(needed, color=GREY, linestyle="--", linewidth=1, zorder=1)
    if (enough := budget["power"] >= needed).any():
        largest = budget[enough].iloc[-1]
        panel.plot(largest["n_perturbations"], largest["power"], "o", color=BLACK, zorder=4)
        panel.text(
            0.04, 0.06, f"{largest['n_perturbations']:,.0f} perturbations,\n"
            f"{largest['n_cells']:,.0f} cells each", transform=panel.transAxes, fontsize=TEXT,
        )  # fmt: skip
    logarithmic(panel, "x", number.max() / number.min())
    panel.set_ylim(-0.03, 1.03)
    panel.set_xlabel(f"perturbations that share {int(params['n_cells']):,} cells")
    panel.set_ylabel(f"fraction of genes in which\na change of {params['effect']:g} is detected")
