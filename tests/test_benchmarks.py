"""The benchmarks of speed run, compare like with like, and say what is absent."""

import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _dense_civ, _design, _measure, _rows, _table, _worker
from nextpert.core import Civ, Moments, Pool, Sphere

pytestmark = pytest.mark.benchmarks

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize("n_cells", [1, 100])
@pytest.mark.parametrize("n_parents", [None, 2])
def test_the_dense_program_gives_the_same_acquisition(n_parents, n_cells, lean):
    state = _design.draw_state(12, n_parents, seed=3, n_rounds=4)
    shifts = 0.7 * Sphere(1.0).sample(20, 12, rng=5)
    for domain in (Sphere(1.0), Pool(shifts)):
        ours = Civ(state.posterior, state.target, domain=domain, n_cells=n_cells)
        theirs = _dense_civ.DenseCiv(
            state.dense(), state.target, n_cells, area=domain.moments(12), lean=lean
        )
        values = np.array([theirs.value(shift) for shift in shifts])
        assert np.ptp(values) > 1e-6 * values[0]
        np.testing.assert_allclose(ours.values(shifts), values, rtol=1e-10)


def test_the_dense_update_gives_the_same_posterior():
    before = _design.draw_state(8, 3, seed=1, n_rounds=2)
    cells = before.scm.sample(3, before.last, rng=0)
    dense = before.dense().update(cells, before.last)
    after = before.posterior.update(Moments.from_array(cells), before.last)
    expected = replace(before, posterior=after).dense()
    assert np.abs(expected.cov - before.dense().cov).max() > 1e-3
    np.testing.assert_allclose(dense.mean, expected.mean, atol=1e-10)
    np.testing.assert_allclose(dense.cov, expected.cov, atol=1e-10)


@pytest.mark.parametrize("row", _rows.ROWS, ids=lambda row: row.name)
def test_every_row_runs_at_its_smallest_size(row):
    measured = _measure.time_row(row, quick=True)
    assert measured.ok, measured.remark
    assert len(measured.ours) == 1
    assert measured.ours[0] > 0
    assert len(measured.peer) == bool(row.peer and not row.absent)
    assert _worker.find_row(row.name) is row
    cells = _table.line(row, measured)
    assert len(cells) == len(_table.HEADER)
    assert all(cells)


def test_an_absent_peer_is_said():
    row = replace(_worker.find_row("gsp-36"), module="no_such_module_at_all")
    measured = _measure.time_row(row, quick=True)
    assert measured.peer == []
    wanted = ["causaldag GSP: peer absent", "pip install causaldag"]
    assert _table.line(row, measured)[1:3] == wanted


def test_the_command_prints_a_table():
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only"]
    run = {"cwd": ROOT, "capture_output": True, "text": True, "check": False}
    done = subprocess.run([*command, "pool"], **run)
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| pool of 5,000")
    done = subprocess.run([*command, "nothing"], **run)
    assert done.returncode == 2
    assert "no row begins with nothing" in done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda p: p.stem)
def test_every_module_finds_what_it_imports(path):
    name = path.relative_to(ROOT).with_suffix("")
    assert import_module(".".join(name.parts))
