"""Replays of a screen: scores, pairing, tables, and the same bits for any number of workers."""

import os
import signal
import warnings
from inspect import signature
from itertools import combinations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

import nextpert as npt
from nextpert.core.cells.sample import Sample
from nextpert.core.loop.replay import replay
from nextpert.tl._replay_design import run as running
from nextpert.tl._replay_design.setup import _goal
from nextpert.tl._replay_design.tables import holm

pytestmark = pytest.mark.filterwarnings("ignore:Perturbations left out")
SMALL = {"n_rounds": 3, "n_repeats": 4, "n_warmup": 30}
LABELS = ["MYC", "MYC+OXR1", "OXR1", "STK3"]
EVERY = ["civ", "greedy", "no_model", "random", "empty_graph"]


@pytest.fixture
def screen(small_screen, arcs):
    npt.tl.learn_dag(small_screen, method="given", dag=arcs)
    return small_screen


@pytest.fixture(scope="module")
def _both(_small_screen, arcs):
    adata = _small_screen.copy()
    npt.tl.learn_dag(adata, method="given", dag=arcs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        npt.tl.replay_design(
            adata, ["MYC", "STK3", ("MYC", "STK3")], held_out="both",
            criteria=["civ", "greedy", "no_model"], **SMALL,
        )  # fmt: skip
    return adata


@pytest.fixture
def both(_both):
    """A screen with a replay of both readings."""
    return _both.copy()


def mean_of(adata, label):
    panel = adata[adata.obs["perturbation"] == label, list(adata.uns["dag"]["genes"])]
    return panel.X.mean(axis=0)


def truth_of(adata, target, candidate):
    wanted = np.mean([mean_of(adata, label) for label in target.split(" & ")], axis=0)
    return ((mean_of(adata, candidate) - wanted) ** 2).sum()


def test_scores_are_the_true_distances_of_what_is_recommended(both):
    stored = both.uns["replay"]
    names = list(stored["environments"]["perturbation"])
    assert names == LABELS
    assert list(stored["params"]["criteria"]) == EVERY
    targets = list(dict.fromkeys(stored["targets"]["target"]))
    assert targets == ["MYC", "STK3", "MYC & STK3"]
    distance, recommended = stored["runs"]["distance"], stored["runs"]["recommended"]
    assert distance.shape == recommended.shape == (3, 2, 5, 4, 4)
    assert stored["runs"]["chosen"].shape == (3, 2, 5, 4, 3)
    for i, target in enumerate(targets):
        truth = np.array([truth_of(both, target, name) for name in names])
        np.testing.assert_allclose(distance[i], truth[recommended[i]], rtol=1e-9, atol=1e-12)


def test_what_is_held_out_is_never_tried_or_recommended(both):
    stored = both.uns["replay"]
    for i, own in enumerate([{0}, {3}, {0, 3}]):
        for name in ("recommended", "chosen"):
            assert not own & set(stored["runs"][name][i, 1].ravel())
    assert set(stored["runs"]["chosen"][:, 0].ravel()) == {0, 1, 2, 3}


def test_tables_against_the_runs(both):
    stored = both.uns["replay"]
    table, runs = stored["table"], stored["runs"]["distance"]
    assert len(table) == 3 * 2 * 5 * 4
    control = {}
    for i, target in enumerate(["MYC", "STK3", "MYC & STK3"]):
        control[target] = truth_of(both, target, "control")
        for r, held_out in enumerate([False, True]):
            names = [n for n in LABELS if not (held_out and n in target.split(" & "))]
            truth = {name: truth_of(both, target, name) for name in names}
            row = (
                stored["targets"]
                .query("target == @target and held_out == @held_out", engine="python")
                .iloc[0]
            )
            assert row["best"] == min(truth, key=truth.get)
            assert row["n_candidates"] == len(names)
            assert row["best_distance"] == pytest.approx(min(truth.values()), abs=1e-12)
            assert row["pool_distance"] == pytest.approx(np.mean(list(truth.values())))
            assert row["control_distance"] == pytest.approx(control[target])
            for c, criterion in enumerate(EVERY):
                is_one = (table["target"] == target) & (table["criterion"] == criterion)
                rows = table[is_one & (table["held_out"] == held_out)]
                frame = pd.DataFrame(runs[i, r, c])  # repeats x rounds
                assert rows["round"].tolist() == [0, 1, 2, 3]
                assert rows["n_cells"].tolist() == [0, 10, 20, 30]
                np.testing.assert_allclose(rows["mean"], frame.mean())
                np.testing.assert_allclose(rows["sem"], frame.sem(), atol=1e-15)
                np.testing.assert_allclose(rows["relative_mean"], frame.mean() / control[target])
                # The two parts of a mixture are equally near to it: both count.
                nearest = [k for k, v in truth.items() if v < min(truth.values()) + 1e-9]
                found = np.array(LABELS)[stored["runs"]["recommended"][i, r, c]]
                share = np.isin(found, nearest).mean(axis=0)
                np.testing.assert_allclose(rows["share_best"], share)


def test_comparison_is_paired_by_repeat(both):
    stored = both.uns["replay"]
    runs, table = stored["runs"]["distance"], stored["comparison"]
    assert set(table["criterion"]) == {"civ", "greedy", "no_model", "empty_graph"}
    found = table.query(
        "target == 'MYC & STK3' and held_out and criterion == 'no_model'", engine="python"
    ).iloc[0]
    ours, random = runs[2, 1, 2], runs[2, 1, 3]
    gap = (ours - random)[:, 1:].mean(axis=1)
    assert np.ptp(gap) > 0
    assert found["difference"] == pytest.approx(gap.mean())
    assert found["difference_sem"] == pytest.approx(gap.std(ddof=1) / 2)
    assert found["last_difference"] == pytest.approx((ours - random)[:, -1].mean())
    test = ttest_rel(ours[:, 1:].mean(axis=1), random[:, 1:].mean(axis=1))
    assert found["p_value"] == pytest.approx(test.pvalue)
    for _, family in table.groupby(["held_out", "criterion"]):
        np.testing.assert_allclose(family["p_adjusted"], holm(family["p_value"].to_numpy()))
    significant = table["p_adjusted"] < 0.05
    assert ((table["verdict"] == "no difference seen") == ~significant).all()
    worse = table["verdict"] == "worse than random"
    assert (worse == (significant & (table["difference"] > 0))).all()


def test_holm():
    # By hand: 0.01 x 4, 0.02 x 3, 0.03 x 2 (raised to 0.06), 0.9.
    np.testing.assert_allclose(holm(np.array([0.03, 0.9, 0.01, 0.02])), [0.06, 0.9, 0.04, 0.06])


def test_criteria_share_warm_up_and_cells(screen, monkeypatch):
    deals = []

    def spy(pool, posterior, *args, deal, rng, **options):
        deals.append((id(deal), id(posterior), rng.bit_generator.state["state"]["state"]))
        return replay(pool, posterior, *args, deal=deal, rng=rng, **options)

    monkeypatch.setattr(running, "replay", spy)
    npt.tl.replay_design(
        screen, ["MYC"], criteria=["civ", "random"], held_out="both", n_rounds=1, n_repeats=2
    )
    assert len(deals) == 12
    for mine in (deals[:6], deals[6:]):  # one deal and seed; the empty graph's own posterior
        assert len({(deal, seed) for deal, _, seed in mine}) == 1
        assert [posterior == mine[0][1] for _, posterior, _ in mine] == [True, True, False] * 2
    assert deals[0][2] != deals[6][2]
    stored = screen.uns["replay"]["runs"]["recommended"]
    # Before the first round only the warm-up speaks, and it is the same for all.
    assert (stored[0, :, 0, :, 0] == stored[0, :, 1, :, 0]).all()


def test_a_criterion_does_not_depend_on_its_company(both, screen):
    npt.tl.replay_design(
        screen, ["MYC", "STK3"], held_out=True, criteria=["random", "civ"], **SMALL
    )
    alone, all_of_it = screen.uns["replay"]["runs"], both.uns["replay"]["runs"]
    # Targets take their streams in turn, whatever comes after them.
    for name in alone:
        assert np.array_equal(alone[name][:, 0, 0], all_of_it[name][:2, 1, 3])
        assert np.array_equal(alone[name][:, 0, 1], all_of_it[name][:2, 1, 0])


def test_same_bits_for_any_number_of_workers(screen, assert_same):
    found = []
    for n_jobs, rng in [(1, 7), (2, np.random.default_rng(7)), (1, 8)]:
        npt.tl.replay_design(screen, ["MYC"], criteria=["civ"], n_jobs=n_jobs, rng=rng, **SMALL)
        found.append(screen.uns["replay"])
    assert_same(*found[:2])
    assert not np.array_equal(found[0]["runs"]["chosen"], found[2]["runs"]["chosen"])


def test_the_signature_can_be_read():
    assert len(signature(npt.tl.replay_design).parameters) <= 18


def test_mixtures_of_every_two(screen):
    labels = ["MYC", "STK3", "HS2"]
    given = ["MYC", "STK3", ("STK3", "MYC"), "HS2", *combinations(labels, 2)]
    npt.tl.replay_design(screen, given, criteria=[], **SMALL)
    targets = screen.uns["replay"]["targets"]["target"].tolist()
    # A pair given twice is one target; a target need not be a candidate.
    assert targets == ["MYC", "STK3", "STK3 & MYC", "HS2", "MYC & HS2", "STK3 & HS2"]
    table = screen.uns["replay"]["candidates"]
    assert table.query("is_own", engine="python")["perturbation"].tolist() == [
        "MYC", "STK3", "MYC", "STK3", "MYC", "STK3",
    ]  # fmt: skip
    assert set(screen.uns["replay"]["comparison"]["criterion"]) == {"empty_graph"}


def test_what_sampling_adds_to_a_distance():
    # Many draws of groups without any difference: the distance of their means is sampling alone.
    rng, found = np.random.default_rng(0), []
    for _ in range(800):
        groups = {"A": 5, "B": 9, "C": 4, "none": 7}
        samples = {k: Sample.of(rng.normal(size=(n, 3))) for k, n in groups.items()}
        for parts in [("A",), ("A", "B"), ("B", "C")]:
            goal = _goal(parts, ["A", "C"], "none", samples)
            of = [*goal.apart, goal.control], [*goal.sampling, goal.control_sampling]
            found.append(of)
    apart, sampling = np.array(found).reshape(-1, 3, 2, 3).transpose(2, 1, 3, 0)
    error = (apart - sampling).std(axis=2) / np.sqrt(apart.shape[2])
    assert (np.abs((apart - sampling).mean(axis=2)) <= 4 * error).all()
    # By hand: three genes of variance 1, and for A towards (A + B) / 2 half of each.
    expected = [[0, 3 / 4 + 3 / 5], [(3 / 5 + 3 / 9) / 4, 3 / 4 + (3 / 5 + 3 / 9) / 4]]
    np.testing.assert_allclose(sampling.mean(axis=2)[:2, :2], expected, rtol=0.1)
    np.testing.assert_allclose(sampling.mean(axis=2)[0, 2], 3 / 7 + 3 / 5, rtol=0.1)


def test_the_best_is_found_where_the_model_holds():
    adata = npt.datasets.simulated_screen(
        n_genes=12, n_control=2000, n_perturbed=120, perturbed=6, rng=1
    )
    npt.tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
    npt.tl.replay_design(adata, criteria=["civ"], held_out="both", n_repeats=6)
    table = adata.uns["replay"]["table"].query("round == 10 and not held_out", engine="python")
    assert (table["share_best"] == 1).all()
    assert (table["mean"] == 0).all()
    first = adata.uns["replay"]["table"].query("held_out and round == 0", engine="python")[
        "share_best"
    ]
    last = adata.uns["replay"]["table"].query("held_out and round == 10", engine="python")[
        "share_best"
    ]
    assert last.mean() > 0.8
    assert last.mean() >= first.mean()


def test_round_trip(both, tmp_path, assert_same):
    path = tmp_path / "replayed.h5ad"
    both.write_h5ad(path)
    assert_same(ad.read_h5ad(path).uns["replay"], both.uns["replay"])


def test_options_reach_the_campaigns(screen):
    assert npt.tl.replay_design(screen, copy=True, criteria=["cv"], **SMALL).uns["replay"]
    assert "replay" not in screen.uns
    npt.tl.replay_design(
        screen, ["MYC"], candidates=["MYC", "STK3"], shift="activation",
        layer="lognorm", criteria=["ei", "target_mean_variance"],
        key_added="mine", **SMALL,
    )  # fmt: skip
    stored = screen.uns["mine"]
    assert stored["environments"]["perturbation"].tolist() == ["MYC", "STK3"]
    assert stored["environments"]["shift_source"].tolist() == ["activation"] * 2
    assert stored["params"]["layer"] == "lognorm"
    table = {"MYC": {"MYC": -1.0}, "OXR1": {"OXR1": -2.0}}
    npt.tl.replay_design(screen, shift=table, criteria=["civ"], **SMALL)
    assert screen.uns["replay"]["environments"]["shift"].tolist() == ["-1.00", "-2.00"]


BAD = {
    "unknown criterion": ({"criteria": ["civv"]}, ValueError, "Unknown criteria: civv.*civ"),
    "criteria as a string": ({"criteria": "civ"}, TypeError, r"\['civ'\]"),
    "unknown target": ({"targets": ["MIC"]}, ValueError, "Targets not found.*MIC.*MYC"),
    "targets as a string": ({"targets": "MYC"}, TypeError, r"\['MYC'\]"),
    "control as a target": ({"targets": ["control"]}, ValueError, "control state itself"),
    "no target": ({"targets": []}, ValueError, "there is none"),
    "a mixture of three": ({"targets": [("MYC", "STK3", "OXR1")]}, ValueError, "neither"),
    "a mixture of none": ({"targets": [()]}, ValueError, r"\(\) is neither"),
    "a list of none": ({"targets": ["MYC", []]}, TypeError, "targets must be a list"),
    "a number as a target": ({"targets": [3]}, ValueError, "3 is neither"),
    "a number in a pair": ({"targets": [("MYC", 3)]}, ValueError, "neither"),
    "a mixture of one": ({"targets": [("MYC", "MYC")]}, ValueError, "neither"),
    "one candidate": ({"candidates": ["MYC"]}, ValueError, r"two candidates.*1 \(MYC\)"),
    "nothing left": (
        {"targets": [("MYC", "STK3")], "candidates": ["MYC", "STK3"], "held_out": True},
        ValueError,
        "no candidate is left.*MYC & STK3",
    ),
    "unknown candidate": ({"candidates": ["MYC", "STK"]}, ValueError, "STK.*STK3"),
    "warm-up": ({"n_warmup": 401}, ValueError, "401.*400 cells.*lower n_warmup"),
    "held out": ({"held_out": "yes"}, ValueError, "held_out.*'both'"),
    "repeats": ({"n_repeats": 1}, ValueError, "n_repeats.*at least 2"),
    "rounds": ({"n_rounds": 0}, ValueError, "n_rounds"),
    "cells": ({"n_cells": 2.5}, ValueError, "n_cells"),
    "shift": ({"shift": "knockin"}, ValueError, "shift"),
    "control": ({"control": "ctrl"}, ValueError, "No control cells.*control"),
    "graph": ({"dag_key": "none"}, ValueError, "run tl.learn_dag first"),
    "layer": ({"layer": "counts"}, ValueError, "no layer 'counts'"),
    "key": ({"key_added": "a/b"}, ValueError, "slash"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_nothing_written(screen, case, assert_same_adata):
    options, kind, words = BAD[case]
    before = screen.copy()
    with pytest.raises(kind, match=f"(?s){words}"):
        npt.tl.replay_design(screen, **SMALL | options)
    assert_same_adata(screen, before)


def test_a_killed_worker_loses_nothing(screen, monkeypatch, assert_same):
    npt.tl.replay_design(screen, ["MYC", "STK3"], criteria=["civ"], **SMALL)
    expected = screen.uns["replay"]
    one, parent = running._one, os.getpid()

    def fragile(pool, dag, task, options, stream):
        # The third of eight repeats kills its worker.
        if os.getpid() != parent and stream.bit_generator.seed_seq.spawn_key[-2:] == (0, 2):
            os.kill(os.getpid(), signal.SIGKILL)
        return one(pool, dag, task, options, stream)

    monkeypatch.setattr(running, "_one", fragile)
    with pytest.warns(UserWarning, match=r"A worker was killed.* finished tasks are kept"):
        npt.tl.replay_design(screen, ["MYC", "STK3"], criteria=["civ"], n_jobs=2, **SMALL)
    assert_same(screen.uns["replay"], expected)
