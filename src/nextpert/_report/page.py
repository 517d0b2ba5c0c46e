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

from nextpert._report.results import LEVELS, UNKNOWN
from nextpert._report.tables import WIDTH
from nextpert.core._text import in_one_direction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anndata import AnnData

    from nextpert._report.results import Verdict
    from nextpert._report.tables import Table

_LARGE = 500_000  # bytes of a drawing in lines; larger ones become pixels


class Figure(NamedTuple):
    """A figure in the page: the link that contains it, a description, and a caption."""

    link: str
    alt: str
    caption: str


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
        save = partial(figure.savefig, transparent=True, bbox_inches="tight")
        save(buffer, format="svg", metadata={"Date": None})
        if buffer.tell() > _LARGE:
            buffer = io.BytesIO()
            kind = "png"
            save(buffer, format="png", dpi=120, metadata={"Software": None})
        plt.close(figure)
    coded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Figure(f"data:image/{kind};base64,{coded}", alt, caption)


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
