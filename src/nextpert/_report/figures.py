"""Plots of the package as pictures within the page."""

from __future__ import annotations

import base64
import io
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._report.blocks import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Most panels of densities, and most arcs, or else genes, of a graph.
MOST_PANELS = 6
MOST_ARCS = 120
MOST_GENES = 60
_LARGE = 500_000  # bytes


@contextmanager
def _plain_style() -> Iterator[None]:
    """Draw alike whatever the user has set, and to the same bits."""
    import matplotlib.style

    known: Any = {"svg.hashsalt": "nextpert", "svg.fonttype": "path", "figure.dpi": 100}
    with matplotlib.style.context(["default", known]):
        yield


def draw(plot: Callable[[], Any], alt: str, caption: str) -> Figure:
    """Return the figure that a plot makes, without a background, so that it suits any scheme.

    It is drawn in lines unless these are so many that the page grows large.
    """
    import matplotlib.pyplot as plt

    with _plain_style():
        figure = plot()
        held, kind = _saved(figure, "svg", metadata={"Date": None}), "svg+xml"
        if len(held) > _LARGE:
            held, kind = _as_pixels(figure), "png"
        plt.close(figure)
    coded = base64.b64encode(held).decode("ascii")
    return Figure(f"data:image/{kind};base64,{coded}", alt, caption)


def _saved(figure: Any, kind: str, **options: Any) -> bytes:
    held = io.BytesIO()
    figure.savefig(held, format=kind, transparent=True, bbox_inches="tight", **options)
    return held.getvalue()


def _as_pixels(figure: Any) -> bytes:
    """Return a figure as PNG of few colours, which is a third of the size of one of many."""
    from PIL import Image

    held = io.BytesIO()
    with Image.open(io.BytesIO(_saved(figure, "png", dpi=120))) as image:
        image.quantize(128, method=Image.Quantize.FASTOCTREE).save(held, "png", optimize=True)
    return held.getvalue()


def busiest(names: Sequence[str], adjacency: Any) -> list[str]:
    """Return the genes with most arcs, in their order."""
    arcs = adjacency != 0
    degree = sum(np.asarray(arcs.sum(axis=axis)).ravel() for axis in (0, 1))
    kept = np.argsort(-degree, kind="stable")[:MOST_GENES]
    return [names[i] for i in np.sort(kept)]
