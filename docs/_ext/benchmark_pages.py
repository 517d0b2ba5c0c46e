"""Benchmarks: the tables of ``benchmarks/``, each with the command that makes it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """# Benchmarks

Every number in the documentation is computed by a command of the repository, run in a clone with
the package installed. The tables below are the output of these commands, and also state where a
goal was not reached.

"""
SPEED = "[speed and memory](speed.md) compared with peers"


def copy(source: Path, target: Path) -> None:
    """Copy tables and pictures, and put titles and commands to those without."""
    readme = (source / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`python .*?`) \| (.*) \|$", readme, re.MULTILINE)
    rows.insert(0, ("`python -m benchmarks`", SPEED))
    pages = {target / "index.md": (HEAD + listed(rows)).encode()}
    for path in sorted(source.rglob("*")):
        if path.suffix in (".md", ".png", ".csv"):
            name = str(path.relative_to(source))
            is_result = path.suffix == ".md" and path.parent.name == "results"
            text = with_head(path, rows).encode() if is_result else path.read_bytes()
            if name == "paper/README.md":
                text += b"\n" + tree("results/*").encode()
            pages[target / ("speed.md" if name == "README.md" else name)] = text
    for path in target.rglob("*.*"):
        if path not in pages:
            path.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_bytes() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)


def with_head(path: Path, rows: list[tuple[str, str]]) -> str:
    """Return a table with a title, and a line on the command that makes it."""
    text = path.read_text(encoding="utf-8")
    found = [
        (command, label)
        for command, words in rows
        for label in re.findall(rf"\[([^\]]*)\]\(results/{path.name}\)", words)
    ]
    if not text.startswith("# "):
        name = re.sub(r"^fig(?=\d)", "Fig. ", path.stem.replace("_", " "))
        title = found[0][1] if found else name
        text = f"# {title[0].upper()}{title[1:]}\n\n{text}"
    commands = [command for command, _ in found if command.strip("`") not in text]
    return text + "".join(f"\n*Made by {command}.*\n" for command in commands)


def listed(rows: list[tuple[str, str]]) -> str:
    """Return the table of all commands and the tree of pages."""
    table = ["| table | command |", "|---|---|"]
    table += [f"| {words} | {command} |" for command, words in rows]
    return "\n".join([*table, "", tree("speed", "paper/README", "results/*")])


def tree(*pages: str) -> str:
    """Return the pages beneath a page."""
    return "\n".join(["```{toctree}", ":hidden:", ":glob:", "", *pages, "```", ""])
