"""The benchmarks of states found: own states, and replays in rounds."""

import numpy as np
import pytest

pytestmark = pytest.mark.benchmarks


def simulated():
    """Cells of 5 perturbations of 12 genes; the last does nothing, the first two are alike."""
    from benchmarks._cells import Cells

    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(6), [300, *[200] * 5])
    effect = 0.8 * rng.normal(size=(6, 12))
    effect[[0, 5]] = 0.0
    effect[2] = effect[1]
    x = 2.0 + effect[code] + rng.normal(size=(len(code), 12))
    return Cells(x, code, ["none", *"abcde"], [-1] * 6, False)


def test_own_states_come_first_but_of_those_alike():
    from benchmarks import own_state

    cells = simulated()
    targets = own_state.above_noise(cells)
    assert targets == [1, 2, 3, 4]
    found = own_state.split(cells, targets, 80, seed=0)
    for values in found.values():
        for j, value in values.items():
            assert value.argmin() in ((0, 1) if j < 3 else (j - 1,))
    chance = -found["nearest, no graph"][1]
    assert min(chance[:2]) > 0.005
    assert chance[:2].sum() > 0.9


@pytest.mark.brief_chain
def test_a_section_has_every_strategy():
    from benchmarks import replays

    names = ["exploit", "round_robin_means", *replays.BY_SHRINKAGE]
    text = replays.run("made up", simulated(), names, 2, 1, every=9)
    assert "made up: 1 targets, 5 perturbations, 12 genes, 2 repeats" in text
    assert "| exploit minus round_robin_means | " in text
    assert "| exploit minus round_robin_singular_values | " in text


@pytest.mark.parametrize("name", ["thompson_ash", "thompson_mash", "round_robin_singular_values"])
def test_shrunken_effects_find_the_state_once_there_are_cells(name):
    from benchmarks._shrinkage import BY_SHRINKAGE
    from nextpert.core.evaluate import CellPool, replay_plates

    cells = simulated()
    parts = [cells.x[cells.code == j] for j in range(6)]
    pool = CellPool(parts[0], parts[1:])
    found = replay_plates(
        pool, pool.deal(3, 100, rng=0), BY_SHRINKAGE[name], np.random.default_rng(0),
        n_rounds=6, n_perturbations=2,
    )  # fmt: skip
    assert found.recommended[-1] == 3
    assert all(len(set(plate.tolist())) == 2 for plate in found.chosen)
