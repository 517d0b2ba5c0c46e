"""Makes the pages that follow from the rest of the repository, before Sphinx looks for pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import api_pages
import benchmark_pages
import function_pages
import gallery_page
import llms
import package_structure
import stored_results
import tutorial_pages

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent


def write(path: Path, text: str) -> None:
    """Write a page, unless it says the same already: Sphinx reads again what is newer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def make(app: Sphinx, config: Any) -> None:
    """Make all pages."""
    config.linkcode_resolve = function_pages.source
    for folder, pages in (
        ("api", api_pages.pages()),
        ("", gallery_page.pages(DOCS)),
        ("_static", {"package_structure.svg": package_structure.drawing(ROOT)}),
    ):
        for name, text in pages.items():
            write(DOCS / folder / name, text)
    benchmark_pages.copy(ROOT / "benchmarks", DOCS / "benchmarks")
    tutorial_pages.copy(ROOT / "tutorials", DOCS / "tutorials", DOCS / "_static" / "tutorials")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the steps to Sphinx."""
    app.connect("config-inited", make)
    app.connect("source-read", stored_results.fill)
    # After napoleon, which turns numpydoc sections into fields.
    app.connect("autodoc-process-docstring", function_pages.add, priority=900)
    app.connect("build-finished", llms.write)
    return {"parallel_read_safe": True}
