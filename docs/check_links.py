"""Checks the built pages without a network: every link within them leads to a file and an anchor.

Run as ``python docs/check_links.py docs/_build/html``; it prints what leads nowhere.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FROM_OUTSIDE = ("http", "https", "mailto", "data", "javascript")


class _Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[str] = []
        self.anchors: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what points somewhere, and what can be pointed to."""
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        for name in ("href", "src"):
            if name in found:
                self.links.append(found[name])


def broken_links(folder: Path) -> list[str]:
    """Return ``page: link`` for every link of the folder's pages that leads nowhere."""
    folder = folder.resolve()
    pages = {
        path: _Page(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.html"))
        if "_static" not in path.relative_to(folder).parts  # templates of the theme
    }
    broken = []
    for path, page in pages.items():
        for link in dict.fromkeys(page.links):
            parts = urlsplit(link)
            if parts.scheme in _FROM_OUTSIDE or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            is_there = target.is_relative_to(folder) and target.exists()
            anchors = pages[target].anchors if target in pages else {unquote(parts.fragment)}
            if not is_there or unquote(parts.fragment) not in anchors:
                broken.append(f"{path.relative_to(folder)}: {link}")
    return broken


if __name__ == "__main__":
    lost = broken_links(Path(sys.argv[1]))
    print("\n".join(lost) or "every link leads somewhere")
    sys.exit(bool(lost))
