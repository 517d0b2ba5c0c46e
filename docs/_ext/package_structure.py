"""The package structure in one drawing, from the layers that ``tests/test_house.py`` checks."""

from __future__ import annotations

import ast
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# What is in a module.
WORDS = {
    "nextpert.cli": "the command nextpert",
    "nextpert._report": "one HTML page for the wet lab",
    "nextpert.campaign": "several rounds of a lab",
    "nextpert.get": "results as tables",
    "nextpert.pp": "make a screen",
    "nextpert.tl": "learn, fit, plan",
    "nextpert.pl": "plots",
    "nextpert.datasets": "screens",
    "nextpert.study": "targets, plans, advice, scores, without an AnnData",
    "nextpert._adata": "reads and writes the slots of AnnData, checks arguments",
    "nextpert.core": "the public names of the array core",
    "nextpert.core.evaluate": "campaigns over the cells of a screen",
    "nextpert.core.fit": "what a fit learns of a screen, and says of candidates",
    "nextpert.core.design": "targets, distances, plans, power, stopping",
    "nextpert.core.model": "hierarchical model of effects, predictors",
    "nextpert.core.causal": "Zhang et al. 2023: posterior, acquisitions, domains, design loop",
    "nextpert.core.search": "learns graphs from moments of cells",
    "nextpert.core.graph": "directed acyclic graphs, prior knowledge",
    "nextpert.core.screen": "moments of cells by perturbation, guide and batch",
    "nextpert.core._checks": "messages",
    "nextpert.core._codec": "storage",
    "nextpert.core._compile": "kernels",
    "nextpert.core._registry": "names",
    "nextpert.core._text": "prints",
    "nextpert.core._tasks": "workers",
    "nextpert.core._blas": "linear algebra, same bits",
    "nextpert._files": "writes files whole",
    "nextpert._warn": "warns at the user's line",
}
SUMMARY = "The package structure: each layer imports only from the layers below it."
WIDTH, HEIGHT, GAP, LEFT, TOP = 620, 46, 6, 8, 30


def layers(root: Path) -> list[set[str]]:
    """Return the layers of the package, the lowest first."""
    tree = ast.parse((root / "tests" / "test_house.py").read_text(encoding="utf-8"))
    kept = [
        node
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id in ("CORE", "CORE_FILES", "FLOORS")
    ]
    names: dict[str, Any] = {}
    exec(compile(ast.Module(kept, []), "test_house.py", "exec"), names)
    return list(names["FLOORS"])


def drawing(root: Path) -> str:
    """Return the drawing as SVG, the highest layer on top."""
    rows = list(reversed(layers(root)))
    height = TOP + len(rows) * (HEIGHT + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 2 * LEFT} {height}" '
        'role="img" font-family="sans-serif">',
        f"<title>{SUMMARY}</title>",
        f'<rect width="100%" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14" fill="#8a5200">orange: with AnnData</text>',
        f'<text x="{LEFT + WIDTH}" y="20" font-size="14" fill="#005a91" text-anchor="end">'
        "blue: arrays only</text>",
    ]
    for row, modules in enumerate(rows):
        width = (WIDTH - GAP * (len(modules) - 1)) / len(modules)
        for place, name in enumerate(sorted(modules)):
            parts.append(
                module(name, LEFT + place * (width + GAP), TOP + row * (HEIGHT + GAP), width)
            )
    return "\n".join([*parts, "</svg>", ""])


def module(name: str, x: float, y: float, width: float) -> str:
    """Return one module: a box with its name and what is in it."""
    is_core = name.startswith("nextpert.core")
    fill, edge = ("#e8f1fa", "#0072b2") if is_core else ("#fdf1e3", "#b86e00")
    middle = x + width / 2
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{HEIGHT}" rx="4" '
        f'fill="{fill}" stroke="{edge}"/>'
        f'<text x="{middle:g}" y="{y + 20:g}" text-anchor="middle" font-size="16" '
        f'font-weight="bold" fill="#1a1a1a">{escape(name.removeprefix("nextpert."))}</text>'
        f'<text x="{middle:g}" y="{y + 38:g}" text-anchor="middle" font-size="14" '
        f'fill="#333333">{escape(WORDS[name])}</text>'
    )
