"""The benchmark of rounds that reduce uncertainty: worlds and arms."""

import numpy as np
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
def test_a_run_scores_every_arm():
    from benchmarks import explore

    found = explore.run(explore.simulated("strong, no graph", 0), ["explore", "even", "random"], 0)
    assert set(found) == {"start", "explore", "even", "random"}
    assert found["explore"] < found["start"]
