"""Every tutorial runs from top to bottom."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.docs

TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("*.ipynb"))
NAMES = (
    "quickstart",
    "plan_a_plate",
    "a_campaign_in_three_rounds",
    "combinations",
    "batches_and_guides",
    "perturb_cite_seq",
    "the_paper_on_simulated_models",
)


def test_there_are_tutorials():
    assert set(NAMES) <= {path.stem for path in TUTORIALS}


def text(outputs):
    """All of the outputs but the figures."""
    shown = [{**output, "data": {**output.get("data", {}), "image/png": ""}} for output in outputs]
    return json.dumps(shown)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_is_committed_tidily(path):
    outputs = [
        output
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", [])
    ]
    assert path.stat().st_size < 1.5e6
    assert not [output for output in outputs if output["output_type"] == "error"]
    # Neither warnings nor progress bars, nor with them the folders of somebody's machine.
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not re.search(r"/home/|/root/|/tmp/|/Users/|site-packages|ipykernel_", text(outputs))


@pytest.mark.screen
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_runs(path, screen_path, monkeypatch, tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="the extra docs is not installed")
    nbclient = pytest.importorskip("nbclient", reason="the extra docs is not installed")
    monkeypatch.setenv("NEXTPERT_DATA", str(screen_path))
    monkeypatch.delenv("NEXTPERT_SCP1064", raising=False)  # the small stand-in
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(path, as_version=4)
    committed = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert any(committed), "a tutorial is committed with its output"
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": os.fspath(tmp_path)}},
    )
    client.execute()
    shown = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(shown) >= 3


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_uses_what_is_public_silences_nothing_and_decides(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code")
    assert not re.search(r"nextpert(\.\w+)*\._|npt(\.\w+)*\._|import _", code)
    assert not re.search(r"warnings\.|simplefilter|filterwarnings|setLevel|logging\.disable", code)
    assert "".join(cells[0]["source"]).startswith("# ")
    (install,) = cells[1]["source"]
    assert install.startswith("%pip install .. ")  # nothing is released: from the clone
    assert cells[1]["metadata"]["tags"] == ["skip-execution"]
    assert "## The decision" in "".join("".join(cell["source"]) + "\n" for cell in cells[-3:])
