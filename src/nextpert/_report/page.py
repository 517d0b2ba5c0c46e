"""The page: what a section is made of, pictures, and the template that draws them."""

from __future__ import annotations

import base64
import hashlib
import io
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from nextpert._report.tables import WIDTH
from nextpert._report.verdict import LEVELS
from nextpert.core._shown import in_one_direction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nextpert._report.tables import Table
    from nextpert._report.verdict import Verdict

_LARGE = 500_000  # bytes of a drawing in lines; larger ones become pixels


class Figure(NamedTuple):
    """A picture in the page: the link that holds it, and what it shows in words."""

    link: str
    alt: str
    caption: str


class Well(NamedTuple):
    """What is in a well; ``parts`` of the name, after which a narrow well may break it."""

    name: str
    perturbation: str
    n_cells: int
    strategy: str
    sign: str
    parts: list[str]


class Plate(NamedTuple):
    """A plate: its number, the names of its columns, and its rows of wells by name of the row."""

    number: int
    columns: list[int]
    rows: list[tuple[str, list[Well | None]]]


@dataclass(frozen=True)
class Section:
    """A section, from top to bottom: words, steps, text letter by letter, plates, figures, tables.

    ``legend`` has strategy, sign and words of all strategies on the maps of ``plates``; ``folded``
    has titles and texts that a reader opens.
    """

    name: str
    title: str
    words: Sequence[str] = ()
    steps: Sequence[str] = ()
    code: str = ""
    plates: Sequence[Plate] = ()
    legend: Sequence[tuple[str, str, str]] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[tuple[str, str]] = ()


@contextmanager
def _plain_style() -> Iterator[None]:
    """Draw alike whatever the user has set, and to the same bits."""
    import matplotlib.style

    known: Any = {"svg.hashsalt": "nextpert", "svg.fonttype": "path", "figure.dpi": 100}
    with matplotlib.style.context(["default", known]):
        yield


def draw(plot: Callable[[], Any], alt: str, caption: str) -> Figure:
    """Return the figure that a plot makes, without a background, so that it suits any scheme.

    It is a vector graphic, unless that would make the page large; then it is a PNG with few
    colours, which has a third of the size of one with many.
    """
    import matplotlib.pyplot as plt
    from PIL import Image

    def saved(kind: str, **options: Any) -> bytes:
        held = io.BytesIO()
        figure.savefig(held, format=kind, transparent=True, bbox_inches="tight", **options)
        return held.getvalue()

    with _plain_style():
        figure = plot()
        held, kind = saved("svg", metadata={"Date": None}), "svg+xml"
        if len(held) > _LARGE:
            with Image.open(io.BytesIO(saved("png", dpi=120))) as image:
                small = io.BytesIO()
                image.quantize(128, method=Image.Quantize.FASTOCTREE).save(
                    small, "png", optimize=True
                )
            held, kind = small.getvalue(), "png"
        plt.close(figure)
    link = f"data:image/{kind};base64,{base64.b64encode(held).decode('ascii')}"
    return Figure(link, alt, caption)


def render(
    title: str, verdict: Verdict, sections: Sequence[Section], absent: Sequence[tuple[str, str]]
) -> str:
    """Return the page as text; ``absent`` are title and function of results that are not there."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("nextpert._report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    words, sign = LEVELS.get(verdict.level, LEVELS["not checked"])
    style, script = _own_file("style.css"), _own_file("script.js")
    page = environment.get_template("page.html.j2").render(
        title=title,
        verdict=verdict,
        level={"name": verdict.level.replace(" ", "-"), "words": words, "sign": sign},
        sections=sections,
        absent=absent,
        width=WIDTH,
        version=version("nextpert"),
        # Nothing but these two may run or be loaded.
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    return in_one_direction(page)


@cache
def _own_file(name: str) -> str:
    return (resources.files("nextpert._report") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}"
