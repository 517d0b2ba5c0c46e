"""The rules of the verdict at their thresholds, and the empty graph against a brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

import nextpert as npt
from nextpert._adata.shifts import Interventions
from nextpert.core import Dag, DagBlr, Moments
from nextpert.tl._diagnose import held_out as scores
from nextpert.tl._diagnose import tables
from nextpert.tl._diagnose import verdict as verdicts
from nextpert.tl._diagnose.held_out import HeldOut

# Of every quantity its value and its standard error over eight strong perturbations.
GOOD = {
    "r": (0.8, 0.05),
    "error_nothing": (0.5, 0.1),  # ratios to these, as what they are of the model's error
    "error_mean": (0.4, 0.1),
    "error_coexpression": (0.55, 0.1),
    "error_empty": (0.6, 0.1),
    "distance_rank": (0.9, 0.02),
    "distance_rank_empty": (0.6, 0.0),
    "coverage_90": (0.9, 0.02),
}
N = 8


def spread(value, error, n=N):
    """Values of this mean and this standard error of the mean."""
    sign = np.where(np.arange(n) % 2, 1.0, -1.0)
    return value + error * np.sqrt(n - 1) * sign


def screen(n_strong=N, n=N, n_better=0, **changed):
    """The tables of a screen on which every rule holds, but for what is changed."""
    of = GOOD | changed
    table = pd.DataFrame({"perturbation": [f"G{k}" for k in range(n)]})
    table["is_strong"] = np.arange(n) < n_strong
    table["error"], table["error_noise"] = 1.0, 1.0
    for name, (value, error) in of.items():
        if name.startswith("error_"):  # the ratio's error is that of its logarithm, times it
            table[name] = np.exp(-spread(np.log(value), error / value, n))
        else:
            table[name] = spread(value, error, n)
    for name in ("r_with_target", "r_coexpression", "sign_accuracy", "coverage_50"):
        table[name] = 0.5
    genes = pd.DataFrame({"residual_skewness": [-2.0, 1.0, 3.0], "share_of_zeros": [0, 0.2, 0.4]})
    r = np.full((101, 3), 0.1)
    r[0], r[1 : 1 + n_better] = 0.5, 0.5
    return table, genes, r


def judged(**changed):
    table, genes, r = screen(**changed)
    quantities = verdicts.summarise(table, genes, r)
    level, words = verdicts.judge(quantities, table)
    return level, words, {q.name: q for q in quantities}


def test_all_rules_hold():
    level, words, by = judged()
    assert level == "trust"
    assert words == (
        "Trust the model here: held-out effects of 8 strong perturbations are predicted with "
        "r = 0.80 ± 0.05 (without the target genes), at 0.50 ± 0.10 times the squared error of "
        "'nothing changes', 0.40 ± 0.10 times that of the mean perturbation, 0.55 ± 0.10 times "
        "that of coexpression over the controls and 0.60 ± 0.10 times that of an empty graph with "
        "the same shifts; distances to a target are ranked with a correlation of 0.90 ± 0.02, "
        "those of the empty graph 0.60 ± 0.00; 90 % intervals hold 90 %."
    )
    assert {q.passed for q in by.values()} == {True, None}
    assert by["distance_rank_gain"].value == pytest.approx(0.3)
    assert by["distance_rank_gain"].error == pytest.approx(0.02)
    assert (by["skewness"].value, by["zeros"].value) == (2.0, 0.2)
    assert by["r_parents"].value == pytest.approx(0.5)
    assert by["r_parents_random"].value == pytest.approx(0.1)


# What is changed, the level, and what the verdict says.
CASES = {
    "two strong": ({"n_strong": 2}, "do not trust", "only 2 of 8 perturbations clearly change"),
    "three strong": ({"n_strong": 3}, "trust", "held-out effects of 3 strong perturbations"),
    "r of no use": ({"r": (0.26, 0.05)}, "care", "the held-out correlation is small"),
    "r just below": ({"r": (0.49, 0.05)}, "care", "the held-out correlation is small"),
    "r just there": ({"r": (0.51, 0.05)}, "trust", ""),
    "r not clear": ({"r": (0.6, 0.31)}, "do not trust", "correlation is not clearly above 0"),
    "r just clear": ({"r": (0.6, 0.29)}, "trust", ""),
    "r below 0": ({"r": (-0.6, 0.1)}, "do not trust", "correlation is not clearly above 0"),
    "no r": ({"r": (np.nan, 0.1)}, "do not trust", "r = unknown"),
    "little on nothing": (
        {"error_nothing": (0.82, 0.02)}, "care", "predicts hardly better than 'nothing changes'.",
    ),
    "enough on nothing": ({"error_nothing": (0.79, 0.02)}, "trust", ""),
    "not clear on nothing": (
        {"error_nothing": (0.6, 0.2)}, "care", "not clearly predict better than 'nothing changes'.",
    ),
    "worse than nothing": (
        {"error_nothing": (1.01, 0.01)}, "do not trust",
        "greedy: 'nothing changes' predicts better than the graph here.",
    ),
    "nearly nothing": ({"error_nothing": (0.99, 0.1)}, "care", "better than 'nothing changes'."),
    "worse than the mean": (
        {"error_mean": (1.01, 0.01)}, "do not trust",
        "the mean perturbation predicts better than the graph here.",
    ),
    "worse than coexpression": (
        {"error_coexpression": (1.01, 0.001)}, "do not trust",
        "use random or greedy: coexpression over the controls predicts better than the graph here.",
    ),
    "little on coexpression": (
        {"error_coexpression": (0.82, 0.02)}, "care", "hardly better than coexpression over the co",
    ),
    "not clear on coexpression": (
        {"error_coexpression": (0.75, 0.15)}, "care", "clearly predict better than coexpression",
    ),
    "worse than both": (
        {"error_mean": (1.5, 0.1), "error_nothing": (1.2, 0.1)}, "do not trust",
        "the mean perturbation predicts better than the graph here; the model does not clearly "
        "predict better than 'nothing changes'.",
    ),
    "narrow": ({"coverage_90": (0.69, 0.01)}, "care", "the intervals are too narrow"),
    "just wide": ({"coverage_90": (0.71, 0.01)}, "trust", ""),
    "hopeless": ({"coverage_90": (0.06, 0.01)}, "do not trust", "hold 6 %"),
    "just hopeless": ({"coverage_90": (0.49, 0.01)}, "do not trust", "hold 49 %"),
    "just not hopeless": ({"coverage_90": (0.51, 0.01)}, "care", "the intervals are too narrow"),
    "random graphs": (
        {"n_better": 5}, "care", "parents predict their genes no better than those of random",
    ),
    "few random graphs": ({"n_better": 4}, "trust", ""),
    "nothing added": (
        {"error_empty": (1.0, 0.0), "distance_rank": (0.6, 0.0)}, "do not trust",
        "use random or greedy: the graph adds nothing here. Held-out",
    ),
    "next to nothing added": (
        {"error_empty": (0.92, 0.01), "distance_rank": (0.64, 0.01)}, "do not trust",
        "the graph adds nothing here",
    ),
    "nothing clear added": (
        {"error_empty": (0.5, 0.2), "distance_rank": (0.8, 0.11)}, "do not trust",
        "the graph adds nothing clear here",
    ),
    "fewer errors, not clear": (
        {"error_empty": (0.5, 0.2), "distance_rank": (0.6, 0.0)}, "do not trust", "nothing clear",
    ),
    "better ranks, not clear": (
        {"error_empty": (1.2, 0.1), "distance_rank": (0.8, 0.11)}, "do not trust", "nothing clear",
    ),
    "ranks alone": (
        {"error_empty": (1.2, 0.1)}, "care", "not clearly predict better than an empty graph.",
    ),
    "ranks just": ({"error_empty": (1.2, 0.1), "distance_rank": (0.66, 0.01)}, "care", "an empty"),
    "ranks worse": (
        {"error_empty": (1.2, 0.1), "distance_rank": (0.4, 0.01)}, "do not trust", "adds nothing",
    ),
    "errors alone": (
        {"distance_rank": (0.6, 0.05)}, "care", "are not clearly ranked better than by an empty",
    ),
    "errors, ranks not clear": (
        {"distance_rank": (0.7, 0.06)}, "care", "are not clearly ranked better than by an empty",
    ),
    "errors just": (
        {"distance_rank": (0.6, 0.05), "error_empty": (0.89, 0.01)}, "care",
        "the model predicts hardly better than an empty graph; distances to a target are not",
    ),
    "ranks not known": ({"distance_rank": (np.nan, 0.0)}, "trust", "same shifts; 90 % intervals"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_rules_at_their_thresholds(case):
    changed, expected, words = CASES[case]
    level, said, _ = judged(**changed)
    assert (level, words in said) == (expected, True), said


def test_weak_perturbations_do_not_count():
    table, genes, r = screen(n_strong=5)
    table.loc[5:, "r"] = -1.0
    by = {q.name: q for q in verdicts.summarise(table, genes, r)}
    assert by["r"].n == 5
    assert by["r"].value > 0.7
    table["is_strong"] = np.arange(N) < 2  # too few: all of them count
    by = {q.name: q for q in verdicts.summarise(table, genes, r)}
    assert by["r"].n == N


@pytest.mark.parametrize(("z", "n_clear"), [(3.0, 1), (-3.0, 1), (2.99, 0), (-2.99, 0)])
def test_a_change_is_clear_from_three_standard_errors_on(z, n_clear):
    assert scores.sign_accuracy(np.ones(1), np.array([0.5 * z]), np.array([0.5]))[1] == n_clear


def test_signs_are_counted():
    effect, observed = np.array([1.0, -1.0, 2.0, 0.0]), np.array([5.0, -5.0, -5.0, 5.0])
    assert scores.sign_accuracy(effect, observed, np.ones(4)) == (0.625, 4)


def test_strength_and_coverage_by_hand():
    # Two perturbations of three genes, the first of each its target.
    is_target = np.array([[True, False, False], [True, False, False]])
    observed = np.array([[-3.0, 1.0, 1.0], [2.99, 1.0, 1.0]])
    rank = np.array([[0.0, 0.71, 0.96], [0.0, 0.56, 0.24]])
    ones, used = np.ones((2, 3)), Interventions(["A", "B"], [["G"], ["G"]], observed, [""] * 2)
    held_out = HeldOut(is_target, observed, ones, ones, ones, ones, ones, ones, rank)
    table = tables.perturbation_table(held_out, used, ["G", "H", "I"], [5, 5])
    assert table["is_strong"].tolist() == [True, False]
    assert table["coverage_50"].tolist() == [0.5, 0.5]
    assert table["coverage_90"].tolist() == [0.5, 1.0]
    both = tables.calibration_table(held_out, np.array([True, True]))
    expected = [0, 0.25, 0.25, 0.25, 0.5, 0.75, 0.75, 0.75, 0.75]
    np.testing.assert_allclose(both["coverage"], expected)
    first = tables.calibration_table(held_out, np.array([True, False]))
    np.testing.assert_allclose(first["coverage"], [0] * 4 + [0.5] * 5)


@pytest.mark.filterwarnings("ignore:Perturbations left out")
@pytest.mark.parametrize("shift", ["knockout"])
def test_the_empty_graph_against_a_brute_force(small_screen, arcs, shift):
    npt.tl.learn_dag(small_screen, method="given", dag=arcs, genes=list(small_screen.var_names))
    npt.tl.diagnose(small_screen, shift=shift)
    table = small_screen.uns["diagnosis"]["perturbations"].set_index("perturbation")
    names, genes = list(table.index), list(small_screen.var_names)
    labels = small_screen.obs["perturbation"].astype(str).to_numpy()
    cells = {name: small_screen.X[labels == name] for name in ["control", *names]}
    mu = cells["control"].mean(axis=0)
    shifts = {name: np.zeros(len(genes)) for name in names}
    for name in names:
        own = [genes.index(gene) for gene in name.split("+")]
        shifts[name][own] = (cells[name].mean(axis=0) - mu if shift == "observed" else -mu)[own]
    graph = Dag.from_edges(len(genes), [(genes.index(a), genes.index(b)) for a, b in arcs])
    reached = {"": {}, "_empty": {}}
    for held_out in names:
        for which, dag in (("", graph), ("_empty", Dag.from_edges(len(genes), []))):
            blr = DagBlr(dag).update(Moments.from_array(cells["control"]))
            for name in names:
                if name != held_out:
                    blr = blr.update(Moments.from_array(cells[name]), shifts[name])
            reached[which][held_out] = blr.predict_mean(shifts[held_out])
        others = np.isin(genes, held_out.split("+"), invert=True)
        apart = reached["_empty"][held_out] - cells[held_out].mean(axis=0)
        assert table.loc[held_out, "error_empty"] == pytest.approx(np.mean(apart[others] ** 2))
    for target in names:
        mean = cells[target].mean(axis=0)
        others = [name for name in names if name != target]
        truth = [((cells[name].mean(axis=0) - mean) ** 2).sum() for name in others]
        for which, found in reached.items():
            guess = [((found[name] - mean) ** 2).sum() for name in others]
            expected = spearmanr(guess, truth).statistic
            assert table.loc[target, f"distance_rank{which}"] == pytest.approx(expected)


def test_nothing_is_added_without_arcs():
    adata = npt.datasets.simulated_screen(n_genes=8, n_control=300, n_perturbed=80, rng=0)
    npt.tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
    npt.tl.diagnose(adata)
    table = adata.uns["diagnosis"]["perturbations"]
    assert (table["distance_rank"] - table["distance_rank_empty"]).mean() > 0.1
    npt.tl.learn_dag(adata, method="given", dag=[], genes=list(adata.var_names))
    npt.tl.diagnose(adata)
    found = adata.uns["diagnosis"]
    assert "the graph adds nothing here" in found["verdict"]
    rows = found["summary"].set_index("quantity")
    assert rows.loc["error_to_empty", ["value", "passed"]].tolist() == [1, "no"]
    assert rows.loc["distance_rank_gain", ["value", "passed"]].tolist() == [0, "no"]
