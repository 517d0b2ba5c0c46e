"""Strings that users read, drawn at random: docstrings, messages, report and command help.

``python -m benchmarks.strings [PATH]`` prints 20 of each from the sources in PATH (``src`` by
default). The seed stands here, so that anybody draws the same strings.
"""

from __future__ import annotations

import ast
import random
import sys
from pathlib import Path

SEED, N = 20261128, 20


def texts(path: Path) -> dict[str, list[str]]:
    """Return paragraphs of docstrings, messages, and texts of report and help of one file."""
    found: dict[str, list[str]] = {"docstrings": [], "messages": [], "report": [], "help": []}
    kind = {"_report": "report", "cli": "help"}.get(path.parts[-2], "docstrings")
    is_help = path.name in ("_commands.py", "_options.py")
    docs = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and node.body:
            docs.add(getattr(node.body[0], "value", None))
            doc = ast.get_docstring(node, clean=True) or ""
            if "\nExamples\n" in doc or is_help:  # public, or a command
                parts = (" ".join(part.split()) for part in doc.split("\n\n"))
                found[kind] += [
                    part for part in parts if len(part.split()) > 4 and ">>>" not in part
                ]
        value = node.value if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.Call) and node.args:  # of a logger, a warning or an error
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            value = node.args[0] if name in ("info", "warning", "warn", "append") else None
        if isinstance(node, ast.Constant) and node not in docs and (kind == "report" or is_help):
            value = node if isinstance(node.value, str) else None
        if isinstance(value, ast.JoinedStr | ast.Constant):
            text = ast.unparse(value).removeprefix("f").strip("'\"")
            if len(text.split()) > 6 and "\\n" not in text:
                found[kind if kind == "report" or is_help else "messages"].append(text)
    return found


def main() -> None:
    """Print the strings."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "src")
    every: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*.py")):
        for kind, some in texts(path).items():
            every.setdefault(kind, set()).update(some)
    for kind, some in every.items():
        print(f"\n## {kind}: {min(N, len(some))} of {len(some)}\n")
        for text in random.Random(SEED).sample(sorted(some), min(N, len(some))):
            print(f"- {text[:400]}")


if __name__ == "__main__":
    main()
