"""The Python blocks of the documentation's pages run, those of a page one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
# What a build puts there is tested where it comes from; the first pages run on a real screen,
# in test_first_pages.py.
MADE = ("_build", "api", "benchmarks", "tutorials")
ELSEWHERE = ("gallery.md", "index.md", "start.md")
PAGES = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if path.relative_to(DOCS).parts[0] not in MADE
    and path.relative_to(DOCS).as_posix() not in ELSEWHERE
]
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(text):
    """The Python blocks of a page, each with the number of lines before it."""
    for found in BLOCK.finditer(text):
        indent = found.group(1)
        lines = [line.removeprefix(indent) for line in found.group(2).splitlines()]
        yield text[: found.start()].count("\n") + 1, "\n".join(lines)


def test_blocks_are_found():
    text = "# Title\n```python\na = 1\n```\n- item\n\n  ```python\n  b = a\n  ```\n"
    text += "```{code-block} python\nnot run\n```\n"
    assert list(blocks(text)) == [(2, "a = 1"), (7, "b = a")]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_blocks_run(path, tmp_path, monkeypatch):
    found = list(blocks(path.read_text(encoding="utf-8")))
    if not found:
        pytest.skip("no Python on this page")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    space = {"__name__": "page"}
    for line, code in found:
        exec(compile("\n" * line + code, str(path), "exec"), space)
