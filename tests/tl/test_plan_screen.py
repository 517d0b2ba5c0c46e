"""The next plate: what is on it, its cells and costs, and what constraints do."""

from __future__ import annotations

import logging
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert._adata.arguments import in_mappings
from nextpert.core.design.distances import ranked_distance
from nextpert.core.design.plate import best_order
from nextpert.core.design.remaining_variance import removed
from nextpert.study.panel_target import without_own_genes
from nextpert.study.plate import PlateSize, split_cells
from nextpert.study.pool import read_candidates
from nextpert.study.ranking import draws_of
from nextpert.tl._read_target import read_target
from tests._screens import simulated_fit

pytestmark = pytest.mark.full_chain


@pytest.fixture
def fitted():
    """Five knockouts, fitted on their true graph."""
    return simulated_fit(
        n_control=600, n_perturbed=40, perturbed=["MYC", "FOS", "CDK4", "B2M", "CD58"], rng=1
    )


def planned(adata, target="MYC", **options):
    """Return the wells of perturbations, the controls, and all that was stored."""
    flat = {"strategy": "both", **options}
    if flat.get("candidates", "genes") == "genes":  # by name, so that the target's own is kept
        genes = adata.var_names if "candidates" in flat else ()
        flat["candidates"] = list(dict.fromkeys([*posterior_from(adata).names, *genes]))
    npt.tl.plan_screen(adata, target, **in_mappings(npt.tl.plan_screen, flat))
    stored = adata.uns["plan"]
    table = stored["plate"]
    return table[table["strategy"] != "control"], table[table["strategy"] == "control"], stored


@pytest.mark.slow
def test_a_plate_has_the_wells_and_cells_asked_for(fitted):
    wells, controls, stored = planned(fitted, n_perturbations=6, n_cells=700, candidates="genes")
    assert len(wells) == 6
    assert wells["perturbation"].is_unique
    assert stored["plate"]["n_cells"].sum() == 700
    assert np.ptp(wells["n_cells"]) <= 1
    assert controls["n_cells"].item() == pytest.approx(6**0.5 * wells["n_cells"].mean(), rel=0.02)
    assert wells["variance_reduction"].is_monotonic_increasing
    assert wells["probability_contains_best"].is_monotonic_increasing
    assert (
        stored["summary"]["probability_contains_best"]
        == wells["probability_contains_best"].iloc[-1]
    )


def test_the_best_are_those_of_the_plate_that_replays_fill(fitted):
    target = npt.Target(state="MYC", own_genes="include")  # as in replays
    wells, _, _ = planned(
        fitted, target, strategy="exploit", n_perturbations=4, candidates="genes", rng=5
    )  # fmt: skip
    fit = posterior_from(fitted)
    pool = read_candidates("genes", fit)
    wanted = read_target(fitted, target, fit)
    rng = np.random.default_rng(5)
    states = pool.states(fit, wanted.rows_in_fit)
    found = ranked_distance(states, wanted.goal, n_samples=1000, rng=rng)
    order = best_order(found.centre[:-1], found.draws[:, :-1], 4)[0][:4]
    assert wells["perturbation"].tolist() == [pool.interventions.names[i] for i in order]
    np.testing.assert_allclose(wells["probability_contains_best"], np.cumsum(found.nearest[order]))
    assert (wells["strategy"] == "exploit").all()


@pytest.mark.slow
def test_where_the_best_is_known_wells_go_to_learning():
    # Twelve perturbations, so that the graph is known to predict those without cells.
    names = [
        "MYC",
        "FOS",
        "CDK4",
        "B2M",
        "CD58",
        "CDH19",
        "CTSB",
        "CXCR4",
        "CCR10",
        "IRF3",
        "HLA-A",
        "RB1",
    ]
    fitted = simulated_fit(n_control=600, perturbed=names, rng=1)
    _, _, stored = planned(fitted, candidates="genes")
    assert stored["advice"]["best_known"] == "MYC"
    assert stored["advice"]["probability_best_known"] == 1.0
    wells, _, _ = planned(fitted, candidates="genes")
    assert wells["strategy"].tolist() == ["exploit", *["explore"] * 7]
    assert wells["perturbation"].iloc[0] == "MYC"
    # One that has to be there, or is under way, needs no other well.
    wells, _, _ = planned(fitted, candidates="genes", include=["MYC"])
    assert wells["strategy"].tolist() == ["include", *["explore"] * 7]
    wells, _, _ = planned(fitted, candidates="genes", pending=["MYC"])
    assert set(wells["strategy"]) == {"explore"}


