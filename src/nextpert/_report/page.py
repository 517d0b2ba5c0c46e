"""The page: the parts of a section, figures, and the template that renders them."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import dataclass
from functools import partial
from importlib import resources
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert._report.results import LEVELS, UNKNOWN
from nextpert._report.tables import WIDTH, number
from nextpert.core._text import in_one_direction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anndata import AnnData
    from matplotlib.figure import Figure as DrawnFigure
    from matplotlib.transforms import Bbox

    from nextpert._report.results import Verdict
    from nextpert._report.tables import Table

_LARGE = 500_000  # bytes of a drawing in lines; larger ones become pixels
_MARGIN = 0.1  # around a figure, in inches


class Spot(NamedTuple):
    """A rectangle of a figure, from its top left, in hundredths of an inch, and its value."""

    x: float
    y: float
    width: float
    height: float
    text: str


class Figure(NamedTuple):
    """A figure in the page: the link that contains it, a description, and a caption.

    ``size`` is its width and height, in hundredths of an inch; ``spots`` have values to show where
    the mouse is.
    """

    link: str
    alt: str
    caption: str
    size: tuple[float, float] = (0, 0)
    spots: Sequence[Spot] = ()


@dataclass(frozen=True)
class Section:
    """A section, from top to bottom: words, steps, verbatim text, figures, tables."""

    name: str
    title: str
    words: Sequence[str] = ()
    steps: Sequence[str] = ()
    code: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()


def draw(
    plot: Callable[..., Any], adata: AnnData, alt: str, caption: str, **options: Any
) -> Figure:
    """Return the figure of a function of :mod:`nextpert.pl`, with a transparent background.

    The figure is a vector graphic or, if that would make the page large, a PNG.
    """
    import matplotlib.pyplot as plt
    import matplotlib.style

    buffer = io.BytesIO()
    kind = "svg+xml"
    # The figure has the same bits whatever the user's settings.
    style: Any = {"svg.hashsalt": "nextpert", "svg.fonttype": "path", "figure.dpi": 100}
    with matplotlib.style.context(["default", style]):
        figure = plot(adata, show=False, return_fig=True, **options)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # what is drawn stays where the spots are
        box = figure.get_tightbbox().padded(_MARGIN)
        spots = _map_spots(figure, box)
        save = partial(figure.savefig, transparent=True, bbox_inches=box)
        save(buffer, format="svg", metadata={"Date": None})
        if buffer.tell() > _LARGE:
            buffer = io.BytesIO()
            kind = "png"
            save(buffer, format="png", dpi=120, metadata={"Software": None})
        plt.close(figure)
    coded = base64.b64encode(buffer.getvalue()).decode("ascii")
    link = f"data:image/{kind};base64,{coded}"
    return Figure(link, alt, caption, (round(100 * box.width), round(100 * box.height)), spots)


def _map_spots(figure: DrawnFigure, box: Bbox) -> list[Spot]:
    """Return the fields of all heat maps whose rows and columns are named; ``box`` is in inches."""
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

    spots = []
    for panel in figure.findobj(Axes):
        axes = panel.yaxis, panel.xaxis
        rows, columns = ([x.get_text() for x in axis.get_ticklabels()] for axis in axes)
        maps: list[Any] = panel.findobj(QuadMesh)
        for drawn in maps:
            values = np.ma.getdata(drawn.get_array())
            if values.shape != (len(rows), len(columns)):
                continue  # a colour bar
            corners = panel.transData.transform(drawn.get_coordinates().reshape(-1, 2))
            inches = (corners / figure.dpi).reshape(len(rows) + 1, len(columns) + 1, 2)
            places = 100 * np.abs(inches - [box.x0, box.y1])
            for i, j in np.ndindex(values.shape):
                x, y, right, below = np.round([*places[i, j], *places[i + 1, j + 1]], 1).tolist()
                text = f"{rows[i]}, {columns[j]}: {number(values[i, j])}"
                spots.append(Spot(x, y, round(right - x, 1), round(below - y, 1), text))
    return spots


def render(
    title: str, verdict: Verdict, sections: Sequence[Section], absent: Sequence[tuple[str, str]]
) -> str:
    """Return the page as text; ``absent`` are title and function of results not computed."""
    from markupsafe import Markup

    folder = resources.files("nextpert._report") / "templates"
    # The browser may load and run only these two files.
    style, script = ((folder / name).read_text("utf-8") for name in ("style.css", "script.js"))
    words, sign = LEVELS.get(verdict.level, LEVELS[UNKNOWN])
    page = template("page.html.j2").render(
        title=title,
        verdict=verdict,
        level={"name": verdict.level.replace(" ", "-"), "words": words, "sign": sign},
        sections=sections,
        absent=absent,
        width=WIDTH,
        version=version("nextpert"),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    return in_one_direction(page)


def template(name: str) -> Any:
    """Return a template of this folder."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("nextpert._report"),
        autoescape=name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}"
