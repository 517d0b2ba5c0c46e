"""Kernels that a wheel brings: loaded without compilation where they fit, else compiled."""

import json
import os
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHECKS = runpy.run_path(str(ROOT / ".github" / "check_dist.py"))
# A posterior mean by a kernel, with the number of functions that numba compiled.
USE = """
from numba.core.event import install_recorder
with install_recorder("numba:compile") as events:
    import numpy as np
    from nextpert.core import Dag, DagBlr
    {do}
print(sum(event.is_start for _, event in events.buffer))
"""
SOLVE = (
    "print(DagBlr(Dag.from_edges(2, [(0, 1)]), prior_scale=1.0).solve(np.ones((2, 1))).tolist())"
)
RUN_ALL = f"import sys; sys.path.append({str(ROOT)!r}); import build_kernels as b; b.run_kernels()"

pytestmark = pytest.mark.processes


def run(site, cache, do, before="", **variables):
    """Run code with the package in ``site`` in a fresh interpreter; return what it prints."""
    env = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(site), **variables}
    command = [sys.executable, "-c", before + USE.format(do=do)]
    done = subprocess.run(
        command, cwd=site, env=env, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that was built in an environment with numba."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=600)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel):
    """The folder of an environment that has the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(wheel.parent / "site")
    return wheel.parent / "site"


@pytest.fixture
def site(installed, tmp_path):
    """A copy of it that a test may change."""
    return Path(shutil.copytree(installed, tmp_path / "site"))


def test_a_wheel_is_for_a_platform_and_has_all_kernels(wheel, tmp_path):
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"-{tag}-{tag}-" in wheel.name
    assert CHECKS["in_wheel"](wheel) == []
    damaged = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(damaged, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + b"x" * name.endswith(".solve_forward.0.nbc"))
    (problem,) = CHECKS["in_wheel"](damaged)
    assert "solve_forward.0.nbc is damaged" in problem
    pure = Path(shutil.copy(wheel, tmp_path / "nextpert-1-py3-none-any.whl"))
    assert "kernels/index.json fits one system only" in CHECKS["in_wheel"](pure)[0]


def test_no_kernel_of_a_wheel_is_compiled(installed, tmp_path):
    assert run(installed, tmp_path / "cache", RUN_ALL) == ["0"]
    assert not list(tmp_path.rglob("*.nb?"))


@pytest.mark.parametrize(
    "before",
    [
        "",
        "import numba; numba.__version__ = '0.0.1'\n",
        "import numba, llvmlite; llvmlite.__version__ = '0.0.1'\n",
        "import numba, platform; platform.machine = lambda: 'riscv64'\n",
        "import llvmlite.binding as b; old = b.FeatureMap({'sse2': True})\n"
        "b.get_host_cpu_features = lambda: old\n",
        "import os; os.environ['NUMBA_CPU_NAME'] = 'generic'\n",
        "import os; os.environ['NUMBA_BOUNDSCHECK'] = '1'\n",
    ],
    ids=["fits", "numba", "llvmlite", "system", "processor", "own processor", "bounds"],
)
def test_where_kernels_do_not_fit_they_are_compiled_once(site, tmp_path, before):
    fits = not before
    if "processor" in before or "cpu_features" in before:
        index = json.loads((site / "nextpert/core/kernels/index.json").read_text())
        if not index["features"]:
            pytest.skip("every processor of this kind runs the kernels")
    solution, compiled = run(site, tmp_path / "cache", SOLVE, before)
    assert solution == "[[1.0], [1.0]]"
    assert (compiled == "0") == fits
    assert run(site, tmp_path / "cache", SOLVE, before) == [solution, "0"]


def test_a_damaged_lost_or_outdated_kernel_is_compiled(site, tmp_path):
    kernels = site / "nextpert/core/kernels"
    (kernel,) = kernels.glob("*solve_forward*.nbc")
    content = kernel.read_bytes()
    kernel.write_bytes(content[:-100] + b"x" * 100)
    assert run(site, tmp_path / "damaged", SOLVE)[1] != "0"
    kernel.unlink()
    assert run(site, tmp_path / "lost", SOLVE)[1] != "0"
    kernel.write_bytes(content)
    assert run(site, tmp_path / "whole", SOLVE)[1] == "0"
    source = site / "nextpert/core/causal/_kernels.py"
    source.write_text(source.read_text() + "\n# Changed.\n")
    assert run(site, tmp_path / "outdated", SOLVE)[1] != "0"


def test_without_numba_a_wheel_fits_all_systems(tmp_path):
    # As in the isolated environment of `pip install .`.
    code = (
        "import sys; sys.modules['numba'] = None; sys.argv[1:] = [{!r}]\n"
        "import runpy; runpy.run_path({!r}, run_name='__main__')"
    ).format(str(tmp_path), str(ROOT / "build_kernels.py"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert "lacks numba" in done.stderr
    assert not list(tmp_path.iterdir())
