"""Every message that the page of troubles shows is one that the package gives."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (`[^|]*`) \|", re.MULTILINE)
SHOWN = re.compile(r"`([^`]*…[^`]*)`")


def messages():
    """All texts of the package's code, "…" in the place of what they are filled with."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (x.value if isinstance(x, ast.Constant) else "…" for x in node.values)
                yield "".join(parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[-.\d]*[a-z]", "…", node.value)


def runs(message):
    """Words of a message in a row, of 12 characters or more, between the parts that vary."""
    for part in message.split("…"):
        words = part.split()
        for i in range(len(words)):
            for j in range(i + 1, len(words) + 1):
                run = " ".join(words[i:j])
                if len(run) >= 12:
                    yield run


def test_all_messages_are_those_of_the_package():
    page = (ROOT / "docs/guides/what_can_go_wrong.md").read_text(encoding="utf-8")
    shown = [message for row in ROW.findall(page) for message in SHOWN.findall(row)]
    assert len(shown) > 30
    every = "\n".join(messages())
    for message in shown:
        assert any(run in every for run in runs(message)), message
