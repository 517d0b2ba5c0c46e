"""The benchmark of plates that reduce uncertainty: worlds, arms, and two versions compared."""

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.benchmarks


def test_worlds_hold_what_is_true():
    from benchmarks import explore

    with_graph, without = (explore.simulated(f"weak, {graph} graph", 3) for graph in ("true", "no"))
    assert with_graph.edges
    assert not without.edges
    np.testing.assert_array_equal(with_graph.truth, without.truth)
    target = np.array(list(without.target.values()))
    for cells, truth in zip(without.cells.values(), without.truth, strict=True):
        away = ((cells.mean(axis=0) - target) ** 2).sum() - cells.var(axis=0).sum() / len(cells)
        assert away == pytest.approx(truth, abs=1.0 + 0.2 * truth)


@pytest.mark.slow
def test_a_run_scores_every_arm(monkeypatch):
    from benchmarks import explore

    monkeypatch.setattr(explore, "PLATES", 1)
    found = explore.run(explore.simulated("strong, no graph", 0), ["explore", "even", "random"], 0)
    assert set(found) == {"start", "explore", "even", "random"}
    assert found["explore"] < found["start"]


def test_versions_are_compared_run_by_run():
    from benchmarks import explore

    rows = [("w", seed, arm, 1.0 + seed + (arm == "random")) for seed in range(4)
            for arm in ("start", "explore", "random")]  # fmt: skip
    new = pd.DataFrame(rows, columns=["world", "seed", "arm", "error"])
    old = new.assign(error=2 * new["error"])
    table = explore.report(new, old)
    assert (
        "| w | explore over explore of the other version | 0.50 ± 0.00 | 0.50 ± 0.00 | 4 |" in table
    )
    assert "| w | explore over random |" in table
