"""The paper's experiments: the same table for any number of workers, a README that cannot drift."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nextpert.core import Dag, design_loop, shd

pytestmark = pytest.mark.benchmarks

ROOT = Path(__file__).parents[1]


@pytest.fixture
def paper():
    """Import the package of the benchmarks."""
    from benchmarks.paper import (
        __main__,
        _fig3,
        _fig4,
        _figures,
        _readme,
        _run,
        _screen,
        _settings,
        _tables,
    )

    return SimpleNamespace(
        main=__main__.main, fig3=_fig3, fig4=_fig4, figures=_figures, readme=_readme,
        run=_run, screen=_screen, settings=_settings, tables=_tables,
    )  # fmt: skip


def test_the_same_seed_gives_the_same_table_with_one_and_two_workers(paper, tmp_path):
    folders = [tmp_path / str(n) for n in (1, 2)]
    for n, folder in zip((1, 2), folders, strict=True):
        paper.run._DONE.clear()  # else the second run would take the lines of the first
        paper.main(["fig5", "--quick", "--workers", str(n), "--out", str(folder)])
    one, two = ({p.name: p.read_bytes() for p in f.glob("*.csv")} for f in folders)
    assert one == two
    parts = ("", "-last", "-pairs", "-priors")
    assert set(one) == {f"fig5{part}.csv" for part in parts}
    table = pd.read_csv(folders[0] / "fig5.csv")
    assert np.isfinite(table["mean"]).all()
    assert table.groupby(["setting", "prior", "acquisition"]).size().eq(7).all()
    assert {p.suffix for p in folders[0].glob("fig5.*")} == {".csv", ".json", ".md", ".png"}


# As printed in the captions: graph, nodes, targets, their place; instances, runs, steps.
DOWN, RANDOM = "downstream", "random"
PRINTED = {
    "fig5": [("complete", 30, 10, DOWN)],
    "ed1": [("complete", p, p // 2, RANDOM) for p in (10, 20, 30)],
    "ed2": [("complete", p, p // 2, DOWN) for p in (10, 20, 30)],
    "ed3": [("complete", 30, k, DOWN) for k in (5, 10, 15, 20)],
    "ed4": [
        (graph, 30, 15, DOWN)
        for graph in ("complete", "erdos_renyi 0.8", "erdos_renyi 0.5", "path")
    ],
    "ed5": [("complete", 10, 5, DOWN)],
    "ed6": [("erdos_renyi 0.5", 5, 3, DOWN)] * 10,
}


def test_the_settings_are_the_printed_ones(paper):
    six = ["random", "greedy", "maxv", "cv", "civ", "civ_ow"]
    assert set(paper.figures.FIGURES) == set(PRINTED)
    for key, figure in paper.figures.FIGURES.items():
        found = [
            (f"{s.family} {s.density:g}" if s.family == "erdos_renyi" else s.family,
             s.n_nodes, s.n_targets, s.where)
            for s in figure.settings
        ]  # fmt: skip
        assert found == PRINTED[key]
        sizes = (figure.instances, figure.runs, figure.rounds)
        assert sizes == ((10, 10, 10) if key == "ed6" else (10, 20, 50))
        assert list(figure.acquisitions) == six + ["ei", "mi", "ucb"] * (key == "ed5")
    assert list(paper.settings.PRIORS) == ["fixed", "learned"]
    task = paper.settings.task(paper.figures.FIG5.settings[0], 0, 0, "civ", "fixed", 50)
    assert task["posterior"].prior_scale == 1  # M = I
    assert task["posterior"].prior_units == "data"
    assert paper.settings.task(figure.settings[0], 0, 0, "civ", "fixed", 1).get("n_cells", 1) == 1


@pytest.mark.parametrize("key", ["fig5", "ed1", "ed4", "ed6"])
def test_instances_are_drawn_as_their_settings_say(paper, key):
    for setting in paper.figures.FIGURES[key].settings:
        drawn = paper.settings.instance(setting, 3)
        p, n_edges = setting.n_nodes, drawn.scm.dag.n_edges
        assert np.count_nonzero(drawn.shift) == setting.n_targets
        assert np.linalg.norm(drawn.shift) == pytest.approx(1)
        last = set(drawn.scm.dag.order[-setting.n_targets :].tolist())
        is_last = set(np.flatnonzero(drawn.shift).tolist()) == last
        assert is_last == (setting.where == "downstream")
        pairs = p * (p - 1) // 2
        if setting.family == "erdos_renyi":
            sd = np.sqrt(pairs * setting.density * (1 - setting.density))
            assert abs(n_edges - pairs * setting.density) < 4 * sd
        else:
            assert n_edges == (pairs if setting.family == "complete" else p - 1)
        np.testing.assert_allclose(np.diag(drawn.scm.covariance()), 1)
        np.testing.assert_allclose(drawn.scm.mean(drawn.shift), drawn.target_mean)


def test_wrong_graphs_are_as_far_from_the_truth_as_their_names_say(paper):
    for setting in paper.figures.ED6.settings:
        for seed in range(10):
            drawn = paper.settings.instance(setting, seed)
            wrong = setting.n_missing + setting.n_extra + setting.n_reversed
            assert shd(drawn.scm.dag, drawn.dag) == wrong
            assert 3 <= drawn.scm.dag.n_edges <= 7
    assert setting.name == "3 reversed"
    assert wrong == 3


def test_a_campaign_measures_both_distances(paper):
    setting = paper.figures.FIG5.quick().settings[0]
    found = paper.run.campaign(setting, 0, 0, "civ", "fixed", 4)
    drawn = paper.settings.instance(setting, 0)
    result = design_loop(**paper.settings.task(setting, 0, 0, "civ", "fixed", 4))
    weights = result.posterior.mean().toarray()
    estimate = drawn.target_mean - weights @ drawn.target_mean
    reached = np.linalg.solve(np.eye(len(estimate)) - drawn.scm.weights, estimate)
    relative = np.linalg.norm(reached - drawn.target_mean) / np.linalg.norm(drawn.target_mean)
    assert found[0, 0] > found[0, -1] > 0
    assert found[0, -1] == pytest.approx(relative)
    assert found[1, -1] == pytest.approx(((estimate - drawn.shift) ** 2).sum())


def test_pairs_and_priors_from_curves_by_hand(paper):
    values = {
        ("s", "fixed", "civ"): [[1.0, 0.8, 0.4], [1.0, 0.6, 0.2]],
        ("s", "fixed", "greedy"): [[1.0, 0.9, 0.6], [1.0, 0.9, 0.3]],
        ("s", "learned", "civ"): [[1.0, 0.3, 0.1], [1.0, 0.5, 0.25]],
        ("s", "learned", "greedy"): [[1.0, 0.9, 0.7], [1.0, 0.9, 0.8]],
    }
    found = {key: paper.run.Curve(np.array(x), 2 * np.array(x), 1.0) for key, x in values.items()}
    pairs = paper.run.paired(found).set_index(["prior", "pair"])
    row = pairs.loc[("fixed", "civ - greedy")]
    assert row["round"] == 2
    assert row["difference"] == pytest.approx(-0.15)  # of -0.2 and -0.1
    assert row["sem"] == pytest.approx(0.05)
    assert paper.tables.half_width(row) == pytest.approx(0.05 * 12.7062, rel=1e-5)  # t, 1 df
    priors = paper.run.priors(found).set_index("acquisition")
    assert priors.loc["civ", "rounds"] == 2  # means 1, 0.4, 0.175 against 0.3
    assert priors.loc["civ", "difference"] == pytest.approx(-0.125)
    assert priors.loc["greedy", "rounds"] == np.inf
    last = paper.run.by_round(found).set_index(["prior", "acquisition", "round"])
    assert last.loc[("fixed", "civ", 2), "sd"] == pytest.approx(0.2 / np.sqrt(2))
    assert last.loc[("fixed", "civ", 2), "shift_mean"] == pytest.approx(0.6)
    ten = {"sem": 0.05, "instances": 10}  # t with 9 degrees of freedom: 2.262
    said = [paper.tables.verdict({"difference": d, **ten}) for d in (-0.114, -0.112, 0.114)]
    assert said == ["closer", "not resolved", "farther"]


def test_the_density_of_the_output_is_that_of_draws(paper):
    k = np.linspace(0, 4, 4001)
    for p in (4, 10):
        total = np.trapezoid(paper.fig3.density(k, p), k)
        assert total == pytest.approx(1, abs=1e-4)
        found = paper.fig3.check(p, 4000)
        assert found["ks"] > 1e-3
        assert found["largest_z"] < 4.5
    assert paper.fig3.check(3, 4000, 3.0)["tau"] == pytest.approx(0.5522, abs=0.02)


def test_output_weights_average_to_one_and_are_drawn(paper):
    k = np.linspace(0, 4, 40001)[1:-1]
    for p in (3, 4, 10):
        product = paper.fig3.weight(k, p) * paper.fig3.density(k, p)
        assert np.trapezoid(product, k) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(paper.fig3.weight(k, 3), paper.fig3.weight(k, 3)[::-1])


def test_the_prior_of_a_replay_is_that_of_the_paper(paper):
    rng = np.random.default_rng(0)
    parent = rng.normal(size=100)
    cells = np.column_stack([parent, 0.5 * parent + rng.normal(size=100)])
    posterior = paper.screen.warmed_up(Dag.from_edges(2, [(0, 1)]), cells)
    # m = 0, M = I: a ridge regression; the variance of IG(2 + n / 2, beta_n) is its mean.
    slope = parent @ cells[:, 1] / (1 + parent @ parent)
    rates = [parent @ parent / 2, cells[:, 1] @ (cells[:, 1] - slope * parent) / 2]
    assert posterior.mean()[1, 0] == pytest.approx(slope)
    np.testing.assert_allclose(posterior.noise_var, np.array(rates) / (2 + 100 / 2 - 1))


def test_cells_of_a_replay_are_those_of_the_knockout_asked_for(paper):
    shifts = -np.diag([1.0, 2.0])
    cells = [np.array([[-1.0, 0.0], [-1.2, 0.2]]), np.array([[5.0, -2.0]])]
    source = paper.screen.Knockouts(shifts, cells)
    np.testing.assert_allclose(source.mean(np.array([-1.0, 0.0])), [-1.1, 0.1])
    np.testing.assert_allclose(source.mean(np.zeros(2)), [0, 0])
    drawn = source.sample(9, np.array([0.0, -2.0]), rng=np.random.default_rng(0))
    np.testing.assert_allclose(drawn, np.tile([5.0, -2.0], (9, 1)))


def test_the_readme_holds_the_numbers_of_the_results(paper):
    folder = ROOT / "benchmarks" / "paper"
    assert (folder / "README.md").read_text() == paper.readme.text(folder / "results", "results")
    for image in (folder / "results").glob("*.png"):
        assert image.stat().st_size < 200_000


def test_replays_are_compared_by_run_and_ties_are_counted(paper):
    values = {"civ": [1.0, 2.0, 3.0], "greedy": [1.0, 3.0, 5.0]}
    rows = [
        ("CDH19", name, "state", run, value)
        for name in paper.figures.ACQUISITIONS
        for run, value in enumerate(values.get(name, values["civ"]))
    ]
    ends = pd.DataFrame(rows, columns=["target", "acquisition", "distance", "run", "value"])
    found = paper.screen.compared(ends).set_index("other")
    assert found.loc["greedy", ["difference", "ties"]].tolist() == [-1, 1]
    half = 4.302653 / np.sqrt(3)  # t with 2 degrees of freedom, a standard deviation of 1
    assert found.loc["greedy", "high"] == pytest.approx(-1 + half)
    assert found.loc["cv", ["difference", "low", "high", "ties"]].tolist() == [0, 0, 0, 3]


def test_genes_without_counts_in_the_warm_up_take_the_median_noise_variance(paper):
    cells = np.random.default_rng(0).normal(size=(100, 4)) * [1.0, 2.0, 3.0, 0.0] - 0.01
    noise = paper.screen.warmed_up(Dag.from_edges(4, []), cells).noise_var
    assert noise[3] == pytest.approx(np.median(noise[:3]))
    assert noise[3] == pytest.approx(noise[1])
