"""The benchmarks run, compare like with like, and say what is absent."""

import csv
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nextpert.core import Civ, Moments, Pool, Sphere, random_scm

pytestmark = pytest.mark.benchmarks

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bench():
    """Import the package of the benchmarks."""
    from benchmarks import (
        _dense_civ,
        _design,
        _graphs,
        _growth,
        _measure,
        _moments,
        _row,
        _rows,
        _table,
        _worker,
    )  # fmt: skip

    return SimpleNamespace(
        dense=_dense_civ, design=_design, graphs=_graphs, growth=_growth, measure=_measure,
        moments=_moments, row=_row, rows=_rows, table=_table, worker=_worker,
    )  # fmt: skip


def absolute(x):
    return np.abs(x).max()


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize("n_cells", [1, 100])
@pytest.mark.parametrize("n_parents", [None, 2])
def test_the_dense_program_gives_the_same_acquisition(bench, n_parents, n_cells, lean):
    state = bench.design.draw_state(12, n_parents, seed=3, n_rounds=4)
    shifts = 0.7 * Sphere(1.0).sample(20, 12, rng=5)
    for domain in (Sphere(1.0), Pool(shifts)):
        ours = Civ(state.posterior, state.target, domain=domain, n_cells=n_cells)
        theirs = bench.dense.DenseCiv(
            state.dense(), state.target, n_cells, area=domain.moments(12), lean=lean
        )
        values = np.array([theirs.value(shift) for shift in shifts])
        assert np.ptp(values) > 1e-6 * values[0]
        np.testing.assert_allclose(ours.values(shifts), values, rtol=1e-10)


def test_the_dense_update_gives_the_same_posterior(bench):
    before = bench.design.draw_state(8, 3, seed=1, n_rounds=2)
    cells = before.scm.sample(3, before.last, rng=0)
    dense = before.dense().update(cells, before.last)
    after = before.posterior.update(Moments.from_array(cells), before.last)
    expected = replace(before, posterior=after).dense()
    assert absolute(expected.cov - before.dense().cov) > 1e-3
    np.testing.assert_allclose(dense.mean, expected.mean, atol=1e-10)
    np.testing.assert_allclose(dense.cov, expected.cov, atol=1e-10)


def names_of_all():
    from benchmarks._growth import SERIES
    from benchmarks._rows import ROWS

    points = [row for series in SERIES for _, row in series.points[:1]]
    return [row.name for row in (*ROWS, *points)]


@pytest.mark.parametrize("name", names_of_all())
def test_every_row_runs_at_its_smallest_size(bench, name, tmp_path):
    row = bench.worker.find_row(name)
    measured = bench.measure.time_row(row, quick=True, scratch=str(tmp_path))
    assert measured.ok, measured.remark
    assert len(measured.ours) == 1
    # The time of a first use is a difference of two, which other work on the machine can turn.
    assert np.isfinite(measured.ours[0])
    assert measured.ours[0] > 0 or name == "first-use"
    assert len(measured.peer) == bool(row.peer and not row.absent)
    cells = bench.table.line(row, measured)
    assert len(cells) == len(bench.table.HEADER)
    assert all(cells)


def test_an_absent_peer_is_said(bench, tmp_path):
    row = replace(bench.worker.find_row("gsp-36"), module="no_such_module_at_all")
    measured = bench.measure.time_row(row, quick=True, scratch=str(tmp_path))
    cells = bench.table.line(row, measured)
    assert measured.peer == []
    assert cells[1:3] == ["causaldag GSP: peer absent", "pip install causaldag"]
    assert cells[8] == "-"


@pytest.mark.parametrize(
    ("ours", "peer", "ok", "total", "expected"),
    [
        (0.01, 0.4, True, 300, "yes"),
        (0.01, 0.2, True, 300, "no"),  # not fast enough against the peer
        (0.06, 9.0, True, 300, "no"),  # too slow
        (0.01, 0.4, False, 300, "no"),  # a worse result
        (0.01, 0.4, True, 600, "no"),  # too much memory
        (0.01, None, True, 300, "-"),
    ],
)
def test_what_is_reached(bench, ours, peer, ok, total, expected):
    goal = bench.row.Goal(faster=30, seconds=0.05, megabytes=500, also="no worse")
    row = replace(bench.rows.ROWS[0], goal=goal)
    measured = bench.measure.Measured(
        [ours] * 3, [] if peer is None else [peer], "", ok, {"extra": 1.0, "total": total}
    )
    assert bench.table.reached(row, measured) == expected


