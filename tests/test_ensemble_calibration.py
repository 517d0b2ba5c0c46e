"""Intervals over the graphs of resamples hold the truth more often than those of one graph."""

import numpy as np
import pytest

from benchmarks import ensemble_calibration as trial

pytestmark = [pytest.mark.filterwarnings("ignore:Perturbations left out"), pytest.mark.slow]
N_MODELS = 14


def test_intervals_over_graphs_hold_more():
    setting = trial.Setting(4, n_genes=12, n_seen=4, n_control=300, n_cells=40)
    found = np.array([trial.coverage(setting, seed, 15, 600, 0.9) for seed in range(N_MODELS)])
    known, one, alike, _ = found.mean(axis=0)
    place = trial.QUANTITIES.index("total effects")
    error = (found[:, 2] - found[:, 1])[:, place].std(ddof=1) / np.sqrt(N_MODELS)
    assert alike[place] - one[place] > 2 * error
    assert alike[place] > known[place] - 0.1
    assert alike[-1] > one[-1]  # wider


def test_draws_are_spread_as_the_shares_say():
    from nextpert.core import Dag, DagBlr, Moments

    rng = np.random.default_rng(0)
    cells = Moments.from_array(rng.normal(size=(100, 2)) @ np.array([[1, 1], [0, 1]]))
    graphs = [Dag.from_edges(2, edges) for edges in ([(0, 1)], [(1, 0)], [])]
    blrs = [DagBlr(graph).update(cells) for graph in graphs]
    weights, intercepts = trial.draws(blrs, np.array([0.25, 0.0, 0.75]), 100, rng)
    assert (weights[:, 1, 0] != 0).sum() == 25
    assert (weights[:, 0, 1] == 0).all()
    assert weights.shape == (100, 2, 2)
    assert intercepts.shape == (100, 2)


def test_the_command_prints_its_table(capsys, tmp_path):
    options = "--models 2 --degrees 2 --controls 200 --graphs 3 --samples 50 --genes 6"
    trial.main([*options.split(), "--save", str(tmp_path / "table.md")])
    shown = capsys.readouterr().out
    assert shown.count("| 200 | 2 |") == 4
    assert (tmp_path / "table.md").read_text() == shown
