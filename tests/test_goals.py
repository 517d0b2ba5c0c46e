"""The benchmark of goals runs, and its goals are what its head says."""

import numpy as np
import pytest

from benchmarks import goals as bench
from nextpert.core import LinearScm

pytestmark = pytest.mark.benchmarks


def test_the_table_has_a_row_for_each_acquisition(capsys, tmp_path):
    bench.main(["--models", "2", "--kinds", "bounds", "--save", str(tmp_path / "goals.md")])
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if any(line.startswith(f"| {c} |") for c in bench.ACQUISITIONS)]
    assert len(rows) == len(bench.ACQUISITIONS)
    assert all(row.count("±") == bench.PICKS for row in rows)
    assert "## bounds, 2 models" in (tmp_path / "goals.md").read_text()


@pytest.mark.parametrize("kind", ["state", "signature", "bounds", "direction"])
def test_goals_are_made_of_one_candidates_effect(kind):
    weights = np.zeros((20, 20))
    weights[[1, 2, 3, 4], 0] = 0.5, -0.6, 0.7, 0.8  # the only node that moves others
    scm = LinearScm(weights, np.ones(20))
    shifts = 2 * np.vstack([np.eye(20), -np.eye(20)])
    states = np.array([scm.mean(shift) for shift in shifts])
    goal = bench.draw_goal(kind, scm, states, shifts, np.random.default_rng(0))
    found = goal.distance(states)
    best, nothing = sorted({0, 20}, key=lambda j: found[j])[0], goal.distance(np.zeros((1, 20)))[0]
    effect = np.array([0, 1, -1.2, 1.4, 1.6]) * (1 if best == 0 else -1)
    square = effect @ effect
    own = found[best] if kind != "state" else found[best] - 0.04 * (square + 4)
    wanted = {
        "state": (0.0, 0.64 * (square + 4)),
        "signature": (4 * square, 9 * square),
        "bounds": (0.0, square / 4),
        "direction": (0.0, 1.0),
    }[kind]
    assert (own, nothing) == pytest.approx(wanted, abs=1e-9)
