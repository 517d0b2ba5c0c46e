"""A call that fails leaves ``adata`` as it was: results are written at once, at the end."""

import ast
from pathlib import Path

import numpy as np
import pytest

import nextpert as npt

SOURCE = Path(npt.__file__).parent
SLOTS = {"obs", "var", "obsm", "varm", "obsp", "varp", "uns", "layers", "X"}

CALLS = {
    "learn": npt.tl.learn_dag,
    "fit": npt.tl.fit_dag_blr,
    "distances": lambda a, **options: npt.tl.target_distances(a, "MYC", **options),
    "dag_fit": npt.tl.dag_fit,
    "cpca": npt.tl.cpca,
    "screen": npt.pp.perturbation_screen,
    "guides": lambda a, **options: npt.pp.assign_guides(a, guides="guides", **options),
    "shift": lambda a, **options: npt.pl.expression_shift(a, show=False, **options),
    "counts": lambda a, **options: npt.pl.perturbation_counts(a, show=False, **options),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("control", [None, 3, "", ["control", 3], []])
def test_labels_of_controls_that_are_none(call, control, small_screen, assert_same_adata):
    if control is None and call not in ("screen", "guides"):
        return  # None stands for the label that pp.setup_screen was told
    small_screen.obs["guides"] = np.where(small_screen.obs["perturbation"] == "MYC", "MYC_1", "")
    npt.tl.learn_dag(small_screen, method="given", dag=[("MYC", "STK3")])
    npt.tl.fit_dag_blr(small_screen)
    before = small_screen.copy()
    with pytest.raises((TypeError, ValueError), match=r"control (must be|names no) |No control "):
        CALLS[call](small_screen, control=control)
    assert_same_adata(small_screen, before)


def writes(path):
    """Lines of a file that write to a slot of something."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            inner = target.value if isinstance(target, ast.Subscript) else target
            if isinstance(inner, ast.Attribute) and inner.attr in SLOTS:
                found.append(f"{path.name}:{node.lineno}")
    return found


def test_one_place_writes_to_the_slots():
    # screen.py fills an AnnData of its own, which then takes the place of the user's.
    files = [p for room in ("tl", "pp", "pl") for p in (SOURCE / room).rglob("*.py")]
    assert len(files) > 40
    assert [line for p in files if p.name != "screen.py" for line in writes(p)] == []
