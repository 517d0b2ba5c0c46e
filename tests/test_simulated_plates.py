"""The benchmark of simulated plates: worlds whose states are known, strategies, its tables."""

import numpy as np
import pytest

from nextpert.core import Dag, ScreenMoments

pytestmark = pytest.mark.benchmarks


def screen():
    """Cells of 4 perturbations of 6 genes; the last does nothing."""
    from benchmarks._cells import Cells

    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(5), [400, *[120] * 4])
    effect = 1.5 * rng.normal(size=(5, 6))
    effect[[0, 4]] = 0.0
    x = 3.0 + effect[code] + rng.normal(size=(len(code), 6))
    return Cells(x, code, ["none", *"abcd"], [-1] * 5, False)


def test_a_drawn_world_holds_the_state_of_its_pair():
    from benchmarks._plate_worlds import GENES, drawn

    world = drawn("pair", 0)
    assert len(world.full) == GENES + GENES * (GENES - 1) // 2
    share = world.shift[:GENES].sum(axis=1) / world.full[:GENES].sum(axis=1)
    assert 0.2 <= share.min() < share.max() <= 1
    assert (world.distance < 1e-12).sum() == 1
    assert world.distance.argmin() >= GENES
    assert np.abs(world.cells(3).mean(axis=0) - world.scm.mean(world.shift[3])).max() < 0.6


def test_guides_scatter_as_said():
    from benchmarks._plate_worlds import drawn

    world = drawn("pair", 0, n_guides=4, guide_variance=25.0)
    means = np.array([world.cells(0)[g::4].mean(axis=0) for g in range(4)])
    path = np.linalg.inv(np.eye(world.scm.n_nodes) - world.scm.weights)
    wanted = 25.0 * (path**2 @ world.scm.noise_var)
    assert 0.5 < (means.var(axis=0, ddof=1) / wanted).mean() < 1.6


def test_campaigns_are_done_after_the_cells_of_their_plates():
    from benchmarks import simulated_plates as plates
    from benchmarks._plate_worlds import copied

    [(t, world)] = copied(screen(), Dag.from_edges(6, []), [0], 0)
    assert world.distance[t] == 0
    assert world.available.tolist() == [60, 120, 120, 120]
    for name, way in plates.STRATEGIES.items():
        found = plates.outcome(world, np.arange(4), np.arange(4), way, [0])
        if not found[2]:
            assert name.startswith("exact"), name  # takes shifts as known, which are not
        else:  # four candidates a plate, 10 cells each, but the target's 60 end sooner
            assert 40 * found[0] - 20 <= found[1] <= 40 * found[0], name
    held = plates.outcome(
        world, np.arange(1, 4), np.arange(1, 4), plates.STRATEGIES["ours, best"], [0]
    )
    assert held[3] >= world.distance[1:].min() / world.nothing


def test_a_section_has_every_row():
    from benchmarks import simulated_plates as plates

    found = np.random.default_rng(0).random((len(plates.STRATEGIES), 3, 4))
    text = plates.shown("made up", plates.STRATEGIES, found)
    assert text.count("\n| ") == len(plates.STRATEGIES) + 1
    assert "## made up, 3 repeats" in text


def test_ways_of_knowing_more_run():
    from benchmarks import simulated_plates as plates
    from benchmarks._plate_worlds import GENES, drawn

    single = np.arange(GENES)
    for name, way in (plates.GRAPHS | plates.PAIRS).items():
        may = np.arange(len(drawn("pair", 0).full)) if way.pairs else single
        world = drawn("pair", 0)
        chooser = plates.chooser(world, may, way, np.random.default_rng(0))
        control = world.cells(-1)
        chooser.see(ScreenMoments.from_array(control, np.zeros(len(control)), len(may) + 1))
        plate = chooser.plate(np.arange(len(may)), 8, 10)
        assert len(set(plate.tolist())) == 8, name
