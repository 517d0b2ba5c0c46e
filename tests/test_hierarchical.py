"""The benchmark of the hierarchical model: all methods see the same cells and are scored alike."""

import numpy as np
import pytest

from benchmarks import hierarchical as bench

pytestmark = pytest.mark.benchmarks


def fewer(cells, n_genes=30):
    """A part of simulated cells: 10 perturbations and some genes."""
    kept = cells.code <= 10
    return cells._replace(
        x=cells.x[kept][:, :n_genes], code=cells.code[kept], guide=cells.guide[kept],
        names=cells.names[:11], own=cells.own[:11],
    )  # fmt: skip


def test_a_split_trains_on_n_cells_and_half_of_the_controls():
    cells = fewer(bench.simulate(0, sparse=0.05))
    short = (cells.code != 3) | (np.cumsum(cells.code == 3) <= 35)
    parts = {name: getattr(cells, name)[short] for name in ("x", "code", "guide")}
    part, known = bench.split(cells._replace(**parts), 20, 0)
    assert "p2" not in part.names
    assert len(part.names) == 10
    assert np.bincount(part.code[known & (part.code >= 0)]).tolist() == [500, *[20] * 9]


def test_methods_are_scored_alike():
    cells = fewer(bench.simulate(1, sparse=0.1))
    found = bench.trial(cells, 20, 0)
    assert sorted(found) == sorted(bench.ROWS)
    error = {name: each["error"] for name, each in found.items()}
    assert max(error.values()) == error[bench.RAW]
    assert error[bench.HIERARCHICAL] < 0.5 * error[bench.RAW]
    # The means are scored on other cells: as wrong as their own variance, controls' included.
    variance = (cells.x[cells.code == 1].var(axis=0) * (1 / 20 + 1 / 500)).sum()
    assert 0.7 < error[bench.RAW] / variance < 1.3
    for name in (bench.RAW, bench.HIERARCHICAL, bench.MIXTURE, bench.HANDED_OUT):
        assert 0.8 < found[name]["all"] < 1.0
    text = bench.section("title", {20: [found, found]})
    assert f"| *hierarchical over {bench.ASH}* |" in text
    assert "| seconds: hierarchical |" in text
    without = {name: each for name, each in found.items() if name != bench.HANDED_OUT}
    text = bench.section("title", {20: [without, without], 30: [found, found]})
    assert f"| {bench.HANDED_OUT} |  | 0." in text
