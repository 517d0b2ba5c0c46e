"""What all plots share: colours, and the end of a plot as in scanpy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import closest, in_order, list_names
from nextpert._adata.target import DISTANCES
from nextpert._files import followed, whole_file

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from numpy.typing import NDArray

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
_LEAST_ROW = 0.1


def finish(
    axes: Any,
    *,
    own: bool,
    show: bool | None,
    return_fig: bool,
    save: str | os.PathLike[str] | None,
) -> Any:
    """Save, show or return a plot: ``None`` once shown, else the axes or the figure.

    ``own`` says that the figure was made here, not given by the caller; one of the caller's is
    never shown unless asked for.
    """
    panels = axes if isinstance(axes, list) else [axes]
    figure = root_figure(panels[0])
    for panel in panels:
        _tidy(panel)
    for part in [figure] if own else panels:
        _as_plain_text(part)
    if save is not None:
        with whole_file(_with_format(save)) as path:
            figure.savefig(path, dpi=150, bbox_inches="tight")
    if return_fig:
        return figure
    if show is None:
        import scanpy as sc

        show = own and sc.settings.autoshow and save is None
    if show:
        import matplotlib.pyplot as plt

        plt.show()
        return None
    return axes


def panel_of(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the axes given, or those of a new figure of a width and height in inches."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def panels_of(
    ax: Axes | None,
    n: int,
    ncols: int | None,
    usual: int,
    size: tuple[float, float],
    around: tuple[float, float],
    **options: Any,
) -> tuple[list[Axes], int]:
    """Return ``n`` panels in a grid that fits on a screen, or the axes given; and the columns.

    Parameters as in :func:`panel_grid`; ``options`` are those of ``plt.subplots``.
    """
    import matplotlib.pyplot as plt

    if ax is not None:
        return [ax], 1
    rows, columns, figsize = panel_grid(n, ncols, usual, size, around)
    figsize = (max(figsize[0], 4.2), figsize[1])
    _, grid = plt.subplots(
        rows, columns, figsize=figsize, squeeze=False, layout="constrained", **options
    )
    for spare in grid.flat[n:]:
        spare.remove()
    return list(grid.flat[:n]), columns


def root_figure(panel: Axes) -> Figure:
    """Return the figure that an axes is on, the whole one where that is a part (a subfigure)."""
    # As `get_figure(root=True)`, which matplotlib has from 3.10 on.
    return panel.figure.figure


def _tidy(panel: Axes) -> None:
    """Give an axes the look of all plots: no box, and texts of the same sizes."""
    panel.spines[["top", "right"]].set_visible(False)
    for text in (panel.title, panel.xaxis.label, panel.yaxis.label):
        text.set_fontsize(min(text.get_fontsize(), TEXT))
    for axis in (panel.xaxis, panel.yaxis):
        sizes = [float(label.get_fontsize()) for label in axis.get_ticklabels()]
        if max(sizes, default=0.0) > SMALL:
            axis.set_tick_params(labelsize=SMALL)


def _with_format(save: str | os.PathLike[str]) -> Path:
    """Return the path of a figure; one without an ending gets matplotlib's usual, as there."""
    import matplotlib as mpl

    if followed(save).is_dir():
        message = f"save={str(save)!r} is a folder: name a file in it."
        raise ValueError(message)
    path = Path(save)
    return path if path.suffix else path.with_name(f"{path.name}.{mpl.rcParams['savefig.format']}")


def _as_plain_text(part: Figure | Axes) -> None:
    """Let no name be read as a formula, whatever dollar signs it holds."""
    from matplotlib.text import Text

    for text in part.findobj(Text):
        # matplotlib's own powers of ten on axes are formulas.
        if "$" in text.get_text() and r"\mathdefault" not in text.get_text():
            text.set_parse_math(False)


def row_height(n: int, widest: float, around: float) -> float:
    """Return the height of ``n`` rows in inches: at most ``widest``, less to fit on a screen.

    ``around`` is the height of all else. Rows too low to be read make the figure higher instead.
    """
    return float(np.clip((SCREEN - around) / max(n, 1), _LEAST_ROW, widest))


def font_size(row: float, most: float = SMALL) -> float:
    """Return the size of texts that do not touch in rows of a height, in points."""
    return float(min(72 * row / 1.25, most))


