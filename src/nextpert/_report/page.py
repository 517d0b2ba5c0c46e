"""The page: sections in their order, in the template."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from nextpert._adata.stored import in_one_direction
from nextpert._report import effects, judged, measured, planned
from nextpert._report.intervals import WIDTH
from nextpert._report.results import absent
from nextpert._report.verdict import LEVELS, verdict_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from nextpert._report.blocks import Section

    Found = Mapping[str, dict[str, Any]]


def sections_of(
    adata: AnnData, found: Found, keys: Mapping[str, str], command: str | None
) -> list[Section]:
    """Return the sections there are results for, in the order of the page."""
    every = [
        planned.target_section(found),
        planned.plan_section(found),
        planned.ranking_section(found),
        measured.distances_section(found),
        effects.effects_section(adata, found, keys),
        measured.graph_section(adata, found, keys),
        measured.densities_section(adata, found, keys),
        judged.cells_section(found),
        judged.replay_section(found),
        judged.diagnosis_section(found),
        judged.made_section(adata, found, keys, command),
    ]
    return [section for section in every if section is not None]


def render(
    adata: AnnData, found: Found, keys: Mapping[str, str], title: str, command: str | None
) -> str:
    """Return the page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("nextpert._report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    verdict = verdict_of(found)
    words, sign = LEVELS.get(verdict.level, LEVELS["not judged"])
    style, script = _own_file("style.css"), _own_file("script.js")
    page = environment.get_template("page.html.j2").render(
        title=title,
        verdict=verdict,
        level={"name": verdict.level.replace(" ", "-"), "words": words, "sign": sign},
        sections=sections_of(adata, found, keys, command),
        absent=absent(found),
        width=WIDTH,
        version=judged.version("nextpert"),
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
