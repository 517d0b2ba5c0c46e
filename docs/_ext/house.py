"""The house in one drawing, from the floors that ``tests/test_house.py`` holds imports to."""

from __future__ import annotations

import ast
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# What is in a room; a room without words here is drawn with its name alone.
WORDS = {
    "nextpert.cli": "the command",
    "nextpert._report": "one page for the wet lab",
    "nextpert.campaign": "several rounds of a lab",
    "nextpert.pp": "guides, cells and genes",
    "nextpert.tl": "learn, fit, rank, plan",
    "nextpert.pl": "plots",
    "nextpert.get": "results as tables",
    "nextpert.datasets": "screens",
    "nextpert._adata": "reads and writes AnnData's slots",
    "nextpert.core": "public names of the core",
    "nextpert.core.evaluate": "campaigns with known truth",
    "nextpert.core.simulate": "models with known truth",
    "nextpert.core.design": "goals, acquisitions, domains, plates, power, when to stop",
    "nextpert.core.model": "weights of the graph, effects, predictors",
    "nextpert.core.search": "graphs from cells",
    "nextpert.core.graph": "graphs",
    "nextpert.core.screen": "sums of cells by environment",
    "nextpert.core._codec": "how results are stored",
}
WIDTH, HEIGHT, GAP, LEFT = 760, 44, 6, 10


def floors(root: Path) -> list[set[str]]:
    """Return the floors of the house, from the ground up."""
    tree = ast.parse((root / "tests" / "test_house.py").read_text(encoding="utf-8"))
    kept = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("CORE", "FLOORS")
    ]
    names: dict[str, Any] = {}
    exec(compile(ast.Module(kept, []), "test_house.py", "exec"), names)
    return list(names["FLOORS"])


def drawing(root: Path) -> str:
    """Return the drawing as SVG, the roof on top."""
    rows = list(reversed(floors(root)))
    height = len(rows) * (HEIGHT + GAP) + 2 * GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 2 * LEFT} {height}" '
        'role="img" font-family="sans-serif">',
        "<title>The rooms of nextpert, floor by floor: a room imports only from below.</title>",
    ]
    for row, rooms in enumerate(rows):
        width = (WIDTH - GAP * (len(rooms) - 1)) / len(rooms)
        for place, name in enumerate(sorted(rooms)):
            parts.append(
                room(name, LEFT + place * (width + GAP), GAP + row * (HEIGHT + GAP), width)
            )
    return "\n".join([*parts, "</svg>", ""])


def room(name: str, x: float, y: float, width: float) -> str:
    """Return one room: a box with its name and what is in it."""
    is_core = name.startswith("nextpert.core")
    fill, edge = ("#e8f1fa", "#0072b2") if is_core else ("#fdf1e3", "#b86e00")
    middle, words = x + width / 2, WORDS.get(name, "")
    text = (
        f'<text x="{middle:g}" y="{y + (19 if words else 27):g}" text-anchor="middle" '
        f'font-size="13" font-weight="bold" fill="#1a1a1a">'
        f"{escape(name.removeprefix('nextpert.'))}</text>"
    )
    if words:
        text += (
            f'<text x="{middle:g}" y="{y + 35:g}" text-anchor="middle" font-size="11" '
            f'fill="#333333">{escape(words)}</text>'
        )
    box = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{HEIGHT}" rx="4" '
    return f'{box}fill="{fill}" stroke="{edge}"/>{text}'
