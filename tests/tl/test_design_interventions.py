"""``tl.design_interventions`` against dense brute force, and the tables a biologist reads."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.core.design.distances import RankedDistance
from nextpert.core.design.goal import Goal
from nextpert.core.fit.candidates import CandidateSet
from nextpert.core.fit.interventions import Interventions
from nextpert.study.panel_target import PanelTarget
from nextpert.study.pool import Pool
from nextpert.study.ranking import FLAT, Ranking, candidates_of, nothing_of, ranking_table
from nextpert.tl._read_target import read_target
from tests._screens import small_fit, with_fit

pytestmark = pytest.mark.filterwarnings("ignore:Perturbations left out")
LABELS = ["MYC", "MYC+OXR1", "OXR1", "STK3"]
COLUMNS = [
    "rank", "perturbation", "target_genes", "genes_left_out", "shift", "shift_source",
    "acquisition", "variance_reduction", "state_distance", "predicted_distance",
    "mean_distance", "predicted_low", "predicted_high",
    "relative_distance", "probability_best", "probability_better",
    "measured_distance", "n_cells_seen", "probability_nearer_than_members",
    "probability_nearer_than_measured", "is_control",
]  # fmt: skip


@pytest.fixture
def fitted():
    return small_fit(shift_sd=0)


def mean_of(adata, label):
    return np.asarray(adata.X[(adata.obs["perturbation"] == label).to_numpy()]).mean(axis=0)


def ranking(adata, *args, **options):
    names = list(posterior_from(adata).names)
    given = options.pop("candidates", names)  # by name, so that the target's own is kept
    options["candidates"] = (
        list(dict.fromkeys([*names, *adata.var_names])) if isinstance(given, str) else given
    )
    npt.tl.design_interventions(adata, *args, **options)
    return candidates_of(adata.uns["design"]["ranking"]).set_index("perturbation", drop=False)


def civ_by_hand(blr, target, shifts, n):
    """Sections 2 to 4 of the mathematics with dense matrices, node by node."""
    p = blr.n_nodes
    weights, c = blr.mean().toarray(), blr.intercept_mean
    b = target - weights @ target - c
    alpha, beta = blr.shape + n / 2, blr.rate
    e = beta / (alpha - 1)
    kappa = beta**2 * (2 * alpha - 1) / ((alpha - 1) ** 2 * (alpha - 2))
    square = ((shifts - b) ** 2).mean(axis=0)
    out = []
    for shift in shifts:
        x = np.linalg.solve(np.eye(p) - weights, c + shift)
        total = 0.0
        for i in range(p):
            parents = blr.dag.parents(i)
            width = len(parents) + 1
            m = blr.blocks["cov"][blr.mptr[i] : blr.mptr[i + 1]].reshape(width, width)
            row, q = np.append(1, x[parents]), np.append(1, target[parents])
            after = np.linalg.inv(np.linalg.inv(m) + n * np.outer(row, row))
            s = 1 / n + q @ after @ q
            total += kappa[i] * s**2 + 4 * s * e[i] * square[i]
        out.append(total)
    return np.array(out)


def test_civ_equals_the_formulas(fitted):
    options = {"candidates": "genes", "n_cells": 40, "noise_aware": False}
    table = ranking(fitted, "STK3", acquisition="civ", **options)
    fit = posterior_from(fitted)
    shifts = fitted.uns["design"]["shifts"].toarray()
    wanted = civ_by_hand(fit.posterior, mean_of(fitted, "STK3"), shifts, 40)
    np.testing.assert_allclose(table["acquisition"], wanted, rtol=1e-6)
    assert (np.diff(table["acquisition"]) >= 0).all()


@pytest.mark.slow
def test_greedy_and_predicted_distance_by_dense_inverse(fitted):
    table = ranking(fitted, "MYC+OXR1", acquisition="greedy", n_samples=4000)
    fit = posterior_from(fitted)
    weights, c = fit.posterior.mean().toarray(), fit.posterior.intercept_mean
    target, control = mean_of(fitted, "MYC+OXR1"), mean_of(fitted, "control")
    shifts = fitted.uns["design"]["shifts"].toarray()
    b = (np.eye(8) - weights) @ target - c
    plain = ((shifts - b) ** 2).sum(axis=1)
    value = table["acquisition"].to_numpy()
    np.testing.assert_allclose(value, plain, rtol=1e-9)
    reached = np.linalg.solve(np.eye(8) - weights, (c + shifts).T).T
    cells = fitted.X[(fitted.obs["perturbation"] == "MYC+OXR1").to_numpy()]
    sampling = cells.var(axis=0).sum() / (len(cells) - 1)  # of the target's mean, taken out
    plug_in = ((reached - target) ** 2).sum(axis=1) - sampling
    assert (np.abs(table["predicted_distance"] - plug_in) < table["predicted_high"] - plug_in).all()
    nothing = nothing_of(fitted.uns["design"]["ranking"])
    relative = table["predicted_distance"] / nothing["predicted_distance"]
    np.testing.assert_allclose(table["relative_distance"], relative)
    apart = ((control - target) ** 2).sum() - sampling
    np.testing.assert_allclose(nothing["predicted_distance"], apart, rtol=0.1)
    np.testing.assert_allclose(fitted.uns["design"]["floor"], sampling)
    np.testing.assert_allclose(fitted.uns["design"]["target_mean"], target)


@pytest.mark.parametrize("label", LABELS)
def test_a_perturbation_is_the_best_way_to_its_own_state(label, fitted):
    table = ranking(fitted, label, candidates=[*LABELS, *fitted.var_names])
    assert table["predicted_distance"].idxmin() == label
    assert table.loc[label, "relative_distance"] < 0.05


def test_ranking_reads_well(fitted):
    table = ranking(fitted, "MYC")
    assert sorted(table.columns) == sorted(COLUMNS)
    # print() shows the first and the last where it leaves out the middle.
    assert table.columns[:3].tolist() == ["rank", "perturbation", "predicted_distance"]
    assert table.columns[-2:].tolist() == ["probability_best", "n_cells_seen"]
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert sorted(table["perturbation"]) == LABELS
    control = mean_of(fitted, "control")
    assert table.loc["MYC+OXR1", "target_genes"] == "MYC, OXR1"
    assert table.loc["MYC+OXR1", "shift"] == f"{-control[0]:+.2f}, {-control[4]:+.2f}"
    assert set(table["n_cells_seen"]) == {60}


@pytest.mark.parametrize(
    "target",
    [
        npt.Target(state="MYC", own_genes="include"),
        npt.Target(state={"MYC": 1.2}, others="control"),
        {"MYC": 1.2},
    ],
    ids=["MYC", "numbers", "one gene"],
)
def test_doing_nothing_is_the_last_row_and_no_candidate(target, fitted):
    npt.tl.fit_dag_blr(fitted)
    npt.tl.design_interventions(fitted, target, candidates="genes")
    stored = fitted.uns["design"]
    table = stored["ranking"]
    assert table["is_control"].tolist() == [False] * (len(table) - 1) + [True]
    row = table.iloc[-1]
    assert (row["perturbation"], row["rank"], row["relative_distance"]) == ("control", 0, 1.0)
    assert row["n_cells_seen"] == (fitted.obs["perturbation"] == "control").sum()
    assert np.isnan(row[["acquisition", "probability_best"]].tolist()).all()
    cells = fitted.X[(fitted.obs["perturbation"] == "control").to_numpy()]
    wanted = read_target(fitted, target, posterior_from(fitted)).cells
    counted = wanted.weights > 0
    assert counted.sum() == (1 if isinstance(target, dict) else len(counted))
    apart = ((cells.mean(axis=0) - wanted.states[0]) ** 2)[counted].sum() - stored["floor"]
    apart -= cells.var(axis=0)[counted].sum() / (len(cells) - 1)
    assert row["measured_distance"] == pytest.approx(max(apart, 0), abs=1e-6)
    assert row["predicted_low"] <= row["predicted_distance"] <= row["predicted_high"]
    assert stored["shifts"].shape[0] == len(table) - 1
    assert stored["trace"]["chosen"].iloc[-1] == table["perturbation"].iloc[0] != "control"


@pytest.mark.parametrize(
    "acquisition", ["civ", "civ_ow", "cv", "maxv", "target_mean_variance", "greedy", "random"]
)
def test_every_acquisition_sorts_by_its_own_value(acquisition, fitted):
    table = ranking(fitted, "MYC", acquisition=acquisition, candidates="genes")
    assert (np.diff(table["acquisition"]) >= 0).all()
    assert np.isfinite(table["acquisition"]).all()
    assert fitted.uns["design"]["trace"]["acquisition"].tolist() == [acquisition]
    values = dict(zip(table["perturbation"], table["acquisition"], strict=True))
    assert len(set(values.values())) > 1


@pytest.mark.slow
def test_seeds_reproduce_and_rounds_differ(fitted):
    one, two = fitted.copy(), fitted.copy()
    picks = []
    for adata in (one, two):
        picks.append([])
        for n in range(1, 4):
            # A round has cells of its own.
            adata.X[0, 0] += n
            npt.tl.fit_dag_blr(adata, shift_sd=0)
            npt.tl.design_interventions(adata, "MYC", acquisition="random", candidates="genes")
            ranked = candidates_of(adata.uns["design"]["ranking"])
            picks[-1].append(ranked["perturbation"].tolist())
    assert picks[0] == picks[1]
    assert len({tuple(order) for order in picks[0]}) > 1
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    npt.tl.design_interventions(one, "MYC", rng=None)
    npt.tl.design_interventions(one, "MYC", rng=np.random.default_rng(3))
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_targets_by_group_and_by_gene(fitted):
    npt.tl.design_interventions(fitted, ("batch", "a"))
    in_batch = (fitted.obs["batch"] == "a").to_numpy()
    wanted = fitted.X[in_batch].mean(axis=0)
    np.testing.assert_allclose(fitted.uns["design"]["target_mean"], wanted)
    for target in ({"OXR1": 0.0, "MYC": 4.0}, pd.Series({"OXR1": 0.0, "MYC": 4.0})):
        npt.tl.design_interventions(fitted, target)
        wanted = mean_of(fitted, "control")
        wanted[[0, 4]] = 4.0, 0.0
        np.testing.assert_allclose(fitted.uns["design"]["target_mean"], wanted)


def test_candidates(fitted):
    control = mean_of(fitted, "control")
    genes = ranking(fitted, "MYC", candidates="genes")
    assert sorted(genes["perturbation"]) == sorted([*fitted.var_names, "MYC+OXR1"])
    assert genes.loc["CPQ", "n_cells_seen"] == 0
    unseen = ranking(fitted, "MYC", candidates=["STK3+CPQ", "STK3", "STK3"])
    assert sorted(unseen["perturbation"]) == ["STK3", "STK3+CPQ"]
    assert unseen.loc["STK3+CPQ", "shift"] == f"{-control[1]:+.2f}, {-control[7]:+.2f}"
    table = ranking(fitted, "MYC", candidates=pd.DataFrame({"MYC": [-0.5], "CPQ": 0.2}, ["half"]))
    assert table.loc["half", ["target_genes", "shift", "shift_source"]].tolist() == [
        "MYC, CPQ", "-0.50, +0.20", "table",
    ]  # fmt: skip


def test_shifts_as_fitted_go_on_for_unseen_candidates(fitted):
    npt.tl.fit_dag_blr(fitted, shift="activation", shift_sd=0)
    table = ranking(fitted, "MYC", candidates=["MYC", "OXR1+STK3"])
    assert set(table["shift_source"]) == {"activation"}
    assert table["shift"].to_dict() == {"MYC": "+1.00", "OXR1+STK3": "+1.00, +1.00"}
    with pytest.warns(UserWarning, match="left out"):
        npt.tl.fit_dag_blr(fitted, shift={"MYC": {"MYC": -0.3}}, shift_sd=0)
    with pytest.warns(UserWarning, match="candidates OXR1, which are modelled as knockouts"):
        table = ranking(fitted, "MYC", candidates=["MYC", "OXR1"])
    assert table.loc["MYC", "shift"] == "-0.30"
    assert table["shift_source"].to_dict() == {"MYC": "table", "OXR1": "knockout"}


def test_more_uncertainty_after_fewer_cells(fitted):
    few = fitted[np.arange(fitted.n_obs) % 6 == 0].copy()
    npt.tl.fit_dag_blr(few, shift_sd=0)
    tables = (ranking(adata, {"MYC": 1.5}) for adata in (fitted, few))
    sure, unsure = (table["predicted_high"] - table["predicted_low"] for table in tables)
    assert (unsure[sure.index] > sure).all()


def test_equals_are_ordered_by_predicted_distance(fitted):
    fit = posterior_from(fitted)
    pool = Interventions(list("abcd"), [["MYC"]] * 4, np.zeros((4, 8)), ["table"] * 4)
    mean, ones = np.array([3.0, 9.0, 1.0, 2.0, 2.0]), np.ones(5)
    distance = RankedDistance(mean, mean, ones, ones, mean, ones, ones, mean[None])
    candidates = CandidateSet.exact(pool)
    values, removed = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0.5, 0.6, 0.5, 0.5])
    goal = Goal.point(np.zeros(8))
    target = PanelTarget("goal", goal, goal)
    every = np.ones(4, bool)
    found = Ranking(Pool(candidates, target, every), SimpleNamespace(distances=distance), every, {})
    table, order = ranking_table(found, values, removed, fit, flat=False)
    table = candidates_of(table)
    assert table["perturbation"].tolist() == ["b", "c", "d", "a"]
    assert order.tolist() == [1, 2, 3, 0]
    assert table["relative_distance"].tolist() == [4.5, 0.5, 1.0, 1.5]


def test_variance_reduction_grows_with_the_cells_and_has_no_say_in_greedy(fitted):
    options = {"acquisition": "civ", "candidates": "genes"}
    few = ranking(fitted, "STK3", n_cells=10, **options)
    many = ranking(fitted, "STK3", n_cells=1000, **options)
    few, many = (t.set_index("perturbation")["variance_reduction"] for t in (few, many))
    # The acquisition falls as more is removed; candidates without effect differ by rounding.
    assert (np.diff(few) < 1e-12).all()
    assert (few > 0).all()
    assert (many > few[many.index]).all()
    assert (many < 1).all()
    plain = ranking(fitted, "STK3", n_cells=10, noise_aware=False, **options)
    again = plain.set_index("perturbation")["variance_reduction"]
    pd.testing.assert_series_equal(again[few.index], few)  # always told with the noise
    greedy = ranking(fitted, "STK3", acquisition="greedy")
    assert greedy["variance_reduction"].isna().all()


@pytest.mark.parametrize(("shift_sd", "default"), [(0, "civ"), ("learned", "probability")])
def test_the_default_acquisition_follows_the_fit(small_screen, edges, shift_sd, default):
    with_fit(small_screen, edges, genes=None, shift_sd=shift_sd)
    found = {}
    for name in ("auto", "remaining_variance", "probability", *["civ"] * (shift_sd == 0)):
        options = {} if name == "auto" else {"acquisition": name}
        npt.tl.design_interventions(small_screen, "MYC", key_added=name, **options)
        found[name] = small_screen.uns[name]
    assert found["auto"]["params"]["acquisition"] == default
    assert found["auto"]["trace"]["acquisition"].tolist() == [default]
    values = {name: found[name]["ranking"]["acquisition"].to_numpy() for name in found}
    np.testing.assert_array_equal(values["auto"], values[default])
    reduced = values.pop("remaining_variance")
    assert not any(np.array_equal(reduced, other) for other in values.values())


def test_each_name_has_one_meaning(fitted, assert_same_adata):
    assert_named(fitted, npt.Target(signature={"MYC": 1.0}), "'civ' has .* single target state")
    npt.tl.design_interventions(fitted, npt.Target(signature={"MYC": 1.0}))
    assert fitted.uns["design"]["params"]["acquisition"] == "remaining_variance"
    npt.tl.fit_dag_blr(fitted)
    before = fitted.copy()
    assert_named(fitted, "MYC", "'civ' needs exact shifts")
    with pytest.raises(ValueError, match="remaining_variance"):
        npt.tl.plan_screen(fitted, "MYC", strategy="civ", n_perturbations=1, n_cells=50)
    assert_same_adata(fitted, before)


def assert_named(adata, target, words):
    for name in ("civ", "civ_ow"):
        said = words.replace("civ", name)
        with pytest.raises(ValueError, match=f"(?s){said}.*'remaining_variance'"):
            npt.tl.design_interventions(adata, target, acquisition=name)


def test_remaining_variance_under_exact_shifts_by_dense_matrices(fitted):
    """Equation 33 over draws of the graph's posterior, with every matrix formed."""
    target, n, p = mean_of(fitted, "MYC+OXR1"), 2_000, 8
    options = {"acquisition": "remaining_variance", "n_cells": 300, "n_samples": n}
    found = ranking(fitted, target, **options)[["acquisition", "variance_reduction"]]
    blr, shifts = posterior_from(fitted).posterior, fitted.uns["design"]["shifts"].toarray()
    draws, _ = blr.sample(n, np.random.default_rng(0))
    b, c = np.zeros((n, p, p)), np.zeros((n, p, 1))
    for i in range(p):
        weights = draws[:, blr.vptr[i] : blr.vptr[i + 1]]
        c[:, i, 0], b[:, i, blr.dag.parents(i)] = weights[:, 0], weights[:, 1:]
    shifts_and_control = np.vstack([shifts, np.zeros(p)]).T
    states = np.linalg.solve(np.eye(p) - b, c + shifts_and_control)  # (draws, genes, shifts)
    drawn = ((states - target[:, None]) ** 2).sum(axis=1)
    reach = np.linalg.inv(np.eye(p) - blr.mean().toarray())
    cell = reach @ np.diag(blr.noise_var) @ reach.T
    away = (blr.intercept_mean + shifts) @ reach.T - target
    noise = 4 * np.einsum("ki,ij,kj->k", away, cell, away) / 300
    noise += 2 * np.trace(cell @ cell) / 300**2
    weights = (drawn[:, :-1] < drawn[:, -1:]).mean(axis=0)
    weights /= weights.sum()
    c = np.cov(drawn[:, :-1].T)
    c += np.diag((drawn[:, :-1].mean(axis=0) - (away**2).sum(axis=1)) ** 2)
    wanted = np.array([
        sum(w * (c[j, j] - c[j, k] ** 2 / (c[k, k] + noise[k])) for j, w in enumerate(weights))
        for k in range(len(c))
    ])  # fmt: skip
    np.testing.assert_allclose(found["acquisition"], wanted, rtol=0.08)
    np.testing.assert_allclose(
        found["variance_reduction"], 1 - wanted / (weights @ c.diagonal()), rtol=0.1, atol=0.004
    )
    assert np.ptp(found["variance_reduction"]) > 0.1


def test_the_papers_look_ahead_ranks_by_civ_however_small_the_differences(fitted):
    """With ``noise_aware=False`` the first has the smallest CIV, as in Algorithm 1."""
    options = {"acquisition": "civ", "candidates": "genes", "n_cells": 1}
    table = ranking(fitted, "STK3", noise_aware=False, **options)
    assert np.ptp(table["variance_reduction"]) < FLAT
    assert table["acquisition"].is_monotonic_increasing
    table = ranking(fitted, "STK3", **options)
    assert table["state_distance"].is_monotonic_increasing
    assert not table["acquisition"].is_monotonic_increasing
