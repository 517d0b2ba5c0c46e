"""What a replay says of random and of the empty graph: tests, Holm's correction, words."""

import logging
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp, ttest_rel

import nextpert as npt
from nextpert.core import Dag, DagBlr, Moments
from nextpert.tl._replay_design.tables import comparison_table, holm
from nextpert.tl._replay_design.words import in_words

pytestmark = pytest.mark.filterwarnings("ignore:Perturbations left out")
EVERY = ["civ", "greedy", "no_model", "random", "empty_graph"]


@pytest.fixture(scope="module")
def _replayed(_small_screen, arcs):
    adata = _small_screen.copy()
    npt.tl.learn_dag(adata, method="given", dag=arcs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        npt.tl.replay_design(
            adata, ["MYC", "STK3", ("MYC", "STK3")], held_out="both", criteria=EVERY[:3],
            n_rounds=3, n_repeats=4, n_warmup=30,
        )  # fmt: skip
    return adata


@pytest.fixture
def replayed(_replayed):
    return _replayed.copy()


def test_over_all_targets_against_scipy(replayed):
    stored = replayed.uns["replay"]
    overall, runs = stored["overall"], stored["runs"]["distance"]
    for r, held_out in enumerate([False, True]):
        rows = overall[overall["held_out"] == held_out].set_index("criterion")
        assert list(rows.index) == EVERY
        control = stored["targets"].query("held_out == @held_out", engine="python")
        control = control["control_distance"].to_numpy()[:, None]
        relative = runs[:, r, :, :, 1:].mean(axis=(2, 3)) / control  # targets x criteria
        for columns, baseline, without in (
            (("relative_difference", "p_value", "p_adjusted"), "random", ["random"]),
            (("difference_to_empty", "p_to_empty", "p_to_empty_adjusted"), "empty_graph",
             ["empty_graph", "no_model"]),
        ):  # fmt: skip
            difference, p_value, adjusted = columns
            compared = [name for name in EVERY if name not in without]
            gaps = {
                name: relative[:, EVERY.index(name)] - relative[:, EVERY.index(baseline)]
                for name in compared
            }
            for name, gap in gaps.items():
                assert rows.loc[name, difference] == pytest.approx(gap.mean(), abs=1e-12)
                assert rows.loc[name, f"{difference}_sem"] == pytest.approx(
                    gap.std(ddof=1) / np.sqrt(3), abs=1e-12
                )
                expected = ttest_1samp(gap, 0).pvalue if np.ptp(gap) > 1e-9 else 1.0
                assert rows.loc[name, p_value] == pytest.approx(expected)
            assert rows.loc[without, p_value].isna().all()
            np.testing.assert_allclose(
                rows.loc[compared, adjusted], holm(rows.loc[compared, p_value].to_numpy())
            )
            assert rows.loc[without, adjusted].isna().all()
        significant = rows["p_adjusted"] < 0.05
        assert ((rows["verdict"] == "no difference seen") == ~significant).all()


def test_a_single_target_is_tested_over_its_repeats(replayed):
    npt.tl.replay_design(
        replayed, ["STK3"], criteria=["civ"], held_out=True, n_rounds=3, n_repeats=6, n_warmup=30
    )
    stored = replayed.uns["replay"]
    runs = stored["runs"]["distance"][0, 0, :, :, 1:].mean(axis=2)  # civ, random, empty_graph
    rows = stored["overall"].set_index("criterion")
    for name, ours in (("civ", runs[0]), ("random", runs[1])):
        expected = ttest_rel(ours, runs[2]).pvalue if np.ptp(ours - runs[2]) > 1e-9 else 1.0
        assert rows.loc[name, "p_to_empty"] == pytest.approx(expected)


def test_the_empty_graph_draws_what_random_draws(replayed):
    runs = replayed.uns["replay"]["runs"]
    random, empty = (EVERY.index(name) for name in ("random", "empty_graph"))
    assert np.array_equal(runs["chosen"][:, :, random], runs["chosen"][:, :, empty])
    assert not np.array_equal(runs["recommended"][:, :, random], runs["recommended"][:, :, empty])


def test_the_empty_graph_recommends_by_the_same_shifts(small_screen, arcs, monkeypatch):
    npt.tl.learn_dag(small_screen, method="given", dag=arcs)
    seen = []
    update = DagBlr.update

    def spy(self, moments, shift=None, **options):
        if self.dag.n_edges == 0:
            seen.append((moments, shift))
        return update(self, moments, shift, **options)

    monkeypatch.setattr(DagBlr, "update", spy)
    npt.tl.replay_design(
        small_screen, ["MYC"], criteria=[], n_rounds=3, n_repeats=2, n_warmup=30, shift="activation"
    )
    monkeypatch.undo()
    stored = small_screen.uns["replay"]
    genes = list(stored["genes"])
    panel = small_screen[:, genes]
    labels = small_screen.obs["perturbation"].astype(str).to_numpy()
    shifts, names = [], list(stored["environments"]["perturbation"])
    for name in names:
        own = np.isin(genes, name.split("+"))
        shifts.append(own.astype(float))
    target = panel.X[labels == "MYC"].mean(axis=0)
    blr = DagBlr(Dag.from_edges(len(genes), []))
    for t, (moments, shift) in enumerate(seen[:4]):
        blr = blr.update(moments, shift)
        apart = [((blr.predict_mean(a) - target) ** 2).sum() for a in shifts]
        # Criteria: random, then the empty graph; the first repeat.
        assert stored["runs"]["recommended"][0, 0, 1, 0, t] == int(np.argmin(apart))
    assert isinstance(seen[0][0], Moments)
    assert seen[0][0].n == 30


def overall_and_targets(replayed):
    overall = replayed.uns["replay"]["overall"].query("not held_out", engine="python").copy()
    return overall, replayed.uns["replay"]["targets"].query("not held_out", engine="python")


def test_the_summary_says_who_wins(replayed, caplog):
    summary = replayed.uns["replay"]["summary"]
    assert summary.count("Target in the pool (3 targets)") == 1
    assert summary.count("Target held out (3 targets)") == 1
    overall, targets = overall_and_targets(replayed)
    others = overall["criterion"] != "random"
    overall.loc[others, "relative_difference"] = [-0.5, 0.0, 0.4, 0.5]
    overall.loc[others, "relative_difference_sem"] = 0.1
    words = ["better than random", *["no difference seen"] * 2, "worse than random"]
    overall.loc[others, "verdict"] = words
    overall.loc[others, ["n_better", "n_worse"]] = [[2, 1], [0, 0], [0, 2], [0, 3]]
    said = in_words(overall, targets, 3)
    assert (
        "nearer than random over all targets: civ -0.500 ± 0.100 (nearer on 2 and further on 1 of "
        "3); not told apart from it: greedy +0.000 ± 0.100, no_model +0.400 ± 0.100 (further "
        "on 2 of 3); further: empty_graph +0.500 ± 0.100 (further on 3 of 3)"
    ) in said
    overall["verdict"] = "no difference seen"
    assert "no criterion is clearly nearer than random" in in_words(overall, targets, 3)
    assert "For " not in said
    faint = targets.assign(control_sampling=targets["control_distance"] * [0.4, 0.6, 0.7])
    assert "For 2 of 3, the target lies no further" in in_words(overall, faint, 3)
    with caplog.at_level(logging.INFO, "nextpert"):
        npt.tl.replay_design(
            replayed, ["MYC"], criteria=["greedy"], n_rounds=3, n_repeats=4, n_warmup=30
        )
    assert replayed.uns["replay"]["summary"] in caplog.text


@pytest.mark.parametrize(
    ("gap", "p_adjusted", "words"),
    [
        ([-0.2, -0.1, 0.1], [0.01, 0.2, 1], "The graph helps: nearer than an empty graph with the "
         "same shifts: civ -0.200 ± 0.100."),
        ([-0.2, 0.0, 0.1], [0.055, 1, 1], "The graph adds nothing clear here: with it, no"),
        ([0.2, 0.0, 0.1], [0.01, 1, 1], "The graph adds nothing here"),
        ([-0.009, 0.0, 0.1], [0.001, 1, 1], "by 1 % or more (civ -0.009 ± 0.100, greedy"),
        ([-0.01, -0.2, 0.1], [0.049, 0.04, 1], "shifts: greedy -0.200 ± 0.100, civ -0.010"),
    ],
)  # fmt: skip
def test_the_summary_says_what_the_graph_adds(replayed, gap, p_adjusted, words):
    overall, targets = overall_and_targets(replayed)
    with_graph = overall["criterion"].isin(["civ", "greedy", "random"])
    overall.loc[with_graph, "difference_to_empty"] = gap
    overall.loc[with_graph, "difference_to_empty_sem"] = 0.1
    overall.loc[with_graph, "p_to_empty_adjusted"] = p_adjusted
    said = in_words(overall, targets, 3)
    assert words in said
    assert said.count("The graph ") == 1


def test_nothing_is_added_without_arcs(replayed):
    npt.tl.learn_dag(replayed, method="given", dag=[], genes=list(replayed.uns["dag"]["genes"]))
    npt.tl.replay_design(replayed, criteria=["civ"], n_rounds=2, n_repeats=3, n_warmup=30)
    stored = replayed.uns["replay"]
    assert "The graph adds nothing here" in stored["summary"]
    assert stored["overall"].set_index("criterion").loc["random", "difference_to_empty"] == 0


def test_the_right_graph_helps():
    adata = npt.datasets.simulated_screen(
        n_genes=24, n_control=1000, n_perturbed=60, perturbed=16, rng=1
    )
    npt.tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
    npt.tl.replay_design(adata, criteria=["civ"], held_out=True, n_repeats=2, n_rounds=2)
    assert "The graph helps" in adata.uns["replay"]["summary"]


def test_holm_leaves_out_what_was_not_compared():
    found = holm(np.array([0.03, np.nan, 0.01, 0.02, 0.9]))
    np.testing.assert_allclose(found, [0.06, np.nan, 0.04, 0.06, 0.9])
    assert np.isnan(holm(np.array([np.nan]))).all()
    assert len(holm(pd.Series(dtype=float).to_numpy())) == 0


def test_rounding_is_no_difference(replayed):
    stored = replayed.uns["replay"]
    targets = stored["targets"].query("not held_out", engine="python").iloc[:2]
    # Everywhere a last bit nearer than random, in all repeats.
    distance = np.full((2, 2, 4, 4), 3.0)
    distance[:, 0] = np.nextafter(3.0, 0.0)
    distance[:, :, ::2] *= 1.1
    criteria = ["civ", "random"]
    found = comparison_table(distance, targets, criteria)
    assert found["verdict"].tolist() == ["no difference seen"] * 2
    assert found["p_value"].tolist() == [1.0] * 2


def test_nearer_is_better_and_further_is_worse(replayed):
    targets = replayed.uns["replay"]["targets"].query("not held_out", engine="python").iloc[:2]
    distance = np.full((2, 2, 4, 4), 3.0)
    distance[0, 0] -= np.linspace(1.0, 1.1, 4)[:, None]
    distance[1, 0] += np.linspace(1.0, 1.1, 4)[:, None]
    found = comparison_table(distance, targets, ["civ", "random"])
    assert found["verdict"].tolist() == ["better than random", "worse than random"]
