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

# Most panels of densities, and most genes of a graph.
MOST_PANELS = 6
MOST_GENES = 60
_LARGE = 300_000  # bytes


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
            held, kind = _saved(figure, "png", dpi=120), "png"
        plt.close(figure)
    coded = base64.b64encode(held).decode("ascii")
    return Figure(f"data:image/{kind};base64,{coded}", alt, caption)


def _saved(figure: Any, kind: str, **options: Any) -> bytes:
    held = io.BytesIO()
    figure.savefig(held, format=kind, transparent=True, bbox_inches="tight", **options)
    return held.getvalue()


def busiest(names: Sequence[str], adjacency: Any) -> list[str] | None:
    """Return the genes with most arcs, or ``None`` where all of them can be drawn."""
    degree = np.asarray((adjacency != 0).sum(axis=0)).ravel()
    degree = degree + np.asarray((adjacency != 0).sum(axis=1)).ravel()
    busy = int((degree > 0).sum())
    if len(names) <= MOST_GENES:
        return None
    kept = np.sort(np.argsort(-degree, kind="stable")[: min(MOST_GENES, max(busy, 1))])
    return [names[i] for i in kept]
