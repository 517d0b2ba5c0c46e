"""Write the page of numeric constants from the sources: ``python docs/list_constants.py``.

A constant is a name in capitals in a module of ``core``, ``study``, ``tl`` or ``_adata``; its value
is a number, or a tuple of numbers. Its reason is the comment on its line, or the comment above it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "nextpert"
PAGE = ROOT / "docs" / "developer" / "constants.md"
ROOMS = ("core", "study", "tl", "_adata")
HEAD = """# Constants

Numbers that the code fixes, by file, each with the comment beside it in the source: why it has this
value, or, where nothing chose it but judgement, only what it limits.
Formulas are in {doc}`/model/mathematics`. The page is written by `python docs/list_constants.py`,
and a test compares it with the sources.
"""
TABLE = "| constant | value | reason or meaning | file |\n|---|---|---|---|\n"


class Constant(NamedTuple):
    """A constant of a module: where it is, its value as written, and its reason."""

    file: str
    name: str
    value: str
    reason: str


def is_number(node: ast.expr) -> bool:
    """Whether an expression is a number, a product or power of numbers, or a tuple of these."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) and not isinstance(node.value, bool)
    if isinstance(node, ast.UnaryOp):
        return is_number(node.operand)
    if isinstance(node, ast.BinOp):
        return is_number(node.left) and is_number(node.right)
    return isinstance(node, ast.Tuple) and bool(node.elts) and all(map(is_number, node.elts))


def reason_of(lines: list[str], first: int, last: int) -> str:
    """Return the comment on the lines of a constant, or else the one above its block."""
    for line in lines[first - 1 : last]:
        beside = line.partition("  # ")[2].strip()
        if beside and beside != "fmt: skip":
            return beside
    row, above = first - 2, []
    # Constants without an empty line between them share the comment above the first.
    while row >= 0 and re.match(r"_?[A-Z][A-Z0-9_]*(, _?[A-Z][A-Z0-9_]*)* = ", lines[row]):
        row -= 1
    while row >= 0 and lines[row].startswith("#"):
        above.insert(0, lines[row].removeprefix("#").strip())
        row -= 1
    return " ".join(above)


def constants_of(text: str, file: str) -> list[Constant]:
    """Return the numeric constants of a module."""
    lines, found = text.splitlines(), []
    for node in ast.parse(text).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        names = [one.id for one in ast.walk(target) if isinstance(one, ast.Name)]
        if all(re.fullmatch(r"_?[A-Z][A-Z0-9_]*", name) for name in names) and is_number(
            node.value
        ):
            value = " ".join(str(ast.get_source_segment(text, node.value)).split())
            reason = reason_of(lines, node.lineno, node.end_lineno or node.lineno)
            found.append(Constant(file, ", ".join(names), value, reason))
    return found


def all_constants() -> list[Constant]:
    """Return the numeric constants of all rooms."""
    return [
        constant
        for room in ROOMS
        for path in sorted((SOURCE / room).rglob("*.py"))
        for constant in constants_of(
            path.read_text(encoding="utf-8"), path.relative_to(SOURCE).as_posix()
        )
    ]


def page() -> str:
    """Return the page: a table of constants by room."""
    constants, parts = all_constants(), [HEAD]
    for room in ROOMS:
        parts.append(f"\n## `{room}`\n\n{TABLE}")
        parts += [row_of(one) for one in constants if one.file.startswith(f"{room}/")]
    return "".join(parts)


def row_of(constant: Constant) -> str:
    """Return the row of a constant in Markdown; long values are cut."""
    value = constant.value if len(constant.value) <= 60 else f"{constant.value[:57]}..."
    cells = [f"`{constant.name}`", f"`{value}`", constant.reason, f"`{constant.file}`"]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
