"""The trials of graphs on screens: what they predict from, and that the commands run."""

from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from nextpert._adata.roles import Roles
from nextpert.core import Dag

pytestmark = pytest.mark.benchmarks


@pytest.fixture
def bench():
    """The modules of the benchmarks."""
    from benchmarks import (
        _peer_searches,
        _predictors,
        _screens,
        _simulated,
        another_screen,
        graph_restarts,
        out_of_core,
        simulated_screens,
        unseen_perturbations,
    )

    return SimpleNamespace(
        predictors=_predictors, screens=_screens, simulated=_simulated, trial=simulated_screens,
        out_of_core=out_of_core, peers=_peer_searches, unseen=unseen_perturbations,
        another=another_screen, restarts=graph_restarts,
    )  # fmt: skip


@pytest.fixture
def file(tmp_path):
    """Counts of 8 genes in 2 plates: G0 moves G1 and G2; G3, and E that is not measured, others."""
    rng = np.random.default_rng(0)
    label = rng.choice(["NT", "G0", "G3", "E"], 1200, p=[0.4, 0.2, 0.2, 0.2])
    plate = rng.choice(["x", "y"], 1200)
    rate = np.full((1200, 8), 5.0)
    rate[label == "G0", 0] = 1.0
    rate[:, 1] = rate[:, 2] = 1 + rate[:, 0] * rng.gamma(20, 1 / 20, 1200)
    rate[label == "G3", 3] = 1.0
    rate[label == "E", 5] = 9.0
    obs = pd.DataFrame({"perturbation": label, "plate": plate})
    obs.loc[:5, "perturbation"] = "unassigned"
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(sp.csr_matrix(rng.poisson(rate).astype(np.float32)), obs)
    adata.var_names = [f"G{k}" for k in range(8)]
    path = tmp_path / "screen.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture
def screen(bench, file):
    roles = Roles(control="NT", batch_key=("plate",))
    return bench.screens.read_screen(Path(), bench.screens.Source(str(file), roles), n_variable=6)


def test_a_screen_is_normalised_and_its_panel_chosen(screen, file):
    raw = ad.read_h5ad(file)
    raw = raw[(raw.obs["perturbation"] != "unassigned").to_numpy()]
    x = raw.X.toarray()
    x = np.log1p(x / x.sum(axis=1, keepdims=True) * np.median(x.sum(axis=1)))
    control = (raw.obs["perturbation"] == "NT").to_numpy()
    most = np.argsort(-x[control].var(axis=0))[:6]
    panel = [f"G{k}" for k in sorted({*most.tolist(), 0, 3})]
    assert list(screen.cells.var_names) == panel
    np.testing.assert_allclose(screen.cells.X, raw_columns(x, panel), rtol=1e-6)
    assert screen.targets == {"G0": 0, "G3": panel.index("G3")}


def raw_columns(x, panel):
    return x[:, [int(gene[1:]) for gene in panel]]


def test_weights_are_those_of_dense_regressions(bench, screen):
    found = screen.statistics(["NT", "G0", "G3", "E"])
    own = screen.targets["G3"]
    other = next(k for k in range(4, screen.cells.n_vars) if k != own)
    edges = [(0, 1), (0, 2), (1, 2), (3, 1), (other, own)]
    dag = Dag.from_edges(screen.cells.n_vars, edges)
    edges = np.zeros((3, screen.cells.n_vars), bool)
    edges[0, 1] = True  # E acts on gene 1
    got = bench.predictors.fit_weights(found, dag, edges, screen.targets)
    obs, x = screen.cells.obs, screen.cells.X
    ones = np.ones(len(x))
    plate = (obs["plate"] == "y").to_numpy(float)
    acts = (obs["perturbation"] == "E").to_numpy(float)
    one = np.linalg.lstsq(np.c_[x[:, [0, 3]], acts, ones, plate], x[:, 1], rcond=None)[0]
    two = np.linalg.lstsq(np.c_[x[:, [0, 1]], ones, plate], x[:, 2], rcond=None)[0]
    three = np.linalg.lstsq(
        np.c_[x[:, other], (obs["perturbation"] == "G3").to_numpy(float), ones, plate], x[:, own],
        rcond=None,
    )[0]  # fmt: skip
    wanted = np.zeros_like(got)
    wanted[1, [0, 3]], wanted[2, [0, 1]], wanted[own, other] = one[:2], two[:2], three[0]
    np.testing.assert_allclose(got, wanted, atol=1e-9)
    total = bench.predictors.total_effects(wanted)
    assert total[2, 0] == pytest.approx(wanted[2, 0] + wanted[2, 1] * wanted[1, 0])


