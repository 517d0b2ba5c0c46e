"""Every tutorial runs from top to bottom."""

import json
import re
from pathlib import Path

import pytest

pytestmark = [pytest.mark.docs, pytest.mark.brief_chain]

TUTORIALS = sorted((Path(__file__).parents[1] / "tutorials").glob("*.ipynb"))
# Fewer repeats than users run: the outputs are committed, and are those of the notebook as it is.
SMALLER = {
    r"n_graphs=\d+": "n_graphs=2, search_options={'n_runs': 1}",
    r"n_repeats=\d+": "n_repeats=2",
    r"else \(5, 2\)": "else (2, 1)",
    r'"n_runs": \d+': '"n_runs": 20',
    r"N_TARGETS, N_ROUNDS = 10,": "N_TARGETS, N_ROUNDS = 2,",
    r"200_000": "2_000",
    r"100, 20_000, 2_000": "40, 6_000, 900",
    r"in range\(8\)": "in range(2)",
    r"n_rounds=8": "n_rounds=2",
}


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def text(outputs):
    """All of the outputs but the figures."""
    shown = [{**output, "data": {**output.get("data", {}), "image/png": ""}} for output in outputs]
    return json.dumps(shown)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_is_committed_tidily(path):
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert path.stat().st_size < 1.5e6
    assert not [output for output in outputs if output["output_type"] == "error"]
    # Neither warnings nor progress bars, nor with them the folders of somebody's machine.
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not re.search(r"/home/|/root/|/tmp/|/Users/|site-packages|ipykernel_", text(outputs))


@pytest.mark.screen
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_runs(path, screen_path, monkeypatch, tmp_path):
    """In this process, with the short chain and draws of tests; kernels are Jupyter's business."""
    monkeypatch.setenv("NEXTPERT_DATA", str(screen_path))
    monkeypatch.delenv("NEXTPERT_SCP1064", raising=False)  # the small stand-in
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "__main__", "display": str}
    for number, cell in enumerate(code_cells(path)):
        code = "".join(cell["source"])
        for pattern, smaller in SMALLER.items():
            code = re.sub(pattern, smaller, code)
        if "skip-execution" not in cell["metadata"].get("tags", []):
            exec(compile(code, f"{path.stem}, cell {number}", "exec"), space)
    assert "npt" in space or "design_loops" in space