def test_cells_go_where_they_teach_most(fitted):
    wells, _, stored = planned(fitted, strategy="explore", n_perturbations=5, candidates="genes")
    assert wells["n_cells"].min() >= 20
    assert np.ptp(wells["n_cells"]) > 10
    assert stored["plate"]["n_cells"].sum() == 2000
    fit = posterior_from(fitted)
    pool = read_candidates("genes", fit)
    wanted = read_target(fitted, "MYC", fit)
    pool, wanted = without_own_genes(pool, wanted, fit)
    each = split_cells(2000, 5, 20).cells_each
    asked = draws_of(fit, pool, wanted, n_cells=each, n_samples=1000, rng=0)
    chosen = [pool.interventions.names.index(name) for name in wells["perturbation"]]
    n_cells = wells["n_cells"].to_numpy()
    covariance, gain = asked.remaining.among(chosen)

    def by(cells):
        noise = asked.noise.rows(chosen).at(cells)
        return removed(covariance, gain, noise, 5) / asked.remaining.before

    shares = wells["variance_reduction"]
    np.testing.assert_allclose(shares, by(n_cells), rtol=1e-9)
    assert shares.iloc[-1] > by(np.full(5, n_cells.sum() / 5))[-1]


def test_each_well_removes_most_after_those_before_it(fitted):
    target = npt.Target(state="MYC", own_genes="include")
    options = {"strategy": "explore", "n_perturbations": 16, "candidates": "genes"}
    names = planned(fitted, target, **options)[0]["perturbation"]
    fit = posterior_from(fitted)
    pool = read_candidates("genes", fit)
    wanted = read_target(fitted, target, fit)
    each = split_cells(2000, 16, 20).cells_each
    asked = draws_of(fit, pool, wanted, n_cells=each, n_samples=1000, rng=0)
    left, measures = deepcopy(asked.remaining), asked.noise.at(each)
    chosen = []
    for _ in names:
        gains = left.gains(measures)
        gains[chosen] = -np.inf
        chosen.append(int(gains.argmax()))
        left.observe(chosen[-1], float(measures[chosen[-1]]))
    assert names.tolist() == [pool.interventions.names[k] for k in chosen]


def test_cells_under_way_count_as_observed_first(fitted):
    told = {"strategy": "explore", "n_perturbations": 3, "candidates": "genes"}
    first = planned(fitted, **told)[0]
    best = first["perturbation"].iloc[0]
    later = planned(fitted, pending={best: 400}, **told)[0]
    assert best not in set(later["perturbation"])
    assert later["variance_reduction"].iloc[0] > first["variance_reduction"].iloc[0]


@pytest.mark.slow
def test_names(fitted):
    target = npt.Target(state="MYC", own_genes="include")
    wells, _, stored = planned(
        fitted, target, include=["FOS"], exclude=["CDK4"], pending={"B2M": 50}, candidates="genes",
        n_perturbations=36,
    )  # fmt: skip
    assert wells["perturbation"].iloc[0] == "FOS"
    assert wells["why"].iloc[0] == "named in include"
    assert not {"CDK4", "B2M"} & set(wells["perturbation"])
    assert len(wells) == 34
    assert stored["pending"].to_dict("list") == {"perturbation": ["B2M"], "n_cells": [50.0]}
    # A forbidden gene is forbidden in combinations too.
    wells, _, _ = planned(fitted, candidates=["MYC", "MYC+FOS", "CD58"], exclude=["FOS"])
    assert set(wells["perturbation"]) == {"MYC", "CD58"}


