"""The Snakemake workflow of the tutorials: it runs, and a change of settings redoes its part."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

FOLDER = Path(__file__).parents[1] / "tutorials" / "workflows"

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("snakemake") is None, reason="the extra workflows is not installed"
    ),
    pytest.mark.docs,
    pytest.mark.brief_chain,
]


@pytest.fixture
def run(tmp_path, noted, monkeypatch):
    """What runs snakemake in a copy of the folder, with this Python and a stand-in of nextpert."""
    folder = tmp_path / "workflow"
    folder.mkdir()
    for name in ("Snakefile", "config.toml"):
        shutil.copy(FOLDER / name, folder / name)
    python = Path(os.environ["PATH"].split(os.pathsep)[0]) / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(folder)

    def call(*words):
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", *words], capture_output=True, text=True, check=False
        )
        logs = "".join(file.read_text() for file in folder.glob("logs/*"))
        assert done.returncode == 0, done.stdout + done.stderr + logs
        return done.stdout + done.stderr

    return call


def test_from_counts_to_the_page(run, noted):
    settings = Path("config.toml")
    settings.write_text(settings.read_text().replace("n-graphs = 10", "n-graphs = 2"))
    run("--cores", "2")
    assert len(noted()) == 8
    results = Path("results")
    page = (results / "simulated.report.html").read_text()
    for step in ("preprocess", "learn", "fit", "effects", "design", "plan", "diagnose"):
        assert f"nextpert {step} " in page
    assert "The reliability of these results was not checked" not in page
    plate = pd.read_csv(results / "simulated.plan.csv")
    assert plate["n_cells"].sum() == 800
    assert (pd.read_csv(results / "simulated.effects.csv")["gene"] == "B2M").any()

    # A change of the settings redoes that step and the page.
    settings.write_text(settings.read_text().replace("n-cells = 800", "n-cells = 600"))
    said = run("--cores", "1", "--dry-run", "--rerun-triggers", "params")
    jobs = dict(line.split()[:2] for line in said.splitlines() if len(line.split()) == 2)
    assert {name: jobs.get(name) for name in ("results", "report", "fit", "learn")} == {
        "results": "1", "report": "1", "fit": None, "learn": None,
    }  # fmt: skip