def test_ratios_and_powers(bench):
    measured = bench.measure.Measured([1.0, 2.0, 4.0], [8.0, 4.0], "", True)
    assert bench.table.ratios(measured) == [8.0, 2.0, 2.0]
    assert bench.table.faster(measured) == 3.0
    assert bench.table.exponent([1, 10, 100], [1.0, 1.0, 100.0]) == pytest.approx(2)


def test_memory_counts_what_a_run_holds(bench, tmp_path):
    size = {"n_cells": 200_000, "n_genes": 30}  # 46 MB of cells, and a centred copy
    row = replace(bench.worker.find_row("moments-memory"), full=size)
    peak = bench.measure.memory_of(row, side="ours", quick=False, scratch=str(tmp_path))
    assert 40 < peak["extra"] < 200
    assert peak["total"] > peak["extra"]


def test_f1_counts_adjacencies(bench):
    from nextpert.core import Dag

    truth = Dag.from_edges(4, [(0, 1), (1, 2), (2, 3)])
    other_way = Dag.from_edges(4, [(1, 0), (1, 2), (2, 3)])
    two_right = Dag.from_edges(4, [(0, 1), (1, 2), (0, 3)])
    assert bench.graphs.skeleton_f1(other_way, truth) == 1.0
    assert bench.graphs.skeleton_f1(two_right, truth) == pytest.approx(2 / 3)
    matrix = np.zeros((4, 4))  # as causal-learn: -1 and 1 at the ends of an edge
    matrix[0, 1], matrix[1, 0] = -1, 1
    graph = SimpleNamespace(graph=matrix)
    assert bench.graphs.skeleton_f1(graph, truth) == pytest.approx(0.5)


def test_the_command_prints_a_table(tmp_path):
    table = tmp_path / "runs.csv"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "moments-memory"]
    options = ["--csv", str(table), "--scratch", str(tmp_path)]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(lines) == 3
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| moments of 1,000,000 x 36, dense in memory")
    with table.open() as file:
        runs = list(csv.DictReader(file))
    assert [run["side"] for run in runs] == ["nextpert", "X.T @ X"]
    assert all(float(run["seconds"]) > 0 and float(run["total_mb"]) > 10 for run in runs)
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


def test_growth_is_summed_up_and_drawn(bench, tmp_path):
    from benchmarks._plot import PANELS, draw

    curves = []
    for series in bench.growth.SERIES:
        found = [
            (size, bench.measure.Measured([1e-6 * size**2] * 3, [1e-3 * size] * (k < 2), "", True))
            for k, (size, _) in enumerate(series.points)
        ]
        curves.append((series, found))
        cells = bench.table.series_line(series, found)
        assert len(cells) == len(bench.table.HEADER)
        assert cells[-1] == "ours ~ size^2.0, peer ~ size^1.0"
    assert {name for _, _, names in PANELS for name in names} == {s.name for s, _ in curves}
    draw(curves, str(tmp_path / "scaling.png"))
    assert (tmp_path / "scaling.png").read_bytes()[:4] == b"\x89PNG"


def test_an_unknown_row_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "nothing"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no row begins with nothing" in done.stderr


def test_internal_standardising_divides_every_node_as_it_is_made(bench):
    from benchmarks import prior_units

    rng = np.random.default_rng(0)
    scm = random_scm(6, "complete", standardise=False, rng=rng)
    found = prior_units.internally_standardised(scm)
    x = np.zeros((400_000, 6))
    for i in scm.dag.order:
        x[:, i] = x @ scm.weights[i] + rng.normal(size=len(x)) * np.sqrt(scm.noise_var[i])
        x[:, i] /= x[:, i].std()
    np.testing.assert_allclose(found.covariance(), np.cov(x.T), atol=0.01)
    np.testing.assert_allclose(found.covariance().diagonal(), 1)


@pytest.mark.parametrize("known", [True, False])
def test_units_of_the_prior_are_compared_on_the_same_models(bench, known):
    from benchmarks import prior_units

    found = {
        (generator, units): prior_units.distance(
            generator, 5, "complete", units, 1, known=known, rounds=4
        )
        for generator in prior_units.GENERATORS
        for units in prior_units.UNITS
    }
    assert all(0 < value < np.inf for value in found.values())
    assert len(set(found.values())) > len(prior_units.GENERATORS)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda p: p.stem)
def test_every_module_finds_what_it_imports(path):
    name = path.relative_to(ROOT).with_suffix("")
    assert import_module(".".join(name.parts))