def panel_grid(
    n: int, columns: int | None, usual: int, size: tuple[float, float], around: tuple[float, float]
) -> tuple[int, int, tuple[float, float]]:
    """Return rows, columns and the size of a figure of ``n`` panels that fits on a screen.

    ``size`` is the width and height of a panel in inches, which shrinks to 0.6 of that where
    they are many; ``usual`` is the number of columns where that fits, unless ``columns`` is given.
    """
    for scale in (1.0, 0.9, 0.8, 0.7, 0.6):
        widest = 1.7 * SCREEN if scale > 0.6 else 2 * SCREEN
        fit = max(int((SCREEN - around[1]) / (scale * size[1])), 1)
        most = max(int(widest / (scale * size[0])), usual)
        across = columns or min(max(usual, -(-n // fit)), most)
        if -(-n // across) <= fit:
            break
    across = min(across, n)
    rows = -(-n // across)
    width, height = (
        a + scale * k * s for a, k, s in zip(around, (across, rows), size, strict=True)
    )
    return rows, across, (width, height)


def unit_of_distance(stored: Any) -> str:
    """Return what the distances of a stored result are measured in, and if genes are left out."""
    unit = DISTANCES[str(stored["params"].get("distance", "squared"))]
    return f"{unit};\nwithout own target genes" if stored["params"].get("genes_left_out") else unit


def chosen(
    wanted: str | Iterable[str] | None, held: Sequence[str], without: str, where: str
) -> NDArray[np.int64]:
    """Return the places of wanted names among those held, each once; all by default.

    Raises
    ------
    ValueError
        If a name is not there (close matches are suggested), as ``without``, or none is wanted.
        ``where`` says what holds the names.
    """
    if wanted is None:
        return np.arange(len(held))
    names = list(dict.fromkeys([wanted] if isinstance(wanted, str) else map(str, in_order(wanted))))
    absent = [name for name in names if name not in held]
    if absent or not names:
        message = (
            f"{without}: {list_names(absent) or 'none given'}.{closest(absent, held)} {where} "
            f"holds {list_names(held) or 'none'}."
        )
        raise ValueError(message)
    place = {name: i for i, name in enumerate(held)}
    return np.array([place[name] for name in names], dtype=np.int64)


def entry(
    label: str, colour: str, marker: str = "", line: Any = "none", face: str = "", **style: Any
) -> Line2D:
    """Return an entry of a legend: a marker (filled with its colour, or ``face``), a line, both."""
    from matplotlib.lines import Line2D

    style = {"markersize": 5, "linewidth": 1.2} | style
    return Line2D(
        [], [], label=label, color=colour, marker=marker, linestyle=line,
        markerfacecolor=face or colour, **style,
    )  # fmt: skip


def legend(place: Axes | Figure, handles: Sequence[Any], **where: Any) -> None:
    """Put a legend without a frame on axes, or outside those of a figure; by default beside."""
    if not where:
        where = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    if handles:
        place.legend(handles=list(handles), **({"frameon": False, "fontsize": SMALL} | where))


def short(name: str, most: int) -> str:
    """Return a name of at most so many letters, with an ellipsis where it is cut."""
    return name if len(name) <= most else name[: most - 1] + "…"


def goal(target: Any) -> str:
    """Return the name of a target, but not a long list of target means."""
    return "target means of genes" if str(target).count("=") > 3 else short(str(target), 40)


def first_of(n: int, n_all: int, what: str) -> str:
    """Return how many are drawn, such as ``"30 of 120 genes"``."""
    return f"{n} of {n_all} {what}" if n < n_all else f"{n} {what}"


def draw_map(
    panel: Axes,
    values: NDArray[np.float64],
    names: tuple[Sequence[str], Sequence[str]],
    cell: tuple[float, float],
    limit: float,
    label: str,
    ends: tuple[str, str] = (BLUE, ORANGE),
) -> None:
    """Draw a matrix in colours, white where it is 0, with its colour bar.

    ``values`` has shape (rows, columns), ``names`` are those of rows and of columns, ``cell`` is
    the width and height of a field in inches; ``ends`` are the colours of ∓ ``limit``.
    """
    import seaborn as sns
    from matplotlib.ticker import MaxNLocator

    beside = panel.inset_axes((1.02, 0.0, 0.16 / (cell[0] * values.shape[1]), 1.0))
    beyond = "both" if np.abs(values).max(initial=0.0) > limit else "neither"
    colours = sns.blend_palette([ends[0], "white", ends[1]], as_cmap=True)
    sns.heatmap(
        values, vmin=-limit, vmax=limit, cmap=colours,
        ax=panel, cbar_ax=beside, cbar_kws={"label": label, "extend": beyond},
        xticklabels=False, yticklabels=False,
    )  # fmt: skip
    # Not by seaborn, which would read names as formulas to see whether they overlap.
    panel.set_yticks(0.5 + np.arange(len(names[0])), names[0], fontsize=font_size(cell[1], 7))
    panel.set_xticks(
        0.5 + np.arange(len(names[1])), names[1], fontsize=font_size(cell[0], 7), rotation=90
    )
    panel.tick_params(length=0)
    beside.tick_params(labelsize=7)
    beside.yaxis.label.set_fontsize(SMALL)
    beside.yaxis.set_major_locator(MaxNLocator(5))


def square_root(panel: Axes) -> None:
    """Scale the x axis by the square root, as distances are squared: 0 is on it, unlike on a log.

    Values below 0, as unbiased estimates may be, lie left of it.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter

    panel.set_xscale(
        "function",
        functions=(lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2),
    )
    top = max(panel.get_xlim()[1], 1e-12)
    ticks = [float(f"{top * part:.1g}") for part in (0.0, 0.05, 0.2, 0.45, 0.8)]
    panel.xaxis.set_major_locator(FixedLocator(sorted(set(ticks))))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def logarithmic(panel: Axes, ratio: float) -> None:
    """Scale the x axis, with plain numbers at 1, 2 and 5, or at 1 alone over many decades.

    ``ratio`` is that of the largest value shown to the smallest.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.set_xscale("log")
    steps = (1.0, 2.0, 5.0) if ratio < 300 else (1.0,)
    panel.xaxis.set_major_locator(LogLocator(subs=steps))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
