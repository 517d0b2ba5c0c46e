"""The Python blocks of the documentation's pages run, and print what the pages show below them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.docs

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
BLOCK = re.compile(
    r"^( *)```python\n(.*?)^\1```$(?:\n\n\1```text\n(.*?)^\1```$)?", re.MULTILINE | re.DOTALL
)
# Numbers, but not those of a name (CD58); on another machine a draw may differ a little.
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?")


def of_page(path):
    """A page's case; the numbers that it prints are of users' chain."""
    shown = "".join(filter(None, outputs(path.read_text(encoding="utf-8"))))
    marks = pytest.mark.full_chain if re.search(r"\d", shown) else pytest.mark.brief_chain
    return pytest.param(path, marks=marks, id=str(path.relative_to(DOCS)))


def blocks(text):
    """The Python blocks of a page, each with the number of lines before it."""
    for found in BLOCK.finditer(text):
        indent = found.group(1)
        lines = [line.removeprefix(indent) for line in found.group(2).splitlines()]
        yield text[: found.start()].count("\n") + 1, "\n".join(lines)


def outputs(text):
    """The output that a page shows below each of its Python blocks, ``None`` where it has none."""
    return [found.group(3) for found in BLOCK.finditer(text)]


def alike(shown, printed):
    """Whether a page shows what was printed: words as they are, numbers to 5% or 0.05."""
    shown, printed = (" ".join(text.split()) for text in (shown, printed))
    if NUMBER.split(shown) != NUMBER.split(printed):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    values = ((float(a.replace(",", "")), float(b.replace(",", ""))) for a, b in pairs)
    return all(abs(a - b) <= max(0.05, 0.05 * abs(b)) for a, b in values)


def test_blocks_are_found():
    text = "# Title\n```python\na = 1\n```\n- item\n\n  ```python\n  b = a\n  ```\n\n"
    text += "  ```text\n  1\n  ```\n```{code-block} python\nnot run\n```\n"
    assert list(blocks(text)) == [(2, "a = 1"), (7, "b = a")]
    assert outputs(text) == [None, "  1\n"]


def test_output_is_compared_word_by_word_and_number_by_number():
    assert alike("CTSA  0.97\n", "  CTSA    1.0\n")
    assert not alike("CTSA 0.97", "CTSB 0.97")
    assert not alike("CD58 0.97", "CD59 0.97")
    assert not alike("CTSA 0.97", "CTSA 0.87")
    assert not alike("1,045 cells", "1,145 cells")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", map(of_page, PAGES))
def test_blocks_run(path, tmp_path, monkeypatch):
    text = path.read_text(encoding="utf-8")
    found = list(blocks(text))
    if not found:
        pytest.skip("no Python on this page")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    space = {"__name__": "page"}
    for (line, code), shown in zip(found, outputs(text), strict=True):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile("\n" * line + code, str(path), "exec"), space)
        assert shown is None or alike(shown, printed.getvalue()), printed.getvalue()
