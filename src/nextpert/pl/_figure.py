"""Parts that plots share: colours, rows and panels that fit on a screen, saving and showing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nextpert._adata import closest, in_order, list_names
from nextpert._files import whole_file
from nextpert.core.design.goal import DISTANCES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from numpy.typing import NDArray

    F = TypeVar("F", bound=Callable[..., object])

# Okabe and Ito's colours, distinguishable with any kind of colour vision.
BLUE = "#0072B2"
ORANGE = "#D55E00"
GREEN = "#009E73"
PURPLE = "#CC79A7"
BLACK = "#222222"
GREY = "#8A8A8A"
LIGHT = "#E6E6E6"
PALETTE = ("#E69F00", "#56B4E9", GREEN, "#F0E442", BLUE, ORANGE, PURPLE, "#999999")

# Sizes of texts, in points, and the height of a figure that fits on a screen, in inches.
TEXT, SMALL = 9.0, 8.0
SCREEN = 8.0
# Standard errors on either side of a normal estimate: intervals of all plots cover 90%.
REACH = 1.645


# Texts that replace ``%(name)s`` on a line of its own.
FRAGMENTS = {
    "show": """
show
    Whether to show the figure; by default as set in :attr:`scanpy.settings.autoshow`.
return_fig
    Whether to return the figure.
save
    File to save the figure to.
""",
    "returns": """
~matplotlib.figure.Figure, ~matplotlib.axes.Axes, list of them, or None
    The figure if ``return_fig``; ``None`` if it was shown; otherwise the axes.
""",
    "roles": """
perturbation_key
    Column of ``adata.obs`` with the label of every cell; by default the column declared with
    :func:`nextpert.pp.setup_screen`, or ``"perturbation"``.
control
    Label of the control cells; by default the label declared, or ``"control"``.
""",
}


def documented(function: F) -> F:
    """Put the shared parts into a function's docstring, each with the indent of its place."""

    def fragment(match: re.Match[str]) -> str:
        return indent(FRAGMENTS[match[2]].strip("\n"), match[1])

    function.__doc__ = re.sub(r"(?m)^( *)%\((\w+)\)s$", fragment, function.__doc__ or "")
    return function


def finish(
    axes: Any,
    *,
    is_new: bool,
    show: bool | None,
    return_fig: bool,
    save: str | os.PathLike[str] | None,
) -> Any:
    """Save, show or return a plot: ``None`` once shown, else the axes or the figure.

    ``is_new`` says that the figure was made here, not by the caller. A figure of the caller is
    shown only if ``show`` is true.
    """
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    import scanpy as sc
    from matplotlib.text import Text

    panels = axes if isinstance(axes, list) else [axes]
    figure = root_figure(panels[0])
    for panel in panels:
        _set_style(panel)
    for part in [figure] if is_new else panels:
        for text in part.findobj(Text):
            # Names are not formulas, unlike matplotlib's own powers of ten.
            if "$" in text.get_text() and r"\mathdefault" not in text.get_text():
                text.set_parse_math(False)
    if save is not None:
        path = Path(save)
        if not path.suffix and not os.path.isdir(path):
            path = path.with_name(f"{path.name}.{mpl.rcParams['savefig.format']}")
        with whole_file(path) as file:
            figure.savefig(file, dpi=150, bbox_inches="tight")
    if return_fig:
        return figure
    if show or (show is None and is_new and sc.settings.autoshow and save is None):
        plt.show()
        return None
    return axes


def _set_style(panel: Axes) -> None:
    """Give a panel the spines and the sizes of texts that plots share."""
    panel.spines[["top", "right"]].set_visible(False)
    for text in (panel.title, panel.xaxis.label, panel.yaxis.label):
        text.set_fontsize(min(text.get_fontsize(), TEXT))
    for axis in (panel.xaxis, panel.yaxis):
        if any(float(label.get_fontsize()) > SMALL for label in axis.get_ticklabels()):
            axis.set_tick_params(labelsize=SMALL)


def root_figure(panel: Axes) -> Figure:
    """Return the figure that an axes is on; of a subfigure, the whole figure."""
    # As `get_figure(root=True)`, which matplotlib has from 3.10 on.
    return panel.figure.figure


