"""The gallery: every plot, drawn anew by ``make_gallery.py`` where the plots have changed."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING

import nextpert

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """# Gallery

All plots, drawn for one small simulated screen. Each picture links to its function.

"""
CARD = """:::{{grid-item-card}} pl.{name}
:link: api/generated/nextpert.pl.{name}
:link-type: doc
:img-top: _static/gallery/{name}.png
:img-alt: {caption}

{caption}
:::
"""


def captions(docs: Path) -> dict[str, str]:
    """Return what is on each picture, drawing them where they are older than the code."""
    script, folder = docs / "make_gallery.py", docs / "_static" / "gallery"
    kept = folder / "captions.json"
    if not script.exists():
        return {}
    sources = [script, *(docs.parent / "src" / "nextpert").rglob("*.py")]
    if not kept.exists() or kept.stat().st_mtime < max(path.stat().st_mtime for path in sources):
        spec = importlib.util.spec_from_file_location("make_gallery", script)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(module.make(folder)), encoding="utf-8")
    return dict(json.loads(kept.read_text(encoding="utf-8")))


def pages(docs: Path) -> dict[str, str]:
    """Return the gallery's page."""
    found = captions(docs)
    cards = [
        CARD.format(name=name, caption=found[name].replace("\n", " "))
        for name in nextpert.pl.__all__
        if name in found
    ]
    grid = "\n".join(["::::{grid} 1 1 2 2", ":gutter: 3", "", *cards, "::::", ""])
    return {"gallery.md": HEAD + (grid if cards else "")}
