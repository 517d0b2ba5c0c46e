"""The Snakemake workflow of the tutorials: it runs, and a change of settings redoes its part."""

import importlib.util
import os
import shlex
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
]


@pytest.fixture
def run(tmp_path, brief_command):
    """What runs a command in a copy of the folder, with this Python and its nextpert."""
    folder = tmp_path / "workflow"
    folder.mkdir()
    for name in ("Snakefile", "config.toml"):
        shutil.copy(FOLDER / name, folder / name)
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, words in (("python", [sys.executable]), ("nextpert", brief_command)):
        (commands / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (commands / name).chmod(0o755)
    path = {"PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}

    def call(*words):
        command = [sys.executable, "-m", "snakemake"] if words[0] == "snakemake" else [words[0]]
        done = subprocess.run(
            [*command, *words[1:]], cwd=folder, env=os.environ | path, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        logs = "".join(file.read_text() for file in folder.glob("logs/*"))
        assert done.returncode == 0, done.stdout + done.stderr + logs
        return done.stdout + done.stderr

    call.folder = folder
    return call


def test_from_counts_to_the_page(run):
    settings = run.folder / "config.toml"
    settings.write_text(settings.read_text().replace("n-graphs = 10", "n-graphs = 2"))
    run("snakemake", "--cores", "2")
    results = run.folder / "results"
    page = (results / "simulated.report.html").read_text()
    for step in ("preprocess", "learn", "fit", "effects", "design", "plan", "diagnose"):
        assert f"nextpert {step} " in page
    assert "How reliable these results are was not checked" not in page
    plate = pd.read_csv(results / "simulated.plan.csv")
    assert plate["n_cells"].sum() == 800
    assert (pd.read_csv(results / "simulated.effects.csv")["gene"] == "B2M").any()

    # A step's own file of settings repeats it.
    before = {path: path.read_bytes() for path in results.glob("simulated.plan.*")}
    run("nextpert", "plan", "--config", "results/simulated.plan.h5ad.toml", "--overwrite")
    assert {path: path.read_bytes() for path in before} == before

    # A change of the settings redoes that step and the page.
    settings.write_text(settings.read_text().replace("n-cells = 800", "n-cells = 600"))
    said = run("snakemake", "--cores", "1", "--dry-run")
    jobs = dict(line.split()[:2] for line in said.splitlines() if len(line.split()) == 2)
    assert {name: jobs.get(name) for name in ("results", "report", "fit", "learn")} == {
        "results": "1", "report": "1", "fit": None, "learn": None,
    }  # fmt: skip
