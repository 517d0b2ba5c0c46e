"""What all plots share: colours, and the end of a plot as in scanpy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import read_stored
from nextpert._adata.target import DISTANCES
from nextpert._files import whole_file

if TYPE_CHECKING:
    import os

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any kind of colour vision.
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
_LEAST_ROW = 0.1


def finish(
    figure: Figure,
    axes: Any,
    *,
    show: bool | None,
    return_fig: bool,
    save: str | os.PathLike[str] | None,
    own: bool,
) -> Any:
    """Save, show or return a plot: ``None`` once shown, else the axes or the figure.

    ``own`` says that the figure was made here, not given by the caller; one of the caller's is
    never shown unless asked for.
    """
    panels = axes if isinstance(axes, list) else [axes]
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


def read_to_draw(
    adata: AnnData, key: str, function: str, *, what: str, part: str
) -> dict[str, Any]:
    """Return the result in ``adata.uns[key]`` that a plot draws.

    Parameters
    ----------
    adata, key
        Where it lies.
    function
        The function that writes it, such as ``"tl.plan_screen"``.
    what
        What it is called, such as ``"plan"``.
    part
        A part that every such result has.

    Raises
    ------
    ValueError
        If there is none, or it is damaged.
    """
    stored = adata.uns.get(key)
    if not hasattr(stored, "keys") or part not in stored:
        message = f"adata.uns has no {what} {key!r}: run {function} first."
        raise ValueError(message)
    return read_stored(adata, key, function)


def unit_of_distance(stored: Any) -> str:
    """Return what the distances of a stored result are measured in."""
    return DISTANCES[str(stored["params"].get("distance", "squared"))]


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
