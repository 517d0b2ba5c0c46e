"""What the drawings of these pages share: the colours, and how they are written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.figure import Figure

# Okabe and Ito's colours, which can be distinguished with any kind of colour vision.
GREY, BLUE, ORANGE, GREEN, PINK = "0.45", "#0072B2", "#D55E00", "#009E73", "#CC79A7"


def draw(
    figures: Mapping[str, Callable[[], Figure]], style: Mapping[str, object], folder: Path
) -> list[str]:
    """Write figures as SVG, the same bytes on every run, and return the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "nextpert", "font.size": 9, **style}):
        for name, figure_of in figures.items():
            figure = figure_of()
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)
    return [f"{name}.svg" for name in figures]


def folder_asked(usual: str) -> Path:
    """Return the folder that a script was given, by default one in ``_static``."""
    return Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "_static" / usual