@pytest.mark.slow
def test_combinations_join_the_candidates(fitted):
    truth = fitted.uns["truth"]
    names = [str(gene) for gene in fitted.var_names]
    pair = [names.index("FOS"), names.index("CDK4")]
    effect = np.linalg.inv(np.eye(len(names)) - truth["weights"].toarray())
    control = np.asarray(fitted[fitted.obs["perturbation"] == "control"].X.mean(axis=0)).ravel()
    target = dict(zip(names, control - effect[:, pair] @ control[pair], strict=True))
    wells, _, stored = planned(
        fitted, target, strategy="explore", max_combination=2, n_perturbations=30
    )
    assert "CDK4+FOS" in set(wells["perturbation"])
    left = stored["summary"]["n_not_admitted"]
    assert stored["params"]["n_candidates"] == 5 + 10 - left < 5 + 10
    assert (wells[wells["perturbation"].str.contains("+", regex=False)]["n_cells_seen"] == 0).all()
    assert len(wells) == 5 + 10
    options = {"max_combination": 2, "n_perturbations": 30}
    wells, _, stored = planned(fitted, target, strategy="exploit", **options)
    assert len(wells) == 5 + 10 - stored["summary"]["n_not_admitted"]
    with pytest.raises(ValueError, match="at least two single candidates"):
        planned(fitted, candidates=["MYC"], max_combination=2)


def test_cells_are_shared_out_by_hand():
    cells, controls = PlateSize(3, 20, 103, 20).share_out(3)
    assert (cells.tolist(), controls) == ([22, 22, 21], 38)  # 103 sqrt(3) / (3 + sqrt(3)) = 37.7
    cells, controls = PlateSize(2, 30, 70, 30, n_controls=20).share_out(
        2
    )  # 25 each would be too few
    assert (cells.tolist(), controls) == ([50], 20)
    assert PlateSize(4, 20, 120, 20).share_out(4)[0].tolist() == [20] * 4  # the least, beside 40
    assert split_cells(100, 8, 20).size == 3
    assert split_cells(2000, 10**8, 20) == split_cells(2000, 100, 20)
    with pytest.raises(ValueError, match="20 cells do not suffice for one perturbation with"):
        split_cells(20, 3, 20)


def test_contradictions_write_nothing(fitted):
    for options, words in (
        ({"include": ["FOS"], "exclude": ["FOS"]}, "not among the candidates: FOS"),
        ({"include": ["FOS"], "pending": ["FOS"]}, "include and pending both name FOS"),
        ({"include": ["FSO"]}, "Close matches: FOS"),
        ({"exclude": ["MYC", "FOS", "CDK4", "B2M", "CD58"]}, "No candidate is left"),
        ({"max_combination": 3}, "max_combination'] must be 1 or 2"),
        ({"strategy": "exploi"}, "Close matches: exploit"),
        (
            {"include": ["FOS", "B2M"], "n_perturbations": 1},
            "2 candidates, but the plan has room for 1",
        ),
        ({"candidates": ["MYC", "control"]}, "candidates names 'control', the label"),
        (
            {"include": iter(["control"])},
            "include names 'control', the label of the controls, which are in every round",
        ),
        ({"exclude": ["control"]}, "exclude names 'control', the label of the controls"),
        ({"pending": ["control"]}, "pending names 'control', the label of the controls"),
        ({"pending": {"control": 50}}, "pending names 'control', the label of the controls"),
        ({"pending": {"MYC": 1.5}}, r"pending\['MYC'\] must be a whole number that is a number of"),
        ({"candidates": ["MYC+MYC"]}, r"contain a member more than once: MYC\+MYC\. Name each"),
    ):
        with pytest.raises(ValueError, match=words):
            npt.tl.plan_screen(fitted, "MYC", **in_mappings(npt.tl.plan_screen, options))
    assert "plan" not in fitted.uns


