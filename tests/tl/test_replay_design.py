"""Replays of a screen: scores, pairing, tables, and the same bits for any number of workers."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

import nextpert as npt
from nextpert.core.screen.mean_distance import mean_distance
from nextpert.core.screen.moments import Moments
from nextpert.tl._replay_design.tables import holm, in_words, overall_table, plates_until_good

pytestmark = [
    pytest.mark.brief_chain, pytest.mark.filterwarnings("ignore:Perturbations left out"),
]  # fmt: skip
SMALL = {
    "n_rounds": 3, "n_repeats": 4, "n_perturbations": 2, "campaign_options": {"n_warmup": 30},
}  # fmt: skip
EVERY = ["thompson", "exact_greedy", "random", "round_robin_means"]


@pytest.fixture
def screen(small_screen, edges):
    npt.tl.learn_dag(small_screen, method="given", dag=edges)
    return small_screen


@pytest.fixture(scope="module")
def _both(_small_screen, edges):
    adata = _small_screen.copy()
    npt.tl.learn_dag(adata, method="given", dag=edges)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        npt.tl.replay_design(adata, ["MYC", "STK3"], held_out="both", strategies=EVERY[:3], **SMALL)
    return adata


@pytest.fixture
def both(_both):
    """A screen with a replay of both readings."""
    return _both.copy()


def cells_of(adata, label):
    return adata[adata.obs["perturbation"] == label, list(adata.uns["dag"]["genes"])].X


def truth_of(adata, target, candidate):
    if target == candidate:
        return 0.0
    x, y = (cells_of(adata, label) for label in (candidate, target))
    noise = sum((z.var(axis=0, ddof=1) / len(z)).sum() for z in (x, y))
    return ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() - noise


@pytest.mark.slow
def test_scores_are_the_true_distances_of_what_is_recommended(both):
    stored = both.uns["replay"]
    names = list(stored["environments"]["perturbation"])
    assert "HS2" in names  # an enhancer takes part
    assert list(stored["params"]["strategies"]) == EVERY
    distance, recommended = stored["runs"]["distance"], stored["runs"]["recommended"]
    assert distance.shape == recommended.shape == (2, 2, 4, 4, 4)
    assert stored["runs"]["chosen"].shape == (2, 2, 4, 4, 3, 2)
    for i, target in enumerate(["MYC", "STK3"]):
        truth = np.array([truth_of(both, target, name) for name in names])
        np.testing.assert_allclose(distance[i], truth[recommended[i]], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_what_is_held_out_is_never_tried_or_recommended(both):
    stored = both.uns["replay"]
    names = list(stored["environments"]["perturbation"])
    for i, target in enumerate(["MYC", "STK3"]):
        own = names.index(target)
        for name in ("recommended", "chosen"):
            assert own not in stored["runs"][name][i, 1]
    assert set(stored["runs"]["chosen"][:, 0].ravel()) - {-1} == set(range(len(names)))


def test_tables_against_the_runs(both):
    stored = both.uns["replay"]
    table, runs = stored["table"], stored["runs"]["distance"]
    names = list(stored["environments"]["perturbation"])
    assert len(table) == 2 * 2 * 4 * 4
    for i, target in enumerate(["MYC", "STK3"]):
        control = truth_of(both, target, "control")
        for r, held_out in enumerate([False, True]):
            truth = {n: truth_of(both, target, n) for n in names if not (held_out and n == target)}
            heads = stored["targets"]
            row = heads[(heads["target"] == target) & (heads["held_out"] == held_out)].iloc[0]
            assert row["best"] == min(truth, key=truth.get)
            assert row["n_candidates"] == len(truth)
            assert row["best_distance"] == pytest.approx(min(truth.values()), abs=1e-12)
            assert row["pool_distance"] == pytest.approx(np.mean(list(truth.values())))
            assert row["control_distance"] == pytest.approx(control)
            for c, strategy in enumerate(EVERY):
                is_one = (table["target"] == target) & (table["strategy"] == strategy)
                rows = table[is_one & (table["held_out"] == held_out)]
                frame = pd.DataFrame(runs[i, r, c])  # repeats x rounds
                assert rows["n_cells"].tolist() == [0, 20, 40, 60]
                np.testing.assert_allclose(rows["mean"], frame.mean())
                np.testing.assert_allclose(rows["sem"], frame.sem(), atol=1e-15)
                found = np.array(names)[stored["runs"]["recommended"][i, r, c]]
                assert (rows["share_good"] >= (found == row["best"]).mean(axis=0)).all()


def made_up(far):
    """Runs of two targets, two strategies, five repeats, two plates: the first comes ``far``."""
    rng = np.random.default_rng(0)
    distance = 1.0 + 0.1 * rng.normal(size=(2, 2, 5, 3))
    distance[:, 0] += far
    good = np.zeros(distance.shape, bool)
    good[:, 0, :, 1:] = far < 0
    targets = pd.DataFrame({"target": ["A", "B"], "control_distance": [2.0, 4.0]})
    targets = targets.assign(held_out=False, best_distance=0.0, pool_distance=3.0)
    overall = overall_table(distance, good, targets, ["ours", "round_robin_means"])
    return distance, overall, in_words(overall, targets, 2)


def test_overall_is_paired_over_repeats():
    distance, overall, _ = made_up(-0.5)
    relative = (distance / np.array([2.0, 4.0])[:, None, None, None])[..., 1:].mean(axis=(0, 3))
    ours = overall.iloc[0]
    assert ours["relative_difference"] == pytest.approx((relative[0] - relative[1]).mean())
    expected = holm(np.array([ttest_rel(*relative).pvalue, 0.0]))  # as many plates every time
    np.testing.assert_allclose(ours[["p_adjusted", "p_plates_adjusted"]].astype(float), expected)
    assert overall["plates"].tolist() == [1.0, 3.0]
    assert overall["plates_sem"].tolist() == [0.0, 0.0]  # as many in every repeat
    assert np.isnan(overall["p_adjusted"][1])
    assert overall["verdict"].tolist() == ["nearer", "no difference seen"]


def test_words_say_who_is_nearer():
    assert "nearer than round_robin_means: ours -0." in made_up(-0.5)[2]
    assert "further than round_robin_means: ours +0." in made_up(0.5)[2]
    words = made_up(0.0)[2]
    assert "not significantly different from round_robin_means: ours" in words
    assert "Target in the pool (2 targets)" in words
    assert "(3 stands for never): ours 3.0 (good at the end in 0%)" in words


def test_plates_until_good():
    good = np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]], bool)
    assert plates_until_good(good).tolist() == [3, 4, 0, 4]


def test_holm():
    # By hand: 0.01 x 4, 0.02 x 3, 0.03 x 2 (raised to 0.06), 0.9.
    np.testing.assert_allclose(holm(np.array([0.03, 0.9, 0.01, 0.02])), [0.06, 0.9, 0.04, 0.06])


@pytest.mark.slow
def test_a_strategy_does_not_depend_on_its_company(both, screen):
    npt.tl.replay_design(screen, ["MYC"], held_out=True, strategies=["random", "thompson"], **SMALL)
    alone, all_of_it = screen.uns["replay"]["runs"], both.uns["replay"]["runs"]
    for name in alone:
        assert np.array_equal(alone[name][0, 0, 0], all_of_it[name][0, 1, 2])
        assert np.array_equal(alone[name][0, 0, 1], all_of_it[name][0, 1, 0])


@pytest.mark.full_chain  # as in the processes of workers
@pytest.mark.processes
def test_same_bits_for_any_number_of_workers(screen, assert_same):
    found, few = [], SMALL | {"n_repeats": 2}
    for n_jobs, rng in [(1, 7), (2, np.random.default_rng(7)), (1, 8)]:
        npt.tl.replay_design(
            screen, ["MYC"], strategies=["thompson"], n_jobs=n_jobs, rng=rng, **few
        )
        found.append(screen.uns["replay"])
    assert [result["params"].pop("rng") for result in found] == ["7", "generator", "8"]
    assert_same(*found[:2])
    assert not np.array_equal(found[0]["runs"]["chosen"], found[2]["runs"]["chosen"])


def test_targets_by_themselves_are_those_off_the_controls(screen):
    npt.tl.replay_design(screen, strategies=["round_robin_means"], **SMALL)
    targets = screen.uns["replay"]["targets"]
    control = Moments.from_array(cells_of(screen, "control"))
    for name, distance in zip(targets["target"], targets["control_distance"], strict=True):
        assert distance > 3 * mean_distance(control, Moments.from_array(cells_of(screen, name))).sd
    assert "nothing to compare" in screen.uns["replay"]["summary"]


@pytest.mark.slow
def test_a_target_need_not_be_a_candidate(screen):
    npt.tl.replay_design(
        screen, ["HS2"], candidates=["MYC", "STK3"], strategies=["random"], **SMALL
    )
    stored = screen.uns["replay"]
    assert stored["environments"]["perturbation"].tolist() == ["MYC", "STK3", "HS2"]
    assert set(stored["runs"]["recommended"].ravel()) <= {0, 1}
    assert stored["targets"]["n_candidates"].tolist() == [2]


@pytest.mark.slow
def test_the_best_is_found_where_effects_are_clear():
    adata = npt.datasets.simulated_screen(
        n_genes=12, n_control=500, n_perturbed=160, perturbed=6, rng=1
    )
    npt.tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
    npt.tl.replay_design(adata, strategies=["thompson"], n_repeats=3, n_rounds=4, n_perturbations=2)
    overall = adata.uns["replay"]["overall"].set_index("strategy")
    assert overall.loc["thompson", "share_good_last"] > 0.9
    assert overall.loc["thompson", "plates"] <= overall.loc["round_robin_means", "plates"]


@pytest.mark.slow
def test_options_reach_the_campaigns(screen):
    options = {"strategies": ["random"]} | SMALL
    assert npt.tl.replay_design(screen, ["MYC"], copy=True, **options).uns["replay"]
    assert "replay" not in screen.uns
    npt.pp.setup_screen(screen, layer="lognorm")
    npt.tl.learn_dag(screen, search_options={"n_runs": 2}, key_added="other")
    options |= {"campaign_options": {"n_warmup": 20, "shift": "activation"}}
    options["n_perturbations"] = 10**9  # a plate holds no more than all candidates
    npt.tl.replay_design(
        screen, ["MYC"], candidates=["MYC", "STK3"], dag_key="other", key_added="mine", **options
    )
    stored = screen.uns["mine"]
    assert stored["environments"]["perturbation"].tolist() == ["MYC", "STK3"]
    assert stored["environments"]["shift_source"].tolist() == ["activation"] * 2
    assert stored["params"]["layer"] == "lognorm"  # which its graph was learned from
    assert stored["params"]["n_warmup"] == 20
    assert stored["params"]["n_perturbations"] == stored["runs"]["chosen"].shape[-1] == 2


BAD = {
    "an option that went": (
        {"campaign_options": {"simulated": True}},
        ValueError,
        "simulated went: replay a screen",
    ),
    "unknown strategy": ({"strategies": ["civv"]}, ValueError, "Unknown strategies: civv.*civ"),
    "strategies as a string": ({"strategies": "civ"}, TypeError, r"\['civ'\]"),
    "unknown target": ({"targets": ["MIC"]}, ValueError, "Targets not found.*MIC.*MYC"),
    "targets as a string": ({"targets": "MYC"}, TypeError, r"\['MYC'\]"),
    "control as a target": ({"targets": ["control"]}, ValueError, "control state itself"),
    "unknown state": ({"targets": [npt.Target(state="MIC")]}, ValueError, "MIC.*MYC"),
    "gene of a target": ({"targets": [npt.Target(at_least={"X": 1})]}, ValueError, "X"),
    "reached": ({"targets": [npt.Target(at_least={"MYC": -9})]}, ValueError, "reached"),
    "no target": ({"targets": []}, ValueError, "targets is empty"),
    "a pair": ({"targets": [("MYC", "STK3")]}, TypeError, "targets must be a list of names"),
    "one candidate": ({"candidates": ["MYC"]}, ValueError, r"two candidates.*1 \(MYC\)"),
    "unknown candidate": ({"candidates": ["MYC", "STK"]}, ValueError, "STK.*STK3"),
    "warm-up": (
        {"campaign_options": {"n_warmup": 401}},
        ValueError,
        "401.*400 cells.*lower n_warmup",
    ),
    "held out": ({"held_out": "yes"}, ValueError, "held_out.*'both'"),
    "repeats": ({"n_repeats": 1}, ValueError, "n_repeats.*at least 2"),
    "rounds": ({"n_rounds": 0}, ValueError, "n_rounds"),
    "cells": ({"n_cells": 2.5}, ValueError, "n_cells"),
    "plate": ({"n_perturbations": 0}, ValueError, "n_perturbations"),
    "shift": ({"campaign_options": {"shift": "knockin"}}, ValueError, "shift"),
    "control": ({"control": "ctrl"}, TypeError, "no argument 'control'.*that of the graph"),
    "graph": ({"dag_key": "none"}, ValueError, "run tl.learn_dag first"),
    "key": ({"key_added": "a/b"}, ValueError, "slash"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_nothing_written(screen, case, assert_same_adata):
    options, kind, words = BAD[case]
    before = screen.copy()
    with pytest.raises(kind, match=f"(?s){words}"):
        npt.tl.replay_design(screen, **SMALL | options)
    assert_same_adata(screen, before)


def test_perturbations_of_few_cells_and_unclear_ones_are_no_targets(screen, assert_same_adata):
    labels = screen.obs["perturbation"].astype(object)
    few = np.flatnonzero(labels == "MYC")[3:]
    screen.obs["perturbation"] = labels.where(~np.isin(np.arange(screen.n_obs), few))
    before = screen.copy()
    with pytest.raises(ValueError, match="fewer than 4 cells: MYC"):
        npt.tl.replay_design(screen, ["MYC"], **SMALL)
    assert_same_adata(screen, before)
    perturbed = (labels != "control").to_numpy()
    screen.X = np.asarray(screen.X)
    screen.X[perturbed] = np.random.default_rng(0).permutation(screen.X[~perturbed], axis=0)[
        np.arange(perturbed.sum()) % (~perturbed).sum()
    ]  # the controls' cells under other labels
    screen.obs["perturbation"] = labels
    with pytest.raises(ValueError, match="no state to find: name targets yourself"):
        npt.tl.replay_design(screen, **SMALL)


@pytest.mark.slow
def test_a_target_of_many_parts(screen):
    few = SMALL | {"n_rounds": 2, "n_repeats": 2}
    own = npt.Target(state="STK3", weights=["MYC", "STK3"])
    up = npt.Target(at_least={"STK3": 2.0}, at_most={"OXR1": 1.0})
    targets = [npt.Target(state="MYC"), own, up, npt.Target(state=("batch", "b"))]
    npt.tl.replay_design(screen, targets, held_out="both", strategies=["exploit"], **few)
    stored = screen.uns["replay"]
    heads = stored["targets"].drop_duplicates("target")
    said = ["MYC", "STK3; in MYC, STK3", "STK3 >= 2; OXR1 <= 1", "batch=b"]
    assert heads["target"].tolist() == said
    assert stored["runs"]["distance"].shape == (4, 2, 2, 2, 3)
    names = list(stored["environments"]["perturbation"])
    wanted = []
    for name in names:
        mean = dict(
            zip(screen.uns["dag"]["genes"], cells_of(screen, name).mean(axis=0), strict=True)
        )
        wanted.append(max(2 - mean["STK3"], 0) ** 2 + max(mean["OXR1"] - 1, 0) ** 2)
    runs = stored["runs"]
    np.testing.assert_allclose(runs["distance"][2], np.array(wanted)[runs["recommended"][2]])
    assert heads["pool_distance"].iloc[2] == pytest.approx(np.mean(wanted))
    # What is held out is the state that is wanted, where it is one of a perturbation.
    held = stored["targets"].set_index(["target", "held_out"])["n_candidates"]
    assert [held[name, True] - held[name, False] for name in said] == [-1, -1, 0, 0]
    npt.tl.replay_design(
        screen, ["MYC"], held_out="both", strategies=["exploit"], key_added="plain", **few
    )
    plain = screen.uns["plain"]["runs"]["distance"]
    np.testing.assert_array_equal(plain[0], stored["runs"]["distance"][0])
