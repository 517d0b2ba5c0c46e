"""The paper's experiments: the same table for any number of workers, a README that cannot drift."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nextpert.core import DagBlr, design_loop, shd

pytestmark = pytest.mark.benchmarks

ROOT = Path(__file__).parents[1]


@pytest.fixture
def paper():
    """Import the package of the benchmarks."""
    from benchmarks.paper import (
        __main__,
        _ablations,
        _fig3,
        _figures,
        _readme,
        _run,
        _settings,
        _tables,
    )

    return SimpleNamespace(
        main=__main__.main, ablations=_ablations, fig3=_fig3, figures=_figures,
        readme=_readme, run=_run, settings=_settings, tables=_tables,
    )  # fmt: skip


def test_the_same_seed_gives_the_same_table_with_one_and_two_workers(paper, tmp_path):
    folders = [tmp_path / str(n) for n in (1, 2)]
    for n, folder in zip((1, 2), folders, strict=True):
        paper.main(["fig5", "--quick", "--workers", str(n), "--out", str(folder)])
    one, two = ({p.name: p.read_bytes() for p in f.glob("*.csv")} for f in folders)
    assert one == two
    assert set(one) == {"fig5.csv", "fig5-pairs.csv", "fig5-rounds.csv"}
    table = pd.read_csv(folders[0] / "fig5.csv")
    assert np.isfinite(table["mean"]).all()
    assert table.groupby(["setting", "prior", "acquisition"]).size().eq(7).all()
    assert {p.suffix for p in folders[0].glob("fig5.*")} == {".csv", ".json", ".md", ".png"}


def test_instances_differ_by_seed_and_acquisitions_share_their_noise(paper):
    setting = paper.figures.FIG5.quick().settings[0]
    first, second = (paper.settings.instance(setting, seed) for seed in (0, 1))
    assert np.abs(first.scm.weights - second.scm.weights).max() > 0.1
    assert np.abs(first.shift - second.shift).max() > 0.1
    tasks = [
        paper.settings.task(setting, 0, run, acquisition, "fixed", 3)
        for acquisition, run in (("civ", 0), ("greedy", 0), ("civ", 1))
    ]
    assert tasks[0]["rng"] == tasks[1]["rng"] != tasks[2]["rng"]


def test_wrong_graphs_are_as_far_from_the_truth_as_their_names_say(paper):
    for setting in paper.figures.ED6.settings:
        drawn = paper.settings.instance(setting, 3)
        wrong = setting.n_missing + setting.n_extra + setting.n_reversed
        assert shd(drawn.scm.dag, drawn.dag) == wrong
    assert setting.name == "20 edges reversed"
    assert wrong == 20


def test_noise_multiplies_the_variances_and_leaves_the_weights(paper):
    quiet = paper.settings.instance(paper.settings.Setting("q", 6, n_targets=2, noise=0.1), 0)
    loud = paper.settings.instance(paper.settings.Setting("l", 6, n_targets=2, noise=10.0), 0)
    np.testing.assert_allclose(loud.scm.noise_var, 100 * quiet.scm.noise_var)
    np.testing.assert_allclose(loud.scm.weights, quiet.scm.weights)
    np.testing.assert_allclose(loud.target_mean, quiet.target_mean)


def test_pairs_and_rounds_from_curves_by_hand(paper):
    found = {
        ("s", "fixed", "civ"): np.array([[1.0, 0.8, 0.4], [1.0, 0.6, 0.2]]),
        ("s", "fixed", "greedy"): np.array([[1.0, 0.9, 0.6], [1.0, 0.9, 0.3]]),
        ("s", "learned", "civ"): np.array([[1.0, 0.3, 0.1], [1.0, 0.5, 0.25]]),
        ("s", "learned", "greedy"): np.array([[1.0, 0.9, 0.7], [1.0, 0.9, 0.8]]),
    }
    pairs = paper.run.paired(found).set_index(["prior", "pair"])
    row = pairs.loc[("fixed", "civ - greedy")]
    assert row["round"] == 2
    assert row["difference"] == pytest.approx(-0.15)  # of -0.2 and -0.1
    assert row["sem"] == pytest.approx(0.05)
    rounds = paper.run.rounds_to_reach(found).set_index("acquisition")
    assert rounds.loc["civ", "rounds"] == 2  # means 1, 0.4, 0.175 against 0.3
    assert rounds.loc["civ", "by_instance"] == pytest.approx(1.5)  # 1, and never: counted as 2
    assert rounds.loc["civ", "reached"] == 1
    assert rounds.loc["greedy", "rounds"] == np.inf
    said = [paper.tables.verdict(d, 0.05) for d in (-0.11, -0.09, 0.11)]
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


def test_the_loop_of_the_ablations_is_that_of_the_core(paper):
    arguments = paper.settings.task(
        paper.settings.Setting("x", 6, n_targets=2), 0, 0, "civ", "learned", 6
    )
    plain = np.sqrt(design_loop(**arguments).distance)
    ours = paper.ablations.look_ahead_with_noise(**arguments, noise_aware=False)
    np.testing.assert_array_equal(ours, plain)
    aware = paper.ablations.look_ahead_with_noise(**arguments)
    assert np.abs(aware - plain).max() > 1e-6


def test_a_variant_leaves_the_hyperprior_as_it_was(paper):
    from nextpert.core.model import _blocks as _prior_scale

    setting = paper.figures.FIG5.quick().settings[0]
    before, variants = _prior_scale.HYPER_SD, {v.hyper_sd: v for v in paper.ablations.VARIANTS}
    curves = [paper.ablations.distances(variants[sd], setting, 0, 0, 5) for sd in (1.0, 10.0)]
    assert before == _prior_scale.HYPER_SD
    assert np.abs(curves[0] - curves[1]).max() > 1e-6
    assert isinstance(paper.ablations._posterior(variants[1.0], setting, 0), DagBlr)


def test_the_readme_holds_the_numbers_of_the_results(paper):
    folder = ROOT / "benchmarks" / "paper"
    assert (folder / "README.md").read_text() == paper.readme.text(folder / "results", "results")
    for image in (folder / "results").glob("*.png"):
        assert image.stat().st_size < 200_000
