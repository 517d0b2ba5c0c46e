"""Curves of a plan of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import read_result
from nextpert._adata.arguments import checked
from nextpert.pl._docs import documented
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    PURPLE,
    entry,
    finish,
    goal,
    legend,
    logarithmic,
    short,
)

if TYPE_CHECKING:
    import os

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES: tuple[tuple[str, Any], ...] = (
    (ORANGE, (0, (1, 1))),
    (PALETTE[0], (0, (4, 1.5))),
    (GREEN, (0, (3, 1, 1, 1))),
    (BLUE, "-"),
    (PURPLE, (0, (6, 1.5))),
)
_BOTTOM = {"power": 0.0, "right_choice": 0.5}  # of what goes up to 1
_FEW_CELLS = 10  # fewer would flatten all that matters
_SAME = 0.02  # of a panel's height: curves that are nearer than about the width of a line


@checked()
@documented
def plan_cells(
    adata: AnnData,
    *,
    key: str = "plan_cells",
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | Axes | None:
    """Draw power and precision by number of cells and guides.

    Above, the fraction of genes in which the effect is detected, and half the width of the
    interval of an effect on the median gene. With a target, below: half the width of the interval
    of the nearest perturbation's squared distance, relative to the control's distance, and the
    probability that it is measured nearer than the second. One line per number of guides; numbers
    whose curves coincide share one. The black line is the number planned for; dashed
    lines are the values needed.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.plan_cells`.
    key
        Its ``key_added``.
    ax
        Axes to draw the power on; the other panels are left out then.
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
    >>> npt.tl.plan_cells(adata, {"MYC": 1.0})
    >>> figure = npt.pl.plan_cells(adata, return_fig=True)
    >>> len(figure.axes)
    4
    """
    import matplotlib.pyplot as plt

    stored = read_result(adata, key, "tl.plan_cells", what="plan of cells", part="curves")
    what = _what_to_draw(stored)
    if ax is not None:
        panels, what = [ax], what[:1]
    else:
        rows = -(-len(what) // 2)
        figure = plt.figure(figsize=(7.6, 0.7 + 2.6 * rows), layout="constrained")
        panels = [figure.add_subplot(rows, 2, i + 1) for i in range(len(what))]
        title = f"{stored['noise']['n_control_cells']} control cells"
        if "target" in stored["params"]:
            title += f"; target {goal(stored['params']['target'])}"
        figure.suptitle(title, fontsize=9)
    lines = _lines(stored, [column for column, _, _ in what])
    for panel, (column, label, wanted) in zip(panels, what, strict=True):
        _draw(panel, stored["curves"], lines, column, wanted)
        panel.set_ylabel(label)
    handles = [entry(label, colour, line=dashes) for label, _, colour, dashes in lines]
    legend(panels[0], [*handles, entry("needed", GREY, line="--")], loc="lower right")
    drawn = panels if ax is None else ax
    return finish(drawn, own=ax is None, show=show, return_fig=return_fig, save=save)


def _what_to_draw(stored: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Return a panel's column of the curves, its label, and the value needed."""
    params = stored["params"]
    effect, power = float(params["effect"]), float(params["power"])
    panels = [
        ("power", f"fraction of genes in which\na change of {effect:g} is detected", power),
        (
            "half_width",
            "half of the 90% interval of the\nmedian gene (units of the data)",
            effect / 2,
        ),
    ]
    if "distances" not in stored:
        return panels
    first, *others = (short(str(name), 20) for name in stored["distances"]["perturbation"])
    label = "half of the 90% interval of the squared\ndistance (relative to the control's)"
    if stored["curves"]["distance_half_width"].notna().any():  # not if the control is at the target
        panels.append(("distance_half_width", label, float(params["tolerance"])))
    if others:
        label = f"probability that {first}\nis measured nearer than {others[0]}"
        panels.append(("right_choice", label, power))
    return panels


def _lines(stored: dict[str, Any], columns: list[str]) -> list[tuple[str, pd.DataFrame, str, Any]]:
    """Return label, curve, colour and dashes of every line, one for guides that coincide."""
    planned, styles = int(stored["params"]["n_guides"]), iter(_STYLES)
    groups: list[dict[int, pd.DataFrame]] = []
    for n_guides, curve in stored["curves"].groupby("n_guides"):
        if groups and _coincide(next(iter(groups[-1].values())), curve, columns):
            groups[-1][int(str(n_guides))] = curve
        else:
            groups.append({int(str(n_guides)): curve})
    lines = []
    for group in groups:
        first, last = min(group), max(group)
        label = f"{last} guide{'s' * (last > 1)}" if first == last else f"{first} to {last} guides"
        is_planned = planned in group
        style = (BLACK, "-") if is_planned else next(styles)
        lines.append((label, group[planned if is_planned else first], *style))
    return lines


def _coincide(one: pd.DataFrame, two: pd.DataFrame, columns: list[str]) -> bool:
    """Return whether two curves look the same in every panel."""
    a, b = (
        curve.loc[curve["n_cells"] >= _FEW_CELLS, columns].to_numpy(float) for curve in (one, two)
    )
    if a.shape != b.shape:
        return False
    height = np.maximum(np.nanmax(np.abs(a), axis=0, initial=0.0), 1e-12)
    return not bool((np.abs(a - b) > _SAME * height).any())


def _draw(
    panel: Axes,
    curves: pd.DataFrame,
    lines: list[tuple[str, pd.DataFrame, str, Any]],
    column: str,
    wanted: float,
) -> None:
    """Draw one column of the curves; lines as in :func:`_lines`, ``wanted`` as a dashed line."""
    for _, curve, colour, dashes in lines:
        is_planned = colour == BLACK
        panel.plot(
            curve["n_cells"], curve[column], color=colour, linestyle=dashes,
            linewidth=2.0 if is_planned else 1.4, zorder=3 if is_planned else 2,
        )  # fmt: skip
    panel.axhline(wanted, color=GREY, linestyle="--", linewidth=1, zorder=1)
    cells = curves["n_cells"].to_numpy(float)
    logarithmic(panel, float(cells.max() / cells.min()))
    if column in _BOTTOM:
        panel.set_ylim(_BOTTOM[column] - 0.03, 1.03)
    else:
        values = curves.loc[curves["n_cells"] >= _FEW_CELLS, column].to_numpy(float)
        panel.set_ylim(0, 1.08 * max(float(np.nanmax(values, initial=0.0)), wanted))
    panel.set_xlabel("cells per perturbation")
