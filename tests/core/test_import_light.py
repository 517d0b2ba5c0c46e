"""Importing stays light: heavy modules load on first use, and the core needs no AnnData."""

from __future__ import annotations

import subprocess
import sys

import pytest


def loaded_after(statement: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a fresh interpreter after ``statement``."""
    code = f"import sys; {statement}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(result.stdout.split())


def test_the_package_loads_nothing_heavy():
    loaded = loaded_after("import nextpert; nextpert.__version__; dir(nextpert)")
    heavy = {"anndata", "scanpy", "matplotlib", "numba", "pandas", "scipy", "numpy", "seaborn"}
    assert "nextpert" in loaded
    assert not loaded & heavy


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "import nextpert.core",
        "from nextpert.core import *",
        "from nextpert.core import DagBlr, Dag, Moments, Civ, Sphere; "
        "b = DagBlr(Dag.complete(range(3)), noise_var=1.0); "
        "b = b.update(Moments.from_array([[1.0, 2.0, 3.0]])); "
        "Sphere().minimise(Civ(b, [1.0, 2.0, 3.0]), rng=0); b.from_dict(b.to_dict()).sample(2)",
    ],
)
def test_the_core_needs_no_anndata(statement):
    loaded = loaded_after(statement)
    assert "numpy" in loaded
    assert not loaded & {"anndata", "scanpy", "pandas", "matplotlib", "seaborn", "sklearn"}