@pytest.mark.slow
def test_as_many_guides_as_the_screen_has(fitted):
    assert (planned(fitted)[0]["n_guides"] == 1).all()  # none are known
    guided = fitted.copy()
    label = guided.obs["perturbation"].astype(str)
    n = label.map({"MYC": 1, "FOS": 2, "CDK4": 4, "B2M": 4, "CD58": 5, "control": 9}).to_numpy()
    guide = label + "-" + pd.Series(np.arange(len(n)) % n, label.index).astype(str)
    guided.obs["guide"] = guide.mask(guide == "FOS-0")
    npt.pp.setup_screen(guided, guide_key="guide")
    npt.tl.fit_dag_blr(guided)
    wells, _, stored = planned(guided)
    # The median of 1, 1, 4, 4, 5: guides vary, so that each gets as many new ones.
    has = dict.fromkeys(["MYC", "FOS", "CDK4", "B2M", "CD58"], 4)
    own = wells["perturbation"].map(has)
    assert wells["n_guides"].tolist() == own.tolist()
    assert set(npt.get.order_df(guided).query("kind != 'control'")["status"]) == {"design"}
    assert stored["params"]["n_guides"] == 4
    # No more than there are cells.
    few, _, stored = planned(guided, n_cells=12, min_cells=1, n_perturbations=5)
    assert few["n_cells"].max() < 4
    assert (
        few["n_guides"].tolist()
        == np.minimum(few["n_cells"], few["perturbation"].map(has)).tolist()
    )
    assert stored["params"]["n_guides"] == few["n_cells"].max()


def test_why_cites_the_column_that_chose_a_well(fitted):
    means = fitted.to_df().groupby(fitted.obs["perturbation"].astype(str)).mean()
    away = (means.loc["MYC"] - means.loc["control"]).abs()
    state = means.loc["MYC"][away.nlargest(9).index].to_dict()
    wells, controls, _ = planned(fitted, state, strategy="exploit", candidates="genes", rng=5)
    npt.tl.design_interventions(fitted, state, candidates="genes")
    ranking = fitted.uns["design"]["ranking"].set_index("perturbation")["state_distance"]
    names = [*wells["perturbation"], "control"]
    np.testing.assert_allclose(
        [*wells["state_distance"], *controls["state_distance"]], ranking[names]
    )
    best = wells[wells["strategy"] == "exploit"]
    by_state, by_chance = best.head(4), best.tail(-4)
    # The first half by the distance of the expected state.
    assert by_state["state_distance"].tolist() == ranking.nsmallest(4).tolist()
    nothing = controls["state_distance"].item()
    for place, (why, state) in enumerate(
        zip(by_state["why"], by_state["state_distance"], strict=True), start=1
    ):
        said = f"rank {place} of 36 by state_distance ({state:.3g}; control {nothing:.3g})"
        assert why == said
    # The second half by the probability of being the nearest of the others.
    assert len(by_chance)
    words = "nearest of the remaining candidates with probability "
    chance = [
        0.0 if why.endswith("< 1%") else float(why.removeprefix(words)[:-1])
        for why in by_chance["why"]
    ]
    assert chance == sorted(chance, reverse=True)
    assert sum(chance) <= 101
    wells, _, _ = planned(fitted, strategy="explore", candidates="genes", n_perturbations=30)
    gained = np.diff(wells["variance_reduction"], prepend=0)
    words = "is expected to resolve below 0.1% more of the remaining uncertainty"
    small = wells["why"] == words
    np.testing.assert_array_equal(small, gained < 1e-3)
    assert small.any()
    assert not small.all()


@pytest.mark.parametrize("strategy", ["exploit", "both"])
def test_what_is_expected_farther_than_the_control_does_not_find_the_best(strategy, fitted, caplog):
    with caplog.at_level(logging.WARNING, "nextpert"):
        wells, controls, _ = planned(
            fitted, strategy=strategy, n_perturbations=20, candidates="genes"
        )
    nothing = controls["state_distance"].item()
    best = wells[wells["strategy"] == "exploit"]
    assert 0 < len(best) < 20
    assert (best["state_distance"] < nothing).all()
    others = wells[wells["strategy"] == "explore"]
    assert len(best) + len(others) == 20
    if strategy == "exploit":
        assert (others["state_distance"] >= nothing).all()
        assert f"{len(others)} of 20 perturbations " in caplog.text
