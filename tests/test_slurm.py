"""The scripts for SLURM, run with stand-ins of sbatch and srun: same bits as in one process."""

import os
import shutil
import subprocess
from pathlib import Path

import anndata as ad
import pandas as pd
import pytest

import nextpert as npt

pytestmark = [pytest.mark.processes, pytest.mark.brief_chain]

SCRIPTS = Path(__file__).parents[1] / "tutorials" / "workflows" / "slurm"
# sbatch notes how it was called, and runs the script at once where `after` has ended well.
SBATCH = """#!/usr/bin/env bash
set -euo pipefail
number=1
until mkdir "$JOBS/$number" 2> /dev/null; do number=$((number + 1)); done
job=$JOBS/$number
printf '%s\\n' "$@" > "$job/args"
words=()
parsable=
ready=1
for word in "$@"; do
  case $word in
    --parsable) parsable=1 ;;
    --dependency=afterok:*) [ -e "$JOBS/${word#*afterok:}/ok" ] || ready= ;;
    --*=*) ;;
    *) words+=("$word") ;;
  esac
done
cp "${words[0]}" "$job/script"  # the file may be gone when the job starts
export SLURM_JOB_ID=$number
if [ -n "$parsable" ]; then
  if [ -n "$ready" ] && bash "$job/script" "${words[@]:1}" > "$job/log" 2>&1; then
    touch "$job/ok"
  fi
  echo "$number"
else  # as Dask calls it: a worker, which goes on in the background
  setsid bash "$job/script" > "$job/log" 2>&1 < /dev/null &
  echo $! > "$job/pid"
  echo "Submitted batch job $number"
fi
"""
SCANCEL = """#!/usr/bin/env bash
for number in "$@"; do kill -TERM -- "-$(cat "$JOBS/$number/pid")" 2> /dev/null || true; done
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch, noted):
    """Return the folder of jobs of stand-ins that are found first."""
    programs, jobs = Path(os.environ["PATH"].split(os.pathsep)[0]), tmp_path / "jobs"
    jobs.mkdir()
    texts = {
        "sbatch": SBATCH, "scancel": SCANCEL, "srun": '#!/usr/bin/env bash\nexec "$@"\n',
    }  # fmt: skip
    for name, text in texts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    source = Path(npt.__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{source}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("JOBS", str(jobs))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return jobs


@pytest.fixture
def screen(tmp_path):
    """Return the path of a small screen."""
    adata = npt.datasets.simulated_screen(
        n_genes=8, n_control=200, n_perturbed=30, perturbed=4, expected_degree=2
    )
    del adata.uns
    path = tmp_path / "screen.h5ad"
    adata.write_h5ad(path)
    return path


def run(*command, **options):
    found = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=600, **options
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.mark.parametrize("name", ["submit.sh", "step.sbatch"])
def test_scripts_are_sound(name):
    run("bash", "-n", SCRIPTS / name)
    if shutil.which("shellcheck"):
        run("shellcheck", SCRIPTS / name)


def test_a_chain_of_jobs_gives_what_the_functions_give(slurm, screen, noted, assert_same):
    target = ad.read_h5ad(screen, backed="r").obs["perturbation"].unique()[1]
    told = run(SCRIPTS / "submit.sh", screen, target, cwd=screen.parent)
    assert told == "effects: job 4, plate: job 5\n"
    logs = [path.read_text() for path in sorted(slurm.glob("*/log"))]
    assert len(list(slurm.glob("*/ok"))) == 5, logs
    after = [
        [line for line in (slurm / str(i) / "args").read_text().split() if "afterok" in line]
        for i in range(1, 6)
    ]
    assert after == [[], *([f"--dependency=afterok:{i}"] for i in (1, 2, 3, 3))]
    assert noted() == ["preprocess", "learn", "fit", "effects", "plan"]
    adata = ad.read_h5ad(screen)
    npt.pp.perturbation_screen(adata)
    npt.tl.learn_dag(adata, method="boss", environments="all", n_graphs=25)
    npt.tl.fit_dag_blr(adata)
    npt.tl.plan_screen(adata, target)
    found = ad.read_h5ad(screen.with_suffix(".plan.h5ad"))
    assert_same(found.varp["dag_frequency"], adata.varp["dag_frequency"])
    assert_same(found.varp["dag_blr_mean"], adata.varp["dag_blr_mean"])
    plate = pd.read_csv(screen.with_suffix(".plate.csv"))
    assert plate["perturbation"].tolist() == adata.uns["plan"]["plate"]["perturbation"].tolist()
    assert len(pd.read_csv(screen.with_suffix(".effects.csv"))) == 4 * 8
