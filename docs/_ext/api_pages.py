"""API: one page a public function or class, listed from the packages' own tables of names."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import array_types
import gallery_page

import nextpert

DOCS = Path(__file__).parents[1]
PACKAGES = {
    "pp": ("Preprocessing", "From counts and guides to a screen that the tools can read."),
    "tl": ("Tools", "Learn the graph, fit the model, estimate effects, rank, plan, diagnose."),
    "pl": ("Plots", "One for each result; the [gallery](../gallery.md) shows all of them."),
    "get": ("Results as tables", "Tables of what is stored in `uns`."),
    "datasets": ("Data sets", "Real screens, downloaded once, and simulated ones."),
}
ROOMS = {
    "screen": "Screens",
    "graph": "Graphs",
    "search": "Searches",
    "model": "Posterior, effects and predictors",
    "design": "Targets, acquisitions, domains and plates",
    "simulate": "Models with known truth",
    "evaluate": "Campaigns with known truth",
}
# Beneath them, told of in what is said of the names above.
PARTS = (
    "screen.mean_distance.distance_difference",
    "screen.mean_distance.mean_distance",
    "screen.guides.spread_within",
    "graph.random_dag.matched_random_dag",
    "design.stopping.draw_plate",
    "design.stopping.knowledge_gradient",
    "design.stopping.stopping",
    "design.distances.state_draws",
)
TOP = """# API

{module}Import as `import nextpert as npt`. Functions take an AnnData first, write their results
into it, and return nothing, unless `copy=True`; an error leaves it unchanged. The page of each
function says which fields it writes and which [kinds of arrays](array_types.md) it reads.

## Campaigns, targets and the report

"""
CORE = """# The array core

`nextpert.core` has the mathematics on plain arrays: no AnnData, no pandas, no plots. Use it for
methods that the tools do not offer; for screens, the [tools](index.md) are easier.

"""


def module(name: str) -> str:
    """Return the place that links to a package lead to."""
    return f"```{{eval-rst}}\n.. module:: {name}\n```\n\n"


def listing(package: str, names: list[str]) -> str:
    """Return an autosummary of some names, with a page for each."""
    rows = "\n".join(f"   {name}" for name in names)
    return (
        f"```{{eval-rst}}\n.. currentmodule:: {package}\n\n"
        f".. autosummary::\n   :toctree: generated\n   :nosignatures:\n\n{rows}\n```\n\n"
    )


def pages() -> dict[str, str]:
    """Return the pages that list all public names."""
    packages = {name for name in nextpert.__all__ if inspect.ismodule(getattr(nextpert, name))}
    text = TOP.format(module=module("nextpert")) + listing(
        "nextpert", sorted(set(nextpert.__all__) - packages)
    )
    for name, (title, words) in PACKAGES.items():
        package = f"nextpert.{name}"
        text += f"## {title}: `{name}`\n\n{module(package)}{words}\n\n"
        text += listing(package, list(getattr(nextpert, name).__all__))
    text += "## Beneath\n\n```{toctree}\n:maxdepth: 1\n\ncore\narray_types\n```\n"
    return {
        "index.md": text,
        "core.md": CORE + module("nextpert.core") + core(),
        "array_types.md": array_types.page(),
    }


def core() -> str:
    """Return the core's names, room by room."""
    rooms: dict[str, list[str]] = {room: [] for room in ROOMS}
    for name in nextpert.core.__all__:
        rooms[getattr(nextpert.core, name).__module__.split(".")[2]].append(name)
    text = "".join(
        f"## {ROOMS[room]}\n\n" + listing("nextpert.core", names)
        for room, names in rooms.items()
        if names
    )
    return text + "## Parts beneath\n\n" + listing("nextpert.core", list(PARTS))


def add_to_docstring(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Add to a function its picture and the arrays it takes, and say what it returns once."""
    _, sub, *rest = [*name.split("."), ""]
    # What is returned stands in "Returns", better than the signature says it.
    app.env.current_document.autodoc_annotations.get(name, {}).pop("return", None)
    lines[:] = [
        re.sub(r"(?<![`\w])~[\w.]*\.(\w+)", r"\1", line) if line.startswith(":return") else line
        for line in lines
    ]
    captions = gallery_page.captions(DOCS) if what == "function" and sub == "pl" else {}
    if rest[0] in captions:
        place = f".. image:: /_static/gallery/{rest[0]}.png"
        picture = ["", place, f"   :alt: {captions[rest[0]]}", ""]
        # Below the summary.
        end = lines.index("") if "" in lines else len(lines)
        lines[end:end] = picture
    if what == "function" and f"{sub}.{rest[0]}" in array_types.FUNCTIONS:
        place = next((i for i, line in enumerate(lines) if "rubric:: Examples" in line), len(lines))
        lines[place:place] = array_types.of_function(f"{sub}.{rest[0]}")
