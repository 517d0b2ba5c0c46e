"""The plates of a replay, target by target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import isotonic_regression

from nextpert._adata import read_result
from nextpert._adata.arguments import checked
from nextpert.core.fit.naming import Naming
from nextpert.pl._docs import documented
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    SMALL,
    TEXT,
    chosen,
    entry,
    finish,
    legend,
    panels_of,
    root_figure,
    short,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour, dashes and marker of each strategy: distinguishable without colours as well. Strategies in
# turn bear their markers at other plates, so that curves that lie on each other all show.
_STYLES: dict[str, tuple[str, Any, str]] = {
    "exploit": (BLUE, "-", "o"),
    "thompson": (BLUE, (0, (4, 1.5)), "s"),
    "ei": ("#56B4E9", (0, (4, 1.5)), "v"),
    "civ": ("#009E73", "-", "^"),
    "random": (BLACK, (0, (1, 1)), "x"),
    "exact_greedy": ("#CC79A7", (0, (4, 1.5)), "+"),
    "exact_civ": ("#7E2F8E", (0, (3, 1, 1, 1, 1, 1)), "p"),
    "round_robin_means": (ORANGE, "-", "D"),
    "thompson_means": ("#E69F00", (0, (4, 1.5)), "*"),
}
_ENDS = 0.05, 0.95  # of the intervals, as quantiles
_CONTROL, _BEST = "control", "best candidate"
_LABEL = "squared distance to the target\n(relative to the control's)"


@checked()
@documented
def replay(
    adata: AnnData,
    *,
    key: str = "replay",
    targets: Sequence[str] | None = None,
    strategies: Sequence[str] | None = None,
    held_out: bool | None = None,
    n_cols: int | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | Axes | None:
    """Draw how near to each target the recommended perturbation lies, round by round.

    One panel per target, all of them together first: the squared distance of the recommended
    perturbation's true mean to the target, relative to that of the control: its median over repeats
    and the middle 90% of them (in the first panel, of the targets' medians). Unbiased distances
    below 0 are drawn at 0. The dashed line is the control, the dotted one the best candidate of the
    pool.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.replay_design`.
    key
        Its ``key_added``.
    targets
        Targets to draw; all by default.
    strategies
        Strategies to draw; all by default.
    held_out
        Reading to draw: with the perturbation of the target held out, or in the pool. By default
        the first that was replayed.
    n_cols
        Panels per row; by default 4, or more if the figure would not fit on a screen.
    ax
        Axes to draw on: all targets together, or the only one of ``targets``. Names stand
        at the ends of the lines then.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there is no replay (run :func:`nextpert.tl.replay_design` first), or it has no such
        target, strategy or reading.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(
    ...     n_genes=6, n_control=300, n_perturbed=60, perturbed=4, expected_degree=3
    ... )
    >>> npt.tl.learn_dag(adata, search_options={"n_runs": 2})
    >>> npt.tl.replay_design(adata, strategies=["thompson"], n_rounds=3, n_repeats=4)
    >>> figure = npt.pl.replay(adata, return_fig=True)
    >>> len(figure.axes)  # all together, and four targets
    5
    """
    from matplotlib.lines import Line2D

    table, lines = _chosen(
        read_result(adata, key, "tl.replay_design", what="replay", part="runs"),
        targets,
        strategies,
        held_out,
    )
    names = list(dict.fromkeys(table["target"]))
    if ax is not None:
        _draw(ax, table, lines, names[0] if len(names) == 1 else None)
        ax.set(xlabel="rounds", ylabel=_LABEL)
        _name_lines(ax)
        return finish(ax, own=False, show=show, return_fig=return_fig, save=save)
    shown = [None, *names] if len(names) > 1 else list(names)
    panels, columns = panels_of(None, len(shown), n_cols, 4, (2.3, 2.0), (0.6, 0.9))
    figure = root_figure(panels[0])
    letters = int(30 * (figure.get_figwidth() - 0.6) / columns / 2.3)  # that fit above a panel
    for i, (panel, name) in enumerate(zip(panels, shown, strict=True)):
        _draw(panel, table, lines, name, letters)
        if i + columns < len(shown):
            panel.tick_params(labelbottom=False)
        else:
            panel.set_xlabel("rounds")
    figure.supylabel(_LABEL, fontsize=TEXT)
    used = dict.fromkeys(table["strategy"].astype(str))
    handles = [Line2D([], [], **_style(name), label=name) for name in used]
    handles += [entry(_CONTROL, GREY, line="--"), entry(_BEST, GREY, line=":", linewidth=1.4)]
    n_columns = min(len(handles), 1 + 2 * columns)
    legend(figure, handles, loc="outside upper center", ncols=n_columns)
    return finish(panels, own=True, show=show, return_fig=return_fig, save=save)


def _chosen(
    stored: Any,
    targets: Sequence[str] | None,
    strategies: Sequence[str] | None,
    held_out: bool | None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows to draw, and those of the reference lines."""
    lines = stored["targets"]
    # Rows of the table are those of the campaigns: targets and readings, strategies, rounds.
    runs = np.asarray(stored["runs"]["distance"], float)
    runs = runs.reshape(len(lines), *runs.shape[-3:])
    relative = runs / lines["control_distance"].to_numpy(float)[:, None, None, None]
    middle, low, high = np.maximum(np.quantile(relative, [0.5, *_ENDS], axis=2), 0.0)
    table = stored["table"].assign(median=middle.ravel(), low=low.ravel(), high=high.ravel())
    readings = [bool(reading) for reading in stored["params"]["held_out"]]
    reading = readings[0] if held_out is None else bool(held_out)
    if reading not in readings:
        message = (
            f"The replay was not run with held_out={reading}: run tl.replay_design with it, or "
            f"with held_out='both'."
        )
        raise ValueError(message)
    table, lines = table[table["held_out"] == reading], lines[lines["held_out"] == reading]
    for column, wanted in {"target": targets, "strategy": strategies}.items():
        if wanted is not None:
            known = list(dict.fromkeys(table[column].astype(str)))
            names = Naming().spelled(map(str, wanted), known)
            places = chosen(names, known, f"The replay holds no {column}", "It")
            table = table[table[column].astype(str).isin([known[i] for i in places])]
    return table, lines[lines["target"].isin(set(table["target"]))]


def _draw(
    panel: Axes, table: pd.DataFrame, lines: pd.DataFrame, name: str | None, letters: int = 32
) -> None:
    from matplotlib.ticker import MaxNLocator

    is_all = name is None
    rows = table if is_all else table[table["target"] == name]
    reference = lines if is_all else lines[lines["target"] == name]
    nearest = (reference["best_distance"] / reference["control_distance"]).clip(lower=0.0)
    best = float(nearest.median())
    panel.axhline(1.0, color=GREY, linestyle="--", linewidth=1, zorder=0, label=_CONTROL)
    panel.axhline(best, color=GREY, linestyle=":", linewidth=1.4, zorder=0, label=_BEST)
    curves = list(rows.groupby("strategy", sort=False))
    for i, (strategy, curve) in enumerate(curves):
        by_round = curve.groupby("round")["median"]  # over targets, or of the one
        ends = [by_round.quantile(q) for q in _ENDS] if is_all else [curve["low"], curve["high"]]
        middle, (low, high) = by_round.median().to_numpy(), (x.to_numpy() for x in ends)
        number = np.arange(len(middle))
        style = _style(str(strategy))
        colour, every = style["color"], (i % len(middle), min(len(curves), len(middle)))
        panel.fill_between(number, low, high, color=colour, alpha=0.1, lw=0)
        panel.plot(number, middle, **style, linewidth=1.5, markevery=every, label=str(strategy))
    if is_all:
        title = f"median of {len(reference)} targets"
    else:
        title = f"{name} (best: {reference['best'].iloc[0]})"
    panel.set_title(short(title, letters - 1), fontsize=SMALL)
    top = max(panel.dataLim.y1, 1.0)  # with room for the curves that lie at an edge
    panel.set_ylim(-0.04 * top, 1.06 * top)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(4))


def _style(strategy: str) -> dict[str, Any]:
    colour, dashes, marker = _STYLES.get(strategy, (BLACK, "-", "o"))
    face = colour if dashes == "-" else "white"
    return {
        "color": colour,
        "linestyle": dashes,
        "marker": marker,
        "markersize": 4.5,
        "markerfacecolor": face,
    }


def _name_lines(panel: Axes) -> None:
    """Write the name of every line beside its end, apart from each other."""
    figure = root_figure(panel)
    low, high = panel.get_ylim()
    # Of lines of text, in units of the y axis.
    inches = panel.get_window_extent().height / figure.dpi
    apart = (SMALL / 72 + 0.05) * (high - low) / inches
    lines = sorted(panel.get_lines(), key=lambda line: float(np.asarray(line.get_ydata())[-1]))
    ends = np.array([np.asarray(line.get_ydata(), float)[-1] for line in lines])
    steps = apart * np.arange(len(ends))
    places = np.asarray(isotonic_regression(ends - steps).x)
    top = max(high - steps[-1], low)  # names stay beside the panel where they fit
    places = np.clip(places, low, top) + steps
    right = max(float(np.asarray(line.get_xdata(), float)[-1]) for line in lines)
    left, stop = panel.get_xlim()
    panel.set_xlim(left, stop)
    for line, end, place in zip(lines, ends, places, strict=True):
        is_curve = line.get_label() not in (_CONTROL, _BEST)
        panel.annotate(
            str(line.get_label()),
            (right if is_curve else stop, end),
            (stop + 0.06 * (stop - left), place),
            fontsize=SMALL, color=BLACK, va="center", annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": line.get_color(), "linewidth": 0.8, "shrinkA": 0,
                "shrinkB": 0, "relpos": (0.0, 0.5),
            },
        )  # fmt: skip
