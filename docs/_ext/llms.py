"""``llms.txt``: title, one line each page, for readers that are programs (llmstxt.org)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils import nodes

if TYPE_CHECKING:
    from pathlib import Path

    from sphinx.application import Sphinx

SECTIONS = {
    "": "Start",
    "guides": "Guides",
    "model": "The model",
    "tutorials": "Tutorials",
    "coming_from": "Coming from another package",
    "api": "API",
    "benchmarks": "Benchmarks",
    "developer": "Developers",
}
ABOUT = (
    "Which perturbation to test next: active learning with causal graphs for single-cell "
    "perturbation screens in AnnData (Python, scverse)."
)


def write(app: Sphinx, error: Exception | None) -> None:
    """Write the list of all pages beside them."""
    if error is not None or app.builder.format != "html":
        return
    lines: dict[str, list[str]] = {title: [] for title in SECTIONS.values()}
    for name in sorted(app.env.found_docs):
        folder = name.split("/")[0] if "/" in name else ""
        title = app.env.titles[name].astext()
        link = f"{app.config.html_baseurl}{app.builder.get_target_uri(name)}"
        said = first_sentence(app.env.get_doctree(name))
        section = SECTIONS.get(folder, SECTIONS[""])
        lines[section].append(f"- [{title}]({link})" + (f": {said}" if said else ""))
    parts = [f"# {app.config.project}", f"> {ABOUT}"]
    parts += [f"## {title}\n\n" + "\n".join(found) for title, found in lines.items() if found]
    target: Path = app.outdir / "llms.txt"
    target.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def first_sentence(page: nodes.document, most: int = 200) -> str:
    """Return the first sentence of a page, on one line."""
    for paragraph in page.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section) or paragraph.parent.tagname in (
            "desc_content",
            "document",
        ):
            text = " ".join(paragraph.astext().split())
            if not re.search("[.:?!]", text):
                continue  # a badge
            sentence = re.split(r"(?<=[.!?:]) (?=[A-Z])", text)[0]
            return sentence if len(sentence) <= most else sentence[: most - 1].rstrip() + "…"
    return ""