def test_what_is_unseen_is_not_seen_but_for_its_own_change(bench, screen):
    whole = screen.statistics(["NT", "G0", "G3", "E"])
    everything = bench.unseen.perturbations_of(screen, whole)
    before = bench.unseen.predict(screen, "G0", everything)
    rng = np.random.default_rng(1)
    left_out = (screen.cells.obs["perturbation"] == "G0").to_numpy()
    screen.cells.X[left_out] = rng.normal(size=(left_out.sum(), screen.cells.n_vars))
    after = bench.unseen.predict(screen, "G0", everything)
    assert set(before.effects) == {*bench.unseen.SINGLE, *bench.unseen.STACKS}
    for row, effect in before.effects.items():
        np.testing.assert_array_equal(effect, after.effects[row], err_msg=row)
    for row, weights in before.weights.items():
        np.testing.assert_array_equal(weights, after.weights[row], err_msg=row)
    # The own change is the measured one, and a graph transmits it.
    graph = bench.unseen.graph_without(screen, "G0")
    wanted = bench.predictors.total_effects(graph)[:, 0] * everything.observed[1, 0]
    np.testing.assert_allclose(before.effects["graph"][1:], wanted[1:], atol=1e-12)


def test_scores_take_sampling_error_out(bench, screen):
    whole = screen.statistics(["NT", "G0", "G3", "E"])
    everything = bench.unseen.perturbations_of(screen, whole)
    used = everything.scored()[1]
    guess = np.where(used, 0.1, 0.0)
    shared = everything.control_variance
    found = bench.unseen.Found({"a": guess}, {"a": shared}, {})
    scores = bench.unseen.score({"E": found, "G0": found}, everything)
    truth, sd = everything.observed, everything.sd
    for j in (0, 1):
        mine = everything.scored()[j]
        error = (((guess - truth[j]) / sd)[mine] ** 2).sum()
        size = ((truth[j] / sd)[mine] ** 2).sum()
        noise = (everything.variance[j] / sd**2)[mine].sum()
        both = mine.sum() / everything.moments.n[everything.control]
        np.testing.assert_allclose(scores["a"][j, 1:], [error, both, noise, size])
        np.testing.assert_allclose(scores["no effect"][j, 1:], [size, 0, noise, size])
    scores["a"][:, 2] *= 50  # so that it is seen in two digits
    shown = bench.unseen.shown(scores, {}, np.array([True, True]))
    _, error, shared, noise, size = scores["a"].sum(axis=0)
    clean = (error + 2 * shared - noise) / (size - noise)
    assert f"{clean:.2f}" in shown.splitlines()[-1]


def test_unseen_runs_on_any_file(bench, file, tmp_path, capsys):
    out = tmp_path / "unseen.md"
    bench.unseen.main([
        "--screens", "--file", str(file), "--control", "NT", "--batch-key", "plate",
        "--genes", "6", "--save", str(out),
    ])  # fmt: skip
    text = capsys.readouterr().out
    assert out.read_text().split("\n\n", 1)[1].strip() == text.strip()
    assert "3 perturbations left out one by one, 2 with a measured target" in text
    assert text.count("| no effect | 0.000 | 0.000 | 1.000 | 1.00 |") == 2
    assert text.count("| stack, own change expected |") == 2


def test_another_screen_helps_where_effects_are_alike(bench, tmp_path):
    out = tmp_path / "another.md"
    bench.another.main(["--draws", "2", "--simulated", "--save", str(out)])
    parts = out.read_text().split("## ")[1:]
    lines = [[x for x in part.splitlines() if x.startswith("|")] for part in parts]
    rows = [dict(x.split("|")[1:3] for x in each) for each in lines]
    none, _, every = (float(row[" with it "]) for row in rows)
    assert none == pytest.approx(1.0, abs=0.05)
    assert every < 0.05


def test_the_tables_of_simulated_screens(bench, capsys, monkeypatch):
    weak = bench.simulated.Setting(2, 9, 9, (0.1, 0.1), n_control=500, n_cells=20)
    monkeypatch.setattr(bench.trial, "TARGETS", [weak])
    bench.trial.main(["--models", "2", "--settings", "1"])
    text = capsys.readouterr().out
    assert "over 1 settings" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    screens, peers, batches, targets = (
        [line.strip("| ").split(" | ") for line in table[2:]] for table in tables
    )
    assert float(screens[0][8]) < float(screens[0][7])  # all environments, controls alone
    assert len(peers) == len(bench.peers.SEARCHES)
    assert float(batches[0][3]) > float(batches[0][4]) + 0.2  # ignored batches cost
    assert float(targets[0][5]) <= float(targets[0][4])  # known targets gain


def test_the_table_of_restarts(bench, capsys):
    bench.restarts.main(["--models", "1", "--settings", "1"])
    lines = capsys.readouterr().out.strip().splitlines()[4:]
    rows = [line.strip("| ").split(" | ") for line in lines]
    assert [row[2] for row in rows] == list(bench.restarts.SEARCHES)
    starts, restarts = (float(row[4]) for row in rows[:2])  # below the score of the truth
    assert restarts <= starts < 1.0


def test_a_file_read_out_of_core_gives_the_sums_of_its_cells(bench, tmp_path, capsys):
    bench.out_of_core.main([
        "--cells", "60000", "--genes", "20", "--environments", "50", "--scratch", str(tmp_path)
    ])  # fmt: skip
    cells = capsys.readouterr().out.strip().splitlines()[-1].strip("| ").split(" | ")
    assert cells[:3] == ["60,000", "20", "50"]
    assert float(cells[-1]) < 1e-12
    assert list(tmp_path.iterdir()) == []
