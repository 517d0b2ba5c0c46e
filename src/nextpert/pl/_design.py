"""The ranking of a design, and the rounds so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import read_result
from nextpert._adata.arguments import checked
from nextpert.core._text import percent
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    documented,
    draw_intervals,
    draw_marks,
    entry,
    finish,
    first_of,
    font_size,
    goal,
    legend,
    name_rows,
    root_figure,
    row_height,
    row_panels,
    short,
    square_root,
    unit_of_distance,
)

if TYPE_CHECKING:
    import os

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE = 30  # the axis is square-root if distances differ by more than this factor


@checked()
@documented
def design(
    adata: AnnData,
    *,
    key: str = "design",
    n_top: int = 30,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | None:
    """Draw the ranking of candidate perturbations and the trace of all rounds.

    The left panel shows the predicted squared distance of every candidate's mean to the target with
    its 90% interval, the best candidate on top (on a square-root axis if distances vary widely).
    The middle panel shows the acquisition that ranks the candidates. From the second round towards
    this target on, a third panel shows the predicted distance of the candidate chosen in each
    round, with its 90% interval. The chosen candidate is orange; open circles are candidates
    without cells; a stroke marks the distance of the measured cells; the dashed line is the
    distance of the control.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.design_interventions`.
    key
        The ``key_added`` of :func:`nextpert.tl.design_interventions`.
    n_top
        Maximum number of candidates.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there is no design (run :func:`nextpert.tl.design_interventions` first).

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=200, n_perturbed=20, perturbed=["MYC"])
    >>> npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STAT1"), ("STAT1", "B2M")])
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.design_interventions(adata, {"B2M": 3.0}, candidates="genes")
    >>> figure = npt.pl.design(adata, return_fig=True)
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    [...]
    """
    stored = read_result(adata, key, "tl.design_interventions", what="design", part="ranking")
    table = stored["ranking"].sort_values("rank")
    is_control = table["is_control"].to_numpy(dtype=bool)
    ranking = table[~is_control]
    top = ranking.head(n_top)
    control = float(table.loc[is_control, "predicted_distance"].iloc[0])
    trace = stored["trace"]
    trace = trace[trace["target"].astype(str) == str(stored["params"]["target"])]
    handles = [
        entry("chosen", ORANGE, "o"),
        entry("measured cells", BLUE, "o"),
        entry("no cells yet", BLUE, "o", face="white"),
        entry("90% interval", GREY, line="-"),
        entry("distance of the cells", BLACK, "|"),
        entry("control", GREY, line="--"),
    ]
    widths = [4.0, 2.2]
    min_height = 3.6
    if len(trace) > 1:
        widths.append(float(np.clip(0.6 + 0.28 * len(trace), 2.0, 8.0)))
        min_height = 4.6  # for the names below the trace
    panels = row_panels(len(top), widths, shared=2, min_height=min_height)
    legend(root_figure(panels[0]), handles, loc="outside upper center", ncols=3)
    _draw_acquisition(panels[1], top, str(stored["params"]["acquisition"]))
    _draw_distances(panels[0], top, len(ranking), control, stored)
    if len(panels) > 2:
        _draw_trace(panels[2], trace, stored)
    return finish(panels, is_new=True, show=show, return_fig=return_fig, save=save)


def _draw_distances(
    panel: Axes, top: pd.DataFrame, n_all: int, control: float, stored: Any
) -> None:
    """Draw a row per candidate of ``top``; ``control`` is the control's distance."""
    mean, low, high = (top[f"predicted_{name}"] for name in ("distance", "low", "high"))
    n_cells = top["n_cells_seen"].to_numpy(dtype=int)
    colours = [ORANGE, *[BLUE] * (len(top) - 1)]
    draw_intervals(panel, (mean, low, high), n_cells > 0, colours, s=36)
    draw_marks(panel, top["measured_distance"])
    panel.axvline(control, color=GREY, linestyle="--", linewidth=1, zorder=0)
    values = np.append(mean, control)
    scale = ""
    if values.min() > 0 and values.max() > _WIDE * values.min():
        square_root(panel)
        scale = "\nsquare-root axis"
    names = [
        f"{name} ({n} cells)" if n else f"{name} (no cells yet)"
        for name, n in zip(top["perturbation"], n_cells, strict=True)
    ]
    name_rows(panel, names)
    panel.get_yticklabels()[0].set_fontweight("bold")
    panel.set_xlabel(f"predicted distance to the target\n({unit_of_distance(stored)}){scale}")
    title = f"towards {goal(stored['params']['target'])}\n"
    title += first_of(len(top), n_all, "candidates")
    if float(top["relative_distance"].iloc[0]) > 1:
        title += "\nthe chosen candidate is predicted\nto be farther than control cells"
    panel.set_title(title)


def _draw_acquisition(panel: Axes, top: pd.DataFrame, acquisition: str) -> None:
    """Draw the acquisition of each candidate; shares are bars with numbers."""
    from matplotlib.ticker import MaxNLocator

    places = np.arange(len(top))
    colours = [ORANGE, *[BLUE] * (len(top) - 1)]
    resolved = 100 * top["variance_reduction"].to_numpy(dtype=float)
    panel.set_title("acquisition")
    if acquisition != "probability" and np.isnan(resolved).all():
        panel.scatter(top["acquisition"].to_numpy(dtype=float), places, c=colours, s=22)
        panel.xaxis.set_major_locator(MaxNLocator(3))
        panel.xaxis.set_major_formatter("{x:.3g}")
        panel.set_xlabel(f"{acquisition}\n(lower is better)")
        return
    if acquisition == "probability":
        values = 100 * top["probability_best"].to_numpy(dtype=float)
        numbers = [percent(value / 100) for value in values]
        panel.set(xlim=(0, 125), xticks=[0, 50, 100])
        panel.set_xlabel("probability of being\nthe nearest, %")
    else:
        values = resolved
        numbers = [f"{value:.3g}" for value in resolved]
        panel.set_xlim(0, 1.25 * np.nanmax(values, initial=0.5))
        panel.set_xlabel(f"uncertainty resolved,\n% ({acquisition};\nhigher is better)")
    bars = panel.barh(places, values, color=colours, height=0.6)
    panel.bar_label(bars, numbers, padding=2, fontsize=font_size(row_height(len(top)), 7))


def _draw_trace(panel: Axes, trace: pd.DataFrame, stored: Any) -> None:
    middle, low, high = (
        trace[f"predicted_{name}"].to_numpy(dtype=float) for name in ("distance", "low", "high")
    )
    panel.errorbar(
        range(len(trace)),
        middle,
        yerr=[middle - low, high - middle],
        fmt="o-",
        color=BLACK,
        markersize=4,
        linewidth=1,
        capsize=2,
    )
    rounds = zip(trace["round"], trace["chosen"], trace["acquisition"], strict=True)
    labels = [f"{number}: {short(str(label), 20)} ({name})" for number, label, name in rounds]
    panel.set_xticks(range(len(trace)), labels, rotation=90)
    panel.set_xlim(-0.6, len(trace) - 0.4)
    panel.set_xlabel("round: chosen\n(acquisition)")
    panel.set_ylabel(f"predicted distance to the target\n({unit_of_distance(stored)})")
    panel.set_title("trace")
