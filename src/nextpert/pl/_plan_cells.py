"""Curves of a plan of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert._adata.arguments import checked
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    finish,
    logarithmic,
    read_to_draw,
    root_figure,
)

if TYPE_CHECKING:
    import os

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES: tuple[tuple[str, Any], ...] = (
    (ORANGE, (0, (1, 1))),
    ("#E69F00", (0, (4, 1.5))),
    (GREEN, (0, (3, 1, 1, 1))),
    (BLUE, "-"),
    (PURPLE, (0, (6, 1.5))),
)


_BOTTOM = {"power": 0.0, "right_choice": 0.5}  # of what goes up to 1


class _Panel(NamedTuple):
    """A column of the curves: what it is, and what is wanted of it."""

    column: str
    label: str
    wanted: float


@checked()
def plan_cells(
    adata: AnnData,
    *,
    key: str = "plan_cells",
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | Axes | None:
    """Draw what a number of cells tells, for several numbers of guides.

    Above, the share of genes in which the wanted effect is found, and half the width of the
    interval of an effect on the median gene. With a target, below: half the width of the interval
    of the nearest perturbation's squared distance, as a share of the controls' distance, and the
    probability that it comes out nearer than the second. One line a number of guides, where guides
    differ; the black one is the number planned for. Dashed lines are what is wanted.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.plan_cells`.
    key
        Its ``key_added``.
    ax
        Axes to draw the power on; the other panels are left out then.
    show
        Whether to show the figure; by default as scanpy is set up.
    return_fig
        Whether to return the figure.
    save
        File to save the figure to.

    Returns
    -------
    ~matplotlib.figure.Figure, ~matplotlib.axes.Axes, list of them, or None
        The figure, with ``return_fig``; ``None`` once shown; else the axes.

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
    >>> npt.tl.plan_cells(adata, {"MYC": 1.0})
    >>> figure = npt.pl.plan_cells(adata, return_fig=True)
    >>> len(figure.axes)
    4
    """
    stored = read_to_draw(adata, key, "tl.plan_cells", what="plan of cells", part="curves")
    panels = _panels(stored)
    if ax is not None:
        _draw(ax, panels[0], stored)
        ax.set_xlabel("cells a perturbation", fontsize=9)
        _legend(ax, stored)
        figure = root_figure(ax)
        return finish(figure, ax, show=show, return_fig=return_fig, save=save, own=False)
    figure, axes = _figure(panels, stored)
    return finish(figure, axes, show=show, return_fig=return_fig, save=save, own=True)


def _panels(stored: dict[str, Any]) -> list[_Panel]:
    params = stored["params"]
    percent = f"{100 * float(params['confidence']):g} % interval"
    effect, power = float(params["effect"]), float(params["power"])
    panels = [
        _Panel("power", f"share of genes in which\na change of {effect:g} is found", power),
        _Panel(
            "half_width",
            f"half of the {percent}\nof the median gene (units of the data)",
            effect / 2,
        ),
    ]
    if "distances" not in stored:
        return panels
    first, *others = (str(name) for name in stored["distances"]["perturbation"])
    label = f"half of the {percent} of the squared\ndistance (share of the controls')"
    panels.append(_Panel("distance_half_width", label, float(params["tolerance"])))
    if others:
        label = f"probability that {_short(first)}\ncomes out nearer than {_short(others[0])}"
        panels.append(_Panel("right_choice", label, power))
    return panels


def _short(name: str) -> str:
    return name if len(name) < 20 else f"{name[:18]}…"


def _figure(panels: list[_Panel], stored: dict[str, Any]) -> tuple[Figure, list[Axes]]:
    import matplotlib.pyplot as plt

    rows = -(-len(panels) // 2)
    figure = plt.figure(figsize=(7.6, 0.7 + 2.6 * rows), layout="constrained")
    axes = []
    for i, panel in enumerate(panels):
        axes.append(figure.add_subplot(rows, 2, i + 1))
        _draw(axes[-1], panel, stored)
        axes[-1].set_xlabel("cells a perturbation", fontsize=9)
    _legend(axes[0], stored)
    noise = stored["noise"]
    title = f"{noise['n_control_cells']} control cells"
    if "target" in stored["params"]:
        name = str(stored["params"]["target"])
        title += f"; target {name if len(name) < 50 else name[:48] + '…'}"
    figure.suptitle(title, fontsize=9)
    return figure, axes


def _draw(axes: Axes, panel: _Panel, stored: dict[str, Any]) -> None:
    curves = stored["curves"]
    for n_guides, curve, colour, dashes in _lines(curves, stored):
        wide = n_guides == int(stored["params"]["n_guides"])
        axes.plot(
            curve["n_cells"], curve[panel.column], color=colour, linestyle=dashes,
            linewidth=2.0 if wide else 1.4, zorder=3 if wide else 2,
        )  # fmt: skip
    axes.axhline(panel.wanted, color=GREY, linestyle="--", linewidth=1, zorder=1)
    cells = curves["n_cells"].to_numpy(float)
    logarithmic(axes, float(cells.max() / cells.min()))
    if panel.column in _BOTTOM:
        axes.set_ylim(_BOTTOM[panel.column] - 0.03, 1.03)
    else:
        # The few cells at the left would flatten all that matters.
        values = curves.loc[curves["n_cells"] >= 10, panel.column].to_numpy(float)
        top = max(float(np.nanmax(values, initial=0.0)), panel.wanted)
        axes.set_ylim(0, 1.08 * top)
    axes.set_ylabel(panel.label, fontsize=8.5)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _lines(
    curves: pd.DataFrame, stored: dict[str, Any]
) -> list[tuple[int, pd.DataFrame, str, Any]]:
    """Return the curve of every number of guides, with its colour and dashes."""
    planned, styles, lines = int(stored["params"]["n_guides"]), iter(_STYLES), []
    for n_guides, curve in curves.groupby("n_guides"):
        number = int(str(n_guides))
        colour, dashes = (BLACK, "-") if number == planned else next(styles)
        lines.append((number, curve, colour, dashes))
    return lines


def _legend(axes: Axes, stored: dict[str, Any]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], color=colour, linestyle=dashes,
            label=f"{number} guide{'s' * (number > 1)}",
        )
        for number, _, colour, dashes in _lines(stored["curves"], stored)
    ]  # fmt: skip
    handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1, label="wanted"))
    axes.legend(handles=handles, frameon=False, fontsize=8, loc="lower right")
