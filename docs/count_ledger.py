"""Count the code lines of the ledger's rows from the source, and write them into the page.

    python docs/count_ledger.py

Code lines are those with code, imports and signatures included, without docstrings, comments and
empty lines. Files named ``__init__.py`` count where their folder is in a row, and in the sum.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).parent / "developer" / "ledger.md"
SOURCE = Path(__file__).parents[1] / "src" / "nextpert"


def code_lines(path: Path) -> int:
    """Return the number of code lines of a file."""
    text = path.read_text(encoding="utf-8")
    documented = set()
    for node in ast.walk(ast.parse(text)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(node.value.value, str):
            documented.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in documented
        for number, line in enumerate(text.splitlines(), start=1)
    )


def files_of(row: str) -> list[Path]:
    """Return the source files that a row names, those of a folder included."""
    files: list[Path] = []
    for name in re.findall(r"`([^`]+)`", row.split("|")[2]):
        path = SOURCE / name
        files += path.rglob("*.py") if path.is_dir() else [path]
    return files


def rows(text: str) -> Iterator[tuple[str, int]]:
    """Yield every row of the table, the last with the sum, and its number of code lines."""
    table = [line for line in text.splitlines() if line.startswith("| ")][1:]
    for row in table[:-1]:
        yield row, sum(code_lines(file) for file in files_of(row))
    yield table[-1], sum(code_lines(file) for file in SOURCE.rglob("*.py"))


def counted(text: str) -> str:
    """Return the page with its numbers of code lines replaced by those of the source."""
    for row, count in rows(text):
        cells = row.split("|")
        cells[3] = f" {count:,} "
        text = text.replace(row, "|".join(cells))
    return text


if __name__ == "__main__":
    PAGE.write_text(counted(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
