"""A call that fails leaves ``adata`` as it was: results are written at once, at the end."""

import ast
from pathlib import Path

import nextpert as npt

SOURCE = Path(npt.__file__).parent
SLOTS = {"obs", "var", "obsm", "varm", "obsp", "varp", "uns", "layers", "X"}


def writes(path):
    """Lines of a file that write to a slot of something."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            inner = target.value if isinstance(target, ast.Subscript) else target
            if not isinstance(inner, ast.Attribute) or inner.attr not in SLOTS:
                continue
            if ast.unparse(inner.value) != "new":  # an AnnData of its own, not the user's
                found.append(f"{path.name}:{node.lineno}")
    return found


def test_one_place_writes_to_the_slots():
    # screen.py fills an AnnData of its own, which then takes the place of the user's.
    files = [p for room in ("tl", "pp", "pl") for p in (SOURCE / room).rglob("*.py")]
    assert len(files) > 40
    assert [line for p in files if p.name != "screen.py" for line in writes(p)] == []