def panel_of(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the axes given, or those of a new figure of a width and height in inches."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def panels_of(
    n: int,
    usual: int,
    size: tuple[float, float],
    around: tuple[float, float],
    **options: Any,
) -> tuple[list[Axes], int]:
    """Return ``n`` panels in a grid that fits on a screen, and the columns.

    ``size`` is the width and height of a panel in inches, 0.6 of it if panels are many; ``around``
    is the size of what is beside the panels. ``usual`` is the number of columns if that fits;
    ``options`` are those of ``plt.subplots``.
    """
    import matplotlib.pyplot as plt

    for scale in (1.0, 0.6):
        width, height = scale * size[0], scale * size[1]
        rows_that_fit = max(int((SCREEN - around[1]) / height), 1)
        columns = min(max(usual, -(-n // rows_that_fit)), n)
        rows = -(-n // columns)
        if columns * width < 2 * SCREEN and rows <= rows_that_fit:
            break
    figsize = (max(around[0] + columns * width, 4.2), around[1] + rows * height)
    grid = plt.subplots(
        rows, columns, figsize=figsize, squeeze=False, layout="constrained", **options
    )[1]
    for unused in grid.flat[n:]:
        unused.remove()
    for lowest in grid.flat[max(n - columns, 0) : n]:
        lowest.tick_params(labelbottom=True)
    return list(grid.flat[:n]), columns


def row_panels(
    n_rows: int, widths: Sequence[float], shared: int = 1, *, around: float = 1.6, min_height: float
) -> list[Axes]:
    """Return panels side by side, of which the first ``shared`` have the same rows.

    ``widths`` are those of the panels in inches; the figure is at least ``min_height`` inches
    high, of which ``around`` are not rows. Rows are named only on the left.
    """
    import matplotlib.pyplot as plt

    height = max(min_height, around + n_rows * row_height(n_rows, around))
    figure = plt.figure(figsize=(sum(widths), height), layout="constrained")
    grid = figure.add_gridspec(1, len(widths), width_ratios=widths)
    panels = [figure.add_subplot(grid[0])]
    for i in range(1, len(widths)):
        panels.append(figure.add_subplot(grid[i], sharey=panels[0] if i < shared else None))
        if i < shared:
            panels[i].tick_params(labelleft=False, left=False)
    return panels


def row_height(n: int, around: float = 1.6) -> float:
    """Return the height of each of ``n`` rows in inches, less than usual if they are many.

    ``around`` is the height of everything else. Rows have a minimum height, to be readable.
    """
    return float(np.clip((SCREEN - around) / max(n, 1), 0.1, 0.22))


def font_size(row: float, max_size: float = SMALL) -> float:
    """Return the size of texts, in points, that do not touch in rows of this height."""
    return float(min(72 * row / 1.25, max_size))


def name_rows(panel: Axes, names: Sequence[str], row: float | None = None) -> None:
    """Name the rows of a panel, the first on top; ``row`` is their height, if not the usual one."""
    size = font_size(row or row_height(len(names)))
    panel.set_yticks(range(len(names)), names, fontsize=size)
    panel.set_ylim(len(names) - 0.4, -0.6)


def draw_intervals(
    panel: Axes,
    values: Iterable[Any],
    filled: Any = True,
    colours: Any = BLUE,
    *,
    rows: Any = None,
    **style: Any,
) -> None:
    """Draw a point with its interval in each row, filled or not.

    ``values`` are the points and the ends of their intervals; ``rows`` are 0, 1, ... by default.
    """
    at, low, high = (np.asarray(column, dtype=float) for column in values)
    y = np.arange(len(at)) if rows is None else rows
    panel.hlines(y, low, high, colors=colours, linewidth=1.3, zorder=2)
    face = np.broadcast_to(np.where(filled, colours, "white"), len(at))
    panel.scatter(at, y, c=face, edgecolors=colours, **{"s": 24, "zorder": 3, **style})


def draw_marks(panel: Axes, values: Any, colour: str = BLACK) -> None:
    """Draw a stroke in each row where a value is known."""
    panel.scatter(values, range(len(values)), marker="|", s=60, color=colour, zorder=4)


def place_names(panel: Axes, points: tuple[Any, Any], names: Mapping[int, str]) -> None:
    """Name points beside them, the first names first, where no name or other point is hidden.

    ``points`` are their coordinates, and ``names`` has the index of each named point. A name
    without space is not drawn. Limits, legend and labels of the panel must be final.
    """
    _set_style(panel)
    root_figure(panel).draw_without_rendering()
    inside, dots = panel.get_window_extent(), panel.figure.dpi / 72
    pixels = panel.transData.transform(np.column_stack(points))
    boxes: list[Any] = []
    for i, name in names.items():
        text = panel.annotate(
            name,
            (points[0][i], points[1][i]),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=7,
            color=BLACK,
            ha="left",
            va="bottom",
            parse_math=False,
            zorder=6,
        )
        size = text.get_window_extent()
        for right, up in _offsets(size.width / dots, size.height / dots):
            box = size.translated(right * dots, up * dots)
            hidden = (box.padded(2 * dots).min < pixels) & (pixels < box.padded(2 * dots).max)
            is_inside = bool(np.all(inside.min <= box.min) and np.all(box.max <= inside.max))
            if is_inside and not np.any(np.all(hidden, axis=1)) and not box.count_overlaps(boxes):
                text.xyann = (right, up)
                boxes.append(box.padded(2 * dots))
                break
        else:
            text.remove()


def _offsets(width: float, height: float) -> list[tuple[float, float]]:
    """Return places of a name around its point, in points: beside, above, below, diagonal."""
    return [
        (right, up)
        for gap in (5.0, 9.0)
        for right, up in (
            (gap, -height / 2),
            (-gap - width, -height / 2),
            (-width / 2, gap),
            (-width / 2, -gap - height),
            (0.7 * gap, 0.7 * gap),
            (-0.7 * gap - width, 0.7 * gap),
            (0.7 * gap, -0.7 * gap - height),
            (-0.7 * gap - width, -0.7 * gap - height),
        )
    ]


def from_zero(panel: Axes, low: Any) -> None:
    """Start the x axis below 0 and the lowest value, so that nothing is cut off."""
    lowest, right = min(0.0, np.nanmin(low)), panel.get_xlim()[1]
    panel.set_xlim(left=lowest - 0.03 * (right - lowest))


def entry(
    label: str, colour: str, marker: str = "", line: Any = "none", face: str = "", **style: Any
) -> Line2D:
    """Return a legend entry: a marker (filled with its colour or ``face``), a line, or both."""
    from matplotlib.lines import Line2D

    usual: dict[str, Any] = {"markersize": 5, "linewidth": 1.2, "markerfacecolor": face or colour}
    style = {"label": label, "color": colour, "marker": marker, "linestyle": line} | usual | style
    return Line2D([], [], **style)


def legend(parent: Axes | Figure, handles: Sequence[Any], **where: Any) -> None:
    """Put a legend without a frame on axes, or outside those of a figure; by default beside."""
    if not where:
        where = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    if handles:
        parent.legend(handles=list(handles), **({"frameon": False, "fontsize": SMALL} | where))


def label_grid(
    panels: Sequence[Axes],
    labels: tuple[str, str],
    handles: Sequence[Any],
    **where: Any,
) -> None:
    """Label the x and y axis of all panels at once, with a legend."""
    figure = root_figure(panels[0])
    figure.supxlabel(labels[0], fontsize=TEXT)
    figure.supylabel(labels[1], fontsize=TEXT)
    legend(figure, handles, **where)


def legend_above(panel: Axes) -> None:
    """Put the legend between panel and title, where it hides no row."""
    panel.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        frameon=False,
        fontsize=7,
        borderaxespad=0.2,
        columnspacing=1.0,
        handletextpad=0.3,
    )
    n_rows = -(-len(panel.get_legend_handles_labels()[0]) // 2)
    panel.set_title(panel.get_title(), pad=12 + 13 * max(n_rows, 2))


def chosen(
    names: str | Iterable[str] | None, available: Sequence[str], without: str, where: str
) -> NDArray[np.int64]:
    """Return the positions of names in ``available``, each once; all by default.

    Raises
    ------
    ValueError
        If a name is absent (close matches are suggested), or none is given. The message begins with
        ``without``; ``where`` says what contains the names.
    """
    if names is None:
        return np.arange(len(available))
    requested = list(
        dict.fromkeys([names] if isinstance(names, str) else map(str, in_order(names)))
    )
    absent = [name for name in requested if name not in available]
    if absent or not requested:
        message = (
            f"{without}: {list_names(absent) or 'none given'}.{closest(absent, available)} {where} "
            f"holds {list_names(available) or 'none'}."
        )
        raise ValueError(message)
    position = {name: i for i, name in enumerate(available)}
    return np.array([position[name] for name in requested], dtype=np.int64)


def short(name: str, max_letters: int) -> str:
    """Return a name of at most ``max_letters`` letters, with an ellipsis if it is cut."""
    return name if len(name) <= max_letters else name[: max_letters - 1] + "…"


def goal(target: Any) -> str:
    """Return the name of a target, but not a long list of target means."""
    return "target means of genes" if str(target).count("=") > 3 else short(str(target), 40)


def first_of(n: int, n_all: int, noun: str) -> str:
    """Return how many are drawn, such as ``"30 of 120 genes"``."""
    return f"{n} of {n_all} {noun}" if n < n_all else f"{n} {noun}"


def counted(n: int, noun: str) -> str:
    """Return a number of things, such as ``"1 cell"`` or ``"1,200 cells"``."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def unit_of_distance(stored: Any) -> str:
    """Return the unit of the distances of a stored result, and whether genes are left out."""
    unit = DISTANCES[str(stored["params"].get("distance", "squared"))].axis
    return f"{unit};\nwithout own target genes" if stored["params"].get("genes_left_out") else unit


def square_root(panel: Axes) -> None:
    """Scale the x axis by the square root, which, unlike a logarithm, includes 0.

    Values below 0, which unbiased estimates of squared distances can have, are left of 0.
    """
    from matplotlib.ticker import MaxNLocator

    panel.set_xscale(
        "function",
        functions=(lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2),
    )
    panel.xaxis.set_major_locator(MaxNLocator(4))


def logarithmic(panel: Axes, axis_name: str, ratio: float) -> None:
    """Scale the axis ``"x"`` or ``"y"``, with plain numbers at 1, 2 and 5.

    Over many decades, numbers are only at 1; ``ratio`` is the largest over the smallest value.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    panel.set(**{f"{axis_name}scale": "log"})
    axis = panel.xaxis if axis_name == "x" else panel.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 300 else (1.0,)))
    axis.set_major_formatter("{x:,.7g}")
    axis.set_minor_formatter(NullFormatter())
