"""What all plots share: colours, and the end of a plot as in scanpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    if save is not None:
        with whole_file(save) as path:
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
