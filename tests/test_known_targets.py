"""The benchmark of known targets: what it draws, and its tables."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import known_targets as bench

pytestmark = pytest.mark.benchmarks


def test_a_share_of_the_targets_is_another_gene():
    targets = {str(k): k for k in range(20)}
    told = bench.mistaken(targets, 0.2, 20, 3)
    assert sum(told[name] != gene for name, gene in targets.items()) == 4
    assert bench.mistaken(targets, 0.0, 20, 3) == targets


def test_the_consensus_network():
    cells, label, dag = bench.signalling((0.2, 1.0), 0.0, 0.0, 0)
    assert (len(bench.PROTEINS), dag.n_edges) == (11, 17)
    assert cells.shape == (len(label), 11) == (850 + 7 * 700, 11)


def test_cells_from_a_file_are_compared_with_the_consensus_network(tmp_path):
    cells, label, _ = bench.signalling((0.2, 1.0), 0.0, 0.0, 0)
    table = pd.DataFrame(np.exp(cells), columns=bench.PROTEINS).assign(condition=label)
    table.rename(columns={"Erk": "p44/42"}).to_csv(tmp_path / "cells.csv", index=False)
    lines = bench.cytometry_rows(tmp_path / "cells.csv")
    assert lines[0] == "| no edges | 0 | 17 | 0 | 0 | 0 | 0 |"
    known = next(line for line in lines if "targets known, penalty 2" in line)
    assert int(known.split("|")[4]) >= 15
    assert sum(bench.CYTOMETRY.values()) == 7466


def test_the_tables(capsys):
    bench.main(["--tables", "targets", "--sizes", "6", "--models", "2", "--gies-models", "0"])
    bench.main(["--tables", "signalling", "--models", "1"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(bench.KINDS) + 2 + 6
    for table in (lines[:6], lines[6:]):
        assert len({line.count("|") for line in table}) == 1
